"""The SQLite file of a bank's index: opened, locked, checked, and thrown away where it cannot be trusted."""

from __future__ import annotations

import os
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

VERSION = 2  # of the tables and of what stands in them; it is part of the file's name
_APPLICATION = 0x70616E69  # "pani", in the header of the file
_WAIT = 30.0  # seconds for another process to finish a transaction
_TABLES = """
CREATE TABLE prompts (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, stamp TEXT NOT NULL, record TEXT, facts TEXT NOT NULL,
    sum INTEGER NOT NULL
);
CREATE TABLE vectors (
    number INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL, vector BLOB NOT NULL, sum INTEGER NOT NULL
);
CREATE TABLE records (record TEXT PRIMARY KEY, hashes BLOB NOT NULL, sum INTEGER NOT NULL);
"""
_WORDS = "CREATE VIRTUAL TABLE words USING fts5(task, title, labels, facts, tokenize = 'porter unicode61')"
# What SQLite says of the content of a file; all its other errors speak of the place.
_OF_THE_CONTENT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_ERROR}


class DamagedError(Exception):
    """The file does not hold what was written to it, or is of another version."""


class UnusableError(Exception):
    """Nothing can be read or written at this place."""


class Row(NamedTuple):
    """What the index keeps of a prompt.

    Attributes:
        stamp: of its card; an empty one is never up to date.
        record: checksum of its record of seen texts.
        facts: an `Entry`, written.
        words: what is searched: task, title, labels, and everything else.
        fingerprint: of its backbone.
        vector: its mean word embedding, float16; empty where there is none.
        hashes: of the record, uint32; None where it could not be read.
    """

    id: str
    stamp: str
    record: str | None
    facts: str
    words: tuple[str, str, str, str]
    fingerprint: str
    vector: bytes
    hashes: bytes | None


def checksum(*parts: str | bytes) -> int:
    """CRC-32 over parts."""
    total = 0
    for part in parts:
        total = zlib.crc32(part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass"), total)
    return total


class IndexFile:
    """An open index. Use as a context manager, or call `close`.

    Args:
        path: None keeps it in memory.

    Raises:
        DamagedError, UnusableError: also by all methods.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        with _classified_errors():
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path or ":memory:", timeout=_WAIT, isolation_level=None)
        self._inode: int | None = None
        try:
            self._settle()
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> IndexFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def read(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        with _classified_errors():
            return self._connection.execute(query, values).fetchall()

    def each(self, query: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        """The rows of a query one by one."""
        with _classified_errors():
            yield from self._connection.execute(query, values)

    def replace(self, rows: Iterable[Row]) -> None:
        """Write what is known of prompts, in place of what was known before; one transaction."""
        with self._writing() as connection:
            for row in rows:
                self._remove(connection, row.id)
                self._insert(connection, row)

    def remove(self, ids: Iterable[str]) -> None:
        """Forget prompts; one transaction."""
        with self._writing() as connection:
            for one in ids:
                self._remove(connection, one)
            connection.execute(
                "DELETE FROM records WHERE record NOT IN (SELECT record FROM prompts WHERE record IS NOT NULL)"
            )

    def _insert(self, connection: sqlite3.Connection, row: Row) -> None:
        known = checksum(row.id, row.stamp, row.facts)
        values = (row.id, row.stamp, row.record, row.facts, known)
        query = "INSERT INTO prompts (id, stamp, record, facts, sum) VALUES (?, ?, ?, ?, ?)"
        number = connection.execute(query, values).lastrowid
        if self.searchable:
            query = "INSERT INTO words (rowid, task, title, labels, facts) VALUES (?, ?, ?, ?, ?)"
            connection.execute(query, (number, *row.words))
        if row.vector:
            vector = (number, row.fingerprint, row.vector, checksum(row.fingerprint, row.vector))
            connection.execute("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?)", vector)
        if row.record is not None and row.hashes is not None:
            record = (row.record, row.hashes, checksum(row.record, row.hashes))
            connection.execute("INSERT OR REPLACE INTO records VALUES (?, ?, ?)", record)

    def _remove(self, connection: sqlite3.Connection, prompt_id: str) -> None:
        for (number,) in connection.execute("SELECT number FROM prompts WHERE id = ?", (prompt_id,)).fetchall():
            connection.execute("DELETE FROM prompts WHERE number = ?", (number,))
            connection.execute("DELETE FROM vectors WHERE number = ?", (number,))
            if self.searchable:
                connection.execute("DELETE FROM words WHERE rowid = ?", (number,))

    def _settle(self) -> None:
        """Make the tables of a new file, check the version of an old one."""
        version = self.read("PRAGMA user_version")[0][0]
        if self.path is not None:
            with _classified_errors():
                self._inode = self.path.stat().st_ino
        if version == 0 and not self.read("SELECT 1 FROM sqlite_master LIMIT 1"):
            with self._locked(), _classified_errors():
                self._make()
            version = self.read("PRAGMA user_version")[0][0]
        if (version, self.read("PRAGMA application_id")[0][0]) != (VERSION, _APPLICATION):
            raise DamagedError(f"version {version}")
        self.searchable = bool(self.read("SELECT 1 FROM sqlite_master WHERE name = 'words'"))

    def _make(self) -> None:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        if not connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall():  # another process may have
            for statement in _TABLES.split(";"):
                connection.execute(statement)
            if _has_fts5(connection):
                connection.execute(_WORDS)
            connection.execute(f"PRAGMA user_version = {VERSION}")
            connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute("COMMIT")

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._locked(), _classified_errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                with suppress(sqlite3.Error):  # SQLite may have done it already
                    self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Write alone, and to the file that stands there now: another process may have thrown away the one opened."""
        if self.path is None:
            yield
            return
        with locked(self.path):
            if _inode(self.path) != self._inode:
                raise DamagedError("it was thrown away")
            yield

    def discard(self) -> None:
        """Delete the file and close, unless it is another by now. Raises UnusableError if it cannot be deleted."""
        self.close()
        if self.path is not None:
            discard(self.path, self._inode)


def discard(path: Path, inode: int | None) -> None:
    """Delete the file of an index, if it is this one. Raises UnusableError if it cannot be deleted."""
    with locked(path), _classified_errors():
        if _inode(path) == inode:
            # This order: a journal without its file is ignored, a file without its journal may be half written.
            for name in (path, path.with_name(f"{path.name}-journal")):
                name.unlink(missing_ok=True)


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _has_fts5(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("SELECT 1 FROM pragma_module_list WHERE name = 'fts5'").fetchall())


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock beside an index; where the system has no such locks, SQLite's own must do.

    Raises:
        UnusableError: there cannot be one, or another process holds it for too long.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with _classified_errors():
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        until = time.monotonic() + _WAIT
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() > until:
                    raise UnusableError(f"{path} is locked") from error
                time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _classified_errors() -> Iterator[None]:
    """Tell errors of a file's content from those of its place."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        if code & 0xFF in _OF_THE_CONTENT:
            raise DamagedError(str(error)) from error
        raise UnusableError(str(error)) from error
    except OSError as error:
        raise UnusableError(str(error)) from error
