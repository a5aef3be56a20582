"""Insights as Dagster runs them."""

from __future__ import annotations

import dagster as dg
import pytest

from twm_pipeline.definitions import defs
from twm_pipeline.mirror.tables import TASKS
from twm_pipeline.mirror.upserts import upsert
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


def test_nothing_is_computed_where_nothing_is_set_up():
    schedule = defs.resolve_schedule_def("insights_schedule")
    with dg.DagsterInstance.ephemeral() as instance:
        tick = schedule.evaluate_tick(dg.build_schedule_context(instance))

    assert "Nothing is set up" in str(tick.skip_message)
