"""Seeing that one session waits for another, so that a race can be told step by step."""

import pytest
from sqlalchemy import Engine, text


def wait_for_a_lock(engine: Engine) -> None:
    """Return as soon as a session waits for a row of another."""
    with engine.connect() as connection:
        for _ in range(10_000):
            waiting = connection.scalar(
                text(
                    "SELECT count(*) FROM pg_stat_activity, pg_sleep(0.001)"
                    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
                )
            )
            connection.rollback()
            if waiting:
                return
    pytest.fail("nobody waits")
