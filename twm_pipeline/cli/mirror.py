"""The mirror as a command uses it; an embedded server that the command started ends with it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from twm_pipeline.db import EmbeddedServer, connect_database, embedded_server
from twm_pipeline.mirror.schema import migrate
from twm_pipeline.settings import Settings

LEAVING_SECONDS = 3.0
LOOK_SECONDS = 0.05


@contextmanager
def embedded_while_needed(settings: Settings) -> Iterator[None]:
    """Start the embedded server where the settings need one, and stop it in the end.

    It stays if it ran before, or if somebody else uses it meanwhile.
    """
    server = embedded_server(settings)
    if (settings.pg_dsn is not None and settings.dagster_pg_url is not None) or server.is_alive():
        yield
        return
    server.start()
    try:
        yield
    finally:
        if server.is_alive() and not _is_used(server):
            server.stop()


def _is_used(server: EmbeddedServer) -> bool:
    """Return whether somebody else is connected, once those that have just ended had time to leave."""
    query = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    until = time.monotonic() + LEAVING_SECONDS
    with server.connect() as connection:
        while (row := connection.execute(query).fetchone()) is not None and row[0] > 0:
            if time.monotonic() > until:
                return True
            time.sleep(LOOK_SECONDS)
    return False


@contextmanager
def opened_mirror(settings: Settings) -> Iterator[Engine]:
    """Give an engine on the mirror, its tables up to date."""
    with embedded_while_needed(settings):
        engine = connect_database(settings)
        try:
            migrate(engine)
            yield engine
        finally:
            engine.dispose()
