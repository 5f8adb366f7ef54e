"""Ask a server from Python, with nothing but the standard library."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from promptpanda.errors import PandaError

_TOGETHER = 200  # rows of one request; more are sent in parts
_TRIES = 5  # of a request that the server has no room for


class Client:
    """A server that `panda serve` runs.

    Args:
        url: its address, such as `http://127.0.0.1:8000`.
        token: what it asks for, where it has a `--token-file`.
        seconds: that an answer may take.

    Raises:
        PandaError: the address is none.
    """

    def __init__(self, url: str, token: str | None = None, *, seconds: float = 60.0) -> None:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
            raise PandaError(f"{url!r} is no address of a server; expected one such as http://127.0.0.1:8000.")
        self._url, self._token, self._seconds = url.rstrip("/"), token, seconds

    def predict(
        self,
        prompt: str,
        *,
        texts: Sequence[str | Sequence[str]] | None = None,
        rows: Sequence[dict[str, Any]] | None = None,
        probabilities: bool = False,
        top: int | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Predictions for texts or rows, in order, as they come.

        Raises:
            PandaError: the server refuses, or cannot be reached; the message is its sentence.
        """
        name, given = ("rows", rows) if rows is not None else ("texts", texts or [])
        for start in range(0, len(given), _TOGETHER):
            asked = {"prompt": prompt, name: list(given[start : start + _TOGETHER]), "probabilities": probabilities}
            if top is not None:
                asked["top"] = top
            yield from self._ask("/v1/predict", asked)["predictions"]

    def prompts(self) -> list[dict[str, Any]]:
        """What the server knows of its prompts. Raises PandaError as `predict` does."""
        found: list[dict[str, Any]] = self._ask("/v1/prompts")["prompts"]
        return found

    def prompt(self, prompt_id: str) -> dict[str, Any]:
        """One prompt: card, scores, ancestry. Raises PandaError as `predict` does."""
        return self._ask(f"/v1/prompts/{quote(prompt_id, safe='')}")

    def _ask(self, path: str, asked: dict[str, Any] | None = None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None if asked is None else json.dumps(asked).encode()
        for left in reversed(range(_TRIES)):
            request = urllib.request.Request(self._url + path, data, headers)
            try:
                with urllib.request.urlopen(request, timeout=self._seconds) as answer:
                    found: dict[str, Any] = json.load(answer)
                    return found
            except urllib.error.HTTPError as error:
                if error.code == 429 and left:
                    time.sleep(float(error.headers.get("Retry-After", 1)))
                    continue
                raise PandaError(_sentence(error)) from error
            except (OSError, ValueError) as error:
                reason = getattr(error, "reason", error)
                raise PandaError(
                    f"The server at {self._url} cannot be reached ({reason}); is `panda serve` running?"
                ) from error
        raise AssertionError("unreachable")


def _sentence(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["error"])
    except (ValueError, KeyError, TypeError):
        return f"The server answered {error.code}, and not as promptpanda does; check the address."
