"""Rows that are gone: missing at first, then deleted or inaccessible, and never removed (DESIGN D5)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from twm_pipeline.mirror.activity import note_written
from twm_pipeline.mirror.refused_rows import update_halving
from twm_pipeline.mirror.tables import TASKS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import Connection

    from twm_pipeline.mirror.tables import Table
    from twm_pipeline.records import Source


MASS_DELETION_SHARE = 0.05
MASS_DELETION_FLOOR = 20
MISSING_WAIT = timedelta(minutes=10)
"""A 404 counts as deletion only when it is still one this much later (D5)."""
HELD_AFTER = MISSING_WAIT + timedelta(minutes=5)
"""What is still missing then was not decided by the polls since, so it is held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Absences:
    """Rows of a table that absence alone would make tombstones (DESIGN D5).

    Args:
        table: The stream's table.
        wanted: Rows that would become tombstones now.
        recent: Rows that became tombstones by absence in the last 24 hours.
        living: Rows of the table that are not deleted.
        since: When the first of them was missed.
    """

    table: Table
    wanted: int
    recent: int
    living: int
    since: datetime | None = None

    @property
    def believed(self) -> int:
        """How many are believed without asking: 5 % of the table, but never fewer than 20."""
        return max(MASS_DELETION_FLOOR, int(self.living * MASS_DELETION_SHARE))

    @property
    def are_held(self) -> bool:
        """Whether they wait until somebody says that it is right."""
        return self.wanted > 0 and self.wanted + self.recent > self.believed

    def describe(self) -> str:
        """Return what is held, why, and what to do."""
        return (
            f"{self.table.source}/{self.table.stream}: {self.wanted} of {self.living} rows are gone at the"
            f" vendor ({self.recent} more within 24 hours), more than the {self.believed} that are believed"
            " without asking: a lost permission looks the same. None of them was marked as deleted. Look at"
            " one or two of them there; if it is right:"
            f" twm reconcile {self.table.source} --confirm-deletions"
        )


def has_missing(connection: Connection, table: Table) -> bool:
    """Return whether any row of *table* is missing: an index answers, where counting reads the table."""
    query = f"SELECT EXISTS (SELECT FROM {table.name} WHERE missing_since IS NOT NULL)"
    return bool(connection.execute(text(query)).scalar_one())


def read_absences(connection: Connection, table: Table, *, wanted: int | None = None) -> Absences:
    """Return what absence would take away: *wanted* rows, or all that have been missing for long."""
    row = connection.execute(
        text(
            "SELECT count(*) FILTER (WHERE NOT deleted) AS living, count(*) FILTER (WHERE deleted AND"
            " deleted_evidence = 'absence' AND synced_at BETWEEN now() - interval '24 hours'"
            " AND now() + interval '24 hours') AS recent,"  # later: the clock was set back since
            " count(*) FILTER (WHERE NOT deleted AND missing_since <= now() - :wait) AS missing,"
            f" min(missing_since) FILTER (WHERE NOT deleted) AS since FROM {table.name}"
        ),
        {"wait": HELD_AFTER},
    ).one()
    return Absences(
        table=table,
        wanted=row.missing if wanted is None else wanted,
        recent=row.recent,
        living=row.living,
        since=row.since,
    )


def tombstone(  # noqa: PLR0913 - a tombstone is one fact with this many parts
    connection: Connection,
    table: Table,
    ids: Sequence[Any],
    *,
    seq: int,
    at: datetime,
    evidence: str,
) -> int:
    """Mark rows deleted unless something newer is stored; return how many changed.

    Args:
        connection: In a transaction.
        table: The stream's table.
        ids: Rows to mark.
        seq: The request that gave the evidence.
        at: When the vendor said so.
        evidence: `absence` is counted against the limit of `MassDeletionError`; see DESIGN D5.
    """
    change = (
        "deleted = true, deleted_at = :at, deleted_evidence = :evidence, observed_seq = :seq,"
        " missing_since = NULL, inaccessible = false, synced_at = now()"
        " WHERE id = ANY(:ids) AND NOT deleted AND observed_seq < :seq"
    )
    count = _update(connection, table, ids, change, at=at, evidence=evidence, seq=seq)
    # Newer evidence against a row already deleted: a look from between the two must not lift the tombstone.
    again = "observed_seq = :seq WHERE id = ANY(:ids) AND deleted AND observed_seq < :seq"
    _update(connection, table, ids, again, seq=seq)
    note_written(connection, table, count)
    return count


