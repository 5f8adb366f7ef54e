"""The load of benchmarks/serve.py: clients, what they saw, and strangers with bad requests."""

from __future__ import annotations

import http.client
import json
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from serving_bank import Request

_BAD: tuple[tuple[bytes, int], ...] = (
    (b"{", 400),
    (b'{"prompt": "no-such-prompt", "texts": ["a"]}', 404),
    (b'{"prompt": "topic", "texts": [NaN]}', 400),
    (b'{"prompt": "topic", "rows": [{"nope": "a"}]}', 422),
    (b'{"prompt": "topic", "texts": ["", "a"]}', 422),
    (b'{"prompt": "topic", "texts": ' + b"[" * 900 + b"]" * 900 + b"}", 400),
    (json.dumps({"prompt": "topic", "texts": ["a"] * 5000}).encode(), 413),
    (json.dumps({"prompt": "topic", "texts": ["a" * 1_000_000]}).encode(), 413),
)


@dataclass
class Seen:
    """What clients saw."""

    latencies: list[float] = field(default_factory=list)
    rows: int = 0
    wrong: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, request: Request, status: int, answer: bytes, seconds: float) -> None:
        right = status == 200 and _right(request, json.loads(answer))
        with self.lock:
            self.statuses[str(status)] += 1
            self.wrong += status == 200 and not right
            if right:
                self.latencies.append(seconds)
                self.rows += len(request.rows)

    def quantile(self, share: float) -> float:
        return float(np.quantile(self.latencies, share)) * 1000 if self.latencies else float("nan")


class Caller:
    """A client with a connection that stays open, to each port that it asks."""

    def __init__(self) -> None:
        self._connections: dict[int, http.client.HTTPConnection] = {}

    def __call__(self, port: int, body: bytes) -> tuple[int, bytes]:
        """Status and body of an answer; 0 where the connection was refused or cut."""
        connection = self._connections.get(port) or http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self._connections[port] = connection
        try:
            connection.request("POST", "/v1/predict", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            del self._connections[port]
            return 0, b""


def _right(request: Request, answer: dict[str, object]) -> bool:
    """Whether an answer is the offline one: the prompt, its words, and numbers within 1e-5."""
    found = answer["predictions"]
    assert isinstance(found, list)
    if answer["prompt"] != request.prompt or len(found) != len(request.expected):
        return False
    for one, expected in zip(found, request.expected, strict=True):
        if "spans" in expected:
            if one["tags"] != expected["tags"]:
                return False
        elif one["label"] != expected["label"] or any(
            abs(one["probabilities"][name] - share) > 1e-5 for name, share in expected["probabilities"].items()
        ):
            return False
    return True


def together(clients: int, work: Callable[[int], None]) -> float:
    """Run a function in so many threads; the seconds until all are done."""
    threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


Ports = Callable[[Request], int]  # where a request goes


def closed_loop(ports: Ports, requests: list[Request], clients: int, seconds: float) -> tuple[Seen, float]:
    seen, end = Seen(), time.perf_counter() + seconds

    def client(number: int) -> None:
        draws, call = np.random.default_rng([2, number]), Caller()
        while time.perf_counter() < end:
            request = requests[int(draws.integers(len(requests)))]
            began = time.perf_counter()
            status, answer = call(ports(request), request.body)
            seen.add(request, status, answer, time.perf_counter() - began)
            if status == 0:
                time.sleep(0.05)  # as a client that tries again

    return seen, together(clients, client)


def open_loop(ports: Ports, requests: list[Request], clients: int, seconds: float, rate: float) -> tuple[Seen, float]:
    """Requests that are due at random times (a Poisson process); latencies count from then on."""
    seen, draws = Seen(), np.random.default_rng(3)
    due: queue.SimpleQueue[tuple[float, Request] | None] = queue.SimpleQueue()
    started = time.perf_counter()
    at = 0.0
    while (at := at + float(draws.exponential(1 / rate))) < seconds:
        due.put((at, requests[int(draws.integers(len(requests)))]))
    for _ in range(4 * clients):
        due.put(None)

    def client(number: int) -> None:
        call = Caller()
        while (next_one := due.get()) is not None:
            when, request = next_one
            time.sleep(max(0.0, started + when - time.perf_counter()))
            status, answer = call(ports(request), request.body)
            seen.add(request, status, answer, time.perf_counter() - started - when)

    # More callers than clients of the closed loop, so that a busy server does not slow down who asks.
    return seen, together(4 * clients, client)


def bad_requests(port: int, count: int, seconds: float) -> Counter[str]:
    """So many bad requests, spread over the time; what was not answered with its status is counted as such."""
    answers: Counter[str] = Counter()
    call = Caller()
    began = time.perf_counter()
    for number in range(count):
        body, expected = _BAD[number % len(_BAD)]
        status, _ = call(port, body)
        answers["refused as they should be" if status == expected else f"{status} instead of {expected}"] += 1
        time.sleep(max(0.0, began + seconds * (number + 1) / count - time.perf_counter()))
    return answers
