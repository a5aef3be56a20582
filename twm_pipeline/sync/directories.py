"""When a directory, a list of everything that other rows refer to, is read again."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from twm_pipeline.mirror.checkpoints import load_checkpoint

if TYPE_CHECKING:
    from twm_pipeline.mirror.tables import Table
    from twm_pipeline.sync.engine import Pass, PassOptions


def is_due(work: Pass, options: PassOptions, table: Table, feed: str = "") -> bool:
    """Return whether the beat of a directory (or of a *feed* on it) has come, or it was asked for."""
    if options.directories is not None:
        return options.directories
    if options.streams or not options.moves_checkpoints:
        return True
    with work.read() as connection:
        checkpoint = load_checkpoint(connection, table.source, table.stream, feed)
    if checkpoint is None or checkpoint.last_event_time is None or work.vendor_now is None:
        return True
    beat = timedelta(seconds=work.settings.directory_interval_seconds)
    return work.vendor_now - checkpoint.last_event_time >= beat
