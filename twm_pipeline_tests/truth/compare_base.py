"""Compare the records of an Airtable base, cell by cell, with the people's views.

Imports nothing of what makes the cells: how a value of a view looks in Airtable is written down here a
second time. Tells ids and names of fields only: the content may belong to other people.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
from psycopg.rows import dict_row

Row = Mapping[str, Any]
Cells = Mapping[str, Any]

LIMIT = 100_000
MARK = re.compile(r" … \[cut here: the whole text has (\d+) characters\]")
BREAKS = re.compile("\r\n|[\r\v\f\x85\u2028\u2029]")
CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")

TABLES = {"tasks": "Tasks", "emails": "Emails"}
KEYS = {"tasks": ("id", "task_id"), "emails": ("Email ID", "email_id")}
LINE, TEXT, LIST, DATA, NUMBER, MARKED, MOMENT = "line", "text", "list", "data", "number", "marked", "moment"
FIELDS: dict[str, dict[str, tuple[str, str]]] = {
    "tasks": {
        "id": ("task_id", LINE),
        "name": ("title", LINE),
        "status": ("status", LINE),
        "priority": ("priority", LINE),
        "description": ("description", TEXT),
        "progress": ("progress", NUMBER),
        "estimateMinutes": ("estimate_minutes", NUMBER),
        "accumulatedEstimatedMinutes": ("accumulated_estimate_minutes", NUMBER),
        "tagIds": ("tag_ids", LIST),
        "tags": ("tags", LIST),
        "assigneeUserIds": ("assignee_ids", LIST),
        "assignees": ("assignees", LIST),
        "projectId": ("project_id", LINE),
        "projectName": ("project_name", LINE),
        "tasklistId": ("tasklist_id", LINE),
        "tasklistName": ("tasklist_name", LINE),
        "parentTask": ("parent_task_id", LINE),
        "startDate": ("start_at", MOMENT),
        "dueDate": ("due_at", MOMENT),
        "updatedAt": ("updated_at", MOMENT),
        "createdAt": ("created_at", MOMENT),
        "dateUpdated": ("updated_at", MOMENT),
        "deletedAt": ("deleted_at", MOMENT),
        "updatedById": ("updated_by_id", LINE),
        "updatedBy": ("updated_by", LINE),
        "createdById": ("created_by_id", LINE),
        "createdBy": ("created_by", LINE),
        "url": ("source_links.teamwork", LINE),
        "completedAt": ("completed_at", MOMENT),
        "deleted": ("deleted", MARKED),
        "inaccessible": ("inaccessible", MARKED),
    },
    "emails": {
        "Email ID": ("email_id", LINE),
        "Thread ID": ("thread_id", LINE),
        "Subject": ("subject", LINE),
        "From": ("from_address", LINE),
        "From Name": ("from_name", LINE),
        "To": ("to_addresses", LIST),
        "To Names": ("to_names", LIST),
        "Cc": ("cc_addresses", LIST),
        "Cc Names": ("cc_names", LIST),
        "Bcc": ("bcc_addresses", LIST),
        "Bcc Names": ("bcc_names", LIST),
        "In Reply To": ("in_reply_to", LIST),
        "Body Text": ("body_text", TEXT),
        "Body HTML": ("body_html", TEXT),
        "Sent At": ("sent_at", MOMENT),
        "Received At": ("received_at", MOMENT),
        "Deleted At": ("deleted_at", MOMENT),
        "Labels Text": ("labels", LIST),
        "Draft": ("draft", MARKED),
        "Deleted": ("deleted", MARKED),
        "Source Links": ("source_links", DATA),
        "URL": ("source_links.missive", LINE),
        "Assignees": ("assignees", LIST),
        "Team": ("team", LINE),
        "Inaccessible": ("inaccessible", MARKED),
    },
}
"""View → field → column (with the member of a JSON column) and how it looks."""
APART = frozenset({"Attachments"})
"""Fields of ours that are compared elsewhere."""


def view_rows(dsn: str, view: str) -> Iterator[Row]:
    """Yield what a view shows."""
    with (
        psycopg.connect(dsn, row_factory=dict_row) as connection,
        connection.cursor(name=f"all_{view}") as cursor,
    ):
        yield from cursor.execute(f"SELECT * FROM public.{view}")


def differences(
    view: str,
    rows: Iterable[Row],
    records: Iterable[Cells],
    *,
    zone: str = "Europe/Berlin",
    categories: Iterable[str] = (),
    strangers: bool = False,
) -> list[str]:
    """Return what differs between a view and the cells of all records of its table.

    Args:
        view: `tasks` or `emails`.
        rows: Of the view.
        records: Cells by field name, without the empty ones.
        zone: In which a bare date is midnight.
        categories: Whose fields are lists by the same name.
        strangers: Whether records that belong to no row are nobody's business.
    """
    key_field, key_column = KEYS[view]
    fields = {**FIELDS[view], **{name: (name, LIST) for name in categories}}
    by_key: dict[str, Cells] = {}
    found: list[str] = []
    counts: Counter[str] = Counter()
    for cells in records:
        key = str(cells.get(key_field))
        counts[key] += 1
        by_key[key] = cells
    found += [f"{view} {key}: {count} records" for key, count in counts.items() if count > 1]
    for row in rows:
        key = str(row[key_column])
        cells = by_key.pop(key, {})
        if not cells:
            found.append(f"{view} {key}: no record")
            continue
        found += [
            f"{view} {key}: {name}"
            for name, (column, kind) in fields.items()
            if not agrees(kind, value_of(row, column), cells.get(name), zone=ZoneInfo(zone))
        ]
        found += [
            f"{view} {key}: {name} is filled"
            for name in cells
            if not strangers and name not in fields and name not in APART
        ]
    if not strangers:
        found += [f"{view} {key}: no row" for key in by_key]
    return found


def value_of(row: Row, column: str) -> Any:
    """Return a column, or a member of a JSON column."""
    name, _, member = column.partition(".")
    value = row[name]
    return (value or {}).get(member) if member else value


def agrees(kind: str, value: Any, cell: Any, *, zone: ZoneInfo) -> bool:
    """Say whether a cell shows what a column holds; an empty cell is None."""
    if kind in (LINE, TEXT, LIST):
        items = value or () if kind == LIST else [value]
        text = ", ".join(found for item in items if (found := as_text(item, line=kind == LINE)))
        return text == (cell or "") or is_cut(text, cell)
    if kind == DATA:
        return not value if cell is None else bool(json.loads(cell) == value)
    if kind == NUMBER:
        return value is None if cell is None else value is not None and float(value) == float(cell)
    if kind == MARKED:
        return bool(value) is (cell is True)
    return as_moment(value, zone) == (None if cell is None else datetime.fromisoformat(cell))


def as_text(value: Any, *, line: bool = False) -> str:
    """Return a text as Airtable can hold it."""
    if value is None:
        return ""
    text = CONTROLS.sub("", BREAKS.sub("\n", str(value)))
    return text.replace("\n", " ").replace("\t", " ") if line else text


def is_cut(text: str, cell: Any) -> bool:
    """Say whether *cell* is the beginning of a text that is too long, and says so."""
    mark = MARK.search(cell or "")
    return (
        mark is not None
        and mark.end() == len(cell)
        and int(mark[1]) == len(text)
        and text.startswith(cell[: mark.start()])
        and units(text) > LIMIT >= units(cell) > LIMIT - 4
    )


def units(text: str) -> int:
    """Return how many units of UTF-16 a text has."""
    return len(text.encode("utf-16-le")) // 2


def as_moment(value: Any, zone: ZoneInfo) -> datetime | None:
    """Return an instant in whole milliseconds; a bare date is midnight."""
    if value is None:
        return None
    if not isinstance(value, datetime):
        assert isinstance(value, date)
        value = datetime(value.year, value.month, value.day, tzinfo=zone)
    moment: datetime = value.astimezone(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
