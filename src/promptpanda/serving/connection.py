"""One connection: uvicorn's, which also ends those whose senders never finish, and answers in JSON."""

from __future__ import annotations

import asyncio
import json

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_SECONDS = 10.0  # that the head of a request may take to arrive, and what is left of the body of a refused one


class Connection(H11Protocol):
    """uvicorn bounds how long a connection rests between requests, but not how long a request's head takes.

    Of a request that was answered before its body had come (it is too large), uvicorn throws the rest away as it comes,
    so that the sender gets to the answer; that is bounded too.
    """

    _clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._clock = self.loop.call_later(_SECONDS, self._too_slow)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._unwanted and self.conn.their_state is not h11.IDLE:  # the head is there
            self._stop()
        elif self._clock is None and not self.transport.is_closing():
            self._clock = self.loop.call_later(_SECONDS, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        self._answer("This is no request of HTTP that could be read.")

    @property
    def _unwanted(self) -> bool:
        """Whether what comes belongs to a request that was answered."""
        return self.cycle is not None and self.cycle.response_complete and self.conn.their_state is h11.SEND_BODY

    def _too_slow(self) -> None:
        self._clock = None
        if self._unwanted:
            self.transport.close()
        elif self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self._answer(f"The head of the request did not arrive within {_SECONDS:g} seconds.")

    def _stop(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _answer(self, sentence: str) -> None:
        body = json.dumps({"error": sentence}).encode()
        head = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            events = (h11.Response(status_code=400, headers=head, reason=b"Bad Request"), h11.Data(data=body))
            self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        self.transport.close()
