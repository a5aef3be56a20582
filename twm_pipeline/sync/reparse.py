"""Fill the columns anew from the JSON that every row keeps: new columns without a vendor call (DESIGN D4).

Only what a parser fills is rewritten. What says when and how a row was seen (its version, its place in the
order of observation, whether it is deleted or missing) stays, and so does where a merge has put it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy import text

from twm_pipeline.errors import RecordError
from twm_pipeline.sources.missive_rows import (
    DIRECTORY_PARSERS,
    parse_comment,
    parse_conversation,
    parse_message,
)
from twm_pipeline.sources.teamwork_rows import PARSERS

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy import Connection, Engine, Row

    from twm_pipeline.mirror.tables import Table
    from twm_pipeline.records import Json, Record

BATCH_ROWS = 500
KEPT = frozenset({"id", "raw", "version_at", "deleted", "deleted_at", "stub_hash"})
"""Columns of a record that are not the parser's alone."""
CHILDREN = ("emails", "comments")


@dataclass(slots=True, kw_only=True)
class Reparsed:
    """What became of a table: rows read, rows whose columns or hash differed, rows no parser can use."""

    table: str
    read: int = 0
    rewritten: int = 0
    unusable: int = 0
    seconds: float = 0.0

    def as_dict(self) -> Json:
        """Return the figures as JSON-ready values."""
        return asdict(self)


def reparse_table(
    engine: Engine, table: Table, *, on_batch: Callable[[int], None] = lambda _: None
) -> Reparsed:
    """Parse every row of *table* again, in batches that each commit; a second time rewrites nothing.

    Args:
        engine: The mirror.
        table: Whose rows.
        on_batch: Told how many rows are done after each batch.
    """
    started = time.monotonic()
    result = Reparsed(table=table.name)
    last: Any = None
    with engine.connect() as connection:
        parse = _parser(connection, table)
    while True:
        with engine.begin() as connection:
            rows = _next_rows(connection, table, last)
            records = [record for row in rows if (record := _parse(parse, row)) is not None]
            result.rewritten += _rewrite(connection, table, records)
        result.read += len(rows)
        result.unusable += len(rows) - len(records)
        on_batch(result.read)
        if len(rows) < BATCH_ROWS:
            break
        last = rows[-1].id
    if result.rewritten:
        _look_at_the_scope_again(engine, table)
    result.seconds = round(time.monotonic() - started, 3)
    return result


def _parser(connection: Connection, table: Table) -> Callable[[Row[Any]], Record]:
    """Return what turns a stored row into its record, with what the vendor's answer had said besides."""
    # A version is kept as it was judged by its answer's clock; here no clock could judge it.
    date = datetime.now(UTC)
    if table.source == "teamwork":
        return lambda row: PARSERS[table.stream](_json(row), date=date)
    if table.stream == "emails":
        return lambda row: parse_message(_json(row), conversation_id=row.parent, date=date, draft=row.draft)
    if table.stream == "comments":
        return lambda row: parse_comment(_json(row), conversation_id=row.parent)
    if table.stream in DIRECTORY_PARSERS:
        return lambda row: DIRECTORY_PARSERS[table.stream](_json(row))
    owner = connection.execute(text("SELECT owner_id FROM twm.sources WHERE source = 'missive'")).scalar()
    return lambda row: parse_conversation(_json(row), owner_id=owner or "")


def _json(row: Row[Any]) -> Json:
    value: Json = orjson.loads(row.raw)
    return value


def _parse(parse: Callable[[Row[Any]], Record], row: Row[Any]) -> Record | None:
    try:
        return parse(row)
    except RecordError:
        return None


def _next_rows(connection: Connection, table: Table, last: Any) -> list[Row[Any]]:  # noqa: ANN401 - an id
    """Return the next rows, locked, so that no pass writes one between its reading and its rewriting."""
    parent = "conversation_id" if table.stream in CHILDREN else "NULL"
    draft = "draft" if table.stream == "emails" else "false"
    condition = "" if last is None else " WHERE id > :last"
    query = text(
        f"SELECT id, raw::text AS raw, {parent} AS parent, {draft} AS draft FROM {table.name}{condition}"  # noqa: S608 - names from tables.py
        f" ORDER BY id LIMIT {BATCH_ROWS} FOR UPDATE"
    )
    return list(connection.execute(query, {} if last is None else {"last": last}).all())


def _rewrite(connection: Connection, table: Table, records: list[Record]) -> int:
    """Rewrite the rows whose columns or hash differ from their record; return how many."""
    if not records:
        return 0
    kept = KEPT | ({"conversation_id"} if table.stream in CHILDREN else frozenset())
    names = [name for name in table.columns if name not in kept]
    quoted = ", ".join(f'"{name}"' for name in ("id", *names))
    staging = f"again_{table.source}_{table.stream}"
    driver: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]  # the engine is psycopg's
    with driver.cursor() as cursor:
        cursor.execute(
            f"CREATE TEMPORARY TABLE {staging} ON COMMIT DROP AS"  # noqa: S608 - names from tables.py
            f" SELECT {quoted} FROM {table.name} WITH NO DATA"
        )
        with cursor.copy(f"COPY {staging} ({quoted}) FROM STDIN") as copy:
            for record in records:
                copy.write_row([getattr(record, name) for name in ("id", *names)])
        cursor.execute(_update(table, staging, names))
        return cursor.rowcount


def _update(table: Table, staging: str, names: list[str]) -> str:
    shown = [name for name in names if name != "content_hash"]
    sets = ", ".join(f'"{name}" = n."{name}"' for name in names)
    old, new = (", ".join(f'{side}."{name}"' for name in shown) for side in ("t", "n"))
    differs = f"({old}) IS DISTINCT FROM ({new})"
    return (
        f"UPDATE {table.name} t SET {sets},"  # noqa: S608 - names from tables.py
        f" synced_at = CASE WHEN {differs} THEN now() ELSE t.synced_at END"
        f" FROM {staging} n WHERE t.id = n.id AND ({differs} OR t.content_hash <> n.content_hash)"
    )


def _look_at_the_scope_again(engine: Engine, table: Table) -> None:
    """Let the next pass decide anew which rows are shown: dates that decide may have changed."""
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE twm.sources SET scope = '{\"reparsed\": true}' WHERE source = :source"),
            {"source": table.source},
        )
