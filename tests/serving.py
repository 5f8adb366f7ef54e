"""A bank with a prompt of every kind, and a real server over it, which the tests of serving share."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kinds import KINDS, kind_task

from promptpanda.backbone import Backbone
from promptpanda.bank.bank import Bank
from promptpanda.serving.app import application
from promptpanda.serving.limits import Limits
from promptpanda.serving.model import Model
from promptpanda.serving.server import Server, listening_socket
from promptpanda.serving.service import Service
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.transfer import train

OPTIONS = TrainingOptions(epochs=2, prompt_length=4, max_length=32)


def bank_of_all_kinds(folder: Path, backbone: Backbone) -> Path:
    """A bank with one prompt of every kind of task; its data stands beside it."""
    bank = folder / "bank"
    for kind in KINDS:
        train(kind_task(kind, folder / "data"), backbone, bank=Bank(bank, others={}), options=OPTIONS)
    return bank


class Served:
    """A server that runs in this process."""

    def __init__(self, service: Service, port: int, said: list[str]) -> None:
        self.service, self.port, self.said = service, port, said

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, Any], http.client.HTTPMessage]:
        """Status, JSON and headers of an answer; a body that is no bytes is sent as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        given = {"Content-Type": "application/json", **(headers or {})}
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection.request(method, path, data, given)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        value = json.loads(content) if "json" in answer.headers["Content-Type"] else {"text": content.decode()}
        return answer.status, value, answer.headers

    def predict(self, prompt: str, **asked: Any) -> tuple[int, dict[str, Any]]:
        """Status and JSON of POST /v1/predict."""
        status, value, _ = self.ask("POST", "/v1/predict", {"prompt": prompt, **asked})
        return status, value


@contextmanager
def served(
    backbone: Backbone | Model, banks: dict[str, Path], *, token: str | None = None, **options: Any
) -> Iterator[Served]:
    """A server over banks; the options are the service's."""
    said: list[str] = []
    model = backbone if isinstance(backbone, Model) else Model(lambda: backbone)
    options = {"limits": Limits(), "threads": 2, **options}
    service = Service(model, banks, tell=said.append, **options)
    service.start()
    listening = listening_socket("127.0.0.1", 0)
    ready = threading.Event()
    server = Server(application(service, token=token), seconds=service.limits.seconds, started=ready.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    assert ready.wait(60)
    try:
        yield Served(service, listening.getsockname()[1], said)
    finally:
        server.should_exit = True
        thread.join(60)
        service.close()
