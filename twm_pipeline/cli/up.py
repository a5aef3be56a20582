"""`twm up`: everything, started and stopped together."""

from __future__ import annotations

import json
import secrets
import socket
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from twm_pipeline.cli import output, processes
from twm_pipeline.cli.insights import insights_request, show_insights
from twm_pipeline.cli.mirror import embedded_while_needed
from twm_pipeline.cli.output import say
from twm_pipeline.cli.reception import reachable, receiver_of, register_hooks, start, status_page_of
from twm_pipeline.cli.runs import environment, report_problems, run_jobs
from twm_pipeline.cli.sandbox import CHANGES_PER_HOUR, remembered_place, sandbox_settings, start_sandbox
from twm_pipeline.cli.sync import publish_request, publishes, request, show_results
from twm_pipeline.db import connect_database, copy_embedded_mirror
from twm_pipeline.errors import ConfigError, TwmError
from twm_pipeline.mirror.schema import migrate
from twm_pipeline.mirror.status import count_tables
from twm_pipeline.settings import PROJECT_DIR, Settings, load_settings
from twm_pipeline.status.receiver import EVERYWHERE
from twm_pipeline.sync.accounts import configured_sources
from twm_pipeline.sync.window import prepare

PORT = 3000
START_SECONDS = 120.0
LOOK_SECONDS = 0.3
SET_BACK_SECONDS = 30.0
"""Less than this delays a schedule by no more than that."""

HELP = """Start everything: PostgreSQL (unless PG_DSN names one), receiver, status page, Dagster and its UI.

Hooks are registered at the vendors under PUBLIC_URL, or with NGROK_AUTHTOKEN through a tunnel; without either
the vendors are polled more often.

Without credentials, or with --sandbox, simulated accounts are read instead, into a database of their own.
Ctrl-C or SIGTERM stops everything that was started.

Examples: twm up · twm up --port 3333 · twm up --sandbox · twm up --sandbox --once --json
"""


class ChildEndedError(TwmError):
    """A process that everything needs has ended by itself."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("up", help=HELP)(up)


def up(
    *,
    sandbox: Annotated[bool, typer.Option("--sandbox", help="Simulated accounts, whatever is set.")] = False,
    once: Annotated[
        bool, typer.Option("--once", help="Sync everything once, print a summary and end.")
    ] = False,
    host: Annotated[str, typer.Option(help="Where the UI listens.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The UI's port.", min=1, max=65535)] = PORT,
    as_json: Annotated[bool, typer.Option("--json", help="With --once: the summary as JSON.")] = False,
) -> None:
    """Start everything."""
    if as_json and not once:
        raise typer.BadParameter("--json goes with --once")
    settings = load_settings()
    simulated = sandbox or not configured_sources(settings)
    if simulated and not sandbox:
        output.err().print("No credentials are set: this is the sandbox, with simulated accounts.")
    simulation: list[processes.Child] = []
    with ExitStack() as stack:
        if simulated:
            place = remembered_place(settings)
            settings = sandbox_settings(settings, place)
        stack.enter_context(embedded_while_needed(settings))
        stack.enter_context(processes.stopped_at_the_end(simulation))
        if simulated:
            simulation.append(start_sandbox(settings, place, environment(settings)))
        with output.progress("bringing the mirror up to date …"):
            _prepare(settings)
        if once:
            code = _sync_once(settings, simulated=simulated, as_json=as_json)
        else:
            code = _serve(settings, simulation, host=host, port=port)
    raise typer.Exit(code)


def _prepare(settings: Settings) -> None:
    """Bring the mirror up to date; when `PG_DSN` is new, take the embedded mirror's rows along."""
    copied = copy_embedded_mirror(settings, migrate=migrate)
    if copied:
        count = sum(copied.values())
        say(f"Copied {count:,} rows of the embedded mirror to PG_DSN; the old one stays as it is.")
    engine = connect_database(settings)
    try:
        for problem in prepare(engine, settings):
            output.complain(problem)
    finally:
        engine.dispose()


def _sync_once(settings: Settings, *, simulated: bool, as_json: bool) -> int:
    """Sync every configured source as a recorded run, and print what came of it."""
    started = time.monotonic()
    requests = [request(source) for source in configured_sources(settings)]
    requests += [publish_request()] if publishes(settings, None) else []
    results = run_jobs(settings, [*requests, insights_request()])
    engine = connect_database(settings)
    with engine.connect() as connection:
        tables = count_tables(connection)
    engine.dispose()
    seconds = round(time.monotonic() - started, 1)
    if as_json:
        output.print_json({"seconds": seconds, "tables": tables, "runs": results})
    else:
        show_results(results)
        say("")
        show_insights(results)
        living = sum(table["living"] for table in tables)
        deleted = sum(table["deleted"] for table in tables)
        say(f"\n{living:,} rows in the mirror, and {deleted:,} that are marked as deleted; {seconds} s.")
        _say_what_next(simulated=simulated)
    return report_problems(results)


def _say_what_next(*, simulated: bool) -> None:
    """Say how to look at what was read, by the name under which this command was called."""
    twm = sys.argv[0] if Path(sys.argv[0]).name == "twm" else "twm"
    option = " --sandbox" if simulated else ""
    say(f"Look at it: `{twm} up{option}` (in a browser), `{twm} status{option}` (rows, and how to connect).")


