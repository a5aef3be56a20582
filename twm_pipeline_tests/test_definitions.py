import subprocess
import sys

import dagster as dg
import pytest

from twm_pipeline.definitions import defs
from twm_pipeline.mirror.tables import STREAMS

TABLES = {f"{source}/{stream}": source for source, streams in STREAMS.items() for stream in streams}

MADE_OF_TABLES = {
    "insights/daily_activity": "insights",
    "insights/response_times": "insights",
    "insights/task_flow": "insights",
    "airtable/tasks": "airtable",
    "airtable/emails": "airtable",
    "missive/attachments": "missive",
}


@pytest.fixture(scope="module")
def graph():
    return defs.resolve_asset_graph()


def test_loading_needs_no_settings_and_reaches_nothing():
    code = (
        "import socket\n"
        "def refuse(*_): raise AssertionError('reached out')\n"
        "socket.socket.connect = refuse\n"
        "from twm_pipeline.definitions import defs\n"
        "defs.get_repository_def()\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env={})

    assert done.returncode == 0, done.stderr


def test_loading_brings_along_nothing_that_few_runs_need():
    """Every run loads the definitions anew; a delivery waits for that when no window is open."""
    code = (
        "import sys, twm_pipeline.definitions\n"
        "print(*{'pyairtable', 'pandas', 'matplotlib', 'ngrok', 'uvicorn', 'typer'} & set(sys.modules))\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == []


def test_every_table_is_an_asset_of_its_vendors_group(graph):
    assert {
        key.to_user_string(): graph.get(key).group_name for key in graph.materializable_asset_keys
    } == TABLES | MADE_OF_TABLES


def test_every_table_says_how_old_it_may_grow(graph):
    old = [key for key in graph.materializable_asset_keys if graph.get(key).freshness_policy is None]

    assert old == []


def test_what_is_published_comes_from_the_tables_that_it_shows(graph):
    parents = graph.get(dg.AssetKey(["airtable", "emails"])).parent_keys

    assert {key.to_user_string() for key in parents} == {"missive/emails", "missive/conversations"}


def test_the_apis_are_external(graph):
    assert {key.to_user_string() for key in graph.external_asset_keys} == {"teamwork/api", "missive/api"}
    assert graph.get(dg.AssetKey(["teamwork", "tasks"])).parent_keys == {dg.AssetKey(["teamwork", "api"])}


@pytest.mark.parametrize("key", [*TABLES, *MADE_OF_TABLES, "teamwork/api", "missive/api"])
def test_every_asset_explains_itself(graph, key):
    asset = graph.get(dg.AssetKey(key.split("/")))

    assert len(asset.description) > 40
    assert asset.owners == ["team:operations"]
    assert asset.kinds
    if key in TABLES:
        assert asset.metadata["dagster/table_name"] == key.replace("/", ".")
        assert len(asset.metadata["dagster/column_schema"].columns) > 10


def test_what_is_made_of_tables_comes_from_the_vendors_in_the_end(graph):
    for key in graph.materializable_asset_keys:
        roots = {item.to_user_string() for item in graph.get_ancestor_asset_keys(key)}

        assert roots & {"teamwork/api", "missive/api"}, key


def test_everything_that_can_be_looked_at_explains_itself():
    repository = defs.get_repository_def()
    named = [job for job in repository.get_all_jobs() if not job.name.startswith("__")]
    told = {job.name: job.description for job in named}
    told |= {item.name: item.description for item in repository.schedule_defs}
    told |= {item.name: item.description for item in repository.sensor_defs}
    told |= {str(spec.key): spec.description for item in defs.asset_checks or [] for spec in item.check_specs}
    told |= {name: type(item).__doc__ for name, item in (defs.resources or {}).items()}

    assert [name for name, words in told.items() if len(words or "") < 25] == []
    assert [job.name for job in named if "Status page" not in job.metadata] == []
    assert [job.name for job in named if len(job.description or "") < 150] == []


def test_jobs_and_schedules_have_their_names():
    repository = defs.get_repository_def()

    assert {job.name for job in repository.get_all_jobs()} == {
        "__ASSET_JOB",
        "teamwork_sync",
        "missive_sync",
        "airtable_publish",
        "attachments_download",
        "reconcile",
        "webhooks_check",
        "checks",
        "housekeeping",
        "insights",
    }
    assert {sensor.name: sensor.default_status.value for sensor in repository.sensor_defs} == {
        "teamwork_spool_sensor": "RUNNING",
        "missive_spool_sensor": "RUNNING",
        "airtable_publish_sensor": "RUNNING",
        "alerts_sensor": "RUNNING",
        "attachments_sensor": "RUNNING",
        "first_insights_sensor": "RUNNING",
    }
    assert {schedule.name: schedule.default_status.value for schedule in repository.schedule_defs} == {
        "teamwork_poll_schedule": "RUNNING",
        "missive_poll_schedule": "RUNNING",
        "nightly_reconcile_schedule": "RUNNING",
        "attachments_schedule": "RUNNING",
        "airtable_check_schedule": "RUNNING",
        "webhooks_check_schedule": "RUNNING",
        "checks_schedule": "RUNNING",
        "nightly_housekeeping_schedule": "RUNNING",
        "insights_schedule": "RUNNING",
    }


@pytest.mark.parametrize(
    "name",
    [
        "teamwork_sync",
        "missive_sync",
        "airtable_publish",
        "attachments_download",
        "reconcile",
        "webhooks_check",
        "checks",
        "housekeeping",
    ],
)
def test_jobs_run_in_one_process_and_have_an_end(name):
    job = defs.resolve_job_def(name)

    assert job.executor_def is dg.in_process_executor
    assert float(job.tags["dagster/max_runtime"]) > 0


def test_one_op_reads_a_vendor_and_can_do_so_in_part(graph):
    for source, streams in STREAMS.items():
        [definition] = [
            item
            for item in defs.assets or []
            if isinstance(item, dg.AssetsDefinition) and item.op.name == f"{source}_window"
        ]
        assert definition.can_subset
        assert len(definition.keys) == len(streams)
