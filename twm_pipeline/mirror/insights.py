"""What insights are made from, and where they are kept: only rows that people see count."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from twm_pipeline.mirror.views import category_columns

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import Connection

    from twm_pipeline.records import Json

ROWS_AT_ONCE = 20_000

_SHOWN = "NOT deleted AND NOT inaccessible"
_TASK_DAYS = {
    "tasks_created": ("t.created_at", "t.created_by_id", "public.tasks t"),
    "tasks_completed": (
        "t.completed_at",
        "r.completed_by_id",
        "public.tasks t JOIN teamwork.tasks r ON r.id = t.task_id",
    ),
    "tasks_reopened": (
        "o.reopened_at",
        "NULL::bigint",
        "insights.reopenings o JOIN public.tasks t ON t.task_id = o.task_id",
    ),
}
_MAILS = """
    public.emails e JOIN missive.emails r ON r.id = e.email_id
    WHERE NOT e.deleted AND NOT e.inaccessible AND NOT e.draft AND e.sent_at IS NOT NULL
"""
_MAIL_DAYS = {
    "mails_in": f"{_MAILS} AND r.author_id IS NULL",
    "mails_out": f"{_MAILS} AND r.author_id IS NOT NULL",
}

Count = tuple[Any, str, str, str, str | None, int]
"""Day, what is counted, dimension, key, name, how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measure:
    """Something that is counted.

    Args:
        name: Its column in `insights.daily_activity`.
        day: SQL of the day on which a row counts.
        rows: SQL of the rows, with a condition at its end.
    """

    name: str
    day: str
    rows: str

    def per(self, dimension: str, *, key: str = "''", name: str = "NULL::text") -> str:
        """Return the query that counts per day and *key*."""
        return (
            f"SELECT {self.day} AS day, '{self.name}' AS what, '{dimension}' AS dimension, {key} AS key,"
            f" max({name}) AS name, count(*)::int AS count FROM {self.rows}"
            f" AND {self.day} IS NOT NULL AND {key} IS NOT NULL GROUP BY 1, 4"
        )

    def per_category(self, columns: Mapping[str, str], *, row: str) -> list[str]:
        """Return a query for each category, of rows with a label of it."""
        queries = []
        for category, column in columns.items():
            name = "'" + category.replace("'", "''").replace(":", r"\:") + "'"
            quoted = row + '."' + column.replace('"', '""').replace(":", r"\:") + '"'
            chosen = replace(self, rows=f"{self.rows} AND cardinality({quoted}) > 0")
            queries.append(chosen.per("category", key=name, name=name))
        return queries


def count_days(connection: Connection, *, zone: str) -> list[Count]:
    """Return how much happened on each day of *zone*: in all, and per project, person and category."""
    categories = category_columns(connection).living
    parts: list[str] = []
    for what, (moment, person, rows) in _TASK_DAYS.items():
        shown = f"{rows} WHERE NOT t.deleted AND NOT t.inaccessible"
        measure = _Measure(name=what, day=f"({moment} AT TIME ZONE :zone)::date", rows=shown)
        parts += [measure.per("all"), measure.per("person", key=f"({person})::text")]
        parts.append(measure.per("project", key="t.project_id::text", name="t.project_name"))
        parts += measure.per_category(categories["tasks"], row="t")
    for what, rows in _MAIL_DAYS.items():
        measure = _Measure(name=what, day="(e.sent_at AT TIME ZONE :zone)::date", rows=rows)
        parts.append(measure.per("all"))
        parts.append(measure.per("person", key="r.author_id", name="r.author_name"))  # of incoming ones: none
        parts += measure.per_category(categories["emails"], row="e")
    query = (
        "SELECT d.day, d.what, d.dimension, d.key, coalesce(d.name, nullif(p.name, '')), d.count FROM ("
        + " UNION ALL ".join(parts)
        + ") d LEFT JOIN teamwork.people p ON d.dimension = 'person' AND d.key = p.id::text"
    )
    found = connection.execute(text(query), {"zone": zone})
    return [(row[0], row[1], row[2], row[3], row[4], row[5]) for row in found]


