"""Write what changed; the newest observation wins (DESIGN D4).

All functions work inside the caller's transaction, so rows and checkpoint commit together.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from twm_pipeline.mirror.activity import note_written

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import psycopg
    from sqlalchemy import Connection

    from twm_pipeline.mirror.tables import Table
    from twm_pipeline.records import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """A record with the number of the request that saw it (drawn before the request was sent)."""

    record: Record
    seq: int


@dataclass(slots=True, kw_only=True)
class Counts:
    """What became of a batch: rows written, found equal, or left out because something newer is stored.

    Args:
        written_ids: Of the rows that were written.
        refused_ids: As texts, of those that PostgreSQL refused and that were set aside.
    """

    written: int = 0
    unchanged: int = 0
    stale: int = 0
    written_ids: tuple[Any, ...] = ()
    refused_ids: frozenset[str] = frozenset()

    def add(self, other: Counts) -> None:
        """Add the figures of *other*."""
        self.written += other.written
        self.unchanged += other.unchanged
        self.stale += other.stale


# A row whose version cannot be believed, or that appears or disappears, is decided by the order of
# observation alone: a tombstone has no version, and a vendor may restore a row without moving its own clock.
_NEWER = """
    CASE WHEN t.version_at IS NULL OR excluded.version_at IS NULL
              OR t.deleted OR excluded.deleted OR t.missing_since IS NOT NULL OR t.inaccessible
         THEN excluded.observed_seq > t.observed_seq
         ELSE (excluded.version_at, excluded.observed_seq) > (t.version_at, t.observed_seq) END
"""


def upsert(
    connection: Connection, table: Table, observed: Iterable[Observed], *, older_seq: int | None = None
) -> Counts:
    """Store *observed* rows and return what became of them.

    Rows whose hash is already stored are not written; only while an older request of another process is still
    under way is their observation raised, or its late answer could bring back what has changed since.

    Args:
        connection: In a transaction; nothing is committed here.
        table: The stream's table.
        observed: Rows with their observation; of several with one id the newest counts.
        older_seq: The oldest request of another process that is still under way, if there is one.
    """
    newest: dict[Any, Observed] = {}
    for item in observed:
        known = newest.get(item.record.id)
        if known is None or _is_newer(item, known):
            newest[item.record.id] = item
    if not newest:
        return Counts()
    stored = _stored(connection, table, list(newest))
    equal = {
        key
        for key, item in newest.items()
        if (row := stored.get(key)) is not None and _is_equal(row, item.record)
    }
    # What is only observed again goes the way of the other rows: one statement in id order cannot deadlock
    # with another, and a row that changed between the look above and its turn is decided like any other.
    confirmed = {key for key in equal if older_seq is not None and newest[key].seq > older_seq}
    batch = [newest[key] for key in sorted(newest.keys() - equal | confirmed)]
    written = [key for key in _copy_newer(connection, table, batch) if key not in confirmed] if batch else []
    note_written(connection, table, len(written))
    return Counts(
        written=len(written),
        unchanged=len(equal),
        stale=len(newest) - len(equal) - len(written),
        written_ids=tuple(written),
    )


def _is_equal(row: Any, record: Record) -> bool:  # noqa: ANN401 - a row of `_stored`
    return bool(row.settled and row.content_hash == record.content_hash and row.deleted == record.deleted)


def _is_newer(item: Observed, known: Observed) -> bool:
    """Return whether *item* replaces *known*: `_NEWER` for two rows of one batch."""
    one, other = item.record, known.record
    if one.version_at is None or other.version_at is None or one.deleted or other.deleted:
        return item.seq >= known.seq
    return (one.version_at, item.seq) >= (other.version_at, known.seq)


def _stored(connection: Connection, table: Table, ids: Sequence[Any]) -> dict[Any, Any]:
    rows = connection.execute(
        text(
            f"SELECT id, content_hash, deleted, missing_since IS NULL AND NOT inaccessible AS settled"
            f" FROM {table.name} WHERE id = ANY(:ids)"
        ),
        {"ids": ids},
    )
    return {row.id: row for row in rows}


@cache
def _statements(table: Table) -> tuple[str, str, str]:
    """Return the statements that make the temporary table and look whether it is empty, fill it, merge it."""
    columns = (*table.columns, "observed_seq")
    quoted = ", ".join(f'"{name}"' for name in columns)
    staging = f"pg_temp.new_{table.source}_{table.stream}"
    sets = ", ".join(
        f'"{name}" = coalesce(excluded."{name}", t."{name}")'
        if name in table.keep_when_null
        else f'"{name}" = excluded."{name}"'
        for name in columns
        if name not in ("id", "deleted_at")
    )
    create = (
        f"CREATE TEMPORARY TABLE IF NOT EXISTS new_{table.source}_{table.stream} ON COMMIT DELETE ROWS"
        f" AS SELECT {quoted} FROM {table.name} WITH NO DATA; SELECT EXISTS (SELECT FROM {staging})"
    )
    fill = f"COPY {staging} ({quoted}) FROM STDIN"
    merge = f"""
        INSERT INTO {table.name} AS t ({quoted}, deleted_evidence)
        SELECT {quoted}, CASE WHEN deleted THEN 'vendor' END FROM {staging} ORDER BY id
        ON CONFLICT (id) DO UPDATE SET {sets}, deleted_evidence = excluded.deleted_evidence,
            deleted_at = CASE WHEN excluded.deleted THEN
                coalesce(excluded.deleted_at, t.deleted_at, now()) END,
            missing_since = NULL, inaccessible = false, synced_at = now()
        WHERE {_NEWER}
        RETURNING id
    """
    return create, fill, merge


def _copy_newer(connection: Connection, table: Table, items: Sequence[Observed]) -> list[Any]:
    """COPY *items* beside the table and merge those that are newer; return the ids written."""
    create, fill, merge = _statements(table)
    values = attrgetter(*table.columns)
    driver: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]  # the engine is psycopg's
    with driver.cursor() as cursor:
        cursor.execute(create)
        cursor.nextset()
        if cursor.fetchone() == (True,):  # a second batch in one transaction
            cursor.execute(f"TRUNCATE pg_temp.new_{table.source}_{table.stream}")
        with cursor.copy(fill) as copy:
            for item in items:
                row = [*values(item.record), item.seq]
                for place in table.list_places:
                    row[place] = _to_array(row[place])
                copy.write_row(row)
        cursor.execute(merge)
        return [row[0] for row in cursor.fetchall()]


def _to_array(items: list[int] | list[str]) -> str:
    """Return the text of an array; the driver's own way costs more than all other columns together."""
    if not items:
        return "{}"
    quoted = ('"' + str(item).replace("\\", "\\\\").replace('"', '\\"') + '"' for item in items)
    return "{" + ",".join(quoted) + "}"


def insert_unknown(connection: Connection, table: Table, observed: Iterable[Observed]) -> Counts:
    """Store rows that are not known yet and leave the others alone; return what was new.

    Side-loaded rows are sparser than those of the directory, which is read on a slower beat and then replaces
    them; writing both shapes in turn would rewrite the row on every pass.
    """
    items = {item.record.id: item for item in observed}
    if not items:
        return Counts()
    unknown = sorted(items.keys() - _stored(connection, table, list(items)).keys())
    added = len(_copy_newer(connection, table, [items[key] for key in unknown])) if unknown else 0
    note_written(connection, table, added)
    return Counts(written=added, unchanged=len(items) - added)
