"""The sandbox that `twm up` starts, and the ports it wants."""

from __future__ import annotations

import json
from pathlib import Path

from twm_pipeline.cli import up as cli_up
from twm_pipeline.cli.output import TO_BE_CHANGED
from twm_pipeline.cli.sandbox import remembered_place, sandbox_settings
from twm_pipeline.settings import INHERITED, environment_of, load_settings


def test_a_taken_port_is_named(twm, box, monkeypatch):
    monkeypatch.setattr(cli_up, "_prepare", lambda _: None)
    port = box.url.rpartition(":")[2]

    answer = twm("up", "--port", port)

    assert answer.code == TO_BE_CHANGED
    assert f"Port {port} is taken" in answer.err


def test_the_sandbox_has_nothing_of_the_real_accounts(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("TEAMWORK_EXCLUDED_PROJECTS", "1,2")
    secrets = {"teamwork_webhook_secret": "real-token", "missive_webhook_secret": "real-secret"}
    settings = load_settings(
        pg_dsn="postgresql://real/database",
        dagster_pg_url="postgresql://real/dagster",
        teamwork_base_url="https://real.example",
        teamwork_api_key="real-key",
        missive_process_after="2024-01-01",
        timezone="Europe/Paris",
        twm_data_dir=tmp_path,
        public_url="https://real.example",
        ngrok_authtoken="real-tunnel",
        spool_dir=tmp_path / "real-spool",
        allow_unsigned_webhooks=True,
        app_host="192.0.2.1",
        **secrets,
    )

    simulated = sandbox_settings(
        settings, {"port": 4711, "receiver_port": 4712, "status_port": 4713, "anchor": ""}
    )

    assert (simulated.pg_dsn, simulated.dagster_pg_url, simulated.missive_process_after) == (None, None, None)
    assert simulated.teamwork_base_url == "http://127.0.0.1:4711/teamwork"
    assert simulated.teamwork_excluded_projects == ()
    assert simulated.twm_data_dir == tmp_path / "sandbox"
    assert simulated.timezone == "Europe/Paris"
    assert (simulated.app_host, simulated.app_port) == ("127.0.0.1", 4712)
    assert simulated.public_url == "http://127.0.0.1:4712"
    assert simulated.status_port == 4713
    assert "real" not in environment_of(simulated)[INHERITED].replace("real_", "")


def test_a_sandbox_is_the_same_account_after_a_restart(tmp_path: Path):
    settings = load_settings(twm_data_dir=tmp_path)

    assert remembered_place(settings) == remembered_place(settings)


def test_where_the_sandbox_is_can_be_read_while_it_is_written(settings):
    file = settings.twm_data_dir / "sandbox" / "sandbox.json"
    remembered_place(settings)
    older = {"port": 4711, "anchor": "2026-01-01T00:00:00+00:00"}
    file.write_text(json.dumps(older))
    file.with_name("being-read.json").hardlink_to(file)

    place = remembered_place(settings)

    assert json.loads(file.read_text()) == place
    assert json.loads(file.with_name("being-read.json").read_text()) == older


def test_a_sandbox_of_an_older_version_gets_a_receiver_and_stays_as_it_is(tmp_path: Path):
    settings = load_settings(twm_data_dir=tmp_path)
    (tmp_path / "sandbox").mkdir()
    (tmp_path / "sandbox" / "sandbox.json").write_text(
        '{"port": 4711, "anchor": "2026-01-01T00:00:00+00:00"}'
    )

    place = remembered_place(settings)

    assert (place["port"], place["anchor"]) == (4711, "2026-01-01T00:00:00+00:00")
    assert len({place["port"], place["receiver_port"], place["status_port"]}) == 3
    assert remembered_place(settings) == place
