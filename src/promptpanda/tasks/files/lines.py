"""The lines of a text file, one at a time, none longer than memory should hold."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator

from promptpanda.errors import PandaError
from promptpanda.tasks.files.source import Source

_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
MAX_LINE = 2**25  # characters: about 30 novels


def lines_of(source: Source, *, universal: bool = False) -> Iterator[str]:
    r"""Lines with their ends, from UTF-8 (a byte order mark is left out), or from UTF-16 with one.

    Args:
        universal: "\r" ends a line too, as in CSV; else "\n" alone, as texts hold other separators.

    Raises:
        PandaError: bytes that are no text, with their line, or a line of more than `MAX_LINE` characters.
    """
    number = 0
    with source.open() as file:
        start = file.peek(2)[:2]  # type: ignore[attr-defined]
        wide = start in _MARKS
        text = io.TextIOWrapper(file, encoding="utf-16" if wide else "utf-8-sig", newline="" if universal else "\n")
        try:
            while line := text.readline(MAX_LINE + 1):
                number += 1
                if len(line) > MAX_LINE:
                    raise PandaError(
                        f"Line {number} of {source.path} has more than {MAX_LINE:,} characters; put one row on a line."
                    )
                if number == 1 and "\0" in line:
                    raise PandaError(
                        f"Line 1 of {source.path} holds NUL characters, as UTF-16 without a byte order mark does; save "
                        "it as UTF-8."
                    )
                yield line
        except UnicodeError as error:
            if wide:
                raise PandaError(
                    f"{source.path} is not complete UTF-16 (after line {number}); save it as UTF-8."
                ) from error
            raise _not_utf8(source) from error


def text_of(source: Source) -> str:
    """All of a file that has to be read as a whole. Raises PandaError as `lines_of` does."""
    data = source.whole()
    try:
        return data.decode("utf-16" if data.startswith(_MARKS) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_utf8(source) from error


def _not_utf8(source: Source) -> PandaError:
    """Which byte of which line is wrong; the text layer reads ahead and does not tell."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    line = 1
    with source.open() as file:
        while True:
            chunk = file.read(2**20)
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                line += error.object[: error.start].count(b"\n")
                byte = error.object[error.start]
                return PandaError(f"{source.path} is not UTF-8: line {line} has byte 0x{byte:02x}; save it as UTF-8.")
            line += chunk.count(b"\n")
