"""What the server refuses, each with its status and one sentence, and what it survives."""

from __future__ import annotations

import base64
import http.client
import json
import shutil
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from serving import Served, bank_of_all_kinds, served

from promptpanda.errors import PandaError
from promptpanda.serving import connection
from promptpanda.serving.limits import Limits, outward
from promptpanda.serving.token import read_token
from promptpanda.training.heads import Head

LIMITS = Limits(body=200_000, rows=50, chars=2000, queue=120, seconds=20)
TOKEN = "a-token-of-a-test-0123456789"


@pytest.fixture(scope="module")
def bank(tmp_path_factory, tiny_backbone):
    return bank_of_all_kinds(tmp_path_factory.mktemp("limited"), tiny_backbone)


@pytest.fixture(scope="module")
def server(bank, tiny_backbone):
    with served(tiny_backbone, {"team": bank}, limits=LIMITS) as running:
        yield running


def fine(server: Served) -> bool:
    """Whether it still answers."""
    return server.predict("regression", texts=["good bad"])[0] == 200


def answered(client: socket.socket) -> tuple[int, dict]:
    """Status and body, read to the body's end, in however many pieces they come."""
    response = http.client.HTTPResponse(client)
    response.begin()
    return response.status, json.loads(response.read())


def one_sentence(answer: dict) -> bool:
    sentence = answer["error"]
    return list(answer) == ["error"] and 10 < len(sentence) <= 400 and sentence[-1] in ".?" and "\n" not in sentence


DEEP = b'{"prompt": "regression", "texts": ' + b"[" * 5000 + b"]" * 5000 + b"}"


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"", 400, "JSON"),
        (b"{", 400, "JSON"),
        (b"[1, 2]", 400, "expected an object"),
        (b'"text"', 400, "expected an object"),
        (b"\xff\xfe", 400, "UTF-8"),
        (DEEP, 400, "nested too deeply"),
        (b'{"prompt": "regression", "texts": [NaN]}', 400, "NaN"),
        (b'{"prompt": "regression", "texts": ["a"], "top": 1e999}', 400, "1e999"),
        (b'{"prompt": "regression", "texts": ["\\ud83d"]}', 400, "surrogate"),
        (b"{}", 422, "prompt"),
        (b'{"prompt": "regression"}', 422, "either"),
        (b'{"prompt": "regression", "texts": ["a"], "rows": [{"text": "a"}]}', 422, "either"),
        (b'{"prompt": "regression", "texts": []}', 422, "empty"),
        (b'{"prompt": "regression", "texts": "good"}', 422, "texts"),
        (b'{"prompt": "regression", "texts": [1]}', 422, "texts"),
        (b'{"prompt": "regression", "texts": [""]}', 422, "empty"),
        (b'{"prompt": "regression", "texts": [["a", "b"]]}', 422, "segments"),
        (b'{"prompt": "regression", "rows": [{"other": "a"}]}', 422, "no field 'text'"),
        (b'{"prompt": "regression", "rows": [{"text": {"a": "b"}}]}', 422, "mapping"),
        (b'{"prompt": "regression", "rows": ["a"]}', 422, "rows"),
        (b'{"prompt": "regression", "texts": ["a"], "nope": 1}', 422, "nope"),
        (b'{"prompt": "regression", "texts": ["a"], "probabilities": "yes"}', 422, "probabilities"),
        (b'{"prompt": "regression", "texts": ["a"], "top": 0}', 422, "top"),
        (b'{"prompt": ["regression"], "texts": ["a"]}', 422, "prompt"),
        (b'{"prompt": "multiple-choice", "texts": ["a"]}', 422, "Choices"),
        (b'{"prompt": "multiple-choice", "rows": [{"premise": "a", "choices": ["one"]}]}', 422, "at least two"),
        (b'{"prompt": "token-classification", "rows": [{"tokens": [1]}]}', 422, "expected a string"),
        (b'{"prompt": "regresion", "texts": ["a"]}', 404, "Did you mean 'regression'"),
        (b'{"prompt": "../../etc/passwd", "texts": ["a"]}', 404, "No prompt has such a name"),
        (b'{"prompt": "", "texts": ["a"]}', 404, "No prompt has such a name"),
        (json.dumps({"prompt": "x" * 5000, "texts": ["a"]}).encode(), 404, "No prompt has such a name"),
        (json.dumps({"prompt": "regression", "texts": ["a"] * 51}).encode(), 413, "51 texts"),
        (json.dumps({"prompt": "regression", "rows": [{"text": "a"}] * 10_000}).encode(), 413, "10000 rows"),
        (json.dumps({"prompt": "regression", "texts": ["a" * 2001]}).encode(), 413, "2001 characters"),
        (json.dumps({"prompt": "regression", "rows": [{"text": ["a" * 1001] * 2}]}).encode(), 413, "2002 characters"),
        (json.dumps({"prompt": "regression", "texts": ["a" * 1_000_000]}).encode(), 413, "bytes"),
    ],
)
def test_refused(body, status, says, server):
    found, answer, _ = server.ask("POST", "/v1/predict", body)
    assert (found, says in answer["error"]) == (status, True), answer
    assert one_sentence(answer)
    assert fine(server)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_another_content_type(kind, server):
    status, answer, _ = server.ask(
        "POST", "/v1/predict", b'{"prompt": "regression", "texts": ["a"]}', {"Content-Type": kind}
    )
    assert status == 400
    assert "application/json" in answer["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/v1/prompts/nothing-s0-00000000", 404),
        ("GET", "/v1/prompts/..%2f..%2fetc%2fpasswd", 404),
        ("GET", "/static/..%2fpage.py", 404),
        ("GET", "/v1/predict", 405),
        ("DELETE", "/v1/prompts", 405),
    ],
)
def test_other_addresses(method, path, status, server):
    found, answer, _ = server.ask(method, path)
    assert found == status
    assert one_sentence(answer)


