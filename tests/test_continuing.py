"""Going on with a trained prompt: its head is taken by the names of the labels, and nothing is lost."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import sentiment_rows, task_of, write_jsonl
from safetensors.torch import load_file, save_file
from test_bank import foreign
from typer.testing import CliRunner

from promptpanda.bank.bank import Bank
from promptpanda.bank.folder import read_seen
from promptpanda.bank.seen_texts import KnownRows
from promptpanda.cli.main import app
from promptpanda.errors import PandaError
from promptpanda.progress import Silent
from promptpanda.tasks.protocol import partition
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.evaluate import evaluate
from promptpanda.transfers.predict import predict
from promptpanda.transfers.transfer import train, transfer

pytestmark = pytest.mark.usefixtures("one_thread")

FAST = {"epochs": 2, "max_length": 24, "prompt_length": 4, "readout": "mean"}
OPTIONS = TrainingOptions(**FAST)
STILL = TrainingOptions(epochs=1, max_length=24, lr=1e-12, dropout=0.0)  # steps so small that nothing moves


class Notes(Silent):
    def __init__(self):
        self.said = []

    def note(self, message):
        self.said.append(message)


@pytest.fixture
def bank(tmp_path):
    return Bank(tmp_path / "bank", others={})


@pytest.fixture
def start(bank, tiny_backbone, sentiment):
    return train(sentiment("books", seed=5), tiny_backbone, bank=bank, options=TrainingOptions(**FAST | {"epochs": 8}))


def outputs(trained, backbone):
    texts = [row["text"] for row in sentiment_rows(12, 77)]
    return [one["probabilities"] for one in predict(trained, backbone, texts)]


def test_without_steps_it_is_what_it_goes_on_from(start, bank, tiny_backbone, sentiment):
    again = train(sentiment("films", seed=6), tiny_backbone, bank=bank, options=STILL, start=start)
    torch.testing.assert_close(again.prompt.tensor, start.prompt.tensor)
    torch.testing.assert_close(again.head.weight, start.head.weight)
    torch.testing.assert_close(again.head.bias, start.head.bias)
    assert again.card.before["accuracy"] == again.card.score


def test_with_steps_prompt_and_head_move_from_there(start, bank, tiny_backbone, sentiment):
    task = sentiment("films", seed=6)
    on = train(task, tiny_backbone, bank=bank, options=OPTIONS, start=start)
    pot = transfer(task, start, tiny_backbone, methods=["pot"], options=OPTIONS).prompt
    assert not torch.equal(on.prompt.tensor, start.prompt.tensor)
    assert (on.head.weight - start.head.weight).norm() < (pot.head.weight - start.head.weight).norm() / 2
    validation = partition(task, seed=0).validation
    assert on.card.before["accuracy"] == evaluate(start, tiny_backbone, task, validation)["accuracy"]
    assert on.card.forward_examples >= 2 * len(validation)


def test_labels_are_known_by_their_names_in_any_order(start, bank, tiny_backbone, sentiment):
    turned = sentiment("films", seed=6, labels=["bad", "good"])
    again = train(turned, tiny_backbone, bank=bank, options=STILL, start=start)
    assert again.card.labels == ("bad", "good")
    torch.testing.assert_close(again.head.weight, start.head.weight.flip(0))
    for ours, theirs in zip(outputs(again, tiny_backbone), outputs(start, tiny_backbone), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)


@pytest.mark.parametrize("named", [True, False])
def test_new_labels_are_added_and_missing_ones_are_kept(named, start, bank, tiny_backbone, tmp_path):
    rows = [row | {"label": "mixed"} if number % 3 == 0 else row for number, row in enumerate(sentiment_rows(60, 8))]
    rows = [row for row in rows if row["label"] != "bad"]
    names = {"labels": ["mixed", "good"]} if named else {}
    notes = Notes()
    task = task_of(rows, tmp_path / "data", "new", **names)
    again = train(task, tiny_backbone, bank=bank, options=STILL, start=start, progress=notes)
    assert again.card.labels == (("mixed", "good", "bad") if named else ("good", "bad", "mixed"))
    for name in ("good", "bad"):
        ours, theirs = again.card.labels.index(name), start.card.labels.index(name)
        torch.testing.assert_close(again.head.weight[ours], start.head.weight[theirs])
        torch.testing.assert_close(again.head.bias[ours], start.head.bias[theirs])
    fresh = again.card.labels.index("mixed")
    assert 0 < again.head.weight[fresh].norm() < 0.3
    assert again.head.bias[fresh].abs() < 1e-6
    assert any(f"{start.card.id} does not know 1 label ('mixed')" in said for said in notes.said)
    assert any(f"lacks 1 label ('bad'), which {start.card.id} knows" in said for said in notes.said)
    assert set(predict(again, tiny_backbone, ["the phone good"])[0]["probabilities"]) == {"good", "bad", "mixed"}


def test_values_go_on_from_values_of_another_mean_and_spread(bank, tiny_backbone, tmp_path):
    def task(name, factor, shift, seed):
        rows = sentiment_rows(60, seed)
        for row in rows:
            row["label"] = factor * (row["label"] == "good") + shift + len(row["text"]) / 50
        return task_of(rows, tmp_path / "data", name, kind="regression", metrics=["pearson"])

    start = train(task("prices", 10, 100, 1), tiny_backbone, bank=bank, options=OPTIONS)
    again = train(task("other", 3, -50, 2), tiny_backbone, bank=bank, options=STILL, start=start)
    texts = [row["text"] for row in sentiment_rows(6, 3)]
    values = [[one["value"] for one in predict(each, tiny_backbone, texts)] for each in (start, again)]
    np.testing.assert_allclose(*values, rtol=1e-4)


def test_types_of_entities_are_added(bank, tiny_backbone, tmp_path):
    def task(name, types, seed):
        rows = []
        for number, row in enumerate(sentiment_rows(40, seed)):
            words = row["text"].split()
            rows.append({"tokens": words, "tags": ["O", f"B-{types[number % len(types)]}", *["O"] * (len(words) - 2)]})
        form = {"kind": "token_classification", "segments": ["{tokens}"], "label": "tags", "metrics": ["span_f1"]}
        return task_of(rows, tmp_path / "data", name, **form)

    options = TrainingOptions(epochs=1, max_length=24, prompt_length=4)
    start = train(task("one", ["thing"], 1), tiny_backbone, bank=bank, options=options)
    notes = Notes()
    again = train(task("two", ["place"], 2), tiny_backbone, bank=bank, options=STILL, start=start, progress=notes)
    assert again.card.labels == ("O", "B-thing", "I-thing", "B-place", "I-place")
    torch.testing.assert_close(again.head.weight[:3], start.head.weight)
    assert any("does not know 1 label ('place')" in said for said in notes.said)


def test_the_run_is_known_by_prompt_and_head_and_not_trained_twice(start, bank, tiny_backbone, sentiment):
    task = sentiment("films", seed=6)
    on = train(task, tiny_backbone, bank=bank, options=OPTIONS, start="books")
    assert train(task, tiny_backbone, bank=bank, options=OPTIONS, start=start.path).card == on.card
    assert train(task, tiny_backbone, bank=bank, options=OPTIONS).card.id != on.card.id
    changed = load_file(start.path / "head.safetensors")
    changed["weight"] *= 2
    save_file(changed, start.path / "head.safetensors")
    sums = {**start.card.files, "head.safetensors": _sha256(start.path / "head.safetensors")}
    start.card.model_copy(update={"files": sums}).write(start.path)
    assert train(task, tiny_backbone, bank=bank, options=OPTIONS, start="books").card.id != on.card.id


def test_what_ancestors_saw_counts_against_a_target(start, bank, tiny_backbone, sentiment):
    second = train(sentiment("films", seed=6), tiny_backbone, bank=bank, options=OPTIONS, start=start)
    third = train(sentiment("songs", seed=9), tiny_backbone, bank=bank, options=OPTIONS, start=second)
    assert [source.id for source in third.card.sources] == [second.card.id]
    record = read_seen(third.path, third.card)
    for name, seed in (("books", 5), ("films", 6), ("songs", 9)):
        texts = sentiment(name, seed=seed).train().texts
        assert KnownRows.of(texts).seen_by(record) == len(texts)
    # A copy of the first one's rows under a fourth name.
    notes = Notes()
    copy = sentiment("copy", seed=5)
    with pytest.raises(PandaError, match="no prompt .* that did not see its texts"):
        transfer(copy, "best", tiny_backbone, bank=bank, options=OPTIONS, progress=notes)


def test_validation_rows_that_were_trained_on_are_told(start, bank, tiny_backbone, sentiment):
    notes = Notes()
    on = train(sentiment("more", seed=5), tiny_backbone, bank=bank, options=OPTIONS, start=start, progress=notes)
    assert any(f"saw {on.card.n_val} of the {on.card.n_val} validation examples" in said for said in notes.said)


def test_what_does_not_go_together_is_refused(start, bank, tiny_backbone, load_tiny, tiny_folder, sentiment, tmp_path):
    task = sentiment("films", seed=6)

    def refused(match, task=task, backbone=tiny_backbone, start=start.path, **options):
        with pytest.raises(PandaError, match=match):
            train(task, backbone, bank=bank, options=TrainingOptions(**{"epochs": 1, **options}), start=start)

    refused("was trained on .*tiny-bert .*not on .*tiny-roberta", backbone=load_tiny("roberta"))
    refused("--prompt-length 7 differs from the source", prompt_length=7)
    refused("--prompt-kind shallow differs from the source", prompt_kind="shallow")
    refused("--readout cls differs from that of .*head reads mean", readout="cls")
    refused("--reparameterize trains fresh prompts", reparameterize=8)
    rows = [{"text": row["text"], "label": float(number)} for number, row in enumerate(sentiment_rows(40))]
    values = task_of(rows, tmp_path / "data", "values", kind="regression", metrics=["pearson"])
    refused("trained for single sentence, and task 'values' is regression", task=values)
    foreign(tiny_folder("bert"), tmp_path / "theirs")
    refused("foreign PEFT prompt brings no head", start=tmp_path / "theirs")
    head = transfer(task, backbone=tiny_backbone, bank=bank, options=OPTIONS, methods=["head_only"]).prompt
    refused("made by head_only, which trains no prompt", start=head)
    assert len(bank.ids()) == 2


def test_the_rate_can_be_tried(start, bank, tiny_backbone, sentiment):
    options = OPTIONS.model_copy(update={"lr": "auto", "epochs": 1})
    on = train(sentiment("films", seed=6), tiny_backbone, bank=bank, options=options, start=start)
    assert on.card.method == "continued"
    assert on.card.options.lr in (3e-3, 1e-2, 3e-2)


def test_a_start_that_was_never_saved_serves_too(start, tiny_backbone, sentiment):
    unsaved = replace(start, path=None, card=start.card.model_copy(update={"files": {}}))
    on = train(sentiment("films", seed=6), tiny_backbone, options=OPTIONS, start=unsaved)
    assert on.card.sources[0].id == start.card.id


def test_the_command_takes_a_name_and_tells_both_scores(start, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "new.jsonl", sentiment_rows(40, 6))
    command = ["train", "--train", "new.jsonl", "--text", "text", "--label", "label", "--from", "books"]
    command += ["--epochs", "1", "--bank", "bank"]
    result = CliRunner().invoke(app, [*command, "--json"])
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["from"] == start.card.id
    card = Bank(tmp_path / "bank").load(found["prompts"][0], start_backbone(tiny_folder)).card
    assert found["before"] == [card.before["accuracy"]]
    table = CliRunner().invoke(app, command).stdout
    assert "before" in table
    assert f"{card.before['accuracy']:.3f}" in table
    # The columns are those of the card, where none are named.
    bare = CliRunner().invoke(app, [*command[:3], *command[7:], "--json"])
    assert bare.exit_code == 0, bare.stderr
    assert Bank(tmp_path / "bank").load("new", start_backbone(tiny_folder)).card.labels == start.card.labels
    wrong = CliRunner().invoke(app, [*command[:-5], "nothing", *command[-4:]])
    assert wrong.exit_code == 2
    assert "No prompt 'nothing'" in wrong.stderr


def start_backbone(tiny_folder):
    from promptpanda.backbone import Backbone

    return Backbone.load(str(tiny_folder("bert")))


def _sha256(path):
    from promptpanda.files import sha256_file

    return sha256_file(path)
