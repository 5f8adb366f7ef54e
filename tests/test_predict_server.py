"""`panda predict --server`: the same files as without it, from real servers, some of which are in a bad way."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import write_jsonl
from kinds import KINDS, ROWS, question_rows
from serving import bank_of_all_kinds, served
from typer.testing import CliRunner

from promptpanda.cli.main import app
from promptpanda.serving import client as client_module
from promptpanda.serving import predictor as module
from promptpanda.serving.limits import Limits

TOKEN = "a-token-of-a-test-0123456789"

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def bank(tmp_path_factory, tiny_backbone) -> Path:
    return bank_of_all_kinds(tmp_path_factory.mktemp("served"), tiny_backbone)


@pytest.fixture(scope="module")
def server(bank, tiny_backbone):
    with served(tiny_backbone, {"team": bank}, token=TOKEN, limits=Limits(chars=2000, rows=60)) as running:
        yield running


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("token").write_text(TOKEN)


def panda(*arguments: str, code: int = 0, stdin: str | None = None) -> tuple[str, str]:
    result = CliRunner().invoke(app, ["predict", *arguments], input=stdin)
    assert result.exit_code == code, f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
    return result.stdout, result.stderr


def remote(url: str) -> tuple[str, ...]:
    return ("--server", url, "--token-file", "token")


def cells(path: str) -> list[list[str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def same(one: Any, other: Any) -> bool:
    """Equal, but for the rounding of numbers, also of those inside the text of a cell."""
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    try:
        return bool(float(one) == pytest.approx(float(other), abs=1e-5))
    except (TypeError, ValueError):
        return bool(one == other)


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_and_the_lines_are_those_of_the_model_here(kind, server, bank):
    rows = [{**row, "id": f"00{number}"} for number, row in enumerate(ROWS[kind](7, 5))]
    write_jsonl(Path("rows.jsonl"), [*rows[:3], {"id": "empty"}, *rows[3:]])
    name = kind.replace("_", "-")
    here = ("--bank", str(bank), "--no-starter")
    lines = []
    for out, where in (("here.jsonl", here), ("there.jsonl", remote(server.url))):
        more = ("--probabilities", "--top", "2") if kind == "single_classification" else ()
        told = panda(name, "rows.jsonl", "--output", out, *more, *where)[1]
        assert "1 of 8 rows could not be read" in told
        lines.append([json.loads(line) for line in panda(name, "rows.jsonl", *where)[0].splitlines()])
    read = [[json.loads(line) for line in Path(out).read_text().splitlines()] for out in ("here.jsonl", "there.jsonl")]
    assert same(read[1], read[0])
    assert same(lines[1], lines[0])


def test_threshold_calibration_and_standard_input(server, bank):
    here = ("single-classification", "--bank", str(bank), "--no-starter")
    there = ("single-classification", *remote(server.url))
    texts = "good w1\nbad w2\n\nthe phone\n"
    for more in ((), ("--calibrated",)):
        outputs = [panda(*where, *more, stdin=texts)[0] for where in (here, there)]
        one, other = ([json.loads(line) for line in output.splitlines()] for output in outputs)
        assert same(other, one)
    both = [
        json.loads(panda(*there, *more, stdin="good w1")[0])["probabilities"]["good"]
        for more in ((), ("--calibrated",))
    ]
    assert both[0] != pytest.approx(both[1], abs=1e-4)
    told = json.loads(panda(*there, "--output", "o.csv", "--threshold", "1", "--json", stdin=texts)[0])
    assert (told["rows"], told["unreadable"], told["below_threshold"]) == (4, 1, 3)
    assert "no temperature" in panda("regression", *remote(server.url), "--calibrated", stdin="good", code=2)[1]


def test_long_texts_and_questions_without_room_are_rows_without_a_prediction(server, bank):
    """The server takes 60 rows at most, and no text of more than 2000 characters."""
    texts = [f"good w{number % 9}" for number in range(140)]
    texts[77] = "good " * 1000
    out = panda("single-classification", *remote(server.url), "--output", "o.csv", stdin="\n".join(texts))
    assert "1 of 140 rows could not be read" in out[1]
    assert "The text has 5000 characters, at most 2000 are allowed" in out[1]
    assert [place for place, row in enumerate(cells("o.csv")[1:]) if not row[1]] == [77]
    rows = question_rows(6, 3)
    rows[2]["question"] = " ".join(["w1"] * 60)
    write_jsonl(Path("rows.jsonl"), rows)
    told = [
        panda("extractive-qa", "rows.jsonl", *where)[1]
        for where in (("--bank", str(bank), "--no-starter"), remote(server.url))
    ]
    assert "1 of 6 rows" in told[0]
    assert told[1].splitlines()[-1] == told[0].splitlines()[-1]


def test_pieces_are_bounded_and_several_are_under_way(server, monkeypatch):
    monkeypatch.setattr(module, "_ROWS", 10)
    sizes: list[int] = []
    under_way = threading.Barrier(2, timeout=20)  # nobody goes on before a second piece is asked for
    ask = client_module.Client._ask

    def counted(self: Any, path: str, asked: Any = None) -> Any:
        if asked is not None:
            sizes.append(len(asked["texts"]))
            under_way.wait()
        return ask(self, path, asked)

    texts = [f"w{number % 50} good" for number in range(40)]
    with monkeypatch.context() as patched:
        patched.setattr(client_module.Client, "_ask", counted)
        lines = panda("regression", *remote(server.url), stdin="\n".join(texts))[0].splitlines()
    assert sizes == [10, 10, 10, 10]
    alone = json.loads(panda("regression", *remote(server.url), stdin=texts[33])[0])
    assert json.loads(lines[33])["value"] == pytest.approx(alone["value"], abs=1e-5)


@contextmanager
def stranger(answer: Any) -> Iterator[str]:
    """A server of a test's own: `answer(method, path, body)` gives status, headers and body."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers, content = answer(self.command, self.path, body, self.headers)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None: ...

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_port}"
    finally:
        running.shutdown()
        running.server_close()
        thread.join()


