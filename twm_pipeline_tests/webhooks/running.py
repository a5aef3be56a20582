"""A receiver to send requests to, in a thread or in a process, and what it left on disk."""

from __future__ import annotations

import contextlib
import io
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twm_pipeline.records import SOURCES, Source
from twm_pipeline.settings import Settings, environment_of, load_settings
from twm_pipeline.spool import Envelope, Spool
from twm_pipeline.webhooks.server import build_server, listen
from twm_pipeline_tests.webhooks.deliveries import MISSIVE_SECRET, TEAMWORK_SECRET, Delivery

SECONDS = 30


def receiver_settings(folder: Path, **overrides: object) -> Settings:
    """Return settings without a database, with the secrets of the samples and nothing of the developer's."""
    ours: dict[str, Any] = {
        "_env_file": None,
        "twm_data_dir": folder / ".twm",
        "teamwork_webhook_secret": TEAMWORK_SECRET,
        "missive_webhook_secret": MISSIVE_SECRET,
        "allow_unsigned_webhooks": False,
        "disable_webhooks": False,
        "spool_dir": None,
        "spool_reserve_megabytes": 0,
        "log_level": "INFO",
    }
    return load_settings(**(ours | overrides))


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Receiver:
    """Where a receiver listens, and its settings."""

    settings: Settings
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> Connection:
        return Connection(self.port)

    def send(self, delivery: Delivery) -> Answer:
        with self.connect() as connection:
            return connection.ask(request_bytes(delivery))

    def kept(self, source: Source = "teamwork") -> list[Envelope]:
        """Return the deliveries in `new`, in order of arrival."""
        return kept(self.settings, source)


def kept(settings: Settings, source: Source = "teamwork") -> list[Envelope]:
    spool = Spool(settings.spool_folder, source)
    found = [spool.read(listed.name) for listed in spool.entries("new")]
    return [envelope for envelope in found if envelope is not None]


def nothing_is_kept(settings: Settings) -> bool:
    """Return whether there is no file in the whole spool."""
    return not [path for path in settings.spool_folder.rglob("*") if path.is_file()]


def all_kept(settings: Settings) -> list[Envelope]:
    return [envelope for source in SOURCES for envelope in kept(settings, source)]


def request_bytes(
    delivery: Delivery, *, method: str = "POST", version: str = "1.1", length: bool = True
) -> bytes:
    lines = [f"{method} {delivery.path} HTTP/{version}", "Host: receiver"]
    lines += [f"{name}: {value}" for name, value in delivery.headers.items()]
    lines += [f"Content-Length: {len(delivery.body)}"] * length
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + delivery.body


class Connection:
    """A raw connection: whatever bytes are wanted, and the answers one by one."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
        self.file = self.socket.makefile("rb")

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.socket.close()

    def ask(self, data: bytes) -> Answer:
        self.send(data)
        return self.answer()

    def send(self, data: bytes) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def answer(self) -> Answer:
        """Return the next answer; EOFError if the connection ends instead."""
        return read_answer(self.file)

    def is_closed(self) -> bool:
        """Wait for what comes next, and return whether it is the end."""
        try:
            return self.file.peek(1) == b""
        except ConnectionResetError:
            return True


def read_answer(file: io.BufferedReader) -> Answer:
    line = file.readline()
    if not line:
        raise EOFError
    headers = {}
    while header := file.readline().strip():
        name, _, value = header.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    return Answer(int(line.split()[1]), headers, file.read(int(headers.get("content-length", 0))))


@contextlib.contextmanager
def receiver_thread(settings: Settings, *, port: int = 0) -> Iterator[Receiver]:
    """Give a receiver in a thread of this process."""
    started = threading.Event()
    server = build_server(settings, on_start=started.set)
    listener = listen("127.0.0.1", port)
    port = listener.getsockname()[1]
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        assert started.wait(SECONDS)
        yield Receiver(settings, port)
    finally:
        server.should_exit = True
        thread.join(SECONDS)
        assert not thread.is_alive()


@contextlib.contextmanager
def receiver_process(
    settings: Settings, *, log: Path | None = None
) -> Iterator[tuple[Receiver, subprocess.Popen[bytes]]]:
    """Give a receiver in a process of its own."""
    settings = settings.model_copy(update={"app_port": free_port()})
    with contextlib.ExitStack() as stack:
        errors = stack.enter_context(log.open("wb")) if log is not None else None
        process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-W", "error", "-m", "twm_pipeline.webhooks"],
                env=environment_of(settings),
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        )
        stack.callback(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"Receiver  http://127.0.0.1:")
        yield Receiver(settings, settings.app_port), process


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
