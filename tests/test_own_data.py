"""Own data as people have it: dirty labels, missing cells, annotations of many tools, rows in memory."""

from __future__ import annotations

import json
from collections import Counter

import datasets
import numpy as np
import pandas
import pytest
from conftest import write_jsonl
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import IOB1, Entities
from tokenizers.pre_tokenizers import BertPreTokenizer

from promptpanda.errors import PandaError
from promptpanda.tasks.annotations import tagged
from promptpanda.tasks.catalog import load_task, own_task
from promptpanda.tasks.missing import is_missing
from promptpanda.tasks.spec import Kind
from promptpanda.tasks.tags import as_bio, find_scheme, spans_of, to_bio
from promptpanda.tasks.words import words_in

TAGS = {"text": "text", "label": "label", "kind": Kind.TOKEN_CLASSIFICATION}


def csv(tmp_path, *rows, header="text,label", name="own.csv"):
    (tmp_path / name).write_text("\n".join([header, *rows]) + "\n")
    return tmp_path / name


def good(count=6):
    return [f"text {number},{'bad' if number % 2 else 'good'}" for number in range(count)]


def told(task):
    task.train()
    return "\n".join(task.notes)


@pytest.mark.parametrize(
    "value", [None, float("nan"), np.nan, pandas.NA, pandas.NaT, "", "  ", "NaN", "N/A", "null", "None", " None ", "NA"]
)
def test_what_is_missing(value):
    assert is_missing(value)


@pytest.mark.parametrize("value", [0, False, 0.0, "none", "NONE", "no", "nanny", "0", [], "null set"])
def test_what_is_not_missing(value):
    assert not is_missing(value)


def test_rows_without_label_or_text_are_left_out_and_told(tmp_path):
    path = csv(tmp_path, *good(), "a,N/A", "b,", "c,NaN", "null,bad", '"two', 'lines",good ', ",None")
    task = own_task(train=path, text="text")
    split = task.train()
    assert len(split) == 7
    assert split.texts[-1] == ("two\nlines",)
    assert task.labels == ("bad", "good")
    assert task.notes == [
        f"{path}: 4 rows have no label and are left out (lines 8, 9, 10, 14).",
        f"{path}: 2 rows have no text and are left out (lines 11, 14).",
    ]


def test_test_data_without_any_label_is_none(tmp_path):
    task = own_task(train=csv(tmp_path, *good()), test=csv(tmp_path, "a,", "b,N/A", name="test.csv"), text="text")
    assert task.test() is None


def test_strict_refuses_them(tmp_path):
    path = csv(tmp_path, *good(), "a,N/A")
    with pytest.raises(PandaError, match="Row 7 of train of task 'own' has no label: 'N/A' in 'label'; fill it"):
        own_task(train=path, text="text", strict=True).train()
    path = csv(tmp_path, *good(), ",bad")
    with pytest.raises(PandaError, match="Row 7 of train of task 'own' has an empty text in 'text'"):
        own_task(train=path, text="text", strict=True).train()


def test_fields_that_json_leaves_out(tmp_path):
    rows = [{"text": f"t {number}", "label": "ab"[number % 2]} for number in range(6)]
    path = write_jsonl(tmp_path / "own.jsonl", [*rows, {"text": "c"}, {"label": "a"}, {"text": None, "label": "b"}])
    task = own_task(train=path, text="text")
    assert len(task.train()) == 6
    assert "1 row has no label and is left out (line 7)." in task.notes[0]
    assert "2 rows have no text and are left out (lines 8, 9)." in task.notes[1]
    write_jsonl(path, rows)
    with pytest.raises(PandaError, match="Row 1 of train of task 'own' has no field 'lable'.* Did you mean 'label'"):
        own_task(train=path, text="text", label="lable").train()


def test_a_column_that_is_not_there_is_all_that_is_told(tmp_path):
    task = own_task(train=csv(tmp_path, *good()), text="texts")
    with pytest.raises(PandaError, match="has no field 'texts'"):
        task.train()
    assert task.notes == []


