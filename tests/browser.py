"""A real browser without a window, driven over its debugging protocol."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

from tornado.websocket import WebSocketClientConnection, websocket_connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
_FLAGS += ["--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0"]


class Browser:
    """One page. `problems` are what it complained of: errors of scripts, and what its policy forbade."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM is not None
        command = [CHROMIUM, *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._loop = asyncio.new_event_loop()
        self._number = 0
        self.problems: list[str] = []
        port = self._port(profile / "DevToolsActivePort")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
            page = next(one for one in json.load(answer) if one["type"] == "page")
        self._socket: WebSocketClientConnection = self._loop.run_until_complete(
            self._connect(page["webSocketDebuggerUrl"])
        )
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    async def _connect(self, url: str) -> WebSocketClientConnection:
        return await websocket_connect(url, max_message_size=2**28)

    def _port(self, file: Path) -> str:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if file.exists() and (text := file.read_text()):
                return text.split()[0]
            time.sleep(0.05)
        raise TimeoutError("the browser did not start")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One call of the protocol."""
        return self._loop.run_until_complete(asyncio.wait_for(self._call(method, parameters), 120))

    async def _call(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        await self._socket.write_message(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(await self._socket.read_message())
            if message.get("method") == "Log.entryAdded" and message["params"]["entry"]["source"] != "network":
                self.problems.append(message["params"]["entry"]["text"])
            if message.get("method") == "Runtime.exceptionThrown":
                self.problems.append(str(message["params"]["exceptionDetails"]))
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]

    def size(self, width: int, height: int = 900) -> None:
        """The screen of a telephone, or of a desk."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def go(self, url: str) -> None:
        """Open an address, and wait until it is there."""
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def texts(self, selector: str) -> list[str]:
        """The text of all elements that a selector finds."""
        found: list[str] = self.run(
            f"[...document.querySelectorAll({json.dumps(selector)})].map(one => one.textContent)"
        )
        return found

    def focus(self, selector: str) -> None:
        """Give an element the focus."""
        self.run(f"document.querySelector({json.dumps(selector)}).focus()")

    def until(self, condition: str, seconds: float = 60) -> None:
        """Wait for an expression in the page to become true."""
        end = time.monotonic() + seconds
        while not self.run(f"Boolean({condition})"):
            if time.monotonic() > end:
                raise TimeoutError(condition)
            time.sleep(0.05)

    def key(self, name: str, text: str = "") -> None:
        """Press a key: Tab, Enter, Space."""
        code = {"Tab": 9, "Enter": 13, " ": 32}[name]
        both = {"key": name, "code": "Space" if name == " " else name, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **both)
        self.call("Input.dispatchKeyEvent", type="keyUp", **both)

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.call("Input.insertText", text=text)

    def picture(self, path: Path) -> None:
        """The whole page as PNG."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(30)
        self._loop.close()
