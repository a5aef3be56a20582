"""What people do to an Airtable base, and what fate does to the token."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from twm_pipeline.sandbox.airtable import Airtable
from twm_pipeline.sandbox.airtable_account import ROLES, SCOPES, USER
from twm_pipeline.sandbox.airtable_cells import COMPUTED, Writing
from twm_pipeline.sandbox.airtable_errors import RefusedError
from twm_pipeline.sandbox.airtable_files import attachment_truth
from twm_pipeline.sandbox.airtable_limits import RECORDS_PER_BASE
from twm_pipeline.sandbox.airtable_links import connect
from twm_pipeline.sandbox.airtable_old_base import build_old_base, fill
from twm_pipeline.sandbox.airtable_rows import record_row
from twm_pipeline.sandbox.airtable_schema import PLAIN, WITH_OPTIONS, Rules, field_row
from twm_pipeline.sandbox.airtable_store import Base, Field, Record, Table, copied
from twm_pipeline.sandbox.airtable_writes import Change, NewCells, Writer, delete

Row = dict[str, Any]
Made = TypeVar("Made")
Rows = Callable[[str], list[Row]]
ENDLESS = 10**9


class AirtableActions:
    """The control plane's side of Airtable. Tables and fields are named by id or name.

    Args:
        airtable: The account.
        old_rows: Returns what an earlier connector had written into the table `Emails` or `Tasks`.
    """

    def __init__(self, airtable: Airtable, *, old_rows: Rows) -> None:
        self.airtable = airtable
        self.account = airtable.account
        self._old_rows = old_rows

    def actions(self) -> dict[str, Callable[..., Any]]:
        """Return the actions by name."""
        files = self.airtable.files
        named: dict[str, Callable[..., Any]] = {
            "create": self.create,
            "edit": self.edit,
            "delete": self.delete,
            "duplicate": self.duplicate,
            "wipe": self.wipe,
            "add_table": self.add_table,
            "rename_table": self.rename_table,
            "delete_table": self.delete_table,
            "add_field": self.add_field,
            "rename_field": self.rename_field,
            "retype_field": self.retype_field,
            "delete_field": self.delete_field,
            "lock_field": self.lock_field,
            "create_base": self.create_base,
            "prepare_old_base": self.prepare_old_base,
            "set_scopes": self.set_scopes,
            "set_role": self.set_role,
            "set_access": self.set_access,
            "set_plan": self.set_plan,
            "set_quota": self.set_quota,
            "expire_iterators": self.airtable.records.iterators.expire,
            "fail_attachments": files.fail,
            "hold_attachments": files.hold,
            "release_attachments": files.release,
            "wait_for_attachments": files.wait,
        }
        return {f"airtable_{name}": action for name, action in named.items()}

    @property
    def base(self) -> Base:
        """Return the base the token was made for."""
        return self.account.base

    @property
    def now(self) -> float:
        """Return the account's time."""
        return self.airtable.clock.time()

    # Rows.

    def create(self, *, table: str, fields: Row) -> str:
        """Add a row as a user and return its id."""
        return self._write(self.base.table(table), None, fields).id

    def edit(self, *, table: str, record_id: str, fields: Row) -> None:
        """Change cells as a user; null empties one."""
        found = self.base.table(table)
        self._write(found, found.records[record_id], fields)

    def _write(self, table: Table, record: Record | None, fields: Row) -> Record:
        writing = Writing(base=self.base, answers=self.account.answers, typecast=True)
        writer = Writer(self.base, table, writing=writing, now=self.now, most_records=ENDLESS)
        try:
            changes = [Change(record=record, cells=writer.cells(fields))]
            return writer.apply(changes, fetch=self.airtable.files.fetch)[0]
        except RefusedError as error:
            raise ValueError(f"{error.type}: {error.message}") from None

    def delete(self, *, table: str, record_ids: Sequence[str]) -> None:
        """Delete rows."""
        found = self.base.table(table)
        for key in record_ids:
            delete(self.base, found, key, now=self.now)

    def duplicate(self, *, table: str, record_id: str) -> str:
        """Duplicate a row and return the new one's id."""
        found = self.base.table(table)
        cells: NewCells = {
            key: copied(cell, self.base.ids) for key, cell in found.records[record_id].cells.items()
        }
        return found.insert(self.base.ids("rec"), cells, now=self.now).id

    def wipe(self, *, tables: bool = False) -> int:
        """Delete all rows, with *tables* everything; return how many rows there were."""
        count = self.base.record_count
        for table in list(self.base.tables.values()):
            for key in list(table.records):
                table.remove(key)
        if tables:
            self.base.tables.clear()
        return count

    # Tables and fields.

    def add_table(self, *, name: str, fields: Sequence[Row]) -> str:
        """Add a table as a user and return its id."""
        table = self._checked(lambda: self._rules.new_table({"name": name, "fields": fields}))
        self.base.tables[table.id] = table
        return table.id

    def rename_table(self, *, table: str, name: str) -> None:
        """Rename a table."""
        found = self.base.table(table)
        found.name = self._checked(lambda: self._rules.table_name(name, besides=found))

    def delete_table(self, *, table: str) -> None:
        """Delete a table, and the links to it."""
        gone = self.base.tables.pop(self.base.table(table).id)
        for other in self.base.tables.values():
            for item in list(other.fields.values()):
                if item.options.get("linkedTableId") == gone.id:
                    other.remove_field(item.id)

    def add_field(self, *, table: str, name: str, type: str, options: Row | None = None) -> str:  # noqa: A002 - Airtable's word
        """Add a field of any type, computed ones too, as a user; return its id."""
        found = self.base.table(table)
        taken = list(found.fields.values())
        item = Field(
            id=self.base.ids("fld"),
            name=self._checked(lambda: self._rules.field_name(name, besides=taken)),
            type=type,
            options=self._options(type, options),
        )
        found.fields[item.id] = item
        if type == "multipleRecordLinks":
            connect(self.base, found, item)
        return item.id

    def rename_field(self, *, table: str, field: str, name: str) -> None:
        """Rename a field."""
        found = self.base.table(table)
        item = self._field(found, field)
        others = [other for other in found.fields.values() if other is not item]
        item.name = self._checked(lambda: self._rules.field_name(name, besides=others))

    def retype_field(self, *, table: str, field: str, type: str, options: Row | None = None) -> None:  # noqa: A002 - Airtable's word
        """Give a field another type; cells that do not fit it are emptied."""
        found = self.base.table(table)
        item = self._field(found, field)
        item.type, item.options = type, self._options(type, options)
        found.forget_indexes()
        for record in found.records.values():
            cell = record.cells.pop(item.id, None)
            try:
                self._write(found, record, {} if type in COMPUTED else {item.id: cell})
            except ValueError:
                continue

    def delete_field(self, *, table: str, field: str) -> None:
        """Delete a field."""
        found = self.base.table(table)
        item = self._field(found, field)
        if item.id == found.primary_field_id:
            raise ValueError("the primary field cannot be deleted")
        found.remove_field(item.id)

    def lock_field(self, *, table: str, field: str, locked: bool = True) -> None:
        """Let the token's user write a field no more, or again."""
        self._field(self.base.table(table), field).locked = locked

    @property
    def _rules(self) -> Rules:
        return self.airtable.meta.rules(self.base)

    @staticmethod
    def _field(table: Table, name: str) -> Field:
        found = table.find_field(name)
        if found is None:
            raise LookupError(f"no field {name!r}")
        return found

    def _options(self, kind: str, options: Row | None) -> Row:
        if kind in COMPUTED:
            return copy.deepcopy(options or {})
        if kind not in PLAIN and kind not in WITH_OPTIONS:
            raise ValueError(f"unknown type {kind!r}")
        return self._checked(lambda: self._rules.options(kind, options))

    @staticmethod
    def _checked(action: Callable[[], Made]) -> Made:
        try:
            return action()
        except RefusedError as error:
            raise ValueError(f"{error.type}: {error.message}") from None

    # Whole bases.

    def create_base(self, *, name: str) -> str:
        """Give the token one more base, an empty one, and return its id."""
        ids = self.account.ids
        base = Base(id=ids("app"), name=name, ids=ids, collaborators=(USER,))
        self.account.bases[base.id] = base
        return base.id

    def prepare_old_base(
        self,
        *,
        rows: int | None = None,
        time_zone: str = "Europe/Berlin",
        categories: Sequence[str] = (),
    ) -> dict[str, int]:
        """Build the base as an earlier connector left it; return the rows of each table.

        Args:
            rows: At most so many from either vendor; None for all.
            time_zone: Of the columns with a time.
            categories: Names of columns for categories.
        """
        options: dict[str, Any] = {"time_zone": time_zone, "categories": categories, "now": self.now}
        tables = self._checked(lambda: build_old_base(self.base, self._rules, **options))
        for name, table in tables.items():
            fill(self.base, table, self._old_rows(name)[:rows], now=self.now)
        return {name: len(table.records) for name, table in tables.items()}

    # The token.

    def set_scopes(self, *, scopes: Sequence[str] = SCOPES) -> None:
        """Give the token exactly these scopes."""
        if not set(scopes) <= set(SCOPES):
            raise ValueError(f"unknown scope; known: {SCOPES}")
        self.account.scopes = set(scopes)

    def set_role(self, *, role: str) -> None:
        """Give the token's user another role: `read`, `comment`, `edit`, `create` or `owner`."""
        if role not in ROLES:
            raise ValueError(f"unknown role {role!r}; known: {ROLES}")
        self.account.role = role

    def set_access(self, *, granted: bool) -> None:
        """Take the base from the token, or give it back."""
        self.account.granted = granted

    def set_plan(self, *, plan: str) -> None:
        """Change the workspace's plan: `free`, `team` or `business`."""
        if plan not in RECORDS_PER_BASE:
            raise ValueError(f"unknown plan {plan!r}; known: {tuple(RECORDS_PER_BASE)}")
        self.account.plan = plan

    def set_quota(self, *, calls: int | None) -> None:
        """Leave so many calls for this month; None for no limit."""
        self.airtable.quota.left = calls

    # The truth.

    def truth(self) -> Iterator[Row]:
        """Yield every table and every record, with cells by field name."""
        for table in list(self.base.tables.values()):
            fields = [field_row(item) for item in table.fields.values()]
            yield {"kind": "airtable_table", "id": table.id, "name": table.name, "fields": fields}
            for record in list(table.records.values()):
                row = record_row(self.base, table, record, attachment_row=attachment_truth)
                yield {
                    "kind": "airtable_record",
                    "table_id": table.id,
                    "table": table.name,
                    "id": row["id"],
                    "created_at": row["createdTime"],
                    "cells": row["fields"],
                }