class Between:
    """Stands before a real server: what `meddle(number, body)` returns for the n-th prediction goes back instead."""

    def __init__(self, server: Any, meddle: Any) -> None:
        self.server, self.meddle, self.asked = server, meddle, list[list[str]]()
        self._lock = threading.Lock()

    def __call__(self, method: str, path: str, body: bytes, headers: Any) -> tuple[int, dict[str, str], bytes]:
        if method == "POST":
            with self._lock:
                self.asked.append(["".join(text) for text in json.loads(body)["texts"]])
                number = len(self.asked)
            if (answer := self.meddle(number, body)) is not None:
                return answer
        status, value, _ = self.server.ask(
            method, path, body or None, {"Authorization": headers.get("Authorization", "")}
        )
        return status, {}, json.dumps(value).encode()


def test_a_server_that_has_no_room_is_asked_again_when_it_says(server, monkeypatch):
    waited: list[float] = []
    monkeypatch.setattr(client_module.Event, "wait", lambda self, seconds=None: waited.append(seconds) or False)
    busy = [(429, {"Retry-After": "7"}, b'{"error": "too many"}'), (503, {"Retry-After": "soon"}, b"{}")]
    between = Between(server, lambda number, body: busy[number - 1] if number <= 2 else None)
    with stranger(between) as url:
        out = panda("single-classification", *remote(url), stdin="good w1")[0]
    assert json.loads(out)["label"] in ("good", "bad")
    asked = [pause for pause in waited if pause is not None and pause < 20]
    assert 7 <= asked[0] <= 9.1
    assert 1 <= asked[1] <= 1.3


def test_what_a_server_that_went_away_has_answered_is_kept_and_resumed(server, monkeypatch):
    monkeypatch.setattr(module, "_ROWS", 10)
    monkeypatch.setattr(module, "_AHEAD", 1)
    texts = [f"w{number} good" for number in range(35)]
    Path("rows.csv").write_text("text\n" + "\n".join(texts))
    gone = (500, {}, b"<html>proxy</html>")
    command = ("single-classification", "rows.csv", "--output", "o.csv")
    panda(*command[:2], "--output", "whole.csv", *remote(server.url))
    with stranger(Between(server, lambda number, body: gone if number > 2 else None)) as url:
        told = panda(*command, *remote(url), code=2)[1]
    assert "answered 500, and not as promptpanda does" in told
    assert "the first 20 rows are kept in o.csv.partial" in told
    assert not Path("o.csv").exists()
    told = panda(*command, *remote(url), code=2)[1]  # nobody listens there any more
    assert "cannot be reached" in told
    between = Between(server, lambda number, body: None)
    with stranger(between) as url:
        told = panda(*command, *remote(url))[1]
    assert "20 of 35 rows were predicted before" in told
    assert [text for part in between.asked for text in part] == texts[20:]
    assert same(cells("o.csv"), cells("whole.csv"))


