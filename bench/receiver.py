"""Durable acknowledgements per second at 16 connections, beside one thread that writes equal files."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import orjson
import uvloop

from bench.report import Aim, Report, median, ratio
from bench.servers import measured, peak_bytes_of, scratch_folder
from twm_pipeline.settings import Settings, environment_of, load_settings
from twm_pipeline.spool import Spool

DELIVERIES = 5_000
BURST = 10_000
FILES = 2_000
ROUNDS = 3
CONNECTIONS = 16
WARM_UP = 200
SECONDS = 60
SECRET = "bench"  # noqa: S105 - no secret: nothing is asked
TEXT = "Sheets 1 to 4, please. " * 30
RATIO_AIM, RATE_AIM, FAST_DISK = 1.5, 1_500, 1_000
P99_AIM = 0.050


def run(*, scale: float = 1.0, rounds: int = ROUNDS) -> Report:
    """Return rates and latencies."""
    deliveries, files = max(int(DELIVERIES * scale), 50), max(int(FILES * scale), 20)
    burst = max(int(BURST * scale), 100)
    floor: list[float] = []
    loads: list[Load] = []
    with scratch_folder() as folder, receiver(folder) as place:
        post(place, first=1, count=WARM_UP)
        content = next(new_entries(place.settings)).read_bytes()
        for number in range(rounds):
            floor.append(write_files(folder / f"floor{number}", content, files))
            loads.append(post(place, first=(number + 1) * 10_000_000, count=deliveries))
        burst_load = post(place, first=1_000_000_000, count=burst)
        there = count_of(place.settings, range(1_000_000_000, 1_000_000_000 + burst))
        peak = peak_bytes_of(place.pid)
    return _report(floor, loads, burst_load, there=there, peak_bytes=peak, entry_bytes=len(content))


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A receiver that runs."""

    settings: Settings
    port: int
    pid: int


@contextmanager
def receiver(folder: Path) -> Iterator[Place]:
    """Give a receiver as `twm up` runs it: a process of its own, with its log in a file."""
    settings = load_settings(
        twm_data_dir=folder / "data",
        teamwork_webhook_secret=SECRET,
        app_port=_free_port(),
        disable_webhooks=False,
        spool_reserve_megabytes=1,
    )
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-m", "twm_pipeline.webhooks"],
            env=environment_of(settings),
            stdout=subprocess.PIPE,
            stderr=log,
        ) as process,
    ):
        try:
            if process.stdout is None or not process.stdout.readline():
                msg = f"The receiver did not start:\n{(folder / 'log').read_text()}"
                raise RuntimeError(msg)
            yield Place(settings=settings, port=settings.app_port, pid=process.pid)
        finally:
            process.terminate()
            process.wait(SECONDS)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_files(folder: Path, content: bytes, count: int) -> float:
    """Return how many files a second one thread makes durable: write, fsync, rename, fsync of the folder."""
    new = folder / "new"
    new.mkdir(parents=True)
    began = time.perf_counter()
    for number in range(count):
        path = folder / str(number)
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        os.write(file, content)
        os.fsync(file)
        os.close(file)
        path.rename(new / path.name)
        directory = os.open(new, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)
    return count / (time.perf_counter() - began)


@dataclass(slots=True, kw_only=True)
class Load:
    """What came of some deliveries: statuses, seconds of each, seconds of all."""

    statuses: Counter[int] = field(default_factory=Counter)
    waits: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Acknowledgements per second."""
        return self.statuses[200] / self.seconds

    def quantile(self, share: float) -> float:
        """Return the wait that *share* of the deliveries did not exceed, in seconds."""
        return sorted(self.waits)[min(int(share * len(self.waits)), len(self.waits) - 1)]


def post(place: Place, *, first: int, count: int) -> Load:
    """Send *count* deliveries from a process of its own, signed before the clock starts."""
    load, _ = measured(_post, place.port, first, count)
    return load


def _post(port: int, first: int, count: int) -> Load:
    requests = [request(number) for number in range(first, first + count)]
    return uvloop.run(_send_all(port, requests))


async def _send_all(port: int, requests: list[bytes]) -> Load:
    load = Load()
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    senders = [Sender(requests[n::CONNECTIONS], load, loop.create_future()) for n in range(CONNECTIONS)]
    for sender in senders:
        await loop.create_connection(sender.made, "127.0.0.1", port)
    await asyncio.gather(*(sender.done for sender in senders))
    load.seconds = time.perf_counter() - began
    return load


class Sender(asyncio.Protocol):
    """A connection that sends its requests one after the other."""

    def __init__(self, requests: Sequence[bytes], load: Load, done: asyncio.Future[None]) -> None:
        self._requests = iter(requests)
        self._load = load
        self.done = done
        self._sent = 0.0
        self._transport: asyncio.WriteTransport | None = None

    def made(self) -> Sender:
        """Return this: the loop asks for a factory."""
        return self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first."""
        self._transport = cast("asyncio.WriteTransport", transport)
        self._next()

    def data_received(self, data: bytes) -> None:
        """Note an answer and send the next; the words of a refusal may come as a second piece."""
        if not data.startswith(b"HTTP/1.1 "):
            return
        self._load.waits.append(time.perf_counter() - self._sent)
        self._load.statuses[int(data[9:12])] += 1
        self._next()

    def connection_lost(self, _: Exception | None) -> None:
        """Give up the rest."""
        if not self.done.done():
            self.done.set_result(None)

    def _next(self) -> None:
        request = next(self._requests, None)
        if self._transport is None or request is None:
            self.connection_lost(None)
            return
        self._sent = time.perf_counter()
        self._transport.write(request)


