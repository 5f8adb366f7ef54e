"""Specs that make no sense for their kind are refused, and marks stand where the rows say."""

from __future__ import annotations

import pytest
from conftest import write_jsonl
from test_kinds_bad_input import with_row

from promptpanda.errors import PandaError
from promptpanda.tasks.catalog import catalog_spec
from promptpanda.tasks.spec import TaskSpec
from promptpanda.tasks.task import Task

CHOICE = {"kind": "multiple_choice", "segments": ["{a}", "{choice}"], "metrics": ["accuracy"], "choices": ["x", "y"]}
TOKENS = {"kind": "token_classification", "segments": ["{tokens}"], "metrics": ["span_f1"], "label": "tags"}
QA = {"kind": "extractive_qa", "segments": ["{q}", "{c}"], "metrics": ["squad_f1"], "label": "answers"}
TEXT = {"kind": "single_classification", "segments": ["{t}"], "metrics": ["accuracy"]}


@pytest.mark.parametrize(
    ("base", "changes", "fragment"),
    [
        (TEXT, {"choices": ["x", "y"]}, "choices belongs to kind multiple_choice"),
        (TEXT, {"no_answer": True}, "no_answer belongs to kind extractive_qa"),
        (TEXT, {"predicate": "p"}, "predicate belongs to kind token_classification"),
        (TEXT, {"columns": {"word": 0}}, "columns belongs to kind token_classification"),
        (TEXT, {"scheme": "iob1"}, "scheme belongs to kind token_classification"),
        (TEXT, {"metrics": ["span_f1"]}, "metric span_f1 does not go with kind single_classification"),
        (CHOICE, {"choices": ["x"]}, "two fields or more"),
        (CHOICE, {"choices": []}, "or choice_list"),
        (CHOICE, {"choice_list": "z"}, "choices (two fields or more), or choice_list"),
        (CHOICE, {"labels": ["1", "2", "3"]}, "2 choices need as many labels"),
        (CHOICE, {"segments": ["{a}"]}, "'{choice}' in a segment, or a placeholder"),
        (CHOICE, {"segments": ["{a}", "{choice}", "{b}"]}, "segments"),
        (CHOICE, {"metrics": ["f1"]}, "metric f1 does not go with kind multiple_choice"),
        (CHOICE, {"templates": {"other": {"segments": ["{a}"]}}}, "'{choice}'"),
        (TOKENS, {"segments": ["{tokens} {more}"]}, "one segment that is one field"),
        (TOKENS, {"segments": ["the {tokens}"]}, "one segment that is one field"),
        (TOKENS, {"segments": ["{tokens}", "{more}"]}, "does not go with 2 segment(s)"),
        (TOKENS, {"metrics": ["accuracy"]}, "metric accuracy does not go"),
        (TOKENS, {"scheme": "bioes2"}, "scheme"),
        (TOKENS, {"columns": {"predicate": 1}}, "predicate and arguments go together"),
        (TOKENS, {"columns": {"verb": 1}}, "columns.verb"),
        (TOKENS, {"templates": {"other": {"segments": ["the {tokens}"]}}}, "one segment that is one field"),
        (TOKENS, {"marks": [{"field": "tokens", "sign": "*", "start": "a", "end": "b"}]}, "marks"),
        (QA, {"segments": ["{q} {c}"]}, "does not go with 1 segment(s)"),
        (QA, {"labels": ["a", "b"]}, "has no labels"),
        (QA, {"metrics": ["accuracy"]}, "metric accuracy does not go"),
        (TEXT, {"marks": [{"field": "t", "sign": "*", "start": "a"}]}, "start and end, or word and text"),
        (TEXT, {"marks": [{"field": "t", "sign": "*", "start": "a", "end": "b", "word": "c"}]}, "word and text"),
        (TEXT, {"templates": {"two": {"segments": ["{a}", "{b}"]}}}, "does not go with 2 segment(s)"),
        (TEXT, {"templates": {"none": {"segments": ["text"]}}}, "field in braces"),
    ],
)
def test_specs_that_make_no_sense(base, changes, fragment):
    with pytest.raises(PandaError, match="odd.yaml is not valid") as refused:
        TaskSpec.parse({"name": "odd"} | base | changes, "odd.yaml")
    assert fragment in str(refused.value)


