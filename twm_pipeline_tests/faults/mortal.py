"""Processes that do one pass each, to be killed at any statement: `python -m …faults.mortal`.

The program loads everything once. Each line that it reads names a source; it makes a copy of itself that does
one pass over it, tells the copy's process id, and then how it ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator

from twm_pipeline.db import connect_database
from twm_pipeline.settings import Settings, environment_of, load_settings
from twm_pipeline.sync.engine import PassOptions
from twm_pipeline.sync.window import Window
from twm_pipeline_tests.faults.worker import ROOT

LIVED = 0


class Nursery:
    """Starts processes that do one pass, one after the other."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._pid = 0

    def start(self, source: str) -> None:
        """Start a process; it does not begin before this returns."""
        print(source, file=self._process.stdin, flush=True)
        self._pid = int(self._read())
        print("go", file=self._process.stdin, flush=True)

    def kill(self) -> None:
        """Kill it wherever it is; it has been collected only when `ended` returned."""
        os.kill(self._pid, signal.SIGKILL)

    def ended(self) -> int:
        """Wait for its end and return how that was, as `subprocess` says it."""
        return int(self._read())

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the nursery died"
        return line


@contextlib.contextmanager
def nursery(settings: Settings) -> Iterator[Nursery]:
    """Give a nursery whose processes have exactly these settings."""
    process = subprocess.Popen(
        [sys.executable, "-m", "twm_pipeline_tests.faults.mortal"],
        env={**environment_of(settings), "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        yield Nursery(process)
        assert process.stdin is not None
        process.stdin.close()


def main() -> None:
    """Make copies until nothing more is asked for."""
    settings = load_settings()
    for line in sys.stdin:
        begin, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.read(begin, 1)
            os._exit(run(settings, line.strip()))
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()
        sys.stdin.readline()
        os.write(tell, b"!")
        _, status = os.waitpid(pid, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()
        os.close(begin)
        os.close(tell)


def run(settings: Settings, source: str) -> int:
    """Do one pass; return the exit code."""
    try:
        Window(connect_database(settings), settings, source, 0).run(PassOptions())  # type: ignore[arg-type]  # a test's word
    except BaseException:  # noqa: BLE001 - a copy must not go on as its original
        traceback.print_exc()
        return 1
    return LIVED


if __name__ == "__main__":
    main()
