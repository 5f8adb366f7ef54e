"""Wrong choices, words, tags, answers, marks and specs: one clear sentence that names the row, exit code 2."""

from __future__ import annotations

import json
import os

import pytest
import yaml
from conftest import write_jsonl
from kinds import SPECS, choice_rows, kind_task, question_rows, word_rows
from typer.testing import CliRunner

from promptpanda.cli.main import app
from promptpanda.tasks.catalog import load_task

FAST = ["--epochs", "1", "--max-length", "24"]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def refused(tmp_path, monkeypatch, tiny_folder):
    """Run `panda` in an empty folder, expect a refusal, return its one sentence."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, stdin=None):
        model = [] if arguments[0] == "bank" else ["--model", str(tiny_folder("bert"))]
        result = CliRunner().invoke(app, [*arguments, *model], input=stdin)
        assert result.exit_code == 2, f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
        assert result.stdout == ""
        assert "Traceback" not in result.stderr
        lines = [line for line in result.stderr.splitlines() if line.startswith("panda: ")]
        assert len(lines) == 1, result.stderr
        assert result.stderr.splitlines()[-1] == lines[0]
        assert lines[0].endswith((".", "?"))
        return lines[0]

    return run


@pytest.fixture
def training(refused, tmp_path):
    """Train a kind on rows of which one was changed, and return the refusal."""

    def run(kind, rows, *options, **changes):
        content = {"name": "own", "kind": kind} | SPECS[kind] | changes
        (tmp_path / "own.yaml").write_text(yaml.safe_dump(content))
        write_jsonl(tmp_path / "data" / "own" / "train.jsonl", rows)
        sentence = refused("train", "own.yaml", "--data-dir", "data", *FAST, *options)
        assert not os.path.isdir("bank") or not os.listdir("bank")
        return sentence

    return run


def with_row(rows, number, **changes):
    """Rows of which the one of this number, from 1, is changed; None takes a field away."""
    rows[number - 1] = {name: value for name, value in (rows[number - 1] | changes).items() if value is not ...}
    return rows


@pytest.mark.parametrize(
    ("changes", "fragments"),
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, ("2 words and 1 tags in 'tags'", "one tag per word")),
        ({"tokens": ["a"], "tags": ["O", "O"]}, ("1 words and 2 tags",)),
        ({"tokens": ["a", "b"], "tags": ["O", "I-UP"]}, ("Word 2 of Row 5", "'I-UP'", "B- begin each span", "iob1")),
        ({"tokens": ["a", "b"], "tags": ["B-UP", "I-DOWN"]}, ("Word 2 of Row 5", "'I-DOWN'")),
        ({"tokens": ["a"], "tags": ["B-SIDEWAYS"]}, ("'B-SIDEWAYS'", "the spec names only the types 'UP', 'DOWN'")),
        ({"tokens": ["a"], "tags": ["UP"]}, ("the tag 'UP'", "expected 'O' or a type after B-, I-")),
        ({"tokens": ["a"], "tags": ["B-"]}, ("without a type",)),
        ({"tokens": ["a"], "tags": [9]}, ("9 (int) for a tag",)),
        ({"tokens": ["a"], "tags": [None]}, ("None (NoneType) for a tag",)),
        ({"tokens": ["a"], "tags": "O"}, ("no list of tags in 'tags', found 'O'",)),
        ({"tokens": ["a"], "tags": None}, ("no list of tags in 'tags', found 'None'",)),
        ({"tokens": "a b"}, ("2 words and",)),
        ({"tokens": []}, ("no list of words in 'tokens'",)),
        ({"tokens": ["a", 7]}, ("has 7 as word 2 of 'tokens'; expected a string",)),
        ({"tokens": None}, ("no list of words in 'tokens'",)),
        ({"tokens": ["", " "], "tags": ["O", "O"]}, ("an empty text in 'tokens'",)),
        ({"tokens": ...}, ("no field 'tokens'",)),
        ({"tags": ...}, ("no field 'tags'",)),
    ],
)
def test_words_and_tags(changes, fragments, training):
    sentence = training("token_classification", with_row(word_rows(20), 5, **changes))
    assert "Row 5 of train of task 'own'" in sentence
    for fragment in fragments:
        assert fragment in sentence


@pytest.mark.parametrize("place", [3, -1, "0", None, 1.0, True])
def test_a_predicate_out_of_its_sentence(place, training):
    rows = [{"tokens": ["good", "w1", "w2"], "tags": ["B-UP", "O", "O"], "predicate": 0} for _ in range(20)]
    sentence = training("token_classification", with_row(rows, 5, predicate=place), predicate="predicate")
    assert f"Row 5 of train of task 'own' has {place!r} in 'predicate'" in sentence
    assert "0 to 2" in sentence


def test_no_word_has_a_tag(training):
    rows = [{"tokens": ["w1"], "tags": ["O"]} for _ in range(20)]
    assert "No word of a training example of task 'own' has a tag other than O" in training(
        "token_classification", rows
    )


CONTEXT = "w1 w2 good w3"


@pytest.mark.parametrize(
    ("changes", "fragments"),
    [
        ({"answers": {"text": ["good"], "answer_start": [0]}}, ("'good' at 0", "it is at 6")),
        ({"answers": {"text": ["Good"], "answer_start": [6]}}, ("'Good' which is not in its context",)),
        ({"answers": {"text": ["good"], "answer_start": [-1]}}, ("'good' at -1", "it is at 6")),
        ({"answers": {"text": ["good"], "answer_start": [99]}}, ("'good' at 99",)),
        ({"answers": "great"}, ("'great' which is not in its context",)),
        ({"answers": ""}, ("expected a text and a whole number",)),
        ({"answers": {"text": [" "], "answer_start": [2]}}, ("expected a text and a whole number",)),
        ({"answers": {"text": ["good"], "answer_start": ["6"]}}, ("'good' at '6'", "whole number")),
        ({"answers": {"text": ["good"], "answer_start": []}}, ("lists 'text' and 'answer_start' of one length",)),
        ({"answers": {"text": "good", "answer_start": 6}}, ("lists 'text' and 'answer_start'",)),
        ({"answers": {"text": ["good"]}}, ("lists 'text' and 'answer_start'",)),
        ({"answers": ["good"]}, ("no answers in 'answers'",)),
        ({"answers": None}, ("no answers in 'answers'",)),
        ({"answers": {"text": [], "answer_start": []}}, ("has no answer", "`no_answer: true`")),
        ({"question": " "}, ("an empty text in 'question'",)),
        ({"context": ""}, ("an empty text in 'context'",)),
        ({"answers": ...}, ("no field 'answers'",)),
    ],
)
def test_questions_and_answers(changes, fragments, training):
    sentence = training("extractive_qa", with_row(question_rows(20), 5, **({"context": CONTEXT} | changes)))
    assert "Row 5 of train of task 'own'" in sentence
    for fragment in fragments:
        assert fragment in sentence


def test_a_question_that_leaves_no_room(training):
    rows = with_row(question_rows(20), 5, question=" ".join(["good"] * 12))
    sentence = training("extractive_qa", rows)
    assert "has 15 tokens, which leaves no room for its context in 24" in sentence
    assert "--max-length" in sentence
    assert "leaves no room for its context in 4" in training("extractive_qa", rows, "--max-length", "4")


@pytest.mark.parametrize(
    ("changes", "fragments"),
    [
        ({"choices": ["good"]}, ("1 choice(s) in 'choices'", "at least two")),
        ({"choices": ["good", "good"]}, ("1 choice(s)",)),
        ({"choices": []}, ("0 choice(s)",)),
        ({"choices": ["good", " "]}, ("an empty choice ' '",)),
        ({"choices": "good, bad"}, ("no list of choices in 'choices'",)),
        ({"choices": None}, ("no list of choices in 'choices'",)),
        ({"choices": ["good", 3]}, ("no list of choices",)),
        ({"choices": {"text": ["good", "bad"], "label": ["A"]}}, ("of one length",)),
        ({"choices": {"label": ["A", "B"]}}, ("no list of choices",)),
        ({"choices": ["good", "bad"], "label": 2}, ("the label 2", "'good', 'bad'", "a number from 0 to 1")),
        ({"choices": ["good", "bad"], "label": -1}, ("the label -1",)),
        ({"choices": ["good", "bad"], "label": "great"}, ("the label 'great'",)),
        ({"choices": ["good", "bad"], "label": None}, ("the label None",)),
        ({"choices": ["good", "bad"], "label": 0.5}, ("the label 0.5",)),
        ({"choices": ["good", "bad"], "label": ["great"]}, ("none of its answers ['great'] among the choices",)),
        ({"choices": ["good", "bad"], "label": []}, ("none of its answers []",)),
        ({"premise": ""}, ("an empty text in 'premise'",)),
        ({"choices": ...}, ("no field 'choices'",)),
    ],
)
def test_choices(changes, fragments, training):
    sentence = training("multiple_choice", with_row(choice_rows(20), 5, **changes))
    assert "Row 5 of train of task 'own'" in sentence
    for fragment in fragments:
        assert fragment in sentence


@pytest.mark.parametrize("gap", ["", " ", None])
def test_a_choice_field_without_text(gap, training):
    rows = [{"goal": "a w1", "one": "good", "two": "bad", "label": n % 2} for n in range(20)]
    changes = {"segments": ["{goal}", "{choice}"], "choice_list": None, "choices": ["one", "two"]}
    sentence = training("multiple_choice", with_row(rows, 5, two=gap), **changes)
    assert "Row 5 of train of task 'own' lacks the choice 'two'" in sentence


@pytest.mark.parametrize(
    ("changes", "fragments"),
    [
        ({"query": "who is it"}, ("no '@placeholder' whose place a choice could take",)),
        ({"entities": None}, ("no list of choices in 'entities'",)),
        ({"entities": "Ann, Bo"}, ("no list of choices in 'entities'",)),
        ({"entities": ["Ann"]}, ("1 choice(s) in 'entities'",)),
        ({"answers": ["Cy"]}, ("none of its answers ['Cy'] among the choices in 'entities'",)),
    ],
)
def test_gaps_and_entities(changes, fragments, training):
    """ReCoRD's form."""
    rows = [
        {"query": "it is @placeholder", "passage": "Ann met Bo", "entities": ["Ann", "Bo", "Ann"], "answers": ["Bo"]}
        for _ in range(20)
    ]
    spec = {
        "segments": ["{query}", "{passage}"],
        "placeholder": "@placeholder",
        "choice_list": "entities",
        "label": "answers",
    }
    sentence = training("multiple_choice", with_row(rows, 5, **changes), **spec)
    assert "Row 5 of train of task 'own'" in sentence
    for fragment in fragments:
        assert fragment in sentence


