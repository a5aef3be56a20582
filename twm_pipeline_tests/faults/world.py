"""Both simulated vendors and a mirror of them, for tests that break what lies between."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from sqlalchemy import URL, Engine, text

from twm_pipeline.errors import TwmError
from twm_pipeline.records import SOURCES, Source
from twm_pipeline.sandbox import Sandbox, SandboxControl
from twm_pipeline.settings import Settings, load_settings
from twm_pipeline.sync.engine import PassOptions, PassReport
from twm_pipeline.sync.reconcile import ReconcileOptions
from twm_pipeline.sync.window import Window, run_reconcile
from twm_pipeline_tests.truth.compare_truth import differences

SECOND_LOOK_SECONDS = 601
TABLES = (
    *(
        f"teamwork.{name}"
        for name in (
            *("tasks", "projects", "tasklists", "people", "tags", "companies", "teams"),
            *("time_entries", "task_comments"),
        )
    ),
    *(f"missive.{name}" for name in ("conversations", "emails", "comments", "conversation_aliases")),
    *(f"missive.{name}" for name in ("shared_labels", "users", "teams")),
)
PATIENCE = 12
TICK_SECONDS = 0.005
MOST_SILENT_TICKS = 1500
SHOWN = 12


@dataclass
class World:
    """A sandbox, a mirror, and what people and operators do with them."""

    control: SandboxControl
    engine: Engine
    settings: Settings
    reports: list[PassReport] = field(default_factory=list)

    def sync(self, *sources: Source, options: PassOptions | None = None) -> None:
        """Run passes until no history is left."""
        for source in sources or SOURCES:
            window = Window(self.engine, self.settings, source, 0, on_report=self.reports.append)
            window.run(options or PassOptions())

    def insist(self, *sources: Source) -> list[TwmError]:
        """Run passes as `sync` does, again after an error, and return the errors."""
        errors: list[TwmError] = []
        for source in sources or SOURCES:
            for _ in range(PATIENCE):
                try:
                    self.sync(source)
                except TwmError as error:
                    errors.append(error)
                else:
                    break
        return errors

    def reconcile(self, *sources: Source, confirm: bool = False, full: bool = False) -> list[PassReport]:
        """Sweep sources completely; return the reports."""
        options = ReconcileOptions(confirm_deletions=confirm, full=full)
        return [
            run_reconcile(self.engine, self.settings, source, options=options)[1]
            for source in sources or SOURCES
        ]

    def settle(self, *sources: Source, full: bool = False) -> None:
        """Give the mirror its chance: a clean pass, a reconcile, and the second look ten minutes later.

        The second look confirms deletions: storms delete more of a small account than is believed unasked.

        Args:
            sources: Both where none is named.
            full: Do not wait for the turn of quiet conversations, where a sweep reads not all of them.
        """
        self.control.clear_faults()
        self.sync(*sources)
        self.reconcile(*sources, full=full)
        self.control.advance(SECOND_LOOK_SECONDS)
        self.reconcile(*sources, confirm=True, full=full)

    def differences(self, *sources: Source) -> list[str]:
        """Return what differs from the sandbox's truth."""
        return differences(self.control.truth(), dsn_of(self.engine.url), sources=sources or SOURCES)

    def assert_true(self, *sources: Source) -> None:
        """Require that the mirror equals the truth."""
        found = self.differences(*sources)
        assert not found, "\n".join([f"{len(found)} differences", *found[:SHOWN]])

    def assert_checkpoints_are_honest(self) -> None:
        """Require that nothing is missing below a checkpoint, or of a conversation that counts as read."""
        head = self.scalar("SELECT last_event_time FROM twm.checkpoints WHERE stream = 'tasks' AND feed = ''")
        stored = self.column("SELECT id FROM teamwork.tasks")
        for row in self.control.truth("task"):
            below = head is not None and datetime.fromtimestamp(row["updated_at"], UTC) < head
            assert row["id"] in stored or not below or row["deleted"] or not row["visible"], row["id"]
        head = self.scalar(
            "SELECT last_event_time FROM twm.checkpoints WHERE stream = 'conversations' AND feed = 'all'"
            " AND last_cursor -> 'gaps' = '[]'"
        )
        stored = self.column("SELECT id FROM missive.emails")
        read = self.column(
            "SELECT id || ' ' || extract(epoch FROM children_read_at) FROM missive.conversations"
        )
        for row in self.control.truth("conversation"):
            below = head is not None and datetime.fromtimestamp(row["last_activity_at"], UTC) < head
            if is_plain(row) and (below or f"{row['id']} {row['last_activity_at']}.000000" in read):
                assert set(row["message_ids"]) <= stored, row["id"]

    def column(self, query: str) -> set[Any]:
        """Return the values of a query with one column."""
        with self.engine.connect() as connection:
            return set(connection.execute(text(query)).scalars())

    def empty(self, source: Source) -> None:
        """Forget what was read of a source, as before its first pass."""
        tables = [table for table in TABLES if table.startswith(source)]
        with self.engine.begin() as connection:
            connection.execute(text(f"TRUNCATE {', '.join(tables)}"))
            connection.execute(text("DELETE FROM twm.checkpoints WHERE source = :source"), {"source": source})

    def versions(self) -> dict[str, list[Any]]:
        """Return the place and writer of every row: equal means that nothing was rewritten."""
        with self.engine.connect() as connection:
            return {
                table: list(
                    connection.execute(text(f"SELECT ctid::text, xmin::text FROM {table} ORDER BY 1"))
                )
                for table in TABLES
            }

    def scalar(self, query: str, **values: Any) -> Any:
        """Return one value from the mirror."""
        with self.engine.connect() as connection:
            return connection.execute(text(query), values).scalar()

    def ids(self, kind: str, test: Callable[[dict[str, Any]], bool] = lambda _: True) -> list[Any]:
        """Return ids of the truth's rows of one kind."""
        return [row["id"] for row in self.control.truth(kind) if test(row)]


def wait_for_requests(control: SandboxControl, count: int) -> None:
    """Return when the vendors have been asked *count* times, or nobody has asked for long."""
    never = threading.Event()
    last, silent = -1, 0
    while (now := control.request_count()) < count and silent < MOST_SILENT_TICKS:
        silent = silent + 1 if now == last else 0
        last = now
        never.wait(TICK_SECONDS)


def is_living(row: dict[str, Any]) -> bool:
    """Return whether a task exists and can be read."""
    return bool(row["visible"] and not row["deleted"])


def is_plain(row: dict[str, Any]) -> bool:
    """Return whether a conversation is in no other mailbox than people's own."""
    return bool(row["visible"] and not (row["guest"] or row["trashed"] or row["junked"]))


def dsn_secret(url: URL) -> SecretStr:
    """Return the address of a database as a setting."""
    return SecretStr(url.render_as_string(hide_password=False))


def dsn_of(url: URL) -> str:
    """Return the address of a database for psycopg."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def settings_for(box: Sandbox, database: URL, folder: Path, **overrides: Any) -> Settings:
    """Return the settings of a deployment that talks to *box* and mirrors into *database*."""
    values = {
        "teamwork_base_url": box.teamwork_url,
        "teamwork_api_key": box.teamwork_key,
        "missive_base_url": box.missive_url,
        "missive_api_token": box.missive_token,
        "pg_dsn": database.render_as_string(hide_password=False),
        "twm_data_dir": folder,
        "budget_time_scale": 10_000,
    }
    return load_settings(**{**values, **overrides})
