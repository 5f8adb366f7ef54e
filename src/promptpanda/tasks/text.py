"""The text of a file, plain or gzip."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from promptpanda.errors import PandaError


def check_file(path: Path) -> None:
    """Raises PandaError unless the path is one of a file."""
    if path.is_dir():
        raise PandaError(f"{path} is a folder, where a file is expected; name a file in it.")
    if not path.is_file():
        raise PandaError(
            f"No file {str(path)!r}; check the path." if "\0" in str(path) else f"No file {path}; check the path."
        )


def read_bytes(path: Path) -> bytes:
    """What a file holds, unpacked where its name ends in .gz. Raises PandaError that says why it cannot be read."""
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if path.name.lower().endswith(".gz") else data
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise PandaError(f"{path} is not a complete gzip file ({error}); compress it again.") from error
    except OSError as error:
        raise unreadable(path, error) from error


def read_text(path: Path) -> str:
    """A file as UTF-8. Raises PandaError that says why it cannot be read, and in which line."""
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise PandaError(
            f"{path} is not UTF-8: line {line} has byte 0x{error.object[error.start]:02x}; save it as UTF-8."
        ) from error


def unreadable(path: Path, error: OSError) -> PandaError:
    """For a file that the system does not let us read."""
    return PandaError(f"{path} cannot be read ({(error.strerror or str(error)).lower()}); check its permissions.")
