from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest
import requests
from dagster._core.definitions.schedule_definition import ScheduleExecutionData
from pydantic import SecretStr

from twm_pipeline.definitions import defs
from twm_pipeline.sources.missive_hooks import API_EVENTS
from twm_pipeline.sources.teamwork_hooks import EVENTS
from twm_pipeline.spool import Spool
from twm_pipeline.webhooks.secrets import HookSecrets
from twm_pipeline_tests.defs.conftest import Deployment, failure_of

PUBLIC_URL = "https://sync.example.com"


@pytest.fixture
def instance():
    with dg.instance_for_test() as instance:  # a schedule's context wants one that can be opened anew
        yield instance


@pytest.fixture
def deployment(deployment: Deployment) -> Deployment:
    deployment.set(public_url=PUBLIC_URL)
    return deployment


def check(deployment: Deployment) -> dg.ExecuteInProcessResult:
    job = defs.resolve_job_def("webhooks_check")
    result: dg.ExecuteInProcessResult = job.execute_in_process(
        instance=deployment.instance, raise_on_error=False
    )
    return result


def tick(deployment: Deployment) -> ScheduleExecutionData:
    schedule = defs.resolve_schedule_def("webhooks_check_schedule")
    with dg.build_schedule_context(
        instance=deployment.instance, scheduled_execution_time=datetime(2026, 3, 1, 12, 7, tzinfo=UTC)
    ) as context:
        return schedule.evaluate_tick(context)


def test_a_check_makes_what_is_missing_and_a_second_one_finds_nothing_to_do(deployment):
    first, before = check(deployment), deployment.control.hooks()
    second = check(deployment)

    assert first.success
    assert second.success
    assert len(before) == len(EVENTS) + len(API_EVENTS)
    assert deployment.control.hooks() == before
    assert "create TASK.DELETED: was missing" in deployment.lines(first)
    assert "create" not in deployment.lines(second)
    assert f"teamwork: {len(EVENTS)} of {len(EVENTS)} hooks work" in deployment.lines(second)


def test_a_hook_that_was_switched_off_is_resumed_and_the_gap_polled(deployment):
    check(deployment)
    spool = Spool(deployment.settings.spool_folder, "teamwork")
    for entry in spool.claim(limit=10):
        spool.done(entry)
    pause(deployment, deployment.control.hooks("teamwork")[4])

    result = check(deployment)

    assert "was switched off" in deployment.lines(result)
    assert {hook["status"] for hook in deployment.control.hooks()} == {"ACTIVE"}
    [entry] = spool.claim(limit=10)
    assert (entry.envelope.hint.event, entry.envelope.hint.object_id) == ("hooks.resumed", None)


def test_one_vendor_that_fails_does_not_keep_the_other_one_from_being_checked(deployment):
    deployment.control.set_answer("teamwork.webhooks_allowed", False)

    result = check(deployment)

    assert not result.success
    assert "Only an administrator of the site" in str(failure_of(result).user_failure_data.description)
    assert len(deployment.control.hooks("missive")) == len(API_EVENTS)


def test_a_type_that_is_refused_is_a_warning_and_not_asked_for_again_at_once(deployment):
    deployment.control.set_answer("missive.hook_validation", True)
    result = check(deployment)
    count = deployment.control.request_count("missive")

    again = check(deployment)

    assert result.success
    assert "create new_comment: Missive POST /hooks: 422" in deployment.lines(result)
    assert "new_comment has to wait: Missive POST /hooks: 422" in deployment.lines(again)
    assert deployment.control.request_count("missive") == count


def test_nothing_that_dagster_keeps_of_a_check_holds_a_secret(deployment):
    result = check(deployment)

    secrets = HookSecrets.load(deployment.settings)
    for secret in (secrets.teamwork_token, secrets.missive_secret, *secrets.missive_paths.values()):
        assert secret not in deployment.lines(result)


def test_a_tick_asks_for_a_check_unless_one_is_under_way(deployment):
    assert tick(deployment).run_requests

    deployment.instance.create_run_for_job(defs.resolve_job_def("webhooks_check"))

    assert "of webhooks_check has been waiting" in str(tick(deployment).skip_message)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"disable_webhooks": True}, "DISABLE_WEBHOOKS=true"),
        ({"public_url": None}, "set PUBLIC_URL"),
        ({"public_url": None, "ngrok_authtoken": SecretStr("x")}, "open only while `twm up` runs"),
        ({"teamwork_api_key": None, "missive_api_token": None}, "Teamwork is switched off: set"),
    ],
    ids=["disabled", "no address", "no tunnel", "no credentials"],
)
def test_a_tick_that_has_nothing_to_check_says_why(deployment, changes, words):
    deployment.set(**changes)

    data = tick(deployment)

    assert not data.run_requests
    assert words in str(data.skip_message)
    assert check(deployment).success
    assert deployment.control.hooks() == []


def pause(deployment: Deployment, hook: dict[str, Any]) -> None:
    url = f"{deployment.box.teamwork_url}/webhooks/{hook['id']}/pause.json"
    requests.put(url, auth=(deployment.box.teamwork_key, "x"), timeout=10).raise_for_status()
