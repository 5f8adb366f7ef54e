"""The store: SQLite, one row a run, written by one driver and read by anyone at any time."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from promptpanda.errors import PandaError
from promptpanda.files import canonical_json
from promptpanda.sweep.row import Answers, Row, first_error

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
_Value = TypeVar("_Value")
_ROW, _ANSWERS = TypeAdapter(Row), TypeAdapter(Answers)
_PLAN = TypeAdapter(dict[str, str])
# What the place of the file brings about; all other errors of SQLite speak of what is in it.
_OF_THE_PLACE = {
    *(sqlite3.SQLITE_PERM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY),
    *(sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN),
}


def _to_version_2(connection: sqlite3.Connection) -> None:
    """Version 1 had no facts, and did not say which runs train the same."""
    connection.execute("ALTER TABLE runs ADD COLUMN training TEXT")
    connection.execute("CREATE INDEX runs_by_training ON runs (training)")
    connection.execute("CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL)")


_MIGRATIONS = {1: _to_version_2}


class Store:
    """Rows and answers of a sweep. Use as a context manager, or call `close`."""

    def __init__(self, path: Path, connection: sqlite3.Connection, *, seen: os.stat_result | None = None) -> None:
        self.path = path
        self._connection = connection
        self._seen = seen  # of a file that must not change while it is read

    @classmethod
    def open(cls, path: Path | str) -> Store:
        """Open a store, or the store in a sweep's folder, to read it. Nothing is written, on a read-only disk too.

        Raises:
            PandaError: there is none, it is damaged or of another program or a newer version.
        """
        path = Path(path)
        path = path / STORE_NAME if path.is_dir() else path
        if not path.is_file():
            raise PandaError(f"No store at {path}; name the folder of a sweep (panda sweep makes one below runs/).")
        # Beside a store at rest SQLite would make files of its own. One that is written, or whose writer was killed,
        # has them already, and only with them it is whole.
        at_rest = not any(_has_content(path.with_name(path.name + end)) for end in ("-wal", "-journal"))
        address = f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if at_rest else ''}"
        return cls._connect(path, address, seen=path.stat() if at_rest else None)._settled(cls._check)

    @classmethod
    def create(cls, path: Path | str) -> Store:
        """Open a store to read and write it; if there is none, make an empty one."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        return cls._connect(path, path.absolute().as_uri())._settled(cls._settle)

    @classmethod
    def _connect(cls, path: Path, address: str, *, seen: os.stat_result | None = None) -> Store:
        try:
            return cls(path, sqlite3.connect(address, uri=True, timeout=30, isolation_level=None), seen=seen)
        except sqlite3.OperationalError as error:
            raise PandaError(f"The store {path} cannot be opened ({error}); choose another place (--out).") from error

    def _settled(self, settle: Callable[[Store], object]) -> Store:
        try:
            settle(self)
        except BaseException:
            self.close()
            raise
        return self

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def rows(self) -> list[Row]:
        """All rows, in the order in which they were first written.

        Raises:
            PandaError: one of them is none.
        """
        return [self._row(number, body) for number, body in self._select("SELECT rowid, body FROM runs ORDER BY rowid")]

    def row(self, key: str) -> Row | None:
        """One run, or None if the store does not know it."""
        found = self._select("SELECT rowid, body FROM runs WHERE key = ?", key)
        return self._row(*found[0]) if found else None

    def answers(self) -> list[Answers]:
        """The right answers of every set of test examples that was scored."""
        bodies = self._select("SELECT rowid, body FROM answers ORDER BY test_fingerprint")
        return [self._valid(_ANSWERS, f"answers {number}", body) for number, body in bodies]

    def facts(self) -> dict[str, str]:
        """What is known of the sweep as a whole: of the last call `name`, `recipe` (YAML), `command`, `plan` (JSON)."""
        if self._version < 2:
            return {}
        found = self._read("SELECT name, value FROM facts")
        for name, value in found:
            if not isinstance(name, str) or not isinstance(value, str):
                raise self._damaged(f"fact {str(name)[:40]}: input should be a valid string")
        return dict(found)

    def plan(self) -> dict[str, str]:
        """The runs of the last call's recipe: key -> variant; empty where rows were only taken in."""
        return self._valid(_PLAN, "fact plan", self.facts().get("plan", "{}"))

    def prompts(self) -> set[str]:
        """Ids of all prompts that rows name."""
        return {row.prompt for row in self.rows() if row.prompt is not None}

    def trained_alike(self, training: str) -> list[str]:
        """Ids of the prompts of finished runs that train the same and differ in what is tested."""
        sql = "SELECT rowid, body FROM runs WHERE training = ? AND status = 'finished' ORDER BY rowid"
        rows = [self._row(*found) for found in self._select(sql, training)]
        return list(dict.fromkeys(row.prompt for row in rows if row.prompt is not None))

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
                if ours is None or is_superseded(ours, row):
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

    @property
    def _version(self) -> int:
        return int(self._read("PRAGMA user_version")[0][0])

    def _check(self) -> bool:
        """Check that the file is a sound store; returns whether there is anything in it yet."""
        size = self.path.stat().st_size  # before the others: another process may be making the store
        ((application,),), ((version,),), ((pages,),), ((tables,),) = (
            self._read(sql)
            for sql in (
                *("PRAGMA application_id", "PRAGMA user_version", "PRAGMA page_count"),
                "SELECT count(*) FROM sqlite_master",
            )
        )
        if pages == 0 and size > 0:
            raise self._damaged("too short")  # SQLite takes a file of a few bytes for a new database
        if tables == 0 and version == 0:
            return False
        if application != _APPLICATION:
            raise PandaError(f"{self.path} is a database of another program, not a store; choose another place.")
        if version > VERSION:
            raise PandaError(
                f"{self.path} has version {version}, this promptpanda reads up to {VERSION}; use the version that "
                "wrote it, or a newer one."
            )
        if version < 1:
            raise self._damaged(f"its version is {version}, and stores have versions from 1 to {VERSION}")
        ((integrity,),) = self._read("PRAGMA quick_check(1)")
        if integrity != "ok":
            raise self._damaged(str(integrity))
        return True

    def _settle(self) -> None:
        """Make the tables of a new store, bring an old one up to date."""
        there = self._check()
        self._read("PRAGMA journal_mode = WAL")
        self._read("PRAGMA synchronous = FULL")
        if there and self._version == VERSION:
            return
        with self._transaction():
            version = self._version  # another process may have done it in between
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

    def _select(self, sql: str, *values: Any) -> list[Any]:
        """What tables hold; a store that is just being made has none yet."""
        return self._read(sql, *values) if self._version else []

    def _read(self, sql: str, *values: Any) -> list[Any]:
        try:
            with self._errors():
                return self._connection.execute(sql, values).fetchall()
        finally:
            self._check_unchanged()

    def _check_unchanged(self) -> None:
        """A store at rest is read without a lock, so that what began to write it meanwhile may have spoilt the view."""
        if self._seen is None:
            return
        now = self.path.stat()
        if (now.st_size, now.st_mtime_ns) != (self._seen.st_size, self._seen.st_mtime_ns):
            raise PandaError(f"A sweep began to write {self.path} while it was read; run the command again.")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            # Python's own errors (text that is no UTF-8) have no code.
            if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF not in _OF_THE_PLACE:
                raise self._damaged(str(error)) from error
            raise PandaError(
                f"The store {self.path} cannot be read or written ({error}); free space or get access there and run "
                "the command again, what was finished is kept; to read it, copy its folder elsewhere."
            ) from error

    def _damaged(self, why: str) -> PandaError:
        return PandaError(
            f"{self.path} is damaged or no store ({' '.join(why.split())}); put a copy in its place, or choose another "
            "place (--out)."
        )

    def _row(self, number: int, body: object) -> Row:
        return self._valid(_ROW, f"row {number}", body)

    def _valid(self, kind: TypeAdapter[_Value], what: str, text: object) -> _Value:
        try:
            return kind.validate_json(text)  # type: ignore[arg-type]  # what is no text is refused like other damage
        except ValidationError as error:
            raise self._damaged(f"{what}: {first_error(error)}") from error


def _has_content(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def is_superseded(ours: Row, theirs: Row) -> bool:
    """Whether a row of ours gives way to one from elsewhere: only if it failed and theirs is finished."""
    return ours.status == "failed" and theirs.status == "finished"


def to_json(value: Row | Answers) -> str:
    """A row or answers as JSON; infinite and undefined numbers survive."""
    return canonical_json(value.model_dump(mode="python"))


def _score(scores: dict[str, float] | None, metric: str | None) -> float | None:
    return None if scores is None or metric is None else scores.get(metric)
