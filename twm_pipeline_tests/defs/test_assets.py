import os
import signal
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

import dagster as dg
import pytest
from pydantic import SecretStr

from twm_pipeline.definitions import defs
from twm_pipeline.defs import interrupts, ledger
from twm_pipeline.defs.tags import SOURCE, TRIGGER
from twm_pipeline.mirror.tables import STREAMS
from twm_pipeline.records import Hint
from twm_pipeline.spool import Envelope
from twm_pipeline.sync.drain import spool_of
from twm_pipeline.sync.window_lock import window_lock
from twm_pipeline_tests.defs.conftest import failure_of


@pytest.mark.parametrize("source", STREAMS)
def test_a_pass_materializes_every_table_once_with_figures_that_match_the_mirror(
    deployment, source, monkeypatch
):
    monkeypatch.setattr("twm_pipeline.defs.ledger.BUSY_SECONDS", 3600.0)  # however slow this machine is

    result = deployment.run(f"{source}_sync")

    logged = dict(deployment.materializations(result))
    assert result.success
    assert len(deployment.materializations(result)) == len(STREAMS[source])
    for stream in STREAMS[source]:
        figures = logged[f"{source}/{stream}"]
        assert figures["dagster/row_count"] == deployment.count(f"{source}.{stream}")
        assert figures["written"] + figures["unchanged"] <= figures["fetched"]
        assert figures["requests"] == deployment.control.request_count(source)
        assert figures["answers_429"] == figures["set_aside"] == 0
        assert figures["seconds"] > 0
        assert figures["checkpoint_after"] is not None


def test_a_second_pass_starts_at_the_checkpoint_and_writes_nothing(deployment):
    deployment.run("teamwork_sync")

    figures = dict(deployment.materializations(deployment.run("teamwork_sync")))["teamwork/tasks"]

    assert figures["written"] == 0
    assert figures["fetched"] == figures["unchanged"]
    assert figures["checkpoint_before"] == figures["checkpoint_after"]
    assert figures["lag_seconds"] < 5


def test_what_the_api_was_asked_is_observed(deployment):
    result = deployment.run("missive_sync")

    [event] = [e for e in result.all_events if e.event_type_value == "ASSET_OBSERVATION"]
    observation = event.asset_observation_data.asset_observation
    assert observation.asset_key == dg.AssetKey(["missive", "api"])
    assert observation.metadata["requests"].value == deployment.control.request_count("missive")


def test_deliveries_that_were_applied_are_a_figure_of_what_they_changed(deployment):
    deployment.run("teamwork_sync")
    number = deployment.control.create_task("Call back")
    hint = Hint(event="TASK.UPDATED", stream="tasks", object_id=str(number))
    told = Envelope(source="teamwork", hint=hint, received_at=datetime.now(UTC), headers={}, body=b"{}")
    spool_of(deployment.settings, "teamwork").put([told, told])

    figures = dict(deployment.materializations(deployment.run("teamwork_sync")))

    assert figures["teamwork/tasks"]["deliveries_applied"] == 2
    assert figures["teamwork/tags"]["deliveries_applied"] == 0


def test_a_run_says_what_started_it_and_what_it_is_about(deployment):
    job = deployment.run("teamwork_sync")
    by_hand = defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=deployment.instance, asset_selection=[dg.AssetKey(["missive", "emails"])]
    )

    tags = [deployment.instance.get_run_by_id(result.run_id).tags for result in (job, by_hand)]

    assert [(item[TRIGGER], item[SOURCE]) for item in tags] == [("ui", "teamwork"), ("ui", "missive")]
    assert "One pass over Teamwork. The status page: http://127.0.0.1:5001" in deployment.lines(job)


def test_only_the_selected_assets_are_read_and_materialized(deployment):
    result = deployment.run("teamwork_sync", asset_selection=[dg.AssetKey(["teamwork", "tags"])])

    assert [key for key, _ in deployment.materializations(result)] == ["teamwork/tags"]
    assert deployment.count("teamwork.tags") > 0
    assert deployment.count("teamwork.tasks") == deployment.count("teamwork.people") == 0


def test_single_tasks_can_be_read_by_their_ids(deployment):
    number = deployment.control.create_task("Call back")

    result = deployment.run("teamwork_sync", {"ids": [str(number)]})

    assert dict(deployment.materializations(result))["teamwork/tasks"]["written"] == 1
    assert deployment.count("teamwork.tasks", f"id = {number}") == 1


@pytest.mark.parametrize("config", [{"since": "01.01.2020"}, {"since": "2020-01-01"}, {"full": True}])
def test_reading_again_fetches_everything_and_leaves_the_checkpoint(deployment, config):
    deployment.run("teamwork_sync")

    figures = dict(deployment.materializations(deployment.run("teamwork_sync", config)))["teamwork/tasks"]

    assert figures["fetched"] >= deployment.count("teamwork.tasks")
    assert figures["written"] == 0
    assert figures["checkpoint_before"] == figures["checkpoint_after"]


def test_a_contradiction_fails_in_words_and_is_not_tried_again(deployment):
    failure = failure_of(deployment.run("teamwork_sync", {"full": True, "ids": ["7"]}))

    assert "exclude each other" in failure.user_failure_data.description
    assert deployment.control.request_count() == 0


def test_a_vendor_that_is_not_configured_is_skipped_with_a_clear_line(deployment):
    deployment.set(teamwork_api_key=None)

    result = deployment.run("teamwork_sync")

    assert result.success
    assert deployment.materializations(result) == []
    assert "set TEAMWORK_BASE_URL and TEAMWORK_API_KEY" in deployment.lines(result)


