"""PostgreSQL: where the databases are, how to reach them, and the embedded server when none is configured."""

from twm_pipeline.db.backup import back_up, restore
from twm_pipeline.db.embedded import EmbeddedServer
from twm_pipeline.db.engine import (
    connect_database,
    dagster_url,
    embedded_server,
    is_unavailable,
    mirror_url,
    open_engine,
    parse_dsn,
    translate_errors,
)
from twm_pipeline.db.relocate import copy_embedded_mirror, copy_mirror

__all__ = [
    "EmbeddedServer",
    "back_up",
    "connect_database",
    "copy_embedded_mirror",
    "copy_mirror",
    "dagster_url",
    "embedded_server",
    "is_unavailable",
    "mirror_url",
    "open_engine",
    "parse_dsn",
    "restore",
    "translate_errors",
]
