"""A month passes in Dagster's real storage: what is kept stays the same from the second week on."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.events import DagsterEvent, DagsterEventType, StepMaterializationData
from dagster._core.instance.ref import InstanceRef
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, TickData, TickStatus
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from sqlalchemy import URL, Engine, create_engine, text

from twm_pipeline.definitions import defs
from twm_pipeline.defs.housekeeping import (
    forget_answers,
    forget_runs,
    forget_ticks,
    remove_leftovers,
)
from twm_pipeline.settings import PROJECT_DIR

FIRST = datetime.now(UTC) - timedelta(days=30)
KEPT_DAYS = 14
RUNS_A_DAY = 4
LOOKS_A_RUN = 3
RARE = dg.AssetKey("rare")
OFTEN = dg.AssetKey("often")


@dg.asset
def rare() -> None: ...


@dg.asset
def often() -> None: ...


@dg.asset_check(asset=often)
def is_true() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


LONG = dg.Definitions(assets=[rare, often], asset_checks=[is_true]).resolve_implicit_global_asset_job_def()


class Month:
    """Days of a deployment, each minute of it shortened to a few runs."""

    def __init__(self, instance: dg.DagsterInstance, engine: Engine, folder: Path) -> None:
        self.instance, self.engine, self.folder = instance, engine, folder
        code = ManagedGrpcPythonEnvCodeLocationOrigin(LoadableTargetOrigin(module_name="x"), "x")
        origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(code, "x"), "gone_sensor")
        self.sensor = InstigatorState(origin, InstigatorType.SENSOR, InstigatorStatus.STOPPED)
        instance.add_instigator_state(self.sensor)

    def run(self, moment: datetime, *keys: dg.AssetKey) -> str:
        """Let a run materialize assets and answer a check at *moment*, and print something."""
        run = self.instance.create_run_for_job(LONG)
        for key in keys:
            materialization = StepMaterializationData(dg.AssetMaterialization(key), [])
            kind = DagsterEventType.ASSET_MATERIALIZATION.value
            event = DagsterEvent(kind, LONG.name, event_specific_data=materialization)
            self.instance.report_dagster_event(event, run.run_id)
        self._end(run.run_id, moment)
        printed = self.folder / run.run_id / "compute_logs"
        printed.mkdir(parents=True)
        (printed / "x.out").write_text("good morning")
        return run.run_id

    def _end(self, run_id: str, moment: datetime) -> None:
        success = DagsterEvent(DagsterEventType.PIPELINE_SUCCESS.value, LONG.name)
        self.instance.report_dagster_event(success, run_id)
        with self.engine.begin() as connection:
            values = {"run": run_id, "at": moment.replace(tzinfo=None)}
            for statement in (
                "UPDATE runs SET create_timestamp = :at, update_timestamp = :at WHERE run_id = :run",
                "UPDATE asset_check_executions SET create_timestamp = :at WHERE run_id = :run",
            ):
                connection.execute(text(statement), values)

    def tick(self, moment: datetime) -> None:
        origin, selector = self.sensor.instigator_origin_id, self.sensor.selector_id
        data = TickData(
            instigator_origin_id=origin,
            instigator_name="gone_sensor",
            instigator_type=InstigatorType.SENSOR,
            status=TickStatus.SKIPPED,
            timestamp=moment.timestamp(),
            selector_id=selector,
        )
        self.instance.create_tick(data)

    def housekeeping(self, moment: datetime) -> None:
        before = moment - timedelta(days=KEPT_DAYS)
        forget_runs(self.instance, before=before)
        forget_answers(self.instance, before=before)
        forget_ticks(self.instance, before=before)
        remove_leftovers(self.instance, self.folder, before=before)

    def sizes(self) -> dict[str, int]:
        """Return how many rows and files there are."""
        tables = ("runs", "run_tags", "event_logs", "asset_check_executions", "job_ticks", "asset_event_tags")
        with self.engine.connect() as connection:
            found = {name: connection.scalar(text(f"SELECT count(*) FROM {name}")) for name in tables}
        return {**found, "files": sum(path.is_file() for path in self.folder.rglob("*"))}


@pytest.fixture
def month(empty_database: URL, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Month]:
    url = empty_database.set(drivername="postgresql").render_as_string(hide_password=False)
    monkeypatch.setenv("DAGSTER_PG_URL", url)
    (tmp_path / "home").mkdir()
    engine = create_engine(empty_database.set(drivername="postgresql+psycopg"))
    ref = InstanceRef.from_dir(str(tmp_path / "home"), config_dir=str(PROJECT_DIR))
    with dg.DagsterInstance.from_ref(ref) as instance:
        yield Month(instance, engine, tmp_path / ".twm" / "dagster" / "storage")
    engine.dispose()


def test_from_the_second_week_on_nothing_grows_any_more(month):
    rarely = month.run(FIRST, RARE)
    sizes = []
    for day in range(30):
        night = FIRST + timedelta(days=day, hours=23)
        for number in range(RUNS_A_DAY):
            moment = FIRST + timedelta(days=day, hours=number)
            newest = month.run(moment, *[OFTEN] * LOOKS_A_RUN)
            month.tick(moment)
        month.housekeeping(night)
        sizes.append(month.sizes())

    settled, last = sizes[KEPT_DAYS + 1], sizes[-1]
    assert last == settled
    assert last["runs"] == RUNS_A_DAY * KEPT_DAYS + 1
    assert last["files"] == last["runs"]
    assert sizes[0]["event_logs"] < sizes[5]["event_logs"] < settled["event_logs"]
    latest = month.instance.get_latest_materialization_events([RARE, OFTEN])
    assert {key: event.run_id for key, event in latest.items() if event} == {RARE: rarely, OFTEN: newest}


def test_a_run_under_way_stays_however_old_it_is(month):
    run = month.instance.create_run_for_job(LONG)
    with month.engine.begin() as connection:
        connection.execute(
            text("UPDATE runs SET create_timestamp = '2020-01-01', update_timestamp = '2020-01-01'")
        )

    month.housekeeping(datetime.now(UTC))

    assert month.instance.has_run(run.run_id)


def test_the_last_answer_of_a_check_outlives_its_runs_age(month):
    first, second = month.run(FIRST), month.run(FIRST + timedelta(days=1))

    month.housekeeping(datetime.now(UTC))

    assert not month.instance.has_run(first)
    assert month.instance.has_run(second)
    assert month.sizes()["asset_check_executions"] == 1


def test_what_a_run_printed_that_was_deleted_by_hand_goes(month):
    run_id = month.run(FIRST, OFTEN)
    month.instance.delete_run(run_id)
    later = datetime.now(UTC) + timedelta(days=KEPT_DAYS, minutes=1)

    month.housekeeping(later)

    assert month.sizes()["files"] == 0


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:
        yield instance


def test_the_job_tidies_a_deployment(deployment, monkeypatch):
    monkeypatch.setattr("twm_pipeline.logs.KEPT_LOG_BYTES", 100)
    logs = deployment.settings.twm_data_dir / "logs"
    logs.mkdir(parents=True)
    with (logs / "daemon.log").open("a") as daemon:
        daemon.write("x" * 101)
        daemon.flush()
        with deployment.engine.begin() as connection:
            rows = "('tasks', '1'), ('tasks', '1'), ('emails', '1')"
            connection.execute(text(f"INSERT INTO twm.change_log (view, row_id) VALUES {rows}"))
            connection.execute(
                text("INSERT INTO twm.monthly_calls VALUES ('b', '2020-01-01', 1), ('b', current_date, 1)")
            )

        result = defs.resolve_job_def("housekeeping").execute_in_process(instance=deployment.instance)
        daemon.write("and on")

    assert result.success
    assert (logs / "daemon.log").read_text() == "and on"
    assert (logs / "daemon.log.1").stat().st_size == 101
    assert deployment.count("twm.change_log", "true") == 2
    assert deployment.count("twm.monthly_calls", "true") == 1
