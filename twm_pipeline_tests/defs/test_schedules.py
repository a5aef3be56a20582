from datetime import UTC, datetime

import dagster as dg
import pytest
from dagster._core.definitions.schedule_definition import ScheduleExecutionData

from twm_pipeline.definitions import defs
from twm_pipeline.sync.window_lock import window_lock
from twm_pipeline_tests.defs.conftest import Deployment

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
Status = dg.DagsterRunStatus


@pytest.fixture
def instance():
    with dg.instance_for_test() as instance:  # a schedule's context wants one that can be opened anew
        yield instance


def evaluate(deployment: Deployment, name: str) -> ScheduleExecutionData:
    schedule = defs.resolve_schedule_def(name)
    with dg.build_schedule_context(instance=deployment.instance, scheduled_execution_time=NOW) as context:
        return schedule.evaluate_tick(context)


def tick(deployment: Deployment, name: str) -> dg.RunRequest:
    """Return what a tick asks for."""
    [request] = evaluate(deployment, name).run_requests or []
    return request


def skipped(deployment: Deployment, name: str) -> str:
    """Return why a tick asks for nothing."""
    data = evaluate(deployment, name)
    assert not data.run_requests
    return str(data.skip_message)


def test_a_tick_opens_a_window(deployment):
    deployment.set(sync_window_seconds=600)

    request = tick(deployment, "teamwork_poll_schedule")

    assert request.run_key is None
    assert request.run_config == {"ops": {"teamwork_window": {"config": {"window_seconds": 600}}}}
    assert request.tags["dagster/max_runtime"] == "900"
    assert request.tags["twm/window"] == "teamwork"
    assert dg.validate_run_config(defs.resolve_job_def("teamwork_sync"), request.run_config)


def add_run(deployment, status: Status, *, source: str = "teamwork") -> dg.DagsterRun:
    job = defs.resolve_job_def(f"{source}_sync")
    run: dg.DagsterRun = deployment.instance.create_run_for_job(job, tags={"twm/window": source})
    if status is Status.STARTED:
        deployment.instance.report_dagster_event(dg.DagsterEvent("PIPELINE_START", job.name), run.run_id)
    return run


@pytest.mark.parametrize("status", [Status.NOT_STARTED, Status.STARTED])
def test_a_tick_beside_a_run_skips_and_says_which(deployment, status):
    run = add_run(deployment, status)

    assert run.run_id[:8] in skipped(deployment, "teamwork_poll_schedule")
    assert tick(deployment, "missive_poll_schedule").tags["twm/window"] == "missive"


def test_a_tick_beside_a_pass_of_the_command_line_skips(deployment):
    deployment.run("teamwork_sync")

    with window_lock(deployment.engine, "teamwork"):
        answer = skipped(deployment, "teamwork_poll_schedule")

    assert answer == "Another process, such as `twm sync`, is reading Teamwork."


def test_a_tick_reports_a_killed_window_and_opens_another(deployment, monkeypatch):
    deployment.run("teamwork_sync")
    run = add_run(deployment, Status.STARTED)
    monkeypatch.setattr("twm_pipeline.defs.windows.LOST_SECONDS", -1)

    assert tick(deployment, "teamwork_poll_schedule").tags["twm/window"] == "teamwork"
    after = deployment.instance.get_run_by_id(run.run_id)
    assert after is not None
    assert after.status is Status.FAILURE


@pytest.mark.parametrize(
    "name", ["teamwork_poll_schedule", "missive_poll_schedule", "nightly_reconcile_schedule"]
)
def test_nothing_is_started_for_a_vendor_that_is_not_configured(deployment, name):
    deployment.set(teamwork_api_key=None, missive_api_token=None)

    assert "switched off: set " in skipped(deployment, name)


def test_the_sweep_runs_at_night_unless_one_is_under_way(deployment):
    assert tick(deployment, "nightly_reconcile_schedule").run_key is None

    deployment.instance.create_run_for_job(defs.resolve_job_def("reconcile"))

    assert "of reconcile has been waiting" in skipped(deployment, "nightly_reconcile_schedule")