def test_answers_that_are_not_ours(server):
    good = {"label": "good", "probabilities": {"good": 0.75, "bad": 0.25}}
    wrong: list[Any] = [
        b"<html>",
        b"[]",
        b'{"predictions": []}',
        b"\xff",
        b"[" * 5000,
        {"predictions": ["good"]},
        {"predictions": [good | {"label": "other"}]},
        {"predictions": [good | {"probabilities": {"good": 1}}]},
        {"predictions": [good | {"probabilities": {"good": 7.5, "bad": 0}}]},
        b'{"predictions": [{"label": "good", "probabilities": {"good": NaN, "bad": 0}}]}',
    ]
    for one in wrong:
        body = one if isinstance(one, bytes) else json.dumps(one).encode()
        with stranger(Between(server, lambda number, _, body=body: (200, {}, body))) as url:
            told = panda("single-classification", *remote(url), stdin="good w1", code=2)[1]
        assert "check the address" in told, one
        assert len(told.splitlines()) == 1
    for content in (b"{}", b'{"card": {"format": 1}}', b'{"card": {"format": 99}}', b"hello"):
        with stranger(lambda *_, content=content: (200, {}, content)) as url:
            assert "check the address" in panda("reviews", *remote(url), stdin="good", code=2)[1]


def test_tokens_go_to_the_server_that_was_named_alone():
    """A server that sends its clients elsewhere is not followed."""
    seen: list[str] = []
    with stranger(lambda method, path, body, headers: seen.append(path) or (200, {}, b"{}")) as elsewhere:
        for status in (301, 302, 307, 308):
            with stranger(lambda *_, status=status: (status, {"Location": f"{elsewhere}/v1/x"}, b"")) as url:
                told = panda("reviews", *remote(url), stdin="good", code=2)[1]
            assert f"answered {status}, and not as promptpanda does" in told
    assert seen == []


def test_what_does_not_go_is_one_sentence(server):
    there = remote(server.url)
    Path("wrong").write_text("another-token-0123456789")
    Path("short").write_text("abc")
    for arguments, says in (
        (("regression", "--server", server.url), "asks for a token; give the one it was started with"),
        (("regression", "--server", server.url, "--token-file", "wrong"), "has another token"),
        (("regression", "--server", server.url, "--token-file", "short"), "no token"),
        (("regression", "--token-file", "token"), "--server URL"),
        (("regresion", *there), "regression"),
        (("../bank/x", *there), "."),
        (("regression", "--server", "http://127.0.0.1:9"), "cannot be reached"),
        (("regression", "--server", "127.0.0.1:8000"), "not the address"),
        (("regression", "--server", "http://127.0.0.1:99999"), "not the address"),
        (("regression", *there, "--model", "x"), "leave them out"),
        (("regression", *there, "--offline"), "leave one out"),
        (("regression", *there, "--output", "o.csv", "--threshold", "0.5"), "--threshold needs a confidence"),
        (("regression", "rows.txt", *there), "rows.txt"),
    ):
        told = panda(*arguments, stdin="good", code=2)[1]
        assert says in told, told
        assert len(told.splitlines()) == 1


def test_it_needs_no_torch(server):
    code = """
import sys
class No:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("torch", "transformers", "fastapi", "starlette"):
            raise ImportError(f"{name} is not here")
sys.meta_path.insert(0, No())
from promptpanda.cli.main import main
main()
"""
    Path("rows.csv").write_text("text,id\ngood w1,1\nbad,2\n")
    command = [sys.executable, "-c", code, "predict", "single-classification", "rows.csv", "--output", "o.csv"]
    done = subprocess.run([*command, *remote(server.url)], capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    assert [row[2] in ("good", "bad") for row in cells("o.csv")[1:]] == [True, True]
