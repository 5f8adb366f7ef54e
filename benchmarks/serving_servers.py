"""The servers that benchmarks/serve.py sets side by side, each in processes of its own."""

from __future__ import annotations

import atexit
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from promptpanda.bank.folder import TrainedPrompt

_PANDA = "import sys; from promptpanda.cli.main import main; sys.argv[0] = 'panda'; main()"


class Server:
    """A process that answers on a port, and says under `health` when; its memory is looked at every second, in MB."""

    def __init__(self, command: list[str], port: int, health: str = "/readyz", **env: str) -> None:
        self.command, self.port, self.health, self.env = command, port, health, {**os.environ, **env}
        self.memory: list[float] = []
        atexit.register(self.end)
        self.start()

    def start(self) -> None:
        """Begin, and return when it is ready."""
        # A group of its own: LitServe has workers.
        self.process = subprocess.Popen(
            self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=self.env, start_new_session=True
        )
        end = time.monotonic() + 300
        while not self._ready():
            if self.process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"a server did not start: {' '.join(self.command)}")
            time.sleep(0.1)
        threading.Thread(target=self._watch, args=(self.process,), daemon=True).start()

    def end(self) -> None:
        """Leave nothing running, however the benchmark ends."""
        if self.process.poll() is None:
            self.kill()

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{self.health}", timeout=5):
                return True
        except OSError:  # also a status that says not yet
            return False

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        while process.poll() is None:
            self.memory.append(_resident(process.pid))
            time.sleep(1)

    def kill(self) -> None:
        """kill -9."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        finally:
            if self.process.poll() is None:
                self.kill()


def _resident(pid: int) -> float:
    """MB of a process and those that it started."""
    total = 0.0
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="utf-8") as file:  # shared pages count in part
            found = re.search(r"Pss:\s+(\d+)", file.read())
        total += 0 if found is None else int(found.group(1)) / 1024
        with open(f"/proc/{pid}/task/{pid}/children", encoding="utf-8") as file:
            total += sum(_resident(int(child)) for child in file.read().split())
    except OSError:
        pass
    return total


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def panda(bank: Path, model: Path, threads: int) -> Server:
    """`panda serve` over a bank."""
    port = free_port()
    command = [sys.executable, "-c", _PANDA, "serve", "--bank", str(bank), "--model", str(model), "--no-starter"]
    return Server([*command, "--port", str(port), "--threads", str(threads)], port)


@contextmanager
def one_a_task(
    folder: Path, trained: Sequence[TrainedPrompt], model: Path, threads: int
) -> Iterator[dict[str, Server]]:
    """A process for each prompt, with a model of its own; by the prompt's id."""
    servers: dict[str, Server] = {}
    try:
        for one in trained:
            bank = folder / "alone" / one.card.id
            bank.mkdir(parents=True)
            (bank / one.card.id).symlink_to(folder / "bank" / one.card.id)
            servers[one.card.id] = panda(bank, model, threads)
        yield servers
    finally:
        for server in servers.values():
            server.stop()


def litserve(place: Path, bank: Path, model: Path, threads: int) -> Server:
    """LitServe, installed in a folder apart (`pip install --target`), over the same bank."""
    port = free_port()
    code = Path(__file__).with_name("serving_litserve.py")
    command = [sys.executable, str(code), "--bank", str(bank), "--model", str(model)]
    paths = [*filter(None, [os.environ.get("PYTHONPATH")]), str(place)]
    command += ["--port", str(port), "--threads", str(threads)]
    return Server(command, port, "/health", PYTHONPATH=os.pathsep.join(paths))