def _serve(settings: Settings, simulation: list[processes.Child], *, host: str, port: int) -> int:
    """Start the receiver and Dagster's processes, and stay until somebody or something ends them."""
    if _answers(host, port):
        msg = f"Port {port} is taken; choose another one with --port."
        raise ConfigError(msg)
    children: list[processes.Child] = []
    try:
        with (
            tempfile.TemporaryDirectory(prefix="twm-") as folder,
            processes.stopped_at_the_end(children),
            ExitStack() as stack,
        ):
            if not settings.disable_webhooks:
                start(receiver_of(settings), settings, children)
            settings = stack.enter_context(reachable(settings))
            settings = _with_ui(settings, host=host, port=port)
            start(status_page_of(settings), settings, children)
            with output.progress("registering hooks …"):
                register_hooks(settings, simulated=bool(simulation))
            with output.progress("starting Dagster …"):
                restart_daemon = _start_dagster(settings, children, Path(folder), host=host, port=port)
                _wait_until_up(children, host=host, port=port)
            say(f"Dagster's UI  http://{host}:{port}")
            say(f"Status page   {status_page_of(settings).url}")
            if simulation:
                say(f"Sandbox       {settings.teamwork_base_url} · about {CHANGES_PER_HOUR} changes an hour")
            say(f"Logs          {settings.twm_data_dir / 'logs'}")
            say("Ctrl-C stops everything.")
            _stay(children, simulation, on_clock_set_back=restart_daemon)
    except KeyboardInterrupt:
        say("Stopped.")
    return output.OK


def _with_ui(settings: Settings, *, host: str, port: int) -> Settings:
    """Return *settings* in which links lead to the UI that is about to start, unless they lead elsewhere.

    One that listens on every address has none of its own that a link could have.
    """
    if settings.dagster_ui_url is not None or host in EVERYWHERE:
        return settings
    shown = f"[{host}]" if ":" in host else host
    return settings.model_copy(update={"dagster_ui_url": f"http://{shown}:{port}"})


def _stay(
    children: list[processes.Child],
    simulation: list[processes.Child],
    *,
    on_clock_set_back: Callable[[], None],
) -> None:
    """Stay while all children live.

    Raises:
        ChildEndedError: If one of them ends by itself.
    """
    ahead = _ahead()
    while all(child.process.poll() is None for child in (*children, *simulation)):
        time.sleep(LOOK_SECONDS)
        before, ahead = ahead, _ahead()
        if ahead < before - SET_BACK_SECONDS:
            on_clock_set_back()
    raise _ended([*children, *simulation])


def _ahead() -> float:
    """Return by how much the machine's clock is ahead of one that nobody sets."""
    return time.time() - time.monotonic()


def _start_dagster(
    settings: Settings, children: list[processes.Child], folder: Path, *, host: str, port: int
) -> Callable[[], None]:
    """Start one server of the definitions and, using it, the webserver and the daemon.

    The daemon remembers when each schedule is due, and goes by that when the machine's clock is set back; a
    new one asks the storage (`defs/clocks.py`). Runs are the server's children, so they go on.

    Args:
        settings: Handed down to all of them.
        children: Where they are added, in the order in which they are to be stopped.
        folder: A private folder; the socket in it lets nobody else run code here.
        host: Where the webserver listens.
        port: And on which port.

    Returns:
        What starts the daemon anew.
    """
    env, logs = environment(settings), settings.twm_data_dir / "logs"
    code_socket = folder / f"code-{secrets.token_hex(4)}"
    workspace = folder / "workspace.yaml"
    server = {"grpc_server": {"socket": str(code_socket), "location_name": "twm_pipeline"}}
    workspace.write_text(json.dumps({"load_from": [server]}))
    definitions = ["-m", "twm_pipeline.definitions", "--socket", str(code_socket)]
    form = ["--log-format", "json"] if settings.log_format == "json" else []
    commands = {
        "code": ["-m", "dagster", "api", "grpc", *definitions, *form],
        "daemon": ["-m", "dagster._daemon", "run", "-w", str(workspace), *form],
        "webserver": ["-m", "dagster_webserver", "-h", host, "-p", str(port), "-w", str(workspace), *form],
    }
    for name, command in commands.items():
        children.append(processes.start(name, command, env=env, logs=logs, cwd=PROJECT_DIR))
        if name == "code":
            _wait_for_file(code_socket, children)

    def restart_daemon() -> None:
        say("The machine's clock was set back: Dagster's daemon starts anew.")
        place = next(number for number, child in enumerate(children) if child.name == "daemon")
        processes.stop([children[place]])
        children[place] = processes.start("daemon", commands["daemon"], env=env, logs=logs, cwd=PROJECT_DIR)

    return restart_daemon


def _wait_for_file(path: Path, children: list[processes.Child]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not path.exists():
        if children[-1].process.poll() is not None or time.monotonic() > deadline:
            raise _ended(children)
        time.sleep(0.05)


def _wait_until_up(children: list[processes.Child], *, host: str, port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if any(child.process.poll() is not None for child in children):
            raise _ended(children)
        try:
            with urllib.request.urlopen(f"http://{host}:{port}/server_info", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(LOOK_SECONDS)
    msg = f"Dagster's UI did not come up within {START_SECONDS:.0f} s; see the logs."
    raise ChildEndedError(msg)


def _ended(children: list[processes.Child]) -> ChildEndedError:
    gone = next((child for child in children if child.process.poll() is not None), children[-1])
    return ChildEndedError(f"{gone.name} ended by itself. The end of {gone.log}:\n{gone.log_end()}")


def _answers(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.settimeout(2)
        return probe.connect_ex((host, port)) == 0