def _update(connection: Connection, table: Table, ids: Sequence[Any], change: str, **values: Any) -> int:  # noqa: ANN401 - parameters of a query
    """Update rows by their ids, but those that PostgreSQL refuses; return how many changed."""
    query = text(f"UPDATE {table.name} SET {change}")
    return update_halving(
        connection,
        table,
        list(ids),
        update=lambda some: connection.execute(query, {"ids": some, **values}).rowcount,
    )


def follow_tasks(
    connection: Connection, task_ids: Sequence[int] = (), *, comment_ids: Sequence[int] = ()
) -> int:
    """Bury comments with their task, and bring those back that only their task's deletion had taken away.

    Args:
        connection: In a transaction.
        task_ids: Tasks that may have been deleted or restored.
        comment_ids: Comments to look at, whatever their task.
    """
    result = connection.execute(
        text(
            "UPDATE teamwork.task_comments c SET deleted = t.deleted,"
            " deleted_at = CASE WHEN t.deleted THEN t.deleted_at END,"
            " deleted_evidence = CASE WHEN t.deleted THEN 'parent' END,"
            " observed_seq = greatest(c.observed_seq, t.observed_seq), missing_since = NULL,"
            " synced_at = now()"
            " FROM teamwork.tasks t WHERE t.id = c.task_id AND (t.id = ANY(:tasks) OR c.id = ANY(:comments))"
            " AND ((t.deleted AND NOT c.deleted)"
            " OR (NOT t.deleted AND c.deleted AND c.deleted_evidence = 'parent'))"
        ),
        {"tasks": list(task_ids), "comments": list(comment_ids)},
    )
    return result.rowcount


def mark_missing(connection: Connection, table: Table, ids: Sequence[Any], *, seq: int, at: datetime) -> None:
    """Note that living rows answered 404 or were absent, the first time; a later look decides (D5)."""
    change = (
        "missing_since = :at WHERE id = ANY(:ids) AND NOT deleted AND missing_since IS NULL"
        " AND observed_seq < :seq"
    )
    _update(connection, table, ids, change, at=at, seq=seq)


def mark_inaccessible(connection: Connection, table: Table, ids: Sequence[Any], *, seq: int) -> int:
    """Mark rows that no longer answer while nothing says that they were deleted; return how many changed."""
    change = (
        "inaccessible = true, missing_since = NULL, observed_seq = :seq, synced_at = now()"
        " WHERE id = ANY(:ids) AND NOT deleted AND observed_seq < :seq"
        " AND (NOT inaccessible OR missing_since IS NOT NULL)"
    )
    count = _update(connection, table, ids, change, seq=seq)
    note_written(connection, table, count)
    return count


def without_inaccessible(connection: Connection, table: Table, ids: Sequence[Any]) -> list[Any]:
    """Return those of *ids* that are not shown as inaccessible already."""
    rows = connection.execute(
        text(f"SELECT id FROM {table.name} WHERE id = ANY(:ids) AND NOT inaccessible"), {"ids": list(ids)}
    )
    return [row.id for row in rows]


def among_deleted(connection: Connection, table: Table, ids: Collection[Any]) -> set[Any]:
    """Return those of *ids* whose row is a tombstone."""
    rows = connection.execute(
        text(f"SELECT id FROM {table.name} WHERE id = ANY(:ids) AND deleted"), {"ids": list(ids)}
    )
    return {row.id for row in rows}


def living_among(connection: Connection, table: Table, ids: Collection[Any]) -> list[Any]:
    """Return those of *ids* whose row is shown as living."""
    rows = connection.execute(
        text(f"SELECT id FROM {table.name} WHERE id = ANY(:ids) AND NOT deleted AND NOT inaccessible"),
        {"ids": list(ids)},
    )
    return [row.id for row in rows]


