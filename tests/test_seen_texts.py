"""The record of seen texts: which spellings are one text, what a folder keeps, and how damaged records are met."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from banks import read_card, replace_file, trained_in, write_card
from conftest import sentiment_rows, task_of
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from promptpanda import PandaError
from promptpanda.bank.bank import Bank
from promptpanda.bank.folder import read_folder
from promptpanda.bank.seen_texts import SEEN_NAME, KnownRows, SeenTexts, normalised, segments
from promptpanda.progress import Silent
from promptpanda.tasks.catalog import load_task
from promptpanda.tasks.inputs import Choices, Passage, Words
from promptpanda.tasks.shared_text import known_pairs
from promptpanda.transfers.ranking import rank

DATA = Path(__file__).parents[2] / "shared" / "data"
WORD = st.text("abcxyzäß0123", min_size=1, max_size=5)
SENTENCE = st.lists(WORD, min_size=1, max_size=7)


class Notes(Silent):
    def __init__(self):
        self.said = []

    def note(self, message):
        self.said.append(message)


@pytest.mark.parametrize(
    "other",
    [
        "DON'T STOP, IT IS GOOD",
        "  do n't\tstop ; it is good . ",
        "Don\u2019t stop \u2014 it is good!",
        "\uff24\uff4f\uff4e't stop it is good",
    ],
)
def test_spellings_of_one_text_are_one(other):
    text = "Don't stop: it is good"
    assert normalised(other) == normalised(text) == "dontstopitisgood"
    assert KnownRows.of([(other,)]).seen_by(SeenTexts.of([(text,)])) == 1
    assert KnownRows.of([("Don't stop: it is bad",)]).seen_by(SeenTexts.of([(text,)])) == 0


@pytest.mark.parametrize("text", ["", " . ", "a good film", "!!! ??? ... ***", "one - two - three", "很好看"])
def test_texts_of_fewer_than_four_words_do_not_count(text):
    assert normalised(text) is None
    assert len(SeenTexts.of([(text,)]).hashes) == 0
    assert normalised("这部电影很好看") is not None, "ideographs are words, with or without spaces"


@settings(derandomize=True, deadline=None, max_examples=150)
@given(words=SENTENCE, marks=st.lists(st.sampled_from([" ", "  ", ", ", " - ", ".\n"]), min_size=8, max_size=8))
def test_white_space_punctuation_and_case_never_matter(words, marks):
    plain = " ".join(words)
    dressed = "".join(mark + word for mark, word in zip(marks, words, strict=False)).upper() + marks[-1]
    assert normalised(dressed) == normalised(plain)
    assert (normalised(plain) is None) == (len(words) < 4)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.data())
def test_rows_are_counted_as_a_slow_comparison_counts_them(data):
    texts = st.lists(SENTENCE.map(" ".join), min_size=1, max_size=2).map(tuple)
    source, target = data.draw(st.lists(texts, max_size=12)), data.draw(st.lists(texts, max_size=12))
    target += data.draw(st.lists(st.sampled_from(source), max_size=5)) if source else []
    known = {normalised(text) for one in source for text in one} - {None}
    expected = sum(any(normalised(text) in known for text in one) for one in target)
    rows = KnownRows.of(target)
    assert rows.count == len(target)
    assert rows.seen_by(SeenTexts.of(source)) == expected
    half = len(source) // 2
    joined = SeenTexts.of(source[:half]).joined(SeenTexts.of(source[half:]))
    assert joined.saved() == SeenTexts.of(source).saved(), "a record of two halves is that of the whole"


def test_every_kind_of_example_is_known_by_its_segments():
    long = "the {} of more than three words"
    texts = [long.format(name) for name in ("premise", "question", "context", "sentence", "choice")]
    record = SeenTexts.of([(text,) for text in texts])
    examples = [
        ("short", texts[0]),
        Passage(texts[1], "elsewhere"),
        Passage("why", texts[2]),
        Words(tuple(texts[3].split()), 2),
        Choices(((texts[4], "a"), (texts[4], "b")), ("0", "1")),
    ]
    assert [list(segments(one)) for one in examples[1:3]] == [[texts[1], "elsewhere"], ["why", texts[2]]]
    assert [KnownRows.of([one]).seen_by(record) for one in examples] == [1] * 5


def test_a_record_is_eight_bytes_a_text_and_holds_no_text(tmp_path):
    words = [f"secret{number}" for number in range(6)]
    rows = [(" ".join([*words, str(number)]),) for number in range(1000)]
    one, content = SeenTexts.of(rows), SeenTexts.of(rows).saved()
    assert len(one.hashes) == 1000
    assert len(content) < 8 * 1000 + 200
    assert not any(word.encode() in content for word in words)
    assert SeenTexts.of(reversed(rows)).saved() == content, "nor their order"
    (tmp_path / SEEN_NAME).write_bytes(content)
    assert np.array_equal(SeenTexts.read(tmp_path / SEEN_NAME).hashes, one.hashes)


def test_twenty_thousand_rows_are_compared_in_milliseconds():
    rows = KnownRows.of((f"row number {number} of a target",) for number in range(20_000))
    record = SeenTexts.of((f"row number {number} of a target",) for number in range(10_000, 40_000))
    times = []
    for _ in range(5):
        began = time.perf_counter()
        assert rows.seen_by(record) == 10_000
        times.append(time.perf_counter() - began)
    assert min(times) < 0.1


def copy_of(bank, name="copy"):
    """A task with the rows of `trained_in` under another name."""
    return task_of(sentiment_rows(24, 5), bank.parent / "data", name, labels=["good", "bad"])


def test_a_folder_keeps_the_record_and_its_card_names_it(tmp_path, tiny_backbone):
    trained = trained_in(tmp_path / "bank", tiny_backbone)
    expected = SeenTexts.of((row["text"],) for row in sentiment_rows(24, 5))
    assert np.array_equal(trained.seen.hashes, expected.hashes)
    assert SEEN_NAME in trained.card.files
    Bank(tmp_path / "bank").verify(trained.card.id)
    with pytest.raises(PandaError, match="that did not see its texts"):
        rank(copy_of(tmp_path / "bank"), tiny_backbone, tmp_path / "bank")


def test_an_old_folder_is_judged_by_names(tmp_path, tiny_backbone):
    bank = tmp_path / "bank"
    old, known = trained_in(bank, tiny_backbone), trained_in(bank, tiny_backbone, "sst2")
    for trained in (old, known):
        (trained.path / SEEN_NAME).unlink()
        card = read_card(trained.path)
        del card["files"][SEEN_NAME]
        write_card(trained.path, card)
        assert read_folder(trained.path, tiny_backbone).seen is None
    notes = Notes()
    ranking = rank(copy_of(bank, "mr"), tiny_backbone, bank, progress=notes)
    assert [entry.prompt for entry in ranking] == [old.card.id], "nothing tells that it saw these rows"
    assert [one.to_json() for one in ranking.left_out] == [{"prompt": known.card.id, "rows": None}]
    assert any(f"{known.card.id} by the name of sst2" in note for note in notes.said)


def test_a_record_of_another_version_is_told_and_names_decide(tmp_path, tiny_backbone):
    bank = tmp_path / "bank"
    trained = trained_in(bank, tiny_backbone)
    replace_file(trained.path, SEEN_NAME, save({"sketch": np.zeros(3, np.float32)}, {"version": "2"}))
    assert read_folder(trained.path, tiny_backbone).seen is None
    notes = Notes()
    (one,) = rank(copy_of(bank), tiny_backbone, bank, progress=notes)
    assert one.prompt == trained.card.id
    assert sum("is of version 2, this promptpanda compares version 1" in note for note in notes.said) == 1


@pytest.mark.parametrize("damage", ["cut", "changed", "missing", "unsorted", "floats", "no safetensors"])
def test_a_prompt_with_a_damaged_record_is_left_out_in_one_sentence(tmp_path, tiny_backbone, damage):
    bank = tmp_path / "bank"
    trained, sound = trained_in(bank, tiny_backbone), trained_in(bank, tiny_backbone, "films")
    path = trained.path / SEEN_NAME
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[:-8])
    elif damage == "changed":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "missing":
        path.unlink()
    elif damage == "unsorted":
        backwards = SeenTexts(trained.seen.hashes[::-1].copy())
        replace_file(trained.path, SEEN_NAME, backwards.saved())
    elif damage == "floats":
        replace_file(trained.path, SEEN_NAME, save({"hashes": np.zeros(3, np.float32)}, {"version": "1"}))
    else:
        replace_file(trained.path, SEEN_NAME, b"no record")
    notes = Notes()
    other = task_of(sentiment_rows(24, 77), tmp_path / "data", "other", labels=["good", "bad"])
    assert [one.prompt for one in rank(other, tiny_backbone, bank, progress=notes)] == [sound.card.id]
    (sentence,) = [note for note in notes.said if SEEN_NAME in note]
    assert "\n" not in sentence
    with pytest.raises(PandaError, match=SEEN_NAME.replace(".", r"\.")):
        Bank(bank).verify(trained.card.id)


# Of these no text is whole in both: wic joins two sentences, wsc puts the pronoun before its text. Names know them.
_IN_PART = {frozenset(("cola", "wic")), frozenset(("wnli", "wsc"))}


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
def test_the_record_finds_the_pairs_that_are_known_to_share_texts():
    there = [pair for pair in known_pairs() if all((DATA / name).is_dir() for name in pair)]
    if not there:
        pytest.skip("needs ../shared/data with two sets that share texts")
    records, rows = {}, {}
    for name in sorted(set().union(*there)):
        task = load_task(name, data_dir=DATA)
        train, test = task.split("train"), task.test()
        texts = (() if train is None else train.texts, () if test is None else test.texts)
        records[name], rows[name] = SeenTexts.of(texts[0]), KnownRows.of(texts[0] + texts[1])
    found = {
        pair
        for pair in there
        if any(rows[one].seen_by(records[other]) for one, other in (tuple(pair), tuple(pair)[::-1]))
    }
    assert found == set(there) - _IN_PART
