"""What a vendor refuses to show: which stream or which feed of it, since when, and in which words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from twm_pipeline.mirror.tables import THREADS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

    from twm_pipeline.records import Json, Source

HELPFUL = ("activity", "drafts")
"""Feeds without which a stream is still read, only later or without its drafts."""


def note_refusal(connection: Connection, source: Source, stream: str, feed: str, *, reason: str) -> None:
    """Note that a feed is refused; since when it is stays."""
    connection.execute(
        text(
            "INSERT INTO twm.refusals (source, stream, feed, reason)"
            " VALUES (:source, :stream, :feed, :reason)"
            " ON CONFLICT (source, stream, feed) DO UPDATE SET reason = excluded.reason, last_at = now()"
        ),
        {"source": source, "stream": stream, "feed": feed, "reason": reason},
    )


def resolve_refusal(connection: Connection, source: Source, stream: str, feed: str) -> None:
    """Forget the refusal of a feed that was read."""
    connection.execute(
        text("DELETE FROM twm.refusals WHERE source = :source AND stream = :stream AND feed = :feed"),
        {"source": source, "stream": stream, "feed": feed},
    )


def read_refusals(connection: Connection, source: Source) -> list[Json]:
    """Return what is refused, by `stream` and `feed`, with `reason` and `since`.

    `is_lost` tells what was read before, and mailboxes, from what a plan or a role never had.
    """
    rows = connection.execute(
        text(
            "SELECT r.stream, r.feed, r.reason, r.since, r.stream = 'conversations' OR EXISTS ("
            "SELECT FROM twm.checkpoints c WHERE (c.source, c.stream, c.feed) = (r.source, r.stream, r.feed)"
            " AND c.last_event_time IS NOT NULL) AS is_lost"
            " FROM twm.refusals r WHERE r.source = :source ORDER BY r.stream, r.feed"
        ),
        {"source": source},
    )
    return [dict(row) for row in rows.mappings()]


def stopped_streams(feeds: Iterable[tuple[str, str]]) -> set[str]:
    """Return the streams that are not read completely while these feeds, by stream and feed, are refused."""
    stopped = {stream for stream, feed in feeds if feed not in HELPFUL}
    return stopped | ({table.stream for table in THREADS} if "conversations" in stopped else set())


def describe_refusal(refusal: Json) -> str:
    """Return a line about one of `read_refusals`."""
    what = f"{refusal['stream']} ({refusal['feed']})" if refusal["feed"] else refusal["stream"]
    how = "is not read any more" if refusal["is_lost"] else "was never readable"
    return f"{what} {how}, refused since {refusal['since']:%Y-%m-%d %H:%M} UTC: {refusal['reason']}"
