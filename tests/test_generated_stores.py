"""Stores and exported rows that somebody edited: they are read and reported, or refused in one sentence."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from report_rows import made_study

from promptpanda.errors import PandaError
from promptpanda.evaluation.grid import evaluate_rows
from promptpanda.report.report import Facts, make_report
from promptpanda.sweep.exchange import export_rows, import_rows, read_rows
from promptpanda.sweep.row import Answers, Row
from promptpanda.sweep.store import Store, to_json

SEEDED = settings(
    derandomize=True,
    deadline=None,
    max_examples=20,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
ODD = st.sampled_from(
    [
        *(None, True, 0, 1, -1, 2**63, 10**400, 0.5, 1e-320, 1e308, -1e308, 1e20, float("nan"), float("inf")),
        *(-float("inf"), "", "x", "\x00", "../../x", "\ud800", "a\nb", "<b>", "{0}", "nan", "1", "cr", "pot"),
        *([], {}, [0], ["x"], [[1]], [None], {"a": 1}, {"accuracy": 2.0}, {"\udfff": "x"}, {"x": float("nan")}),
    ]
) | st.integers(2, 400).map(lambda depth: json.loads("[" * depth + "]" * depth))  # fmt: skip


@cache
def study() -> tuple[list[Row], list[Answers]]:
    return made_study(("cr", "stsb"), ("sst2", "mr", "qqp"), ("bert-tiny",), (0,), n_test=12)


def changed(value: object, data: st.DataObject) -> object:
    """The value with one part of it, wherever in it, made odd, taken out or put in twice."""
    if isinstance(value, dict) and value and data.draw(st.integers(0, 9)):
        name = data.draw(st.sampled_from(sorted(value)))
        act = data.draw(st.sampled_from(["deeper", "deeper", "deeper", "out", "renamed"]))
        rest = {key: one for key, one in value.items() if key != name}
        if act == "deeper":
            return value | {name: changed(value[name], data)}
        return rest if act == "out" else rest | {data.draw(st.sampled_from(["x", "\ud800", ""])): value[name]}
    if isinstance(value, list) and value and data.draw(st.integers(0, 4)):
        place = data.draw(st.integers(0, len(value) - 1))
        act = data.draw(st.sampled_from(["deeper", "out", "twice"]))
        middle = {"deeper": [changed(value[place], data)], "out": [], "twice": [value[place]] * 2}[act]
        return [*value[:place], *middle, *value[place + 1 :]]
    return data.draw(ODD)


def reported(path: Path) -> None:
    """All that reads rows; a PandaError of one line is an answer, any other exception is not."""
    try:
        rows, answers, facts, plan = read_rows(path)
        assert all(isinstance(value, str) for value in (*facts.values(), *plan.values()))
        for row in rows:
            assert to_json(Row.model_validate_json(to_json(row))) == to_json(row)
        page = make_report(rows, answers, Facts(facts.get("name", "x"), facts.get("command"), facts.get("recipe")))
        for text in (page.html(), page.markdown(), page.latex()):
            text.encode()
        export_rows(rows, answers, path.with_name("again.parquet"))
        assert list(map(to_json, import_rows(path.with_name("again.parquet"))[0])) == list(map(to_json, rows))
        json.dumps(evaluate_rows(rows, plan=plan).to_json(), allow_nan=False)
    except PandaError as error:
        said = str(error)
    else:
        said = ""
    assert said.isprintable(), "one line"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("stores") / "store.sqlite"
    rows, answers = study()
    with Store.create(path) as made:
        for row in rows:
            made.write(row)
        made.join([], answers)
        made.note(name="x", command="panda sweep", recipe="name: x", plan=json.dumps({rows[0].key: "default"}))
    return path


def text_of(value: object, data: st.DataObject) -> object:
    """JSON with odd characters escaped; sometimes cut, or no text."""
    text = json.dumps(value)
    cut = text[: data.draw(st.integers(0, len(text)))]
    return data.draw(st.sampled_from([text] * 6 + [cut, text.encode(), 5, "\udc80".encode("utf-8", "surrogatepass")]))


@SEEDED
@given(st.data())
def test_a_store_with_an_edited_row(store, tmp_path, data):
    table = data.draw(st.sampled_from(["runs", "runs", "runs", "answers"]))
    edit(store, tmp_path / "edited.sqlite", table, "body", data)


@SEEDED
@given(st.data())
def test_a_store_with_edited_facts(store, tmp_path, data):
    edit(store, tmp_path / "edited.sqlite", "facts", "value", data)


def edit(store: Path, path: Path, table: str, column: str, data: st.DataObject) -> None:
    path.write_bytes(store.read_bytes())
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        cells = connection.execute(f"SELECT rowid, {column} FROM {table} ORDER BY rowid").fetchall()
        for _ in range(data.draw(st.integers(1, 3))):
            number, text = data.draw(st.sampled_from(cells))
            value = json.loads(text) if text.startswith("{") else text
            new = text_of(changed(value, data), data)
            connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (new, number))
        connection.commit()
    reported(path)


@SEEDED
@given(st.data())
def test_a_store_with_edited_bytes_or_version(store, tmp_path, data):
    path = tmp_path / "edited.sqlite"
    content = bytearray(store.read_bytes())
    if data.draw(st.booleans()):
        where = {"user_version": 60, "application_id": 68, "format": 18, "page size": 16, "encoding": 56}
        place = where[data.draw(st.sampled_from(sorted(where)))]
        content[place : place + 4] = data.draw(st.binary(min_size=4, max_size=4))
    else:
        place = data.draw(st.integers(0, len(content) - 1))
        new = data.draw(st.binary(max_size=40))
        content[place : place + len(new)] = new
        del content[data.draw(st.sampled_from([len(content), place])) :]
    path.write_bytes(content)
    reported(path)


@SEEDED
@given(st.data())
def test_exported_rows_that_were_edited(tmp_path, data):
    rows, answers = study()
    path = tmp_path / f"rows.{data.draw(st.sampled_from(['csv', 'parquet']))}"
    export_rows(data.draw(st.permutations(rows[:20])), answers, path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        new = data.draw(
            st.binary(max_size=4) | st.sampled_from([b",", b'"', b"\n", b"9" * 5000, b"[" * 3000, b"\\ud800"])
        )
        content[place : place + data.draw(st.integers(0, 9))] = new
    path.write_bytes(content)
    reported(path)
