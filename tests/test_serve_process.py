"""`panda serve` as a process: how it begins, ends, and is killed, and `panda predict`'s answers from it."""

from __future__ import annotations

import functools
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from serving import bank_of_all_kinds
from typer.testing import CliRunner

from promptpanda.cli.main import app

RUN = "import sys; from promptpanda.cli.main import main; sys.argv[0] = 'panda'; main()"


@pytest.fixture(scope="module")
def bank(tmp_path_factory, tiny_backbone):
    return bank_of_all_kinds(tmp_path_factory.mktemp("process"), tiny_backbone)


class Process:
    """A server in a process of its own."""

    def __init__(self, bank: Path, model: Path, *options: str) -> None:
        command = [sys.executable, "-c", RUN, "serve", "--bank", str(bank), "--model", str(model), "--no-starter"]
        command += ["--threads", "1", *options]
        heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore it
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ, preexec_fn=heard)
        assert self.process.stderr is not None
        self.said: list[str] = []
        self.port = 0
        while self.port == 0:
            line = self.process.stderr.readline()
            assert line, self.said
            self.said.append(line)
            if (found := re.search(r" at http://127\.0\.0\.1:(\d+)$", line.rstrip())) is not None:
                self.port = int(found.group(1))

    def predict(self, prompt: str, **asked: object) -> tuple[int, dict]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        body = json.dumps({"prompt": prompt, **asked})
        connection.request("POST", "/v1/predict", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())

    def ended(self) -> int:
        assert self.process.stderr is not None
        self.said += self.process.stderr.readlines()
        return self.process.wait(60)


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_what_was_accepted_is_answered(sign, code, bank, tiny_folder):
    """Told to stop while clients wait: they get their answers, later ones are refused, and the process ends well."""
    process = Process(bank, tiny_folder("bert"), "--port", "0")
    with ThreadPoolExecutor(8) as clients:
        waiting = [clients.submit(process.predict, "regression", texts=["good bad fine"] * 600) for _ in range(8)]
        time.sleep(0.4)
        process.process.send_signal(sign)
        answers = [one.result() for one in waiting]
    assert [status for status, _ in answers] == [200] * 8
    assert all(len(answer["predictions"]) == 600 for _, answer in answers)
    assert process.ended() == code
    with pytest.raises(ConnectionError):
        process.predict("regression", texts=["good"])
    assert not any("Traceback" in line for line in process.said)


def test_killed_under_load_and_started_again(bank, tiny_folder):
    """Clients see broken and refused connections, and never a wrong answer."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = Process(bank, tiny_folder("bert"), "--port", str(port))
    texts = ("good", "bad bad")
    answers = process.predict("regression", texts=list(texts))[1]["predictions"]
    expected = {text: answer["value"] for text, answer in zip(texts, answers, strict=True)}
    stop = threading.Event()
    seen: list[object] = []

    def ask(text: str) -> None:
        while not stop.is_set():
            try:
                status, answer = process.predict("regression", texts=[text])
                seen.append((status, abs(answer["predictions"][0]["value"] - expected[text]) < 1e-5))
            except (ConnectionError, http.client.HTTPException) as error:
                seen.append(type(error))
                time.sleep(0.05)

    clients = [threading.Thread(target=ask, args=(text,)) for text in expected for _ in range(2)]
    for client in clients:
        client.start()
    time.sleep(0.5)
    process.process.kill()
    process.ended()
    before = len([one for one in seen if one == (200, True)])
    again = Process(bank, tiny_folder("bert"), "--port", str(port))
    time.sleep(0.5)
    stop.set()
    for client in clients:
        client.join()
    again.process.send_signal(signal.SIGTERM)
    assert again.ended() == 0
    assert len([one for one in seen if one == (200, True)]) > before > 0
    assert {one for one in seen if isinstance(one, tuple)} == {(200, True)}


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["serve", *arguments])
    return done.exit_code, done.stderr.strip()


def test_wrong_options_end_in_one_sentence(tmp_path, bank, tiny_folder):
    (tmp_path / "token").write_text("short", encoding="utf-8")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for arguments, says in (
            (("--bank", str(bank), "--port", port), f"Port {port} of 127.0.0.1 is taken"),
            (("--bank", str(tmp_path / "nothing")), "no bank in"),
            (("--bank", str(bank), "--host", "no.such.host.example"), "--host no.such.host.example"),
            (("--bank", str(bank), "--host", "192.0.2.1", "--port", "0"), "not an address of this machine"),
            (("--bank", str(bank), "--token-file", str(tmp_path / "token")), "no token"),
            (("--bank", str(bank), "--port", "0", "--model", str(tmp_path)), "No model could be loaded"),
        ):
            code, said = run(*arguments)
            assert (code, says in said) == (2, True), said
            assert said.startswith("panda: ")
            assert said.count("\n") == 0


def test_without_a_bank(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, said = run("--no-starter")
    assert code == 2
    assert "no bank here" in said
