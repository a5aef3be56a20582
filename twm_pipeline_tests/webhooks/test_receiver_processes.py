"""The receiver as a process: started, stopped, killed, under load."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
import requests

from twm_pipeline.settings import environment_of
from twm_pipeline.spool import Spool
from twm_pipeline_tests.webhooks.deliveries import task_delivery
from twm_pipeline_tests.webhooks.running import (
    SECONDS,
    Connection,
    free_port,
    kept,
    receiver_process,
    receiver_settings,
    request_bytes,
)

CONNECTIONS = 16


class Load:
    """Senders that post one delivery after the other, each on a connection of its own, until it breaks.

    Args:
        port: Of the receiver.
        enough: How many acknowledged deliveries `wait` waits for.
    """

    def __init__(self, port: int, *, enough: int) -> None:
        self.acknowledged: list[str] = []
        self.other: list[int] = []
        self._enough = enough
        self._reached = threading.Event()
        self._threads = [
            threading.Thread(target=self._send, args=(port, number)) for number in range(1, CONNECTIONS + 1)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join(SECONDS)

    def wait(self) -> None:
        assert self._reached.wait(SECONDS)

    def _send(self, port: int, number: int) -> None:
        try:
            with Connection(port) as connection:
                for count in range(1_000_000):
                    self._note(number * 1_000_000 + count, connection)
        except (OSError, EOFError, IndexError):
            return  # the receiver is gone, perhaps in the middle of an answer

    def _note(self, task_id: int, connection: Connection) -> None:
        status = connection.ask(request_bytes(task_delivery(task_id))).status
        if status != 200:
            self.other.append(status)
            return
        self.acknowledged.append(str(task_id))
        if len(self.acknowledged) >= self._enough:
            self._reached.set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_when_told_to_and_says_when_it_listens(tmp_path, number):
    with receiver_process(receiver_settings(tmp_path)) as (receiver, process):
        assert requests.get(receiver.url + "/health", timeout=10).status_code == 200
        process.send_signal(number)
        output, _ = process.communicate(timeout=SECONDS)

    assert process.returncode == 0
    assert output == b""


def test_stopped_under_load_it_finishes_what_it_accepted(tmp_path):
    log = tmp_path / "log"
    settings = receiver_settings(tmp_path)
    with receiver_process(settings, log=log) as (receiver, process):
        with Load(receiver.port, enough=200) as load:
            load.wait()
            process.terminate()
        process.wait(SECONDS)

    on_disk = {envelope.hint.object_id for envelope in kept(settings)}
    assert process.returncode == 0
    assert load.other == []
    assert set(load.acknowledged) <= on_disk
    assert "Traceback" not in log.read_text()
    assert "ERROR" not in log.read_text()


@pytest.mark.parametrize("enough", [1, 50, 500])
def test_killed_under_load_it_has_what_it_acknowledged(tmp_path, enough):
    settings = receiver_settings(tmp_path)
    with receiver_process(settings) as (receiver, process), Load(receiver.port, enough=enough) as load:
        load.wait()
        process.kill()

    spool = Spool(settings.spool_folder, "teamwork")
    envelopes = kept(settings)
    names = {listed.name for listed in spool.entries("new")}
    assert len(envelopes) == len(names)  # every one of them can be read: none is half-written
    assert set(load.acknowledged) <= {envelope.hint.object_id for envelope in envelopes}
    assert {file.name for file in (settings.spool_folder / "teamwork" / "new").iterdir()} == names


def test_after_a_kill_another_one_goes_on(tmp_path):
    settings = receiver_settings(tmp_path)
    for number in (1, 2):
        with receiver_process(settings) as (receiver, process):
            assert receiver.send(task_delivery(number)).status == 200
            process.kill()

    assert [envelope.hint.object_id for envelope in kept(settings)] == ["1", "2"]


def twm(*words: str) -> list[str]:
    return [sys.executable, "-m", "twm_pipeline.cli", *words]


def test_the_command_becomes_a_light_process(tmp_path):
    port = free_port()
    command = twm("receiver", "--port", str(port))
    environment = environment_of(receiver_settings(tmp_path))
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"Receiver  http://127.0.0.1:{port}\n"
        assert requests.get(f"http://127.0.0.1:{port}/health", timeout=10).status_code == 200
        process.terminate()
        process.wait(SECONDS)

    assert process.returncode == 0


def taken(port: int) -> tuple[dict[str, object], str]:
    return {"app_port": port}, f"cannot listen on port {port}"


def switched_off(_: int) -> tuple[dict[str, object], str]:
    return {"disable_webhooks": True}, "DISABLE_WEBHOOKS is true"


@pytest.mark.parametrize("case", [taken, switched_off], ids=["taken port", "switched off"])
@pytest.mark.parametrize(
    "command",
    [[sys.executable, "-m", "twm_pipeline.webhooks"], twm("receiver")],
    ids=["module", "twm"],
)
def test_what_is_wrong_is_said_in_a_line(
    tmp_path, command, case: Callable[[int], tuple[dict[str, object], str]]
):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        overrides, words = case(listener.getsockname()[1])
        environment = environment_of(receiver_settings(tmp_path, **overrides))

        result = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=60
        )

    assert result.returncode == 3
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1
