"""The two views for people, `public.tasks` and `public.emails`: names instead of ids, a column per category.

Users build their own views on these, so a view is only ever replaced, never dropped: what it already shows
keeps its place, and whatever is new comes last (DESIGN 5).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sqlalchemy import text

from twm_pipeline.labels import to_regex

if TYPE_CHECKING:
    from sqlalchemy import Connection

View = Literal["tasks", "emails"]

_TASK_COLUMNS = {
    "task_id": "t.id",
    "project_id": "l.project_id",
    "project_name": "p.name",
    "tasklist_id": "t.tasklist_id",
    "tasklist_name": "l.name",
    "title": "t.title",
    "description": "t.description",
    "status": "t.status",
    "priority": "t.priority",
    "progress": "t.progress",
    "tags": "n.tags",
    "tag_ids": "t.tag_ids",
    "assignees": "n.assignees",
    "assignee_ids": "t.assignee_ids",
    "parent_task_id": "t.parent_task_id",
    "start_at": "t.start_date",
    "due_at": "t.due_date",
    "estimate_minutes": "t.estimate_minutes",
    "created_at": "t.created_at",
    "created_by": "coalesce(nullif(cr.name, ''), cr.email, t.created_by_id::text)",
    "updated_at": "t.updated_at",
    "updated_by": "coalesce(nullif(up.name, ''), up.email, t.updated_by_id::text)",
    "completed_at": "t.completed_at",
    "source_links": "jsonb_build_object('teamwork', s.link_base || '/app/tasks/' || t.id)",
    "deleted": "t.deleted",
    "deleted_at": "t.deleted_at",
    "inaccessible": "t.inaccessible",
    "accumulated_estimate_minutes": "t.accumulated_estimate_minutes",
    "created_by_id": "t.created_by_id",
    "updated_by_id": "t.updated_by_id",
    "synced_at": "t.synced_at",
}

# Names are looked up by position, so the n-th name belongs to the n-th id; what is unknown shows its bare id.
_TASK_FROM = """
    FROM teamwork.tasks t
    LEFT JOIN twm.sources s ON s.source = 'teamwork'
    LEFT JOIN teamwork.tasklists l ON l.id = t.tasklist_id
    LEFT JOIN teamwork.projects p ON p.id = l.project_id
    LEFT JOIN teamwork.people cr ON cr.id = t.created_by_id
    LEFT JOIN teamwork.people up ON up.id = t.updated_by_id
    CROSS JOIN LATERAL (SELECT
        ARRAY(
            SELECT coalesce(g.name, i.id::text) FROM unnest(t.tag_ids) WITH ORDINALITY AS i (id, place)
            LEFT JOIN teamwork.tags g ON g.id = i.id ORDER BY i.place
        ) AS tags,
        ARRAY(
            SELECT coalesce(nullif(h.name, ''), h.email, m.name, c.name, i.id::text)
            FROM unnest(t.assignee_ids, t.assignee_types) WITH ORDINALITY AS i (id, type, place)
            LEFT JOIN teamwork.people h ON i.type = 'users' AND h.id = i.id
            LEFT JOIN teamwork.teams m ON i.type = 'teams' AND m.id = i.id
            LEFT JOIN teamwork.companies c ON i.type = 'companies' AND c.id = i.id
            ORDER BY i.place
        ) AS assignees
    ) n
    WHERE NOT t.out_of_scope
"""

_EMAIL_COLUMNS = {
    "email_id": "e.id",
    "thread_id": "e.conversation_id",
    "subject": "e.subject",
    "from_address": "e.from_address",
    "from_name": "e.from_name",
    "to_addresses": "e.to_addresses",
    "to_names": "e.to_names",
    "cc_addresses": "e.cc_addresses",
    "cc_names": "e.cc_names",
    "bcc_addresses": "e.bcc_addresses",
    "bcc_names": "e.bcc_names",
    "in_reply_to": "e.in_reply_to",
    "body_text": "e.body_text",
    "body_html": "e.body_html",
    # Missive knows one instant of a message, its delivery; one with an author was written here.
    "sent_at": "CASE WHEN NOT e.draft THEN e.delivered_at END",
    "received_at": "CASE WHEN e.author_id IS NULL AND NOT e.draft THEN e.delivered_at END",
    "labels": "coalesce(c.label_names, '{}')",
    "draft": "e.draft",
    "attachments": "e.attachments",
    "source_links": "jsonb_strip_nulls(jsonb_build_object('missive', c.web_url, 'app', c.app_url))",
    "deleted": "e.deleted OR coalesce(c.deleted, false)",
    "deleted_at": "CASE WHEN e.deleted THEN e.deleted_at WHEN c.deleted THEN c.deleted_at END",
    "inaccessible": "e.inaccessible OR coalesce(c.inaccessible, false)",
    "type": "e.type",
    "message_id": "e.email_message_id",
    "created_at": "e.created_at",
    "updated_at": "e.updated_at",
    "author_name": "e.author_name",
    "assignees": "coalesce(c.assignee_names, '{}')",
    "team": "c.team_name",
    "synced_at": "greatest(e.synced_at, c.synced_at)",
}

_EMAIL_FROM = """
    FROM missive.emails e
    LEFT JOIN missive.conversations c ON c.id = e.conversation_id
    WHERE NOT e.out_of_scope
