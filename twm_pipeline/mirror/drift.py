"""Which fields the vendors send, and of which kinds: what was never seen before is told (schema drift).

Nothing is lost by a field that no parser knows: every row keeps the vendor's JSON in `raw`, and `twm reparse`
fills a new column from it. Rows are looked at after they were stored, so that reading them costs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from twm_pipeline.mirror.findings import Finding

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection, Engine

    from twm_pipeline.mirror.tables import Table
    from twm_pipeline.records import Json

ROWS_PER_LOOK = 2000
ROWS_AT_ONCE = 100
DEPTH = 3
NEWS_DAYS = 7
"""So long a field that is new is told of."""
SHOWN_FIELDS = 5
MOST_FIELDS = 2000
"""Of one stream; a vendor that uses ids as keys in a form not known here must not fill the table."""

_KINDS = {bool: "boolean", int: "number", float: "number", str: "string"}
_ID = re.compile(r"[0-9]+|[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}|.{65,}|.*[@\s].*", re.DOTALL)
"""A key that is a value: an id, an address, a text. It is noted as `*`."""

Field = tuple[str, str]
"""Where a value stands, such as `assignees[].id`, and its kind."""


def fields_of(row: Json) -> set[Field]:
    """Return the fields of one row, down to `DEPTH` levels; null and empty lists have no kind."""
    return set(_walk(row, "", DEPTH))


def _walk(value: Any, place: str, depth: int) -> Iterator[Field]:  # noqa: ANN401 - any JSON value
    if isinstance(value, dict):
        if place:
            yield place, "object"
        if depth:
            for key, item in value.items():
                name = "*" if _ID.fullmatch(key) else key
                yield from _walk(item, f"{place}.{name}" if place else name, depth - 1)
    elif isinstance(value, list):
        yield place, "list"
        for item in value:
            yield from _walk(item, f"{place}[]", depth)
    elif value is not None:
        yield place, _KINDS[type(value)]


def note_fields(engine: Engine, table: Table) -> int:
    """Look at the rows of *table* written since the last look, and note fields; return how many rows.

    Where more than `ROWS_PER_LOOK` were written, the newest are looked at; so are set-aside records.
    """
    with engine.begin() as connection:
        since, is_first = _position(connection, table)
        until = connection.execute(text("SELECT now()")).scalar_one()
        known = _known(connection, table)
        seen: set[Field] = set()
        count = 0
        for row in _recent(connection, table, since):
            seen |= fields_of(row)
            count += 1
        if not count:
            return 0
        fresh = sorted(seen - known)[: max(MOST_FIELDS - len(known), 0)]
        _store(connection, table, fresh, is_baseline=is_first)
        _touch(connection, table, seen & known)
        _save_position(connection, table, until)
    return count


def find_fields(connection: Connection, table: Table) -> Finding:
    """Return which fields the vendor began to send lately, or sends with values of another kind."""
    rows = connection.execute(
        text(
            "SELECT n.field, n.kind,"
            " (SELECT string_agg(k.kind, ' or ' ORDER BY k.kind) FROM twm.vendor_fields k"
            "  WHERE (k.source, k.stream, k.field) = (n.source, n.stream, n.field)"
            "  AND k.first_seen_at < n.first_seen_at) AS before, count(*) OVER () AS total"
            " FROM twm.vendor_fields n WHERE n.source = :source AND n.stream = :stream AND NOT n.is_baseline"
            " AND n.first_seen_at > now() - make_interval(days => :days)"
            " ORDER BY before NULLS LAST, n.first_seen_at, n.field LIMIT :limit"
        ),
        {"source": table.source, "stream": table.stream, "days": NEWS_DAYS, "limit": SHOWN_FIELDS},
    ).all()
    total = rows[0].total if rows else 0
    told = ", ".join(
        f"{row.field} ({row.kind}{f', before: {row.before}' if row.before else ', new'})" for row in rows
    )
    words = f"{total:,} fields that {table.source.capitalize()} did not send before: {told}."
    return Finding(
        asset=(table.source, table.stream),
        check="fields_are_known",
        verdict="warning" if total else "ok",
        text=f"{words} Nothing is lost (`raw` has it); look whether a column should show it"
        if total
        else "no field is new",
        figures={"new_fields": total},
    )


def _position(connection: Connection, table: Table) -> tuple[datetime | None, bool]:
    """Return up to when rows were looked at, and whether they never were; one process at once looks."""
    values = {"source": table.source, "stream": table.stream}
    connection.execute(
        text(
            "INSERT INTO twm.check_positions (source, stream) VALUES (:source, :stream)"
            " ON CONFLICT DO NOTHING"
        ),
        values,
    )
    # Later than now: the clock was set back since, and what was written after that lies before it.
    since = connection.execute(
        text(
            "SELECT CASE WHEN fields_seen_until > now() THEN now() - interval '1 day' ELSE fields_seen_until"
            " END FROM twm.check_positions WHERE source = :source AND stream = :stream FOR UPDATE"
        ),
        values,
    ).scalar_one()
    return since, since is None


def _save_position(connection: Connection, table: Table, until: datetime) -> None:
    connection.execute(
        text(
            "UPDATE twm.check_positions SET fields_seen_until = :until"
            " WHERE source = :source AND stream = :stream"
        ),
        {"source": table.source, "stream": table.stream, "until": until},
    )


def _recent(connection: Connection, table: Table, since: datetime | None) -> Iterator[Json]:
    """Give rows as the vendor sent them; few are in memory at once (bodies are large).

    The first time they are from anywhere in the table, later the newest ones.
    """
    order = "hashtext(id || '')" if since is None else "synced_at DESC"
    condition = "true" if since is None else "synced_at >= :since"
    query = f"SELECT id FROM {table.name} WHERE {condition} ORDER BY {order} LIMIT :limit"
    ids = list(connection.execute(text(query), {"since": since, "limit": ROWS_PER_LOOK}).scalars())
    for start in range(0, len(ids), ROWS_AT_ONCE):
        some = text(f"SELECT raw FROM {table.name} WHERE id = ANY(:ids)")
        yield from _objects(connection.execute(some, {"ids": ids[start : start + ROWS_AT_ONCE]}).scalars())
    unusable = text(
        "SELECT raw FROM twm.set_aside WHERE source = :source AND stream = :stream AND raw IS NOT NULL"
        " AND (CAST(:since AS timestamptz) IS NULL OR last_at >= :since) ORDER BY last_at DESC LIMIT :limit"
    )
    values = {"source": table.source, "stream": table.stream, "since": since, "limit": ROWS_AT_ONCE}
    yield from _objects(connection.execute(unusable, values).scalars())


def _objects(values: Iterable[Any]) -> Iterator[Json]:
    return (value for value in values if isinstance(value, dict))


def _known(connection: Connection, table: Table) -> set[Field]:
    rows = connection.execute(
        text("SELECT field, kind FROM twm.vendor_fields WHERE source = :source AND stream = :stream"),
        {"source": table.source, "stream": table.stream},
    )
    return {(row.field, row.kind) for row in rows}


def _store(connection: Connection, table: Table, fresh: Iterable[Field], *, is_baseline: bool) -> None:
    for name, kind in fresh:
        connection.execute(
            text(
                "INSERT INTO twm.vendor_fields (source, stream, field, kind, is_baseline)"
                " VALUES (:source, :stream, :field, :kind, :is_baseline)"
            ),
            {
                "source": table.source,
                "stream": table.stream,
                "field": name,
                "kind": kind,
                "is_baseline": is_baseline,
            },
        )


def _touch(connection: Connection, table: Table, seen: Iterable[Field]) -> None:
    pairs = list(seen)
    connection.execute(
        text(
            "UPDATE twm.vendor_fields f SET last_seen_at = now()"
            " FROM unnest(CAST(:fields AS text[]), CAST(:kinds AS text[])) AS s (field, kind)"
            " WHERE f.source = :source AND f.stream = :stream AND (f.field, f.kind) = (s.field, s.kind)"
        ),
        {
            "source": table.source,
            "stream": table.stream,
            "fields": [name for name, _ in pairs],
            "kinds": [kind for _, kind in pairs],
        },
    )
