"""JSON of prompt folders, which strangers may have made: read within bounds, from ordinary files alone."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from promptpanda.errors import PandaError
from promptpanda.json_input import read_json

MOST_BYTES = 64_000_000  # tests write a card with 10,000 labels and 10,000 epochs, and read it


def check_ordinary(path: Path) -> None:
    """Refuse what is not an ordinary file: devices and pipes have no end.

    Raises:
        PandaError: it is something else.
        FileNotFoundError: it is not there.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise PandaError(f"{path} is not an ordinary file; remove the folder and train the prompt again.")


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file.

    Raises:
        PandaError: it is not an ordinary file, too large, or no JSON object that `read_json` takes.
        FileNotFoundError: it is not there.
    """
    check_ordinary(path)
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise _damaged(path, f"more than {MOST_BYTES // 1_000_000} MB")
    try:
        value = read_json(content.decode("utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise _damaged(path, "not UTF-8") from error
    if not isinstance(value, dict):
        raise _damaged(path, "a JSON object is expected")
    return value


def _damaged(path: Path, why: str) -> PandaError:
    return PandaError(f"{path} is damaged ({why}); remove the folder and train the prompt again.")
