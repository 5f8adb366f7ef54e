"""Rows from standard input: JSON lines, a JSON list of objects, or one text a line."""

from __future__ import annotations

import codecs
import sys

from promptpanda.errors import PandaError
from promptpanda.json_input import read_json
from promptpanda.tasks.reading import Row, check_every_line, json_lines
from promptpanda.tasks.spec import TaskSpec
from promptpanda.tasks.unlabeled import rows_of_lines

_NAME = "standard input"


def rows_of_stdin(spec: TaskSpec) -> list[Row]:
    """The rows that standard input holds, one for each of its lines, so that answers can be laid beside them.

    Raises:
        PandaError: it is closed, is no text, or a line cannot be a row.
    """
    if sys.stdin is None:
        raise PandaError("Standard input is closed; name a FILE, or pipe texts into the command.")
    # Bytes: under some locales the text layer lets strange bytes pass as surrogates.
    return rows_of_text(decoded(sys.stdin.buffer.read()), spec)


def decoded(data: bytes) -> str:
    """Text from UTF-8, with or without byte order marks before it, or from UTF-16 with one.

    Raises:
        PandaError: it is neither.
    """
    try:
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            text = data.decode("utf-16")
        else:
            text = data.decode("utf-8").lstrip("\ufeff")  # a shell may put its own mark before that of a file
    except UnicodeDecodeError as error:
        raise PandaError(f"{_NAME.capitalize()} is not UTF-8 (byte {error.start}); save it as UTF-8.") from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise PandaError(
            f"Line {line} of {_NAME} holds NUL characters, as UTF-16 without a byte order mark does; save it as UTF-8."
        )
    return text


def rows_of_text(text: str, spec: TaskSpec) -> list[Row]:
    """Rows of a text that was decoded. Raises PandaError where a line cannot be a row."""
    start = text.lstrip()
    if start.startswith("[") and (rows := _listed(start)) is not None:
        return rows
    if start.startswith("{"):
        return json_lines(text, _NAME, every_line=True)
    check_every_line(text, _NAME)
    return rows_of_lines(text, spec, _NAME)


def _listed(text: str) -> list[Row] | None:
    """The objects of a JSON list; None where the text only begins like one, as `[sic] ...` does."""
    try:
        value = read_json(text, _NAME.capitalize(), nan=True)
    except PandaError:
        if text.lstrip("[ \t\r\n").startswith("{"):
            raise
        return None
    found = next((type(one).__name__ for one in value if not isinstance(one, dict)), None)
    if found is not None:
        raise PandaError(
            f"{_NAME.capitalize()} is a JSON list that holds a {found}; expected objects with the task's fields, or "
            "one text a line."
        )
    return list(value)
