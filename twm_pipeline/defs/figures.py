"""The metadata of a materialization: its interval's figures, rows, checkpoint, lag, for Dagster's plots."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

import dagster as dg
from sqlalchemy import Engine, text

from twm_pipeline.defs.ledger import Interval
from twm_pipeline.mirror.refusals import describe_refusal, read_refusals
from twm_pipeline.mirror.tables import DIRECTORIES, MISSIVE_DIRECTORIES, table_of
from twm_pipeline.mirror.tombstones import count_rows
from twm_pipeline.records import Source
from twm_pipeline.sync.engine import PassReport

COUNT_SHARE = 0.02
"""Counting the rows of a large table may take this share of the time."""

_CHECKPOINTS = text(
    "SELECT stream, last_event_time FROM twm.checkpoints WHERE source = :source AND feed IN ('', 'all')"
)
_FOLLOWS = {"emails": "conversations", "comments": "conversations"}
"""Streams that are read with another one, and share its checkpoint."""


@dataclass
class _Count:
    rows: int
    counted_at: float
    took: float


@dataclass
class Figures:
    """Puts figures into the form of metadata.

    Args:
        engine: The mirror.
        source: The vendor.
    """

    engine: Engine
    source: Source
    report: PassReport | None = None
    _counts: dict[str, _Count] = field(default_factory=dict)
    _checkpoints: dict[str, datetime | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._checkpoints = self._read_checkpoints()

    def materialization(self, stream: str, interval: Interval) -> dg.AssetMaterialization:
        """Return the event for what happened to *stream* so far."""
        told = f"; deliveries applied: {interval.deliveries}" if interval.deliveries else ""
        return dg.AssetMaterialization(
            asset_key=[self.source, stream],
            description=(
                f"{stream}: {interval.fetched} rows fetched, {interval.written} written,"
                f" {interval.deleted} deleted, {interval.set_aside} set aside{told}"
            ),
            metadata=self.metadata(stream, interval),
        )

    def result(self, stream: str, interval: Interval) -> dg.MaterializeResult[None]:
        """Return the last event of a run."""
        metadata = self.metadata(stream, interval, last=True)
        return dg.MaterializeResult(asset_key=[self.source, stream], metadata=metadata)

    def observation(self, interval: Interval) -> dg.AssetObservation:
        """Return what the vendor was asked meanwhile."""
        numbers = _traffic(interval)
        return dg.AssetObservation(
            asset_key=[self.source, "api"],
            description=f"{interval.requests} requests, {interval.throttled} answers 429",
            metadata={name: _number(value) for name, value in numbers.items()},
        )

    def refusals(self) -> list[dg.AssetObservation]:
        """Return an event for each feed that the vendor refuses to show."""
        with self.engine.connect() as connection:
            found = read_refusals(connection, self.source)
        return [
            dg.AssetObservation(
                asset_key=[self.source, "api"],
                description=describe_refusal(item),
                metadata={"refused": describe_refusal(item), "is_lost": item["is_lost"]},
            )
            for item in found
        ]

    def metadata(self, stream: str, interval: Interval, *, last: bool = False) -> dict[str, dg.MetadataValue]:
        """Return the metadata of a materialization of *stream*.

        Args:
            stream: The stream.
            interval: What happened since the one before.
            last: Whether it is the last of its run, which always counts the rows.
        """
        after = self._read_checkpoints().get(_FOLLOWS.get(stream, stream))
        before, self._checkpoints[stream] = self._checkpoints.get(stream), after
        numbers: dict[str, int | float | None] = {
            "dagster/row_count": self._count(stream, again=last),
            "fetched": interval.fetched,
            "written": interval.written,
            "unchanged": interval.unchanged,
            "outdated": interval.stale,
            "deleted": interval.deleted,
            "set_aside": interval.set_aside,
            "deliveries_applied": interval.deliveries,
            **_traffic(interval),
            "lag_seconds": self._lag(stream, after),
        }
        moments = {"checkpoint_before": before, "checkpoint_after": after}
        return {
            **{name: _number(value) for name, value in numbers.items() if value is not None},
            **{name: dg.MetadataValue.timestamp(value) for name, value in moments.items() if value},
        }

    def _read_checkpoints(self) -> dict[str, datetime | None]:
        with self.engine.connect() as connection:
            rows = connection.execute(_CHECKPOINTS, {"source": self.source}).all()
        stored = {row.stream: row.last_event_time for row in rows}
        return stored | {stream: stored.get(leader) for stream, leader in _FOLLOWS.items()}

    def _count(self, stream: str, *, again: bool) -> int:
        known = self._counts.get(stream)
        now = time.monotonic()
        if known is not None and not again and known.took > (now - known.counted_at) * COUNT_SHARE:
            return known.rows
        with self.engine.connect() as connection:
            rows = count_rows(connection, table_of(self.source, stream))
        self._counts[stream] = _Count(rows=rows, counted_at=now, took=time.monotonic() - now)
        return rows

    def _lag(self, stream: str, checkpoint: datetime | None) -> float | None:
        """Return how many seconds the mirror may be behind; a directory is as old as its last full read."""
        if table_of(self.source, stream) in (*DIRECTORIES, *MISSIVE_DIRECTORIES):
            return round((datetime.now(UTC) - checkpoint).total_seconds(), 1) if checkpoint else None
        figures = self.report.streams.get(_FOLLOWS.get(stream, stream)) if self.report else None
        return None if figures is None else figures.lag_seconds


def _traffic(interval: Interval) -> dict[str, int | float]:
    return {
        "requests": interval.requests,
        "repeated_requests": interval.retries,
        "answers_429": interval.throttled,
        "seconds": round(interval.seconds, 3),
        "waited_for_budget_seconds": round(interval.waited_seconds, 3),
    }


def _number(value: float) -> dg.MetadataValue:
    return dg.MetadataValue.int(value) if isinstance(value, int) else dg.MetadataValue.float(value)
