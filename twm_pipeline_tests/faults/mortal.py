"""Processes that do one pass each, to be killed at any statement: `python -m …faults.mortal`.

The program loads everything once. Each line that it reads is JSON with an environment and a source; it makes
a copy of itself that does one pass there, tells the copy's process id, and then how it ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator

from twm_pipeline.db import connect_database
from twm_pipeline.errors import TwmError
from twm_pipeline.records import Source
from twm_pipeline.settings import Settings, environment_of, load_settings
from twm_pipeline.sync.engine import PassOptions
from twm_pipeline.sync.window import Window
from twm_pipeline_tests.faults.worker import ROOT

LIVED, STOPPED = 0, 2


class Nursery:
    """Starts processes that do one pass, one after the other."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._pid = 0

    def start(self, settings: Settings, source: Source) -> None:
        """Start a process with exactly these settings; it does not begin before this returns."""
        self._write(json.dumps({"environment": environment_of(settings), "source": source}))
        self._pid = int(self._read())
        self._write("go")

    def kill(self) -> None:
        """Kill it wherever it is."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)

    def ended(self) -> int:
        """Wait for its end and return how that was, as `subprocess` says it."""
        return int(self._read())

    def _write(self, line: str) -> None:
        print(line, file=self._process.stdin, flush=True)

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the nursery died"
        return line


@contextlib.contextmanager
def open_nursery() -> Iterator[Nursery]:
    """Give a nursery."""
    process = subprocess.Popen(
        [sys.executable, "-m", "twm_pipeline_tests.faults.mortal"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        yield Nursery(process)
        assert process.stdin is not None
        process.stdin.close()


def main() -> None:
    """Make copies until nothing more is asked for."""
    for line in sys.stdin:
        asked = json.loads(line)
        begin, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.read(begin, 1)
            os._exit(run(asked["environment"], asked["source"]))
        say(pid)
        sys.stdin.readline()
        os.write(tell, b"!")
        _, status = os.waitpid(pid, 0)
        say(os.waitstatus_to_exitcode(status))
        os.close(begin)
        os.close(tell)


def say(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def run(environment: dict[str, str], source: Source) -> int:
    """Do one pass; return the exit code."""
    os.environ.clear()
    os.environ.update(environment)
    try:
        settings = load_settings()
        Window(connect_database(settings), settings, source, 0).run(PassOptions())
    except TwmError:
        return STOPPED
    except BaseException:  # noqa: BLE001 - a copy must not go on as its original
        traceback.print_exc()
        return 1
    return LIVED


if __name__ == "__main__":
    main()
