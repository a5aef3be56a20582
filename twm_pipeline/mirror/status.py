"""What the mirror knows about itself, read for people: rows, checkpoints, records set aside, budgets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from twm_pipeline.mirror.activity import read_hours
from twm_pipeline.mirror.drift import find_fields
from twm_pipeline.mirror.hooks import load_hooks
from twm_pipeline.mirror.published import count_rows, month_of_calls, publishing_error
from twm_pipeline.mirror.published_files import count_waiting_files
from twm_pipeline.mirror.refusals import read_refusals
from twm_pipeline.mirror.tables import TABLES
from twm_pipeline.mirror.tombstones import Absences, has_missing, read_absences

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from twm_pipeline.mirror.tables import Table
    from twm_pipeline.records import Json, Origin, Source

SHOWN_SET_ASIDE = 20
PROGRESS_SECONDS = 120
"""Progress older than this belongs to a pass that has ended."""


_OF_SOURCE = ("account", "link_base", "first_import_at", "last_success_at", "last_error", "last_error_at")
_UNREAD: Json = dict.fromkeys((*_OF_SOURCE, "lag_seconds"))


def read_status(connection: Connection, source: Source, *, tables: list[Json] | None = None) -> Json:
    """Return everything an operator wants to know about *source*; instants are aware.

    Args:
        connection: To the mirror.
        source: The vendor.
        tables: What `count_tables` returned of it a while ago; counted now if left out.
    """
    account = _one(
        connection,
        f"SELECT {', '.join(_OF_SOURCE)},"
        " extract(epoch FROM now() - last_success_at)::float8 AS lag_seconds"
        " FROM twm.sources WHERE source = :source",
        source=source,
    )
    return {
        "source": source,
        **(account or _UNREAD),
        "checkpoints": read_checkpoints(connection, source),
        "tables": count_tables(connection, source) if tables is None else tables,
        "set_aside": read_set_aside(connection, source),
        "refusals": read_refusals(connection, source),
        "held_deletions": [held.describe() for held in read_held_deletions(connection, source)],
        "new_fields": read_new_fields(connection, source),
        "sweep": read_sweep(connection, source),
        "budgets": read_budgets(connection, source),
        "progress": read_progress(connection, source),
        "hooks": read_hooks(connection, source),
        "hours": read_hours(connection, source),
        "counters": {
            row["name"]: row["value"]
            for row in _all(
                connection, "SELECT name, value FROM twm.counters WHERE source = :source", source=source
            )
        },
    }


def first_imports(connection: Connection, sources: Sequence[Source]) -> dict[Source, datetime | None]:
    """Return when the first import of each of *sources* began; None of one that has not ended yet."""
    found: dict[Source, datetime | None] = dict.fromkeys(sources)
    for source in sources:
        known = _one(
            connection,
            "SELECT first_import_at FROM twm.sources WHERE source = :source AND last_success_at IS NOT NULL",
            source=source,
        )
        if known and not any(item["more_to_read"] for item in read_checkpoints(connection, source)):
            found[source] = known["first_import_at"]
    return found


def unread_status(source: Source) -> Json:
    """Return what `read_status` would, with nothing known: PostgreSQL does not answer."""
    lists: Json = {name: [] for name in ("checkpoints", "tables", "budgets", "progress", "hooks", "hours")}
    lists |= {"refusals": [], "held_deletions": [], "new_fields": []}
    nothing: Json = {"set_aside": {"count": 0, "records": []}, "sweep": None, "counters": {}}
    return {"source": source, **_UNREAD, **lists, **nothing}


def read_hooks(connection: Connection, source: Source) -> list[Json]:
    """Return our hooks at the vendor and the creations that are open, without address or proof."""
    return [
        {
            "event": hook.event,
            "status": hook.status,
            "checked_at": hook.checked_at,
            "attempts": hook.attempts,
            "problem": hook.problem,
        }
        for hook in load_hooks(connection, source)
    ]


def read_checkpoints(connection: Connection, source: Source) -> list[Json]:
    """Return how far each feed has been read, and whether older rows are still to be read."""
    return _all(
        connection,
        "SELECT stream, feed, last_event_time, updated_at,"
        " jsonb_typeof(last_cursor -> 'history') IS NOT DISTINCT FROM 'object'"
        " OR coalesce(jsonb_array_length(CASE WHEN jsonb_typeof(last_cursor -> 'gaps') = 'array'"
        " THEN last_cursor -> 'gaps' END), 0) > 0 AS more_to_read"
        " FROM twm.checkpoints WHERE source = :source ORDER BY stream, feed",
        source=source,
    )


def read_held_deletions(connection: Connection, source: Source) -> list[Absences]:
    """Return the deletions that wait for `twm reconcile --confirm-deletions`, by table."""
    missing = [table for table in TABLES if table.source == source and has_missing(connection, table)]
    found = [read_absences(connection, table) for table in missing]
    return [item for item in found if item.are_held]


def read_new_fields(connection: Connection, source: Source) -> list[Json]:
    """Return streams in which the vendor sends fields that it did not send before, with their number."""
    found = [find_fields(connection, table) for table in TABLES if table.source == source]
    return [
        {"stream": item.asset[1], "count": item.figures["new_fields"], "text": item.text}
        for item in found
        if item.verdict != "ok"
    ]


def read_sweep(connection: Connection, source: Source) -> Json | None:
    """Return when a complete sweep ended last, and since when one is under way or interrupted."""
    return _one(
        connection,
        "SELECT finished_at, began_at, moved_at FROM twm.sweeps WHERE source = :source",
        source=source,
    )


def read_progress(connection: Connection, source: Source) -> list[Json]:
    """Return what running passes are doing."""
    return _all(
        connection,
        "SELECT stream, phase, done, total, updated_at FROM twm.progress WHERE source = :source"
        " AND updated_at BETWEEN now() - make_interval(secs => :seconds) AND clock_timestamp()"
        " ORDER BY updated_at DESC",
        source=source,
        seconds=PROGRESS_SECONDS,
    )


def read_budgets(connection: Connection, source: Origin) -> list[Json]:
    """Return the request budgets of the source's accounts: what was used, what waits, what was refused."""
    return _all(
        connection,
        "SELECT b.account, b.requests, b.throttled, b.paused_reason,"
        " CASE WHEN b.paused_until > now() THEN b.paused_until END AS paused_until,"
        " CASE WHEN b.waiting_until > now() THEN b.waiting_until END AS waiting_until,"
        " (SELECT count(*) FROM twm.budget_requests r WHERE r.account = b.account"
        "  AND r.sent_at > now() - interval '1 minute') AS last_minute"
        " FROM twm.budgets b WHERE b.account LIKE :source || ' %' ORDER BY b.account",
        source=source,
    )


