"""The lock of a window: one process at a time polls a source, publishes, or downloads files."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, InvalidRequestError

from twm_pipeline.errors import WindowClosedError
from twm_pipeline.records import Origin
from twm_pipeline.sync.outages import outages_in_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

WINDOW_LOCK = 74_770_002
WindowName = Origin | Literal["attachments"]
WINDOW_NUMBERS: dict[WindowName, int] = {"teamwork": 1, "missive": 2, "airtable": 3, "attachments": 4}
LOCK_CHECK_SECONDS = 5.0


@dataclass
class WindowLock:
    """The lock of a source's window, held by a connection of its own."""

    connection: Connection
    checked: float = 0.0
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def verify(self) -> None:
        """Pass while the connection that holds the lock lives, asking it every few seconds.

        The window's poll and its drain both ask, each in its own thread.

        Raises:
            WindowClosedError: If it is gone, and the lock with it.
        """
        with self._turn:
            now = time.monotonic()
            if now - self.checked < LOCK_CHECK_SECONDS:
                return
            try:
                self.connection.execute(text("SELECT 1"))
            except (DBAPIError, InvalidRequestError) as error:  # the latter: the other thread found out first
                msg = "The connection that held the window's lock is gone."
                raise WindowClosedError(msg) from error
            self.checked = now


@contextmanager
def window_lock(engine: Engine, source: WindowName) -> Iterator[WindowLock | None]:
    """Give the window's lock of *source*, or None while another process holds it.

    Raises:
        DatabaseUnavailableError: If PostgreSQL does not answer.
    """
    key = {"key": WINDOW_LOCK, "number": WINDOW_NUMBERS[source]}
    with outages_in_words("no window is opened"):
        connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    try:
        held = connection.execute(text("SELECT pg_try_advisory_lock(:key, :number)"), key).scalar_one()
        yield WindowLock(connection) if held else None
        if held:
            connection.execute(text("SELECT pg_advisory_unlock(:key, :number)"), key)
    except BaseException:
        # The server releases the lock with the connection; the pool must not hand it out again.
        connection.invalidate()
        raise
    finally:
        connection.close()


def holds_window(connection: Connection, source: WindowName) -> bool:
    """Return whether any process holds the window's lock of *source* in this database."""
    query = text(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = :key AND objid = :number"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND granted"
    )
    held = connection.execute(query, {"key": WINDOW_LOCK, "number": WINDOW_NUMBERS[source]}).scalar_one()
    return bool(held)
