"""What was published of each row of a view, so that only what differs is sent (DESIGN D2, G4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from twm_pipeline.mirror.tables import EMAILS, TASKS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from sqlalchemy import Connection

    from twm_pipeline.records import Json

ERROR_CHARACTERS = 1000
"""Of why publishing failed, as it is kept."""
COMPARE_BEAT = timedelta(days=1)
"""So often everything is compared with what was published, should the change log ever have missed a row."""
KEYS = {"tasks": "task_id", "emails": "email_id"}
"""View → its key."""
TABLES = {"tasks": TASKS, "emails": EMAILS}
"""View → the table that holds its rows, one each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One row as it was last published.

    Args:
        row_id: Its key in the view.
        record_id: Of its record; None: it has none, or none that is known.
        cells_hash: Digest of its cells; None: it has to be written again.
    """

    row_id: str
    record_id: str | None
    cells_hash: bytes | None


def rows_of_view(connection: Connection, view: str, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """Return those rows of *view* that it shows, by their keys as texts."""
    key = KEYS[view]
    values: list[Any] = [int(item) for item in ids] if view == "tasks" else list(ids)
    rows = connection.execute(text(f"SELECT * FROM public.{view} WHERE {key} = ANY(:ids)"), {"ids": values})
    return {str(row[key]): dict(row) for row in rows.mappings()}


def count_rows(connection: Connection, view: str) -> int:
    """Return how many rows *view* shows."""
    return int(connection.execute(text(f"SELECT count(*) FROM public.{view}")).scalar_one())


def next_ids(connection: Connection, view: str, *, after: str | None, limit: int) -> list[str]:
    """Return the keys of what is to be compared next; a hidden row may have been published."""
    table = TABLES[view]
    query = text(f"SELECT id FROM {table.name} WHERE id > :after ORDER BY id LIMIT :limit")
    first = after or ("-1" if table is TASKS else "")
    values = {"after": int(first) if table is TASKS else first, "limit": limit}
    return [str(row.id) for row in connection.execute(query, values)]


def load_published(connection: Connection, base: str, view: str, ids: Sequence[str]) -> dict[str, Published]:
    """Return what was published of rows, by their keys."""
    rows = connection.execute(
        text(
            "SELECT row_id, record_id, cells_hash FROM twm.published"
            " WHERE base = :base AND view = :view AND row_id = ANY(:ids)"
        ),
        {"base": base, "view": view, "ids": list(ids)},
    )
    return {row.row_id: Published(**row._mapping) for row in rows}  # noqa: SLF001 - SQLAlchemy's public name for it


def save_published(connection: Connection, base: str, view: str, rows: Iterable[Published]) -> None:
    """Store what was just published, in the transaction that removes the changes it answers."""
    rows = list(rows)
    same = "p.record_id = excluded.record_id"  # the files are those of the record: another one has none
    _release_records(connection, base, view, rows)
    for row in rows:
        connection.execute(
            text(
                "INSERT INTO twm.published AS p (base, view, row_id, record_id, cells_hash)"
                " VALUES (:base, :view, :row_id, :record_id, :cells_hash)"
                " ON CONFLICT (base, view, row_id) DO UPDATE SET cells_hash = excluded.cells_hash,"
                f" attachments_hash = CASE WHEN {same} THEN p.attachments_hash END,"
                f" attachments_sent_at = CASE WHEN {same} THEN p.attachments_sent_at END,"
                f" attachments_due_at = CASE WHEN {same} THEN p.attachments_due_at END,"
                f" attachments_tries = CASE WHEN {same} THEN p.attachments_tries ELSE 0 END,"
                " record_id = excluded.record_id, published_at = now()"
            ),
            {
                "base": base,
                "view": view,
                "row_id": row.row_id,
                "record_id": row.record_id,
                "cells_hash": row.cells_hash,
            },
        )


def _release_records(connection: Connection, base: str, view: str, rows: Sequence[Published]) -> None:
    """Take records from rows that they do not show any more: a user gave them the key of another row.

    The rows that lose them are compared again.
    """
    connection.execute(
        text(
            "WITH released AS (UPDATE twm.published p SET record_id = NULL, cells_hash = NULL"
            " FROM unnest(CAST(:records AS text[]), CAST(:ids AS text[])) AS n (record_id, row_id)"
            " WHERE p.base = :base AND p.record_id = n.record_id"
            " AND (p.view, p.row_id) <> (:view, n.row_id) RETURNING p.view, p.row_id)"
            " INSERT INTO twm.change_log (view, row_id) SELECT view, row_id FROM released"
        ),
        {
            "base": base,
            "view": view,
            "records": [row.record_id for row in rows],
            "ids": [row.row_id for row in rows],
        },
    )


def count_published(connection: Connection, base: str, view: str) -> int:
    """Return how many rows have a record."""
    query = text(
        "SELECT count(*) FROM twm.published WHERE base = :base AND view = :view AND record_id IS NOT NULL"
    )
    return int(connection.execute(query, {"base": base, "view": view}).scalar_one())


def next_published(
    connection: Connection, base: str, view: str, *, after: str, limit: int
) -> list[Published]:
    """Return rows that have a record, in the order of their keys as texts."""
    rows = connection.execute(
        text(
            "SELECT row_id, record_id, cells_hash FROM twm.published WHERE base = :base AND view = :view"
            " AND record_id IS NOT NULL AND row_id > :after ORDER BY row_id LIMIT :limit"
        ),
        {"base": base, "view": view, "after": after, "limit": limit},
    )
    return [Published(**row._mapping) for row in rows]  # noqa: SLF001 - SQLAlchemy's public name for it


def published_by_record(
    connection: Connection, base: str, view: str, record_ids: Sequence[str]
) -> list[Published]:
    """Return the rows that these records show; those of the users show none."""
    rows = connection.execute(
        text(
            "SELECT row_id, record_id, cells_hash FROM twm.published"
            " WHERE base = :base AND view = :view AND record_id = ANY(:ids)"
        ),
        {"base": base, "view": view, "ids": list(record_ids)},
    )
    return [Published(**row._mapping) for row in rows]  # noqa: SLF001 - SQLAlchemy's public name for it


def write_again(connection: Connection, base: str, view: str, ids: Sequence[str], *, is_gone: bool) -> None:
    """Have rows published again whose records show something else, or are gone."""
    connection.execute(
        text(
            "WITH again AS (UPDATE twm.published SET cells_hash = NULL,"
            " record_id = CASE WHEN NOT :is_gone THEN record_id END"
            " WHERE base = :base AND view = :view AND row_id = ANY(:ids) RETURNING row_id)"
            " INSERT INTO twm.change_log (view, row_id) SELECT :view, row_id FROM again"
        ),
        {"base": base, "view": view, "ids": list(ids), "is_gone": is_gone},
    )


def forget_published(connection: Connection, base: str, view: str, ids: Sequence[str]) -> None:
    """Forget rows that are shown no longer and whose record is removed."""
    connection.execute(
        text("DELETE FROM twm.published WHERE base = :base AND view = :view AND row_id = ANY(:ids)"),
        {"base": base, "view": view, "ids": list(ids)},
    )


def load_layout(connection: Connection, base: str, view: str) -> tuple[str | None, dict[str, str]]:
    """Return the table's id and the fields' ids by our names, as far as they are known."""
    rows = connection.execute(
        text("SELECT field, field_id FROM twm.published_fields WHERE base = :base AND view = :view"),
        {"base": base, "view": view},
    )
    fields = {row.field: row.field_id for row in rows}
    return fields.pop("", None), fields


def save_layout(
    connection: Connection, base: str, view: str, *, table_id: str, fields: Mapping[str, str]
) -> None:
    """Store the table's id and the fields' ids, replacing what was known."""
    values = {"base": base, "view": view}
    connection.execute(text("DELETE FROM twm.published_fields WHERE base = :base AND view = :view"), values)
    for field, field_id in {"": table_id, **fields}.items():
        connection.execute(
            text(
                "INSERT INTO twm.published_fields (base, view, field, field_id)"
                " VALUES (:base, :view, :field, :field_id)"
            ),
            {**values, "field": field, "field_id": field_id},
        )


def forget_records(connection: Connection, base: str, view: str) -> None:
    """Forget which records show the rows: the table is another one."""
    connection.execute(
        text("DELETE FROM twm.published WHERE base = :base AND view = :view"), {"base": base, "view": view}
    )


def forget_files(connection: Connection, base: str) -> None:
    """Forget what files the records hold: their field was made anew."""
    connection.execute(
        text(
            "UPDATE twm.published SET attachments_hash = NULL, attachments_sent_at = NULL,"
            " attachments_due_at = NULL, attachments_tries = 0 WHERE base = :base AND view = 'emails'"
        ),
        {"base": base},
    )


def forget_cells(connection: Connection, base: str, view: str) -> None:
    """Forget what the records hold: a field of theirs was made anew, so all of them are written again."""
    connection.execute(
        text("UPDATE twm.published SET cells_hash = NULL WHERE base = :base AND view = :view"),
        {"base": base, "view": view},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """The state of one view in one base.

    Args:
        spec_hash: Digest of the fields it was set up for; None: never.
        is_compared: Whether everything was compared within the last day and since the change log is fed.
        check_cursor: Where the next sample goes on.
        check_wanted: The look at the base that is asked for: `sample` or `whole`.
        check_found: What the last one found.
    """

    spec_hash: bytes | None = None
    is_compared: bool = False
    check_cursor: str | None = None
    check_wanted: str | None = None
    check_found: Json | None = None


def load_publication(connection: Connection, base: str, view: str) -> Publication:
    """Return the state, an empty one before the first time."""
    row = connection.execute(
        text(
            "SELECT spec_hash, coalesce(compared_at BETWEEN now() - :beat AND clock_timestamp(), false)"
            " AS is_compared, check_cursor, check_wanted, check_found"
            " FROM twm.publications WHERE base = :base AND view = :view"
        ),
        {"base": base, "view": view, "beat": COMPARE_BEAT},
    ).one_or_none()
    return Publication(**row._mapping) if row else Publication()  # noqa: SLF001 - SQLAlchemy's public name for it


def note_set_up(connection: Connection, base: str, view: str, *, spec_hash: bytes | None) -> None:
    """Note for which fields the base was set up; everything has to be compared anew."""
    connection.execute(
        text(
            "INSERT INTO twm.publications (base, view, spec_hash) VALUES (:base, :view, :spec_hash)"
            " ON CONFLICT (base, view) DO UPDATE SET spec_hash = excluded.spec_hash, compared_at = NULL"
        ),
        {"base": base, "view": view, "spec_hash": spec_hash},
    )


def note_compared(connection: Connection, base: str, view: str) -> None:
    """Note that everything was compared."""
    connection.execute(
        text("UPDATE twm.publications SET compared_at = now() WHERE base = :base AND view = :view"),
        {"base": base, "view": view},
    )


def add_calls(connection: Connection, account: str, calls: int) -> int:
    """Add to the calls of this month (UTC) and return their number."""
    return int(
        connection.execute(
            text(
                "INSERT INTO twm.monthly_calls AS m (account, month, calls)"
                " VALUES (:account, date_trunc('month', now() AT TIME ZONE 'UTC')::date, :calls)"
                " ON CONFLICT (account, month) DO UPDATE SET calls = m.calls + excluded.calls RETURNING calls"
            ),
            {"account": account, "calls": calls},
        ).scalar_one()
    )


def note_exhausted(connection: Connection, account: str, *, exhausted: bool) -> None:
    """Remember that the month's quota is used up, or that an operator says it no longer is."""
    add_calls(connection, account, 0)
    connection.execute(
        text(
            "UPDATE twm.monthly_calls SET exhausted_at = CASE WHEN :exhausted THEN now() END"
            " WHERE account = :account AND month = date_trunc('month', now() AT TIME ZONE 'UTC')::date"
        ),
        {"account": account, "exhausted": exhausted},
    )


