"""The store: rows come back as they went in, old files are brought up to date, files of others are refused."""

from __future__ import annotations

import math
import sqlite3

import pyarrow.parquet
import pytest

from promptpanda.errors import PandaError
from promptpanda.sweep.exchange import export_rows, import_rows, read_rows
from promptpanda.sweep.row import Answers, Curve, Row
from promptpanda.sweep.store import VERSION, Store, to_json

# The first version of the store, as it was.
V1 = """
CREATE TABLE runs (
    key TEXT PRIMARY KEY, kind, status, model, task, method, source, seed, budget, variant, protocol, data_fingerprint,
    test_fingerprint, backbone_fingerprint, prompt, checksum, metric, seconds, finished, validation_score REAL,
    test_score REAL, body TEXT NOT NULL
);
CREATE INDEX runs_by_task ON runs (task, method, source, seed);
CREATE TABLE answers (test_fingerprint TEXT PRIMARY KEY, task TEXT NOT NULL, body TEXT NOT NULL);
PRAGMA application_id = 1885433444;
PRAGMA user_version = 1;
"""


def row_of(number: int = 0, **changes: object) -> Row:
    content = {
        "key": f"{number:064x}",
        "kind": "target",
        "status": "finished",
        "model": "tiny",
        "task": "cb",
        "method": "pot",
        "source": 'mnli, the "large" one',
        "seed": number,
        "budget": None,
        "spec": {"options": {"lr": 0.01}, "needs": [1, None, "x\ny"]},
        "backbone_fingerprint": "f" * 64,
        "data_fingerprint": "d" * 64,
        "test_fingerprint": "t" * 64,
        "prompt": f"cb-s{number}-00000000",
        "checksum": "c" * 64,
        "metric": "accuracy",
        "n_test": 3,
        "validation": {"accuracy": 1 / 3, "loss": 0.1 + 0.2},
        "test": {"accuracy": 0.5},
        "predictions": [0, 1, [2, 3], 'é; "x"\n', -0.25],
        "constant": 0.1,
        "curve": (Curve(train_loss=1e-17, validation=None), Curve(train_loss=2.0, validation={"loss": 3.5})),
        "seconds": 12.345678901234567,
        "environment": {"torch": "2"},
        "finished": "2026-11-24T00:00:00+00:00",
    }
    return Row.model_validate(content | changes)


FAILED = row_of(
    7, status="failed", reason='It broke, "badly".', validation=None, test=None, predictions=None, prompt=None
)
ESTIMATES = row_of(8, kind="estimates", method=None, estimates={"cosine": -0.5}, test_fingerprint=None, curve=())
ANSWERS = Answers(
    test_fingerprint="t" * 64,
    task="cb",
    task_spec={"a": [1]},
    class_names=("x", "y"),
    labels=[0, [1], "z"],
    groups=[0, 0],
)
ROWS = [row_of(1), row_of(0, budget=64), FAILED, ESTIMATES]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.sqlite"


def test_rows_come_back_in_their_order(path):
    with Store.create(path) as store:
        for row in ROWS:
            store.write(row, ANSWERS, training="same" if row.prompt else None)
        store.write(ROWS[0].model_copy(update={"seconds": 1.0}), training="same")
        store.note(name="x", command="panda sweep")
        store.note(name="y")
    with Store.open(path.parent) as store:
        assert store.rows() == [ROWS[0].model_copy(update={"seconds": 1.0}), *ROWS[1:]]
        assert store.row(FAILED.key) == FAILED
        assert store.row("0") is None
        assert store.answers() == [ANSWERS]
        assert store.facts() == {"name": "y", "command": "panda sweep"}
        assert store.prompts() == {row.prompt for row in ROWS if row.prompt}
        assert set(store.trained_alike("same")) == {row.prompt for row in ROWS if row.prompt}
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        found = connection.execute("SELECT validation_score, test_score FROM runs WHERE seed = 1").fetchone()
        assert found == (1 / 3, 0.5)


def test_numbers_that_are_none_survive(path, tmp_path):
    row = row_of(validation={"accuracy": math.nan, "loss": math.inf}, estimates={"on": -math.inf})
    with Store.create(path) as store:
        store.write(row)
        assert to_json(store.rows()[0]) == to_json(row)
    for kind in ("csv", "parquet"):
        export_rows([row], [], tmp_path / f"rows.{kind}")
        assert to_json(import_rows(tmp_path / f"rows.{kind}")[0][0]) == to_json(row)


