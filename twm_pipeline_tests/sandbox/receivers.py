"""A subscriber on loopback that keeps what it gets and answers as it is told."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

Answer = Callable[["Received"], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    path: str
    headers: dict[str, str]
    body: bytes


class Server(ThreadingHTTPServer):
    request_queue_size = 128  # Five by default: a burst would wait for the kernel to try again.


class Receiver:
    """Answers `answer(received)`: a status, 200 unless told otherwise."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.answer: Answer = lambda _: 200
        self.release = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                got = Received(path=self.path, headers=headers, body=body)
                status = receiver.answer(got)
                receiver.received.append(got)
                if status:
                    self.send_response(status)
                    self.send_header("Location", f"{receiver.url}/elsewhere")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                else:
                    receiver.release.wait(10)

            def log_message(self, *_: object) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def statuses(self, *statuses: int) -> None:
        """Answer with these, one after the other, and with 200 from then on."""
        left = list(statuses)
        self.answer = lambda _: left.pop(0) if left else 200