def test_a_body_that_is_too_large_is_refused_before_it_is_kept(server):
    """100 MB, told in the header or not: the sender gets to the answer."""
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    piece = b"x" * 1_000_000
    for framing, parts in (
        (b"Content-Length: 100000000\r\n\r\n", [piece] * 100),
        (b"Transfer-Encoding: chunked\r\n\r\n", [*[b"f4240\r\n" + piece + b"\r\n"] * 100, b"0\r\n\r\n"]),
    ):
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
            client.sendall(head + framing)
            for part in parts:
                client.sendall(part)
            assert answered(client)[0] == 413
    assert fine(server)


def held(hold: threading.Event, begun: threading.Event | None = None):
    """A step that keeps the thread of the model busy."""
    if begun is not None:
        begun.set()
    hold.wait(30)
    yield "held"


def test_the_queue_is_bounded(server):
    """What it has no room for is refused with 429 at once, and what was accepted is answered."""
    hold, begun = threading.Event(), threading.Event()
    server.service.batcher.run(held(hold, begun))
    assert begun.wait(20)
    with ThreadPoolExecutor(10) as clients:
        asked = [clients.submit(server.predict, "regression", texts=["good bad"] * 50) for _ in range(10)]
        end = time.monotonic() + 20
        while sum(one.done() for one in asked) < 8 and time.monotonic() < end:
            time.sleep(0.01)
        refused = [one.result() for one in asked if one.done()]
        hold.set()
        answers = [one.result() for one in asked]
    assert [status for status, _ in refused] == [429] * 8
    assert sorted(status for status, _ in answers) == [200] * 2 + [429] * 8
    assert all(one_sentence(answer) for _, answer in refused)
    assert fine(server)


def test_more_rows_than_the_queue_holds(server):
    row = {"premise": "a", "choices": [f"w{number}" for number in range(40)]}
    status, answer = server.predict("multiple-choice", rows=[row] * 40)
    assert status == 413
    assert "rows for the model" in answer["error"]


