"""Which rows are to be compared with the vendor next, and what became of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from twm_pipeline.mirror.findings import MOMENTS
from twm_pipeline.mirror.tables import COMMENTS, CONVERSATIONS, EMAILS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from twm_pipeline.mirror.tables import Table

QUIET = "1 hour"
"""Rows changed later than this ago are not sampled."""
UNPOLLED = "10 minutes"
"""A change later than this ago is the next poll's to find."""
_CHILDREN = (EMAILS, COMMENTS)


def next_sample(connection: Connection, table: Table, *, limit: int) -> list[Any]:
    """Return the next ids in their order; behind the last one, the first ones follow the next time."""
    after = connection.execute(
        text("SELECT sampled_until FROM twm.check_positions WHERE source = :source AND stream = :stream"),
        {"source": table.source, "stream": table.stream},
    ).scalar_one_or_none()
    is_number = table.source == "teamwork"
    first: Any = int(after or -1) if is_number else (after or "")
    rows = connection.execute(
        text(
            f"SELECT id FROM {table.name} WHERE id > :after AND NOT deleted AND NOT inaccessible"
            " AND missing_since IS NULL"
            f" AND coalesce({MOMENTS[table]}, '-infinity') < now() - interval '{QUIET}'"
            " ORDER BY id LIMIT :limit"
        ),
        {"after": first, "limit": limit},
    )
    return list(rows.scalars())


def save_sampled(connection: Connection, table: Table, ids: Sequence[Any], *, limit: int) -> None:
    """Note that *ids* were compared; fewer than *limit* were the last ones."""
    connection.execute(
        text(
            "INSERT INTO twm.check_positions AS p (source, stream, sampled_until)"
            " VALUES (:source, :stream, :until)"
            " ON CONFLICT (source, stream) DO UPDATE SET sampled_until = excluded.sampled_until"
        ),
        {
            "source": table.source,
            "stream": table.stream,
            "until": str(ids[-1]) if len(ids) == limit else None,
        },
    )


def count_sampled(
    connection: Connection, table: Table, ids: Sequence[Any], *, since: datetime
) -> tuple[int, int]:
    """Return how many rows stand for *ids* (those below a conversation too), and how many of them differed.

    Args:
        connection: To the mirror.
        table: The sampled one.
        ids: The sample.
        since: When it began to be read: what was stored later differed before.
    """
    quiet = list(
        connection.execute(
            text(
                f"SELECT id FROM {table.name} WHERE id = ANY(:ids)"
                f" AND coalesce({MOMENTS[table]}, '-infinity')"
                f" < CAST(:since AS timestamptz) - interval '{UNPOLLED}'"
            ),
            {"ids": list(ids), "since": since},
        ).scalars()
    )
    looked, differing = 0, 0
    for each, key in [(table, "id"), *((child, "conversation_id") for child in _children_of(table))]:
        row = connection.execute(
            text(
                "SELECT count(*), count(*) FILTER (WHERE synced_at >= :since OR missing_since IS NOT NULL)"
                f" FROM {each.name} WHERE {key} = ANY(:ids) AND (NOT deleted OR synced_at >= :since)"
            ),
            {"ids": quiet, "since": since},
        ).one()
        looked, differing = looked + row[0], differing + row[1]
    return looked, differing


def _children_of(table: Table) -> tuple[Table, ...]:
    return _CHILDREN if table is CONVERSATIONS else ()
