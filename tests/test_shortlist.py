"""Large banks are ranked in stages: the prompts whose texts are nearest to the target's see it, and nobody else."""

from __future__ import annotations

import shutil
from collections import Counter

import numpy as np
import pytest
from banks import OPTIONS, forge
from conftest import sentiment_rows, task_of
from test_seen_sources import noise

from promptpanda.backbone import Backbone
from promptpanda.bank import catalogue, index
from promptpanda.bank.bank import Bank
from promptpanda.bank.catalogue import opened
from promptpanda.bank.index import FOLDER
from promptpanda.bank.layout import SIGNATURE_NAME
from promptpanda.progress import Silent
from promptpanda.tasks.protocol import partition
from promptpanda.training.defaults import settled
from promptpanda.transfers import shortlist
from promptpanda.transfers.estimators import TargetFeatures
from promptpanda.transfers.ranking import rank
from promptpanda.transfers.shortlist import best_of_tasks, nearness
from promptpanda.transfers.transfer import train, transfer

pytestmark = pytest.mark.usefixtures("one_thread")

CLASSES = {"labels": ["good", "bad"]}


class Notes(Silent):
    def __init__(self):
        self.said, self.begun = [], []

    def begin(self, label, total):
        self.begun.append(label)

    def note(self, message):
        self.said.append(message)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, load_tiny):
    """A bank of six prompts of six tasks; those of noise have other words than those of sentiment."""
    root = tmp_path_factory.mktemp("shortlist")
    for number in range(6):
        rows = sentiment_rows(24, number) if number % 2 else noise(24, number)
        task = task_of(rows, root / "data", f"task{number}", **CLASSES)
        train(task, load_tiny("bert"), bank=Bank(root / "bank"), options=OPTIONS.model_copy(update={"epochs": 1}))
    return root / "bank"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def bank(trained):
    return Bank(trained, others={})


@pytest.fixture
def target(tmp_path):
    return task_of(noise(40, 77), tmp_path / "data", "target", **CLASSES)


def features(task, backbone):
    part = partition(task)
    return TargetFeatures.of(backbone, task, part, settled(OPTIONS, task.kind, part.train, backbone))


def large(monkeypatch, passes=2):
    """From here on banks of more prompts than these are large."""
    monkeypatch.setattr(catalogue, "SMALL", passes)
    monkeypatch.setattr(shortlist, "PASSES", passes)


def test_words_behind_an_empty_prompt_are_those_of_the_signature(bank, tiny_backbone, tmp_path):
    """The source's own texts, seen under its prompt at its training, and behind zeros of the same length."""
    for number in range(6):
        rows = sentiment_rows(24, number) if number % 2 else noise(24, number)
        task = task_of(rows, tmp_path / "data", f"task{number}", **CLASSES)
        source = bank.load(f"task{number}", tiny_backbone)
        found = features(task, tiny_backbone)
        expected = source.signature.task_embedding(0, "mean").numpy()
        assert np.allclose(found.word_embedding("prefix", source.prompt.length), expected, atol=1e-5)
        assert not np.allclose(found.word_embedding("prefix", 20), expected, atol=1e-2), "positions count"
        with opened(bank) as here:
            near = nearness(here.entries, here.vectors(here.entries), found)
        assert here.entries[int(near.argmax())].task == f"task{number}"
        assert near.max() > -0.01, "16 bits of a number are kept"


def test_the_nearest_are_ranked_as_in_the_whole_bank(bank, tiny_backbone, target, monkeypatch):
    whole = {entry.prompt: entry.scores for entry in rank(target, tiny_backbone, bank)}
    assert len(whole) == 6
    assert not (bank.folder / FOLDER).exists()
    with opened(bank) as here:
        entries = here.entries
        vectors = here.vectors(entries)
    near = nearness(entries, vectors, features(target, tiny_backbone))
    nearest = {entries[place].id for place in np.argsort(-near)[:2]}
    large(monkeypatch)
    notes = Notes()
    staged = rank(target, tiny_backbone, bank, progress=notes)
    assert {entry.prompt for entry in staged} == nearest
    assert {entry.prompt.split("-")[0] for entry in staged} <= {"task0", "task2", "task4"}, "noise is nearest to noise"
    for entry in staged:
        assert entry.scores == pytest.approx(whole[entry.prompt], abs=1e-6)
    assert any("6 prompts fit" in note and "the 2 whose texts are nearest" in note for note in notes.said)
    assert (bank.folder / FOLDER).exists()


