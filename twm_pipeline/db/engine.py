"""Addresses of the two databases (the mirror's, Dagster's), engines, and errors in the product's words."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psycopg
import sqlalchemy as sa
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import URL, Engine

from twm_pipeline.db.embedded import EmbeddedServer
from twm_pipeline.errors import ConfigError, DatabaseUnavailableError
from twm_pipeline.settings import Settings

MIRROR_DATABASE = "twm"
DAGSTER_DATABASE = "dagster"
CONNECT_SECONDS = 10
PSYCOPG_3 = "postgresql+psycopg"
PSYCOPG_2 = "postgresql+psycopg2"
SCHEMES = ("postgres", "postgresql")

UNAVAILABLE_CLASSES = ("08", "53", "57P", "58", "25006")
"""SQLSTATE prefixes that say the server is away, full, read-only or going down, whatever was asked."""


def embedded_server(settings: Settings) -> EmbeddedServer:
    """Return the handle of the embedded server of this deployment; starts nothing."""
    return EmbeddedServer(settings.twm_data_dir / "postgres")


def mirror_url(settings: Settings) -> URL:
    """Return the mirror's address: `PG_DSN`, else a database on the embedded server, which is started.

    Raises:
        ConfigError: If `PG_DSN` is no address, or the embedded server cannot run here.
        DatabaseUnavailableError: If the embedded server does not come up.
    """
    if settings.pg_dsn is not None:
        return parse_dsn(settings.pg_dsn.get_secret_value(), name="PG_DSN")
    return _embedded_url(settings, MIRROR_DATABASE)


def dagster_url(settings: Settings) -> URL:
    """Return the address of Dagster's storage: `DAGSTER_PG_URL`, else a database on the embedded server.

    The driver is always psycopg 2: dagster-postgres watches events through it, and SQLAlchemy 2.1 resolves a
    bare `postgresql://` to psycopg 3.

    Raises:
        ConfigError: If `DAGSTER_PG_URL` is no address, or the embedded server cannot run here.
        DatabaseUnavailableError: If the embedded server does not come up.
    """
    if settings.dagster_pg_url is not None:
        url = parse_dsn(settings.dagster_pg_url.get_secret_value(), name="DAGSTER_PG_URL")
    else:
        url = _embedded_url(settings, DAGSTER_DATABASE)
    return url.set(drivername=PSYCOPG_2)


def _embedded_url(settings: Settings, database: str) -> URL:
    server = embedded_server(settings)
    server.start()
    server.create_database(database)
    return server.url(database)


def parse_dsn(text: str, *, name: str) -> URL:
    """Return the address of a database from any of its usual forms.

    Args:
        text: A URL (`postgres://`, `postgresql://`, with or without a driver) or words (`host=… dbname=…`).
        name: The setting, for the error.

    Raises:
        ConfigError: If it is none of these; the text itself is not shown.
    """
    scheme, separator, rest = text.strip().partition("://")
    if separator and scheme.partition("+")[0].lower() in SCHEMES:
        text = f"postgresql://{rest}"
    try:
        return _url_from_words({key: str(value) for key, value in conninfo_to_dict(text).items()})
    except (ValueError, psycopg.Error):
        msg = f"{name} is no address of a PostgreSQL database; expected postgresql://user:password@host:5432/database"
        raise ConfigError(msg) from None


def _url_from_words(words: dict[str, str]) -> URL:
    """Return the URL for libpq's connection words; lists of hosts and socket folders become its query."""
    host, port = words.pop("host", None), words.pop("port", None)
    hosts = {}
    if host is not None and ("," in host or host.startswith("/")):
        hosts = {"host": host} if port is None else {"host": host, "port": port}
        host = port = None
    return URL.create(
        PSYCOPG_3,
        username=words.pop("user", None),
        password=words.pop("password", None),
        host=host,
        port=None if port is None else int(port),
        database=words.pop("dbname", None),
        query={**words, **hosts},
    )


def open_engine(url: URL, *, pool_size: int = 5) -> Engine:
    """Return an engine whose sessions are in UTC and notice a dead connection before they use it.

    A statement's parameters never appear in an error: they may be message bodies.

    Args:
        url: The database.
        pool_size: Connections kept open; as many again are opened under load.
    """
    options = " ".join(filter(None, [str(url.query.get("options", "")), "-c timezone=UTC"]))
    defaults = {
        "application_name": "twm",
        "connect_timeout": CONNECT_SECONDS,
        "keepalives": 1,
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
    }
    chosen = {name: value for name, value in defaults.items() if name not in url.query}
    return sa.create_engine(
        url.set(drivername=PSYCOPG_3),
        pool_pre_ping=True,
        pool_size=pool_size,
        max_overflow=pool_size,
        hide_parameters=True,
        connect_args={**chosen, "options": options},
    )


def connect_database(settings: Settings) -> Engine:
    """Return an engine on the mirror, which was reached once; the embedded server is started if need be.

    Raises:
        ConfigError: If the settings cannot be used.
        DatabaseUnavailableError: If PostgreSQL does not answer.
    """
    engine = open_engine(mirror_url(settings))
    with translate_errors(engine.url), engine.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
    return engine


@contextlib.contextmanager
def translate_errors(url: URL) -> Iterator[None]:
    """Raise `DatabaseUnavailableError` for errors of the connection inside; others pass as they are.

    Raises:
        DatabaseUnavailableError: Naming host and database, what PostgreSQL said, and what to do.
    """
    try:
        yield
    except (sa.exc.DBAPIError, psycopg.Error, sa.exc.TimeoutError) as error:
        if not is_unavailable(error):
            raise
        raise DatabaseUnavailableError(_explain(url, error)) from error


def is_unavailable(error: Exception) -> bool:
    """Return whether an error of SQLAlchemy or psycopg says that the server cannot do its work just now."""
    if isinstance(error, sa.exc.TimeoutError):  # every connection of the pool is taken
        return True
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    state = getattr(cause, "sqlstate", None)
    if state is not None:
        return str(state).startswith(UNAVAILABLE_CLASSES)
    return isinstance(cause, psycopg.OperationalError)


def _explain(url: URL, error: Exception) -> str:
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    said = " ".join(str(cause).split())
    place = url.host or url.query.get("host") or "the default host"
    port = f":{url.port}" if url.port else ""
    return (
        f"PostgreSQL does not answer: database {url.database or '(default)'} at {place}{port}: {said}. "
        "Check that the server runs, that PG_DSN names it, and that it accepts this user and password."
    )
