"""A mirror that is published, and the base as its vendor holds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import text

from twm_pipeline.mirror.changelog import count_changes, follow_changes
from twm_pipeline.sandbox import SandboxControl
from twm_pipeline_tests.publishing import Reports, airtable_settings, base_differences, publish
from twm_pipeline_tests.sync.accounts import Account

# -- a base ----------------------------------------------------------------------------------------------


@dataclass
class Base:
    """A mirror of the sandbox's accounts that is published to its Airtable."""

    account: Account
    seen: int = 0

    @property
    def control(self) -> SandboxControl:
        return self.account.control

    def publish(self, **options: Any) -> Reports:
        return publish(self.account.engine, self.account.settings, **options)

    def tasks(self, **options: Any) -> Any:
        """Publish the tasks and return their figures."""
        return self.publish(views=("tasks",), **options)["tasks"]

    def sync(self) -> None:
        """Read both vendors, names included."""
        self.account.sync("teamwork", directories=True)
        self.account.sync("missive")

    def requests(self) -> list[dict[str, Any]]:
        """Return Airtable's requests since the last time."""
        rows = self.control.requests("airtable", since=self.seen)
        self.seen += len(rows)
        return rows

    def records(self, table: str = "Tasks") -> dict[str, dict[str, Any]]:
        """Return the cells of a table's records by their ids."""
        return {
            row["id"]: row["cells"] for row in self.control.truth("airtable_record") if row["table"] == table
        }

    def tables(self) -> dict[str, list[str]]:
        """Return the names of the fields of every table."""
        return {
            row["name"]: [field["name"] for field in row["fields"]]
            for row in self.control.truth("airtable_table")
        }

    def record_of(self, task_id: int) -> str:
        """Return the one record of a task."""
        [found] = [key for key, cells in self.records().items() if cells.get("id") == str(task_id)]
        return found

    def cells_of(self, task_id: int) -> dict[str, Any]:
        return self.records()[self.record_of(task_id)]

    def task_ids(self, condition: str = "true") -> list[int]:
        return [
            row.task_id
            for row in self.account.query(
                f"SELECT task_id FROM public.tasks WHERE {condition} ORDER BY task_id"
            )
        ]

    def set_aside(self) -> dict[str, str]:
        rows = self.account.query("SELECT object_id, reason FROM twm.set_aside WHERE source = 'airtable'")
        return {row.object_id: row.reason for row in rows}

    def waits(self) -> int:
        """Return how many changes wait to be published."""
        with self.account.engine.connect() as connection:
            return sum(count_changes(connection, view) for view in ("tasks", "emails"))

    def execute(self, statement: str, **values: Any) -> None:
        with self.account.engine.begin() as connection:
            connection.execute(text(statement), values)

    def edit(self, task_id: int, **fields: Any) -> None:
        """Change a task at the vendor and read it."""
        self.control.edit_task(task_id, **fields)
        self.account.sync("teamwork")

    def differences(self, **options: Any) -> list[str]:
        return base_differences(self.account.engine, self.control, **options)


def base_of(account: Account) -> Base:
    """Return an account that is read and followed, its base untouched."""
    base = Base(account.change(**airtable_settings(account.box.describe())))
    with account.engine.begin() as connection:
        follow_changes(connection, wanted=True)
    base.sync()
    return base


def refuse_one(base: Base) -> int:
    """Change ten rows, one of them so that it is refused, and return that one."""
    bad, *good = base.task_ids("NOT deleted")[:10]
    for item in good:
        base.control.edit_task(item, name="Order steel")
    base.edit(bad, name="Order steel", priority="low")
    return bad
