"""The runs' own log: every run's lines in one file, in the product's form."""

import json
import stat

from pydantic import SecretStr


def lines_of(deployment) -> list[dict[str, str]]:
    path = deployment.settings.twm_data_dir / "logs" / "twm.log"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_runs_lines_name_run_and_source(deployment):
    deployment.set(log_format="json")

    result = deployment.run("teamwork_sync")

    [line] = [line for line in lines_of(deployment) if "rows fetched" in line["message"]]
    assert line["message"].startswith("teamwork: ")
    assert line["run"] == result.run_id
    assert line["level"] == "INFO"


def test_lines_from_below_tell_their_source_too(deployment):
    deployment.set(log_format="json")
    deployment.control.add_fault("missive", "503")

    deployment.run("missive_sync")

    [line] = [line for line in lines_of(deployment) if "attempt 1 failed" in line["message"]]
    assert line["source"] == "missive"
    assert line["logger"] == "twm_pipeline.http"


def test_a_run_that_fails_says_why(deployment):
    deployment.set(log_format="json", teamwork_api_key=SecretStr("not the key"))

    result = deployment.run("teamwork_sync")

    assert not result.success
    [line] = [line for line in lines_of(deployment) if line["level"] == "ERROR"]
    assert "401" in line["message"]


def test_a_log_that_cannot_be_written_stops_no_run(deployment):
    logs = deployment.settings.twm_data_dir / "logs"
    logs.parent.mkdir(parents=True, exist_ok=True)
    logs.write_text("in the way")

    result = deployment.run("teamwork_sync")

    assert result.success
    assert "twm.log cannot be written" in deployment.lines(result)
