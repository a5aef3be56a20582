"""The sensors: each looks into the spool of a vendor and opens a window when deliveries wait.

They list folders and open no file; only when something waits do they ask whether a window is open already.
While one is, its drain has a delivery in the mirror before a sensor could look.
"""

from __future__ import annotations

import dagster as dg

from twm_pipeline.defs.jobs import SYNC_JOBS
from twm_pipeline.defs.resources import why_switched_off
from twm_pipeline.defs.windows import why_no_window, window_request
from twm_pipeline.records import Source
from twm_pipeline.settings import load_settings
from twm_pipeline.spool import Spool, Waiting

LEAD_SECONDS = 30
"""So long before a window ends its successor may be queued; it starts when the window has ended."""
INTERVAL_SECONDS = 1
"""Dagster's daemon turns every five seconds; asking for less than that means: at every turn."""


def spool_sensor(source: Source) -> dg.SensorDefinition:
    """Return the sensor over the spool of *source*."""

    @dg.sensor(
        name=f"{source}_spool_sensor",
        job=SYNC_JOBS[source],
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Opens a window on {source.capitalize()} when deliveries wait and none is open.",
    )
    def watch(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        settings = load_settings()
        waiting = Spool(settings.spool_folder, source).waiting()
        if not waiting.count:
            return dg.SkipReason(nothing_waits(waiting))
        told = f"{_count(waiting.count)} of {source.capitalize()} {_verb(waiting.count)}."
        if (reason := why_switched_off(settings, source)) is not None:
            return dg.SkipReason(f"{told} {reason}")
        busy = why_no_window(context.instance, settings, source, lead_seconds=LEAD_SECONDS)
        if busy is not None:
            return dg.SkipReason(f"{told} {busy}")
        return window_request(settings, source)

    return watch


def nothing_waits(waiting: Waiting) -> str:
    """Return what an operator reads while there is nothing to do."""
    words = ["No delivery waits."]
    if waiting.next_due is not None:
        at = f"{waiting.next_due:%H:%M:%S} UTC"
        words.append(f"{_count(waiting.later)} will be tried again, the first at {at}.")
    if waiting.dead:
        words.append(f"{_count(waiting.dead)} could not be applied: twm queue list")
    return " ".join(words)


def _count(number: int) -> str:
    return f"{number} {'delivery' if number == 1 else 'deliveries'}"


def _verb(number: int) -> str:
    return "waits" if number == 1 else "wait"