def projects_of(connection: Connection, table: Table, ids: Sequence[int]) -> dict[int, int | None]:
    """Return the project of each known row that lies in one, None where it is not known."""
    query = {
        TASKS: "SELECT t.id, l.project_id FROM teamwork.tasks t"
        " LEFT JOIN teamwork.tasklists l ON l.id = t.tasklist_id WHERE t.id = ANY(:ids)",
    }.get(table, f"SELECT id, project_id FROM {table.name} WHERE id = ANY(:ids)")
    rows = connection.execute(text(query), {"ids": list(ids)})
    return {row.id: row.project_id for row in rows}


def long_missing(connection: Connection, table: Table, *, before: datetime) -> list[Any]:
    """Return ids of living rows that have been missing since *before* or longer."""
    rows = connection.execute(
        text(
            f"SELECT id FROM {table.name} WHERE missing_since <= :before AND NOT deleted"
            " ORDER BY missing_since"
        ),
        {"before": before},
    )
    return [row.id for row in rows]


def count_rows(connection: Connection, table: Table) -> int:
    """Return how many rows of *table* are not deleted."""
    return int(connection.execute(text(f"SELECT count(*) FROM {table.name} WHERE NOT deleted")).scalar_one())


def newest_version(connection: Connection, table: Table) -> datetime | None:
    """Return the newest version among the rows that a complete list must show."""
    query = f"SELECT max(version_at) FROM {table.name} WHERE NOT deleted AND NOT inaccessible"
    newest: datetime | None = connection.execute(text(query + " AND missing_since IS NULL")).scalar()
    return newest


def unknown_ids(connection: Connection, table: Table, ids: Sequence[Any]) -> list[Any]:
    """Return those of *ids* that *table* has no row of."""
    rows = connection.execute(text(f"SELECT id FROM {table.name} WHERE id = ANY(:ids)"), {"ids": list(ids)})
    known = {row.id for row in rows}
    return [item for item in ids if item not in known]


def note_second_looks(connection: Connection, table: Table, ids: Sequence[Any], *, due_at: datetime) -> None:
    """Note objects that answered 404 and have no row that could say so; they are looked at once more (D7)."""
    if ids:
        connection.execute(
            text(
                "INSERT INTO twm.second_looks (source, stream, object_id, due_at)"
                " SELECT :source, :stream, unnest(CAST(:ids AS text[])), :due_at"
                " ON CONFLICT (source, stream, object_id) DO UPDATE SET due_at = excluded.due_at"
            ),
            {
                "source": table.source,
                "stream": table.stream,
                "ids": [str(item) for item in ids],
                "due_at": due_at,
            },
        )


def due_second_looks(
    connection: Connection, source: Source, stream: str, *, now: datetime | None, limit: int = 100
) -> list[str]:
    """Return ids whose second look has come by the vendor's clock."""
    rows = connection.execute(
        text(
            "SELECT object_id FROM twm.second_looks WHERE source = :source AND stream = :stream"
            " AND due_at <= :now ORDER BY due_at LIMIT :limit"
        ),
        {"source": source, "stream": stream, "now": now, "limit": limit},
    )
    return [row.object_id for row in rows]


def forget_second_looks(connection: Connection, source: Source, stream: str, ids: Sequence[str]) -> None:
    """Forget second looks that have been taken."""
    connection.execute(
        text(
            "DELETE FROM twm.second_looks WHERE source = :source AND stream = :stream"
            " AND object_id = ANY(:ids)"
        ),
        {"source": source, "stream": stream, "ids": list(ids)},
    )


def tasks_below(connection: Connection, stream: str, ids: Sequence[int], *, limit: int) -> list[int]:
    """Return living tasks of task lists or projects (*stream*), the latest updated first."""
    column = {"tasklists": "t.tasklist_id", "projects": "l.project_id"}[stream]
    rows = connection.execute(
        text(
            "SELECT t.id FROM teamwork.tasks t LEFT JOIN teamwork.tasklists l ON l.id = t.tasklist_id"
            f" WHERE {column} = ANY(:ids) AND NOT t.deleted ORDER BY t.updated_at DESC LIMIT :limit"
        ),
        {"ids": list(ids), "limit": limit},
    )
    return [row.id for row in rows]


def next_observation(connection: Connection) -> int:
    """Return a number in the order of observation, as a request would draw it that is sent now (D4)."""
    return int(connection.execute(text("SELECT nextval('twm.observed_seq')")).scalar_one())
