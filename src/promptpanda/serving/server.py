"""The process: a socket, uvicorn on it, and signals that let it finish what it accepted."""

from __future__ import annotations

import errno
import logging
import signal
import socket
import sys
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from promptpanda.errors import PandaError
from promptpanda.serving.connection import Connection

_SWITCH = 0.0005  # seconds after which a thread lets others go on; Python's own 5 ms would hold up the model


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket on an address that is still free; it takes connections once the server runs.

    Raises:
        PandaError: it is taken, or is not an address of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise PandaError(f"--host {host} is not a known address or host name ({error.strerror}).") from error
    listening = socket.socket(family, kind, protocol)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise PandaError(
                f"Port {port} of {host} is taken by another program; choose another with --port."
            ) from error
        if error.errno == errno.EACCES:
            raise PandaError(
                f"Port {port} may not be opened by this user; choose one from 1024 on (--port)."
            ) from error
        raise PandaError(
            f"{host} is not an address of this machine ({error.strerror}); choose another (--host)."
        ) from error
    return listening


def is_loopback(listening: socket.socket) -> bool:
    """Whether a socket is reached from this machine alone."""
    host = str(listening.getsockname()[0])
    return host.startswith("127.") or host == "::1"


def url_of(listening: socket.socket) -> str:
    """The address in the form that browsers take."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """uvicorn, told when it takes connections, and quiet.

    Args:
        seconds: that a request may take: so long its end is waited for when the server is stopped, and a bit longer.
        started: called when connections are taken.
    """

    def __init__(self, app: ASGIApp, *, seconds: float, started: Callable[[], None]) -> None:
        logging.getLogger("uvicorn").setLevel(logging.CRITICAL + 1)  # it logs traces with whatever was computed with
        self._told = started
        config = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=int(seconds) + 5,
        )
        super().__init__(config)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._told()


def serve(server: Server, listening: socket.socket) -> None:
    """Answer requests until SIGTERM or SIGINT; then take no more, and return when those that were accepted are done.

    Raises:
        KeyboardInterrupt: SIGINT (Ctrl-C) ended it.
    """
    sys.setswitchinterval(_SWITCH)
    # uvicorn raises the signal again when all is done, which would end the process with another code than 0.
    signal.signal(signal.SIGTERM, lambda *_: None)
    server.run(sockets=[listening])
