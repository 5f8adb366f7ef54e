"""Servers for tests of push and pull: a real S3, and one that speaks as much of the Hub's protocol as they need."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import urlopen

from typer.testing import CliRunner

from promptpanda.cli.main import app


def panda(*arguments: object, code: int = 0) -> str:
    """Run a command; returns stdout."""
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == code, f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
    return result.stdout


def refused(*arguments: object) -> str:
    """Run a command that ends in exit code 2; returns its last sentence."""
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 2, f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
    sentence = result.stderr.strip().splitlines()[-1]
    assert sentence.startswith("panda: ")
    return sentence


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@contextmanager
def s3_server() -> Iterator[tuple[str, list[str]]]:
    """moto's S3 server on loopback: its address, and every request as 'METHOD /path', as it comes in."""
    from moto.server import ThreadedMotoServer
    from werkzeug.serving import WSGIRequestHandler

    requests: list[str] = []

    def note(self: Any, *_: Any, **__: Any) -> None:
        requests.append(f"{self.command} {unquote(urlsplit(self.path).path)}")

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    before, WSGIRequestHandler.log_request = WSGIRequestHandler.log_request, note
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        urlopen(f"http://{host}:{port}/moto-api/reset", data=b"").close()  # servers of one process share their state
        yield f"http://{host}:{port}", requests
    finally:
        server.stop()
        WSGIRequestHandler.log_request = before


class HubServer(ThreadingHTTPServer):
    """Repositories in memory: made, listed, read by file, and changed by commits.

    Attributes:
        files: by repository and path.
        requests: as 'METHOD /path'.
        private: of each repository that was made.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _HubHandler)
        self.files: dict[str, dict[str, bytes]] = {}
        self.requests: list[str] = []
        self.private: dict[str, bool] = {}
        self.commits: list[list[str]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def sha(self, repository: str) -> str:
        names = sorted((name, hashlib.sha1(data).hexdigest()) for name, data in self.files[repository].items())
        return hashlib.sha1(json.dumps(names).encode()).hexdigest()


class _HubHandler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None: ...

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        self.server.requests.append(f"{self.command} /{'/'.join(parts)}")
        if parts[:3] == ["api", "repos", "create"]:
            asked = json.loads(body)
            repository = f"{asked.get('organization')}/{asked['name']}"
            self.server.files.setdefault(repository, {})
            self.server.private[repository] = asked.get("visibility") == "private" or bool(asked.get("private"))
            self._json({"url": f"{self.server.address}/{repository}", "name": repository})
        elif parts[:2] == ["api", "validate-yaml"]:
            self._json({"errors": [], "warnings": []})
        elif parts[:2] == ["api", "models"] and len(parts) >= 4:
            self._api(f"{parts[2]}/{parts[3]}", parts[4:], body)
        elif len(parts) > 4 and parts[2] == "resolve":
            self._file(f"{parts[0]}/{parts[1]}", "/".join(parts[4:]))
        else:
            self._json({"error": "not here"}, 404)

    def _api(self, repository: str, rest: list[str], body: bytes) -> None:
        files = self.server.files.get(repository)
        if files is None:
            self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        elif not rest or rest[0] == "revision":
            self._json(
                {"id": repository, "sha": self.server.sha(repository), "siblings": [], "private": True, "tags": []}
            )
        elif rest[0] == "tree":
            self._json([self._entry(name, data) for name, data in sorted(files.items())])
        elif rest[0] == "preupload":
            asked = json.loads(body)["files"]
            self._json(
                {"files": [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in asked]}
            )
        elif rest[0] == "commit":
            lines = [json.loads(line) for line in body.splitlines() if line.strip()]
            changed = [line["value"] for line in lines if line["key"] == "file"]
            files |= {one["path"]: base64.b64decode(one["content"]) for one in changed}
            self.server.commits.append([one["path"] for one in changed])
            sha = self.server.sha(repository)
            self._json({"commitUrl": f"{self.server.address}/{repository}/commit/{sha}", "commitOid": sha})
        else:
            self._json({"error": "not here"}, 404)

    @staticmethod
    def _entry(name: str, data: bytes) -> dict[str, Any]:
        oid = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
        return {"type": "file", "path": name, "size": len(data), "oid": oid}

    def _file(self, repository: str, name: str) -> None:
        data = self.server.files.get(repository, {}).get(name)
        if data is None:
            self._json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
            return
        start, code = 0, 200
        if self.headers.get("Range"):
            start, code = int(self.headers["Range"].split("=")[1].split("-")[0]), 206
        headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": self.server.sha(repository)}
        if code == 206:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._send(data[start:], code, {**headers, "Content-Type": "application/octet-stream"})

    def _json(self, value: Any, code: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(json.dumps(value).encode(), code, {"Content-Type": "application/json", **(headers or {})})

    def _send(self, data: bytes, code: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@contextmanager
def hub_server() -> Iterator[HubServer]:
    server = HubServer()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
