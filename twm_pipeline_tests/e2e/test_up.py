"""`twm up` as a person uses it: real processes, an embedded server, signals."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
from sqlalchemy import Engine, text

from twm_pipeline.cli.sandbox import sandbox_settings
from twm_pipeline.db import connect_database, embedded_server
from twm_pipeline.definitions import defs
from twm_pipeline.sandbox import SandboxControl
from twm_pipeline.settings import INHERITED, PROJECT_DIR, Settings, environment_of, load_settings
from twm_pipeline.sources.missive_hooks import API_EVENTS
from twm_pipeline.sources.teamwork_hooks import EVENTS

UP_SECONDS = 200
"""No test measures this: on a busy machine a start takes minutes."""

Found = TypeVar("Found")


def twm(*words: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "twm_pipeline.cli", *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)


def processes_of(place: Path) -> list[str]:
    """Return command lines of the processes that name this test's folder or were given it."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        try:
            words = " ".join(process.info["cmdline"] or [])
            given = process.environ().get(INHERITED, "")
        except (psutil.Error, OSError):
            continue
        if process.pid != os.getpid() and (str(place) in words or str(place) in given):
            found.append(words)
    return found


def test_once_syncs_a_whole_account_and_again_changes_nothing(env, place):
    first = twm("up", "--sandbox", "--once", "--json", env=env)
    second = twm("up", "--sandbox", "--once", "--json", env=env)

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    done, again = json.loads(first.stdout), json.loads(second.stdout)
    assert [(run["job"], run["status"]) for run in done["runs"]] == [
        ("teamwork_sync", "SUCCESS"),
        ("missive_sync", "SUCCESS"),
        ("insights", "SUCCESS"),
    ]
    assert figures_of(done, "daily_activity")["dagster/row_count"] > 0
    rows = {table["table"]: table["living"] + table["deleted"] for table in done["tables"]}
    assert rows["teamwork.tasks"] > 200
    assert rows["missive.emails"] > 200
    assert sum(written_by(run) for run in again["runs"][:2]) == 0
    assert figures_of(again, "daily_activity")["written"] == 0
    figures = again["runs"][0]["reports"][0]["streams"]["tasks"]
    assert datetime.fromisoformat(figures["checkpoint_after"]).tzinfo is not None
    assert {table["table"]: table["living"] + table["deleted"] for table in again["tables"]} == rows
    assert processes_of(place) == []


def test_once_tells_of_a_failure(env, place):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        folder = place / "data" / "sandbox"
        folder.mkdir(parents=True)
        place_of_it = {"port": other.getsockname()[1], "anchor": "2026-01-01T00:00:00+00:00"}
        (folder / "sandbox.json").write_text(json.dumps(place_of_it))

        done = twm("up", "--sandbox", "--once", env=env)

    assert done.returncode == 3
    assert "is taken" in done.stderr
    assert processes_of(place) == []


def test_up_serves_until_it_is_told_to_stop_and_leaves_no_process(env, place):
    port = free_port()
    with started(["-m", "twm_pipeline.cli", "up", "--port", str(port)], env) as up:
        schedules = ask(port, up, SCHEDULES)["schedulesOrError"]["results"]
        cancelled = opened_window(port, up, "teamwork")
        ask(port, up, TERMINATE, runId=cancelled)
        wait_for(port, up, cancelled, "CANCELED")
        opened_window(port, up, "missive")
        page = status_page(place)
        up.send_signal(signal.SIGTERM)
        out, err = up.communicate(timeout=60)

    assert up.returncode == 0, err
    assert "this is the sandbox" in err
    assert f"http://127.0.0.1:{port}" in out
    assert f'href="http://127.0.0.1:{port}/runs?q[0]=job:teamwork_sync"' in page
    assert {item["scheduleState"]["status"] for item in schedules} == {"RUNNING"}
    assert processes_of(place) == []