def test_a_number_means_the_choice_at_that_place_though_another_has_the_same_text(tmp_path):
    """Equal choices are put together, as ReCoRD's entities are, and a number then still means the place in the row."""
    rows = [{"premise": "a", "choices": ["bad", "bad", "good", "w1"], "label": number} for number in (0, 1, 2, 3)]
    split = kind_task("multiple_choice", tmp_path, rows=rows).train()
    names = [[one.names[place] for place in right] for one, right in zip(split.texts, split.labels, strict=True)]
    assert names == [["bad"], ["bad"], ["good"], ["w1"]]


def test_kl_is_still_refused_for_regression(refused, prompt, tmp_path):
    prompt("token_classification", word_rows(20))
    write_jsonl(tmp_path / "price.jsonl", [{"text": f"w{n}", "label": n} for n in range(20)])
    own = ["--train", "price.jsonl", "--text", "text", "--label", "label", "--kind", "regression", *FAST]
    sentence = refused("transfer", *own, "--source", "own", "--distance", "kl")
    assert "a regression has none; use --distance mse" in sentence


def works(*arguments):
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.stderr
    return result.stdout


@pytest.fixture
def prompt(refused, tmp_path, tiny_folder):
    """Train a prompt of a kind through the command line."""

    def of(kind, rows, **changes):
        content = {"name": "own", "kind": kind} | SPECS[kind] | changes
        (tmp_path / "own.yaml").write_text(yaml.safe_dump(content))
        write_jsonl(tmp_path / "data" / "own" / "train.jsonl", rows)
        works("train", "own.yaml", "--data-dir", "data", *FAST, "--model", str(tiny_folder("bert")))

    return of


