import asyncio
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psycopg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.instance.ref import InstanceRef
from dagster._core.loader import LoadingContextForTest
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    ScheduleInstigatorData,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._daemon.sensor import get_elapsed
from dagster._serdes import serialize_value
from sqlalchemy import URL

from twm_pipeline.defs.storage import TwmStorage
from twm_pipeline.settings import PROJECT_DIR

DEFINITIONS = """
import dagster as dg

@dg.asset
def greeting(context: dg.AssetExecutionContext) -> None:
    print("good morning")

defs = dg.Definitions(assets=[greeting])
"""

# Started in the background of a shell, SIGINT is ignored, and `dagster dev` then ignores SIGTERM too.
HEEDING_INTERRUPTS = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from dagster._cli import main
main()
"""

OPEN_AN_INSTANCE = """
import sys, tempfile, dagster as dg
from dagster._core.instance.ref import InstanceRef
with (
    tempfile.TemporaryDirectory() as home,
    dg.DagsterInstance.from_ref(InstanceRef.from_dir(home, config_dir=sys.argv[1])) as instance,
):
    instance.get_runs_count()
"""


@pytest.fixture
def dagster_database(empty_database: URL, monkeypatch: pytest.MonkeyPatch) -> URL:
    """Point the settings at a database of this test's own, written as a person would."""
    url = empty_database.set(drivername="postgresql").render_as_string(hide_password=False)
    monkeypatch.setenv("DAGSTER_PG_URL", url)
    return empty_database


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a temporary home such as `dagster dev` makes."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def instance(dagster_database: URL, home: Path) -> Iterator[dg.DagsterInstance]:
    """Return the instance of the project's `dagster.yaml`."""
    with open_instance(home) as instance:
        yield instance


def open_instance(home: Path) -> dg.DagsterInstance:
    return dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home), config_dir=str(PROJECT_DIR)))


@dg.asset
def greeting() -> None:
    print("good morning")  # noqa: T201 - the compute log is what the test looks at


def test_the_project_keeps_its_history_in_postgresql(instance):
    storage = instance.get_ref().storage

    assert isinstance(storage, TwmStorage)
    assert storage.postgres_url.startswith("postgresql+psycopg2://")


def test_a_run_and_what_it_printed_outlive_the_temporary_home(instance, home, tmp_path):
    run_id = dg.materialize([greeting], instance=instance).run_id
    shutil.rmtree(home)
    (tmp_path / "next").mkdir()

    with open_instance(tmp_path / "next") as later:
        run = later.get_run_by_id(run_id)
        [file] = (tmp_path / ".twm" / "dagster" / "storage" / run_id / "compute_logs").glob("*.out")
        printed = later.compute_log_manager.get_log_data([run_id, "compute_logs", file.stem]).stdout

    assert run is not None
    assert run.status == dg.DagsterRunStatus.SUCCESS
    assert printed == b"good morning\n"


def test_the_instances_of_a_process_share_one_connection(instance, dagster_database, tmp_path):
    (tmp_path / "next").mkdir()
    with open_instance(tmp_path / "next") as other:
        for _ in range(5):
            instance.get_runs_count()
            other.get_runs_count()

    assert len(sessions(dagster_database)) == 1


