"""The benchmark of alternatives on a tiny model: the same rows as ours, whole rows, nothing computed twice."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
from conftest import sentiment_rows, write_jsonl
from kinds import value_rows, word_rows

from promptpanda.errors import PandaError
from promptpanda.tasks.catalog import load_task
from promptpanda.tasks.protocol import partition
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.transfer import transfer

for package in ("setfit", "sentence_transformers"):
    pytest.importorskip(package, reason="pip install -e '.[alternatives]' brings what the benchmark compares with")

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def run(tiny_folder, tmp_path, monkeypatch):
    """Run the script on cr, stsb and conll04 with a few rows of ours."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    data = tmp_path / "data"
    for split, seed in (("train", 0), ("test", 1)):
        rows = [{"text": row["text"], "label": {"good": "positive", "bad": "negative"}[row["label"]]} for row in
                sentiment_rows(60, seed)]  # fmt: skip
        write_jsonl(data / "cr" / f"{split}.jsonl", rows)
        write_jsonl(data / "conll04" / f"{split}.jsonl", words(40, seed))
    for split, seed in (("train", 0), ("validation", 1)):
        pairs = zip(value_rows(40, seed), value_rows(40, seed + 2), strict=True)
        values = [{"sentence1": a["text"], "sentence2": b["text"], "label": a["label"] - 12} for a, b in pairs]
        write_jsonl(data / "stsb" / f"{split}.jsonl", values)

    def call(*arguments):
        fixed = ["--data-dir", data, "--out", tmp_path / "out", "--model", tiny_folder("bert"), "--epochs", "1"]
        monkeypatch.setattr(sys, "argv", ["alternatives.py", *map(str, (*fixed, "--train-examples", 32, *arguments))])
        importlib.import_module("alternatives").main()
        rows = [json.loads(path.read_text()) for path in sorted((tmp_path / "out" / "rows").glob("*.json"))]
        return {(row["target"], row["seed"], row["alternative"]): row for row in rows}

    call.data = data
    call.out = tmp_path / "out"
    return call


def words(count, seed):
    names = {"UP": "Peop", "DOWN": "Loc"}
    return [
        {"tokens": row["tokens"], "ner_tags": [tag[:2] + names[tag[2:]] if tag != "O" else tag for tag in row["tags"]]}
        for row in word_rows(count, seed)
    ]


def test_rows_and_scores_are_those_of_a_transfer(run, tiny_backbone, capsys):
    found = run(
        "--targets", "cr,stsb", "--seeds", "0,2", "--alternatives", "logistic_regression", "--test-examples", 30
    )
    for target in ("cr", "stsb"):
        task = load_task(target, data_dir=run.data)
        few = TrainingOptions(epochs=1)
        settings = {"methods": ["head_only"], "train_examples": 32, "test_examples": 30, "seeds": (0, 2)}
        told = transfer(task, "auto", tiny_backbone, options=few, **settings)
        rows = [found[target, seed, "logistic_regression"] for seed in (0, 2)]
        assert [row["score"] for row in rows] == pytest.approx(told.frozen_embeddings.scores)
        assert [row["n_test"] for row in rows] == [told.n_test] * 2 == [30, 30]
        for row in rows:
            part = partition(task, train_examples=32, seed=row["seed"])
            assert row["labelled_fingerprint"] == part.train.joined(part.validation).fingerprint
        path = run.out / f"{target}.json"
        path.write_text(json.dumps(told.to_json()))
        run("--tables-only", "--ours", path)
        assert "promptpanda: head_only" in (run.out / "tables.md").read_text()
    assert "| logistic regression, frozen embeddings |" in capsys.readouterr().out
    path.write_text(json.dumps(told.to_json() | {"n_test": 7}))
    with pytest.raises(PandaError, match="give it the same --train-examples and --test-examples"):
        run("--tables-only", "--ours", path)


def test_what_is_there_is_not_computed_again(run):
    few = ("--targets", "cr", "--alternatives", "logistic_regression")
    run(*few, "--seeds", "0")
    path = run.out / "rows" / "cr-s0-logistic_regression.json"
    before = path.stat().st_mtime_ns
    assert len(run(*few, "--seeds", "0,1")) == 2
    assert path.stat().st_mtime_ns == before
    assert [one.name for one in path.parent.iterdir() if one.suffix != ".json"] == []
    with pytest.raises(PandaError, match="was made with n_labelled 32, and now it is 40"):
        run(*few, "--seeds", "0", "--train-examples", 40)
    with pytest.raises(PandaError, match="No task 'nowhere'"):
        run("--targets", "nowhere")


def test_tuning_is_defined_for_classes_values_and_tags(run):
    pytest.importorskip("peft")
    found = run("--targets", "cr,stsb,conll04", "--seeds", "0", "--alternatives", "lora,full,logistic_regression")
    assert len(found) == 9
    for target in ("cr", "stsb", "conll04"):
        lora, full = found[target, 0, "lora"], found[target, 0, "full"]
        assert lora["megabytes"] < full["megabytes"]
        assert full["settings"]["rate"] in (3e-5, 1e-4, 3e-4)
        validation = full["settings"]["validation"]
        assert validation[f"{full['settings']['rate']:g}"] == max(validation.values())
        assert full["settings"]["steps"] == 2  # of 16 among 32 labelled rows


def test_full_fine_tuning_learns(run):
    row = run("--targets", "cr", "--seeds", "0", "--alternatives", "full", "--epochs", 25)["cr", 0, "full"]
    assert row["score"] > 0.75


def test_setfit_is_for_classes_alone(run):
    pytest.importorskip("setfit", reason="needs the extra 'alternatives'")
    found = run("--targets", "cr,stsb", "--seeds", "0", "--alternatives", "setfit_20,setfit")
    assert set(found) == {("cr", 0, "setfit_20"), ("cr", 0, "setfit")}
    row = found["cr", 0, "setfit_20"]
    assert row["settings"] == {"iterations": 20, "steps": 32 * 40 // 16}
    assert row["score"] > 0.6
