"""When a vendor needs another window, and the run that opens it: one answer for schedules and sensors."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime

import dagster as dg

from twm_pipeline.db import connect_database
from twm_pipeline.defs.failures import FAILED_BY
from twm_pipeline.defs.jobs import LONGEST_RUN_SECONDS, MAX_RUNTIME, WINDOW
from twm_pipeline.errors import TwmError
from twm_pipeline.settings import Settings
from twm_pipeline.sync.window_lock import WindowName, holds_window

MARGIN_SECONDS = 300
"""How much longer than its window a run may take before it counts as lost."""
FAILURE_PAUSE_SECONDS = 30
LONGEST_PAUSE_SECONDS = 900
MOST_FAILURES = 6
"""After so many failures in a row the wait grows no more."""
LOST_SECONDS = 120
"""After so long a window has its lock, or its process was killed."""
LOST = "The process of this run is gone: nobody holds the lock of its window."

WAITING = (dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED)
ALIVE = (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)
_OTHER_JOBS: dict[WindowName, str] = {"airtable": "airtable_publish", "attachments": "attachments_download"}
_DOING: dict[WindowName, str] = {"airtable": "publishing to Airtable", "attachments": "downloading files"}


def job_of(origin: WindowName) -> str:
    """Return the name of the job whose runs keep the windows of *origin* open."""
    return _OTHER_JOBS.get(origin, f"{origin}_sync")


def window_request(settings: Settings, source: WindowName) -> dg.RunRequest:
    """Return the request for a run that keeps a window open; it has no run key, as each is a new one."""
    seconds = settings.sync_window_seconds
    return dg.RunRequest(
        run_config={"ops": {f"{source}_window": {"config": {"window_seconds": seconds}}}},
        tags={
            MAX_RUNTIME: str(round(seconds) + MARGIN_SECONDS),
            WINDOW: source,
            "dagster/max_retries": "0",  # the next tick opens another one
        },
    )


def why_no_window(
    instance: dg.DagsterInstance, settings: Settings, source: WindowName, *, lead_seconds: float
) -> str | None:
    """Return why *source* needs no further window now, or None; runs that are lost are ended on the way.

    Args:
        instance: Knows the runs.
        settings: The deployment's settings.
        source: The vendor.
        lead_seconds: So long before a window ends its successor may be queued; a short window has none.
    """
    runs = runs_of(instance, job_of(source), tags={WINDOW: source})
    held = _is_held(settings, source)
    lost = [] if held else [record for record in runs if is_lost(record)]
    for record in lost:
        instance.report_run_failed(record.dagster_run, LOST)
    runs = [record for record in runs if record not in lost]
    lead = lead_seconds if settings.sync_window_seconds > 2 * lead_seconds else 0.0
    busy = why_not(runs, lead=lead) or (None if runs else why_pause(instance, source))
    if busy is None and held and not runs:
        doing = _DOING.get(source, f"reading {source.capitalize()}")
        busy = f"Another process, such as `twm sync`, is {doing}."
    return busy


def runs_of(
    instance: dg.DagsterInstance, job_name: str, *, tags: dict[str, str] | None = None
) -> Sequence[dg.RunRecord]:
    """Return the runs of a job that wait or are under way."""
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
        # A run that began long after now began before the clock was set back, and may be lost.
        if -MARGIN_SECONDS < age < longest - (lead + MARGIN_SECONDS if lead else 0):
            return f"{name} has been under way for {age:.0f} s; it may take {longest:.0f} s."
    return None


def request_unless_busy(instance: dg.DagsterInstance, job_name: str) -> dg.RunRequest | dg.SkipReason:
    """Return the request for a run of a job that never runs twice at once, or why there is none."""
    busy = why_not(runs_of(instance, job_name))
    return dg.RunRequest() if busy is None else dg.SkipReason(busy)


def why_pause(instance: dg.DagsterInstance, source: WindowName, *, now: datetime | None = None) -> str | None:
    """Return why to wait because the last runs of *source* failed, or None; each failure doubles the wait.

    What fails a window, such as refused credentials, is hardly mended in seconds, and each run is a process.
    """
    records = instance.get_run_records(dg.RunsFilter(job_name=job_of(source)), limit=MOST_FAILURES)
    failed = list(itertools.takewhile(_has_failed, records))
    if not failed:
        return None
    last = failed[0]
    pause = min(FAILURE_PAUSE_SECONDS * 2 ** (len(failed) - 1), LONGEST_PAUSE_SECONDS)
    ended = last.end_time or last.create_timestamp.timestamp()
    left = ended + pause - (now or datetime.now(UTC)).timestamp()
    if not 0 < left <= pause:  # more is left only where the clock was set back
        return None
    name, why = f"Run {last.dagster_run.run_id[:8]} of {job_of(source)}", last.dagster_run.tags[FAILED_BY]
    return f"{name} failed ({why}), the last of {len(failed)}; the next one starts in {left:.0f} s."


def _has_failed(record: dg.RunRecord) -> bool:
    """Return whether an error ended a run; one whose process was lost is followed at once."""
    run = record.dagster_run
    return run.status == dg.DagsterRunStatus.FAILURE and FAILED_BY in run.tags


def is_lost(record: dg.RunRecord, *, now: datetime | None = None) -> bool:
    """Return whether a window's run has been under way for a while, though nobody holds its lock."""
    now = now or datetime.now(UTC)
    run, started = record.dagster_run, record.start_time
    if run.status != dg.DagsterRunStatus.STARTED or started is None:
        return False
    return abs(now.timestamp() - started) > LOST_SECONDS  # ahead of now: the clock was set back


def _is_held(settings: Settings, source: WindowName) -> bool:
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
