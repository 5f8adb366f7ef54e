"""The token that a server asks for, in a file of its own."""

from __future__ import annotations

from pathlib import Path

from promptpanda.errors import PandaError
from promptpanda.tasks.text import read_text

_SHORTEST = 16  # characters of a token


def read_token(path: Path) -> str:
    """The token in a file. Raises PandaError if there is none that could protect anything."""
    token = read_text(path).strip()
    if len(token) < _SHORTEST or not token.isascii() or not token.isprintable() or " " in token:
        raise PandaError(
            f"{path} holds no token: expected one line of at least {_SHORTEST} letters, digits and signs, such as "
            "`openssl rand -hex 32` writes."
        )
    return token
