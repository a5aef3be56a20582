"""Publishing as Dagster runs it: windows woken by changes, figures that add up, a sensor that knows when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.definitions.schedule_definition import ScheduleExecutionData
from dagster._core.definitions.sensor_definition import SensorExecutionData
from pydantic import SecretStr
from sqlalchemy import text

from twm_pipeline.definitions import defs
from twm_pipeline_tests.defs.conftest import Deployment
from twm_pipeline_tests.publishing import airtable_settings


@pytest.fixture
def instance():
    with dg.instance_for_test() as instance:
        yield instance


@pytest.fixture
def published(deployment: Deployment) -> Deployment:
    """Return a deployment that publishes, with both sources read."""
    deployment.set(**airtable_settings(deployment.box.describe()))
    deployment.run("teamwork_sync")
    deployment.run("missive_sync")
    return deployment


def publish(deployment: Deployment, **config: object) -> dg.ExecuteInProcessResult:
    return deployment.run("airtable_publish", dict(config))


def sensor(deployment: Deployment) -> SensorExecutionData:
    definition = defs.resolve_sensor_def("airtable_publish_sensor")
    with dg.build_sensor_context(instance=deployment.instance) as context:
        return definition.evaluate_tick(context)


def skipped(deployment: Deployment) -> str:
    data = sensor(deployment)
    assert not data.run_requests
    return str(data.skip_message)


def test_a_run_publishes_both_tables_and_a_second_one_calls_nobody(published):
    first = publish(published)
    calls = published.control.request_count("airtable")
    second = publish(published)

    assert first.success, published.lines(first)
    figures = dict(published.materializations(first))
    assert figures["airtable/tasks"]["created"] == published.count("public.tasks", "true")
    assert figures["airtable/emails"]["created"] == published.count("public.emails", "true")
    assert second.success
    assert published.control.request_count("airtable") == calls


def test_publishing_that_is_not_set_up_is_a_line_and_no_error(deployment):
    result = publish(deployment)

    assert result.success
    assert "DB_BACKEND is postgres" in deployment.lines(result)


def test_the_sensor_opens_a_window_for_changes_and_for_nothing_else(published):
    assert sensor(published).run_requests
    publish(published)
    assert skipped(published) == "Everything that changed is published."

    published.control.create_task("Order steel")
    published.run("teamwork_sync")

    [request] = sensor(published).run_requests or []
    assert request.tags["twm/window"] == "airtable"
    assert dg.validate_run_config(defs.resolve_job_def("airtable_publish"), request.run_config)


@pytest.mark.parametrize(
    "due",
    [
        "INSERT INTO twm.set_aside (source, stream, object_id, reason, next_attempt_at)"
        " VALUES ('airtable', 'tasks', '1', 'refused', now() + :later)",
        "UPDATE twm.published SET attachments_sent_at = now() + :later - interval '5 minutes'"
        " WHERE view = 'emails'",
        "UPDATE twm.published SET attachments_due_at = now() + :later WHERE view = 'emails'",
    ],
    ids=["a refused row", "files to be looked at", "files to be sent again"],
)
def test_the_sensor_opens_a_window_for_what_no_change_tells_of(published, due):
    def wait_for(later: timedelta) -> None:
        with published.engine.begin() as connection:
            connection.execute(text("DELETE FROM twm.set_aside"))
            connection.execute(
                text("UPDATE twm.published SET attachments_sent_at = NULL, attachments_due_at = NULL")
            )
            connection.execute(text(due), {"later": later})

    publish(published)
    wait_for(timedelta(seconds=30))
    assert skipped(published) == "Everything that changed is published."

    wait_for(timedelta(seconds=-1))

    assert sensor(published).run_requests


def test_the_sensor_says_why_it_stands_still(deployment):
    assert "DB_BACKEND is postgres" in skipped(deployment)
    deployment.set(db_backend="both")
    assert "AIRTABLE_API_KEY and AIRTABLE_BASE_ID" in skipped(deployment)


def test_the_sensor_says_that_the_month_is_used_up(published):
    published.set(airtable_monthly_calls=2)
    assert not publish(published).success
    assert "AIRTABLE_MONTHLY_CALLS are used up" in skipped(published)

    published.set(airtable_monthly_calls=None)
    published.control.airtable_set_quota(0)
    result = publish(published)

    assert not result.success
    assert "month are used up" in published.lines(result)
    assert "monthly quota is used up" in skipped(published)
    assert "monthly quota is used up" in str(night(published).skip_message)
    assert published.run("teamwork_sync").success


WEEKDAY, SUNDAY = datetime(2026, 3, 4, 2, 47, tzinfo=UTC), datetime(2026, 3, 1, 2, 47, tzinfo=UTC)


def night(deployment: Deployment, at: datetime = WEEKDAY) -> ScheduleExecutionData:
    schedule = defs.resolve_schedule_def("airtable_check_schedule")
    with dg.build_schedule_context(instance=deployment.instance, scheduled_execution_time=at) as context:
        return schedule.evaluate_tick(context)


def test_every_night_a_sample_is_looked_at_and_on_sundays_everything(published):
    publish(published)
    [request] = night(published).run_requests or []
    [whole] = night(published, SUNDAY).run_requests or []
    config = request.run_config["ops"]["airtable_window"]["config"]
    published.control.airtable_wipe()

    result = publish(published, **config)

    assert result.success
    assert whole.run_config["ops"]["airtable_window"]["config"] == {"check": "whole"}
    events = published.instance.all_logs(result.run_id, of_type=dg.DagsterEventType.ASSET_OBSERVATION)
    [found] = [
        item.metadata
        for event in events
        if (item := event.asset_observation).asset_key.path == ["airtable", "tasks"]
    ]
    assert found["missing"].value == published.count("public.tasks", "true") > 0
    records = [row["table"] for row in published.control.truth("airtable_record")]
    assert records.count("Tasks") == published.count("public.tasks", "true")


def test_nothing_is_looked_at_where_nothing_is_published(deployment):
    assert "DB_BACKEND is postgres" in str(night(deployment).skip_message)
    deployment.set(db_backend="both", airtable_api_key=SecretStr("pat"), airtable_base_id="app0123456789abcd")
    assert "Nothing has been published yet" in str(night(deployment).skip_message)


def test_a_check_that_there_is_not_is_told_so(published):
    result = publish(published, check="half")

    assert not result.success
    assert "neither `sample` nor `whole`" in published.lines(result)


def test_an_open_window_publishes_a_change_as_it_comes(published):
    publish(published)
    ids: list[int] = []

    import threading  # noqa: PLC0415

    def change() -> None:
        ids.append(published.control.create_task("Order steel"))
        published.run("teamwork_sync")

    timer = threading.Timer(1.0, change)
    timer.start()
    result = publish(published, window_seconds=6)
    timer.join()

    assert result.success
    titles = {row["cells"].get("name") for row in published.control.truth("airtable_record")}
    assert "Order steel" in titles
