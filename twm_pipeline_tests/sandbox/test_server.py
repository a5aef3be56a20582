"""The sandbox as a process and as a thread."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys

import pytest
import requests

from twm_pipeline.sandbox import Sandbox, SandboxControl, SandboxOptions
from twm_pipeline.sandbox.__main__ import build_parser
from twm_pipeline_tests.sandbox.clients import TeamworkClient
from twm_pipeline_tests.sandbox.receivers import Receiver

COMMAND = [sys.executable, "-W", "error", "-m", "twm_pipeline.sandbox"]


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_the_process_prints_one_line_and_stops_cleanly(sign: signal.Signals) -> None:
    arguments = [
        "--tasks",
        "10",
        "--conversations",
        "5",
        "--budgets",
        "off",
        "--answer",
        "missive.until_inclusive=no",
    ]
    with subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        described = json.loads(process.stdout.readline())
        control = SandboxControl(described["url"])
        control.create_task("over HTTP")
        answers = control.status()["answers"]
        control.close()
        process.send_signal(sign)
        output, errors = process.communicate(timeout=10)

    assert set(described) == {
        "url",
        "teamwork_url",
        "teamwork_key",
        "missive_url",
        "missive_token",
        "airtable_url",
        "airtable_upload_url",
        "airtable_token",
        "airtable_base_id",
        "airtable_foreign_base_id",
        "control_url",
    }
    assert answers["missive.until_inclusive"] is False
    assert (output, errors) == (b"", b"")
    assert process.returncode in (0, -sign)


def test_the_command_line_speaks_of_every_option() -> None:
    given = build_parser().parse_args(
        ["--budgets", "60", "--anchor", "2026-01-01", "--answer", "teamwork.record_cap=9"]
    )

    assert given.budgets == 60.0
    assert given.anchor.isoformat() == "2026-01-01T00:00:00+00:00"
    assert given.answer == [("teamwork.record_cap", 9)]
    with pytest.raises(SystemExit):
        build_parser().parse_args(["--answer", "nonsense=1"])


def test_the_process_delivers_webhooks_and_stops_in_the_middle_of_one(receiver: Receiver) -> None:
    arguments = ["--tasks", "10", "--conversations", "5", "--webhook-time-scale", "36000"]
    with subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        control = SandboxControl(json.loads(process.stdout.readline())["url"])
        receiver.statuses(200, 500)  # The first is the validation.
        control.create_rule("incoming_email", receiver.url)
        control.receive_mail()
        control.advance(30)
        control.wait_for_deliveries(retries=True)
        [row] = control.deliveries()
        receiver.answer = lambda _: 0
        control.receive_mail()
        control.close()
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=10)

    assert (row["state"], row["statuses"]) == ("delivered", [500, 200])
    assert errors == b""


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::"])  # noqa: S104 - exactly what must be refused
def test_it_listens_on_loopback_only(host: str) -> None:
    with pytest.raises(ValueError, match="loopback only"), Sandbox(SandboxOptions(host=host)):
        pass


def test_a_thread_ends_with_its_context_and_frees_the_port() -> None:
    with Sandbox(SandboxOptions(tasks=5, conversations=5)) as box:
        url, port = box.url, int(box.url.rpartition(":")[2])
        assert requests.get(f"{url}/health", timeout=5).json() == {"status": "ok"}

    assert not box.is_running
    with Sandbox(SandboxOptions(tasks=5, conversations=5, port=port)) as again:
        assert again.url == url


def test_a_sandbox_that_is_not_running_says_so() -> None:
    with pytest.raises(RuntimeError, match="not running"):
        _ = Sandbox().control
    with pytest.raises(RuntimeError, match="not running"):
        _ = Sandbox().world


def test_a_taken_port_is_an_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        options = SandboxOptions(tasks=1, conversations=1, port=taken.getsockname()[1])
        with pytest.raises(OSError, match="in use"), Sandbox(options):
            pass


def test_two_sandboxes_do_not_know_each_other() -> None:
    small = SandboxOptions(tasks=5, conversations=5)
    with Sandbox(small) as first, Sandbox(small) as second:
        task_id = first.control.create_task("here only")
        with TeamworkClient(second) as teamwork:
            assert teamwork.status(f"tasks/{task_id}.json") == 404
