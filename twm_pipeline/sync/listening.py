"""What windows over the mirror share: they wake when a transaction says that there is work."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

from twm_pipeline.errors import DatabaseUnavailableError, RetriableError
from twm_pipeline.sync.outages import outages_in_words, pause_after
from twm_pipeline.sync.window import LONGEST_SLEEP_SECONDS
from twm_pipeline.sync.window_lock import WindowLock

if TYPE_CHECKING:
    from sqlalchemy import Engine

logger = logging.getLogger(__name__)

LOOK_SECONDS = 30.0
"""So often everything is looked through without a notification: what is tried again has its own time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Looks after work until a window is over.

    Args:
        name: In the log.
        deadline: End of the window on the clock of `time.monotonic`; None: look once.
        lock: The window's.
        news: Waits some seconds and returns whether there is work.
        should_stop: Raises `WindowClosedError` when somebody wants the window to end.
        wait: Waits so many seconds.
    """

    name: str
    deadline: float | None
    lock: WindowLock
    news: Callable[[float], bool]
    should_stop: Callable[[], None]
    wait: Callable[[float], None]

    def run(self, look: Callable[[], None]) -> None:
        """Call *look* now, and again when there is work, until the window is over.

        Raises:
            RetriableError: An outage that lasted to the end; at once where it looks only once, or where it is
                PostgreSQL's.
        """
        outage: RetriableError | None = None
        while True:
            try:
                look()
                outage = None
            except RetriableError as error:
                if self.deadline is None or isinstance(error, DatabaseUnavailableError):
                    raise
                logger.warning("%s: %s", self.name, error)
                outage = error
            if self.deadline is None:
                return
            if not self._await(self.deadline, outage):
                break
        if outage is not None:
            raise outage

    def _await(self, deadline: float, outage: RetriableError | None) -> bool:
        """Wait for work, or for an outage to pass; return False when the window is over."""
        pause = LOOK_SECONDS
        if outage is not None:
            pause = pause_after(outage)
        until = time.monotonic() + pause
        while (now := time.monotonic()) < until:
            if now >= deadline:
                return False
            self.should_stop()
            self.lock.verify()
            if outage is not None:
                self.wait(min(until - now, LONGEST_SLEEP_SECONDS))
                continue
            if self.news(min(until - now, LONGEST_SLEEP_SECONDS)):
                return True
            self.wait(0.0)
        return True


@contextmanager
def listening(engine: Engine, channel: str) -> Iterator[Callable[[float], bool]]:
    """Give what waits some seconds for a change and returns whether one came; none is missed in between.

    Raises:
        DatabaseUnavailableError: If PostgreSQL does not answer.
    """
    with outages_in_words("nothing is listened to"):
        pooled = engine.raw_connection()
    connection: psycopg.Connection[tuple[object, ...]] = pooled.driver_connection  # type: ignore[assignment]
    pooled.detach()  # it is closed in the end: nobody else is to inherit what it listens to

    def came(seconds: float) -> bool:
        try:
            told = any(True for _ in connection.notifies(timeout=seconds, stop_after=1))
            # What was told meanwhile is answered by the same look.
            return any(True for _ in connection.notifies(timeout=0)) or told
        except psycopg.OperationalError as error:
            msg = "The connection that listens for changes is gone."
            raise DatabaseUnavailableError(msg) from error

    try:
        connection.autocommit = True
        connection.execute(f"LISTEN {channel}")
        yield came
    finally:
        connection.close()
