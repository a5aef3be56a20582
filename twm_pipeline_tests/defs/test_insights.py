"""Insights as Dagster runs them."""

from __future__ import annotations

import dagster as dg
import pytest
from dagster._core.definitions.sensor_definition import SensorExecutionData
from pydantic import SecretStr
from sqlalchemy import text

from twm_pipeline.definitions import defs
from twm_pipeline.mirror.tables import TASKS
from twm_pipeline.mirror.upserts import upsert
from twm_pipeline_tests.defs.conftest import Deployment
from twm_pipeline_tests.factories import MORNING, make_task, seen


@pytest.fixture(autouse=True)
def _settings(settings, monkeypatch):
    monkeypatch.setenv("PG_DSN", settings.pg_dsn.get_secret_value())
    monkeypatch.setenv("TWM_DATA_DIR", str(settings.twm_data_dir))


def test_the_job_shows_figures_and_a_picture_and_no_name(engine):
    with engine.begin() as connection:
        upsert(connection, TASKS, [seen(make_task(title="secret words", created_at=MORNING), 5)])

    with dg.DagsterInstance.ephemeral() as instance:
        result = defs.resolve_job_def("insights").execute_in_process(instance=instance)

    shown = {
        event.asset_key.path[-1]: event.step_materialization_data.materialization.metadata
        for event in materialized(result)
    }
    assert sorted(shown) == ["daily_activity", "response_times", "task_flow"]
    assert shown["task_flow"]["open"].value == 1
    assert shown["daily_activity"]["dagster/row_count"].value == 1
    assert shown["task_flow"]["plot"].value.startswith("![task_flow](data:image/png;base64,")
    assert "secret words" not in str(shown)


def test_one_of_them_can_be_computed_by_itself():
    with dg.DagsterInstance.ephemeral() as instance:
        result = defs.resolve_job_def("insights").execute_in_process(
            instance=instance, asset_selection=[dg.AssetKey(["insights", "task_flow"])]
        )

    assert [event.asset_key.path[-1] for event in materialized(result)] == ["task_flow"]


def materialized(result):
    return result.get_asset_materialization_events()


def first_insights(deployment: Deployment) -> SensorExecutionData:
    sensor = defs.resolve_sensor_def("first_insights_sensor")
    with dg.build_sensor_context(instance=deployment.instance) as context:
        return sensor.evaluate_tick(context)


def test_they_are_computed_once_as_soon_as_the_first_import_is_complete(deployment):
    before = first_insights(deployment)
    deployment.run("teamwork_sync")
    half = first_insights(deployment)
    deployment.run("missive_sync")
    complete, again = first_insights(deployment), first_insights(deployment)
    defs.resolve_job_def("insights").execute_in_process(instance=deployment.instance)
    after = first_insights(deployment)

    assert before.skip_message == "The first import of Teamwork and Missive is not complete yet."
    assert half.skip_message == "The first import of Missive is not complete yet."
    [first], [second] = complete.run_requests or [], again.run_requests or []
    assert first.run_key == second.run_key  # Dagster starts one run of a key, whatever becomes of it
    assert "teamwork 20" in str(first.run_key)
    assert "every morning" in str(after.skip_message)


def test_they_wait_for_history_that_is_still_to_be_read(deployment):
    deployment.run("teamwork_sync")
    deployment.run("missive_sync")
    with deployment.engine.begin() as connection:
        gap = """'{"gaps": [{}]}'"""
        connection.execute(
            text(f"UPDATE twm.checkpoints SET last_cursor = last_cursor || {gap} WHERE source = 'missive'")
        )

    assert first_insights(deployment).skip_message == "The first import of Missive is not complete yet."


def test_no_first_insights_where_nothing_is_set_up_or_nobody_answers(deployment):
    deployment.set(pg_dsn=SecretStr("postgresql://127.0.0.1:1/nowhere"))
    silent = first_insights(deployment)
    deployment.set(teamwork_api_key=None, missive_api_token=None)

    assert "does not answer" in str(silent.skip_message)
    assert "Nothing is set up" in str(first_insights(deployment).skip_message)


def test_nothing_is_computed_where_nothing_is_set_up():
    schedule = defs.resolve_schedule_def("insights_schedule")
    with dg.DagsterInstance.ephemeral() as instance:
        tick = schedule.evaluate_tick(dg.build_schedule_context(instance))

    assert "Nothing is set up" in str(tick.skip_message)
