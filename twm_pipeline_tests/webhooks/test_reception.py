"""What `twm up` does before Dagster: receiver, public address, hooks; what it says where one is missing."""

from __future__ import annotations

import json
import socket
import sys
import urllib.request
from types import SimpleNamespace

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from twm_pipeline.cli import processes, reception
from twm_pipeline.cli.reception import reachable, receiver_of, register_hooks, start, status_page_of
from twm_pipeline.errors import ConfigError
from twm_pipeline.mirror.hooks import load_hooks
from twm_pipeline.sandbox import Sandbox, SandboxOptions
from twm_pipeline.settings import INHERITED, Settings, environment_of

PUBLIC_URL = "https://sync.example.com"
TOKEN = "2abcToken"


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def changed(settings: Settings, **changes: object) -> Settings:
    return settings.model_copy(update=changes)


def test_the_receiver_answers_once_it_is_started(settings, port):
    children: list[processes.Child] = []
    try:
        chosen = changed(settings, app_port=port)
        start(receiver_of(chosen), chosen, children)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=10) as answer:
            health = json.load(answer)
    finally:
        killed = processes.stop(children)

    assert health == {"status": "ok"}
    assert killed == []
    assert children[0].process.returncode == 0


def test_a_taken_port_names_the_setting(settings):
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        chosen = changed(settings, app_port=taken)

        with pytest.raises(ConfigError, match=f"on port {taken} .*Choose another port with APP_PORT"):
            start(receiver_of(chosen), chosen, [])


def test_the_status_page_answers_once_it_is_started(settings, port):
    children: list[processes.Child] = []
    chosen = changed(settings, status_port=port)
    try:
        start(status_page_of(chosen), chosen, children)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
            page = answer.read().decode()
    finally:
        killed = processes.stop(children)

    assert "<title>" in page
    assert killed == []
    assert children[0].process.returncode == 0
    assert children[0].log_end() == f"Status page  http://127.0.0.1:{port}"


def test_a_page_for_others_needs_a_password_before_anything_is_started(settings):
    with pytest.raises(ConfigError, match=r"STATUS_HOST is 192\.0\.2\.1: .* Set STATUS_PASSWORD"):
        status_page_of(changed(settings, status_host="192.0.2.1"))


def test_an_address_that_was_chosen_needs_no_tunnel(settings, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ngrok", None)
    chosen = changed(settings, public_url=PUBLIC_URL, ngrok_authtoken=SecretStr(TOKEN))

    with reachable(chosen) as effective:
        assert effective.public_url == PUBLIC_URL

    told = capsys.readouterr()
    assert f"Receiver      http://127.0.0.1:5000 · public address {PUBLIC_URL}" in told.out
    assert told.err == ""


def test_children_get_the_address_of_the_tunnel_and_not_its_token(settings, monkeypatch):
    listener = SimpleNamespace(url=lambda: "https://something.ngrok.app")
    library = SimpleNamespace(forward=lambda *_, **__: listener, disconnect=lambda _: None)
    monkeypatch.setitem(sys.modules, "ngrok", library)

    with reachable(changed(settings, ngrok_authtoken=SecretStr(TOKEN))) as effective:
        handed_down = environment_of(effective)[INHERITED]

    assert json.loads(handed_down)["public_url"] == "https://something.ngrok.app"
    assert TOKEN not in handed_down
    assert effective.poll_seconds == 60


def test_without_a_tunnel_the_vendors_are_polled_more_often_and_it_is_said(settings, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ngrok", None)

    with reachable(changed(settings, ngrok_authtoken=SecretStr(TOKEN))) as effective:
        register_hooks(effective, simulated=False)

    told = capsys.readouterr()
    assert (effective.expects_webhooks, effective.poll_seconds) == (False, 5)
    assert "pip install .[tunnel]" in told.err
    assert "Webhooks      none. There is no public address: set PUBLIC_URL" in told.out
    assert "polled every 5 s" in told.out
    assert TOKEN not in told.out + told.err


def test_disabled_webhooks_open_nothing(settings, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ngrok", None)
    disabled = changed(
        settings, disable_webhooks=True, public_url=PUBLIC_URL, ngrok_authtoken=SecretStr(TOKEN)
    )

    with reachable(disabled) as effective:
        register_hooks(effective, simulated=False)

    told = capsys.readouterr()
    assert effective.expects_webhooks is False
    assert told.out.splitlines() == [
        "Webhooks      none. Webhooks are disabled (DISABLE_WEBHOOKS=true): the vendors are polled every 5 s."
    ]
    assert told.err == ""


@pytest.fixture
def box():
    with Sandbox(SandboxOptions(tasks=3, conversations=2)) as box:
        yield box


@pytest.fixture
def configured(settings: Settings, box: Sandbox) -> Settings:
    return changed(
        settings,
        teamwork_base_url=box.teamwork_url,
        teamwork_api_key=SecretStr(box.teamwork_key),
        missive_base_url=box.missive_url,
        missive_api_token=SecretStr(box.missive_token),
        budget_time_scale=1000,
        public_url=PUBLIC_URL,
    )


def test_it_is_said_how_many_hooks_are_registered(configured, box, capsys):
    register_hooks(configured, simulated=False)

    told = capsys.readouterr()
    assert told.out == (
        "Webhooks      Teamwork 30 of 30, Missive 6 of 6 · `twm webhooks register` shows the rules to make in"
        " Missive\n"
    )
    assert len(box.control.hooks()) == 36


def test_a_vendor_that_fails_is_told_and_stops_nothing(configured, box, capsys):
    box.control.set_answer("teamwork.webhooks_allowed", False)

    register_hooks(configured, simulated=False)

    told = capsys.readouterr()
    assert "Teamwork: its hooks are not registered. Teamwork GET /webhooks.json: 403" in told.err
    assert "Webhooks      Missive 6 of 6" in told.out


def test_a_vendor_that_does_not_answer_does_not_hold_up_the_start(configured, box, monkeypatch, capsys):
    monkeypatch.setattr(reception, "REGISTER_SECONDS", 0)
    box.control.add_fault("teamwork", "503", count=None)

    register_hooks(configured, simulated=False)

    assert "the check every 15 minutes goes on with it" in capsys.readouterr().err


def test_a_refused_statement_is_told_without_its_values(configured, engine: Engine, capsys):
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE twm.hooks"))

    register_hooks(configured, simulated=False)

    assert "Missive: its hooks are not registered. UndefinedTable" in capsys.readouterr().err


def test_a_sandbox_that_was_started_anew_gets_its_hooks_again(configured, engine: Engine):
    register_hooks(configured, simulated=True)
    with Sandbox(SandboxOptions(tasks=3, conversations=2)) as other:
        moved = changed(configured, teamwork_base_url=other.teamwork_url, missive_base_url=other.missive_url)

        register_hooks(moved, simulated=True)

        assert len(other.control.hooks()) == 36
        with engine.connect() as connection:
            stored = {
                row.hook_id for source in ("teamwork", "missive") for row in load_hooks(connection, source)
            }
        assert stored == {hook["id"] for hook in other.control.hooks()}
