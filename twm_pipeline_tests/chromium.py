"""A headless Chromium that a test drives through its DevTools protocol."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests
from websockets.sync.client import ClientConnection, connect

START_TICKS = 1200
TICK_SECONDS = 0.05
SECONDS = 30
NEVER = threading.Event()
COMMAND = (
    *("chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--hide-scrollbars", "--remote-debugging-port=0", "--no-first-run", "about:blank"),
)


class Tab:
    """One page of the browser.

    Args:
        socket: Its debugger.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.complaints: list[str] = []
        """What the browser refused or could not load."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while (message := self._receive()).get("id") != number:
            continue
        assert "error" not in message, message
        return dict(message["result"])

    def _receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._socket.recv(timeout=SECONDS))
        if message.get("method") == "Log.entryAdded":
            self.complaints.append(message["params"]["entry"]["text"])
        return message

    def open(self, url: str, *, header: dict[str, str] | None = None) -> None:
        """Load a page and wait until it is there."""
        self.call("Network.setExtraHTTPHeaders", headers=header or {})
        self.call("Page.navigate", url=url)
        while self._receive().get("method") != "Page.loadEventFired":
            continue

    def ask(self, expression: str) -> Any:
        """Return the value of a JavaScript expression; a promise is waited for."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Return once a JavaScript condition holds."""
        for _ in range(START_TICKS):
            if self.ask(condition):
                return
            NEVER.wait(TICK_SECONDS)
        raise AssertionError(condition)

    def press(self, key: str) -> None:
        """Press a key such as `Tab`."""
        code = {"Tab": 9, "Enter": 13}[key]
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def use(self, *, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
        """Be a window of this size, of a person who prefers *scheme*."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def photograph(self, file: Path) -> None:
        """Keep a picture of the whole page."""
        picture = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(picture["data"]))


@contextlib.contextmanager
def chromium(folder: Path) -> Iterator[Tab]:
    """Give a tab of a browser whose profile is in *folder*."""
    with subprocess.Popen(
        [*COMMAND, f"--user-data-dir={folder}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            opened = requests.put(
                f"http://127.0.0.1:{_port(folder, process)}/json/new?about:blank", timeout=SECONDS
            )
            address = opened.json()["webSocketDebuggerUrl"]
            with connect(address, max_size=None) as socket:
                yield Tab(socket)
        finally:
            process.terminate()


def _port(folder: Path, process: subprocess.Popen[bytes]) -> int:
    for _ in range(START_TICKS):
        assert process.poll() is None, "Chromium ended"
        with contextlib.suppress(FileNotFoundError, IndexError):
            return int((folder / "DevToolsActivePort").read_text().split()[0])
        NEVER.wait(TICK_SECONDS)
    raise TimeoutError
