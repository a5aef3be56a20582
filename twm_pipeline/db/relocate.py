"""The mirror's move from the embedded server to a server of one's own: one copy, verified, all or nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg import sql
from sqlalchemy import URL, Connection, Engine

from twm_pipeline.db.engine import (
    MIRROR_DATABASE,
    embedded_server,
    mirror_url,
    open_engine,
    translate_errors,
)
from twm_pipeline.errors import ConfigError, PermanentError
from twm_pipeline.settings import Settings

logger = logging.getLogger(__name__)

SCHEMAS = ("teamwork", "missive", "twm", "insights")
VERSION_TABLE = "twm.alembic_version"
COPY_LOCK = 74_770_003

_COLUMNS = """
    SELECT n.nspname || '.' || c.relname AS name, array_agg(a.attname::text ORDER BY a.attnum) AS columns
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
    WHERE n.nspname = ANY(:schemas) AND c.relkind = 'r'
    GROUP BY 1 ORDER BY 1
"""
_SEQUENCES = """
    SELECT schemaname || '.' || sequencename FROM pg_sequences WHERE schemaname = ANY(:schemas) ORDER BY 1
"""
_IDENTITY = "SELECT system_identifier || '/' || current_database() FROM pg_control_system()"
_MARK = "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = 'twm'"


def copy_embedded_mirror(settings: Settings, *, migrate: Callable[[Engine], None]) -> dict[str, int]:
    """Copy the embedded mirror to `PG_DSN`, once; the embedded one stays as it is.

    A file `copied` beside the embedded data says that it was done.

    Args:
        settings: Those of the deployment.
        migrate: Brings a mirror's tables up to date; both sides need the same.

    Returns:
        Rows copied per table; empty if there was nothing to copy.

    Raises:
        ConfigError: If the database of `PG_DSN` already holds another mirror.
        DatabaseUnavailableError: If one of the servers does not answer.
        PermanentError: If the copy differs from the original; nothing of it stays.
    """
    server = embedded_server(settings)
    note = server.folder / "copied"
    if settings.pg_dsn is None or not server.data.exists() or note.exists():
        return {}
    server.start()
    server.create_database(MIRROR_DATABASE)
    source, target = server.url(MIRROR_DATABASE), mirror_url(settings)
    with _session(source) as connection:
        if not _tables_with_rows(connection):
            return {}
    for url in (source, target):
        _migrate(url, migrate)
    try:
        copied = copy_mirror(source, target)
    except ConfigError as error:
        msg = f"{error} To go on with the rows that are there, make an empty file {note}."
        raise ConfigError(msg) from error
    note.write_text(f"to database {target.database} at {target.host}\n")
    return copied


def copy_mirror(source_url: URL, target_url: URL) -> dict[str, int]:
    """Copy every row of the mirror at *source_url* into the empty tables at *target_url*.

    One transaction on the target, one snapshot of the source: a process killed half way leaves nothing, and
    a second call after a finished copy does nothing. Both sides are migrated to the same version before.

    Returns:
        Rows copied per table; empty if this very copy was made before.

    Raises:
        ConfigError: If the target holds rows of another origin, or the two are not at the same version.
        PermanentError: If a table's number of rows differs afterwards; nothing of the copy stays.
    """
    with _session(source_url, read_only=True) as source, _session(target_url) as target:
        target.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": COPY_LOCK})
        mark = f"copied from {source.scalar(sa.text(_IDENTITY))}"
        if target.scalar(sa.text(_MARK)) == mark:
            logger.info("the mirror was copied before")
            return {}
        tables = _shared_tables(source, target)
        _require_empty(target, target_url)
        copied = {name: _copy_table(source, target, name, columns) for name, columns in tables.items()}
        _verify(source, target, copied)
        _carry_sequences(source, target)
        _run(target, sql.SQL("COMMENT ON SCHEMA twm IS {}").format(sql.Literal(mark)))
    logger.info("mirror copied: %d rows in %d tables", sum(copied.values()), len(copied))
    return copied


@contextmanager
def _session(url: URL, *, read_only: bool = False) -> Iterator[Connection]:
    """Yield a connection in a transaction that sees one state of the database."""
    options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": read_only} if read_only else {}
    engine = open_engine(url, pool_size=1)
    try:
        with (
            translate_errors(url),
            engine.connect().execution_options(**options) as connection,
            connection.begin(),
        ):
            yield connection
    finally:
        engine.dispose()


def _migrate(url: URL, migrate: Callable[[Engine], None]) -> None:
    engine = open_engine(url, pool_size=1)
    try:
        with translate_errors(url):
            migrate(engine)
    finally:
        engine.dispose()


def _tables(connection: Connection) -> dict[str, list[str]]:
    """Return the columns that can be written, per table of the mirror, without Alembic's own."""
    rows = connection.execute(sa.text(_COLUMNS), {"schemas": list(SCHEMAS)})
    return {row.name: row.columns for row in rows if row.name != VERSION_TABLE}


