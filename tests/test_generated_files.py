"""Data files with something changed in them: read, or refused with one sentence; never a traceback."""

from __future__ import annotations

import contextlib
import datetime
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from promptpanda.cli.main import app
from promptpanda.errors import PandaError
from promptpanda.tasks.catalog import load_task, own_task
from promptpanda.tasks.columns import ColumnData
from promptpanda.tasks.inputs import Split
from promptpanda.tasks.metrics import baseline, compute_metrics
from promptpanda.tasks.reading import count_rows, read_rows
from promptpanda.tasks.spec import Kind, TaskSpec
from promptpanda.tasks.task import Task

GENERATED = settings(
    derandomize=True,
    deadline=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
ROWS = [{"text": f"w{n} é", "label": n % 2} for n in range(6)]
CSV = b"text,label\n" + b"".join(f'"w{n}, x",{n % 2}\n'.encode() for n in range(6))
JSONL = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)
CONLL = b"EU B-ORG\nrejects O\n\nGerman B-MISC\ncall O\n. O\n"
SINK = pa.BufferOutputStream()
pyarrow.parquet.write_table(pa.Table.from_pylist(ROWS), SINK)
PARQUET = SINK.getvalue().to_pybytes()
VALID = {"csv": CSV, "jsonl": JSONL, "jsonl.gz": gzip.compress(JSONL, mtime=0), "conll": CONLL, "parquet": PARQUET}

changes = st.lists(
    st.tuples(
        st.integers(0, 5_000), st.integers(0, 12), st.binary(max_size=6) | st.sampled_from([b"[" * 2_000, b"\0"])
    ),
    min_size=1,
    max_size=3,
)


def changed(data: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for at, cut, put in edits:
        at %= len(data) + 1
        data = data[:at] + put + data[at + cut :]
    return data


@pytest.mark.parametrize("ending", list(VALID))
def test_changed_files_are_read_or_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"data.{ending}"
    path.write_bytes(VALID[ending])
    assert len(read_rows(path, ColumnData())) == (2 if ending == "conll" else 6)

    @GENERATED
    @given(changes)
    def check(edits: list[tuple[int, int, bytes]]) -> None:
        path.write_bytes(changed(VALID[ending], edits))
        for fields in (None, ["text", "label"]):
            try:
                rows = read_rows(path, ColumnData(), fields)
            except PandaError as error:
                assert len(str(error)) < 2_000  # noqa: PT017
            else:
                assert rows
                assert all(isinstance(row, dict) and all(isinstance(name, str) for name in row) for row in rows)
        with contextlib.suppress(PandaError):
            count_rows(path, ColumnData())

    check()


def write(path: Path, **columns: Any) -> Path:
    pyarrow.parquet.write_table(pa.table(columns), path)
    return path


TEXTS, LABELS = [f"w{n}" for n in range(30)], ["a", "b"] * 15
FAR = pa.array([2**60] * 30, pa.timestamp("ms"))
BROKEN = pa.Array.from_buffers(
    pa.string(), 30, [None, pa.py_buffer(np.arange(31, dtype=np.int32)), pa.py_buffer(b"\xff" * 30)]
)


@pytest.mark.parametrize("odd", [FAR, BROKEN, pa.array([b"\xff\xd8"] * 30)], ids=["date", "utf-8", "image"])
def test_columns_that_are_not_used_are_not_read(tmp_path: Path, odd: Any) -> None:
    path = write(tmp_path / "own.parquet", text=TEXTS, label=LABELS, odd=odd)
    assert len(own_task(train=path, text="text").train()) == 30
    with pytest.raises(PandaError, match="The column 'odd' of .* leave it out"):
        own_task(train=path, text="odd").train()


def test_bytes_are_the_text_that_they_are(tmp_path: Path) -> None:
    path = write(tmp_path / "own.parquet", text=[text.encode() for text in TEXTS], label=LABELS)
    assert own_task(train=path, text="text").train().texts == tuple((text,) for text in TEXTS)


def test_dates_that_python_holds_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "own.parquet", when=[datetime.date(2020, 1, 2)])
    assert read_rows(path) == [{"when": datetime.date(2020, 1, 2)}]


def test_long_integers_are_refused_or_labels(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text('{"text": "a", "label": ' + "9" * 5_000 + "}\n")
    with pytest.raises(PandaError, match=r"Line 1 of .* holds an integer of 5,000 digits"):
        read_rows(path)
    path.write_text('{"text": "a", "label": "' + "9" * 5_000 + '"}\n')
    spec = {"name": "own", "kind": "single_classification", "segments": ["{text}"], "metrics": ["accuracy"]}
    own = TaskSpec.parse(spec | {"labels": ["x", "y"], "files": {"train": str(path)}}, "test")
    with pytest.raises(PandaError, match="Row 1 of train"):
        Task(own).train()
    with pytest.raises(PandaError, match="not a finite number"):
        own_task(train=path, text="text", kind=Kind.REGRESSION).train()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"test": ""}, "is a folder"),
        ({"test": "folder"}, "is a folder"),
        ({"test": "a\0b"}, "check the path"),
        ({"text": ""}, "without a name"),
        ({"label": ""}, "without a name"),
    ],
)
def test_odd_paths_and_columns_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("own.csv").write_bytes(CSV)
    with pytest.raises(PandaError, match=said):
        own_task(**{"train": "own.csv", "text": "text"} | options)
    assert len(own_task(train="own.csv", text="text").train()) == 6


@pytest.mark.parametrize("broken", ["parquet", "jsonl.gz", "csv"])
def test_a_broken_file_is_a_problem_of_its_task(tmp_path: Path, broken: str) -> None:
    place = tmp_path / "rte" / f"train.{broken}"
    place.parent.mkdir()
    if broken == "csv":
        place.mkdir()
    else:
        place.write_bytes(b"PAR1junk" if broken == "parquet" else gzip.compress(JSONL)[:-9])
    with pytest.raises(PandaError, match=f"train.{broken}"):
        load_task("rte", data_dir=tmp_path).sizes()
    done = CliRunner().invoke(app, ["tasks", "list", "--data-dir", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    listed = {row["name"]: row for row in json.loads(done.stdout)["tasks"]}
    assert f"train.{broken}" in listed["rte"]["problem"]
    assert "problem" not in listed["cb"]


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    st.lists(st.integers(0, 5), min_size=2, max_size=30), st.sampled_from(["accuracy", "macro_f1", "matthews", "f1"])
)
def test_the_baseline_is_the_best_of_all_classes(labels: list[int], metric: str) -> None:
    names = tuple("abcdef")
    spec = TaskSpec.parse(
        {"name": "own", "kind": "single_classification", "segments": ["{text}"], "metrics": [metric], "positive": "c"},
        "test",
    )
    train = Split(tuple((str(n),) for n in labels), np.asarray(labels))
    best = max(compute_metrics(spec, names, train, np.full(len(labels), one))[metric] for one in range(6))
    assert baseline(spec, names, train, train)[metric] == pytest.approx(best)
