"""JSON of prompt folders, which strangers may have made: read within bounds, from ordinary files alone."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from promptpanda.errors import PandaError

MOST_BYTES = 64_000_000  # a card with 10,000 labels and 10,000 epochs has about 5 MB
_MOST_DEPTH = 50
_MOST_DIGITS = 100


def check_ordinary(path: Path) -> None:
    """Refuse what is no ordinary file: devices and pipes have no end.

    Raises:
        PandaError: it is something else.
        FileNotFoundError: it is not there.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise PandaError(f"{path} is no ordinary file; remove the folder and train the prompt again.")


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file.

    Raises:
        PandaError: it is no ordinary file, too large, nested too deeply, or no JSON object.
        FileNotFoundError: it is not there.
    """
    check_ordinary(path)
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise _damaged(path, f"more than {MOST_BYTES // 1_000_000} MB")
    try:
        value = json.loads(content.decode("utf-8"), parse_int=_integer, parse_constant=_no_number)
    except RecursionError as error:
        raise _damaged(path, "nested too deeply") from error
    except ValueError as error:  # of UTF-8, of JSON, and of numbers
        raise _damaged(path, "not valid JSON") from error
    if not isinstance(value, dict):
        raise _damaged(path, "a JSON object is expected")
    if _depth(value) > _MOST_DEPTH:
        raise _damaged(path, "nested too deeply")
    return value


def _damaged(path: Path, why: str) -> PandaError:
    return PandaError(f"{path} is damaged ({why}); remove the folder and train the prompt again.")


def _integer(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"an integer of {len(text)} digits")
    return int(text)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no JSON")


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [
            inner
            for one in level
            if isinstance(one, (dict, list))
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
    return depth