def test_auto_races_among_the_nearest_and_says_so_once(bank, tiny_backbone, target, monkeypatch, tmp_path):
    large(monkeypatch)
    notes = Notes()
    own = Bank(tmp_path / "own", others={"theirs": bank})
    result = transfer(target, "auto", tiny_backbone, bank=own, options=OPTIONS, methods=["pot"], progress=notes)
    assert sum("6 prompts fit" in note for note in notes.said) == 1
    assert any("2 prompts, one forward pass each" in note for note in notes.begun)
    assert result.source.split("-")[0] in ("task0", "task2", "task4")


def test_who_saw_the_target_is_left_out_of_a_large_bank_too(bank, tiny_backbone, monkeypatch, tmp_path):
    """By half a hash the index suspects, the record itself tells how many rows; both banks say the same."""
    seen = task_of([*noise(24, 2)[:10], *noise(30, 78)], tmp_path / "data", "copy", **CLASSES)
    small = rank(seen, tiny_backbone, bank)
    large(monkeypatch)
    staged = rank(seen, tiny_backbone, bank)
    assert [one.to_json() for one in staged.left_out] == [one.to_json() for one in small.left_out]
    assert [one.rows for one in staged.left_out] == [10]
    assert staged.left_out[0].prompt.startswith("task2-")
    assert len(staged) == 2


def test_prompts_without_a_sound_embedding_come_last(bank, tiny_backbone, target):
    with opened(bank) as here:
        entries = here.entries
        vectors = here.vectors(entries)
    vectors[1] = np.nan
    found = features(target, tiny_backbone)
    near = nearness(entries, vectors, found)
    assert np.isinf(near).tolist() == [False, True, False, False, False, False]
    assert np.isinf(nearness(entries, vectors[:, :-1], found)).all(), "of another width"
    long = [one._replace(prompt_length=2**31 - 1) for one in entries]
    assert np.isinf(nearness(long, vectors, found)).all(), "no model has room for these"


def test_another_number_format_of_the_model_is_compared_too(bank, tiny_folder, target, monkeypatch):
    """Its prompts' embeddings are kept under another fingerprint than the backbone's."""
    with opened(bank) as here:
        vectors, entries = here.vectors(here.entries), here.entries
    half = Backbone.load(str(tiny_folder("bert")), dtype="bfloat16")
    near = nearness(entries, vectors, features(target, half))
    large(monkeypatch)
    staged = rank(target, half, bank)
    assert {one.prompt for one in staged} == {entries[place].id for place in np.argsort(-near)[:2]}


def test_where_no_prompt_has_an_embedding_the_first_go_on(trained, tiny_backbone, target, monkeypatch, tmp_path):
    shutil.copytree(trained, tmp_path / "bank", ignore=shutil.ignore_patterns(FOLDER))
    for folder in (tmp_path / "bank").iterdir():  # sound, and more than the 16 bits of the index can hold
        forge(folder, SIGNATURE_NAME, lambda tensors: tensors["embeddings"].mul_(1e7))
    large(monkeypatch)
    bank = Bank(tmp_path / "bank", others={})
    assert {one.prompt for one in rank(target, tiny_backbone, bank)} == set(bank.ids()[:2])


@pytest.mark.parametrize("source", [None, "best", "auto"])
def test_every_card_is_looked_at_once(source, bank, tiny_backbone, target, monkeypatch, tmp_path):
    large(monkeypatch)
    monkeypatch.setattr(index, "_SETTLED", 0)
    beside = Bank(tmp_path / "own", others={"theirs": bank})
    rank(target, tiny_backbone, beside)
    looks, original = Counter(), index.stamp
    monkeypatch.setattr(index, "stamp", lambda folder, now: (looks.update([folder]), original(folder, now))[1])
    if source is None:
        rank(target, tiny_backbone, beside)
    else:
        given = {"options": OPTIONS, "methods": ["pot"], "seeds": (0, 1)}
        transfer(target, source, tiny_backbone, bank=beside, **given)
    assert (len(looks), set(looks.values())) == (6, {1})


def test_no_task_takes_all_places():
    scores = np.arange(100, 0, -1.0)
    tasks = ["a"] * 50 + ["b"] * 3 + ["c"] * 40 + ["d"] * 7
    assert best_of_tasks(tasks, scores, 8) == [0, 1, 50, 51, 53, 54, 93, 94]
    assert best_of_tasks(["a"] * 100, scores, 8) == list(range(8))
    assert best_of_tasks(["a"] * 50 + ["b"] * 50, scores, 8) == [0, 1, 50, 51, 2, 3, 4, 5]
