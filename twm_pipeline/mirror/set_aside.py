"""Records that could not be used, set aside with the reason and tried again with growing waits."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from twm_pipeline.records import WITHOUT_ID, Origin, Source

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

SET_ASIDE_FIRST_WAIT = timedelta(minutes=1)
SET_ASIDE_LONGEST_WAIT = timedelta(days=1)
REASON_CHARACTERS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """One record that could not be used, with the reason; its raw JSON stays in the database only."""

    stream: str
    object_id: str
    reason: str
    raw: Any = None


def set_aside(connection: Connection, source: Origin, problems: Iterable[SetAside]) -> int:
    """Park *problems*; each further attempt of one waits longer, up to a day. Return how many."""
    count = 0
    for problem in problems:
        connection.execute(
            text(
                "INSERT INTO twm.set_aside AS s (source, stream, object_id, reason, raw, next_attempt_at)"
                " VALUES (:source, :stream, :id, :reason, :raw, now() + :first_wait)"
                " ON CONFLICT (source, stream, object_id) DO UPDATE SET reason = excluded.reason,"
                " raw = excluded.raw, attempts = s.attempts + 1, last_at = now(), next_attempt_at ="
                " now() + least(:first_wait * power(2, least(s.attempts, 20)), :longest)"
            ).bindparams(bindparam("raw", type_=JSONB)),
            {
                "source": source,
                "stream": problem.stream,
                "id": problem.object_id,
                "reason": problem.reason[:REASON_CHARACTERS],
                "raw": problem.raw,
                "first_wait": SET_ASIDE_FIRST_WAIT,
                "longest": SET_ASIDE_LONGEST_WAIT,
            },
        )
        count += 1
    return count


def due_set_aside(connection: Connection, source: Origin, stream: str, *, limit: int = 100) -> list[str]:
    """Return ids of set-aside records whose next attempt has come, oldest first."""
    rows = connection.execute(
        text(
            "SELECT object_id FROM twm.set_aside WHERE source = :source AND stream = :stream"
            " AND twm.is_due(next_attempt_at, :longest) ORDER BY next_attempt_at LIMIT :limit"
        ),
        {"source": source, "stream": stream, "longest": SET_ASIDE_LONGEST_WAIT, "limit": limit},
    )
    return [row.object_id for row in rows]


def waiting_set_aside(connection: Connection, source: Origin, stream: str, ids: Iterable[str]) -> set[str]:
    """Return those of *ids* that are set aside and whose next attempt has not come."""
    rows = connection.execute(
        text(
            "SELECT object_id FROM twm.set_aside WHERE source = :source AND stream = :stream"
            " AND object_id = ANY(:ids) AND NOT twm.is_due(next_attempt_at, :longest)"
        ),
        {"source": source, "stream": stream, "ids": list(ids), "longest": SET_ASIDE_LONGEST_WAIT},
    )
    return {row.object_id for row in rows}


def count_set_aside(connection: Connection, source: Origin, stream: str) -> int:
    """Return how many records of a stream are set aside."""
    query = text("SELECT count(*) FROM twm.set_aside WHERE source = :source AND stream = :stream")
    return int(connection.execute(query, {"source": source, "stream": stream}).scalar_one())


def reasons_set_aside(
    connection: Connection, source: Origin, ids: Iterable[str]
) -> dict[tuple[str, str], str]:
    """Return why objects are set aside, by stream and id; those that are not are left out."""
    rows = connection.execute(
        text(
            "SELECT stream, object_id, reason FROM twm.set_aside"
            " WHERE source = :source AND object_id = ANY(:ids)"
        ),
        {"source": source, "ids": list(ids)},
    )
    return {(row.stream, row.object_id): row.reason for row in rows}


def hurry_set_aside(connection: Connection, source: Origin, stream: str, object_id: str) -> bool:
    """Let a set-aside record be tried again at once; return whether there is one."""
    changed = connection.execute(
        text(
            "UPDATE twm.set_aside SET next_attempt_at = now()"
            " WHERE source = :source AND stream = :stream AND object_id = :id"
        ),
        {"source": source, "stream": stream, "id": object_id},
    )
    return changed.rowcount > 0


def resolve_set_aside(connection: Connection, source: Origin, stream: str, ids: Iterable[Any]) -> None:
    """Forget set-aside records that are stored now."""
    connection.execute(
        text(
            "DELETE FROM twm.set_aside WHERE source = :source AND stream = :stream AND object_id = ANY(:ids)"
        ),
        {"source": source, "stream": stream, "ids": [str(item) for item in ids]},
    )


def forget_unidentified(connection: Connection, source: Source, *, before: datetime) -> None:
    """Forget set-aside rows without a usable id that a complete sweep begun at *before* has not met again."""
    connection.execute(
        text(
            "DELETE FROM twm.set_aside WHERE source = :source AND last_at < :before"
            " AND starts_with(object_id, :without_id)"
        ),
        {"source": source, "before": before, "without_id": WITHOUT_ID},
    )
