"""What stands before all routes: who may ask, how large bodies may be, what answers carry, what failures say."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from promptpanda.serving.limits import Limits, RefusedError

_OPEN = {"/healthz", "/readyz"}  # for whoever watches over processes, and knows no token
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Guard:
    """Wraps the application.

    Args:
        token: what requests must bring, as `Authorization: Bearer TOKEN` or as the password of Basic; None: nothing.
        local: whether the server listens to this machine alone. Without a token it then answers to this machine's
            names only, so that no page from elsewhere can reach it under a name of its own (DNS rebinding).
        failed: takes what the application did not catch, of which nobody outside is told.
        count: takes the route and the status of every answer.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limits: Limits,
        token: str | None,
        local: bool,
        failed: Callable[[Exception], None],
        count: Callable[[str, int], None],
    ) -> None:
        self._app, self._limits = app, limits
        self._token = None if token is None else _hashed(token)
        self._hosts: Collection[str] | None = _LOOPBACK if local and token is None else None
        self._failed, self._count = failed, count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, ended = 0, False

        async def sending(message: Message) -> None:
            nonlocal status, ended
            ended = message["type"] == "http.response.body" and not message.get("more_body", False)
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        try:
            try:
                self._check(scope)
                await self._app(scope, receive, sending)
            except RefusedError as error:
                await refused(error)(scope, receive, sending)
        except Exception as error:
            self._failed(error)
            if ended:  # Starlette answers a failure by the app's handler, and raises it again
                return
            if status:
                raise ConnectionError("the answer was begun") from None  # its end must not look like a whole one
            await FAILURE(scope, receive, sending)
        finally:
            self._count(getattr(scope.get("route"), "path", "none"), status)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if self._hosts is not None and _host(headers.get("host", "")) not in self._hosts:
            raise RefusedError(400, "This server answers to the names of its own machine only (localhost, 127.0.0.1).")
        if scope["path"] not in _OPEN and self._token is not None:
            given = _given_token(headers.get("authorization", ""))
            if not hmac.compare_digest(_hashed(given), self._token):
                raise RefusedError(401, "A token is needed: send the header 'Authorization: Bearer TOKEN'.")
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._limits.body:
            raise RefusedError(
                413, f"The body has {int(length):,} bytes, at most {self._limits.body:,} are allowed; send it in parts."
            )


async def read_body(request: Request, limits: Limits, kind: str) -> bytes:
    """The body of a request.

    Raises:
        RefusedError: it is said to be of another kind than `kind`, is too large, or does not arrive in time.
        ConnectionError: whoever sent it is gone.
    """
    said = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if said != kind:
        raise RefusedError(400, f"The body's type must be {kind} (header Content-Type).")
    body = bytearray()
    try:
        async with asyncio.timeout(limits.seconds):
            while True:
                message = await request.receive()
                if message["type"] != "http.request":
                    raise ConnectionError
                body += message.get("body", b"")
                if len(body) > limits.body:
                    raise RefusedError(413, f"The body has more than {limits.body:,} bytes; send it in parts.")
                if not message.get("more_body"):
                    return bytes(body)
    except TimeoutError as error:
        raise RefusedError(400, f"The body did not arrive within {limits.seconds:g} seconds.") from error


async def gone(request: Request) -> None:
    """Return when whoever asked is not there any more. The body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def refused(error: RefusedError) -> JSONResponse:
    """The answer of a refusal."""
    return JSONResponse({"error": error.sentence}, error.status, headers=error.headers)


FAILURE = JSONResponse({"error": "The server failed on this request; it has gone on to the next."}, 500)


def _hashed(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _given_token(header: str) -> str:
    """The token of a header: Bearer's, or the password of Basic, which browsers ask their users for."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "basic":
        try:
            return b64decode(value.strip(), validate=True).decode("utf-8").partition(":")[2]
        except (Base64Error, UnicodeDecodeError):
            return ""
    return value.strip() if scheme.lower() == "bearer" else ""


def _host(header: str) -> str:
    """The name in a Host header, without its port."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].lower()