def test_nothing_but_missing_cells(tmp_path):
    with pytest.raises(PandaError, match="No row of train of task 'own' has a text in 'text'"):
        own_task(train=csv(tmp_path, ",good", "N/A,bad"), text="text").train()
    with pytest.raises(PandaError, match="No row of train of task 'own' has a label in 'label'; name the column"):
        own_task(train=csv(tmp_path, "a,", "b,N/A"), text="text").train()


def test_spellings_of_one_class_are_joined_and_told(tmp_path):
    path = csv(tmp_path, *good(), "x, good", "y,Good", "z,GOOD", "v,Good", "w,bad  ", "u,very  bad", "t,very bad")
    test = csv(tmp_path, "a,gOOd", "b,Bad", header="text,label", name="test.csv")
    task = own_task(train=path, test=test, text="text")
    assert told(task).count("differ only in case or spaces") == 3
    assert f"{path}: 'Good' (2 rows) is read as 'good'; they differ" in told(task)
    assert task.labels == ("bad", "good", "very  bad")
    assert [task.labels[label] for label in task.split("test").labels] == ["good", "bad"]
    strict = own_task(train=path, text="text", strict=True)
    strict.train()
    assert set(strict.labels) == {"bad", "good", "Good", "GOOD", "very  bad", "very bad"}


def test_classes_that_only_one_side_has(tmp_path):
    train = csv(tmp_path, *good(), "z,only here", "zz,only here")
    test = csv(tmp_path, "a,good", "b,ugly", "c,bad", "d,odd", "e,ugly", name="test.csv")
    task = own_task(train=train, test=test, text="text")
    split = task.test()
    assert task.labels == ("bad", "good", "only here")
    assert split.labels.tolist() == [1, 4, 0, 3, 4]
    assert split.unseen_labels == ("odd", "ugly")
    assert split.take(np.asarray([3])).unseen_labels == split.unseen_labels
    assert "3 of 5 test rows have a class that train has not: 'odd', 'ugly'; they count as errors." in task.notes[-1]
    test = csv(tmp_path, "a,1", "b,2", name="test.csv")
    with pytest.raises(PandaError, match="Row 1 of test of task 'own' has the label '1', but train has only"):
        own_task(train=train, test=test, text="text").test()


def test_a_class_with_one_row_and_rows_that_come_twice(tmp_path):
    notes = told(own_task(train=csv(tmp_path, *good(), "a,ugly", "text 0,good", "text 1,good"), text="text"))
    assert "a class has one row: 'ugly' (line 8)" in notes
    assert "1 row repeats an earlier row, text and label (line 9)" in notes
    assert "1 text of the training data comes with more than one label" in notes
    assert "(lines 3, 10)" in notes
    assert told(own_task(train=csv(tmp_path, *good()), text="text")) == ""


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        (["1.5", "2", "3.5"] * 2, True),
        (map(str, range(8)), True),
        (["1", "2", "3", "4", "5"] * 2, False),
        (["0", "1"] * 4, False),
        (["1.0", "2.0"] * 4, False),
        ([*map(str, range(8)), "x"], False),
    ],
)
def test_numbers_that_may_be_amounts(tmp_path, values, hint):
    path = csv(tmp_path, *(f"t{number},{value}" for number, value in enumerate(values)))
    assert ("say --kind regression" in told(own_task(train=path, text="text"))) is hint


def test_decimal_commas(tmp_path):
    path = csv(tmp_path, *(f"t{number};{number},5" for number in range(4)), "u;7", header="text;label")
    task = own_task(train=path, text="text", kind=Kind.REGRESSION)
    assert task.train().labels.tolist() == [0.5, 1.5, 2.5, 3.5, 7.0]
    assert "decimal commas" in told(task)


def test_data_of_the_catalog_is_left_alone(tmp_path):
    """What "N/A" is there, its spec decides."""
    rows = [{"sentence": "N/A", "label": "positive"}, {"sentence": "bad", "label": "negative"}]
    write_jsonl(tmp_path / "sst2" / "train.jsonl", rows)
    task = load_task("sst2", data_dir=tmp_path)
    assert len(task.train()) == 2
    assert task.notes == []


