"""The alerts as people get them: things are broken for real, and a receiver on loopback listens."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.freshness import FreshnessState, FreshnessStateChange
from dagster._core.events import DagsterEventType
from dagster._time import get_current_timestamp

from twm_pipeline.alerts import AlertState
from twm_pipeline.defs import alerts
from twm_pipeline.defs.alerts import alerts_sensor
from twm_pipeline.defs.failures import as_failures
from twm_pipeline.defs.jobs import WINDOW
from twm_pipeline.errors import AuthenticationError
from twm_pipeline.settings import load_settings
from twm_pipeline_tests.test_alerts import Receiver, receiver

__all__ = ["receiver"]


class Health:
    """What the jobs and checks below find."""

    error: Exception | None = None
    answer = dg.AssetCheckResult(passed=True)


@dg.asset(key=["teamwork", "tasks"])
def tasks() -> None: ...


@dg.asset_check(asset=tasks, name="keys_are_unique")
def keys_are_unique() -> dg.AssetCheckResult:
    return Health.answer


@dg.op
def work(context: dg.OpExecutionContext) -> None:
    with as_failures(context):
        if Health.error is not None:
            raise Health.error


@dg.job(executor_def=dg.in_process_executor)
def teamwork_sync() -> None:
    work()


checks = dg.define_asset_job("checks", selection=dg.AssetSelection.checks(keys_are_unique))
SMALL = dg.Definitions(assets=[tasks], asset_checks=[keys_are_unique], jobs=[teamwork_sync, checks])


@dataclass
class Watch:
    """An instance of Dagster, the receiver, and the sensor between them."""

    instance: dg.DagsterInstance
    receiver: Receiver
    cursor: str | None = None
    said: list[str] = field(default_factory=list)

    def run(self, job: str, **options: Any) -> None:
        SMALL.resolve_job_def(job).execute_in_process(instance=self.instance, raise_on_error=False, **options)

    def look(self, times: int = 1) -> list[str]:
        """Let the sensor look, and return what was told since the last call."""
        before = len(self.receiver.lines)
        for _ in range(times):
            with dg.build_sensor_context(
                instance=self.instance, cursor=self.cursor, repository_def=SMALL.get_repository_def()
            ) as context:
                reason = alerts_sensor(context)
                assert isinstance(reason, dg.SkipReason)
                self.said.append(str(reason.skip_message))
                self.cursor = context.cursor
        return self.receiver.lines[before:]

    def judge(self, state: FreshnessState) -> None:
        """Say how fresh the table is, as Dagster's daemon does."""
        change = FreshnessStateChange(
            key=tasks.key,
            new_state=state,
            previous_state=FreshnessState.UNKNOWN,
            state_change_timestamp=get_current_timestamp(),
        )
        self.instance._report_runless_asset_event(asset_event=change)


