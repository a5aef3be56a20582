"""Whole deployments beside a sandbox: `twm up` itself, or its processes with a second code location."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from twm_pipeline.cli import processes
from twm_pipeline.cli.reception import receiver_of, start
from twm_pipeline.cli.runs import environment
from twm_pipeline.db import connect_database, embedded_server
from twm_pipeline.records import SOURCES
from twm_pipeline.sandbox import SandboxControl
from twm_pipeline.settings import PROJECT_DIR, Settings, environment_of, load_settings
from twm_pipeline.sync.window import prepare
from twm_pipeline.sync.window_lock import holds_window
from twm_pipeline.webhooks.registration import open_registrar

TIME_SCALE = 60.0
"""One documented minute of a request budget passes in a second, as in `twm up --sandbox`."""
START_SECONDS = 300.0
QUIET_SECONDS = 4.0
"""Without a request for so long, the first import is over."""
LOOK_SECONDS = 0.05


def settings_of(box: dict[str, Any], folder: Path, **overrides: Any) -> Settings:  # noqa: ANN401 - any field
    """Return the settings of a deployment in *folder* whose vendors are the sandbox and send webhooks."""
    port = free_port()
    ours: dict[str, Any] = {
        "twm_data_dir": folder / "data",
        "teamwork_base_url": box["teamwork_url"],
        "teamwork_api_key": box["teamwork_key"],
        "missive_base_url": box["missive_url"],
        "missive_api_token": box["missive_token"],
        "app_port": port,
        "public_url": f"http://127.0.0.1:{port}",
        "budget_time_scale": TIME_SCALE,
    }
    return load_settings(**(ours | overrides))


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def twm_up(settings: Settings, control: SandboxControl) -> Iterator[int]:
    """Run `twm up`; give its process id once the first import is over and both windows are open."""
    env = {name: value for name, value in environment_of(settings).items() if name != "DAGSTER_HOME"}
    command = [sys.executable, "-m", "twm_pipeline.cli", "up", "--port", str(free_port())]
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL) as process:  # noqa: S603 - our own
        try:
            wait_for((settings.twm_data_dir / "logs" / "webserver.log").exists, process=process)
            wait_for(lambda: _windows_are_open(settings), process=process)
            wait_until_quiet(control)
            yield process.pid
        finally:
            process.send_signal(signal.SIGINT)


def wait_for(look: Callable[[], bool], *, process: subprocess.Popen[Any] | None = None) -> None:
    """Wait until *look* returns True.

    Raises:
        TimeoutError: If it does not, or *process* ends before.
    """
    deadline = time.monotonic() + START_SECONDS
    while not look():
        if time.monotonic() > deadline or (process is not None and process.poll() is not None):
            msg = "the deployment did not come up"
            raise TimeoutError(msg)
        time.sleep(LOOK_SECONDS)


def _windows_are_open(settings: Settings) -> bool:
    engine = connect_database(settings)
    try:
        with engine.connect() as connection:
            return all(holds_window(connection, source) for source in SOURCES)
    finally:
        engine.dispose()


def wait_until_quiet(control: SandboxControl) -> None:
    """Wait until requests were made, and then none for a while."""
    count, since = 0, time.monotonic()
    while count == 0 or time.monotonic() - since < QUIET_SECONDS:
        time.sleep(LOOK_SECONDS)
        now = control.request_count()
        if now != count:
            count, since = now, time.monotonic()


@contextmanager
def dagster_with(
    settings: Settings, modules: Mapping[str, str], folder: Path, env: Mapping[str, str]
) -> Iterator[None]:
    """Run PostgreSQL, receiver, daemon and a code server for each of *modules*, as `twm up` starts them.

    Args:
        settings: Of the deployment.
        modules: Name of a code location → its module.
        folder: For sockets.
        env: Variables for the code servers, beside the settings.
    """
    children: list[processes.Child] = []
    logs, env = settings.twm_data_dir / "logs", {**environment(settings), **env}
    sockets = {name: folder / name for name in modules}
    servers = [{"grpc_server": {"socket": str(sockets[name]), "location_name": name}} for name in modules]
    workspace = folder / "workspace.yaml"
    workspace.write_text(json.dumps({"load_from": servers}))
    with processes.stopped_at_the_end(children):
        start(receiver_of(settings), settings, children)
        _register(settings)
        for name, module in modules.items():
            command = ["-m", "dagster", "api", "grpc", "-m", module, "--socket", str(sockets[name])]
            children.append(processes.start(name, command, env=env, logs=logs, cwd=PROJECT_DIR))
            wait_for(sockets[name].exists, process=children[-1].process)
        _stop_schedules(workspace, env)
        daemon = ["-m", "dagster._daemon", "run", "-w", str(workspace)]
        children.append(processes.start("daemon", daemon, env=env, logs=logs, cwd=PROJECT_DIR))
        yield


@contextmanager
def postgres(settings: Settings) -> Iterator[None]:
    """Run the deployment's PostgreSQL, its tables made."""
    embedded = embedded_server(settings)
    embedded.start()
    engine = connect_database(settings)
    try:
        prepare(engine, settings)
        yield
    finally:
        engine.dispose()
        embedded.stop()


def _register(settings: Settings) -> None:
    engine = connect_database(settings)
    for source in SOURCES:
        with open_registrar(engine, settings, source) as registrar:
            registrar.register()
    engine.dispose()


def _stop_schedules(workspace: Path, env: Mapping[str, str]) -> None:
    """Leave the sensors alone with the work."""
    from twm_pipeline.definitions import defs  # noqa: PLC0415 - loads all of Dagster

    for schedule in defs.schedules or []:
        command = ["-m", "dagster", "schedule", "stop", schedule.name, "-w", str(workspace)]
        subprocess.run(  # noqa: S603 - our own schedules
            [sys.executable, *command, "-l", "twm_pipeline"],
            env={**os.environ, **env},
            cwd=PROJECT_DIR,
            check=True,
            capture_output=True,
        )
