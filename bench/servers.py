"""The other ends of a benchmark, each in a process of its own: PostgreSQL, the sandbox, a server of bytes."""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from sqlalchemy import URL, Engine

from twm_pipeline.db import EmbeddedServer, open_engine
from twm_pipeline.mirror.schema import migrate
from twm_pipeline.sandbox import SandboxOptions, serve

P = ParamSpec("P")
T = TypeVar("T")

SPAWN = multiprocessing.get_context("spawn")
START_SECONDS = 600.0
LENGTH_BYTES = 8
OPTIONS: dict[str, str] = {}
"""PostgreSQL's settings beside the product's own; none, so that figures are those of a deployment."""


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Give a folder that goes away afterwards; as root the database server runs as another account."""
    folder = Path(tempfile.mkdtemp(prefix="twm-bench-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def server() -> Iterator[EmbeddedServer]:
    """Give an embedded PostgreSQL with the product's own settings: fsync on, nothing tuned."""
    with scratch_folder() as folder:
        embedded = EmbeddedServer(folder / "postgres", options=OPTIONS)
        embedded.start()
        try:
            yield embedded
        finally:
            embedded.stop()


@contextmanager
def mirror(embedded: EmbeddedServer, name: str) -> Iterator[Engine]:
    """Give an engine on a new database with the product's tables."""
    engine = open_engine(mirror_url(embedded, name))
    try:
        migrate(engine)
        yield engine
    finally:
        engine.dispose()


def mirror_url(embedded: EmbeddedServer, name: str) -> URL:
    """Return the address of a database, made if need be."""
    embedded.create_database(name)
    return embedded.url(name)


@contextmanager
def child_process(target: Callable[..., None], *arguments: object) -> Iterator[Any]:
    """Run *target* in a process, give what it sends through the pipe it gets first, and end it afterwards."""
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=target, args=(theirs, *arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(START_SECONDS):
            msg = f"{target.__name__} did not start in {START_SECONDS:.0f} s"
            raise TimeoutError(msg)
        yield ours.recv()
    finally:
        process.terminate()
        process.join()


@contextmanager
def sandbox(options: SandboxOptions) -> Iterator[dict[str, Any]]:
    """Give the addresses and keys of a sandbox that runs in a process of its own."""
    with child_process(_serve_sandbox, options) as description:
        yield description


def _serve_sandbox(pipe: Connection, options: SandboxOptions) -> None:
    serve(options, pipe.send)


@contextmanager
def bytes_server(path: Path) -> Iterator[str]:
    """Give the address of a server that answers `/n` with the n-th body stored in *path*."""
    with child_process(_serve_bytes, path) as url:
        yield url


def append_body(file: Any, body: bytes) -> None:  # noqa: ANN401 - any binary file
    """Add a body to a file for `bytes_server`."""
    file.write(len(body).to_bytes(LENGTH_BYTES, "big") + body)


def _bodies(path: Path) -> list[bytes]:
    data = path.read_bytes()
    bodies, place = [], 0
    while place < len(data):
        length = int.from_bytes(data[place : place + LENGTH_BYTES], "big")
        place += LENGTH_BYTES
        bodies.append(data[place : place + length])
        place += length
    return bodies


def _serve_bytes(pipe: Connection, path: Path) -> None:
    bodies = _bodies(path)

    class Handler(BaseHTTPRequestHandler):
        """Answers with a stored body and nothing else."""

        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            body = bodies[int(self.path[1:])]
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            self.wfile.write(head.encode() + body)

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    pipe.send(f"http://127.0.0.1:{listener.server_address[1]}")
    listener.serve_forever()


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a child process used: seconds of CPU and of time, and its highest resident memory in bytes."""

    cpu_seconds: float
    seconds: float
    peak_bytes: int


def measured(work: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> tuple[T, Usage]:
    """Run *work* alone in a fresh process and return its result with what it used, imports not counted."""
    with ProcessPoolExecutor(max_workers=1, mp_context=SPAWN) as pool:
        return pool.submit(_run, work, arguments, options).result()


def _run(work: Callable[..., T], arguments: tuple[Any, ...], options: dict[str, Any]) -> tuple[T, Usage]:
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    result = work(*arguments, **options)
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return result, Usage(cpu_seconds=cpu, seconds=time.monotonic() - began, peak_bytes=_peak_bytes())


def _peak_bytes() -> int:
    """Return the highest resident memory of this process.

    Linux hands `ru_maxrss` of the parent down to a new program, so its own figure is read where there is one.
    """
    if Path("/proc/self/status").exists():
        return peak_bytes_of(os.getpid())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def peak_bytes_of(pid: int) -> int:
    """Return the highest resident memory of another process; 0 where the system does not tell."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return 0
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
