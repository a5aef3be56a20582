"""The columns of each table as Dagster shows them, made from the records that fill them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import get_type_hints

import dagster as dg

from twm_pipeline.mirror.tables import JSON_COLUMNS, Table
from twm_pipeline.records import Record

_TYPES = {
    "str": "text",
    "int": "integer",
    "bool": "boolean",
    "bytes": "bytea",
    "date": "date",
    "datetime": "timestamp with time zone",
    "list[int]": "bigint[]",
    "list[str]": "text[]",
}

_BOOKKEEPING = (
    ("raw", "jsonb", "The vendor's JSON as it came; `twm reparse` fills new columns from it"),
    ("content_hash", "bytea", "Digest of the JSON without what changes by itself; equal: nothing is written"),
    ("version_at", "timestamp with time zone", "The vendor's own version of the row, where it has one"),
    ("observed_seq", "bigint", "Number of the request that saw this state; the newest wins"),
    ("deleted", "boolean", "Whether the row is a tombstone: gone at the vendor, kept here"),
    ("deleted_at", "timestamp with time zone", "When it was deleted, as far as the vendor says"),
    ("deleted_evidence", "text", "What proved the deletion: `vendor`, `absence`, `merged`, `parent`"),
    ("missing_since", "timestamp with time zone", "First time it was not found; a later look decides"),
    ("inaccessible", "boolean", "No longer readable, while nothing says that it was deleted"),
    ("synced_at", "timestamp with time zone", "When this row was last written"),
)
_DESCRIPTIONS = {
    "id": "The vendor's id",
    "updated_at": "When the vendor last changed it",
    "out_of_scope": "Hidden from the people's views by a start date or an exclusion, or with its task",
    "logged_at": "When the work was done, in UTC",
    "person_id": "Who did the work; who wrote it down is `logged_by_id`",
    "task_id": "The task it lies on, if it lies on one",
    "tasklist_id": "Its task list; the project is found through it",
    "parent_task_id": "The task it is a part of",
    "assignee_types": "`users`, `teams` or `companies`, in the order of `assignee_ids`",
    "children_read_at": "The `last_activity_at` at which its messages and comments were read",
    "merged_into": "The conversation it was merged into",
    "stub_hash": "Digest of the message's row in the list; the body is read again only when it moves",
    "body_text": "The body as readable text",
    "label_names": "Shared labels, with the names they have now",
    "start_date": "A day without a time",
    "due_date": "A day without a time",
    "progress": "In percent",
    "assignee_ids": "Whom it is assigned to",
    "tag_ids": "Their names are in `teamwork.tags`",
    "minutes": "How long the work took",
    "web_url": "Where people open it in a browser",
    "app_url": "Where people open it in the app",
    "last_activity_at": "When something happened in it last; the vendor lists by it",
    "delivered_at": "When it was delivered or sent",
    "email_message_id": "The mail's own Message-ID",
    "body_html": "The body as HTML",
    "preview": "How the body begins",
    "attachments": "Its files; where each is stored says `missive.attachments`",
}
_EXTRA = {
    "tasks": (("out_of_scope", "boolean"),),
    "time_entries": (("out_of_scope", "boolean"),),
    "task_comments": (("out_of_scope", "boolean"),),
    "emails": (("out_of_scope", "boolean"),),
    "people": (("name", "text"),),
    "conversations": (
        ("children_read_at", "timestamp with time zone"),
        ("merged_into", "text"),
    ),
}
"""Columns that no record fills: computed here."""


def column_schema(table: Table) -> dg.TableSchema:
    """Return the columns of *table* with their PostgreSQL types: the vendor's first, then our books."""
    return dg.TableSchema(columns=[*_record_columns(table), *_extra_columns(table), *_book_columns()])


def _record_columns(table: Table) -> Iterator[dg.TableColumn]:
    common = {item.name for item in fields(Record)} - {"id"}
    hints = get_type_hints(table.record, localns=_local_names())
    for name in table.columns:
        if name not in common:
            unique = dg.TableColumnConstraints(nullable=False, unique=True) if name == "id" else None
            yield dg.TableColumn(
                name=name,
                type=_sql_type(table, name, str(hints[name])),
                description=_DESCRIPTIONS.get(name),
                constraints=unique,
            )


def _local_names() -> dict[str, object]:
    from datetime import date, datetime  # noqa: PLC0415 - names that the records know to type checkers only

    return {"date": date, "datetime": datetime}


def _sql_type(table: Table, name: str, hint: str) -> str:
    if name == "id":
        return "text" if table.source == "missive" else "bigint"
    if name in JSON_COLUMNS:
        return "jsonb"
    word = hint.removesuffix(" | None").replace("datetime.", "").removeprefix("<class '").removesuffix("'>")
    if word == "int" and name.endswith("_id"):
        return "bigint"
    return _TYPES[word]


def _extra_columns(table: Table) -> Iterator[dg.TableColumn]:
    for name, kind in _EXTRA.get(table.stream, ()):
        yield dg.TableColumn(name=name, type=kind, description=_DESCRIPTIONS.get(name))


def _book_columns() -> Iterator[dg.TableColumn]:
    for name, kind, description in _BOOKKEEPING:
        yield dg.TableColumn(name=name, type=kind, description=description)