def test_no_answer_in_time(bank, tiny_backbone):
    hold = threading.Event()
    with served(tiny_backbone, {"team": bank}, limits=Limits(seconds=0.5)) as server:
        server.service.batcher.run(held(hold))
        status, answer = server.predict("regression", texts=["good"])
        hold.set()
        assert status == 503
        assert "within 0.5 seconds" in answer["error"]
        assert fine(server)


def test_a_body_that_does_not_arrive(bank, tiny_backbone):
    with served(tiny_backbone, {"team": bank}, limits=Limits(seconds=0.5)) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
            client.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
            client.sendall(b"Content-Length: 100\r\n\r\n{")
            status, answer = answered(client)
            assert status == 400
            assert "did not arrive within 0.5 seconds" in answer["error"]
        assert fine(server)


def test_a_head_that_does_not_arrive(server, monkeypatch):
    """Bytes that come one by one do not keep a connection open; nor does a connection that says nothing."""
    monkeypatch.setattr(connection, "_SECONDS", 0.5)
    for sent in (b"", b"GET /healthz HT"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
            client.sendall(sent)
            began = time.monotonic()
            assert "did not arrive within 0.5 seconds" in answered(client)[1]["error"]
            assert client.recv(1000) == b""
            assert time.monotonic() - began < 10
    assert fine(server)


def test_what_is_no_http(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
        client.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        status, answer = answered(client)
    assert status == 400
    assert one_sentence(answer)


def test_whoever_leaves_is_forgotten(server):
    """A client that closes its connection, or half of it, before the answer: its rows are not computed."""
    hold = threading.Event()
    body = json.dumps({"prompt": "regression", "texts": ["good"] * 40}).encode()
    head = "POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    server.service.batcher.run(held(hold))
    for half in (True, False):
        client = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        client.sendall(head.encode() + body)
        end = time.monotonic() + 20
        while server.service.batcher.waiting == 0 and time.monotonic() < end:
            time.sleep(0.01)
        assert server.service.batcher.waiting == 40
        client.shutdown(socket.SHUT_WR) if half else client.close()
        while server.service.batcher.waiting and time.monotonic() < end:
            time.sleep(0.01)
        assert server.service.batcher.waiting == 0
        client.close()
    hold.set()
    assert fine(server)


def test_a_request_that_dies_does_not_hurt_its_batch(bank, tiny_backbone, tmp_path):
    """Requests under a head that does not fit the model, which nobody noticed, among good ones in the same batches."""
    with served(tiny_backbone, {"team": bank}, max_wait=0.3) as server:
        broken = server.service.registry.find("single-classification")
        trained = broken.trained
        assert trained is not None
        head = Head(trained.head.weight[:, :5], trained.head.bias, trained.head.readout)
        object.__setattr__(trained, "head", head)
        alone = server.predict("regression", texts=["good bad"])[1]["predictions"][0]["value"]
        with ThreadPoolExecutor(8) as clients:
            bad = [clients.submit(server.predict, "single-classification", texts=["secret words"]) for _ in range(4)]
            good = [clients.submit(server.predict, "regression", texts=["good bad"]) for _ in range(4)]
            for one in good:
                status, answer = one.result()
                assert status == 200
                assert answer["predictions"][0]["value"] == pytest.approx(alone, abs=1e-5)
            for one in bad:
                status, answer = one.result()
                assert status == 500
                assert one_sentence(answer)
        assert "secret" not in "".join(server.said)
        assert any("RuntimeError" in sentence for sentence in server.said)
        assert not any("/" in sentence or "Traceback" in sentence for sentence in server.said)


def test_outputs_that_are_not_finite(bank, tiny_backbone):
    with served(tiny_backbone, {"team": bank}) as server:
        trained = server.service.registry.find("single-classification").trained
        assert trained is not None
        object.__setattr__(
            trained, "head", Head(trained.head.weight * float("inf"), trained.head.bias, trained.head.readout)
        )
        status, answer = server.predict("single-classification", texts=["good"])
        assert (status, "not finite" in answer["error"]) == (422, True)
        assert fine(server)


@pytest.fixture(scope="module")
def guarded(bank, tiny_backbone):
    with served(tiny_backbone, {"team": bank}, token=TOKEN) as running:
        yield running


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"anyone:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        ("", 401),
        ("Bearer", 401),
        ("Bearer wrong", 401),
        (f"Bearer {TOKEN}x", 401),
        (f"Bearer {TOKEN[:-1]}", 401),
        (f"Token {TOKEN}", 401),
        ("Bearer \u00e9", 401),
        (basic("wrong"), 401),
        ("Basic !!!", 401),
        (f"Bearer {TOKEN}", 200),
        (f"bearer {TOKEN}", 200),
        (basic(TOKEN), 200),
    ],
)
def test_tokens(header, status, guarded):
    given = {} if header is None else {"Authorization": header}
    for method, path in (("GET", "/v1/prompts"), ("GET", "/"), ("GET", "/metrics"), ("GET", "/openapi.json")):
        found, answer, headers = guarded.ask(method, path, None, given)
        assert found == status
        if status == 401:
            assert one_sentence(answer)
            assert headers["WWW-Authenticate"].startswith("Basic ")
    assert guarded.ask("GET", "/healthz")[0] == guarded.ask("GET", "/readyz")[0] == 200