def request(number: int) -> bytes:
    """Return a delivery of Teamwork about the task *number*, as it goes over the wire."""
    task = {
        "id": number,
        "name": "Prepare drawings",
        "description": TEXT,
        "status": "new",
        "projectId": 501001,
    }
    body = orjson.dumps({"eventCreator": {"id": 301, "firstName": "Mara"}, "task": task})
    signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    head = (
        "POST /hooks/teamwork/task-updated HTTP/1.1\r\nHost: receiver\r\nUser-Agent: Teamwork\r\n"
        f"X-Projects-Signature: {signature}\r\nX-Projects-Event: TASK.UPDATED\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def new_entries(settings: Settings) -> Iterator[Path]:
    """Yield the files of accepted deliveries."""
    return (settings.spool_folder / "teamwork" / "new").iterdir()


def count_of(settings: Settings, numbers: range) -> int:
    """Return how many tasks of *numbers* have an entry that can be read."""
    spool = Spool(settings.spool_folder, "teamwork")
    envelopes = (spool.read(listed.name) for listed in spool.entries("new"))
    return len({e.hint.object_id for e in envelopes if e is not None} & {str(number) for number in numbers})


def _report(  # noqa: PLR0913 - everything that was measured
    floor: list[float], loads: list[Load], burst: Load, *, there: int, peak_bytes: int, entry_bytes: int
) -> Report:
    rate, base = median(load.rate for load in loads), median(floor)
    p99 = median(load.quantile(0.99) for load in loads)
    report = Report(
        name="receiver",
        title=f"Durable acknowledgements, {CONNECTIONS} connections, files of {entry_bytes:,} bytes",
        columns=("", "per second", "p50 ms", "p99 ms", "of one thread"),
        notes=[f"The receiver's highest resident memory: {peak_bytes / 1e6:.0f} MB."],
    )
    report.rows += [
        (f"one thread, round {n}", f"{value:,.0f}", "", "", "") for n, value in enumerate(floor, 1)
    ]
    report.rows += [_row(f"receiver, round {n}", load, base) for n, load in enumerate(loads, 1)]
    report.rows.append(_row(f"burst of {burst.statuses.total():,}", burst, base))
    fast = base > FAST_DISK
    aim = f"at least {RATE_AIM:,}/s" if fast else f"at least {RATIO_AIM} x one thread"
    report.aims += [
        Aim(
            text=f"acknowledgements, {aim}",
            measured=f"{rate:,.0f}/s, {ratio(rate, base)}",
            met=rate >= RATE_AIM if fast else rate >= RATIO_AIM * base,
        ),
        Aim(text=f"p99 at most {1000 * P99_AIM:.0f} ms", measured=f"{1000 * p99:.1f} ms", met=p99 <= P99_AIM),
        Aim(
            text="of the burst, all is acknowledged and there",
            measured=f"{burst.statuses[200]:,} acknowledged, {there:,} there",
            met=burst.statuses[200] == there == len(burst.waits),
        ),
    ]
    report.figures = {
        "one_thread_per_second": floor,
        "receiver_per_second": [load.rate for load in loads],
        "p50_seconds": [load.quantile(0.5) for load in loads],
        "p99_seconds": [load.quantile(0.99) for load in loads],
        "statuses": [{str(status): n for status, n in load.statuses.items()} for load in loads],
        "burst": {"per_second": burst.rate, "p99_seconds": burst.quantile(0.99), "there": there},
        "peak_bytes": peak_bytes,
    }
    return report


def _row(name: str, load: Load, base: float) -> tuple[str, ...]:
    times = (f"{1000 * load.quantile(share):.1f}" for share in (0.5, 0.99))
    return (name, f"{load.rate:,.0f}", *times, ratio(load.rate, base))