def test_a_change_arrives_through_the_receiver_and_a_second_start_registers_again(env, place):
    settings = load_settings(twm_data_dir=place / "data", periodic_backfill_interval=3600)
    env = environment_of(settings)  # polled so rarely that only a delivery can bring the change
    with started(["-m", "twm_pipeline.cli", "up", "--sandbox", "--port", str(free_port())], env) as up:
        simulated = wait_until(lambda: sandbox_of(settings), up)
        engine = wait_until(lambda: mirror_of(simulated), up)
        wait_until(lambda: counted(engine, "twm.sources WHERE last_success_at IS NOT NULL") == 2, up)
        control = SandboxControl(str(simulated.teamwork_base_url).removesuffix("/teamwork"))
        task_id = control.create_task("Told by a webhook")
        wait_until(lambda: counted(engine, f"teamwork.tasks WHERE id = {task_id}"), up)
        engine.dispose()
        sent = [row for row in control.deliveries("teamwork") if row["object_id"] == task_id]
        up.send_signal(signal.SIGTERM)
        out, err = up.communicate(timeout=60)
    with started(["-m", "twm_pipeline.cli", "up", "--sandbox", "--port", str(free_port())], env) as up:
        wait_until(lambda: len(hooks_of(control)) == len(EVENTS) + len(API_EVENTS), up)
        up.send_signal(signal.SIGTERM)
        again, _ = up.communicate(timeout=60)

    assert up.returncode == 0, err
    assert {status for row in sent for status in row["statuses"]} == {200}
    assert sent
    assert f"Webhooks      Teamwork {len(EVENTS)} of {len(EVENTS)}, Missive 6 of 6" in out
    assert not re.search("[0-9a-f]{64}", out + err + again)
    assert processes_of(place) == []


def status_page(place: Path) -> str:
    """Return what the status page of the sandbox shows."""
    port = json.loads((place / "data" / "sandbox" / "sandbox.json").read_text())["status_port"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as answer:
        return str(answer.read().decode())


def sandbox_of(settings: Settings) -> Settings | None:
    """Return the settings of the sandbox once `twm up` has chosen its place."""
    file = settings.twm_data_dir / "sandbox" / "sandbox.json"
    return sandbox_settings(settings, json.loads(file.read_text())) if file.exists() else None


def mirror_of(settings: Settings) -> Engine | None:
    """Return the mirror once `twm up` has started its server and made its tables."""
    if not embedded_server(settings).is_alive():
        return None
    engine = connect_database(settings)
    with engine.connect() as connection:
        ready = connection.scalar(text("SELECT to_regclass('twm.hooks') IS NOT NULL"))
    if not ready:
        engine.dispose()
    return engine if ready else None


def counted(engine: Engine, rows: str) -> int:
    with engine.connect() as connection:
        return int(connection.scalar(text(f"SELECT count(*) FROM {rows}")) or 0)


def hooks_of(control: SandboxControl) -> list[Any]:
    try:
        return control.hooks()
    except OSError:
        return []  # it is not up yet


def test_up_stops_on_an_interrupt_that_the_shell_had_ignored(env, place):
    code = (
        "import signal, os, sys; signal.signal(signal.SIGINT, signal.SIG_IGN);"
        " os.execv(sys.executable, [sys.executable, '-m', 'twm_pipeline.cli', 'up', '--port', sys.argv[1]])"
    )
    with started(["-c", code, str(free_port())], env) as up:
        while not (place / "data" / "sandbox" / "logs" / "webserver.log").exists() and up.poll() is None:
            time.sleep(0.1)
        up.send_signal(signal.SIGINT)
        out, err = up.communicate(timeout=60)

    assert up.returncode == 0, err
    assert out.endswith("Stopped.\n")
    assert processes_of(place) == []


def test_up_ends_with_an_error_when_a_part_of_it_dies(env, place):
    port = free_port()
    with started(["-m", "twm_pipeline.cli", "up", "--port", str(port)], env) as up:
        ask(port, up, "{version}")
        [daemon] = [
            p for p in psutil.Process(up.pid).children(recursive=True) if "dagster._daemon" in p.cmdline()
        ]
        daemon.kill()
        _, err = up.communicate(timeout=60)

    assert up.returncode == 1
    assert "daemon ended by itself" in err
    assert processes_of(place) == []


def test_bare_dagster_dev_works_with_nothing_configured(env, place):
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        " from dagster._cli import main; main()"
    )
    port = free_port()
    log = place / "dev.log"
    with log.open("w") as file:
        command = [sys.executable, "-c", code, "dev", "--port", str(port)]
        dev = subprocess.Popen(command, cwd=PROJECT_DIR, env=env, stdout=file, stderr=file)
    try:
        assets = ask(port, dev, "{assetNodes {assetKey {path}}}")["assetNodes"]
    finally:
        dev.send_signal(signal.SIGINT)
        dev.wait(timeout=60)

    defined = defs.resolve_asset_graph().get_all_asset_keys()
    assert sorted(asset["assetKey"]["path"] for asset in assets) == sorted(list(key.path) for key in defined)
    assert not re.search(r"Traceback|ERROR", log.read_text())


