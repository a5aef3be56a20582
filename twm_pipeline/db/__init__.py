"""PostgreSQL: where the databases are, how to reach them, and the embedded server when none is configured."""

from twm_pipeline.db.embedded import EmbeddedServer
from twm_pipeline.db.engine import (
    connect_database,
    dagster_url,
    embedded_server,
    mirror_url,
    open_engine,
    parse_dsn,
    translate_errors,
)

__all__ = [
    "EmbeddedServer",
    "connect_database",
    "dagster_url",
    "embedded_server",
    "mirror_url",
    "open_engine",
    "parse_dsn",
    "translate_errors",
]
