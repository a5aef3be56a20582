"""Commands that are recorded runs: `twm sync`, `twm reconcile`, and how far they are."""

from __future__ import annotations

import json
from typing import Any

import pytest

from twm_pipeline.cli import runs as cli_runs
from twm_pipeline.cli import sync as cli_sync
from twm_pipeline.cli import upkeep as cli_upkeep
from twm_pipeline.cli.output import FAILED, MISUSED, OK, TO_BE_CHANGED
from twm_pipeline.db import open_engine
from twm_pipeline.sandbox.airtable_account import SCOPES
from twm_pipeline.settings import Settings
from twm_pipeline.sync.window_lock import window_lock
from twm_pipeline_tests.commands import read_everything


class Asked(list[dict[str, Any]]):
    """Stands in for the child process: remembers what it was asked and answers with *results*."""

    def __init__(self, *results: dict[str, Any]) -> None:
        super().__init__()
        self.results = list(results)

    def __call__(self, _: Settings, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        self.extend(requests)
        return self.results


def recorded(**changes: Any) -> dict[str, Any]:
    return {
        "job": "teamwork_sync",
        "run_id": "0123456789",
        "status": "SUCCESS",
        "success": True,
        "reports": [],
        "sweeps": [],
        "looks": [],
        "refusals": [],
        "error": None,
        **changes,
    }


def failed(kind: str) -> dict[str, Any]:
    return recorded(success=False, status="FAILURE", error={"class": kind, "text": "what happened"})


def test_progress_says_nothing_of_a_mirror_that_has_no_tables_yet(empty_database):
    engine = open_engine(empty_database)

    assert cli_runs.progress_line(engine) == ""

    engine.dispose()


@pytest.mark.parametrize(
    ("results", "code"),
    [
        ([recorded(), recorded()], OK),
        ([recorded(), failed("RateLimitedError")], FAILED),
        ([failed("AuthenticationError"), recorded()], TO_BE_CHANGED),
        ([recorded(success=False, status="CANCELED")], FAILED),
    ],
    ids=["all well", "one later", "one wrong", "cancelled"],
)
def test_sync_ends_with_what_its_runs_recorded(twm, box, monkeypatch, results, code):
    monkeypatch.setattr(cli_sync, "run_jobs", lambda *_: results)

    answer = twm("sync", "--json")

    assert answer.code == code
    assert answer.json == json.loads(json.dumps(results))
    assert ("what happened" in answer.err) is any(item["error"] for item in results)


@pytest.mark.parametrize(
    ("words", "jobs"),
    [
        ((), {"teamwork_sync": {"full": False}, "missive_sync": {"full": False}}),
        (("missive", "teamwork"), {"teamwork_sync": {"full": False}, "missive_sync": {"full": False}}),
        (("missive", "--full"), {"missive_sync": {"full": True}}),
        (("teamwork", "--since", "01.02.2025"), {"teamwork_sync": {"full": False, "since": "01.02.2025"}}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_sync_asks_for_one_pass_of_each_source(twm, box, monkeypatch, words, jobs):
    asked = Asked()
    monkeypatch.setattr(cli_sync, "run_jobs", asked)

    twm("sync", *words)

    assert {
        item["job"]: item["run_config"]["ops"][item["job"].replace("_sync", "_window")]["config"]
        for item in asked
    } == jobs


@pytest.mark.parametrize(("is_lost", "code"), [(True, 1), (False, 0)])
def test_sync_says_what_is_refused_and_fails_if_it_was_read_before(twm, box, monkeypatch, is_lost, code):
    refusal = {"source": "teamwork", "stream": "api", "refused": "people: 403 Forbidden", "is_lost": is_lost}
    monkeypatch.setattr(cli_sync, "run_jobs", lambda *_: [recorded(refusals=[refusal])])

    answer = twm("sync")

    assert answer.code == code
    assert "teamwork: people: 403 Forbidden" in answer.err


def test_sync_refuses_a_vendor_without_credentials_and_a_date_that_is_none(twm, box, monkeypatch):
    assert "'tomorrow' is not a date" in twm("sync", "--since", "tomorrow").err

    monkeypatch.delenv("MISSIVE_API_TOKEN")

    assert "missive: no credentials are set" in twm("sync", "missive").err


def test_reconcile_hands_its_options_down_and_shows_what_is_gone(twm, box, monkeypatch):
    sweep = {
        "source": "teamwork",
        "dry_run": True,
        "gone_tasks": 3,
        "problems": [],
        "held_deletions": ["teamwork/tasks: too many"],
    }
    asked = Asked(recorded(job="reconcile", sweeps=[sweep]))
    monkeypatch.setattr(cli_upkeep, "run_jobs", asked)

    answer = twm("reconcile", "teamwork", "--dry-run")

    config = asked[0]["run_config"]["ops"]["sweep"]["config"]
    assert config == {
        "sources": ["teamwork"],
        "dry_run": True,
        "full": False,
        "confirm_deletions": False,
    }
    assert "tasks" in answer.out
    assert "too many" in answer.err


def test_a_run_whose_process_dies_is_told_with_the_end_of_its_log(twm, box, monkeypatch):
    environment = cli_runs.environment
    monkeypatch.setattr(
        cli_runs, "environment", lambda settings: environment(settings) | {"DAGSTER_HOME": "/nowhere"}
    )

    answer = twm("sync", "teamwork")

    assert answer.code == FAILED
    assert "The run's process ended early" in answer.err
    assert "/nowhere" in answer.err


def test_a_look_at_the_base_says_what_it_found_and_how_many_calls_it_took(twm, engine, publishing):
    read_everything(engine)

    answer = twm("sync", "airtable", "--check-all", "--json")

    assert answer.code == OK, answer.err
    [run] = answer.json
    [report] = run["reports"]
    looks = {look["stream"]: look for look in run["looks"]}
    assert report["requests"] == publishing.control.request_count("airtable") > 0
    assert report["requests"] == sum(figures["calls"] for figures in report["streams"].values())
    assert looks["tasks"]["how"] == "whole"
    assert looks["tasks"]["rows"] == looks["tasks"]["records"] == looks["tasks"]["checked"] > 0


def test_why_publishing_failed_is_told_until_it_works(twm, engine, publishing):
    read_everything(engine)
    publishing.control.airtable_set_scopes("data.records:read", "schema.bases:read")

    failed, told = twm("sync", "airtable"), twm("status")
    publishing.control.airtable_set_scopes(*SCOPES)
    worked, silent = twm("sync", "airtable"), twm("status")

    assert failed.code != OK
    assert worked.code == OK, worked.err
    assert told.err.count("Publishing failed") == 1
    assert "INVALID_PERMISSIONS" in told.err
    assert "Publishing failed" not in silent.err


def test_publishing_that_another_process_is_at_says_so(twm, engine, publishing):
    read_everything(engine)
    with window_lock(engine, "airtable"):
        answer = twm("sync", "airtable")

    assert answer.code == OK, answer.err
    assert answer.out == "airtable_publish: another process is at it, and does what was asked for here.\n"


def test_a_look_needs_a_base(twm, box):
    assert twm("sync", "--check").code == MISUSED