def test_a_spec_that_makes_no_sense(refused, tmp_path):
    content = {"name": "odd", "kind": "token_classification"} | SPECS["token_classification"] | {"choices": ["x", "y"]}
    (tmp_path / "odd.yaml").write_text(yaml.safe_dump(content))
    sentence = refused("train", "odd.yaml")
    assert "The task spec in odd.yaml is not valid" in sentence
    assert "choices belongs to kind multiple_choice" in sentence


def test_rows_that_cannot_be_predicted_from(refused, prompt, tmp_path):
    prompt("multiple_choice", choice_rows(20))
    assert "needs the fields premise, choices; give a FILE" in refused("predict", "own", stdin="good\n")
    write_jsonl(tmp_path / "rows.jsonl", with_row(choice_rows(3), 2, choices=["good"]))
    assert "Row 2 of rows.jsonl has 1 choice(s)" in refused("predict", "own", "rows.jsonl", "--strict")
    write_jsonl(tmp_path / "rows.jsonl", with_row(choice_rows(3), 2, choices=...))
    assert "Row 2 of rows.jsonl has no field 'choices'" in refused("predict", "own", "rows.jsonl", "--strict")


def test_words_that_cannot_be_tagged(refused, prompt, tmp_path):
    prompt("token_classification", word_rows(20))
    write_jsonl(tmp_path / "rows.jsonl", [{"tokens": ["a"]}, {"tokens": 7}])
    assert "Row 2 of rows.jsonl has no list of words in 'tokens'" in refused("predict", "own", "rows.jsonl", "--strict")
    (tmp_path / "rows.csv").write_text("tokens\n[1]\n")
    assert "has 1 as word 1" in refused("predict", "own", "rows.csv", "--strict")
    (tmp_path / "rows.conll").write_text("good O\n")
    assert "rows.conll is a column file" in refused("predict", "own", "rows.conll")
    tagged = [
        json.loads(line)
        for line in CliRunner().invoke(app, ["predict", "own"], input="good  w1\nbad\n").stdout.splitlines()
    ]
    assert [len(found["tags"]) for found in tagged] == [2, 1]


