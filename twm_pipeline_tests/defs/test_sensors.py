"""A sensor opens a window when deliveries wait and none is open, and else says why it does not."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.definitions.sensor_definition import SensorExecutionData
from pydantic import SecretStr

from twm_pipeline.definitions import defs
from twm_pipeline.defs.windows import why_pause
from twm_pipeline.records import Hint, Source
from twm_pipeline.spool import Envelope, Spool
from twm_pipeline.sync.drain import spool_of
from twm_pipeline.sync.window_lock import window_lock
from twm_pipeline_tests.defs.conftest import Deployment

Status = dg.DagsterRunStatus


@pytest.fixture
def instance():
    with dg.instance_for_test() as instance:
        yield instance


def evaluate(deployment: Deployment, source: Source = "teamwork") -> SensorExecutionData:
    sensor = defs.resolve_sensor_def(f"{source}_spool_sensor")
    with dg.build_sensor_context(instance=deployment.instance) as context:
        return sensor.evaluate_tick(context)


def skipped(deployment: Deployment, source: Source = "teamwork") -> str:
    data = evaluate(deployment, source)
    assert not data.run_requests
    return str(data.skip_message)


def deliver(deployment: Deployment, count: int = 1, source: Source = "teamwork") -> Spool:
    hint = Hint(event="TASK.UPDATED", stream="tasks", object_id="1")
    spool = spool_of(deployment.settings, source)
    spool.put(
        [
            Envelope(source=source, hint=hint, received_at=datetime.now(UTC), headers={}, body=b"{}")
            for _ in range(count)
        ]
    )
    return spool


def under_way(deployment: Deployment, *, seconds: float, longest: float) -> dg.DagsterRun:
    """Return a window's run that started so long ago, of which its tag says how long it may take."""
    tags = {"twm/window": "teamwork", "dagster/max_runtime": str(longest)}
    job = defs.resolve_job_def("teamwork_sync")
    run: dg.DagsterRun = deployment.instance.create_run_for_job(job, tags=tags)
    started = datetime.now(UTC) - timedelta(seconds=seconds)
    deployment.instance.handle_new_event(
        dg.EventLogEntry(
            error_info=None,
            level=20,
            user_message="",
            run_id=run.run_id,
            timestamp=started.timestamp(),
            job_name=job.name,
            dagster_event=dg.DagsterEvent("PIPELINE_START", job.name),
        )
    )
    return run


def test_an_empty_spool_skips(deployment):
    assert skipped(deployment) == "No delivery waits."


def test_a_waiting_delivery_opens_a_window(deployment):
    deliver(deployment)

    [request] = evaluate(deployment).run_requests or []

    seconds = deployment.settings.sync_window_seconds
    assert request.run_key is None
    assert request.run_config == {"ops": {"teamwork_window": {"config": {"window_seconds": seconds}}}}
    assert request.tags["twm/window"] == "teamwork"
    assert skipped(deployment, "missive") == "No delivery waits."


def test_what_a_killed_window_had_claimed_opens_one_too(deployment):
    deliver(deployment).claim(limit=1)

    assert evaluate(deployment).run_requests


def test_an_open_window_is_left_alone(deployment):
    deliver(deployment, 3)
    run = under_way(deployment, seconds=60, longest=1200)

    answer = skipped(deployment)

    assert answer.startswith(
        f"3 deliveries of Teamwork wait. Run {run.run_id[:8]} of teamwork_sync has been under way"
    )


def test_the_successor_is_queued_in_the_last_seconds_of_a_window(deployment):
    deliver(deployment)
    deployment.run("teamwork_sync")
    deliver(deployment)
    under_way(deployment, seconds=875, longest=1200)

    with window_lock(deployment.engine, "teamwork"):
        assert evaluate(deployment).run_requests


def test_a_pass_of_the_command_line_is_left_alone(deployment):
    deployment.run("teamwork_sync")
    deliver(deployment)

    with window_lock(deployment.engine, "teamwork"):
        assert "`twm sync`" in skipped(deployment)


def test_waiting_retries_and_dead_deliveries_are_told(deployment):
    spool = deliver(deployment, 2)
    first, second = spool.claim(limit=2)
    spool.fail(first, "no", most_attempts=1, first_wait_seconds=60)
    spool.fail(second, "no", most_attempts=3, first_wait_seconds=60)

    answer = skipped(deployment)

    assert "1 delivery will be tried again, the first at" in answer
    assert answer.endswith("1 delivery could not be applied: twm queue list")


def test_deliveries_of_a_vendor_without_credentials_wait(deployment):
    deliver(deployment)
    deployment.set(teamwork_api_key=None)

    assert "1 delivery of Teamwork waits. Teamwork is switched off: set TEAMWORK_BASE_URL" in skipped(
        deployment
    )


def test_a_sensor_asks_nobody_while_nothing_waits(deployment):
    deployment.set(pg_dsn=SecretStr("postgresql://nobody@127.0.0.1:9/none"))

    assert skipped(deployment) == "No delivery waits."


def test_ten_thousand_entries_are_listed_and_none_is_opened(deployment, monkeypatch):
    spool = deliver(deployment, 1)
    [name] = [entry.name for entry in spool.entries("new")]
    folder = deployment.settings.spool_folder / "teamwork" / "new"
    for number in range(10_000):
        (folder / f"{number:016d}{name[16:]}").touch()
    opened: list[str] = []

    with monkeypatch.context() as patch:
        patch.setattr("os.open", lambda path, *_, **__: opened.append(str(path)))
        waiting = spool.waiting()

    assert waiting.new == 10_001
    assert opened == []


def test_a_window_that_failed_a_moment_ago_is_not_followed_by_another_at_once(deployment):
    deployment.set(teamwork_api_key=SecretStr("wrong"))
    deliver(deployment)
    first = deployment.run("teamwork_sync")
    second = deployment.run("teamwork_sync")
    assert not first.success

    answer = skipped(deployment)

    run = f"Run {second.run_id[:8]} of teamwork_sync"
    assert f"{run} failed (AuthenticationError), the last of 2; the next one starts in" in answer


def test_a_failure_of_before_the_clock_was_set_back_holds_up_nothing(deployment):
    deployment.set(teamwork_api_key=SecretStr("wrong"))
    deployment.run("teamwork_sync")
    now = datetime.now(UTC)

    assert why_pause(deployment.instance, "teamwork", now=now) is not None
    assert why_pause(deployment.instance, "teamwork", now=now - timedelta(hours=1)) is None


def test_a_run_that_succeeds_ends_the_pause(deployment):
    right = deployment.settings.teamwork_api_key
    deployment.set(teamwork_api_key=SecretStr("wrong"))
    deployment.run("teamwork_sync")
    deployment.set(teamwork_api_key=right)
    deployment.run("teamwork_sync")
    deliver(deployment)

    assert evaluate(deployment).run_requests
