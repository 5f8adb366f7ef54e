"""How `panda serve` holds up: many prompts, many clients, every answer checked, bad requests among the good ones.

Two loads run one after the other, each for half of `--seconds`: a closed loop (every client asks again when it has its
answer), which finds the most rows a second, and an open one (requests come at random times, whether or not others are
answered), whose latencies count from the moment when a request was due: a server that stalls is charged for all who
would have asked meanwhile.

    python benchmarks/serve.py --seconds 600 --bad 5000

The clients run on the same machine, and take from it what they take.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from serving_bank import Request, make_bank, make_requests, peft_rate

from promptpanda.backbone import Backbone
from promptpanda.models import EMBEDDED, locate
from promptpanda.quiet import quiet_libraries

_OPEN_LOAD = 0.6  # of the closed loop's requests a second
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
    """A client with a connection that stays open."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def __call__(self, body: bytes) -> tuple[int, bytes]:
        try:
            self._connection.request("POST", "/v1/predict", body, {"Content-Type": "application/json"})
            answer = self._connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=120)
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


def closed_loop(port: int, requests: list[Request], clients: int, seconds: float) -> tuple[Seen, float]:
    seen, end = Seen(), time.perf_counter() + seconds

    def client(number: int) -> None:
        draws, call = np.random.default_rng([2, number]), Caller(port)
        while time.perf_counter() < end:
            request = requests[int(draws.integers(len(requests)))]
            began = time.perf_counter()
            seen.add(request, *call(request.body), time.perf_counter() - began)

    return seen, together(clients, client)


def open_loop(port: int, requests: list[Request], clients: int, seconds: float, rate: float) -> tuple[Seen, float]:
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
        call = Caller(port)
        while (next_one := due.get()) is not None:
            when, request = next_one
            time.sleep(max(0.0, started + when - time.perf_counter()))
            status, answer = call(request.body)
            seen.add(request, status, answer, time.perf_counter() - started - when)

    # More callers than clients of the closed loop, so that a busy server does not slow down who asks.
    return seen, together(4 * clients, client)


def bad_requests(port: int, count: int, seconds: float) -> Counter[str]:
    """So many bad requests, spread over the time; what was not answered with its status is counted as such."""
    answers: Counter[str] = Counter()
    call = Caller(port)
    began = time.perf_counter()
    for number in range(count):
        body, expected = _BAD[number % len(_BAD)]
        status, _ = call(body)
        answers["refused as they should be" if status == expected else f"{status} instead of {expected}"] += 1
        time.sleep(max(0.0, began + seconds * (number + 1) / count - time.perf_counter()))
    return answers


class Server:
    """`panda serve` in a process of its own, whose memory is looked at every second."""

    def __init__(self, bank: Path, model: Path, threads: int) -> None:
        code = "import sys; from promptpanda.cli.main import main; sys.argv[0] = 'panda'; main()"
        command = [sys.executable, "-c", code, "serve", "--bank", str(bank), "--model", str(model), "--no-starter"]
        command += ["--port", "0", "--threads", str(threads)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        line = ""
        while (found := re.search(r":(\d+)$", line.rstrip())) is None:
            line = self.process.stderr.readline()
            if not line:
                raise SystemExit("panda serve did not start")
        self.port = int(found.group(1))
        self.memory: list[float] = []
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while self.process.poll() is None:
            with open(f"/proc/{self.process.pid}/status", encoding="utf-8") as file:
                found = re.search(r"VmRSS:\s+(\d+)", file.read())
            if found is not None:
                self.memory.append(int(found.group(1)) / 1024)
            time.sleep(1)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=EMBEDDED, help="name or folder of the model")
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0, help="of both loads together")
    parser.add_argument("--most-rows", type=int, default=8, help="a request has 1 to so many rows")
    parser.add_argument("--bad", type=int, default=200, help="bad requests among the good ones")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    quiet_libraries()
    torch.set_num_threads(given.threads)
    model = Path(locate(given.model))
    with TemporaryDirectory() as name:
        folder = Path(name)
        backbone = Backbone.load(str(model))
        trained = make_bank(folder, backbone, given.prompts)
        requests, measure = make_requests(trained, backbone, 600, given.most_rows)
        passes = [measure()]
        server = Server(folder / "bank", model, given.threads)
        half = given.seconds / 2
        closed_loop(server.port, requests, given.clients, min(5.0, half))  # not counted
        bad: list[Counter[str]] = []
        strangers = threading.Thread(target=lambda: bad.append(bad_requests(server.port, given.bad, given.seconds)))
        strangers.start()
        closed, closed_seconds = closed_loop(server.port, requests, given.clients, half)
        rate = _OPEN_LOAD * len(closed.latencies) / closed_seconds
        opened, open_seconds = open_loop(server.port, requests, given.clients, half, rate)
        strangers.join()
        code = server.stop()
        passes.append(measure())
        peft = peft_rate(trained, model, requests, min(20.0, half))
    offline = float(np.mean(passes))
    lines = [
        ["", "rows/s", "of offline", "p50 ms", "p99 ms", "answered", "wrong", "other"],
        [
            f"offline, one mixed pass ({passes[0]:.0f} before, {passes[1]:.0f} after)",
            f"{offline:.0f}",
            "100 %",
            "",
            "",
            "",
            "",
            "",
        ],
    ]
    for name, seen, seconds in (
        (f"closed loop, {given.clients} clients", closed, closed_seconds),
        (f"open loop, {rate:.0f} requests/s", opened, open_seconds),
    ):
        others = {status: count for status, count in seen.statuses.items() if status != "200"}
        cells = [f"{seen.rows / seconds:.0f}", f"{seen.rows / seconds / offline:.0%}"]
        cells += [f"{seen.quantile(0.5):.0f}", f"{seen.quantile(0.99):.0f}", str(seen.statuses["200"]), str(seen.wrong)]
        lines.append([name, *cells, str(others or "none")])
    lines.append(["PEFT, adapter switched a request", f"{peft:.0f}", f"{peft / offline:.0%}", *[""] * 5])
    lines.insert(1, ["---"] * len(lines[0]))
    print("\n".join(f"| {' | '.join(line)} |" for line in lines))
    tenth = max(1, len(server.memory) // 10)
    parts = [np.mean(server.memory[at : at + tenth]) for at in range(0, len(server.memory), tenth)]
    print(f"memory of the server in MB, over time: {', '.join(f'{part:.0f}' for part in parts)}")
    print(f"bad requests: {dict(bad[0]) if bad else 'none'}; exit code after SIGTERM: {code}")
    print(f"{given.prompts} prompts of three kinds, {given.threads} threads, torch {torch.__version__}")


if __name__ == "__main__":
    main()
