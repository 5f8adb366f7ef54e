"""What one request may take, and how one that takes more is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ABOVE = re.compile(r"(?<![\w/:.~-])~?(?:/[^\s/'\",;:()<>]+)+/(?=[^\s/'\",;:()<>])")
_LONGEST = 400  # characters of a sentence that goes out


@dataclass(frozen=True)
class Limits:
    """Bounds that are the same for all.

    Attributes:
        body: bytes of a request's body.
        rows: texts or rows of one request.
        chars: characters of all texts of one row together.
        queue: rows that may wait for the model, of all requests together.
        seconds: that a body may take to arrive, and that an answer may take to be computed.
    """

    body: int = 4_000_000
    rows: int = 1000
    chars: int = 50_000
    queue: int = 5000
    seconds: float = 30.0


class RefusedError(Exception):
    """A request that is not answered: the HTTP status, and one sentence for whoever sent it."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence

    @property
    def headers(self) -> dict[str, str]:
        """What goes with the status."""
        if self.status == 401:
            return {"WWW-Authenticate": 'Basic realm="promptpanda", charset="UTF-8"'}
        return {"Retry-After": "1"} if self.status in (429, 503) else {}


def outward(error: Exception | str) -> str:
    """A sentence as strangers and logs may see it: of paths the last name alone, on one line, of bounded length."""
    sentence = " ".join(_ABOVE.sub("", str(error)).split())
    return sentence if len(sentence) <= _LONGEST else f"{sentence[: _LONGEST - 1]}…"
