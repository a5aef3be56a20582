"""The mirror as a command uses it; an embedded server that the command started ends with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from twm_pipeline.db import EmbeddedServer, connect_database, embedded_server
from twm_pipeline.mirror.schema import migrate
from twm_pipeline.settings import Settings


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
    query = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    with server.connect() as connection:
        row = connection.execute(query).fetchone()
    return row is not None and row[0] > 0


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
