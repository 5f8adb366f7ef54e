"""What `panda predict` is given on standard input, and what it gives back line by line."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from conftest import sentiment_rows, write_jsonl
from hypothesis import given, settings
from hypothesis import strategies as st

from promptpanda import Bank, PandaError, TrainingOptions, own_task, predict, train
from promptpanda.cli.stdin import decoded, rows_of_text
from promptpanda.tasks.catalog import catalog_spec
from promptpanda.tasks.files.reader import open_rows
from promptpanda.tasks.reading import read_rows
from promptpanda.tasks.spec import Kind
from promptpanda.training.distillation import DistillationOptions
from promptpanda.transfers import predict as module
from promptpanda.transfers.predict import predictions

FAST = TrainingOptions(epochs=1, max_length=24, prompt_length=4)
SPEC = catalog_spec("sst2")
(FIELD,) = SPEC.fields


def rows(data):
    """The rows, or the sentence about the first that is none."""
    found = list(rows_of_text(decoded(data), SPEC))
    for record in found:
        if record.problem is not None:
            raise PandaError(record.problem)
    return [record.values for record in found]


@pytest.mark.parametrize(
    ("data", "texts"),
    [
        (b"good film\nbad film\n", ["good film", "bad film"]),
        (b"good film\r\nbad film\r\n\r\n", ["good film", "bad film"]),
        (b"\xef\xbb\xbfgood film\n", ["good film"]),
        (b'\xef\xbb\xbf{"%s": "good film"}\n' % FIELD.encode(), ["good film"]),
        (f'[{{"{FIELD}": "good film"}},\n{{"{FIELD}": "bad film"}}]'.encode(), ["good film", "bad film"]),
        (b'\xef\xbb\xbf\xef\xbb\xbf{"%s": "good film"}\n' % FIELD.encode(), ["good film"]),
        ("good film\nbad film".encode("utf-16"), ["good film", "bad film"]),
        (b"[sic] good film\n", ["[sic] good film"]),
    ],
)
def test_every_line_is_a_row(data, texts):
    assert [row[FIELD] for row in rows(data)] == texts


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"good film\n\n   \nbad film\n", "Line 2 of standard input is empty"),
        (b'{"a": "x"}\n\n{"a": "y"}\n', "Line 2 of standard input is empty"),
        ("good\nfilm".encode("utf-16-le"), "Line 1 of standard input holds NUL characters"),
        (b"good \xff film", r"Standard input is not UTF-8 \(byte 5\)"),
        (b'["good film", "bad film"]', "is a JSON list that holds a str"),
        (b'[{"a": 1}, 2]', "is a JSON list that holds a int"),
        (b'[{"a": 1}, {]', "Standard input is not valid JSON"),
    ],
)
def test_what_is_no_row_is_refused_with_its_line(data, message):
    with pytest.raises(PandaError, match=message):
        rows(data)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(st.text(st.characters(blacklist_characters="\n\r\0", blacklist_categories=["Cs"]))), st.binary(max_size=6)
)
def test_whatever_comes_is_read_line_by_line_or_refused(lines, junk):
    text = "\n".join(lines)
    for data in (text.encode(), junk + text.encode(), text.encode("utf-16-le")):
        try:
            found = rows(data)
        except PandaError:
            continue
        if not decoded(data).lstrip().startswith(("[", "{")):
            given_lines = decoded(data).rstrip("\r\n \t").split("\n")
            assert [row[FIELD].rstrip("\r \t") for row in found] == [
                line.rstrip("\r \t") for line in given_lines if line
            ]


@pytest.fixture
def trained(tiny_backbone, tmp_path):
    path = write_jsonl(tmp_path / "books.jsonl", sentiment_rows(40, 5))
    task = own_task(train=path, text="text", label="label", name="books")
    return train(task, tiny_backbone, bank=Bank(tmp_path / "bank"), options=FAST)


def test_some_at_a_time_are_the_same_as_all_at_once(trained, tiny_backbone, monkeypatch):
    texts = [str(row["text"]) for row in sentiment_rows(23, 1)]
    whole = predict(trained, tiny_backbone, texts)
    monkeypatch.setattr(module, "_TOGETHER", 5)
    piecewise = predict(trained, tiny_backbone, texts)
    assert [one["label"] for one in piecewise] == [one["label"] for one in whole]
    for one, other in zip(piecewise, whole, strict=True):
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-6)


def test_the_first_answers_come_before_the_last_are_computed(trained, tiny_backbone, monkeypatch):
    monkeypatch.setattr(module, "_TOGETHER", 2)
    computed = []
    encode = module.encode
    monkeypatch.setattr(module, "encode", lambda *given, **more: computed.append(given[1]) or encode(*given, **more))
    answers = predictions(trained, tiny_backbone, ["good w1", "bad w2", "good w3"])
    next(answers)
    assert len(computed) == 1


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([None], "Text 1 is not a text: found NoneType"),
        (["good", float("nan")], "Text 2 is not a text: found float"),
        (["good", 3], "Text 2 is not a text: found int"),
        ([("good", None)], "Text 1 is not a text: found str, NoneType"),
        ([["a", "b"]], "Text 1 has 2 segments"),
        (["good", " "], "Text 2 is empty"),
    ],
)
def test_bad_rows_are_told_by_their_number(trained, tiny_backbone, inputs, message):
    with pytest.raises(PandaError, match=message):
        predict(trained, tiny_backbone, inputs)


@pytest.mark.parametrize("closed", ["0<&-", ">&-", "2>&-"])
def test_closed_streams_are_one_sentence(closed, trained, tiny_folder, tmp_path):
    python = f'"{sys.executable}" -c "from promptpanda.cli.main import main; main()"'
    command = f"{python} predict books --model {tiny_folder('bert')} {closed}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, input="good w1\n", capture_output=True, text=True, env=os.environ
    )
    assert "Traceback" not in done.stderr
    if closed == "2>&-":
        assert done.returncode == 0
        assert json.loads(done.stdout)["label"] in ("good", "bad")
    else:
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert "is closed" in done.stderr


@pytest.mark.parametrize(
    "given", [{"temperature": 1e300}, {"temperature": 0.0}, {"scale": 1e300}, {"beta": float("inf")}, {"scale": -1.0}]
)
def test_settings_that_overflow_are_refused(given):
    with pytest.raises(PandaError, match="must be a finite number from"):
        DistillationOptions(**given).check(SPEC.kind)


def test_what_does_not_suit_a_kind_is_told_apart_from_what_is_no_setting():
    """A sweep leaves out what a kind has not; a number that nothing has must not vanish with it."""
    assert not DistillationOptions(distance="kl").supports(Kind.REGRESSION)
    overflowing = DistillationOptions(temperature=1e300)
    assert overflowing.supports(SPEC.kind)
    with pytest.raises(PandaError, match="--temperature"):
        overflowing.check(SPEC.kind)


def test_lines_of_a_file_keep_their_numbers(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": "x"}\n\n{"a": "y"}\n\n')
    assert len(read_rows(path)) == 2, "to train on, blank lines do not matter"
    with pytest.raises(PandaError, match="Line 2 of .*rows.jsonl is empty"):
        list(open_rows(path, every_line=True))


def test_rows_in_memory_are_enough_to_train_and_what_is_no_list_of_texts_is_refused(tiny_backbone):
    trained = train(sentiment_rows(24), tiny_backbone, options=FAST)
    assert trained.card.labels == ("bad", "good")
    for wrong, name in (("one text", "str"), (None, "NoneType"), (5, "int"), ({"text": "a"}, "dict")):
        with pytest.raises(PandaError, match=f"of the type {name}; expected a list"):
            predict(trained, tiny_backbone, wrong)
    with pytest.raises(PandaError, match="The rows of train are of the type int"):
        train(5, tiny_backbone, options=FAST)
