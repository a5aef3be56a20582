"""What the spool tells of accepted deliveries: counts, ages, and the faulty ones with their reasons."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from twm_pipeline.errors import RecordError, TwmError
from twm_pipeline.spool import Waiting
from twm_pipeline.sync.drain import spool_of

if TYPE_CHECKING:
    from pathlib import Path

    from twm_pipeline.records import Json, Source
    from twm_pipeline.settings import Settings
    from twm_pipeline.spool import Envelope, Listed, Spool

SHOWN_FAULTY = 20
BYTES_PER_MEGABYTE = 1_000_000
NOTHING = Waiting(new=0, due=0, later=0, held=0, dead=0, next_due=None)


def read_spool(settings: Settings, source: Source) -> Json:
    """Return how many accepted deliveries of *source* wait and since when, or why that is unknown."""
    spool = spool_of(settings, source)
    found = {"problem": None, **asdict(NOTHING), "waiting": 0, "oldest_seconds": 0.0, "faulty": []}
    try:
        waiting, entries = spool.waiting(), spool.entries()
        faulty = [item for item in entries if item.place in ("retry", "dead")][:SHOWN_FAULTY]
        described = [describe_entry(spool, item)[0] for item in faulty]
    except TwmError as error:
        return {**found, "problem": str(error)}
    now = datetime.now(UTC)
    ages = [(now - item.received_at).total_seconds() for item in entries if item.place in ("new", "cur")]
    found |= {**asdict(waiting), "waiting": waiting.count}
    return {**found, "oldest_seconds": max([0.0, *ages]), "faulty": described}


def describe_entry(spool: Spool, listed: Listed) -> tuple[Json, Envelope | None]:
    """Return what name, head and reason of an entry say, and the delivery itself if it can be read."""
    envelope: Envelope | None = None
    problem = None
    try:
        envelope = spool.read(listed.name)
    except RecordError as error:
        problem = str(error)
    told = {
        **asdict(listed),
        "source": spool.source,
        "event": envelope and envelope.hint.event,
        "stream": envelope and envelope.hint.stream,
        "object_id": envelope and envelope.hint.object_id,
        "reason": spool.reason(listed.name) or problem,
    }
    return told, envelope


def read_disk(settings: Settings) -> Json:
    """Return the room on the spool's disk and how much of it deliveries leave to others, in bytes."""
    folder = settings.spool_folder
    while not folder.exists():
        folder = folder.parent
    return {
        "free_bytes": _free_bytes(folder),
        "reserve_bytes": settings.spool_reserve_megabytes * BYTES_PER_MEGABYTE,
    }


def _free_bytes(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None