def count_requests(connection: Connection, account: str, *, seconds: float) -> int:
    """Return how many requests of *account* count in a window of its budget, of an hour at most."""
    row = _one(
        connection,
        "SELECT count(*) AS used FROM twm.budget_requests WHERE account = :account"
        " AND sent_at > now() - make_interval(secs => :seconds)",
        account=account,
        seconds=seconds,
    )
    return int((row or {})["used"])


def read_publishing(connection: Connection, base: str) -> Json:
    """Return what is published to *base*, what waits, and what the last look at the base found."""
    views = _all(
        connection,
        "SELECT v.view,"
        " (SELECT count(*) FROM twm.published p WHERE p.base = :base AND p.view = v.view"
        "  AND p.record_id IS NOT NULL) AS records,"
        " (SELECT count(DISTINCT row_id) FROM twm.change_log c WHERE c.view = v.view) AS waiting,"
        " (SELECT max(published_at) FROM twm.published p"
        "  WHERE p.base = :base AND p.view = v.view) AS published_at,"
        " p.compared_at, p.checked_at, p.check_found"
        " FROM (VALUES ('tasks'), ('emails')) AS v (view)"
        " LEFT JOIN twm.publications p ON p.base = :base AND p.view = v.view",
        base=base,
    )
    for view in views:
        view["rows"] = count_rows(connection, view["view"])
    calls, exhausted = month_of_calls(connection, base)
    reason, failed_at = publishing_error(connection, base) or (None, None)
    return {
        "base": base,
        "last_error": reason,
        "last_error_at": failed_at,
        "views": views,
        "files_waiting": count_waiting_files(connection, base),
        "calls": calls,
        "exhausted": exhausted,
        "set_aside": read_set_aside(connection, "airtable"),
    }


def count_tables(connection: Connection, source: Source | None = None) -> list[Json]:
    """Return rows of every table, or of those of *source*: living, deleted, inaccessible."""
    return [_rows_of(connection, table) for table in TABLES if source in (None, table.source)]


def _rows_of(connection: Connection, table: Table) -> Json:
    counts = _one(
        connection,
        "SELECT count(*) FILTER (WHERE NOT deleted) AS living, count(*) FILTER (WHERE deleted) AS deleted,"
        " count(*) FILTER (WHERE inaccessible) AS inaccessible,"
        f" count(*) FILTER (WHERE missing_since IS NOT NULL) AS missing FROM {table.name}",
    )
    return {"table": table.name, "source": table.source, "stream": table.stream, **(counts or {})}


def read_set_aside(connection: Connection, source: Origin, *, limit: int = SHOWN_SET_ASIDE) -> Json:
    """Return how many records are set aside, and the latest of them without their JSON."""
    records = _all(
        connection,
        "SELECT stream, object_id, reason, attempts, first_at, next_attempt_at, count(*) OVER () AS total"
        " FROM twm.set_aside WHERE source = :source ORDER BY last_at DESC LIMIT :limit",
        source=source,
        limit=limit,
    )
    count = records[0]["total"] if records else 0
    return {"count": count, "records": [{k: v for k, v in row.items() if k != "total"} for row in records]}


def find_set_aside(connection: Connection, source: Origin, stream: str, object_id: str) -> Json | None:
    """Return everything that is known of one record that is set aside, the vendor's JSON included."""
    return _one(
        connection,
        "SELECT source, stream, object_id, reason, attempts, first_at, last_at, next_attempt_at, raw"
        " FROM twm.set_aside WHERE source = :source AND stream = :stream AND object_id = :object_id",
        source=source,
        stream=stream,
        object_id=object_id,
    )


def _all(connection: Connection, query: str, **values: Any) -> list[Json]:  # noqa: ANN401 - parameters of a query
    return [dict(row) for row in connection.execute(text(query), values).mappings()]


def _one(connection: Connection, query: str, **values: Any) -> Json | None:  # noqa: ANN401 - parameters of a query
    rows = _all(connection, query, **values)
    return rows[0] if rows else None
