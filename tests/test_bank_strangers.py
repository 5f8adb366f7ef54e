"""A folder from a stranger, an interrupted command, a deleted bank: one sentence each, and other prompts serve on."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from banks import CLASSES, OPTIONS, forge, read_card, replace_file, trained_in, write_card
from conftest import sentiment_rows, task_of, write_jsonl
from test_bank import foreign
from typer.testing import CliRunner

from promptpanda import files
from promptpanda.bank.bank import Bank
from promptpanda.bank.card import Card, TestCard
from promptpanda.bank.folder import read_contents, read_folder, read_source
from promptpanda.cli.main import app
from promptpanda.errors import PandaError
from promptpanda.files import whole_folder
from promptpanda.progress import Silent
from promptpanda.tasks.catalog import own_task
from promptpanda.tasks.protocol import partition
from promptpanda.transfers.estimators import TargetFeatures
from promptpanda.transfers.predict import predict
from promptpanda.transfers.ranking import rank
from promptpanda.transfers.transfer import train, transfer

pytestmark = pytest.mark.usefixtures("one_thread")

WEIGHTS, HEAD, SIGNATURE = "adapter_model.safetensors", "head.safetensors", "signature.safetensors"


class Notes(Silent):
    def __init__(self):
        self.said = []

    def note(self, message):
        self.said.append(message)


@pytest.fixture(scope="module")
def two(tiny_backbone, tmp_path_factory):
    """A bank with a sound prompt of the task `films` and one of `books`."""
    folder = tmp_path_factory.mktemp("two") / "bank"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the tests: threads are part of a run's identity
    for name in ("books", "films"):
        trained_in(folder, tiny_backbone, name)
    torch.set_num_threads(threads)
    return folder


@pytest.fixture
def bank(two, tmp_path):
    """A copy, and the folder of `books` in it, for the test to harm."""
    shutil.copytree(two, tmp_path / "bank")
    return Bank(tmp_path / "bank")


@pytest.fixture
def books(bank):
    return bank.folder / next(name for name in bank.ids() if name.startswith("books"))


def ranked(bank, backbone, tmp_path):
    """Ids that `rank` gives for a target, and what it notes."""
    target = task_of(sentiment_rows(24), tmp_path / "data", "mood", **CLASSES)
    view = TargetFeatures.of(backbone, target, partition(target), OPTIONS)
    notes = Notes()
    return [entry.prompt for entry in rank(target, backbone, bank, view, progress=notes)], notes.said


def run(*arguments, code=0):
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result


def changed(**values):
    def change(folder):
        write_card(folder, read_card(folder) | values)

    return change


def in_place_of_the_card(make):
    def change(folder):
        (folder / "card.json").unlink()
        make(folder / "card.json")

    return change


BAD_CARDS = {
    "no scores": changed(validation={}),
    "no score of the metric": changed(test={"scores": {"loss": 1.0}, "n_test": 4, "data_fingerprint": "x"}),
    "text as a score": changed(validation={"accuracy": "high", "loss": 1.0}),
    "null as a score": changed(validation={"accuracy": 1.0, "loss": None}),
    "another id's form": changed(id="../../x"),
    "a path as id": changed(id="../x-s0-00000000"),
    "a file elsewhere": changed(files={"../secret": "0" * 64}),
    "no label": changed(labels=[]),
    "a label twice": changed(labels=["good", "good"]),
    "a length without a prompt": changed(prompt_kind=None),
    "tokens read for whole texts": changed(readout="token"),
    "deep": in_place_of_the_card(lambda path: path.write_text("[" * 100_000)),
    "rather deep": changed(task="[" * 3, environment=json.loads("[" * 200 + "]" * 200)),
    "a long integer": in_place_of_the_card(lambda path: path.write_text('{"format": 1, "seed": ' + "9" * 5000 + "}")),
    "a device": in_place_of_the_card(lambda path: path.symlink_to("/dev/zero")),
    "a pipe": in_place_of_the_card(os.mkfifo),
    "a folder": in_place_of_the_card(Path.mkdir),
    "infinite": in_place_of_the_card(lambda path: path.write_text('{"format": 1, "seconds": Infinity}')),
    "too large": in_place_of_the_card(lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 10**8)),
}


@pytest.mark.parametrize("name", BAD_CARDS)
def test_one_bad_card_is_a_problem_and_stops_nothing(name, bank, books, tiny_backbone, tmp_path):
    BAD_CARDS[name](books)
    cards, problems = bank.readable_cards()
    assert [card.task.name for card in cards] == ["films"]
    assert len(problems) == 1
    assert str(books) in problems[0]
    for read in (lambda: read_folder(books, tiny_backbone), lambda: read_source(books, tiny_backbone)):
        with pytest.raises(PandaError):
            read()
    listed = json.loads(run("bank", "list", "--bank", bank.folder, "--json").stdout)
    assert [len(listed["prompts"]), len(listed["problems"])] == [1, 1]
    run("doctor", "--bank", bank.folder)
    assert "1 of 2 prompts are intact" in run("bank", "verify", "--bank", bank.folder, code=2).stdout
    assert bank.resolve("films").name == cards[0].id
    found, notes = ranked(bank, tiny_backbone, tmp_path)
    assert found == [cards[0].id]
    assert sum(str(books) in note for note in notes) == 1


def put(name, key, value):
    def change(folder):
        forge(folder, name, lambda tensors: tensors.__setitem__(key, value(tensors.get(key))))

    return change


def drop(name, key):
    return lambda folder: forge(folder, name, lambda tensors: tensors.pop(key))


BAD_TENSORS = {
    "no weight of the head": (drop(HEAD, "weight"), "bias; expected bias, weight"),
    "one more in the head": (put(HEAD, "scale", lambda _: torch.ones(2)), "bias, scale, weight; expected bias, weight"),
    "a head of other labels": (
        put(HEAD, "weight", lambda _: torch.ones(3, 32)),
        r"shape \(3, 32\); expected \(2, any\)",
    ),
    "a head of another width": (put(HEAD, "weight", lambda _: torch.ones(2, 7)), r"expected \(any, 2, 7\)"),
    "a flat head": (put(HEAD, "weight", lambda _: torch.ones(64)), r"shape \(64\,\); expected"),
    "NaN in the head": (put(HEAD, "bias", lambda old: old * math.nan), "bias.*not finite"),
    "whole numbers in the head": (put(HEAD, "bias", lambda old: old.long()), "type int64; expected"),
    "eight bits": (put(HEAD, "weight", lambda old: old.to(torch.float8_e4m3fn)), "type float8_e4m3fn; expected"),
    "infinite in single precision": (put(HEAD, "bias", lambda old: old.double() + 1e300), "not finite"),
    "no embeddings": (drop(SIGNATURE, "embeddings"), "expected activated_neurons, embeddings, pooled_prompt"),
    "NaN in the signature": (put(SIGNATURE, "embeddings", lambda old: old * math.nan), "embeddings.*not finite"),
    "neurons as numbers": (put(SIGNATURE, "activated_neurons", lambda old: old.float()), "activated_neurons"),
    "no neurons": (put(SIGNATURE, "activated_neurons", lambda old: old[:0]), r"shape \(0,\); expected \(any\)"),
    "another mean of the prompt": (put(SIGNATURE, "pooled_prompt", lambda old: old[1:]), "pooled_prompt"),
    "NaN in the prompt": (put(WEIGHTS, "prompt_embeddings", lambda old: old * math.nan), "not finite"),
    "another width of the prompt": (put(WEIGHTS, "prompt_embeddings", lambda old: old[:, 1:]), "of shape .* tells of"),
    "booleans for a prompt": (put(WEIGHTS, "prompt_embeddings", lambda old: old > 0), "no tensor 'prompt_embeddings'"),
    "20,000 tokens": (
        put(WEIGHTS, "prompt_embeddings", lambda old: old[:1].expand(20_000, -1)),
        "has 20000 virtual tokens, but its adapter_config.json says 4",
    ),
}


@pytest.mark.parametrize("name", BAD_TENSORS)
def test_tensors_that_do_not_go_together_are_refused_in_one_sentence(name, bank, books, tiny_backbone, tmp_path):
    harm, sentence = BAD_TENSORS[name]
    harm(books)
    with pytest.raises(PandaError, match=sentence):
        read_folder(books, tiny_backbone)
    with pytest.raises(PandaError, match=sentence):
        bank.verify(books.name)
    found, notes = ranked(bank, tiny_backbone, tmp_path)
    assert len(found) == 1
    assert len(bank.ids()) == 2
    assert sum(str(books) in note for note in notes) == 1


def test_a_signature_without_a_header_is_refused(books, bank):
    content = (books / SIGNATURE).read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    del header["__metadata__"]
    shorter = json.dumps(header).encode()
    replace_file(books, SIGNATURE, len(shorter).to_bytes(8, "little") + shorter + content[8 + length :])
    with pytest.raises(PandaError, match="does not say how many texts"):
        bank.verify(books.name)


def test_fewer_neurons_than_the_model_has_cost_that_estimator_alone(bank, books, tiny_backbone, tmp_path):
    forge(books, SIGNATURE, lambda tensors: tensors.update(activated_neurons=tensors["activated_neurons"][:5]))
    assert len(ranked(bank, tiny_backbone, tmp_path)[0]) == 2


def test_a_prompt_under_which_the_model_overflows_is_left_out_of_rankings(bank, books, tiny_backbone, tmp_path):
    forge(books, WEIGHTS, lambda tensors: tensors["prompt_embeddings"].mul_(1e38))
    found, notes = ranked(bank, tiny_backbone, tmp_path)
    assert [name[:5] for name in found] == ["films"]
    assert any(books.name in note and "not finite" in note for note in notes)


def test_outputs_that_overflow_are_no_predictions(books, tiny_backbone):
    forge(books, HEAD, lambda tensors: tensors["weight"].mul_(1e38).mul_(100).clamp_(-3e38, 3e38))
    with pytest.raises(PandaError, match=f"outputs of {books.name} are not finite"):
        predict(read_folder(books, tiny_backbone), tiny_backbone, ["good food"])


def test_half_precision_is_read_as_single(bank, books, tiny_backbone):
    whole = read_folder(books, tiny_backbone)
    for name in (WEIGHTS, HEAD):
        forge(books, name, lambda tensors: tensors.update({key: one.bfloat16() for key, one in tensors.items()}))
    half = read_folder(books, tiny_backbone)
    assert half.head.weight.dtype == half.prompt.tensor.dtype == torch.float32
    torch.testing.assert_close(half.prompt.tensor, whole.prompt.tensor, rtol=0.01, atol=0)


def test_a_prompt_that_leaves_the_model_no_room_is_refused(bank, books, tiny_backbone):
    card = read_card(books)
    card["options"]["max_length"] = 1000
    write_card(books, card)
    with pytest.raises(PandaError, match="1004 positions"):
        read_folder(books, tiny_backbone)


def regression(values, root):
    rows = [row | {"label": value} for row, value in zip(sentiment_rows(len(values)), values, strict=True)]
    return task_of(rows, root, kind="regression", metrics=["pearson"])


def test_an_outlier_ends_the_run_with_a_sentence_or_leaves_a_card_that_is_read(tiny_backbone, tmp_path):
    """Whether it falls into the validation part is up to the seed."""
    bank, refused = Bank(tmp_path / "bank"), []
    task = regression([*(float(number % 5) for number in range(23)), 1e20], tmp_path)
    for seed in range(4):
        try:
            train(task, tiny_backbone, bank=bank, options=OPTIONS, seed=seed)
        except PandaError as error:
            refused.append(str(error))
    cards, problems = bank.readable_cards()
    assert (len(cards), problems) == (4 - len(refused), [])
    assert 0 < len(refused) < 4
    assert all("1e+20 is too far from those of the training part" in sentence for sentence in refused)


@pytest.mark.parametrize("size", [1e300, 1e35, 1e-40])
def test_values_beyond_single_precision_are_refused_before_anything_is_written(size, tiny_backbone, tmp_path):
    with pytest.raises(PandaError, match="another unit"):
        train(
            regression([number * size for number in range(24)], tmp_path), tiny_backbone, bank=Bank(tmp_path / "bank")
        )
    assert Bank(tmp_path / "bank").ids() == []


def test_scores_that_are_not_finite_make_no_card():
    for value in (math.nan, math.inf):
        with pytest.raises(PandaError, match=f"The scores cannot be kept: scores.loss is {value}"):
            TestCard.made("The scores", scores={"loss": value}, n_test=1, data_fingerprint="x")


def test_an_outlier_in_the_test_data_costs_the_scores_and_not_the_prompt(tiny_backbone, tmp_path):
    bank = Bank(tmp_path / "bank")
    task = regression([float(number % 5) for number in range(24)], tmp_path)
    rows = [{"text": "good film", "label": 1.0}, {"text": "bad film", "label": 1e30}]
    write_jsonl(tmp_path / "own" / "test.jsonl", rows)
    with pytest.raises(PandaError, match=r"1e\+30 is too far"):
        transfer(task, backbone=tiny_backbone, bank=bank, options=OPTIONS, methods=["prompt_tuning"])
    cards, problems = bank.readable_cards()
    assert (len(cards), problems, cards[0].test) == (1, [], None)


def test_numbers_that_are_not_finite_are_not_written(books, bank, tiny_backbone):
    trained = read_contents(books)
    trained.signature.embeddings[0] = math.nan
    bank.remove(books.name)
    with pytest.raises(PandaError, match="not finite"):
        bank.save(trained, tiny_backbone)
    assert not books.exists()


@pytest.mark.parametrize("left", [1, 2, 3, 4, 5])
def test_a_removal_that_is_stopped_at_any_file_leaves_nothing_to_be_seen(left, bank, books, monkeypatch):
    real, calls = os.unlink, 0

    def unlink(path, **options):
        nonlocal calls
        calls += 1
        if calls == left:
            raise OSError(errno.EIO, "stopped")
        real(path, **options)

    monkeypatch.setattr(os, "unlink", unlink)
    with pytest.raises(OSError, match="stopped"):
        bank.remove(books.name)
    monkeypatch.undo()
    assert len(bank.ids()) == 1
    assert "1 of 1 prompts are intact" in run("bank", "verify", "--no-starter", "--bank", bank.folder).stdout


def test_of_a_link_to_a_prompt_the_link_is_removed(bank, books, tmp_path):
    books.rename(tmp_path / "elsewhere")
    books.symlink_to(tmp_path / "elsewhere")
    run("bank", "rm", books.name, "--bank", bank.folder)
    assert not books.is_symlink()
    assert len(list((tmp_path / "elsewhere").iterdir())) == 6


def test_a_name_given_twice_is_removed_once(bank, books):
    removed = json.loads(run("bank", "rm", books.name, books.name, "--bank", bank.folder, "--json").stdout)
    assert removed == {"removed": [books.name]}


@pytest.mark.parametrize("missing", ["card.json", WEIGHTS, HEAD, SIGNATURE])
def test_a_training_replaces_an_incomplete_folder_of_its_own(missing, bank, books, tiny_backbone):
    before = (books / HEAD).read_bytes()
    (books / missing).unlink()
    again = trained_in(bank.folder, tiny_backbone)
    assert again.path == books
    assert (books / HEAD).read_bytes() == before
    bank.verify(books.name)


def test_a_folder_with_files_of_others_is_left_to_its_owner(bank, books, tiny_backbone):
    (books / "card.json").unlink()
    (books / "notes.txt").write_text("mine")
    with pytest.raises(PandaError, match="no card.json"):
        trained_in(bank.folder, tiny_backbone)
    assert (books / "notes.txt").read_text() == "mine"


def test_a_bank_that_is_deleted_meanwhile_is_not_made_again_in_part(bank, books, tiny_backbone):
    trained = read_folder(books, tiny_backbone)
    test = TestCard(scores={"accuracy": 1.0, "loss": 0.1}, n_test=4, data_fingerprint="x")
    bank.prepare()
    shutil.rmtree(bank.folder)
    for act in (bank.prepare, lambda: bank.save(trained, tiny_backbone), lambda: bank.record_test(trained, test)):
        with pytest.raises(PandaError, match="bank is gone: it was deleted|is gone: it was deleted or moved"):
            act()
    assert not bank.folder.exists()


def test_a_folder_is_on_the_disk_before_it_counts(tmp_path, monkeypatch):
    """Its files and its list of names before it gets its name, and that name before anybody goes on."""
    done, sync, rename = [], os.fsync, Path.rename
    monkeypatch.setattr(os, "fsync", lambda file: (done.append(os.fstat(file).st_ino), sync(file))[1])
    monkeypatch.setattr(Path, "rename", lambda path, to: (done.append("named"), rename(path, to))[1])
    with whole_folder(tmp_path / "x") as staging:
        (staging / "file").write_text("content")
    inodes = [os.stat(path).st_ino for path in (tmp_path / "x" / "file", tmp_path / "x", tmp_path)]
    assert done == [inodes[0], inodes[1], "named", inodes[2]]


def test_a_path_is_a_source_without_a_bank(books, tiny_backbone, tiny_folder, tmp_path):
    task = task_of(sentiment_rows(24), tmp_path / "data", "mood", **CLASSES)
    foreign(tiny_folder("bert"), tmp_path / "theirs")
    for source, kind in ((books, Path), (books, str), (tmp_path / "theirs", str), (f"{books}/", str)):
        found = transfer(task, kind(source), tiny_backbone, options=OPTIONS, methods=["pot"])
        assert found.source in (books.name, str(tmp_path / "theirs"))
    with pytest.raises(PandaError, match="without a bank there is nowhere to look up a name"):
        transfer(task, "nothing", tiny_backbone, options=OPTIONS, methods=["pot"])


def test_files_of_an_own_task_may_be_strings(tmp_path):
    path = write_jsonl(tmp_path / "films.jsonl", sentiment_rows(10))
    task = own_task(train=str(path), text="text")
    assert task.name == "films"
    assert len(task.train()) == 10


def test_a_large_card_of_our_own_is_read_again(books):
    """10,000 labels, 10,000 epochs, a seed of 30 digits."""
    card = Card.read(books)
    labels = tuple(f"label {number}" for number in range(10_000))
    large = card.model_copy(
        update={
            "seed": 10**30,
            "labels": labels,
            "task": card.task.model_copy(update={"labels": labels}),
            "curve": card.curve * 10_000,
            "seconds": float(np.finfo(float).max),
        }
    )
    large.write(books)
    assert Card.read(books) == large
    assert files.sha256_file(books / "card.json")
