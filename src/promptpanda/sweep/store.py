"""The store: SQLite, one row a run, written by one driver and read by anyone at any time."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from promptpanda.errors import PandaError
from promptpanda.files import canonical_json
from promptpanda.sweep.row import Answers, Row

STORE_NAME = "store.sqlite"
VERSION = 2
_APPLICATION = 0x70616E64  # "pand", in the header of the file

# What one filters by is a column; `body` is the whole row as JSON.
_FILTERS = (
    *("kind", "status", "model", "task", "method", "source", "seed", "budget", "variant", "protocol"),
    *("data_fingerprint", "test_fingerprint", "backbone_fingerprint", "prompt", "checksum", "metric", "seconds"),
    "finished",
)
_SCHEMA = f"""
CREATE TABLE runs (
    key TEXT PRIMARY KEY, {", ".join(_FILTERS)}, validation_score REAL, test_score REAL, training TEXT,
    body TEXT NOT NULL
);
CREATE INDEX runs_by_task ON runs (task, method, source, seed);
CREATE INDEX runs_by_training ON runs (training);
CREATE TABLE answers (test_fingerprint TEXT PRIMARY KEY, task TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
_Model = TypeVar("_Model", Row, Answers)


def _to_version_2(connection: sqlite3.Connection) -> None:
    """Version 1 had no facts, and did not say which runs train the same."""
    connection.execute("ALTER TABLE runs ADD COLUMN training TEXT")
    connection.execute("CREATE INDEX runs_by_training ON runs (training)")
    connection.execute("CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL)")


_MIGRATIONS = {1: _to_version_2}


class Store:
    """Rows and answers of a sweep. Use as a context manager, or call `close`."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection

    @classmethod
    def open(cls, path: Path | str) -> Store:
        """Open a store, or the store in a sweep's folder.

        Raises:
            PandaError: there is none, it is damaged or of another program or a newer version.
        """
        path = Path(path)
        path = path / STORE_NAME if path.is_dir() else path
        if not path.is_file():
            raise PandaError(f"No store at {path}; name the folder of a sweep (panda sweep makes one below runs/).")
        return cls._connect(path)

    @classmethod
    def create(cls, path: Path | str) -> Store:
        """Open a store; if there is none, make an empty one."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        return cls._connect(Path(path))

    @classmethod
    def _connect(cls, path: Path) -> Store:
        try:
            store = cls(path, sqlite3.connect(path, timeout=30, isolation_level=None))
        except sqlite3.OperationalError as error:
            raise PandaError(f"The store {path} cannot be opened ({error}); choose another place (--out).") from error
        try:
            store._settle()
        except BaseException:
            store.close()
            raise
        return store

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def rows(self) -> list[Row]:
        """All rows, in the order in which they were first written."""
        return [self._row(body) for (body,) in self._read("SELECT body FROM runs ORDER BY rowid")]

    def row(self, key: str) -> Row | None:
        """One run, or None if the store does not know it."""
        found = self._read("SELECT body FROM runs WHERE key = ?", key)
        return self._row(found[0][0]) if found else None

    def answers(self) -> list[Answers]:
        """The right answers of every set of test examples that was scored."""
        bodies = self._read("SELECT body FROM answers ORDER BY test_fingerprint")
        return [self._valid(Answers, body) for (body,) in bodies]

    def facts(self) -> dict[str, str]:
        """What is known of the sweep as a whole: of the last call `name`, `recipe` (YAML), `command`, `plan` (JSON)."""
        return dict(self._read("SELECT name, value FROM facts"))

    def plan(self) -> dict[str, str]:
        """The runs of the last call's recipe: key -> variant; empty where rows were only taken in."""
        plan: dict[str, str] = json.loads(self.facts().get("plan", "{}"))
        return plan

    def prompts(self) -> set[str]:
        """Ids of all prompts that rows name."""
        return {prompt for (prompt,) in self._read("SELECT DISTINCT prompt FROM runs WHERE prompt IS NOT NULL")}

    def trained_alike(self, training: str) -> list[str]:
        """Ids of the prompts of finished runs that train the same and differ in what is tested."""
        sql = "SELECT DISTINCT prompt FROM runs WHERE training = ? AND status = 'finished' AND prompt IS NOT NULL"
        return [prompt for (prompt,) in self._read(sql, training)]

    def write(self, row: Row, answers: Answers | None = None, training: str | None = None) -> None:
        """Add a row, or replace the one of the same key. It is on the disk when this returns.

        Args:
            training: hash of what decides about the training alone.
        """
        with self._transaction():
            if answers is not None:
                self._add_answers(answers)
            self._put(row, training)

    def join(self, rows: list[Row], answers: list[Answers]) -> int:
        """Take rows from elsewhere that we lack, or before which ours give way.

        Returns:
            How many were taken.
        """
        taken = 0
        with self._transaction():
            for one in answers:
                self._add_answers(one)
            for row in rows:
                ours = self.row(row.key)
                if ours is None or gives_way(ours, row):
                    self._put(row, None)
                    taken += 1
        return taken

    def note(self, **facts: str) -> None:
        """Write down facts of the sweep as a whole."""
        with self._transaction():
            self._connection.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", list(facts.items()))

    def _put(self, row: Row, training: str | None) -> None:
        values = {
            "key": row.key,
            **{name: getattr(row, name) for name in _FILTERS},
            "validation_score": _score(row.validation, row.metric),
            "test_score": _score(row.test, row.metric),
            "training": training,
            "body": to_json(row),
        }
        # Not INSERT OR REPLACE: that would give the row a new place.
        updates = ", ".join(f"{name} = excluded.{name}" for name in values if name != "key")
        self._connection.execute(
            f"INSERT INTO runs ({', '.join(values)}) VALUES ({', '.join('?' * len(values))}) "
            f"ON CONFLICT (key) DO UPDATE SET {updates}",
            list(values.values()),
        )

    def _add_answers(self, answers: Answers) -> None:
        values = (answers.test_fingerprint, answers.task, to_json(answers))
        self._connection.execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?)", values)

    def _settle(self) -> None:
        """Check that the file is a store, make the tables of a new one, bring an old one up to date."""
        size = self.path.stat().st_size  # before the others: another process may be making the store
        with self._errors():
            (application,), (version,) = (
                self._connection.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
            )
            empty = self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
            (pages,) = self._connection.execute("PRAGMA page_count").fetchone()
        if pages == 0 and size > 0:
            raise self._damaged("too short")  # SQLite takes a file of a few bytes for a new database
        if not empty and application != _APPLICATION:
            raise PandaError(f"{self.path} is a database of another program, not a store; choose another place.")
        if version > VERSION:
            raise PandaError(
                f"{self.path} has version {version}, this promptpanda reads up to {VERSION}; use the version that "
                "wrote it, or a newer one."
            )
        if not empty:
            with self._errors():
                (sound,) = self._connection.execute("PRAGMA quick_check(1)").fetchone()
            if sound != "ok":
                raise self._damaged(sound)
        with self._errors():
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
        if empty or version < VERSION:
            with self._transaction():
                # Another process may have done it in between.
                (version,) = self._connection.execute("PRAGMA user_version").fetchone()
                if version == 0:
                    for statement in _SCHEMA.split(";"):
                        self._connection.execute(statement)
                    self._connection.execute(f"PRAGMA application_id = {_APPLICATION}")
                for old in range(version or VERSION, VERSION):
                    _MIGRATIONS[old](self._connection)
                self._connection.execute(f"PRAGMA user_version = {VERSION}")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _read(self, sql: str, *values: Any) -> list[Any]:
        with self._errors():
            return self._connection.execute(sql, values).fetchall()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise PandaError(
                f"The store {self.path} cannot be read and written ({error}); make room or get access there and run "
                "the command again, what was finished is kept."
            ) from error
        except sqlite3.DatabaseError as error:
            raise self._damaged(str(error)) from error

    def _damaged(self, why: str) -> PandaError:
        return PandaError(
            f"{self.path} is damaged or no store ({' '.join(why.split())}); put a copy in its place, or choose another "
            "place (--out)."
        )

    def _row(self, body: str) -> Row:
        return self._valid(Row, body)

    def _valid(self, model: type[_Model], body: str) -> _Model:
        try:
            return model.model_validate(json.loads(body))
        except (json.JSONDecodeError, ValidationError) as error:
            raise self._damaged(str(error).splitlines()[0]) from error


def gives_way(ours: Row, theirs: Row) -> bool:
    """Whether a row of ours gives way to one from elsewhere: only if it failed and theirs is finished."""
    return ours.status == "failed" and theirs.status == "finished"


def to_json(value: Row | Answers) -> str:
    """A row or answers as JSON; infinite and undefined numbers survive."""
    return canonical_json(value.model_dump(mode="python"))


def _score(scores: dict[str, float] | None, metric: str | None) -> float | None:
    return None if scores is None or metric is None else scores.get(metric)
