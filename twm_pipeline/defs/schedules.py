"""The schedules: every minute, a window for each vendor that has none; every night, a complete sweep.

A tick that starts nothing says why: in the UI its reason is what people see first.
"""

from __future__ import annotations

import dagster as dg

from twm_pipeline.defs.jobs import SYNC_JOBS, reconcile
from twm_pipeline.defs.resources import why_all_switched_off, why_switched_off
from twm_pipeline.defs.windows import request_unless_busy, why_no_window, window_request
from twm_pipeline.records import Source
from twm_pipeline.settings import load_settings

LEAD_SECONDS = 60
"""So long before a window ends its successor may be queued: the schedule looks once a minute."""


def poll_schedule(source: Source) -> dg.ScheduleDefinition:
    """Return the schedule that keeps a window of *source* open."""

    @dg.schedule(
        name=f"{source}_poll_schedule",
        job=SYNC_JOBS[source],
        cron_schedule="* * * * *",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Opens a window on {source.capitalize()} unless one is open or waiting.",
    )
    def poll(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        settings = load_settings()
        if (reason := why_switched_off(settings, source)) is not None:
            return dg.SkipReason(reason)
        busy = why_no_window(context.instance, settings, source, lead_seconds=LEAD_SECONDS)
        return window_request(settings, source) if busy is None else dg.SkipReason(busy)

    return poll


@dg.schedule(
    name="nightly_reconcile_schedule",
    job=reconcile,
    cron_schedule="17 3 * * *",
    execution_timezone=load_settings().timezone,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Sweeps both vendors completely, at night when the request budgets are free.",
)
def nightly_reconcile(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Request a sweep unless one is under way or nothing is set up."""
    if (reason := why_all_switched_off(load_settings())) is not None:
        return dg.SkipReason(reason)
    return request_unless_busy(context.instance, reconcile.name)
