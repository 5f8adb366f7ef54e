"""The text of a file, plain or gzip."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from promptpanda.errors import PandaError


def read_text(path: Path) -> str:
    """A file as UTF-8. Raises PandaError that says why it cannot be read, and in which line."""
    try:
        data = path.read_bytes()
        if path.name.lower().endswith(".gz"):
            data = gzip.decompress(data)
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise PandaError(
            f"{path} is not UTF-8: line {line} has byte 0x{error.object[error.start]:02x}; save it as UTF-8."
        ) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise PandaError(f"{path} is not a whole gzip file ({error}); compress it again.") from error
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> PandaError:
    """For a file that the system does not let us read."""
    return PandaError(f"{path} cannot be read ({(error.strerror or str(error)).lower()}); check its permissions.")