def note_publishing(connection: Connection, base: str, *, error: str | None) -> None:
    """Remember why publishing failed, or that it works."""
    statement = (
        "DELETE FROM twm.publishing_errors WHERE base = :base"
        if error is None
        else "INSERT INTO twm.publishing_errors (base, reason) VALUES (:base, :reason)"
        " ON CONFLICT (base) DO UPDATE SET reason = excluded.reason, last_at = now()"
    )
    connection.execute(text(statement), {"base": base, "reason": (error or "")[:ERROR_CHARACTERS]})


def publishing_error(connection: Connection, base: str) -> tuple[str, datetime] | None:
    """Return why publishing failed last, and when; None: it works."""
    query = text("SELECT reason, last_at FROM twm.publishing_errors WHERE base = :base")
    row = connection.execute(query, {"base": base}).one_or_none()
    return (row.reason, row.last_at) if row else None


def month_of_calls(connection: Connection, account: str) -> tuple[int, bool]:
    """Return this month's calls, and whether the quota is known to be used up."""
    row = connection.execute(
        text(
            "SELECT calls, exhausted_at IS NOT NULL AS exhausted FROM twm.monthly_calls"
            " WHERE account = :account AND month = date_trunc('month', now() AT TIME ZONE 'UTC')::date"
        ),
        {"account": account},
    ).one_or_none()
    return (row.calls, row.exhausted) if row else (0, False)
