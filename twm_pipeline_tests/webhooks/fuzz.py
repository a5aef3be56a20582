"""`python -m twm_pipeline_tests.webhooks.fuzz --requests 100000`: hostile requests to receiver and parsers.

The receiver is a process of its own; requests go over real connections. Afterwards the answers, its log and
all files it could have written are looked at.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from twm_pipeline.errors import DeliveryError
from twm_pipeline.settings import Settings
from twm_pipeline.sources import missive_deliveries, teamwork_deliveries
from twm_pipeline.spool import Spool
from twm_pipeline.webhooks.secrets import HookSecrets
from twm_pipeline_tests.webhooks.deliveries import load_samples
from twm_pipeline_tests.webhooks.mutations import SECRETS, Mutator, Request
from twm_pipeline_tests.webhooks.running import receiver_process, receiver_settings

WORKERS = 8
ANSWER_SECONDS = 30
EXPECTED = frozenset({200, 400, 401, 404, 405, 413, 415, 431})


@dataclass
class Outcome:
    """What came back: statuses counted (0: the connection ended without an answer), and what is wrong."""

    statuses: collections.Counter[int] = field(default_factory=collections.Counter)
    stored: int = 0
    problems: list[str] = field(default_factory=list)

    def note(self, request: Request, status: int, body: bytes) -> None:
        self.statuses[status] += 1
        self.stored += status == 200 and body == b""
        if status not in EXPECTED | {0, 100}:
            self.problems.append(f"status {status}: {request.data[:300]!r}")
        if status == 200 and request.is_authentic is False:
            self.problems.append(f"accepted without authenticity: {request.data[:300]!r}")
        if status == 0 and request.is_whole:
            self.problems.append(f"no answer: {request.data[:300]!r}")


class Sender:
    """Sends the requests of one mutator, on one connection as long as it lasts."""

    def __init__(self, port: int, mutator: Mutator, outcome: Outcome) -> None:
        self._port = port
        self._mutator = mutator
        self._outcome = outcome
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def run(self, count: int) -> None:
        for _ in range(count):
            request = self._mutator.request()
            async with asyncio.timeout(ANSWER_SECONDS):
                status, body = await self._ask(request)
            self._outcome.note(request, status, body)
        self._drop()

    async def _ask(self, request: Request) -> tuple[int, bytes]:
        """Return the answer; 0 if the connection ends without one."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 22)
        reader, writer = self._streams
        try:
            writer.write(request.data)
            if not request.is_whole:
                writer.write_eof()  # else both sides might wait for the other one
            status, headers = await _read_head(reader)
            body = await reader.readexactly(int(headers.get("content-length", 0)))
        except (ConnectionError, asyncio.IncompleteReadError):
            self._drop()
            return 0, b""
        if not request.is_whole or headers.get("connection") == "close" or status == 413:
            self._drop()
        return status, body

    def _drop(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    pairs = (line.partition(": ") for line in lines[1:] if line)
    return int(lines[0].split()[1]), {name.lower(): value for name, _, value in pairs}


def secret_paths(settings: Settings) -> list[str]:
    return [f"/hooks/missive/{token}" for token in HookSecrets.load(settings).missive_paths.values()]


def fuzz_receiver(folder: Path, *, requests: int, seed: int) -> Outcome:
    """Send *requests* to a new receiver in *folder*, and return what is wrong, if anything."""
    settings = receiver_settings(folder)
    log = folder / "log"
    outcome = Outcome()
    with receiver_process(settings, log=log) as (receiver, process):
        asyncio.run(_send_all(receiver.port, settings, outcome, requests=requests, seed=seed))
        if process.poll() is not None:
            outcome.problems.append(f"the receiver ended with {process.returncode}")
        process.terminate()
        process.wait(ANSWER_SECONDS)
    outcome.problems += _look_at_files(folder, settings, outcome)
    outcome.problems += _look_at_log(log.read_text(errors="replace"), settings)
    return outcome


async def _send_all(port: int, settings: Settings, outcome: Outcome, *, requests: int, seed: int) -> None:
    samples, paths = load_samples(), secret_paths(settings)
    mutators = [Mutator(seed * WORKERS + n, samples=samples, secret_paths=paths) for n in range(WORKERS)]
    await asyncio.gather(
        *(Sender(port, mutator, outcome).run(-(-requests // WORKERS)) for mutator in mutators)
    )


def _look_at_files(folder: Path, settings: Settings, outcome: Outcome) -> list[str]:
    """Return what is wrong: a file at another place, an entry that cannot be read, one that is missing."""
    problems = []
    readable = 0
    for source in ("teamwork", "missive"):
        spool = Spool(settings.spool_folder, source)
        names = {listed.name for listed in spool.entries("new")}
        readable += sum(spool.read(name) is not None for name in names)
        files = {path.name for path in (settings.spool_folder / source).rglob("*") if path.is_file()}
        problems += [f"not an entry: {source}/{name}" for name in files - names]
    kept = ("hooks.json", "hooks.json.lock", "receiver.json")
    ours = {folder / "log", *(settings.twm_data_dir / name for name in kept)}
    outside = [
        path for path in folder.rglob("*") if path.is_file() and settings.spool_folder not in path.parents
    ]
    problems += [f"outside the spool: {path}" for path in outside if path not in ours]
    if readable < outcome.stored:
        problems.append(f"{outcome.stored} were acknowledged, {readable} are there")
    return problems


def _look_at_log(text: str, settings: Settings) -> list[str]:
    hidden = [
        *SECRETS,
        *HookSecrets.load(settings).missive_paths.values(),
        "Prepare foundation",
        "Anna Linde",
    ]
    problems = [
        f"in the log: {word}" for word in ("Traceback", "Exception", "ERROR", *hidden) if word in text
    ]
    if len(text.splitlines()) > 100 + text.count(" INFO "):
        problems.append("the log was flooded")
    return problems


def fuzz_parsers(*, calls: int, seed: int) -> int:
    """Give both parsers hostile bodies; return how many were understood. Anything but a refusal raises."""
    mutator = Mutator(seed, samples=load_samples(), secret_paths=["/hooks/missive/x"])
    understood = 0
    for _ in range(calls):
        delivery = mutator.delivery()
        headers = {name.lower(): value for name, value in delivery.headers.items()}
        for parse in (teamwork_deliveries.parse_delivery, missive_deliveries.parse_delivery):
            try:
                hint = parse(path_event=delivery.path.rpartition("/")[2], headers=headers, body=delivery.body)
            except DeliveryError as error:
                if error.status not in (400, 415):
                    raise
            else:
                understood += hint is not None
    return understood


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m twm_pipeline_tests.webhooks.fuzz", description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        outcome = fuzz_receiver(Path(folder), requests=given.requests, seed=given.seed)
    sys.stdout.write(
        f"{outcome.statuses.total()} requests with seed {given.seed} in {time.monotonic() - began:.0f} s:"
        f" {dict(sorted(outcome.statuses.items()))}; {outcome.stored} stored\n"
    )
    understood = fuzz_parsers(calls=given.requests, seed=given.seed)
    sys.stdout.write(
        f"{given.requests} bodies to both parsers: {understood} understood, the others refused\n"
    )
    sys.stdout.writelines(f"{problem}\n" for problem in outcome.problems[:50])
    sys.exit(bool(outcome.problems))


if __name__ == "__main__":
    main()
