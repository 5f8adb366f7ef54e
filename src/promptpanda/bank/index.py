"""The index of a large bank: one SQLite file beside the folders, made of them alone and made again at any time.

It is never the truth. Every use compares the names of the folders, and size, times and inode of every card, with what
was read before, and reads what is new or was changed, by whomever; every row has a checksum of its own. A file that is
damaged, or of another version, is silently made anew. Several processes may use one index: they write in short
transactions, under a lock. Where nothing can be written beside the folders it lies in the user's cache folder, and
where that cannot be written either, in memory.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from promptpanda.bank.entry import Entry
from promptpanda.bank.index_file import VERSION, DamagedError, IndexFile, UnusableError, checksum, discard
from promptpanda.bank.index_row import row_of
from promptpanda.bank.layout import CARD_NAME, is_id
from promptpanda.errors import PandaError
from promptpanda.progress import Progress, Silent

if TYPE_CHECKING:
    import numpy as np

FOLDER = ".index"
_NAME = f"prompts-{VERSION}.sqlite3"
_TOGETHER = 500  # prompts that are written in one transaction, or read at once
_SCANNED = 1000  # records of seen texts that are looked through at once
_MARKED = 20  # bits of a hash by which most are told apart at first: the table of all fits into a processor's cache
_ATTEMPTS = 3  # at one place, before it is given up: other processes may throw files away too
# Nanoseconds. Some file systems tell times no finer, so that a younger file could change again unseen.
_SETTLED = 2_000_000_000

_Value = TypeVar("_Value")
Keep = Literal["beside", "cache", "memory"]


class Index:
    """What a bank's folders hold, as of when it was opened. Use as a context manager, or call `close`.

    Args:
        folder: of the bank.
        keep: where: beside the folders, in the user's cache folder (installed banks are never written to), or nowhere.
        progress: told how far reading has come.

    Attributes:
        problems: what is wrong with the prompts that cannot be read, by id.
    """

    def __init__(self, folder: Path, *, keep: Keep = "beside", progress: Progress | None = None) -> None:
        self.folder = folder
        self.problems: dict[str, str] = {}
        self._progress = progress or Silent()
        self._places = _places(folder, keep)
        self._open(next(self._places))

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    @property
    def place(self) -> Path | None:
        """Where it is kept; None in memory."""
        return self._file.path

    def __len__(self) -> int:
        """How many prompts can be read."""
        return int(self._intact(lambda: self._file.read("SELECT count(*) FROM prompts"))[0][0])

    def holds(self, prompt_id: str) -> bool:
        """Whether there is a readable prompt of this id."""
        return bool(self._intact(lambda: self._file.read("SELECT 1 FROM prompts WHERE id = ?", prompt_id)))

    def entries(self, limit: int | None = None) -> list[Entry]:
        """The readable prompts by id, the first `limit` of them."""
        query = "SELECT id, stamp, facts, sum FROM prompts ORDER BY id LIMIT ?"
        return self._intact(lambda: list(_entries(self._file.each(query, -1 if limit is None else limit))))

    def vectors(self, ids: Collection[str]) -> dict[str, bytes]:
        """Mean word embeddings of these prompts, by id; not all have one. Each is the bytes of (hidden,) float16."""
        return self._intact(lambda: self._vectors(ids))

    def _vectors(self, ids: Collection[str]) -> dict[str, bytes]:
        found = {}
        query = "SELECT id, fingerprint, vector, vectors.sum FROM vectors JOIN prompts USING (number)"
        for prompt_id, fingerprint, vector, total in self._file.each(query):
            if prompt_id in ids:
                if checksum(fingerprint, vector) != total:
                    raise DamagedError("a vector")
                found[prompt_id] = vector
        return found

    def possible_records(self, hashes: np.ndarray) -> tuple[set[str], set[str]]:
        """Which records of seen texts may hold one of these hashes, and which records are known at all.

        Half of every hash is kept, so that one in four thousand million others is suspected too; none is missed.

        Args:
            hashes: uint64. *Shape:* (texts,).
        """
        return self._intact(lambda: self._possible_records(hashes))

    def _possible_records(self, hashes: np.ndarray) -> tuple[set[str], set[str]]:
        import numpy as np

        wanted = np.unique((hashes >> np.uint64(32)).astype(np.uint32))
        shift = np.uint32(32 - _MARKED)
        marks = np.zeros(1 << _MARKED, dtype=bool)
        marks[wanted >> shift] = True
        found: set[str] = set()
        known: set[str] = set()
        rows = self._file.each("SELECT record, hashes, sum FROM records")
        while some := list(islice(rows, _SCANNED)):
            if any(checksum(record, kept) != total for record, kept, total in some):
                raise DamagedError("a record")
            known.update(record for record, _, _ in some)
            halves = np.frombuffer(b"".join(kept for _, kept, _ in some), np.uint32)
            near = np.flatnonzero(marks[halves >> shift])
            hits = near[np.isin(halves[near], wanted)]
            ends = np.cumsum([len(kept) // halves.itemsize for _, kept, _ in some])
            found.update(some[owner][0] for owner in np.unique(np.searchsorted(ends, hits, side="right")))
        return found, known

    def search(self, query: str, limit: int) -> list[tuple[Entry, float]]:
        """Prompts whose words match a query of FTS5, and how well, best first; lower is better."""
        return self._intact(lambda: self._search(query, limit))

    def _search(self, query: str, limit: int) -> list[tuple[Entry, float]]:
        if not self._file.searchable:
            raise PandaError("This Python's SQLite has no full text search (FTS5); use another build of Python.")
        sql = (
            "SELECT id, stamp, facts, sum, points FROM (SELECT rowid, bm25(words, 4, 4, 2, 1) AS points FROM words "
            "WHERE words MATCH ? ORDER BY points LIMIT ?) AS found JOIN prompts ON number = found.rowid "
            "ORDER BY points, id"
        )
        rows = self._file.read(sql, query, limit)
        return list(zip(_entries(row[:4] for row in rows), [row[4] for row in rows], strict=True))

    def _intact(self, read: Callable[[], _Value]) -> _Value:
        """What `read` returns; a file that turns out to be damaged is made anew first."""
        try:
            return read()
        except (DamagedError, UnusableError):
            self._renew()
            return read()

    def _renew(self) -> None:
        path = self._file.path
        try:
            self._file.discard()
        except UnusableError:
            path = next(self._places)
        self._open(path)

    def _open(self, path: Path | None) -> None:
        """Open the index at this place, or at the next where one can be, and bring it up to date."""
        for attempt in range(1, 1 + _ATTEMPTS):
            file = None
            try:
                file = IndexFile(path)
                self._update(file)
                self._file = file
                return
            except DamagedError:
                if not _thrown_away(file, path) or attempt == _ATTEMPTS:
                    break
            except UnusableError:
                break
            except BaseException:
                if file is not None:
                    file.close()
                raise
        if file is not None:
            file.close()
        if path is None:
            raise PandaError(f"The bank {self.folder} cannot be indexed, not even in memory; is there any left?")
        self._open(next(self._places))

    def _update(self, file: IndexFile) -> None:
        """Read what changed since the index was written."""
        self.problems = {}
        known = dict(file.read("SELECT id, stamp FROM prompts"))
        place, moment = str(self.folder), time.time_ns()
        now = {name: stamp(f"{place}/{name}", moment) for name in self._names(known)}
        gone = [name for name in known if name not in now]
        if gone:
            file.remove(gone)
        fresh = [name for name, one in now.items() if not one or known.get(name) != one]
        if len(fresh) > _TOGETHER:
            self._progress.begin("Reading cards for the bank's index", len(fresh))
        for start in range(0, len(fresh), _TOGETHER):
            self._read(file, sorted(fresh)[start : start + _TOGETHER], known)
            if len(fresh) > _TOGETHER:
                self._progress.advance(min(_TOGETHER, len(fresh) - start))

    def _read(self, file: IndexFile, names: Sequence[str], known: dict[str, str]) -> None:
        rows, lost = [], []
        for name in names:
            before = stamp(f"{self.folder}/{name}", time.time_ns())
            try:
                rows.append(row_of(self.folder / name, before))
            except PandaError as error:
                self.problems[name] = str(error)
                lost.append(name)
        file.replace(rows)
        if lost := [name for name in lost if name in known]:
            file.remove(lost)

    def _names(self, known: dict[str, str]) -> list[str]:
        with os.scandir(self.folder) as found:
            return [one.name for one in found if (one.name in known or is_id(one.name)) and one.is_dir()]


def stamp(folder: str, now: int) -> str:
    """What tells that a card was changed; empty where that could go unnoticed, since it was written just now.

    Args:
        now: in nanoseconds.
    """
    try:
        found = os.stat(f"{folder}/{CARD_NAME}")
    except OSError:
        return ""
    if now - max(found.st_mtime_ns, found.st_ctime_ns) < _SETTLED:
        return ""
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"


def _entries(rows: Iterable[tuple[Any, ...]]) -> Iterator[Entry]:
    """Of rows of the table; raises DamagedError if one is not as it was written."""
    left = iter(rows)
    while some := list(islice(left, _TOGETHER)):
        if any(checksum(prompt_id, known, facts) != total for prompt_id, known, facts, total in some):
            raise DamagedError("a prompt")
        yield from map(Entry.read, json.loads(f"[{','.join(row[2] for row in some)}]"))


def _thrown_away(file: IndexFile | None, path: Path | None) -> bool:
    try:
        if file is not None:
            file.discard()
        elif path is not None:
            discard(path, path.stat().st_ino)
    except (UnusableError, OSError):
        return False
    return True


def _places(folder: Path, keep: Keep) -> Iterator[Path | None]:
    """Where an index can be kept, the best first; None, memory, at last."""
    if keep == "beside":
        yield folder / FOLDER / _NAME
    if keep != "memory":
        key = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        yield Path(home) / "promptpanda" / "index" / key / _NAME
    while True:
        yield None
