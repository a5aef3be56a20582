"""The receiver as a process: uvicorn, with guards against senders that are slow, many or endless.

httptools bounds neither the size of a request's head nor the time that a request takes, and uvicorn closes
connections only between two requests; both are done here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
from collections.abc import Callable, Iterator
from enum import Enum, auto
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from twm_pipeline.errors import ConfigError, place_of
from twm_pipeline.webhooks.receiver import Receiver, answer
from twm_pipeline.webhooks.refusals import Refusals

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from twm_pipeline.settings import Settings

MOST_HEAD_BYTES = 16 << 10
REQUEST_SECONDS = 10.0
"""For the head of a request, and again for its body, however many bytes trickle in meanwhile."""
MOST_CONNECTIONS = 200
"""So many requests are taken at once, further ones answered 503; twice as many connections are held."""
MOST_PIPELINED = 100
"""Requests of one connection that wait for their turn; uvicorn would queue as many as are sent."""
STOP_SECONDS = 8
LINGER_SECONDS = 2.0
TICKS_PER_SWEEP = 10
FIELD_EXTRA_BYTES = 4
"""Around name and value of a header: colon, space, end of line."""


class Phase(Enum):
    """What the next byte of a connection belongs to."""

    IDLE = auto()
    HEAD = auto()
    BODY = auto()


class RefusedError(Exception):
    """Raised through the parser to stop it.

    Args:
        status: What the sender is answered.
    """

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


class GuardedProtocol(HttpToolsProtocol):
    """One connection, with bounds on the heads of its requests and on their time."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - whatever uvicorn hands over
        super().__init__(*args, **kwargs)
        self.refusals: Refusals = self.app_state["refusals"]
        self._receiver_app = self.app
        self._answered: RequestResponseCycle | None = None
        self._phase = Phase.IDLE
        self._head_bytes = 0
        self._pieces_bytes = 0
        self._is_deaf = False
        self.deadline = self.loop.time() + REQUEST_SECONDS
        self._stuck_since = math.inf

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Begin; of far too many, the one goes that has been waited for longest, and not who comes last."""
        super().connection_made(transport)
        if len(self.connections) > 2 * MOST_CONNECTIONS:
            idle = [item for item in self._others() if not item.is_at_work]
            min(idle, key=lambda item: item.deadline, default=self).cut_off()

    def cut_off(self) -> None:
        """End the connection at once."""
        self._is_deaf = True
        self.deadline = math.inf
        self.transport.abort()

    def _others(self) -> list[GuardedProtocol]:
        return [item for item in self.connections if isinstance(item, GuardedProtocol) and item is not self]

    @property
    def is_at_work(self) -> bool:
        """Whether a request with a complete head is being read or answered."""
        cycle: RequestResponseCycle | None = self.cycle
        return self._phase is Phase.BODY or (cycle is not None and not cycle.response_complete)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let every request know, and not only the last one, that nobody waits for its answer."""
        super().connection_lost(exc)
        for cycle, _ in (*self.pipeline, (self._answered, None)):
            if cycle is not None:
                cycle.disconnected = True
        self.pipeline.clear()

    def data_received(self, data: bytes) -> None:
        """Read on; what is no HTTP, or too much of it, is refused."""
        if self._is_deaf:
            return
        unfinished = self.scope if self._phase is Phase.HEAD else None
        if self.deadline == math.inf:
            self.deadline = self.loop.time() + REQUEST_SECONDS
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
            if self._phase is Phase.HEAD and self.scope is unfinished:
                self._pieces_bytes += len(data)
                _check_head(self._pieces_bytes)
        except RefusedError as error:
            self._refuse(error.status)
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause.status if isinstance(cause, RefusedError) else HTTPStatus.BAD_REQUEST)

    def on_message_begin(self) -> None:
        """Begin to count."""
        super().on_message_begin()
        self._phase, self._head_bytes, self._pieces_bytes = Phase.HEAD, 0, 0
        self.deadline = self.loop.time() + REQUEST_SECONDS

    def on_url(self, url: bytes) -> None:
        """Count a piece of the target."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header, also one behind a chunked body."""
        self._count(len(name) + len(value) + FIELD_EXTRA_BYTES)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the application, or that of a busy server; the body has its own time."""
        if self.parser.should_upgrade():
            raise RefusedError(HTTPStatus.BAD_REQUEST)  # the parser skips the body, which must not be lost
        if len(self.pipeline) >= MOST_PIPELINED:
            raise RefusedError(HTTPStatus.TOO_MANY_REQUESTS)
        self.app = _busy if self._are_too_many() else self._receiver_app
        super().on_headers_complete()
        self._phase = Phase.BODY
        self.deadline = self.loop.time() + REQUEST_SECONDS

    def _are_too_many(self) -> bool:
        """Return whether others are at work on as many requests as are taken at once."""
        if len(self.connections) <= MOST_CONNECTIONS:
            return False
        return sum(item.is_at_work for item in self._others()) >= MOST_CONNECTIONS

    def on_message_complete(self) -> None:
        """Let the application take its time."""
        super().on_message_complete()
        self._phase, self.deadline = Phase.IDLE, math.inf

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:  # noqa: ANN401 - as uvicorn's own
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def close_if_late(self, now: float) -> None:
        """End the connection if its time is over; while we do not read, it is not the client who is late."""
        is_stuck = self.transport.is_closing() or self.flow.write_paused  # answers that nobody fetches
        self._stuck_since = min(self._stuck_since, now) if is_stuck else math.inf
        if now - self._stuck_since > REQUEST_SECONDS or (self._is_deaf and now > self.deadline):
            self.transport.abort()
        elif now > self.deadline and not self.flow.read_paused:
            if self._phase is Phase.IDLE:
                self.transport.close()
            else:
                self._refuse(HTTPStatus.REQUEST_TIMEOUT)

    def _count(self, size: int) -> None:
        self._head_bytes += size
        _check_head(self._head_bytes)

    def _refuse(self, status: HTTPStatus) -> None:
        """Answer the request that is being read with *status*, and end the connection."""
        self.refusals.note(status, status.phrase)
        cycle: RequestResponseCycle | None = self.cycle
        if self._phase is not Phase.BODY and cycle is not None and not cycle.response_complete:
            # It would be taken for the answer to an earlier request, which is still to come.
            self._is_deaf, self.deadline, cycle.keep_alive = True, math.inf, False
            return
        self._is_deaf = True
        self.deadline = self.loop.time() + LINGER_SECONDS
        if self._phase is Phase.BODY and cycle is not None:
            if cycle.response_started or self.pipeline:
                self.transport.close()
                return
            cycle.disconnected = True
            cycle.message_event.set()
        self._write_refusal(status)

    def _write_refusal(self, status: HTTPStatus) -> None:
        """Write an answer and its end; closing at once would destroy it on its way to one who sends."""
        head = f"HTTP/1.1 {status} {status.phrase}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        self.transport.write(head.encode())
        self.transport.write_eof()


def _check_head(size: int) -> None:
    if size > MOST_HEAD_BYTES:
        raise RefusedError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)


async def _busy(scope: Scope, _: Receive, send: Send) -> None:
    """Answer in the place of the receiver while there are too many connections."""
    scope["state"]["refusals"].note(503, "too many connections")
    await answer(send, 503, b"come again")


class Server(uvicorn.Server):
    """A server that says when it listens, ends slow connections, and exits with 0 when it was told to.

    Args:
        config: uvicorn's settings.
        on_start: Called once connections are accepted.
    """

    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then say so."""
        await super().startup(sockets=sockets)
        if self.started:
            self._on_start()

    async def on_tick(self, counter: int) -> bool:
        """Look for slow connections once a second."""
        if counter % TICKS_PER_SWEEP == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                if isinstance(connection, GuardedProtocol):
                    connection.close_if_late(now)
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on SIGINT and SIGTERM, and leave it at that: uvicorn would raise them again afterwards."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()