def test_tell_is_called_once_for_each_note(tmp_path):
    heard = []
    task = own_task(train=csv(tmp_path, *good(), "a,N/A"), text="text")
    task.tell = heard.append
    for _ in range(2):
        assert task.labels
        task.train()
    assert heard == task.notes
    assert len(heard) == 1


def test_lists_with_one_class_are_that_class(tmp_path):
    rows = [{"text": f"t {number}", "label": [["a"], ["b"], []][number % 3]} for number in range(9)]
    task = own_task(train=write_jsonl(tmp_path / "doccano.jsonl", rows), text="text")
    assert len(task.train()) == 6
    assert task.labels == ("a", "b")
    assert "3 rows have no label and are left out (lines 3, 6, 9)" in task.notes[0]


# ---------------------------------------------------------------- words and spans of characters


def test_words_and_their_places():
    text = "Ana's “U.S.-trip”\u00a0costs 3,50 €\nहिन्दी 😀"
    words = words_in(text)
    assert [word.text for word in words] == [
        *("Ana", "'", "s", "“", "U", ".", "S", ".", "-", "trip", "”", "costs", "3", ",", "50", "€", "हिन्दी", "😀"),
    ]
    assert all(text[word.start : word.end] == word.text for word in words)


def test_words_are_cut_where_bert_cuts_them():
    text = "Ana's U.S.-trip costs 3,50 and (more)."
    cut = BertPreTokenizer().pre_tokenize_str(text)
    assert [(word.start, word.end) for word in words_in(text)] == [place for _, place in cut]


@given(st.text(alphabet="ab .-ü\n", max_size=40), st.data())
def test_spans_come_back_as_they_were_or_wider(text, data):
    words = words_in(text)
    count = Counter()
    if not words:
        return
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first, len(words) - 1))
    start = data.draw(st.integers(words[first].start, words[first].end - 1))
    end = data.draw(st.integers(max(start, words[last].start) + 1, words[last].end))
    row = tagged({"text": text, "label": [[start, end, "X"]]}, "text", "label", "Row 1", count)
    assert row["text"] == [word.text for word in words]
    assert spans_of(row["label"]) == [(first, last + 1, "X")]
    assert count["widened"] == ((start, end) != (words[first].start, words[last].end))


SPANS = [
    ([[0, 8, "PER"], [18, 22, "LOC"]], "B-PER I-PER O O B-LOC O O O", ""),
    ([{"start": 0, "end": 8, "label": "PER"}], "B-PER I-PER O O O O O O", ""),
    ([{"start": 0, "end": 8, "labels": ["PER"], "text": "Ana Lind"}], "B-PER I-PER O O O O O O", ""),
    ([{"id": 3, "label": "PER", "start_offset": 0, "end_offset": 8}], "B-PER I-PER O O O O O O", ""),
    ([[0, 9, "PER"]], "B-PER I-PER O O O O O O", ""),
    ([[2, 6, "PER"]], "B-PER I-PER O O O O O O", "1 span cuts a word"),
    ([[0, 8, "PER"], [0, 3, "FIRST"], [4, 8, "LAST"]], "B-PER I-PER O O O O O O", "2 spans overlap a longer one"),
    ([[8, 9, "PER"]], "O O O O O O O O", ""),
    ([], "O O O O O O O O", ""),
]