def test_a_connection_that_the_server_has_closed_is_replaced(instance, dagster_database, monkeypatch):
    monkeypatch.setattr("twm_pipeline.defs.storage.UNUSED_SECONDS", 0.0)
    instance.get_runs_count()
    [before] = sessions(dagster_database)
    with psycopg.connect(words(dagster_database), autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(%s, 5000)", [before])

    assert instance.get_runs_count() == 0
    assert sessions(dagster_database) != [before]


def test_what_dagster_asks_of_its_tables_is_asked_once(instance, dagster_database):
    schedules = instance.schedule_storage
    assert schedules.has_instigators_table()
    with psycopg.connect(words(dagster_database)) as connection:
        connection.execute("ALTER TABLE instigators RENAME TO others")

    assert schedules.has_instigators_table()


def words(url: URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def sessions(url: URL) -> list[int]:
    """Return the server's processes for this test's database, but for that of the question."""
    query = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        " AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    with psycopg.connect(words(url)) as connection:
        return [row[0] for row in connection.execute(query)]


def test_the_answer_of_a_check_is_shown_until_the_next_one(instance):
    @dg.asset_check(asset=greeting)
    def is_polite() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=False)

    dg.materialize([greeting, is_polite], instance=instance)
    dg.materialize([greeting], instance=instance)

    [answer] = instance.event_log_storage.get_latest_asset_check_execution_by_key(
        [is_polite.check_key]
    ).values()
    assert not answer.evaluation.passed
    assert asyncio.run(answer.targets_latest_materialization(LoadingContextForTest(instance)))


def test_events_reach_a_watcher(instance, home):
    seen = threading.Event()
    run = instance.create_run_for_job(dg.Definitions([greeting]).resolve_implicit_global_asset_job_def())

    def note(_event: dg.EventLogEntry, _cursor: str) -> None:
        seen.set()

    with open_instance(home) as watching:
        watching.watch_event_logs(run.run_id, None, note)
        instance.report_run_canceling(run)
        arrived = seen.wait(timeout=20)
        watching.end_watch_event_logs(run.run_id, note)

    assert arrived


def test_no_password_is_in_the_reference_that_processes_are_started_with(instance, dagster_database):
    assert dagster_database.password not in serialize_value(instance.get_ref())


def test_several_processes_may_open_an_empty_database_at_once(dagster_database):
    command = [sys.executable, "-W", "ignore", "-c", OPEN_AN_INSTANCE, str(PROJECT_DIR)]

    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    answers = [(process.communicate()[1], process.returncode) for process in processes]

    assert [code for _, code in answers] == [0, 0, 0], answers


def test_the_instance_is_set_up_for_production(instance):
    queue = instance.get_concurrency_config().run_queue_config

    assert queue is not None
    assert queue.tag_concurrency_limits == [
        {"key": "twm/window", "value": {"applyLimitPerUniqueValue": True}, "limit": 1}
    ]
    assert instance.run_coordinator.dequeue_interval_seconds == 1
    assert instance.run_monitoring_enabled
    assert instance.run_monitoring_max_runtime_seconds == 3600
    assert instance.run_monitoring_settings["free_slots_after_run_end_seconds"] == 60
    assert instance.run_retries_enabled
    assert not instance.run_retries_retry_on_asset_or_op_failure
    assert not instance.telemetry_enabled
    assert -1 not in instance.get_tick_retention_settings(InstigatorType.SENSOR).values()


@pytest.mark.parametrize(
    "section", ["run_monitoring", "retention", "concurrency", "run_queue", "run_retries"]
)
def test_a_misspelt_key_would_be_noticed(section, home, tmp_path):
    text = (PROJECT_DIR / "dagster.yaml").read_text()
    (tmp_path / "dagster.yaml").write_text(text.replace(f"\n{section}:", f"\n{section}:\n  misspelt: 1", 1))

    with pytest.raises(dg.DagsterInvalidConfigError, match="misspelt"):
        InstanceRef.from_dir(str(home), config_dir=str(tmp_path))


def test_bare_dagster_dev_shows_a_run_of_another_process(dagster_database, tmp_path):
    shutil.copy(PROJECT_DIR / "dagster.yaml", tmp_path)
    (tmp_path / "definitions.py").write_text(DEFINITIONS)
    (tmp_path / "workspace.yaml").write_text("load_from: [{python_file: definitions.py}]")
    materialize = [
        "-m",
        "dagster",
        "asset",
        "materialize",
        "--select",
        "greeting",
        "--python-file",
        "definitions.py",
    ]
    subprocess.run([sys.executable, *materialize], cwd=tmp_path, check=True, capture_output=True)
    port = free_port()

    with (tmp_path / "dev.log").open("w") as log:
        command = [sys.executable, "-c", HEEDING_INTERRUPTS, "dev", "--port", str(port)]
        dev = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)
    try:
        runs = ask_for_runs(port, dev)
    finally:
        dev.send_signal(signal.SIGINT)
        code = dev.wait(timeout=60)

    assert [run["status"] for run in runs] == ["SUCCESS"]
    assert code == 0
    assert not list(tmp_path.glob(".tmp_dagster_home_*"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask_for_runs(port: int, server: subprocess.Popen[bytes]) -> list[dict[str, str]]:
    query = json.dumps({"query": "{runsOrError {... on Runs {results {runId status}}}}"}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql", data=query, headers={"Content-Type": "application/json"}
    )
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - our own address
                return list(json.load(answer)["data"]["runsOrError"]["results"])
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.3)
    pytest.fail("dagster dev does not answer")


AHEAD = 3600.0


def instigator(kind: InstigatorType) -> RemoteInstigatorOrigin:
    code = ManagedGrpcPythonEnvCodeLocationOrigin(LoadableTargetOrigin(module_name="x"), "x")
    return RemoteInstigatorOrigin(RemoteRepositoryOrigin(code, "x"), f"a_{kind.value.lower()}")


def note(instance: dg.DagsterInstance, kind: InstigatorType, moment: float) -> InstigatorState:
    """Note that a schedule or sensor was looked at, and return what Dagster's daemon then finds."""
    data = (
        SensorInstigatorData(last_tick_timestamp=moment, last_tick_start_timestamp=moment)
        if kind is InstigatorType.SENSOR
        else ScheduleInstigatorData("* * * * *", start_timestamp=moment, last_iteration_timestamp=moment)
    )
    state = InstigatorState(instigator(kind), kind, InstigatorStatus.RUNNING, data)
    instance.add_instigator_state(state)
    tick = TickData(
        instigator_origin_id=state.instigator_origin_id,
        instigator_name=state.name,
        instigator_type=kind,
        status=TickStatus.SKIPPED,
        timestamp=moment,
        selector_id=state.selector_id,
    )
    instance.create_tick(tick)
    [found] = instance.all_instigator_state()
    alone = instance.get_instigator_state(state.instigator_origin_id, state.selector_id)
    assert alone is not None
    assert moments(alone) == pytest.approx(moments(found), abs=1)
    return found


def moments(state: InstigatorState) -> list[float]:
    data = state.instigator_data
    assert data is not None
    return [item for item in data if isinstance(item, float)]


@pytest.mark.parametrize("kind", [InstigatorType.SENSOR, InstigatorType.SCHEDULE])
def test_what_was_noted_before_the_clock_was_set_back_keeps_nothing_from_starting(instance, kind):
    now = time.time()

    found = note(instance, kind, now + AHEAD)

    if kind is InstigatorType.SENSOR:
        assert get_elapsed(found) is None  # it is due
        assert moments(found) == []
    else:  # the minute that has begun since is due, and not all since 1970
        assert moments(found) == pytest.approx([now - 120, now - 120], abs=30)
    assert instance.get_ticks(found.instigator_origin_id, found.selector_id, limit=1) == []


@pytest.mark.parametrize("kind", [InstigatorType.SENSOR, InstigatorType.SCHEDULE])
def test_what_was_noted_just_now_stays_as_it_is(instance, kind):
    now = time.time()

    found = note(instance, kind, now)

    assert set(moments(found)) == {now}
    assert len(instance.get_ticks(found.instigator_origin_id, found.selector_id, limit=1)) == 1