@pytest.mark.parametrize("kind", ["csv", "parquet", "CSV"])
def test_exported_and_imported_rows_are_equal(path, tmp_path, kind):
    file = tmp_path / "deep" / f"rows.{kind}"
    big = row_of(9, predictions=[0.123456789] * 50_000)  # a longer cell than csv reads by itself
    export_rows([*ROWS, big], [ANSWERS], file)
    assert import_rows(file) == ([*ROWS, big], [ANSWERS])
    assert [one.name for one in file.parent.iterdir()] == [file.name]
    with Store.create(path) as store:
        assert store.join(*import_rows(file)) == 5
        assert store.join(*import_rows(file)) == 0
        assert store.rows() == [*ROWS, big]
        assert store.answers() == [ANSWERS]


def test_parquet_columns_have_types(tmp_path):
    export_rows(ROWS, [ANSWERS], tmp_path / "rows.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "rows.parquet")
    assert {name: str(table.schema.field(name).type) for name in ("seed", "seconds", "task", "test")} == {
        "seed": "int64",
        "seconds": "double",
        "task": "string",
        "test": "string",
    }


def test_rows_of_ours_give_way_only_where_they_failed(path):
    done = FAILED.model_copy(update={"status": "finished", "reason": None})
    other = ROWS[0].model_copy(update={"seconds": 99.0})
    with Store.create(path) as store:
        store.join([ROWS[0], FAILED], [])
        assert store.join([other, done], []) == 1
        assert store.rows() == [ROWS[0], done]
        assert store.join([other, FAILED], []) == 0


def test_a_store_of_version_1_is_brought_up_to_date(path):
    connection = sqlite3.connect(path)
    connection.executescript(V1)
    for row in ROWS:
        connection.execute(
            "INSERT INTO runs (key, task, prompt, body) VALUES (?, ?, ?, ?)",
            (row.key, row.task, row.prompt, to_json(row)),
        )
    connection.execute("INSERT INTO answers VALUES (?, ?, ?)", (ANSWERS.test_fingerprint, "cb", to_json(ANSWERS)))
    connection.commit()
    connection.close()
    for opened in (Store.open, Store.create):  # the first only reads
        with opened(path) as store:
            assert store.rows() == ROWS
            assert store.answers() == [ANSWERS]
            assert store.facts() == {}
    with Store.create(path) as store:
        store.write(ROWS[0], training="t")
        assert store.trained_alike("t") == [ROWS[0].prompt]
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
        old = {name for (name,) in connection.execute("SELECT name FROM pragma_table_info('runs')")}
    with Store.create(path.with_name("new.sqlite")), sqlite3.connect(path.with_name("new.sqlite")) as connection:
        assert old == {name for (name,) in connection.execute("SELECT name FROM pragma_table_info('runs')")}


def test_files_that_are_no_stores(path, tmp_path):
    with pytest.raises(PandaError, match="No store at"):
        Store.open(path)
    for content in (b"x", b"not a database, but long enough to be looked at" * 10):
        path.write_bytes(content)
        with pytest.raises(PandaError, match="is damaged or no store"):
            Store.open(path)
    connection = sqlite3.connect(tmp_path / "foreign.sqlite")
    connection.execute("CREATE TABLE mine (x)")
    connection.commit()
    connection.close()
    for opened in (Store.open, Store.create):
        with pytest.raises(PandaError, match="is a database of another program"):
            opened(tmp_path / "foreign.sqlite")
    with Store.create(tmp_path / "newer.sqlite"):
        pass
    connection = sqlite3.connect(tmp_path / "newer.sqlite")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(PandaError, match="has version 99, this promptpanda reads up to"):
        Store.open(tmp_path / "newer.sqlite")


def test_a_damaged_store_is_named(path):
    with Store.create(path) as store:
        for number in range(200):
            store.write(row_of(number))
    content = bytearray(path.read_bytes())
    content[5000:20000] = b"\xff" * 15000
    path.write_bytes(content)
    with pytest.raises(PandaError, match="is damaged or no store"), Store.open(path) as store:
        store.rows()
    with Store.create(path.with_name("row.sqlite")) as store:
        store.write(row_of())
        store._connection.execute("UPDATE runs SET body = '{\"key\": 1}'")
        with pytest.raises(PandaError, match="is damaged or no store"):
            store.rows()


def edited(path, *statements):
    """A store of one row, then changed behind its back."""
    with Store.create(path) as store:
        store.write(ROWS[0], ANSWERS)
        store.note(name="x", plan="{}")
    connection = sqlite3.connect(path)
    for statement, *values in statements:
        connection.execute(statement, values)
    connection.commit()
    connection.close()
    return path


EDITS = {
    "version -1": ("PRAGMA user_version = -1", "its version is -1, and stores have versions from 1 to 2"),
    "version 0": ("PRAGMA user_version = 0", "its version is 0, and stores have versions from 1 to 2"),
    "no table": ("DROP TABLE answers", "no such table: answers"),
    "plan is no JSON": ("UPDATE facts SET value = 'x' WHERE name = 'plan'", "fact plan: invalid JSON"),
    "plan is a list": ("UPDATE facts SET value = '[1]' WHERE name = 'plan'", "fact plan: input should be an object"),
    "plan names a number": (
        "UPDATE facts SET value = '{\"a\":1}' WHERE name = 'plan'",
        "fact plan: a: input should be",
    ),
    "fact is a blob": ("UPDATE facts SET value = x'00ff' WHERE name = 'name'", "fact name: input should be a valid"),
    "fact is no text": ("UPDATE facts SET value = CAST(x'ff' AS TEXT)", "Could not decode to UTF-8"),
    "score": ("UPDATE runs SET body = json_set(body, '$.test.accuracy', 1e308)", "test.accuracy is 1e+308"),
    "infinite": ("UPDATE runs SET body = replace(body, '{\"accuracy\":0.5}', '{\"accuracy\":Infinity}')", "is inf"),
    "seed": ("UPDATE runs SET body = replace(body, '\"seed\":1', '\"seed\":9999999999999999999')", "row 1: seed: "),
    "prompt": ("UPDATE runs SET body = json_set(body, '$.prompt', '../../x')", "row 1: prompt: prompt id '../../x'"),
    "surrogate": ("UPDATE runs SET body = replace(body, '\"torch\"', '\"\\ud800\"')", "row 1: invalid JSON"),
    "nested": (f"UPDATE runs SET body = replace(body, '[0,1,', '{'[' * 500}{']' * 500},[')", "row 1: invalid JSON"),
    "row is a number": ("UPDATE runs SET body = 5", "row 1: "),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_store_is_refused_with_the_place_and_the_reason(path, edit):
    statement, message = EDITS[edit]
    edited(path, (statement,))
    with pytest.raises(PandaError) as error:
        read_rows(path)
    assert message in str(error.value)
    assert "is damaged or no store (" in str(error.value)
    assert "\n" not in str(error.value)


def left_alone(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_reading_a_store_at_rest_writes_nothing(path, tmp_path):
    edited(path)
    before = left_alone(tmp_path)
    seen = []
    with Store.open(path) as store:
        assert store.rows() == [ROWS[0]]
        seen.append(left_alone(tmp_path))
        with pytest.raises(PandaError, match="readonly database"):
            store.note(name="y")
    assert seen == [before]
    assert left_alone(tmp_path) == before


def test_a_store_that_is_written_is_read_with_its_latest_rows(path):
    with Store.create(path) as writer:
        writer.write(ROWS[0])
        with Store.open(path) as reader:
            assert reader.rows() == [ROWS[0]]
            writer.write(ROWS[1])
            assert reader.rows() == ROWS[:2]


def test_a_store_at_rest_that_changes_while_it_is_read_is_told(path):
    edited(path)
    with Store.open(path) as reader:
        with Store.create(path) as writer:
            writer.write(ROWS[1])
        with pytest.raises(PandaError, match="A sweep began to write .* while it was read; run the command again"):
            reader.rows()


def test_a_file_without_anything_in_it_yet_has_no_rows(path):
    path.write_bytes(b"")
    assert read_rows(path) == ([], [], {}, {})
    assert path.read_bytes() == b""


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.txt", "x", "Rows are kept as .parquet or .csv, found 'rows.txt'"),
        ("rows.csv", "a,b\n1,2\n", "holds no rows of a sweep (no column"),
        ("rows.csv", "\x00\x01", "holds no rows of a sweep"),
        ("rows.parquet", "PAR1 not really", "holds no rows of a sweep"),
    ],
)
def test_files_that_hold_no_rows(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(PandaError) as error:
        import_rows(tmp_path / name)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(PandaError, match="No file"):
        import_rows(tmp_path / "none.csv")


def test_a_changed_export_is_refused(tmp_path):
    export_rows(ROWS, [ANSWERS], tmp_path / "rows.csv")
    text = (tmp_path / "rows.csv").read_text()
    (tmp_path / "rows.csv").write_text(text.replace(",target,finished,", ",target,begun,"))
    with pytest.raises(PandaError, match="status: input should be 'finished' or 'failed'"):
        import_rows(tmp_path / "rows.csv")
