"""Ask a server from Python, with nothing but the standard library."""

from __future__ import annotations

import http.client
import json
import math
import random
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from threading import Event
from typing import Any
from urllib.parse import quote, urlsplit

from promptpanda.errors import PandaError
from promptpanda.json_input import read_json

_TOGETHER = 200  # rows of one request; more are sent in parts
_TRIES = {429: 8, 503: 4}  # of a request that the server has no room, or no time, for
_LONGEST_PAUSE = 30.0  # seconds between two of them
_MOST_BYTES = 100_000_000  # of an answer


class ServerRefusedError(PandaError):
    """A server did not do what it was asked for; the message is its sentence."""

    def __init__(self, sentence: str, status: int) -> None:
        super().__init__(sentence)
        self.status = status


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The token and the texts are for the server that was named, and no other."""

    def redirect_request(self, *_: Any) -> None:
        return None


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
        if not _is_address(url):
            raise PandaError(f"{url!r} is not the address of a server; expected one such as http://127.0.0.1:8000.")
        self.url, self._token, self._seconds = url.rstrip("/"), token, seconds
        self._opener = urllib.request.build_opener(_NoRedirect)
        self._closed = Event()

    def close(self) -> None:
        """Try nothing again that was refused: whoever waits for the next try is told of the refusal."""
        self._closed.set()

    def predict(
        self,
        prompt: str,
        *,
        texts: Sequence[str | Sequence[str]] | None = None,
        rows: Sequence[dict[str, Any]] | None = None,
        probabilities: bool = False,
        top: int | None = None,
        calibrated: bool = False,
    ) -> Iterator[dict[str, Any]]:
        """Predictions for texts or rows, in order, as they come.

        Raises:
            PandaError: the server refuses, or cannot be reached; the message is its sentence.
        """
        name, given = ("rows", rows) if rows is not None else ("texts", texts or [])
        for start in range(0, len(given), _TOGETHER):
            part = list(given[start : start + _TOGETHER])
            body = {"prompt": prompt, name: part, "probabilities": probabilities}
            if top is not None:
                body["top"] = top
            if calibrated:
                body["calibrated"] = True
            found = self._ask("/v1/predict", body).get("predictions")
            if not isinstance(found, list) or len(found) != len(part):
                raise self._not_ours("it has not one prediction for every row")
            yield from found

    def prompts(self) -> list[dict[str, Any]]:
        """What the server knows of its prompts. Raises PandaError as `predict` does."""
        found = self._ask("/v1/prompts").get("prompts")
        if not isinstance(found, list):
            raise self._not_ours("it lists no prompts")
        return found

    def prompt(self, reference: str) -> dict[str, Any]:
        """One prompt, by its id or its task's name: card, scores, ancestry. Raises PandaError as `predict` does."""
        return self._ask(f"/v1/prompts/{quote(reference, safe='')}")

    def _ask(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None if body is None else json.dumps(body, default=str).encode()  # dates of a table as text
        request = urllib.request.Request(self.url + path, data, headers)
        tries = 0
        while True:
            try:
                with self._opener.open(request, timeout=self._seconds) as answer:
                    return self._read(answer.read(_MOST_BYTES + 1))
            except urllib.error.HTTPError as error:
                tries += 1
                if tries >= _TRIES.get(error.code, 0) or self._closed.wait(_pause(error, tries)):
                    raise self._refused(error) from error
            except (OSError, ValueError, http.client.HTTPException) as error:
                reason = getattr(error, "reason", None) or str(error) or type(error).__name__
                raise PandaError(
                    f"The server at {self.url} cannot be reached ({reason}); is `panda serve` running?"
                ) from error

    def _read(self, content: bytes) -> dict[str, Any]:
        if len(content) > _MOST_BYTES:
            raise self._not_ours(f"it has more than {_MOST_BYTES:,} bytes")
        try:
            found = read_json(content.decode("utf-8"), "it")
        except UnicodeDecodeError as error:
            raise self._not_ours("it is not UTF-8") from error
        except PandaError as error:
            raise self._not_ours(str(error).partition(";")[0]) from error
        if not isinstance(found, dict):
            raise self._not_ours("it is no JSON object")
        return found

    def _refused(self, error: urllib.error.HTTPError) -> PandaError:
        try:
            sentence = json.loads(error.read(100_000))["error"]
        except (ValueError, KeyError, TypeError, OSError, http.client.HTTPException):
            sentence = None
        if isinstance(sentence, str) and error.code == 401:
            sentence = f"The server at {self.url} asks for a token; give the one it was started with (--token-file)."
            if self._token is not None:
                sentence = f"The server at {self.url} has another token than the one that was given (--token-file)."
        if not isinstance(sentence, str):
            sentence = (
                f"The server at {self.url} answered {error.code}, and not as promptpanda does; check the address."
            )
        return ServerRefusedError(" ".join(sentence.split())[:1000], error.code)

    def _not_ours(self, what: str) -> PandaError:
        return PandaError(
            f"The answer of {self.url} is not one of promptpanda ({what}); check the address, and that both sides have "
            "the same version."
        )


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def _pause(error: urllib.error.HTTPError, tries: int) -> float:
    """Seconds until the next try: what the server says, and longer each time, never all clients at once."""
    try:
        said = float(error.headers.get("Retry-After", 1))
    except ValueError:  # a date
        said = 1.0
    grown = max(said if math.isfinite(said) else 0.0, 0.25 * 2**tries)
    return float(min(grown, _LONGEST_PAUSE) * random.uniform(1.0, 1.3))
