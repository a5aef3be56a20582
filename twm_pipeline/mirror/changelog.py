"""Which rows of the people's views have changed since they were last compared with what is published.

Triggers write the log in the transaction of the change, also for rows that only show a name that changed: a
renamed project touches its tasks. It is read and removed row by row, since ids are given before transactions
commit: "everything above the last id seen" would miss rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection, Row

CHANNEL = "twm_changes"
"""Notified at the commit of every change, with the view's name."""

_FUNCTIONS: dict[str, tuple[str, str]] = {
    "teamwork.tasks": ("note_new_rows", "note_changed_tasks"),
    "missive.emails": ("note_new_rows", "note_changed_emails"),
    "missive.conversations": ("note_conversations", "note_conversations"),
    "teamwork.tasklists": ("note_tasklists", "note_tasklists"),
    "teamwork.projects": ("note_projects", "note_projects"),
    "teamwork.people": ("note_names", "note_names"),
    "teamwork.tags": ("note_names", "note_names"),
    "teamwork.companies": ("note_names", "note_names"),
    "teamwork.teams": ("note_names", "note_names"),
}
"""Table → what notes its inserted rows, and its updated ones."""


def follow_changes(connection: Connection, *, wanted: bool) -> bool:
    """Make or remove the triggers that feed the log; return whether that was a change.

    A log that was not fed for a while says nothing about that while: everything has to be compared then.
    """
    count = connection.execute(
        text(
            "SELECT count(*) FROM pg_trigger WHERE tgname IN ('twm_log_insert', 'twm_log_update')"
            " AND NOT tgisinternal"
        )
    ).scalar_one()
    if count == (2 * len(_FUNCTIONS) if wanted else 0):
        return False
    for table, (inserted, updated) in _FUNCTIONS.items():
        for name in ("twm_log_insert", "twm_log_update"):
            connection.execute(text(f"DROP TRIGGER IF EXISTS {name} ON {table}"))
        if wanted:
            for event, tables, function in (
                ("insert", "NEW TABLE AS now_there", inserted),
                ("update", "OLD TABLE AS was_there NEW TABLE AS now_there", updated),
            ):
                connection.execute(
                    text(
                        f"CREATE TRIGGER twm_log_{event} AFTER {event} ON {table} REFERENCING {tables}"
                        f" FOR EACH STATEMENT EXECUTE FUNCTION twm.{function}()"
                    )
                )
    if not wanted:
        connection.execute(text("TRUNCATE twm.change_log"))
    connection.execute(text("UPDATE twm.publications SET compared_at = NULL"))
    return True


def newest_change(connection: Connection) -> int:
    """Return the id of the newest entry there is now; one that commits later may have a smaller one."""
    return int(connection.execute(text("SELECT coalesce(max(id), 0) FROM twm.change_log")).scalar_one())


def read_changes(connection: Connection, view: str, *, limit: int, after: int = 0) -> dict[str, list[int]]:
    """Return the oldest entries about rows of *view*, row by row; they stay until `remove_changes`.

    Args:
        connection: For reading.
        view: The view.
        limit: At most so many entries.
        after: Only entries with a larger id.
    """
    rows = connection.execute(
        text(
            "SELECT id, row_id FROM twm.change_log WHERE view = :view AND id > :after"
            " ORDER BY id LIMIT :limit"
        ),
        {"view": view, "limit": limit, "after": after},
    )
    return _by_row(rows)


def changes_of(connection: Connection, view: str, row_ids: Sequence[str]) -> dict[str, list[int]]:
    """Return the entries about these rows."""
    rows = connection.execute(
        text("SELECT id, row_id FROM twm.change_log WHERE view = :view AND row_id = ANY(:ids)"),
        {"view": view, "ids": list(row_ids)},
    )
    return _by_row(rows)


def _by_row(rows: Iterable[Row[Any]]) -> dict[str, list[int]]:
    entries: dict[str, list[int]] = {}
    for row in rows:
        entries.setdefault(row.row_id, []).append(row.id)
    return entries


def remove_changes(connection: Connection, entry_ids: Sequence[int]) -> None:
    """Remove entries whose rows have been compared; those that came meanwhile stay."""
    if entry_ids:
        connection.execute(text("DELETE FROM twm.change_log WHERE id = ANY(:ids)"), {"ids": list(entry_ids)})


def count_changes(connection: Connection, view: str) -> int:
    """Return how many entries wait."""
    query = text("SELECT count(*) FROM twm.change_log WHERE view = :view")
    return int(connection.execute(query, {"view": view}).scalar_one())