@pytest.mark.parametrize(("spans", "tags", "note"), SPANS)
@pytest.mark.parametrize("as_json", [False, True])
def test_spans_of_characters_become_tags(tmp_path, spans, tags, note, as_json):
    text = "Ana Lind moved to Oslo in 1990."
    rows = [
        {"text": "Bo moved.", "label": json.dumps([[0, 2, "PER"]]) if as_json else [[0, 2, "PER"]]},
        {"text": text, "label": json.dumps(spans) if as_json else spans},
    ]
    task = own_task(train=write_jsonl(tmp_path / "own.jsonl", rows), **TAGS)
    split = task.train()
    assert split.texts[1].words == ("Ana", "Lind", "moved", "to", "Oslo", "in", "1990", ".")
    assert " ".join(task.labels[tag] for tag in split.labels[1]) == tags
    assert note in "\n".join(task.notes)
    assert bool(note) == bool(task.notes)


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([[0, 99, "PER"]], "Row 1 .* marks the characters 0 to 99 of a text of 9"),
        ([[3, 3, "PER"]], "marks the characters 3 to 3"),
        ([[-1, 3, "PER"]], "marks the characters -1 to 3"),
        ([[0, 3]], r"has \[0, 3\] for a span; expected its start, its end and its label"),
        ([["a", 3, "PER"]], "for a span"),
        ([[True, 3, "PER"]], "for a span"),
        ([{"start": 0, "label": "PER"}], "for a span"),
        ([[0, 3, ""]], "for a span"),
    ],
)
def test_spans_that_are_none(tmp_path, spans, message):
    path = write_jsonl(tmp_path / "own.jsonl", [{"text": "Bo moved.", "label": spans}])
    with pytest.raises(PandaError, match=message):
        own_task(train=path, **TAGS).train()


def test_words_and_tags_between_spaces(tmp_path):
    path = csv(tmp_path, "Ana moved .,B-PER O O", "O no !,O O O", header="text,label")
    split = own_task(train=path, **TAGS).train()
    assert [one.words for one in split.texts] == [("Ana", "moved", "."), ("O", "no", "!")]
    path = csv(tmp_path, "Ana moved.,B-PER O O", header="text,label")
    with pytest.raises(PandaError, match="Row 1 .* has 2 words and 3 tags"):
        own_task(train=path, **TAGS).train()


# ---------------------------------------------------------------- schemes of tags


@pytest.mark.parametrize(
    ("sentences", "scheme"),
    [
        (["I-A I-A O I-B B-B"], "iob1"),
        (["O I-A", "I-A B-A"], "iob1"),
        (["B-A I-A O B-B"], None),
        (["B-A O I-A"], None),
        (["I-A B-B"], None),
        (["O O"], None),
        (["B-A L-A O U-B"], "bioes"),
        (["S-A"], "bioes"),
        (["PER PER O LOC"], "io"),
        (["NOUN VERB", "NOUN"], "plain"),
        (["B-A X"], None),
    ],
)
def test_schemes_are_found_out(sentences, scheme):
    assert find_scheme([tags.split() for tags in sentences]) == scheme


@given(st.lists(st.sampled_from(["O", "I-A", "B-A", "I-B", "B-B"]), min_size=1, max_size=12))
def test_what_is_taken_for_iob1_is_read_as_seqeval_reads_it(tags):
    if find_scheme([tags]) == "iob1":
        expected = {(one.start, one.end, one.tag) for one in Entities([tags], IOB1).entities[0]}
        assert set(spans_of(to_bio(tags, "row 1", "iob1"))) == expected


@given(st.lists(st.sampled_from(["O", "A", "B"]), min_size=1, max_size=12))
def test_tags_without_prefixes_are_read_as_seqeval_reads_them(tags):
    """seqeval takes "I-" in front of every tag for spans of equal neighbours."""
    prefixed = [tag if tag == "O" else f"I-{tag}" for tag in tags]
    expected = {(start, end + 1, name) for name, start, end in get_entities(prefixed)}
    assert set(spans_of(as_bio(tags, "io"))) == expected
    assert spans_of(as_bio(tags, "plain")) == [(at, at + 1, tag) for at, tag in enumerate(tags) if tag != "O"]


@pytest.mark.parametrize(
    ("tags", "expected", "note"),
    [
        ("I-PER I-PER O I-LOC B-LOC", "B-PER I-PER O B-LOC B-LOC", "IOB1"),
        ("B-PER L-PER O U-LOC U-LOC", "B-PER I-PER O B-LOC B-LOC", "BIOES or BILOU"),
        ("PER PER O LOC LOC", "B-PER I-PER O B-LOC I-LOC", "without B- and I-"),
        ("N V N N N", "B-N B-V B-N B-N B-N", "each word is a span of its own"),
    ],
)
def test_other_schemes_are_converted_with_a_note(tmp_path, tags, expected, note):
    path = write_jsonl(tmp_path / "own.jsonl", [{"text": list("abcde"), "label": tags.split()}] * 2)
    task = own_task(train=path, **TAGS)
    assert " ".join(task.labels[tag] for tag in task.train().labels[0]) == expected
    assert note in task.notes[0]


