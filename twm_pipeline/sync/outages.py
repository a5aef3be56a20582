"""Outages: told from defects, and how long is waited after one."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
from sqlalchemy.exc import SQLAlchemyError

from twm_pipeline.db import is_unavailable
from twm_pipeline.errors import CollisionError, DatabaseUnavailableError, RetriableError

if TYPE_CHECKING:
    from collections.abc import Iterator

COLLISIONS = ("40P01", "40001")
"""SQLSTATEs of transactions that PostgreSQL ends because of another one: deadlock, serialization failure."""
PAUSE_AFTER_OUTAGE_SECONDS = 15.0
"""So long is waited where the outage itself does not say for how long."""


@contextmanager
def outages_in_words(consequence: str) -> Iterator[None]:
    """Tell what PostgreSQL cannot do just now from defects, which pass as they are.

    Args:
        consequence: For the message.

    Raises:
        DatabaseUnavailableError: If the server is away, full, read-only or out of connections.
        CollisionError: If it ended this transaction because of another one.
    """
    try:
        yield
    except (SQLAlchemyError, psycopg.Error) as error:
        cause = getattr(error, "orig", None) or error
        name = type(cause).__name__
        if getattr(cause, "sqlstate", None) in COLLISIONS:
            msg = f"Another process wrote the same rows ({name}); {consequence} and tried again."
            raise CollisionError(msg) from error
        if isinstance(cause, psycopg.OperationalError) or is_unavailable(error):
            msg = f"The mirror's PostgreSQL does not answer, or takes nothing ({name}); {consequence}."
            raise DatabaseUnavailableError(msg) from error
        raise


def pause_after(error: RetriableError | OSError) -> float:
    """Return how many seconds to wait before the next try: as long as the vendor asks for, or some."""
    asked = error.retry_after if isinstance(error, RetriableError) else None
    return max(asked or 0.0, PAUSE_AFTER_OUTAGE_SECONDS)