def test_a_refused_key_stops_the_source_and_is_not_shown(deployment):
    deployment.set(missive_api_token=SecretStr("missive_pat-secret-word"))

    result = deployment.run("missive_sync")

    failure = failure_of(result)
    assert failure.user_failure_data.metadata["error"].value == "AuthenticationError"
    assert "secret-word" not in deployment.lines(result)


def test_no_text_of_a_message_reaches_the_event_log(deployment):
    deployment.control.receive_mail(subject="Zebra crossing", body="<p>Quokka</p>")
    deployment.control.create_task("Wombat burrow", description="Numbat")

    said = "".join(deployment.lines(deployment.run(job)) for job in ("teamwork_sync", "missive_sync"))

    assert deployment.count("missive.emails", "body_text LIKE '%Quokka%'") == 1
    assert not [word for word in ("Zebra", "Quokka", "Wombat", "Numbat") if word in said]


def test_a_window_logs_what_changes_while_it_is_open_and_its_figures_add_up(deployment, monkeypatch):
    monkeypatch.setattr(ledger, "BUSY_SECONDS", 1.0)
    deployment.set(periodic_backfill_interval=0.3, sync_window_seconds=4)
    deployment.run("teamwork_sync")
    stop = threading.Event()
    created: list[int] = []

    def work() -> None:
        while not stop.wait(0.25) and len(created) < 10:
            created.append(deployment.control.create_task(f"Task {len(created)}"))

    people = threading.Thread(target=work)
    people.start()
    result = deployment.run("teamwork_sync", {"window_seconds": 4})
    stop.set()
    people.join()

    logged = [figures for key, figures in deployment.materializations(result) if key == "teamwork/tasks"]
    stored = deployment.count("teamwork.tasks", f"id = ANY(ARRAY{created})")
    assert result.success
    assert 2 <= len(logged) <= 6
    assert sum(figures["written"] for figures in logged) == stored > 0


def test_a_window_beside_another_one_is_not_needed(deployment):
    deployment.run("teamwork_sync")

    with window_lock(deployment.engine, "teamwork"):
        result = deployment.run("teamwork_sync", {"window_seconds": 60})

    assert result.success
    assert deployment.materializations(result) == []


def test_a_pass_on_demand_beside_a_window_reads_but_moves_no_checkpoint(deployment):
    deployment.run("teamwork_sync")
    deployment.control.create_task("Beside a window")

    with window_lock(deployment.engine, "teamwork"):
        figures = dict(deployment.materializations(deployment.run("teamwork_sync")))["teamwork/tasks"]

    assert figures["written"] == 1
    assert figures["checkpoint_before"] == figures["checkpoint_after"]


def interrupt_when(condition: Callable[[], bool]) -> None:
    """Send this process SIGINT, as Dagster does to cancel a run, once *condition* holds."""

    def wait() -> None:
        while not condition():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=wait, daemon=True).start()


def test_a_window_that_is_stopped_ends_at_once_and_well(deployment):
    interrupt_when(lambda: deployment.count("twm.checkpoints", "stream = 'teams'") > 0)

    started = time.monotonic()
    result = deployment.run("teamwork_sync", {"window_seconds": 60})

    assert result.success
    assert time.monotonic() - started < 10
    assert len(deployment.materializations(result)) == len(STREAMS["teamwork"])
    with window_lock(deployment.engine, "teamwork") as lock:
        assert lock is not None


def test_a_request_that_stalls_does_not_hold_up_a_cancellation(deployment, monkeypatch):
    monkeypatch.setattr(interrupts, "GRACE_SECONDS", 0.5)
    deployment.run("missive_sync")
    before = deployment.count("twm.budget_requests", "true")
    deployment.control.add_fault("missive", "stall", seconds=30)
    interrupt_when(lambda: deployment.count("twm.budget_requests", "true") > before)

    started = time.monotonic()
    result = deployment.run("missive_sync")

    assert not result.success
    assert time.monotonic() - started < 10
    deployment.control.clear_faults()
    assert deployment.run("missive_sync").success


def test_a_sweep_finds_what_no_poll_can_see(deployment):
    deployment.run("teamwork_sync")
    deployment.run("missive_sync")

    dry = deployment.run("reconcile", {"dry_run": True})
    real = deployment.run("reconcile", {"sources": ["teamwork"]})

    assert dry.success
    assert deployment.materializations(dry) == []
    assert {key for key, _ in deployment.materializations(real)} == {
        f"teamwork/{item}" for item in STREAMS["teamwork"]
    }


def test_a_sweep_goes_on_with_the_other_vendor_and_fails_in_the_end(deployment):
    deployment.run("missive_sync")
    deployment.set(teamwork_api_key=SecretStr("wrong"))

    result = deployment.run("reconcile")

    assert not result.success
    assert "401" in failure_of(result).user_failure_data.description
    assert "missive/conversations" in dict(deployment.materializations(result))


def test_a_stream_that_is_refused_is_not_called_verified_and_the_run_says_so(deployment):
    deployment.run("teamwork_sync")
    deployment.control.add_fault("teamwork", "403", path="time.json", count=None)

    result = deployment.run("teamwork_sync")

    verified = {asset for asset, _ in deployment.materializations(result)}
    assert result.success
    assert verified == {f"teamwork/{stream}" for stream in STREAMS["teamwork"] if stream != "time_entries"}
    assert "time_entries is not read any more, refused since" in deployment.lines(result)
