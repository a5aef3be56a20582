"""A plugin of pytest that looks through whatever the suite writes for secrets and message bodies (G10).

Every simulated message is put together from known sentences, and every simulated secret is known: each is a
canary, and a test in which one comes to light fails. Looked through are, for every test: what is logged, the
texts of the product's errors, what commands print (in this process and in children), the log files of the
folders it used, Dagster's event log, and the tables in which the product and Dagster keep what they say. The
spool, attachments, the vendors' tables, `raw` and the log of the sandbox itself are rightly left out.

A test that is about showing a body on demand is marked `shows_bodies`.
"""

from __future__ import annotations

import json
import logging
import re
import subprocess
from collections.abc import Generator
from functools import wraps
from pathlib import Path
from typing import Any

import psycopg
import pytest
from dagster import DagsterInstance
from dagster._serdes import serialize_value
from psycopg import sql
from sqlalchemy import URL
from typer.testing import CliRunner

from twm_pipeline.db import EmbeddedServer
from twm_pipeline.errors import TwmError
from twm_pipeline.sandbox.options import AIRTABLE_TOKEN, MISSIVE_TOKEN, TEAMWORK_KEY
from twm_pipeline.sandbox.texts import SENTENCES

SHOWN = 60
MARKER = "shows_bodies: prints a message's body on purpose, and is not looked through for bodies"
SECRETS = {"a secret": f"{re.escape(TEAMWORK_KEY)}|{re.escape(MISSIVE_TOKEN)}|{re.escape(AIRTABLE_TOKEN)}"}
BODIES = {
    "a message's body": "|".join(
        sorted({re.escape(form) for text in SENTENCES for form in (text, json.dumps(text)[1:-1])})
    ),
    "an address": r"@(?:harbour|customer)\.example\.com",
}
LOGS = ("**/*.log", "**/*.log.1", "**/dagster/storage/**/*")
VENDORS_LOG = "sandbox.log"
"""What the simulated vendors say: their process names its published keys to whoever starts it."""
COLUMNS = """
SELECT n.nspname, c.relname, array_agg(a.attname ORDER BY a.attnum)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
 WHERE n.nspname IN ('twm', 'public') AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
   AND a.atttypid::regtype::text IN ('text', 'character varying', 'json', 'jsonb', 'text[]')
   AND a.attname <> 'raw'
 GROUP BY 1, 2
"""


class Watch:
    """Collects what came to light during a test."""

    def __init__(self) -> None:
        self.leaks: list[str] = []
        self._secrets = re.compile(_alternatives(SECRETS))
        self._everything = re.compile(_alternatives(SECRETS | BODIES))
        self.shows_bodies = False

    def look(self, text: object, where: str) -> None:
        """Note what must not be in *text*."""
        if isinstance(text, bytes):
            text = text.decode(errors="replace")
        pattern = self._secrets if self.shows_bodies else self._everything
        if text and (found := pattern.search(str(text))):
            around = str(text)[max(found.start() - SHOWN, 0) : found.end() + SHOWN]
            self.leaks.append(f"{where}: {found[0]!r} in {around!r}")

    def take(self) -> list[str]:
        """Return what was found since the last call."""
        found, self.leaks = list(dict.fromkeys(self.leaks)), []
        return found


def _alternatives(canaries: dict[str, str]) -> str:
    return "|".join(f"(?:{pattern})" for pattern in canaries.values())


WATCH = Watch()


class _Listener(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        WATCH.look(self.format(record), f"logger {record.name}")


def pytest_configure(config: pytest.Config) -> None:
    """Begin to listen."""
    config.addinivalue_line("markers", MARKER)
    logging.getLogger().addHandler(_Listener())
    _listen_to_errors()
    _listen_to_commands()


def _listen_to_errors() -> None:
    def init(self: TwmError, *args: object) -> None:
        Exception.__init__(self, *args)
        WATCH.look(" ".join(map(str, args)), f"text of {type(self).__name__}")

    TwmError.__init__ = init  # type: ignore[method-assign,assignment]  # as it was, with a listener


def _listen_to_commands() -> None:
    communicate, invoke = subprocess.Popen.communicate, CliRunner.invoke

    @wraps(communicate)
    def heard_communicate(self: Any, *args: Any, **kwargs: Any) -> Any:
        said = communicate(self, *args, **kwargs)
        for text in said:
            WATCH.look(text, f"output of {self.args}")
        return said

    @wraps(invoke)
    def heard_invoke(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = invoke(self, *args, **kwargs)
        WATCH.look(result.output, "output of a command")
        WATCH.look(result.exception, "exception of a command")
        return result

    subprocess.Popen.communicate = heard_communicate  # type: ignore[method-assign]  # with a listener
    CliRunner.invoke = heard_invoke  # type: ignore[method-assign]  # likewise


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Hear every line of the product, whatever level the test before left behind."""
    WATCH.take()
    WATCH.shows_bodies = item.get_closest_marker("shows_bodies") is not None
    logging.getLogger("twm_pipeline").setLevel(logging.DEBUG)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Look through what the test leaves, before its fixtures remove it."""
    used = getattr(item, "funcargs", {})
    for folder in (used.get(name) for name in ("tmp_path", "place")):
        if not isinstance(folder, Path):
            continue  # a test's own parameter may have that name
        look_at_logs(folder)
        for version in folder.rglob("data/PG_VERSION"):
            look_at_server(EmbeddedServer(version.parent.parent))
    for url in (used[name] for name in ("database", "empty_database") if name in used):
        look_at_database(url)
    if isinstance(instance := used.get("instance"), DagsterInstance):
        look_at_events(instance)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test during which something came to light."""
    report = yield
    for name, text in report.sections:
        if call.when in name:
            WATCH.look(text, name)
    if call.when == "teardown" and (found := WATCH.take()):
        report.outcome = "failed"
        report.longrepr = "\n".join(["Came to light (G10):", *found])
    return report


def look_at_logs(folder: Path) -> None:
    """Look through every log below *folder*, Dagster's compute logs included."""
    for path in {path for pattern in LOGS for path in folder.glob(pattern) if path.is_file()}:
        if path.name != VENDORS_LOG:
            WATCH.look(path.read_bytes(), str(path))


def look_at_events(instance: DagsterInstance) -> None:
    """Look through everything that an instance keeps of its runs."""
    for run in instance.get_runs():
        for entry in instance.all_logs(run.run_id):
            WATCH.look(serialize_value(entry), "Dagster's event log")


def look_at_server(server: EmbeddedServer) -> None:
    """Look through all databases of a server, if it runs."""
    if server.is_alive():
        with server.connect() as connection:
            query = "SELECT datname FROM pg_database WHERE NOT datistemplate"
            names = [row[0] for row in connection.execute(query)]
        for name in names:
            look_at_database(server.url(name))


def look_at_database(url: URL) -> None:
    """Look through the tables of a database in which the product and Dagster keep what they say."""
    address = url.set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        with psycopg.connect(address, autocommit=True) as connection:
            tables = connection.execute(COLUMNS).fetchall()
            if tables:
                for table, text in connection.execute(sql.SQL(" UNION ALL ").join(map(_texts_of, tables))):
                    WATCH.look(text, f"table {table}")
    except psycopg.OperationalError:
        pass  # the test took the server or the database away


def _texts_of(row: tuple[str, str, list[str]]) -> sql.Composable:
    schema, table, columns = row
    return sql.SQL("SELECT {}, concat_ws(' ', {}) FROM {}").format(
        sql.Literal(f"{schema}.{table}"),
        sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in columns),
        sql.Identifier(schema, table),
    )