def test_the_specs_above_are_sound_without_their_changes():
    for base in (CHOICE, TOKENS, QA, TEXT):
        assert TaskSpec.parse({"name": "odd"} | base, "a test").kind == base["kind"]


@pytest.mark.parametrize(
    ("task", "row", "fragment"),
    [
        ("wic", {"start1": 3, "end1": 99}, "marks a span that is not in its 'sentence1'"),
        ("wic", {"start1": 5, "end1": 5}, "marks a span that is not in its 'sentence1'"),
        ("wic", {"start2": -1}, "marks a span that is not in its 'sentence2'"),
        ("wic", {"end2": "x"}, "'x' in 'end2'; expected a whole number"),
        ("wic", {"end2": None}, "None in 'end2'; expected a whole number"),
        ("wsc", {"span1_index": 9}, "marks a span that is not in its 'text'"),
        ("wsc", {"span1_text": "Bo"}, "marks a span that is not in its 'text'"),
        ("wsc", {"span2_index": 3}, "marks a span that is not in its 'text'"),
        ("wsc", {"span1_text": ""}, "marks a span that is not in its 'text'"),
        ("wsc", {"span1_index": "first"}, "'first' in 'span1_index'; expected a whole number"),
    ],
)
def test_marks_outside_their_text(task, row, fragment, tmp_path):
    good = {
        "wic": {
            "sentence1": "a bank here",
            "sentence2": "the bank",
            "word": "bank",
            "start1": 2,
            "end1": 6,
            "start2": 4,
            "end2": 8,
        },
        "wsc": {
            "text": "Ann saw her dog",
            "span1_index": 0,
            "span1_text": "Ann",
            "span2_index": 2,
            "span2_text": "her",
        },
    }[task]
    spec = catalog_spec(task).with_template("marked")
    rows = [good | {"label": number % 2} for number in range(4)]
    write_jsonl(tmp_path / task / "train.jsonl", rows)
    texts = Task(spec, tmp_path).train().texts
    assert texts[0][0].startswith(
        {"wic": "a * bank * here the * bank * Does bank", "wsc": "* Ann * saw # her # dog"}[task]
    )
    write_jsonl(tmp_path / task / "train.jsonl", with_row(rows, 3, **row))
    with pytest.raises(PandaError, match=f"Row 3 of train of task '{task}'") as error:
        Task(spec, tmp_path).train()
    assert fragment in str(error.value)


@pytest.mark.parametrize(
    ("first", "second", "marked"),
    [
        ((1, "their mother"), (1, "their"), "saw * # their # mother * there"),
        ((1, "their mother"), (2, "mother"), "saw * their # mother # * there"),
        ((2, "mother there"), (1, "their mother"), "saw # their * mother # there *"),
        ((2, "mother"), (1, "their"), "saw # their # * mother * there"),
        ((0, "saw their mother there"), (2, "MOTHER"), "* saw their # mother # there *"),
    ],
)
def test_marks_inside_other_marks(first, second, marked):
    row = {"text": "saw their mother there", "span1_index": first[0], "span1_text": first[1]}
    row |= {"span2_index": second[0], "span2_text": second[1], "label": 0}
    assert catalog_spec("wsc").with_template("marked").render(row, "Row 1")[0] == marked


def test_an_unknown_template(tmp_path):
    with pytest.raises(PandaError, match="no template 'bold'; it has marked"):
        catalog_spec("wic").with_template("bold")
    with pytest.raises(PandaError, match="no template 'marked'; it has none"):
        catalog_spec("rte").with_template("marked")
