"""A cancelled run ends at the next safe place: between two requests, two commits, or while it waits."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

import dagster as dg

from twm_pipeline.errors import WindowClosedError

GRACE_SECONDS = 5.0
"""How long a request that does not answer may hold up a cancellation; then it is broken off."""


@dataclass
class StopRequest:
    """Whether somebody wants this run to end."""

    requested: bool = False
    event: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Pass, or end the work here.

        Raises:
            WindowClosedError: If the run was cancelled.
        """
        if self.requested:
            msg = "The run was cancelled; what is stored stays, the rest is done by the next one."
            raise WindowClosedError(msg)

    def sleep(self, seconds: float) -> None:
        """Wait, but not beyond a cancellation."""
        self.event.wait(seconds)

    def request(self) -> None:
        """Ask the work to end at the next safe place."""
        self.requested = True
        self.event.set()


@contextmanager
def ending_gently() -> Iterator[StopRequest]:
    """Give what tells of a cancellation, and raise Dagster's own interruption if it left work undone.

    Dagster cancels a run by SIGINT, which it raises wherever the run just is, also in the middle of a
    statement. Here the first one only asks; a second one, or a request that goes on for `GRACE_SECONDS`,
    breaks off. Whatever is not committed then is read again by the next run.

    Raises:
        dagster.DagsterExecutionInterruptedError: If the work was cut short.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # signals arrive in the main thread only
        return
    timers: list[threading.Timer] = []

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if stop.requested:
            raise KeyboardInterrupt
        stop.request()
        timer = threading.Timer(GRACE_SECONDS, os.kill, (os.getpid(), signal.SIGINT))
        timer.daemon = True
        timers.append(timer)
        timer.start()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    except (KeyboardInterrupt, WindowClosedError, dg.Failure) as error:
        if not stop.requested:
            raise
        raise dg.DagsterExecutionInterruptedError from error
    finally:
        for timer in timers:
            timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
