"""Child processes: each in a group of its own, with its log in a file, and none left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from twm_pipeline.logs import open_log

STOP_SECONDS = 15.0
KILL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Child:
    """A process that this one started."""

    name: str
    process: subprocess.Popen[str]
    log: Path

    def log_end(self, lines: int = 12) -> str:
        """Return the last lines that it wrote."""
        written = self.log.read_text(errors="replace").splitlines()
        return "\n".join(written[-lines:]) or "(nothing)"


def start(  # noqa: PLR0913 - a process is described by these
    name: str,
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    logs: Path,
    cwd: Path | None = None,
    answers: bool = False,
) -> Child:
    """Start *command* with this Python, in a process group of its own.

    Args:
        name: For messages and the log's name.
        command: Words after the interpreter.
        env: The whole environment.
        logs: The folder of the log.
        cwd: Where it runs.
        answers: Whether it is talked to by standard input and output; else its output goes to the log too.
    """
    log = logs / f"{name}.log"
    with open_log(log) as file:
        process = subprocess.Popen(  # noqa: S603 - our own modules
            [sys.executable, *command],
            stdin=subprocess.PIPE if answers else subprocess.DEVNULL,
            stdout=subprocess.PIPE if answers else file,
            stderr=file,
            text=True,
            env=dict(env),
            cwd=cwd,
            process_group=0,
        )
    return Child(name, process, log)


def stop(children: Sequence[Child], *, seconds: float = STOP_SECONDS) -> list[str]:
    """End *children* and whatever they started: SIGINT, then SIGTERM, then SIGKILL.

    Returns:
        Names of those that had to be killed.
    """
    groups = [child.process.pid for child in children]
    for number, patience in (
        (signal.SIGINT, seconds),
        (signal.SIGTERM, KILL_SECONDS),
        (signal.SIGKILL, KILL_SECONDS),
    ):
        alive = [pid for pid in groups if _group_lives(pid)]
        if not alive:
            return []
        killed = [child.name for child in children if child.process.pid in alive]
        for pid in alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, number)
        _wait_for(children, groups, patience)
    return killed


def _wait_for(children: Sequence[Child], groups: Sequence[int], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for child in children:
            child.process.poll()  # a child that nobody waits for stays in its group as a zombie
        if not any(_group_lives(pid) for pid in groups):
            return
        time.sleep(0.05)


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextlib.contextmanager
def stopped_at_the_end(children: list[Child]) -> Iterator[None]:
    """End every process in *children*, also those added meanwhile, when the block ends."""
    try:
        yield
    finally:
        with _deaf_to_interrupts():
            stop(children)


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Let nobody's second Ctrl-C leave processes behind."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
