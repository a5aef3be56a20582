"""The wire between a process and PostgreSQL: every statement is seen, and a death can be placed at it."""

from __future__ import annotations

import contextlib
import itertools
import re
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from sqlalchemy import URL

CHUNK_BYTES = 1 << 20
HOST = "127.0.0.1"
_TEXT = re.compile(rb"Q....([^\0]*)|P....[^\0]*\0([^\0]*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Said:
    """What a client sends at once, which is one statement: it waits for each answer.

    Args:
        connection: Number of its connection.
        text: The statement; empty for rows of a COPY and for one that was prepared before.
    """

    connection: int
    text: str


def _nothing(_: Said) -> None:
    """Let it pass."""


@dataclass
class Wire:
    """Carries bytes between clients and a server.

    Args:
        url: The database behind the wire.
        before: Told of a statement before the server hears it; `ConnectionError` cuts the wire there.
        after: Told of it when the server has answered, before the client hears that; likewise.
    """

    url: URL
    before: Callable[[Said], None] = _nothing
    after: Callable[[Said], None] = _nothing
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @contextlib.contextmanager
    def open(self) -> Iterator[URL]:
        """Give the database's address at this end of the wire."""
        with socket.create_server((HOST, 0)) as listener:
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
            yield self.url.set(host=HOST, port=listener.getsockname()[1])
            listener.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the block is over
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        number = next(self._numbers)
        server = socket.create_connection((str(self.url.host), int(self.url.port or 0)))
        unanswered: list[Said] = []
        back = threading.Thread(target=self._carry_back, args=(server, client, unanswered), daemon=True)
        back.start()
        with client, server:
            with contextlib.suppress(OSError):
                while data := client.recv(CHUNK_BYTES):
                    said = Said(number, statement_in(data))
                    self.before(said)
                    unanswered.append(said)
                    server.sendall(data)
            _hang_up(server)
            back.join()

    def _carry_back(self, server: socket.socket, client: socket.socket, unanswered: list[Said]) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(CHUNK_BYTES):
                while unanswered:
                    self.after(unanswered.pop(0))
                client.sendall(data)
        _hang_up(client)


def _hang_up(end: socket.socket) -> None:
    """Tell the other end that this connection is over, also while a thread reads from it."""
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


def statement_in(data: bytes) -> str:
    """Return the statement with which *data* begins, if it does."""
    found = _TEXT.match(data)
    return " ".join((found[1] or found[2] or b"").decode(errors="replace").split()) if found else ""
