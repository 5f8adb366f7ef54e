"""Predictions while they are computed: a file beside the output, from which a run that was stopped goes on."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from promptpanda.errors import PandaError
from promptpanda.files import FULL
from promptpanda.progress import Progress


class Partial:
    """A line for what it belongs to, then one for every row: its cells, or for a row that cannot be read why.

    Use as a context manager; one process at a time has it.

    Args:
        output: the file that is to be written in the end.
        key: hash of all that predictions depend on; lines of another key are thrown away, which is told.

    Attributes:
        path: of this file.
        rows: how many rows it has.
        unreadable, below: how many of them could not be read, and how many were left empty for their low confidence.
        problem: why the first of the unreadable ones could not be read.
    """

    def __init__(self, output: Path, key: str, progress: Progress) -> None:
        self.path = output.with_name(f"{output.name}.partial")
        self.rows = self.unreadable = self.below = 0
        self.problem: str | None = None
        self._output, self._header, self._progress = output, {"predictions_of": key}, progress
        self._lock = FileLock(f"{self.path}.lock")

    def __enter__(self) -> Partial:
        with write_errors(self._output):
            try:
                self._lock.acquire(blocking=False)
            except Timeout as error:
                raise PandaError(f"Another process is writing {self._output}; wait for it, or stop it.") from error
            self._file = self.path.open("a+b")
            self._resume()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # of a full disk, which `append` told
            self._file.close()
        self._lock.release()
        Path(self._lock.lock_file).unlink(missing_ok=True)

    def append(self, lines: Sequence[list[Any] | str]) -> None:
        """Add rows: their cells, or why one cannot be read. Raises PandaError where they cannot be written."""
        with write_errors(self._output, f"; the first {self.rows:,} rows are kept in {self.path.name}"):
            self._file.write(b"".join(_line(line) for line in lines))
            self._file.flush()
        for line in lines:
            self._count(line)

    def lines(self) -> Iterator[list[Any] | str]:
        """All rows in order."""
        self._file.seek(0)
        next(self._file)
        for line in self._file:
            yield json.loads(line)

    def remove(self) -> None:
        """Delete it: the output is there."""
        self.path.unlink()

    def _resume(self) -> None:
        """Take up the whole lines that are there, if they are of the same run."""
        self._file.seek(0)
        first = self._file.readline()
        if first != _line(self._header):
            if first:
                self._progress.note(
                    f"{self.path.name} is of another input, prompt or options: what it holds is not used, and the run "
                    "starts again."
                )
            self._file.truncate(0)
            self._file.write(_line(self._header))
            self._file.flush()
            return
        end = self._file.tell()
        for line in self._file:
            if (row := _whole(line)) is None:
                break
            self._count(row)
            end += len(line)
        self._file.truncate(end)

    def _count(self, line: list[Any] | str) -> None:
        self.rows += 1
        if isinstance(line, str):
            self.unreadable += 1
            self.problem = self.problem or line
        elif line[0] is None:
            self.below += 1


@contextmanager
def write_errors(output: Path, kept: str = "") -> Iterator[None]:
    """Make what the system refuses one sentence about the output."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise PandaError(
                f"The disk is full beside {output}{kept}; free some space and run the command again; it resumes."
            ) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise PandaError(f"No permission to write {output}{kept}; choose another place (--output).") from error
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise PandaError(f"No folder {output.parent}; make it, or choose another place (--output).") from error
        raise PandaError(f"{output} cannot be written ({error.strerror or error}){kept}.") from error


def _line(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


def _whole(line: bytes) -> list[Any] | str | None:
    """What a line holds, or None where it was cut."""
    try:
        found = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return found if isinstance(found, (list, str)) and found else None