def listen(
    host: str,
    port: int,
    *,
    who: str = "receiver",
    advice: str = "APP_HOST and APP_PORT, or --host and --port",
) -> socket.socket:
    """Return a socket that listens.

    Args:
        host: The address.
        port: Its port; 0: any.
        who: Wants it, for the error.
        advice: What to set instead.

    Raises:
        ConfigError: If the port is taken, or the address none of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        msg = (
            f"The {who} cannot listen on port {port} of {host}: {error.strerror}."
            f" Choose others with {advice}."
        )
        raise ConfigError(msg) from error


def build_server(settings: Settings, *, on_start: Callable[[], None] = lambda: None) -> Server:
    """Return a server to be run on a listening socket.

    Args:
        settings: Of the deployment.
        on_start: Called once connections are accepted.

    Raises:
        ConfigError: If webhooks are switched off, or their secrets cannot be used.
    """
    if settings.disable_webhooks:
        msg = "DISABLE_WEBHOOKS is true: there is nothing to receive. The vendors are polled instead."
        raise ConfigError(msg)
    config = uvicorn.Config(
        Receiver(settings).app(),
        http=GuardedProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    logging.getLogger("uvicorn.error").addFilter(drop_traceback)
    return Server(config, on_start)


def drop_traceback(record: logging.LogRecord) -> bool:
    """Keep of an exception its class and place: its text may hold what was sent."""
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        record.msg = f"{record.getMessage().strip()}: {place_of(error)}"
        record.args, record.exc_info, record.exc_text = (), None, None
    return True