def first_replies(connection: Connection) -> Iterator[Sequence[Any]]:
    """Yield (thread, asked at, replied at, author's id and name) of each thread that somebody wrote to.

    The question is the first message from outside; the reply is the first of ours after it. Messages that
    are sent by themselves cannot be told apart: Missive does not mark them.
    """
    query = f"""
        WITH m AS (
            SELECT e.thread_id, e.sent_at, r.author_id, e.author_name
            FROM {_MAILS} AND e.thread_id IS NOT NULL
        ), asked AS (
            SELECT thread_id, min(sent_at) AS asked_at FROM m WHERE author_id IS NULL GROUP BY thread_id
        ), replied AS (
            SELECT DISTINCT ON (m.thread_id) m.* FROM m JOIN asked a USING (thread_id)
            WHERE m.author_id IS NOT NULL AND m.sent_at > a.asked_at ORDER BY m.thread_id, m.sent_at
        )
        SELECT a.thread_id, a.asked_at, r.sent_at, r.author_id, r.author_name
        FROM asked a LEFT JOIN replied r USING (thread_id) ORDER BY a.thread_id
    """
    yield from _streamed(connection, query)


def task_rows(connection: Connection) -> Iterator[Sequence[Any]]:
    """Yield (id, project, its name, status, created, completed, due) of each task that people see."""
    yield from _streamed(
        connection,
        "SELECT task_id, project_id, project_name, status, created_at, completed_at, due_at"
        f" FROM public.tasks WHERE {_SHOWN} ORDER BY task_id",
    )


def _streamed(connection: Connection, query: str) -> Iterator[Sequence[Any]]:
    rows = connection.execution_options(yield_per=ROWS_AT_ONCE).execute(text(query))
    for part in rows.partitions():
        yield [tuple(row) for row in part]


class Replacement:
    """New content of one insight's table, beside the old one until the transaction ends.

    Args:
        connection: In a transaction.
        table: The table's name in the schema `insights`.
        columns: All of its columns, those of the key first.
        key: How many of them are the key.
    """

    def __init__(self, connection: Connection, table: str, columns: Sequence[str], *, key: int) -> None:
        self.connection = connection
        self.table = f"insights.{table}"
        self.columns, self.key = columns, key
        self.draft = f"pg_temp.new_{table}"
        connection.execute(text(f"CREATE TEMPORARY TABLE {self.draft} (LIKE {self.table}) ON COMMIT DROP"))

    def add(self, rows: Iterable[Sequence[Any]]) -> None:
        """Add rows, in the order of the columns."""
        driver = self.connection.connection.driver_connection
        names = ", ".join(self.columns)
        with driver.cursor().copy(f"COPY {self.draft} ({names}) FROM STDIN") as copy:  # type: ignore[union-attr]  # psycopg's
            for row in rows:
                copy.write_row(row)

    def finish(self) -> int:
        """Make the table equal what was added, writing only rows that differ; return how many did."""
        keys = ", ".join(self.columns[: self.key])
        rest = self.columns[self.key :]
        names = ", ".join(self.columns)
        same = " AND ".join(f"n.{name} = t.{name}" for name in self.columns[: self.key])
        gone = self.connection.execute(
            text(f"DELETE FROM {self.table} t WHERE NOT EXISTS (SELECT FROM {self.draft} n WHERE {same})")
        )
        sets = ", ".join(f"{name} = excluded.{name}" for name in rest)
        old, new = (", ".join(f"{side}.{name}" for name in rest) for side in ("t", "excluded"))
        written = self.connection.execute(
            text(
                f"INSERT INTO {self.table} AS t ({names}) SELECT {names} FROM {self.draft}"
                f" ON CONFLICT ({keys}) DO UPDATE SET {sets} WHERE ({old}) IS DISTINCT FROM ({new})"
            )
        )
        return gone.rowcount + written.rowcount


def save_plot(connection: Connection, name: str, png: bytes) -> None:
    """Keep a picture for whoever shows it."""
    connection.execute(
        text(
            "INSERT INTO insights.plots (name, png) VALUES (:name, :png)"
            " ON CONFLICT (name) DO UPDATE SET png = excluded.png, made_at = now()"
        ),
        {"name": name, "png": png},
    )


def list_plots(connection: Connection) -> list[Json]:
    """Return the pictures' names and when each was made."""
    rows = connection.execute(text("SELECT name, made_at FROM insights.plots ORDER BY name"))
    return [dict(row) for row in rows.mappings()]


def load_plot(connection: Connection, name: str) -> bytes | None:
    """Return a picture as a PNG; None where there is none of that name."""
    png = connection.scalar(text("SELECT png FROM insights.plots WHERE name = :name"), {"name": name})
    return bytes(png) if png is not None else None
