"""`panda predict --output`: the input's columns as they were, predictions beside them, and nothing lost on the way."""

from __future__ import annotations

import csv
import datetime
import json
import os
import resource
from pathlib import Path
from typing import Any

import openpyxl
import pandas
import pyarrow
import pyarrow.parquet
import pytest
from conftest import sentiment_rows, write_jsonl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kinds import ROWS, kind_task
from typer.testing import CliRunner

from promptpanda import Bank, PandaError, TrainingOptions, predict, train
from promptpanda.cli.main import app
from promptpanda.progress import Silent
from promptpanda.tasks.inputs import Words
from promptpanda.tasks.tables import Read, Table
from promptpanda.tasks.writing import Columns, writer_for
from promptpanda.transfers import predict_rows as module
from promptpanda.transfers.cells import Cells, confidence_of
from promptpanda.transfers.predict_rows import ModelPredictor
from promptpanda.transfers.predict_table import in_characters, predict_table

KINDS = ("single_classification", "regression", "token_classification", "extractive_qa", "multiple_choice")
CASES = Path(__file__).parents[2] / "shared" / "cases"

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def bank(load_tiny, tmp_path_factory) -> Path:
    """One prompt of every kind, by the kind's name."""
    root = tmp_path_factory.mktemp("bank")
    options = TrainingOptions(epochs=1, max_length=24, prompt_length=4, lr=0.01)
    for kind in KINDS:
        train(
            kind_task(kind, root, kind, train=16, test=None),
            load_tiny("bert"),
            bank=Bank(root / "bank"),
            options=options,
        )
    return root / "bank"


