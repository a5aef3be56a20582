"""Whether a window is needed: what a run that waits, lives, ends soon or is lost says about it."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from twm_pipeline.defs.windows import is_lost, why_not

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
Status = dg.DagsterRunStatus


def record(status: Status, *, age: float) -> Any:
    """Return what matters of Dagster's record of a run."""
    tags = {"dagster/max_runtime": "1200"}
    begun = NOW - timedelta(seconds=age)
    run = SimpleNamespace(run_id="0123456789", job_name="teamwork_sync", status=status, tags=tags)
    started = begun.timestamp() if status in (Status.STARTED, Status.CANCELING) else None
    return SimpleNamespace(dagster_run=run, create_timestamp=begun, start_time=started)


@pytest.mark.parametrize(
    ("status", "age", "reason"),
    [
        (Status.QUEUED, 5, "Run 01234567 of teamwork_sync has been waiting for 5 s to start."),
        (Status.QUEUED, 50_000, "waiting for 50000 s"),
        (Status.STARTING, 20, "under way for 20 s; it may take 1200 s"),
        (Status.STARTED, 1100, "under way for 1100 s"),
        (Status.STARTED, 1300, None),
        (Status.STARTING, 1300, None),
    ],
)
def test_a_run_that_lives_is_a_reason_to_skip_and_one_past_its_maximum_is_none(status, age, reason):
    answer = why_not([record(status, age=age)], now=NOW)

    assert answer is None if reason is None else reason in str(answer)


@pytest.mark.parametrize(("age", "skips"), [(830, True), (845, False), (1000, False)])
def test_a_successor_may_be_queued_shortly_before_a_window_ends(age, skips):
    assert (why_not([record(Status.STARTED, age=age)], lead=60, now=NOW) is not None) is skips


@pytest.mark.parametrize("age", [-4000, -10_000_000])
def test_a_run_of_before_the_clock_was_set_back_holds_up_nothing(age):
    run = record(Status.STARTED, age=age)

    assert is_lost(run, now=NOW)
    assert why_not([run], now=NOW) is None


def test_a_window_without_its_lock_is_lost_after_a_while():
    assert not is_lost(record(Status.STARTED, age=60), now=NOW)
    assert is_lost(record(Status.STARTED, age=130), now=NOW)
    assert not is_lost(record(Status.STARTING, age=130), now=NOW)