def test_other_names_of_this_machine_are_not_answered_without_a_token(server, guarded):
    for host, status in (
        ("evil.example", 400),
        ("127.0.0.1.evil.example", 400),
        ("localhost:1", 200),
        ("[::1]:80", 200),
    ):
        assert server.ask("GET", "/v1/prompts", None, {"Host": host})[0] == status
    assert guarded.ask("GET", "/v1/prompts", None, {"Host": "our.proxy", "Authorization": f"Bearer {TOKEN}"})[0] == 200


@pytest.mark.parametrize("content", ["", "short\n", "has a space in its middle\n", "h\u00e9 is not all of ascii\n"])
def test_token_files_that_protect_nothing(content, tmp_path):
    (tmp_path / "token").write_text(content, encoding="utf-8")
    with pytest.raises(PandaError, match="no token"):
        read_token(tmp_path / "token")


def test_all_answers_carry_the_policy(server):
    for path in ("/", "/v1/prompts", "/nothing", "/static/page.js"):
        headers = server.ask("GET", path)[2]
        assert "default-src 'none'; script-src 'self';" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "server" not in headers


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Nothing is in /home/eve/bank/x.json; fix it.", "Nothing is in x.json; fix it."),
        ("trained on /srv/models/bert (fingerprint ab)", "trained on bert (fingerprint ab)"),
        ("see https://example.org/a/b", "see https://example.org/a/b"),
        ("either/or of hub/model", "either/or of hub/model"),
        ("~/bank/p is cut", "p is cut"),
        ("two\nlines", "two lines"),
    ],
)
def test_sentences_tell_no_paths(said, shown):
    assert outward(said) == shown


def test_nothing_of_a_bank_elsewhere_is_told(tmp_path, bank, tiny_backbone):
    copy = tmp_path / "secret-folder" / "bank"
    shutil.copytree(bank, copy)
    for folder in copy.iterdir():
        (folder / "card.json").write_text("{", encoding="utf-8")
    with served(tiny_backbone, {"bank": copy}) as server:
        answers = [server.ask("GET", "/v1/prompts")[1], server.ask("GET", "/")[1]]
        assert not any(one["served"] for one in answers[0]["prompts"])
        assert "secret-folder" not in json.dumps([*answers, server.said])


def test_the_rest_of_a_refused_body_is_not_awaited_for_ever(server, monkeypatch):
    monkeypatch.setattr(connection, "_SECONDS", 0.5)
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
        client.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
        client.sendall(b"Content-Length: 100000000\r\n\r\n{")
        assert answered(client)[0] == 413
        began = time.monotonic()
        gone = False
        while not gone and time.monotonic() - began < 20:
            try:
                client.sendall(b"x")
            except OSError:
                gone = True
            time.sleep(0.05)
        assert gone
        assert time.monotonic() - began < 10
