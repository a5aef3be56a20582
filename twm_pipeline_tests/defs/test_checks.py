"""The checks as Dagster keeps them: a run of their own, severities, words, and the schedule."""

from __future__ import annotations

import dagster as dg
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from twm_pipeline.definitions import defs
from twm_pipeline.defs.checks import to_result
from twm_pipeline.mirror.findings import Finding
from twm_pipeline.settings import load_settings
from twm_pipeline.sync.checks import checks_of
from twm_pipeline_tests.defs.conftest import Deployment


@pytest.fixture
def instance():
    with dg.instance_for_test() as instance:
        yield instance


def run_checks(deployment: Deployment) -> dg.ExecuteInProcessResult:
    return defs.resolve_job_def("checks").execute_in_process(
        instance=deployment.instance, raise_on_error=False
    )


def tick(deployment: Deployment) -> object:
    schedule = defs.resolve_schedule_def("checks_schedule")
    with dg.build_schedule_context(instance=deployment.instance) as context:
        return schedule(context)


def test_a_run_answers_every_check_of_the_vendors_that_are_set_up(deployment):
    deployment.set(missive_api_token=None)
    deployment.run("teamwork_sync")
    with deployment.engine.begin() as connection:
        connection.execute(text("UPDATE twm.sources SET last_success_at = now() - interval '45 minutes'"))
        connection.execute(text("DELETE FROM teamwork.tasks WHERE id % 10 = 0"))
        connection.execute(text("UPDATE teamwork.tags SET raw = raw || '{\"mood\": 1}', synced_at = now()"))

    result = run_checks(deployment)

    answers = {(*item.asset_key.path, item.check_name): item for item in result.get_asset_check_evaluations()}
    assert result.success
    assert set(answers) == {(*asset, name) for asset, name in checks_of("teamwork")}
    failed = {key: item.severity for key, item in answers.items() if not item.passed}
    assert failed == {
        ("teamwork", "api", "source_is_read"): dg.AssetCheckSeverity.ERROR,
        ("teamwork", "tags", "fields_are_known"): dg.AssetCheckSeverity.WARN,
    }
    assert "mood (number, new)" in str(answers["teamwork", "tags", "fields_are_known"].description)
    assert int(str(answers["teamwork", "tasks", "keys_are_unique"].metadata["rows"].value)) > 0


def test_records_set_aside_lead_to_the_vendor_where_it_has_an_address_for_them():
    settings = load_settings(teamwork_base_url="https://example.teamwork.com")

    def shown(*asset: str, object_id: str) -> object:
        finding = Finding(
            asset=(asset[0], asset[1]),
            check="nothing_is_set_aside",
            verdict="warning",
            text="",
            objects=(object_id,),
        )
        return to_result(finding, settings).metadata["objects"].value

    assert shown("teamwork", "tasks", object_id="42") == "- [`42`](https://example.teamwork.com/app/tasks/42)"
    assert shown("missive", "emails", object_id="m1") == "- `m1`"
    assert shown("teamwork", "tasks", object_id="](`x)") == (
        "- [`](x)`](https://example.teamwork.com/app/tasks/%5D%28%60x%29)"
    )


def test_a_vendor_that_refuses_the_credentials_fails_the_run_in_its_words(deployment):
    deployment.set(missive_api_token=None)
    deployment.run("teamwork_sync")
    deployment.set(teamwork_api_key=SecretStr("revoked"))

    result = run_checks(deployment)

    assert not result.success
    assert "401" in deployment.lines(result)
    assert "revoked" not in deployment.lines(result)


def test_the_schedule_asks_for_the_checks_of_what_is_set_up(deployment):
    assert isinstance(tick(deployment), dg.RunRequest)

    deployment.set(missive_api_token=None, teamwork_api_key=None)

    assert isinstance(tick(deployment), dg.SkipReason)
