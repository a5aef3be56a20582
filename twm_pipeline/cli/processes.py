"""Child processes: each in a group of its own, with its log in a file, and none left behind."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from twm_pipeline.cli import watchman
from twm_pipeline.cli.watchman import STOP_SECONDS, end_groups
from twm_pipeline.logs import open_log


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
    _WATCHMAN.watch(process.pid)
    return Child(name, process, log)


def stop(children: Sequence[Child], *, seconds: float = STOP_SECONDS) -> list[str]:
    """End *children* and whatever they started: SIGINT, then SIGTERM, then SIGKILL.

    Returns:
        Names of those that had to be killed.
    """
    groups = [child.process.pid for child in children]
    killed = end_groups(groups, seconds=seconds, reap=lambda: [child.process.poll() for child in children])
    for group in groups:
        _WATCHMAN.forget(group)
    return [child.name for child in children if child.process.pid in killed]


class _Watchman:
    """Another process that ends our children should this one be killed; it lives while there are any."""

    def __init__(self) -> None:
        self._groups: set[int] = set()
        self._process: subprocess.Popen[str] | None = None

    def watch(self, group: int) -> None:
        """Have *group* ended when this process is gone."""
        if self._process is None:
            self._process = subprocess.Popen(  # noqa: S603 - our own file
                [sys.executable, "-I", "-S", watchman.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                text=True,
                env={},
                cwd="/",
                start_new_session=True,
            )
        self._groups.add(group)
        self._tell(group)

    def forget(self, group: int) -> None:
        """Leave *group* alone: it has ended, and its number may become another one's."""
        if group in self._groups:
            self._groups.discard(group)
            self._tell(-group)
        if not self._groups and self._process is not None:
            self._process.communicate()
            self._process = None

    def _tell(self, number: int) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):  # it was killed too: then nobody watches
                self._process.stdin.write(f"{number}\n")
                self._process.stdin.flush()


_WATCHMAN = _Watchman()


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