@pytest.fixture
def panda(bank, tmp_path, monkeypatch):
    """Run `panda predict` in a folder of its own; returns stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, code: int = 0, stdin: str | None = None) -> tuple[str, str]:
        line = ["predict", *arguments, "--bank", str(bank), "--no-starter"]
        result = CliRunner().invoke(app, line, input=stdin)
        assert result.exit_code == code, f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
        return result.stdout, result.stderr

    return run


@pytest.fixture
def texts(tmp_path) -> list[str]:
    found = [str(row["text"]) for row in sentiment_rows(23, 3)]
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", "text", "id"], *([f"00{n}", text, "x"] for n, text in enumerate(found))])
    return found


@pytest.fixture
def expected(bank, load_tiny, texts) -> list[dict[str, Any]]:
    return predict("single_classification", load_tiny("bert"), texts, bank=bank)


def table_of(path: str) -> list[list[str]]:
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file, delimiter="\t" if path.endswith(".tsv") else ","))


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet", "xlsx"])
def test_the_columns_stay_and_predictions_stand_beside_them(panda, texts, expected, suffix):
    panda("single_classification", "rows.csv", "--output", f"out.{suffix}", "--probabilities")
    columns = ["id", "text", "id", "prediction", "confidence", "p_good", "p_bad"]
    if suffix in ("jsonl", "parquet"):  # where no name may stand twice
        columns[2] = "id.1"
    if suffix == "jsonl":
        rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
        assert [list(row) for row in rows] == [columns] * len(texts)
        found = [list(row.values()) for row in rows]
    elif suffix == "parquet":
        table = pyarrow.parquet.read_table("out.parquet")
        assert table.column_names == columns
        found = [list(row.values()) for row in table.to_pylist()]
    elif suffix == "xlsx":
        header, *found = ([*row] for row in openpyxl.load_workbook("out.xlsx").active.iter_rows(values_only=True))
        assert header == columns
    else:
        header, *found = table_of(f"out.{suffix}")
        assert header == columns
    assert [row[:3] for row in found] == [[f"00{n}", text, "x"] for n, text in enumerate(texts)]
    assert [row[3] for row in found] == [one["label"] for one in expected]
    for row, one in zip(found, expected, strict=True):
        numbers = [confidence_of(one), *one["probabilities"].values()]
        assert [float(cell) for cell in row[4:]] == pytest.approx(numbers, abs=1e-6)
    assert sorted(os.listdir()) == sorted(["rows.csv", f"out.{suffix}"])


def test_types_of_parquet_and_json_stay(panda):
    schema = pyarrow.schema(
        [
            ("n", pyarrow.int8()),
            ("text", pyarrow.string()),
            ("when", pyarrow.timestamp("ns", tz="UTC")),
            ("tags", pyarrow.list_(pyarrow.int16())),
            ("kind", pyarrow.dictionary(pyarrow.int32(), pyarrow.string())),
            ("amount", pyarrow.decimal128(10, 2)),
        ]
    )
    when = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    rows = [
        {"n": n, "text": "good w1", "when": when, "tags": [n, n], "kind": "ab"[n % 2], "amount": n} for n in range(5)
    ]
    before = pyarrow.Table.from_pylist(rows, schema=schema)
    pyarrow.parquet.write_table(before, "rows.parquet")
    panda("single_classification", "rows.parquet", "--output", "out.parquet")
    after = pyarrow.parquet.read_table("out.parquet")
    assert after.select(schema.names).equals(before)
    assert after.schema.field("confidence").type == pyarrow.float64()

    lines = [{"text": "good w1", "n": 1, "x": 0.5, "odd": {"a": [1]}}, {"text": "bad w2", "late": True, "n": None}]
    write_jsonl(Path("rows.jsonl"), lines)
    panda("single_classification", "rows.jsonl", "--output", "out.jsonl")
    written = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [{key: row[key] for key in line} for row, line in zip(written, lines, strict=True)] == lines
    panda("single_classification", "rows.jsonl", "--output", "typed.parquet")
    typed = pyarrow.parquet.read_table("typed.parquet")
    assert [str(field.type) for field in typed.schema][:5] == ["string", "int64", "double", "string", "bool"]
    assert typed.column("odd").to_pylist() == ['{"a": [1]}', None]


def test_lines_of_json_hold_nothing_that_is_no_json(panda):
    Path("rows.jsonl").write_text('{"text": "good", "x": NaN, "y": [1.5, {"z": Infinity}]}\n')
    panda("single_classification", "rows.jsonl", "--output", "o.jsonl")
    (line,) = Path("o.jsonl").read_text().splitlines()
    found = json.loads(line, parse_constant=pytest.fail)
    assert (found["x"], found["y"]) == (None, [1.5, {"z": None}])


def test_spans_values_and_answers(panda, bank, load_tiny):
    for kind in KINDS[1:]:
        rows = ROWS[kind](4, 5)
        write_jsonl(Path(f"{kind}.jsonl"), rows)
        panda(kind, f"{kind}.jsonl", "--output", f"{kind}.csv")
    inputs = [row["tokens"] for row in ROWS["token_classification"](4, 5)]
    tagged = predict("token_classification", load_tiny("bert"), inputs, bank=bank)
    for (*_, cell, confidence), one in zip(table_of("token_classification.csv")[1:], tagged, strict=True):
        spans = [{"text": s["text"], "start": s["start"], "end": s["end"], "type": s["label"]} for s in one["spans"]]
        assert json.loads(cell) == spans
        assert float(confidence) == pytest.approx(one["confidence"], abs=1e-6)
    values = predict("regression", load_tiny("bert"), [row["text"] for row in ROWS["regression"](4, 5)], bank=bank)
    assert [float(row[-2]) for row in table_of("regression.csv")[1:]] == pytest.approx(
        [one["value"] for one in values], rel=1e-6
    )
    assert {row[-1] for row in table_of("regression.csv")[1:]} == {""}
    passages = [(row["question"], row["context"]) for row in ROWS["extractive_qa"](4, 5)]
    answers = predict("extractive_qa", load_tiny("bert"), passages, bank=bank)
    assert [row[-2] for row in table_of("extractive_qa.csv")[1:]] == [one["answer"] for one in answers]


def test_the_confidence_of_tags_is_that_of_the_least_sure_word(bank, load_tiny):
    words = ["good", "w1", "bad", "w3"]
    (one,) = predict("token_classification", load_tiny("bert"), [words], bank=bank)
    tagger = Bank(bank).load("token_classification", load_tiny("bert"))
    from promptpanda.tasks.encoding import encode
    from promptpanda.tasks.inputs import Words
    from promptpanda.training.inference import predict_outputs

    outputs = predict_outputs(
        load_tiny("bert"), tagger.prompt, tagger.head, encode(load_tiny("bert"), [Words(tuple(words))], 24)
    )
    shares = [
        max(e / sum(row) for e in row) for row in [[2.718281828459045**x for x in word] for word in outputs[0].tolist()]
    ]
    assert one["confidence"] == pytest.approx(min(shares), abs=1e-6)


def test_the_likeliest_and_those_that_are_too_unsure(panda, texts, expected):
    sure = sorted(max(one["probabilities"].values()) for one in expected)
    limit = (sure[10] + sure[11]) / 2
    out, _ = panda("single_classification", "rows.csv", "--output", "o.csv", "--top", "2", "--threshold", str(limit))
    header, *rows = table_of("o.csv")
    assert header[3:] == ["prediction", "confidence", "prediction_2", "confidence_2"]
    assert [bool(row[3]) for row in rows] == [max(one["probabilities"].values()) >= limit for one in expected]
    assert f"{sum(not row[3] for row in rows)} of them left empty" in out
    for row, one in zip(rows, expected, strict=True):
        assert row[5] == min(one["probabilities"], key=one["probabilities"].get)
        assert float(row[4]) + float(row[6]) == pytest.approx(1.0, abs=1e-6)


def test_rows_that_cannot_be_read_are_left_empty_and_told(panda):
    Path("rows.csv").write_text('text,note\n"good w1",a\n"",b\n"bad, w2",c\nbad,w3,d,e\n')
    _, told = panda("single_classification", "rows.csv", "--output", "o.csv")
    rows = table_of("o.csv")[1:]
    assert [row[:2] for row in rows] == [["good w1", "a"], ["", "b"], ["bad, w2", "c"], ["bad", "w3,d,e"]]
    assert [bool(row[2]) for row in rows] == [True, False, True, False]
    assert "2 of 4 rows could not be read" in told
    assert "Row 2 of rows.csv has an empty text in 'text'" in told
    _, told = panda("single_classification", "rows.csv", "--output", "strict.csv", "--strict", code=2)
    assert told.startswith("panda: Row 2 of rows.csv has an empty text")
    assert not Path("strict.csv").exists()


def test_without_output_too_they_are_told(panda):
    Path("rows.jsonl").write_text('{"text": "good w1"}\n{"text": null}\nno json\n\n{"text": "bad w2", "more": 1}\n')
    out, told = panda("single_classification", "rows.jsonl")
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["label"] is not None for line in lines] == [True, False, False, False, True]
    assert [line["probabilities"] == {} for line in lines] == [False, True, True, True, False]
    assert "Line 3 of rows.jsonl is not valid JSON" in lines[2]["error"]
    assert "3 of 5 rows could not be read" in told
    panda("single_classification", "rows.jsonl", "--strict", code=2)


@pytest.mark.skipif(not CASES.is_dir(), reason="shared/cases is not here")
def test_the_shared_cases(panda):
    case = str(CASES / "one-empty-cell.csv")
    out, told = panda("single_classification", case)
    lines = [json.loads(line) for line in out.splitlines()]
    assert (len(lines), [n for n, line in enumerate(lines) if line["label"] is None]) == (40, [4])
    assert "1 of 40 rows" in told
    panda("single_classification", case, "--output", "o.csv")
    assert table_of("o.csv")[5] == ["", "n4", "", ""]
    out, told = panda("single_classification", stdin=(CASES / "two-line-cell.csv").read_text())
    assert len(out.splitlines()) == 2
    assert "read as CSV" in told


@pytest.mark.parametrize(
    ("stdin", "options", "rows"),
    [
        ("text,label\ngood w1,x\n", [], 1),
        ("id;text\n1;good w1\n2;bad\n", [], 2),
        ("text,label\ngood w1,x\n", ["--format", "text"], 2),
        ("the text, a label\ngood w1,x\n", [], 2),
        ("text\n", [], 1),
        ('{"text": "a"}\n', ["--format", "text"], 1),
        ('"text"\n"two\nlines"\n', [], 1),
        ("good\n\nbad\n", [], 3),
        ("id,text\n1,a b\n2,c\n", ["--format", "csv"], 2),
    ],
)
def test_a_header_on_standard_input_is_noticed(panda, stdin, options, rows):
    out, _ = panda("single_classification", *options, stdin=stdin)
    assert len(out.splitlines()) == rows


def test_plain_text_is_read_line_by_line(panda):
    Path("texts.txt").write_text("good w1\n\nbad w2\n\n")
    panda("single_classification", "texts.txt", "--output", "o.csv")
    assert [row[0] for row in table_of("o.csv")] == ["text", "good w1", "", "bad w2"]


class Stopping(Silent):
    """Stops the run when so many rows are predicted."""

    def __init__(self, after: int | None = None) -> None:
        self.left, self.notes = after, list[str]()

    def advance(self, units: int) -> None:
        if self.left is not None:
            self.left -= units
            if self.left <= 0:
                raise KeyboardInterrupt

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.fixture
def run(bank, load_tiny, texts, tmp_path, monkeypatch):
    """`predict_table` of rows.csv, two rows at a time."""
    monkeypatch.setattr(module, "_TOGETHER", 2)
    backbone = load_tiny("bert")
    trained = Bank(bank).load("single_classification", backbone)

    def start(name: str = "out.csv", progress: Stopping | None = None, cells: Cells | None = None) -> Stopping:
        table = Table.of_file(tmp_path / "rows.csv", trained.card.task)
        progress = progress or Stopping()
        predictor = ModelPredictor(trained, backbone)
        predict_table(predictor, table, table.survey(), tmp_path / name, cells or Cells(), progress)
        return progress

    return start


def test_a_run_that_was_killed_goes_on(run, tmp_path, monkeypatch):
    run("whole.csv")
    with pytest.raises(KeyboardInterrupt):
        run(progress=Stopping(9))
    partial = tmp_path / "out.csv.partial"
    assert not (tmp_path / "out.csv").exists()
    data = partial.read_bytes()
    partial.write_bytes(data[:-7])  # the last line was cut by a loss of power
    computed: list[int] = []
    found = module.predictions
    monkeypatch.setattr(module, "predictions", lambda a, b, inputs: computed.append(len(inputs)) or found(a, b, inputs))
    went_on = run()
    assert went_on.notes == ["9 of 23 rows were predicted before; continuing after them."]
    assert sum(computed) == 14
    whole, out = (table_of(str(tmp_path / name)) for name in ("whole.csv", "out.csv"))
    assert [row[:4] for row in out] == [row[:4] for row in whole]
    assert [float(row[4]) for row in out[1:]] == pytest.approx([float(row[4]) for row in whole[1:]], abs=1e-5)
    assert not partial.exists()


def test_of_another_input_or_other_options_it_starts_anew(run, tmp_path):
    for change in ("options", "input"):
        with pytest.raises(KeyboardInterrupt):
            run(progress=Stopping(4))
        if change == "input":
            with (tmp_path / "rows.csv").open("a") as file:
                file.write("9,good w9,x\n")
        again = run(cells=Cells(top=2) if change == "options" else None)
        assert "starts again" in again.notes[0]
        (tmp_path / "out.csv").unlink()


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(cut=st.integers(0, 900))
def test_wherever_the_partial_file_ends_nothing_is_lost_or_doubled(run, tmp_path, cut):
    partial, out = tmp_path / "out.csv.partial", tmp_path / "out.csv"
    if not (tmp_path / "kept").exists():
        with pytest.raises(KeyboardInterrupt):
            run(progress=Stopping(20))
        partial.rename(tmp_path / "kept")
    partial.write_bytes((tmp_path / "kept").read_bytes()[:cut])
    out.unlink(missing_ok=True)
    run()
    assert len(table_of(str(out))) == 24
    assert all(row[3] for row in table_of(str(out)))


def test_a_disk_that_fills_keeps_what_was_computed(run, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (400, hard))  # of a file, in bytes
        with pytest.raises(
            PandaError, match="The disk is full beside .*out.csv; the first [0-9]+ rows are kept"
        ) as told:
            run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(told.value)
    assert not (tmp_path / "out.csv").exists()
    assert "rows were predicted before" in run().notes[0]
    assert len(table_of(str(tmp_path / "out.csv"))) == 24


def test_two_at_once_do_not_mix(run, tmp_path):
    other = Stopping()
    other.advance = lambda units: run()  # type: ignore[method-assign]
    with pytest.raises(PandaError, match="Another process is writing"):
        run(progress=other)


def test_an_output_that_another_made_meanwhile_is_not_replaced(run, tmp_path):
    other = Stopping()
    other.advance = lambda units: (tmp_path / "out.csv").write_text("theirs")  # type: ignore[method-assign]
    with pytest.raises(PandaError, match="out.csv exists"):
        run(progress=other)
    assert (tmp_path / "out.csv").read_text() == "theirs"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rows.csv", "--output", "there.csv"], "there.csv exists; say --force"),
        (["rows.csv", "--output", "rows.csv", "--force"], "is the input itself"),
        (["rows.csv", "--output", "folder"], "has an unknown format"),
        (["rows.csv", "--output", "folder.csv"], "is a folder"),
        (["rows.csv", "--output", "none/o.csv"], "No folder none"),
        (["rows.csv", "--output", "o.xls"], "expected a name that ends in .csv, .tsv, .jsonl, .parquet, .xlsx"),
        (["rows.csv", "--top", "2"], "are for --output FILE"),
        (["rows.csv", "--output", "o.csv", "--top", "3"], "--top 3 is more than the 2 classes"),
        (["wrong.csv", "--output", "o.csv"], "Row 1 of wrong.csv has no field 'text'"),
        (["empty.csv", "--output", "o.csv"], "There is no row in empty.csv"),
        (["rows.csv", "--format", "csv"], "--format is for standard input"),
    ],
)
def test_what_cannot_be_written_is_told_before_the_work(panda, texts, arguments, message):
    Path("there.csv").write_text("mine")
    Path("folder.csv").mkdir()
    Path("wrong.csv").write_text("tekst\ngood\n")
    Path("empty.csv").write_text("text,id\n")
    _, told = panda("single_classification", *arguments, code=2)
    assert message in told
    assert told.count("\n") == 1
    assert Path("there.csv").read_text() == "mine"
    assert not list(Path().glob("*.partial*"))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("regression", ["--threshold", "0.5"], "predicts values, which have none"),
        ("regression", ["--top", "2"], "--top is for classes"),
        ("token_classification", ["--probabilities"], "has no fixed classes"),
    ],
)
def test_what_does_not_go_with_a_kind_is_told(panda, kind, options, message):
    assert message in panda(kind, "x.csv", "--output", "o.csv", *options, code=2)[1]


def test_an_output_that_exists_is_replaced_by_force_alone(panda, texts):
    Path("o.csv").write_text("mine")
    panda("single_classification", "rows.csv", "--output", "o.csv", "--force")
    assert len(table_of("o.csv")) == 24


def test_a_question_without_room_for_its_context_is_a_row_without_prediction(panda):
    rows = ROWS["extractive_qa"](5, 5)
    rows[2]["question"] = "w1 " * 40
    write_jsonl(Path("qa.jsonl"), rows)
    _, told = panda("extractive_qa", "qa.jsonl", "--output", "o.csv")
    assert [bool(row[-1]) for row in table_of("o.csv")[1:]] == [True, True, False, True, True]
    assert "The question ('w1 w1" in told
    assert "leaves no room for its context" in told


CELLS = st.text(st.characters(blacklist_categories=["Cs"]), max_size=8)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=4),
    suffix=st.sampled_from(["csv", "tsv", "jsonl", "parquet", "xlsx"]),
)
def test_whatever_texts_there_are_they_come_back(tmp_path, rows, suffix):
    path = tmp_path / f"o.{suffix}"
    types = {"a": frozenset([str]), "b": frozenset([str])}
    writer = writer_for(path)(path, Columns(("a", "b"), ("a", "b"), types, None, {"prediction": str}))
    for a, b in rows:
        writer.write({"a": a, "b": b}, ["x"])
    writer.close()
    if suffix in ("csv", "tsv"):
        assert [tuple(row[:2]) for row in table_of(str(path))[1:]] == rows
    elif suffix == "xlsx":
        found = [*openpyxl.load_workbook(path).active.iter_rows(min_row=2)]
        assert {cell.data_type for row in found for cell in row} <= {"s", "n", "inlineStr"}, (
            "no formula, no error value"
        )
        if all(text.isprintable() for row in rows for text in row):
            assert [tuple(cell.value or "" for cell in row)[:2] for row in found] == rows
    else:
        frame = pandas.read_parquet(path) if suffix == "parquet" else pandas.DataFrame(
            [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
        )  # fmt: skip
        assert [*zip(frame["a"], frame["b"], strict=True)] == rows


def test_calibrated_probabilities_are_those_of_scaled_outputs(panda, bank, load_tiny, texts):
    trained = Bank(bank).load("single_classification", load_tiny("bert"))
    temperature = trained.card.temperature
    if temperature is None:
        panda("single_classification", "rows.csv", "--output", "o.csv", "--calibrated", code=2)
        return
    panda("single_classification", "rows.csv", "--output", "o.csv", "--calibrated", "--probabilities")
    for row, one in zip(table_of("o.csv")[1:], predict(trained, load_tiny("bert"), texts), strict=True):
        good, bad = (p ** (1 / temperature) for p in one["probabilities"].values())
        assert float(row[-2]) == pytest.approx(good / (good + bad), abs=1e-5)


def test_gaps_that_programs_write_are_no_texts(panda):
    Path("rows.csv").write_text("text\ngood w1\nN/A\nnan\n")
    _, told = panda("single_classification", "rows.csv", "--output", "o.csv")
    assert [row[:2] for row in table_of("o.csv")[2:]] == [["N/A", ""], ["nan", ""]]
    assert "Row 2 of rows.csv has 'N/A' for a text" in told


def test_spans_of_a_text_have_places_in_it():
    text, words = "the good, w1  bad phone", ("the", "good", ",", "w1", "bad", "phone")
    spans = [
        {"start": 1, "end": 2, "label": "UP", "text": "good"},
        {"start": 3, "end": 5, "label": "X", "text": "w1 bad"},
    ]
    in_text = in_characters({"spans": spans}, Read({"n": 1, "tokens": text}, Words(words), None))["spans"]
    assert [(text[span["start"] : span["end"]], span["text"], span["label"]) for span in in_text] == [
        ("good", "good", "UP"),
        ("w1  bad", "w1  bad", "X"),
    ]
    of_words = {"spans": spans}
    assert in_characters(of_words, Read({"tokens": list(words)}, Words(words), None)) == of_words


def test_several_labels_are_joined_and_as_sure_as_the_least_sure_of_them(bank, load_tiny):
    card = Bank(bank).load("single_classification", load_tiny("bert")).card
    prediction = {"labels": ["a", "c"], "probabilities": {"a": 0.9, "b": 0.3, "c": 0.6}}
    assert Cells().of(card, prediction) == ["a|c", pytest.approx(0.6)]
    assert Cells(threshold=0.65).of(card, prediction) == [None, pytest.approx(0.6)]
    nothing = {"labels": [], "probabilities": {"a": 0.1, "b": 0.3}}
    assert Cells().of(card, nothing) == ["", pytest.approx(0.7)]
