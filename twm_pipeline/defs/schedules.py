"""The schedules: every minute, a window for each vendor that has none; every night, a complete sweep.

A tick that starts nothing says why: in the UI its reason is what people see first.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import dagster as dg

from twm_pipeline.db import connect_database
from twm_pipeline.defs.jobs import LONGEST_RUN_SECONDS, MAX_RUNTIME, SYNC_JOBS, WINDOW, reconcile
from twm_pipeline.defs.resources import why_switched_off
from twm_pipeline.errors import TwmError
from twm_pipeline.records import SOURCES, Source
from twm_pipeline.settings import Settings, load_settings
from twm_pipeline.sync.window import holds_window

MARGIN_SECONDS = 300
"""How much longer than its window a run may take before it counts as lost."""
LEAD_SECONDS = 60
"""So long before a window ends its successor may be queued; it starts when the window has ended."""

LOST_SECONDS = 120
"""After so long a window has its lock, or its process was killed."""
LOST = "The process of this run is gone: nobody holds the lock of its window."

WAITING = (dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED)
ALIVE = (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)


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
        seconds = settings.sync_window_seconds
        runs = _runs_of(context.instance, f"{source}_sync", tags={WINDOW: source})
        held = _is_held(settings, source)
        lost = [] if held else [record for record in runs if is_lost(record)]
        for record in lost:
            context.instance.report_run_failed(record.dagster_run, LOST)
        runs = [record for record in runs if record not in lost]
        busy = why_not(runs, lead=_lead(seconds))
        if busy is None and held and not runs:
            busy = f"Another process, such as `twm sync`, is reading {source.capitalize()}."
        if busy is not None:
            return dg.SkipReason(busy)
        return dg.RunRequest(
            run_config={"ops": {f"{source}_window": {"config": {"window_seconds": seconds}}}},
            tags={
                MAX_RUNTIME: str(round(seconds) + MARGIN_SECONDS),
                WINDOW: source,
                "dagster/max_retries": "0",  # the next minute opens another one
            },
        )

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
    settings: Settings = load_settings()
    reasons = [why_switched_off(settings, source) for source in SOURCES]
    if all(reasons):
        return dg.SkipReason(" ".join(filter(None, reasons)))
    if (busy := why_not(_runs_of(context.instance, reconcile.name), lead=0)) is not None:
        return dg.SkipReason(busy)
    return dg.RunRequest()


def _lead(window_seconds: float) -> float:
    return LEAD_SECONDS if window_seconds > 2 * LEAD_SECONDS else 0.0


def _runs_of(
    instance: dg.DagsterInstance, job_name: str, *, tags: dict[str, str] | None = None
) -> Sequence[dg.RunRecord]:
    wanted = dg.RunsFilter(job_name=job_name, statuses=[*WAITING, *ALIVE], tags=tags or {})
    return instance.get_run_records(wanted, limit=50)


def why_not(runs: Sequence[dg.RunRecord], *, lead: float = 0, now: datetime | None = None) -> str | None:
    """Return why no further run is needed, or None.

    Args:
        runs: Those that wait or are under way.
        lead: Seconds before the end of a run in which its successor may be queued.
        now: Replaced by tests.
    """
    now = now or datetime.now(UTC)
    for record in runs:
        run = record.dagster_run
        name = f"Run {run.run_id[:8]} of {run.job_name}"
        if run.status in WAITING:
            waited = (now - record.create_timestamp).total_seconds()
            return f"{name} has been waiting for {waited:.0f} s to start."
        age = now.timestamp() - (record.start_time or record.create_timestamp.timestamp())
        longest = float(run.tags.get(MAX_RUNTIME, LONGEST_RUN_SECONDS))
        if age < longest - (lead + MARGIN_SECONDS if lead else 0):
            return f"{name} is under way for {age:.0f} s; it may take {longest:.0f} s."
    return None


def is_lost(record: dg.RunRecord, *, now: datetime | None = None) -> bool:
    """Return whether a window's run has been under way for a while, though nobody holds its lock."""
    now = now or datetime.now(UTC)
    run, started = record.dagster_run, record.start_time
    if run.status != dg.DagsterRunStatus.STARTED or started is None:
        return False
    return now.timestamp() - started > LOST_SECONDS


def _is_held(settings: Settings, source: Source) -> bool:
    """Return whether somebody holds the window's lock; without an answer it counts as held."""
    try:
        engine = connect_database(settings)
    except TwmError:
        return True
    try:
        with engine.connect() as connection:
            return holds_window(connection, source)
    finally:
        engine.dispose()
