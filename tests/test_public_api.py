"""What a notebook calls: names of the package, paths as strings, results as frames."""

from __future__ import annotations

import inspect
import re

import pytest
from conftest import sentiment_rows, write_jsonl

import promptpanda
from promptpanda import Backbone, Bank, PandaError, TrainingOptions, own_task, rank, train, transfer
from promptpanda.files import check_name

FAST = TrainingOptions(epochs=1, max_length=24, prompt_length=4)


@pytest.fixture
def task(tmp_path):
    def make(name, seed):
        path = write_jsonl(tmp_path / f"{name}.jsonl", sentiment_rows(40, seed))
        return own_task(train=str(path), test=str(path), text="text", label="label", name=name)

    return make


def test_a_bank_is_named_by_its_folder_and_a_result_is_a_frame(task, tiny_backbone, tmp_path):
    folder = str(tmp_path / "bank")
    trained = train(task("books", 5), tiny_backbone, bank=folder, options=FAST)
    assert trained.path == Bank(folder).path(trained.card.id)
    (ranked,) = rank(task("mood", 0), tiny_backbone, folder, train_examples=32, options=FAST)
    assert ranked.prompt == trained.card.id
    frame = rank(task("mood", 0), tiny_backbone, folder, train_examples=32, options=FAST).to_frame()
    assert list(frame.columns[:2]) == ["prompt", "task"]
    assert frame["cosine"].tolist() == [ranked.scores["cosine"]]
    result = transfer(task("mood", 0), "books", tiny_backbone, bank=folder, options=FAST, seeds=(0, 1))
    frame = result.to_frame()
    assert list(frame.columns) == ["method", "seed", "score", "validation", "prompt"]
    assert len(frame) == 3 * 2
    assert frame.groupby("method")["score"].mean().to_dict() == {
        name: pytest.approx(one["mean"]) for name, one in result.to_json()["methods"].items()
    }
    by_path = transfer(task("mood", 0), str(trained.path), tiny_backbone, options=FAST, methods=["pot"], seeds=(0,))
    assert by_path.methods["pot"].scores == result.methods["pot"].scores[:1]


@pytest.mark.parametrize(
    "name", ["load_task", "own_task", "train", "rank", "transfer", "predict", "evaluate", "register"]
)
def test_every_parameter_of_a_public_function_is_told(name):
    function = getattr(promptpanda, name)
    told = inspect.getdoc(function)
    arguments = re.split(r"\n(?:Returns|Raises):", told.partition("Args:\n")[2])[0]
    named = {word.strip() for line in re.findall(r"^    ([\w, ]+):", arguments, re.M) for word in line.split(",")}
    assert set(inspect.signature(function).parameters) <= named
    assert "Raises:" in told


def test_loading_a_model_prints_nothing(tiny_folder, capfd):
    from transformers.utils import logging

    logging.enable_progress_bar()
    Backbone.load(str(tiny_folder("bert")))
    assert capfd.readouterr() == ("", "")
    assert logging.is_progress_bar_enabled()


@pytest.mark.parametrize("name", ["CON", "nul", "com1", "Aux.txt"])
def test_names_of_devices_are_no_names(name):
    with pytest.raises(PandaError, match="is the name of a device"):
        check_name(name, "Task name")
