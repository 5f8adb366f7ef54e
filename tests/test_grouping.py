"""Rows that belong together stay on one side of every cut; tasks without such rows are cut as ever."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import write_jsonl
from hypothesis import given, settings
from hypothesis import strategies as st

from promptpanda import PandaError, TrainingOptions, load_task, own_task, transfer
from promptpanda.progress import Silent
from promptpanda.tasks.grouping import blocks_of, first_blocks, straddles, whole_blocks
from promptpanda.tasks.inputs import Passage, Split
from promptpanda.tasks.protocol import capped, partition
from promptpanda.tasks.spec import Kind

DATA = Path(__file__).parents[2] / "shared" / "data"
PARAGRAPH = "a paragraph of more than eight words that many questions are asked about, number {}"


def pairs(rows, tmp_path, name="pairs"):
    path = write_jsonl(tmp_path / f"{name}.jsonl", rows)
    return own_task(train=path, text="question", text2="paragraph", label="label")


def test_blocks_are_equal_texts_contexts_and_passages():
    long = PARAGRAPH.format(1)
    texts = (("q1", long), ("q2", long), ("q1", "short"), ("q3", "short"), ("q1", "short"), ("q4", PARAGRAPH.format(2)))
    assert blocks_of(Split(texts, np.zeros(6))).tolist() == [0, 0, 1, 2, 1, 3]
    passages = (Passage("q1", "c"), Passage("q2", "c"), Passage("q1", "d"))
    assert len(set(blocks_of(Split(passages, np.zeros(3))).tolist())) == 2
    groups = np.asarray([7, 8, 7])
    assert blocks_of(Split((("a",), ("b",), ("c",)), np.zeros(3), groups)).tolist() == [0, 1, 0]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 2)), min_size=4, max_size=80), st.integers(1, 40))
def test_whole_blocks_are_whole_and_leave_every_class_behind(rows, size):
    blocks, strata = (np.asarray(values) for values in zip(*rows, strict=True))
    taken = whole_blocks(blocks, strata, size, np.random.default_rng(0), keep=1)
    assert len(taken) <= size
    assert np.array_equal(taken, np.unique(taken))
    assert not straddles(blocks, taken)
    rest = np.setdiff1d(np.arange(len(blocks)), taken)
    assert set(strata[rest]) == set(strata)
    left = [np.sum(blocks == block) for block in np.unique(blocks[rest])]
    # Nothing that is left would fit and leave every class behind.
    for block, rows_of in zip(np.unique(blocks[rest]), left, strict=True):
        if len(taken) + rows_of <= size:
            after = np.setdiff1d(rest, np.flatnonzero(blocks == block))
            assert set(strata[after]) != set(strata)
    cut = first_blocks(blocks, min(size, len(blocks)), np.random.default_rng(1))
    assert len(cut) == min(size, len(blocks))
    whole = [np.isin(np.flatnonzero(blocks == block), cut).all() for block in np.unique(blocks[cut])]
    assert sum(not one for one in whole) <= 1


def test_a_carve_leaves_paragraphs_whole(tmp_path):
    rows = [
        {"question": f"question {n}", "paragraph": PARAGRAPH.format(n % 12), "label": ("no", "yes")[n % 5 == 0]}
        for n in range(100)
    ]
    for seed in range(5):
        part = partition(pairs(rows, tmp_path), seed=seed)
        assert len(part.train) + len(part.validation) == 100
        assert 12 <= len(part.validation) <= 20
        assert not {text[1] for text in part.train.texts} & {text[1] for text in part.validation.texts}
        assert set(part.train.labels) == set(part.validation.labels) == {0, 1}
        again = partition(pairs(rows, tmp_path), seed=seed)
        assert again.validation.texts == part.validation.texts


def test_equal_texts_stay_together_and_the_size_is_that_of_the_protocol(tmp_path):
    rows = [{"text": f"text {n // 2}", "label": str(n // 2 % 2)} for n in range(100)]
    task = own_task(train=write_jsonl(tmp_path / "twice.jsonl", rows), text="text", label="label")
    for seed in range(5):
        part = partition(task, seed=seed)
        assert len(part.validation) == 20
        assert not set(part.train.texts) & set(part.validation.texts)


def test_where_no_row_belongs_to_another_the_carve_is_as_ever(tmp_path):
    rows = [{"text": f"text {n}", "label": str(n % 3)} for n in range(50)]
    task = own_task(train=write_jsonl(tmp_path / "apart.jsonl", rows), text="text", label="label")
    # As it was drawn before groups were known.
    found = sorted(int(text[0].split()[1]) for text in partition(task, train_examples=40, seed=3).validation.texts)
    assert found == [0, 1, 2, 5, 6, 15, 28, 34]


def test_one_group_cannot_be_cut(tmp_path):
    rows = [{"question": "a question", "paragraph": "a paragraph", "label": str(n % 2)} for n in range(40)]
    with pytest.raises(PandaError, match="cannot be split for validation: rows that share a text or a passage"):
        partition(pairs(rows, tmp_path))


def test_groups_larger_than_the_validation_part_are_cut_at_the_smallest(tmp_path):
    """64 labels about three passages: a part of 13 cannot be had, one of 20 can."""
    sizes = {0: 24, 1: 20, 2: 20}
    rows = [
        {"question": f"question {n} on {which}", "paragraph": PARAGRAPH.format(which), "label": str(n % 2)}
        for which, size in sizes.items()
        for n in range(size)
    ]
    part = partition(pairs(rows, tmp_path))
    assert (len(part.train), len(part.validation)) == (44, 20)
    assert not {text[1] for text in part.train.texts} & {text[1] for text in part.validation.texts}


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the folder ../shared/data")
@pytest.mark.parametrize("budget", [64, 256, 1000])
def test_multirc_shares_no_passage_and_is_capped_by_questions(budget):
    task = load_task("multirc", data_dir=DATA)
    part = partition(task, train_examples=budget, seed=0)
    assert len(part.train) + len(part.validation) == budget
    assert not {text[1] for text in part.train.texts} & {text[1] for text in part.validation.texts}
    test = task.test()
    assert test is not None
    drawn = capped(test, 200)
    assert 180 <= len(drawn) <= 200
    for question in np.unique(drawn.groups):
        assert np.sum(drawn.groups == question) == np.sum(test.groups == question)
    assert task.kind == Kind.PAIR_CLASSIFICATION


def test_rows_that_stand_twice_are_told(tiny_backbone, tmp_path):
    rows = [{"text": f"good w{n}", "label": ("a", "b")[n % 2]} for n in range(40)]
    train = write_jsonl(tmp_path / "train.jsonl", [*rows, {"text": "good w0", "label": "b"}])
    test = write_jsonl(tmp_path / "test.jsonl", [*rows[:3], {"text": "new", "label": "a"}])
    task = own_task(train=train, test=test, text="text", label="label")
    notes = []

    class Notes(Silent):
        def note(self, message):
            notes.append(message)

    options = TrainingOptions(epochs=1, max_length=24, prompt_length=4)
    transfer(task, "auto", tiny_backbone, methods=["prompt_tuning"], options=options, progress=Notes())
    assert "3 of 4 test examples have the text of a training or validation example." in notes
    about = [note for note in notes if "more than one label" in note]
    assert about == [
        f"{train}: 1 text of the training data comes with more than one label; no model can get all of them right "
        "(lines 1, 41)."
    ], "once, with the lines"


def test_a_segment_that_most_rows_have_is_no_passage(tmp_path):
    """An instruction in a column of its own must not make one group of all rows."""
    rows = [{"question": f"question {n}", "paragraph": PARAGRAPH.format(0), "label": str(n % 2)} for n in range(40)]
    assert len(partition(pairs(rows, tmp_path)).validation) == 8