def test_questions_that_cannot_be_answered(refused, prompt, tmp_path):
    prompt("extractive_qa", question_rows(20))
    write_jsonl(tmp_path / "rows.jsonl", [{"question": "a w1 " * 9, "context": "w1"}])
    assert "has 21 tokens, which leaves no room" in refused("predict", "own", "rows.jsonl", "--strict")
    write_jsonl(tmp_path / "rows.jsonl", [{"question": "a", "context": " "}])
    assert "Row 1 of rows.jsonl has an empty text in 'context'" in refused("predict", "own", "rows.jsonl", "--strict")


def test_a_prompt_of_another_kind_is_not_evaluated(refused, prompt, tmp_path):
    prompt("token_classification", word_rows(20))
    kind_task("extractive_qa", tmp_path / "data", name="squadlike")
    (tmp_path / "squadlike.yaml").write_text(
        yaml.safe_dump({"name": "squadlike", "kind": "extractive_qa"} | SPECS["extractive_qa"])
    )
    sentence = refused("evaluate", "own", "squadlike.yaml", "--data-dir", "data")
    assert "is for token_classification, task 'squadlike' is extractive_qa" in sentence
    types = {"labels": ["LEFT", "RIGHT"], "kind": "token_classification", "name": "other"}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(SPECS["token_classification"] | types))
    assert "evaluate it on a task with the same labels" in refused(
        "evaluate", "own", "other.yaml", "--data-dir", "data"
    )


def test_a_type_in_test_that_the_prompt_does_not_know(refused, prompt, tmp_path):
    prompt("token_classification", word_rows(20), labels=[])
    content = {"name": "other", "kind": "token_classification"} | SPECS["token_classification"] | {"labels": []}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(content))
    rows = [{"tokens": ["good"], "tags": ["B-UP"]}, {"tokens": ["good"], "tags": ["B-LEFT"]}]
    write_jsonl(tmp_path / "data" / "other" / "test.jsonl", rows)
    sentence = refused("evaluate", "own", "other.yaml", "--data-dir", "data")
    assert (
        "Row 2 of test of task 'other' has the tag 'B-LEFT', but the prompt knows only the types 'DOWN', 'UP'"
        in sentence
    )


@pytest.mark.parametrize("kind", ["multiple_choice", "extractive_qa"])
def test_labels_that_are_all_hidden(kind, training, refused, tmp_path):
    rows = choice_rows(20) if kind == "multiple_choice" else question_rows(20)
    hidden = -1 if kind == "multiple_choice" else {"text": [], "answer_start": []}
    name = SPECS[kind].get("label", "label")
    sentence = training(kind, [row | {name: hidden} for row in rows])
    assert f"No row of train of task 'own' has a label in '{name}'" in sentence
    write_jsonl(tmp_path / "data" / "own" / "test.jsonl", [row | {name: hidden} for row in rows])
    assert load_task("own.yaml", data_dir="data").test() is None