def test_broken_bio_is_refused_as_ever(tmp_path):
    path = write_jsonl(tmp_path / "own.jsonl", [{"text": ["a", "b", "c"], "label": ["B-X", "O", "I-X"]}])
    with pytest.raises(PandaError, match="Word 3 of Row 1 .* with no 'B-X' or 'I-X' before it"):
        own_task(train=path, **TAGS).train()


@pytest.mark.parametrize(
    ("name", "content", "options", "words", "tags"),
    [
        (
            "a.conll",
            "1 Ana x PER\n2 ran y O\n\n1 Bo x PER\n",
            {"text_column": 1, "tag_column": 3},
            "Ana ran",
            "B-PER O",
        ),
        ("a.txt", "B-PER Ana\nO ran\n", {"text_column": -1, "tag_column": 0}, "Ana ran", "B-PER O"),
        ("a.conllu", "1\tAna\tana\tPROPN\n2\tran\trun\tVERB\n", {}, "Ana ran", "B-PROPN B-VERB"),
        ("a.conllu", "1\tAna\tana\tPROPN\tX\n", {"tag_column": 4}, "Ana", "B-X"),
    ],
)
def test_columns_of_words_and_tags(tmp_path, name, content, options, words, tags):
    (tmp_path / name).write_text(content)
    task = own_task(train=tmp_path / name, kind=Kind.TOKEN_CLASSIFICATION, **options)
    split = task.train()
    assert " ".join(split.texts[0].words) == words
    assert " ".join(task.labels[tag] for tag in split.labels[0]) == tags


def test_columns_are_for_column_files(tmp_path):
    with pytest.raises(PandaError, match="--text-column and --tag-column are for column files"):
        own_task(train=csv(tmp_path, *good()), text="text", tag_column=1)


# ---------------------------------------------------------------- questions


def squad(tmp_path, *questions, name="squad.json"):
    data = [{"title": "t", "paragraphs": [{"context": "Built in 1900 by Ana.", "qas": list(questions)}]}]
    (tmp_path / name).write_text(json.dumps({"version": "1.1", "data": data}))
    return tmp_path / name


WHEN = {"id": "1", "question": "When?", "answers": [{"text": "1900", "answer_start": 9}]}
NONE = {"id": "2", "question": "Why?", "answers": [], "is_impossible": True}


def test_squad_needs_no_options(tmp_path):
    task = own_task(train=squad(tmp_path, WHEN))
    assert task.kind == Kind.EXTRACTIVE_QA
    assert not task.spec.no_answer
    assert task.train().labels[0] == ((9, "1900"),)
    task = own_task(train=squad(tmp_path, WHEN, NONE))
    assert task.spec.no_answer
    assert [len(answers) for answers in task.train().labels] == [1, 0]


def test_answers_in_other_forms(tmp_path):
    forms = [[{"text": "1900", "answer_start": 9}], {"text": "1900", "answer_start": 9}, "1900"]
    rows = [{"q": "When?", "c": "Built in 1900.", "a": form} for form in forms]
    path = write_jsonl(tmp_path / "own.jsonl", rows)
    split = own_task(train=path, text="q", text2="c", label="a", kind=Kind.EXTRACTIVE_QA).train()
    assert split.labels.tolist() == [((9, "1900"),)] * 3


# ---------------------------------------------------------------- rows in memory