def _shared_tables(source: Connection, target: Connection) -> dict[str, list[str]]:
    """Return the tables of the source, which the target has too, column by column."""
    tables, others = _tables(source), _tables(target)
    missing = [
        f"{name}.{column}" for name in tables for column in set(tables[name]) - set(others.get(name, []))
    ]
    if missing:
        msg = f"The mirror cannot be copied: the target lacks {', '.join(sorted(missing)[:5])}; migrate both."
        raise ConfigError(msg)
    return tables


def _tables_with_rows(connection: Connection) -> list[str]:
    exists = sql.SQL("SELECT EXISTS (SELECT FROM {})")
    return [name for name in _tables(connection) if _value(connection, exists.format(_identifier(name)))]


def _require_empty(target: Connection, url: URL) -> None:
    filled = _tables_with_rows(target)
    if filled:
        msg = (
            f"Database {url.database} at {url.host} holds a mirror already: rows in {', '.join(filled[:3])}; "
            "another one is copied into an empty database only. Name an empty database in PG_DSN."
        )
        raise ConfigError(msg)


def _copy_table(source: Connection, target: Connection, name: str, columns: list[str]) -> int:
    """Stream the rows of one table; triggers stay silent, for what they feed is copied too."""
    words = {"table": _identifier(name), "columns": sql.SQL(", ").join(map(sql.Identifier, columns))}
    _run(target, sql.SQL("ALTER TABLE {table} DISABLE TRIGGER USER").format(**words))
    with _driver(source).cursor() as reader, _driver(target).cursor() as writer:
        with (
            reader.copy(sql.SQL("COPY (SELECT {columns} FROM {table}) TO STDOUT").format(**words)) as rows,
            writer.copy(sql.SQL("COPY {table} ({columns}) FROM STDIN").format(**words)) as sink,
        ):
            for block in rows:
                sink.write(block)
        copied = writer.rowcount
    _run(target, sql.SQL("ALTER TABLE {table} ENABLE TRIGGER USER").format(**words))
    _run(target, sql.SQL("ANALYZE {table}").format(**words))
    return copied


def _verify(source: Connection, target: Connection, copied: dict[str, int]) -> None:
    count = sql.SQL("SELECT count(*) FROM {}")
    for name, rows in copied.items():
        here, there = (_value(side, count.format(_identifier(name))) for side in (source, target))
        if not rows == here == there:
            msg = f"The copy of {name} is not complete: {here} rows in the original, {there} in the copy."
            raise PermanentError(msg)


def _carry_sequences(source: Connection, target: Connection) -> None:
    """Go on counting where the source stopped: a smaller `observed_seq` would make new rows look old."""
    for name in source.scalars(sa.text(_SEQUENCES), {"schemas": list(SCHEMAS)}):
        state = sql.SQL("SELECT last_value, is_called FROM {}").format(_identifier(name))
        last_value, is_called = _rows(source, state)[0]
        target.execute(
            sa.text("SELECT setval(CAST(:name AS regclass), :value, :called)"),
            {"name": name, "value": last_value, "called": is_called},
        )


def _identifier(name: str) -> sql.Identifier:
    return sql.Identifier(*name.split(".", 1))


def _driver(connection: Connection) -> psycopg.Connection:
    driver = connection.connection.driver_connection
    if not isinstance(driver, psycopg.Connection):
        raise TypeError(driver)
    return driver


def _rows(connection: Connection, statement: sql.Composed) -> list[tuple[Any, ...]]:
    return _driver(connection).execute(statement).fetchall()


def _value(connection: Connection, statement: sql.Composed) -> Any:  # noqa: ANN401 - whatever was selected
    return _rows(connection, statement)[0][0]


def _run(connection: Connection, statement: sql.Composed) -> None:
    _driver(connection).execute(statement)
