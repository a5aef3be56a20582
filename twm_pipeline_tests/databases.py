"""A database per test: cleaned and used again where that is the same as a new one, which takes far longer.

A database that a test changed in any other way than by a few rows is not used again.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg
from psycopg import sql
from sqlalchemy import URL

from twm_pipeline.db import EmbeddedServer

MOST_ROWS = 2000
"""So many deleted rows may lie about in a database that is used again."""
SECONDS_TO_END = 10
HELD_HERE = (
    "locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
"""The advisory locks in `pg_locks` of this database alone: other tests use the same server."""

_SCHEMA = """
    SELECT current_setting('server_version')
        || (SELECT coalesce(string_agg(s::text, ' '), '') FROM pg_db_role_setting s
            WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database()))
        || (SELECT concat(count(*), ' ', max(xmin::text::bigint)) FROM pg_class WHERE relpersistence <> 't')
        || (SELECT concat(count(*), ' ', max(a.xmin::text::bigint)) FROM pg_attribute a
            JOIN pg_class c ON c.oid = attrelid WHERE relpersistence <> 't')
        || (SELECT concat(count(*), ' ', max(xmin::text::bigint)) FROM pg_rewrite)
        || (SELECT concat(count(*), ' ', max(xmin::text::bigint)) FROM pg_proc)
        || (SELECT concat(count(*), ' ', max(xmin::text::bigint)) FROM pg_trigger)
        || (SELECT concat(count(*), ' ', max(xmin::text::bigint)) FROM pg_constraint)
        || (SELECT concat(count(*), ' ', max(xmin::text::bigint)) FROM pg_description)
        || (SELECT concat(count(*), ' ', max(xmin::text::bigint)) FROM pg_default_acl)
        || (SELECT concat(count(*), ' ', max(xmin::text::bigint)) FROM pg_namespace
            WHERE nspname !~ '^pg_.*temp')
"""
_TABLES = """
    SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' ORDER BY 1
"""
_END_OTHERS = """
    SELECT bool_and(pg_terminate_backend(pid, %s)) FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""
_RESTART = """
    SELECT setval(format('%I.%I', schemaname, sequencename)::regclass, start_value, false) FROM pg_sequences
    WHERE last_value IS NOT NULL
"""


@dataclass
class DatabasePool:
    """Databases cloned from a template, on one server, for the tests of one process.

    Args:
        server: Where they are.
        template: The name of the database to clone.
    """

    server: EmbeddedServer
    template: str
    _idle: list[str] = field(default_factory=list)
    _tables: list[str] = field(default_factory=list)
    _schema: str = ""
    _fresh_rows: list[tuple[str, str]] = field(default_factory=list)

    @contextmanager
    def database(self) -> Iterator[URL]:
        """Give the address of a database that equals the template."""
        name = self._idle.pop() if self._idle else self._create()
        try:
            yield self.server.url(name)
        finally:
            if self._is_clean_again(name):
                self._idle.append(name)
            else:
                drop(self.server, name)

    def _create(self) -> str:
        name = create(self.server, template=self.template)
        if not self._tables:
            with psycopg.connect(_dsn(self.server.url(name)), autocommit=True) as connection:
                self._tables = [str(row[0]) for row in connection.execute(_TABLES)]
                self._schema, self._fresh_rows = _schema(connection), self._rows(connection)
        return name

    def _is_clean_again(self, name: str) -> bool:
        """Remove a test's rows; return whether the database equals a new one then."""
        try:
            with psycopg.connect(_dsn(self.server.url(name)), autocommit=True) as connection:
                connection.execute(_END_OTHERS, [1000 * SECONDS_TO_END])
                connection.execute("SET session_replication_role = replica")
                seeded = [table for table, _ in self._fresh_rows]
                filled = [table for table in self._filled(connection) if table not in seeded]
                deletions = [connection.execute(f"DELETE FROM {table}".encode()) for table in filled]
                count = sum(deletion.rowcount for deletion in deletions)
                connection.execute(_RESTART)
                rows = self._rows(connection)
                return count <= MOST_ROWS and rows == self._fresh_rows and _schema(connection) == self._schema
        except psycopg.Error:
            return False  # the test broke it: it is dropped

    def _filled(self, connection: psycopg.Connection) -> list[str]:
        parts = [f"SELECT '{table}' WHERE EXISTS (SELECT FROM {table})" for table in self._tables]
        return [str(row[0]) for row in connection.execute(" UNION ALL ".join(parts).encode())]

    def _rows(self, connection: psycopg.Connection) -> list[tuple[str, str]]:
        """Return a digest of each table that is not empty."""
        found = []
        for table in self._filled(connection):
            query = f"SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {table} t"
            found += [(table, str(row[0])) for row in connection.execute(query.encode())]
        return found


def _schema(connection: psycopg.Connection) -> str:
    """Return what tells two schemas apart."""
    return "".join(str(row[0]) for row in connection.execute(_SCHEMA))


def create(server: EmbeddedServer, *, template: str) -> str:
    """Make a database and return its name."""
    name = f"test_{uuid.uuid4().hex}"
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
    with server.connect() as connection:
        connection.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
    return name


def drop(server: EmbeddedServer, name: str) -> None:
    """Drop a database, whoever uses it."""
    with server.connect() as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _dsn(url: URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)