"""


def apply_views(connection: Connection) -> None:
    """Create or replace both views with the stored categories as columns."""
    categories = {
        row.category: tuple(row.patterns)
        for row in connection.execute(
            text("SELECT category, patterns FROM twm.label_categories ORDER BY position")
        )
    }
    for view, columns, source, labels in (
        ("tasks", _TASK_COLUMNS, _TASK_FROM, "n.tags"),
        ("emails", _EMAIL_COLUMNS, _EMAIL_FROM, "coalesce(c.label_names, '{}')"),
    ):
        wanted = {**_category_columns(categories, labels=labels, taken=columns), **columns}
        shown = _shown_columns(connection, view)
        ordered = [*shown, *(name for name in (*columns, *wanted) if name not in shown)]
        select = ",\n    ".join(
            f"{wanted.get(name, 'NULL::text[]')} AS {_quote(name)}" for name in dict.fromkeys(ordered)
        )
        statement = f"CREATE OR REPLACE VIEW public.{view} AS SELECT\n    {select}\n{source}"
        _replace_if_changed(connection, view, statement)


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryColumns:
    """Which column of each view shows a category: those of the file, and those that it has no more."""

    living: dict[View, dict[str, str]]
    retired: dict[View, dict[str, str]]


def category_columns(connection: Connection) -> CategoryColumns:
    """Return the categories' columns, by view and category."""
    patterns = {
        row.category: bool(row.patterns)
        for row in connection.execute(
            text("SELECT category, patterns FROM twm.label_categories ORDER BY position")
        )
    }
    columns: dict[View, dict[str, str]] = {
        "tasks": _category_names(patterns, taken=_TASK_COLUMNS),
        "emails": _category_names(patterns, taken=_EMAIL_COLUMNS),
    }

    def chosen(*, living: bool) -> dict[View, dict[str, str]]:
        return {
            view: {name: column for name, column in names.items() if patterns[name] is living}
            for view, names in columns.items()
        }

    return CategoryColumns(living=chosen(living=True), retired=chosen(living=False))


def _replace_if_changed(connection: Connection, view: str, statement: str) -> None:
    """Replace a view whose definition changed: replacing waits for every reader, so not without need."""
    mark = "twm_pipeline " + hashlib.sha256(statement.encode()).hexdigest()
    known = connection.execute(
        text("SELECT obj_description(to_regclass(:view), 'pg_class')"), {"view": f"public.{view}"}
    ).scalar()
    if known != mark:
        connection.exec_driver_sql(statement.replace("%", "%%"))
        connection.exec_driver_sql(f"COMMENT ON VIEW public.{view} IS '{mark}'")
        # No trigger tells which rows show something else now.
        connection.execute(
            text("UPDATE twm.publications SET compared_at = NULL WHERE view = :view"), {"view": view}
        )
        connection.execute(text("SELECT pg_notify('twm_changes', :view)"), {"view": view})


def _category_columns(
    categories: dict[str, tuple[str, ...]], *, labels: str, taken: dict[str, str]
) -> dict[str, str]:
    """Return column → expression."""
    columns = {}
    for name, column in _category_names(categories, taken=taken).items():
        expression = to_regex(categories[name]).replace("'", "''")
        columns[column] = f"ARRAY(SELECT x FROM unnest({labels}) AS x WHERE x ~ '{expression}')"
    return columns


def _category_names(categories: Iterable[str], *, taken: dict[str, str]) -> dict[str, str]:
    """Return category → column; one named like a column of the view gets a suffix of its own."""
    names = dict.fromkeys(categories)
    columns = {}
    for name in names:
        column = name
        while column in taken or (column != name and column in names):
            column += " (category)"
        columns[name] = column
    return columns


def _shown_columns(connection: Connection, view: str) -> list[str]:
    rows = connection.execute(
        text(
            "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(:view) AND attnum > 0"
            " AND NOT attisdropped ORDER BY attnum"
        ),
        {"view": f"public.{view}"},
    )
    return [row.attname for row in rows]


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