def figures_of(done: dict[str, Any], insight: str) -> dict[str, Any]:
    """Return what the run of insights said of one table."""
    return dict(done["runs"][-1]["reports"][0]["streams"][insight])


def written_by(run: dict[str, Any]) -> int:
    """Return how many rows a run has written, of any table."""
    return sum(item["written"] for report in run["reports"] for item in report["streams"].values())


class started:  # noqa: N801 - reads as a sentence
    """A process that is killed if the test fails."""

    def __init__(self, words: list[str], env: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *words], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def __enter__(self) -> subprocess.Popen[str]:
        return self.process

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.communicate(timeout=60)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


REPOSITORY = 'repositoryName: "__repository__", repositoryLocationName: "twm_pipeline"'
SCHEDULES = (
    f"{{schedulesOrError(repositorySelector: {{{REPOSITORY}}})"
    " {... on Schedules {results {name scheduleState {status}}}}}"
)
LAUNCH = (
    "mutation ($job: String!, $config: RunConfigData!) {launchRun(executionParams: {selector:"
    f" {{{REPOSITORY}, jobName: $job}}, runConfigData: $config}})"
    " {__typename ... on LaunchRunSuccess {run {runId}}}}"
)
TERMINATE = "mutation ($runId: String!) {terminateRun(runId: $runId) {__typename}}"
STARTED = (
    "query ($job: String!) {runsOrError(filter: {pipelineName: $job, statuses: [QUEUED, STARTING, STARTED]})"
    " {... on Runs {results {runId status}}}}"
)
STATUS = "query ($runId: ID!) {runOrError(runId: $runId) {... on Run {status}}}"


def ask(port: int, server: subprocess.Popen[Any], query: str, **variables: Any) -> dict[str, Any]:
    """Return the answer of Dagster's webserver, waiting until it is up."""
    data = json.dumps({"query": query, "variables": variables}).encode()
    url = f"http://127.0.0.1:{port}/graphql"
    deadline = time.monotonic() + UP_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - our own address
                return dict(json.load(answer)["data"])
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.3)
    pytest.fail(
        f"Dagster's webserver does not answer; the process ended with {server.poll()} (None: it runs)"
    )


def opened_window(port: int, server: subprocess.Popen[Any], source: str) -> str:
    """Open a window as a person does in the launchpad; return the run that has it.

    The schedule may have been first: then ours ends at once, and its own is open.
    """
    config = {"ops": {f"{source}_window": {"config": {"window_seconds": 600}}}}
    ask(port, server, LAUNCH, job=f"{source}_sync", config=config)

    def started_run() -> str | None:
        runs = ask(port, server, STARTED, job=f"{source}_sync")["runsOrError"]["results"]
        return str(runs[0]["runId"]) if [run["status"] for run in runs] == ["STARTED"] else None

    return wait_until(started_run, server)


def wait_until(condition: Callable[[], Found | None], process: subprocess.Popen[Any]) -> Found:
    """Return what *condition* finds, as soon as it finds anything."""
    deadline = time.monotonic() + UP_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if found := condition():
            return found
        time.sleep(0.1)
    pytest.fail(f"it did not come about; the process ended with {process.poll()}")


def wait_for(port: int, server: subprocess.Popen[Any], run_id: str, status: str) -> None:
    deadline = time.monotonic() + UP_SECONDS
    while time.monotonic() < deadline:
        seen = ask(port, server, STATUS, runId=run_id)["runOrError"]["status"]
        if seen == status:
            return
        time.sleep(0.2)
    pytest.fail(f"the run is {seen} and not {status}")
