"""How many rows were written when: what charts and counters show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from twm_pipeline.mirror.tables import Table
    from twm_pipeline.records import Source

CHART_HOURS = 24
KEPT_DAYS = 2
"""Batches older than this are folded into one row an hour and stream: 90 changes an hour are many batches."""


def note_written(connection: Connection, table: Table, rows: int) -> None:
    """Note, in the transaction that does it, that *rows* of *table* were written."""
    if rows:
        connection.execute(
            text("INSERT INTO twm.activity (source, stream, rows) VALUES (:source, :stream, :rows)"),
            {"source": table.source, "stream": table.stream, "rows": rows},
        )


def fold_activity(connection: Connection) -> None:
    """Make the old batches of each hour one row; the sums stay what they were."""
    connection.execute(
        text(
            "WITH old AS (DELETE FROM twm.activity WHERE NOT folded"
            " AND at < date_trunc('hour', now()) - make_interval(days => :days) RETURNING *)"
            " INSERT INTO twm.activity (source, stream, rows, at, folded)"
            " SELECT source, stream, sum(rows), date_trunc('hour', at), true FROM old GROUP BY 1, 2, 4"
        ),
        {"days": KEPT_DAYS},
    )


def read_hours(connection: Connection, source: Source) -> list[int]:
    """Return the rows of *source* written in each of the last hours, the present one last."""
    return list(
        connection.scalars(
            text(
                "SELECT coalesce(sum(a.rows), 0)::bigint"
                " FROM generate_series(:hours - 1, 0, -1) AS ago"
                " LEFT JOIN twm.activity a ON NOT a.folded AND a.source = :source"
                " AND a.at >= date_trunc('hour', now()) - make_interval(hours => ago)"
                " AND a.at < date_trunc('hour', now()) - make_interval(hours => ago - 1)"
                " GROUP BY ago ORDER BY ago DESC"
            ),
            {"hours": CHART_HOURS, "source": source},
        )
    )


def read_written(connection: Connection) -> dict[str, dict[str, int]]:
    """Return how many rows of each source and stream were written since the mirror exists; it never falls."""
    query = text("SELECT source, stream, sum(rows)::bigint AS rows FROM twm.activity GROUP BY 1, 2")
    written: dict[str, dict[str, int]] = {}
    for row in connection.execute(query):
        written.setdefault(row.source, {})[row.stream] = row.rows
    return written
