"""The bytes of a data file, unpacked where it is packed: .gz, or .zip with one file in it. Within bounds."""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

from promptpanda.errors import PandaError
from promptpanda.tasks.text import check_file, unreadable

MAX_WHOLE = 2**30  # bytes of a file whose format must be read as a whole
# Text packs to a tenth, very uniform text to a fiftieth; what unpacks to more was made to fill memory. Rows take a
# hundred times the memory of the shortest lines, so that little is let through.
_RATIO, _RATIO_FROM = 200, 2**22
_OUR_ERRORS = (gzip.BadGzipFile, zipfile.BadZipFile, EOFError, zlib.error, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class Source:
    """One file, and how to get at what it holds.

    Attributes:
        path: of the file, for sentences.
        name: in lower case, what tells the format: that of the file without .gz, or that of the file in a .zip.
    """

    path: Path
    name: str

    @classmethod
    def of(cls, path: Path) -> Source:
        """Raises PandaError unless there is such a file, or if it is a .zip that holds anything but one file."""
        check_file(path)
        name = path.name.lower()
        if name.endswith(".zip"):
            with _archive(path) as archive:
                return cls(path, _member(archive, path).filename.rsplit("/")[-1].lower())
        return cls(path, name.removesuffix(".gz"))

    @property
    def packed(self) -> bool:
        return self.path.name.lower().endswith((".gz", ".zip"))

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The content. What cannot be unpacked or read raises PandaError while it is read."""
        try:
            if self.path.name.lower().endswith(".zip"):
                with _archive(self.path) as archive, archive.open(_member(archive, self.path)) as file:
                    yield io.BufferedReader(_Bounded(file, self.path))
            elif self.path.name.lower().endswith(".gz"):
                with gzip.open(self.path) as file:
                    yield io.BufferedReader(_Bounded(file, self.path))
            else:
                with self.path.open("rb") as file:
                    yield io.BufferedReader(_Bounded(file, self.path, bounded=False))
        except OSError as error:
            raise unreadable(self.path, error) from error

    def whole(self, limit: int = MAX_WHOLE) -> bytes:
        """All of the content. Raises PandaError if it has more bytes than `limit`."""
        with self.open() as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise PandaError(
                f"{self.path} holds more than {limit / 2**30:g} GB, and its format has to be read as a whole; write it "
                "as .jsonl, .csv or .parquet."
            )
        return data


class _Bounded(io.RawIOBase):
    """A stream that ends with a sentence where it is broken or unpacks to a multiple that no data has."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile, path: Path, bounded: bool = True) -> None:
        self._file, self._path = file, path
        self._left = max(_RATIO_FROM, _RATIO * path.stat().st_size) if bounded else None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            data = self._file.read(len(buffer))
        except _OUR_ERRORS as error:
            kind = "zip" if isinstance(self._file, zipfile.ZipExtFile) else "gzip"
            raise PandaError(f"{self._path} is not a complete {kind} file ({error}); compress it again.") from error
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                raise decompression_error(self._path)
        buffer[: len(data)] = data
        return len(data)


def decompression_error(path: Path) -> PandaError:
    """For what unpacks to a multiple of its size that no data has."""
    return PandaError(
        f"{path} unpacks to more than {_RATIO} times its size, which no data does; unpack it yourself if you trust it."
    )


def too_much(size: int, packed: int) -> bool:
    """Whether so many bytes are too many to come out of so many packed ones."""
    return size > max(_RATIO_FROM, _RATIO * packed)


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise PandaError(f"{path} is not a complete zip file ({str(error)[:100]}); compress it again.") from error
    except OSError as error:
        raise unreadable(path, error) from error


def _member(archive: zipfile.ZipFile, path: Path) -> zipfile.ZipInfo:
    """The one file of an archive. Nothing is ever unpacked to a place that a name tells."""
    files = [one for one in archive.infolist() if not one.is_dir() and not _of_macos(one.filename)]
    for one in files:
        if "\\" in one.filename or ".." in one.filename.split("/") or one.filename.startswith("/"):
            raise PandaError(
                f"{path} has a file with the name {one.filename[:60]!r}, which points outside the archive; pack the "
                "file "
                "again, and take no archives from where this one came from."
            )
    if len(files) != 1:
        names = ", ".join(one.filename for one in files)[:120] or "none"
        raise PandaError(f"{path} holds {len(files)} files ({names}); expected one, so unpack it and name a file.")
    if files[0].flag_bits & 1:
        raise PandaError(f"{path} is protected by a password; unpack it and name the file.")
    if PurePosixPath(files[0].filename.lower()).suffix in (".zip", ".gz"):
        raise PandaError(f"{path} holds another archive ({files[0].filename[:60]}); unpack it and name the file.")
    if too_much(files[0].file_size, path.stat().st_size):
        raise decompression_error(path)
    return files[0]


def _of_macos(name: str) -> bool:
    """Finder packs its own records beside what it is given."""
    last = name.split("/")[-1]
    return name.startswith("__MACOSX/") or last == ".DS_Store" or last.startswith("._")