@pytest.fixture
def watch(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    monkeypatch.setattr(Health, "error", None)
    monkeypatch.setattr(Health, "answer", dg.AssetCheckResult(passed=True))
    monkeypatch.setenv("ALERT_WEBHOOK_URL", receiver.url)
    monkeypatch.setenv("TEAMWORK_BASE_URL", "https://example.teamwork.com")
    monkeypatch.setenv("TEAMWORK_API_KEY", "key")
    with dg.instance_for_test() as instance:
        yield Watch(instance, receiver)


def test_a_run_that_fails_again_and_again_is_one_alert_and_its_recovery_another(watch):
    watch.run("teamwork_sync")
    assert watch.look() == []

    Health.error = AuthenticationError("401 Check the key")
    for _ in range(3):
        watch.run("teamwork_sync")
        watch.look()
    Health.error = None
    watch.run("teamwork_sync")
    watch.look(2)

    [told, over] = watch.receiver.lines
    assert told.startswith("PROBLEM teamwork_sync fails (run ")
    assert told.endswith(": 401 Check the key")
    assert over.startswith("OVER after 0 min: teamwork_sync fails")


def test_a_failure_whose_run_is_deleted_is_not_over_until_a_run_succeeds(watch):
    Health.error = AuthenticationError("401 Check the key")
    watch.run("teamwork_sync")
    watch.look()
    for run in watch.instance.get_runs():
        watch.instance.delete_run(run.run_id)

    after_housekeeping = watch.look(2)
    watch.run("teamwork_sync")
    still_failing = watch.look()
    Health.error = None
    watch.run("teamwork_sync")
    [over] = watch.look()

    assert (after_housekeeping, still_failing) == ([], [])
    assert over.startswith("OVER after 0 min: teamwork_sync fails")


def test_an_error_of_a_library_is_told_by_its_class_alone(watch):
    Health.error = ValueError("Dear Clara, the offer is")

    watch.run("teamwork_sync")

    [told] = watch.look()
    assert "ValueError" in told
    assert "Clara" not in told


def test_a_window_that_is_open_for_a_while_is_a_recovery_and_one_just_opened_is_not(watch, monkeypatch):
    Health.error = AuthenticationError("401")
    watch.run("teamwork_sync")
    watch.look()
    job = SMALL.resolve_job_def("teamwork_sync")
    run = watch.instance.create_run_for_job(job, tags={WINDOW: "teamwork"})
    watch.instance.report_dagster_event(
        dg.DagsterEvent(DagsterEventType.RUN_START.value, job.name), run_id=run.run_id
    )

    just_opened = watch.look()
    monkeypatch.setattr(alerts, "SURE_SECONDS", 0)
    open_for_a_while = watch.look()

    assert just_opened == []
    assert [line.split()[0] for line in open_for_a_while] == ["OVER"]


def test_a_failed_check_is_told_with_its_words_and_its_recovery(watch):
    Health.answer = dg.AssetCheckResult(
        passed=False, severity=dg.AssetCheckSeverity.WARN, description="3 records set aside"
    )
    watch.run("checks")
    first = watch.look(2)
    Health.answer = dg.AssetCheckResult(passed=True)
    watch.run("checks")

    assert first == ["WARNING teamwork/tasks keys_are_unique: 3 records set aside"]
    assert watch.look(2) == ["OVER after 0 min: teamwork/tasks keys_are_unique: 3 records set aside"]


def test_while_a_check_is_being_made_its_last_answer_stands(watch):
    Health.answer = dg.AssetCheckResult(passed=False, description="broken")
    watch.run("checks")
    watch.look()
    watch.instance.create_run_for_job(SMALL.resolve_job_def("checks"))
    [latest] = watch.instance.event_log_storage.get_latest_asset_check_execution_by_key(
        [keys_are_unique.check_key]
    ).values()
    assert latest.status.value == "PLANNED"

    assert watch.look(2) == []


def test_stale_tables_are_told_when_they_stay_stale(watch, monkeypatch):
    watch.judge(FreshnessState.FAIL)
    at_once = watch.look()
    monkeypatch.setattr(alerts, "STALE_PATIENCE_SECONDS", 0)
    later = watch.look(2)
    watch.judge(FreshnessState.PASS)

    assert at_once == []
    assert later == ["PROBLEM teamwork is stale, nothing was verified in time: tasks"]
    assert [line.split()[0] for line in watch.look(2)] == ["OVER"]


def test_tables_of_a_vendor_that_is_switched_off_may_be_old(watch, monkeypatch):
    monkeypatch.setattr(alerts, "STALE_PATIENCE_SECONDS", 0)
    monkeypatch.delenv("TEAMWORK_API_KEY")
    watch.judge(FreshnessState.FAIL)

    assert watch.look() == []


@pytest.mark.parametrize(
    ("name", "switches", "is_off"),
    [
        ("missive/attachments", {"MISSIVE_API_TOKEN": "token"}, False),
        ("missive/attachments", {"MISSIVE_API_TOKEN": "token", "ATTACHMENTS_DOWNLOAD": "false"}, True),
        ("airtable/tasks", {}, True),
        (
            "airtable/tasks",
            {"DB_BACKEND": "both", "AIRTABLE_API_KEY": "key", "AIRTABLE_BASE_ID": "app0123456789abcd"},
            False,
        ),
        ("insights/task_flow", {}, False),
        ("insights/task_flow", {"TEAMWORK_API_KEY": ""}, True),
    ],
)
def test_what_nothing_brings_up_to_date_may_be_old(watch, monkeypatch, name, switches, is_off):
    for key, value in switches.items():
        monkeypatch.setenv(key, value)

    assert alerts._is_switched_off(load_settings(), dg.AssetKey(name.split("/"))) is is_off


def test_what_an_unreachable_receiver_missed_is_told_later_in_its_order_and_once(watch):
    watch.receiver.status = 503
    Health.error = AuthenticationError("401")
    watch.run("teamwork_sync")
    assert watch.look(3) == []
    assert "2 lines" not in watch.said[-1]
    Health.error = None
    watch.run("teamwork_sync")
    assert watch.look() == []
    assert "answered 503; 2 lines wait" in watch.said[-1]

    watch.receiver.status = 200

    assert [line.split()[0] for line in watch.look(3)] == ["PROBLEM", "OVER"]


def test_a_receiver_that_asks_for_a_pause_is_left_alone(watch):
    watch.receiver.status, watch.receiver.headers = 429, {"Retry-After": "3600"}
    Health.error = AuthenticationError("401")
    watch.run("teamwork_sync")
    watch.look()
    watch.receiver.status = 200

    assert watch.look() == []
    assert "asked for a pause" in watch.said[-1]


def test_a_pause_asked_for_before_the_clock_was_set_back_is_over(watch):
    watch.cursor = AlertState(outbox=["PROBLEM a"], not_before=time.time() + 86_400).to_text()

    assert watch.look() == ["PROBLEM a"]


def test_without_an_address_the_sensor_says_so(watch, monkeypatch):
    monkeypatch.delenv("ALERT_WEBHOOK_URL")

    assert watch.look() == []
    assert "ALERT_WEBHOOK_URL is not set" in watch.said[-1]


def test_the_address_is_in_no_reason_and_no_cursor(watch):
    watch.receiver.status = 500
    Health.error = AuthenticationError("401")
    watch.run("teamwork_sync")
    watch.look()

    assert "secret-part" not in f"{watch.said} {watch.cursor}"