def test_frames_lists_and_data_sets_give_the_same_task(tmp_path):
    rows = [{"text": f"t {number}", "label": ["a", "b", None][number % 3]} for number in range(9)]
    frame = pandas.DataFrame(rows)
    splits = []
    for given_rows in (rows, tuple(rows), frame, datasets.Dataset.from_list(rows), (row for row in rows)):
        task = own_task(train=given_rows, text="text", test=frame)
        assert task.name == "own"
        assert task.labels == ("a", "b")
        assert "the rows of train: 3 rows have no label and are left out (rows 3, 6, 9)." in task.notes
        splits.append((task.train().fingerprint, task.test().fingerprint))
    frame.to_csv(tmp_path / "own.csv", index=False)
    splits.append((own_task(train=tmp_path / "own.csv", text="text").train().fingerprint, splits[0][1]))
    assert len(set(splits)) == 1


def test_names_of_classes_of_a_data_set():
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    data = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features)
    assert own_task(train=data, text="text").labels == ("no", "yes")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"text": "a", "label": "x"}, None],
            "Row 2 of the rows of train is of the type NoneType; expected a dictionary",
        ),
        ([{"text": "a", "label": "x"}, "b"], "Row 2 of the rows of train is of the type str"),
        ({"text": ["a"]}, "The rows of train are of the type dict; expected a path, a pandas frame"),
        (7, "The rows of train are of the type int"),
        ([], "the rows of train is empty|the rows of train .* empty"),
        ([{"text": "a", "label": "x"}, {"text": ["b"], "label": "y"}], "Row 2 of train of task 'own' holds a list"),
        ([{"text": {"a": 1}, "label": "x"}, {"text": "b", "label": "y"}], "Row 1 .* holds a mapping in 'text'"),
    ],
)
def test_rows_that_are_none(rows, message):
    with pytest.raises(PandaError, match=message):
        own_task(train=rows, text="text").train()


def test_files_and_rows_are_not_mixed(tmp_path):
    with pytest.raises(PandaError, match="from files or from rows in memory"):
        own_task(train=csv(tmp_path, *good()), test=[{"text": "a", "label": "b"}], text="text")


def test_integers_that_pandas_made_floats_for_a_gap_keep_their_classes():
    whole = pandas.DataFrame({"text": [f"text {n}" for n in range(8)], "label": [n % 2 for n in range(8)]})
    gap = whole.assign(label=[None, *map(float, whole["label"][1:])])
    assert gap["label"].dtype == float
    for train, test in ((gap, whole), (whole, gap)):
        task = own_task(train=train, test=test, text="text")
        assert task.labels == ("0", "1")
        assert task.test().unseen_labels == ()
    halves = own_task(train=whole.assign(label=[0.5, 1.0] * 4), text="text")
    assert halves.labels == ("0.5", "1.0")


def test_a_frame_that_names_a_column_twice_is_refused():
    frame = pandas.DataFrame([["a", "b", "x"]], columns=["text", "text", "label"])
    with pytest.raises(PandaError, match="The frame of train names the column 'text' twice"):
        own_task(train=frame, text="text")


def test_columns_need_no_names_where_they_are_called_as_usual(tmp_path):
    rows = [{"text": f"text {n}", "label": "ab"[n % 2]} for n in range(4)]
    assert len(own_task(train=csv(tmp_path, *good())).train()) == 6
    assert own_task(train=rows).labels == ("a", "b")
    path = write_jsonl(tmp_path / "many.jsonl", [{"text": f"t {n}", "label": ["a"] * (n % 2)} for n in range(4)])
    assert own_task(train=path, kind=Kind.MULTI_LABEL).labels == ("a",)
    words = [{"tokens": ["a", "b"], "tags": ["B-X", "O"]}]
    assert own_task(train=words, kind=Kind.TOKEN_CLASSIFICATION).labels == ("O", "B-X", "I-X")
    spans = [{"text": "a b", "label": [[0, 1, "X"]]}]
    assert own_task(train=spans, kind=Kind.TOKEN_CLASSIFICATION).labels == ("O", "B-X", "I-X")
    with pytest.raises(PandaError, match="no column 'text' in .*own.csv, which has 'body', 'label'; say which"):
        own_task(train=csv(tmp_path, *good(), header="body,label"))
    with pytest.raises(PandaError, match="own.csv is empty"):
        own_task(train=csv(tmp_path, header="")).train()
