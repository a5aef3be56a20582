"""Another DB_BACKEND, or a PG_DSN that appears, is a restart: nothing is sent twice, nothing is lost (G4)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import URL, Engine, text

from twm_pipeline.cli import up
from twm_pipeline.cli.mirror import embedded_while_needed
from twm_pipeline.cli.sync import publishes
from twm_pipeline.db import connect_database
from twm_pipeline.db.relocate import SCHEMAS
from twm_pipeline.sandbox import Sandbox, SandboxControl, SandboxOptions
from twm_pipeline.settings import Settings
from twm_pipeline_tests.faults.world import World, settings_for
from twm_pipeline_tests.publishing import airtable_settings, base_differences, publish

CHANGED_BY_STARTING = {"twm.alembic_version", "twm.publications", "twm.sources"}
OF_PROCESSES = {"twm.leases", "twm.budget_requests", "twm.budgets", "twm.progress"}
HOOK = "INSERT INTO twm.hooks (source, hook_id, event, url, status) VALUES ('teamwork', '7', 'T', 'u', 'ok')"


@dataclass
class Deployment:
    """A deployment that is started again and again as `twm up --once` starts it."""

    control: SandboxControl
    settings: Settings

    @contextmanager
    def started(self, **changes: Any) -> Iterator[World]:
        """Change the settings and start; what is under way ends with the block."""
        self.settings = self.settings.model_copy(update=changes)
        with embedded_while_needed(self.settings):
            up._prepare(self.settings)
            engine = connect_database(self.settings)
            try:
                yield World(control=self.control, engine=engine, settings=self.settings)
            finally:
                engine.dispose()

    def once(self, **changes: Any) -> int:
        """Sync, publish where it is wanted, and require that the base shows the views; return the calls."""
        calls = self.control.request_count("airtable")
        with self.started(**changes) as world:
            world.sync()
            if publishes(self.settings, None):
                publish(world.engine, self.settings)
                assert not base_differences(world.engine, self.control)
        return self.control.request_count("airtable") - calls

    def edit_one(self, name: str) -> None:
        """Change one task at the vendor."""
        tasks = [row for row in self.control.truth("task") if row["visible"] and not row["deleted"]]
        self.control.edit_task(tasks[0]["id"], name=name)


@pytest.fixture
def deployment(place: Path, database: URL) -> Iterator[Deployment]:
    with Sandbox(SandboxOptions(tasks=30, conversations=5)) as box:
        settings = settings_for(box, database, place / "data", pg_dsn=None)
        yield Deployment(box.control, settings.model_copy(update=airtable_settings(box.describe())))


def content(engine: Engine) -> dict[str, list[str]]:
    """Return every row of every table of the mirror, as text in the time zone of nobody."""
    with engine.connect() as connection:
        connection.execute(text("SET timezone = 'UTC'"))
        tables = connection.execute(
            text(
                "SELECT schemaname || '.' || tablename FROM pg_tables"
                " WHERE schemaname = ANY(:schemas) ORDER BY 1"
            ),
            {"schemas": list(SCHEMAS)},
        ).scalars()
        return {
            table: [row[0] for row in connection.execute(text(f"SELECT t::text FROM {table} t ORDER BY 1"))]
            for table in tables.all()
            if table not in CHANGED_BY_STARTING | OF_PROCESSES
        }


def quiet(deployment: Deployment) -> None:
    """Require that a start at which nothing has changed makes no call; files have their own times."""
    assert deployment.once(budget_time_scale=1) == 0
    deployment.settings = deployment.settings.model_copy(update={"budget_time_scale": 10_000})


def test_every_backend_is_a_restart_that_sends_only_what_changed(deployment: Deployment) -> None:
    deployment.once(db_backend="airtable")
    quiet(deployment)

    deployment.edit_one("Order steel")
    assert deployment.once(db_backend="both") == 1

    deployment.edit_one("Order more steel")
    assert deployment.once(db_backend="postgres") == 0

    deployment.edit_one("Order all the steel")
    assert deployment.once(db_backend="both") == 1
    quiet(deployment)


def test_a_pg_dsn_that_appears_takes_everything_along_and_sends_nothing_again(
    deployment: Deployment, empty_database: URL
) -> None:
    deployment.once(db_backend="both")
    with deployment.started() as world:
        deployment.edit_one("Order steel")
        world.sync()  # read, logged as a change, and not published any more
        with world.engine.begin() as connection:
            connection.execute(text(HOOK))
        before = content(world.engine)

    dsn = SecretStr(empty_database.render_as_string(hide_password=False))
    with deployment.started(pg_dsn=dsn) as world:
        after = content(world.engine)
        assert world.engine.url.database == empty_database.database

    assert {table: len(rows) for table, rows in after.items()} == {
        table: len(rows) for table, rows in before.items()
    }
    assert after == before
    for table in ("published", "published_fields", "change_log", "hooks", "checkpoints", "monthly_calls"):
        assert after[f"twm.{table}"], table
    assert deployment.once() == 1
    quiet(deployment)
