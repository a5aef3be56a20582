"""A server on the loopback that answers from a list, and keeps what it was asked."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

SAMPLES = Path(__file__).parents[1] / "samples" / "airtable"


def sample(name: str) -> bytes:
    """Return a recorded answer."""
    return (SAMPLES / f"{name}.json").read_bytes()


@dataclass
class Answer:
    """What is sent: *missing_bytes* of the body are announced and left out, *reset* breaks the connection."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    missing_bytes: int = 0
    reset: bool = False


@dataclass
class Asked:
    """What a request was."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: Any


@dataclass
class Replay:
    """The server; its last answer is repeated."""

    url: str = ""
    answers: list[Answer] = field(default_factory=list)
    requests: list[Asked] = field(default_factory=list)

    def says(self, *answers: Answer | bytes) -> None:
        """Set the next answers."""
        self.answers = [it if isinstance(it, Answer) else Answer(body=it) for it in answers]

    def take(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        parts = urlsplit(handler.path)
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        self.requests.append(
            Asked(
                method=handler.command,
                path=parts.path,
                query=parse_qs(parts.query),
                headers=dict(handler.headers.items()),
                body=json.loads(body) if body else None,
            )
        )
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        handler.close_connection = True
        if answer.reset:
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0] + [0] * 4))
            handler.connection.close()
            return
        handler.send_response_only(answer.status)
        length = str(len(answer.body) + answer.missing_bytes)
        for name, value in {"Content-Length": length, **answer.headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(answer.body)


@contextmanager
def replaying() -> Iterator[Replay]:
    """Run a server."""
    replay = Replay(answers=[Answer()])

    class Handler(BaseHTTPRequestHandler):
        def handle_one_request(self) -> None:
            self.raw_requestline = self.rfile.readline()
            if self.raw_requestline and self.parse_request():
                replay.take(self)
            else:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    replay.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield replay
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
