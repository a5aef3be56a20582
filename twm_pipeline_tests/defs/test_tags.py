from typing import Any

import dagster as dg
import pytest

from twm_pipeline.defs.tags import source_of, trigger_of


@pytest.mark.parametrize(
    ("tags", "trigger"),
    [
        ({}, "ui"),
        ({"dagster/schedule_name": "teamwork_poll_schedule"}, "schedule"),
        ({"dagster/sensor_name": "teamwork_spool_sensor"}, "sensor"),
        ({"twm/trigger": "cli"}, "cli"),
        ({"twm/trigger": "sensor", "dagster/parent_run_id": "1", "dagster/retry_number": "1"}, "sensor"),
        ({"twm/trigger": "sensor", "dagster/sensor_name": "x", "dagster/parent_run_id": "1"}, "ui"),
    ],
    ids=["by hand", "schedule", "sensor", "command", "retried by Dagster", "started again by hand"],
)
def test_a_run_is_called_by_what_started_it(tags: dict[str, str], trigger: str):
    assert trigger_of(tags) == trigger


@pytest.mark.parametrize(
    ("keys", "source"),
    [
        ([], None),
        (["insights/task_flow"], None),
        (["missive/emails", "missive/attachments"], "missive"),
        (["missive/emails", "teamwork/tasks", "airtable/tasks"], "teamwork+missive+airtable"),
    ],
)
def test_a_run_is_about_the_sources_of_its_assets(keys: list[Any], source: str | None):
    assert source_of(dg.AssetKey(key.split("/")) for key in keys) == source
