"""`twm sandbox`, and the sandbox that `twm up` starts: simulated accounts with a place of their own."""

from __future__ import annotations

import json
import secrets
import socket
import time
from collections.abc import Container
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from twm_pipeline.cli import processes
from twm_pipeline.db.cluster import write_private
from twm_pipeline.errors import ConfigError, TwmError
from twm_pipeline.records import Json
from twm_pipeline.sandbox import AIRTABLE_BASE_ID, AIRTABLE_TOKEN, MISSIVE_TOKEN, TEAMWORK_KEY
from twm_pipeline.sandbox.__main__ import main as serve
from twm_pipeline.settings import Settings

CHANGES_PER_HOUR = 90
TIME_SCALE = 60.0
"""One documented minute of a request budget passes in a second: budgets are obeyed, and nobody waits."""
POLL_SECONDS = 10.0
START_SECONDS = 60.0
HOST = "127.0.0.1"
PORTS = range(25_500, 32_000)

HELP = """Serve simulated Teamwork and Missive accounts on loopback until Ctrl-C; prints addresses and keys.

Every option of `python -m twm_pipeline.sandbox` is taken; `twm sandbox -- --help` lists them.

Examples: twm sandbox · twm sandbox --port 8090 --changes-per-hour 90 · twm sandbox --data DIR --budgets off
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    context = {"allow_extra_args": True, "ignore_unknown_options": True}
    app.command("sandbox", help=HELP, context_settings=context)(sandbox)


def sandbox(
    options: Annotated[list[str] | None, typer.Argument(metavar="[OPTIONS]", show_default=False)] = None,
) -> None:
    """Serve the sandbox in the foreground."""
    serve(list(options or []))


def sandbox_settings(settings: Settings, place: Json) -> Settings:
    """Return *settings* turned towards the sandbox: its accounts, its database, nothing of the real ones.

    Its webhooks come over loopback to a receiver of its own; with `DB_BACKEND=both` its base is published to.
    """
    url = f"http://{HOST}:{place['port']}"
    return settings.model_copy(
        update={
            **{name: field.get_default() for name, field in Settings.model_fields.items() if _is_real(name)},
            "teamwork_base_url": f"{url}/teamwork",
            "teamwork_api_key": _secret(TEAMWORK_KEY),
            "missive_base_url": f"{url}/missive/v1",
            "missive_api_token": _secret(MISSIVE_TOKEN),
            "airtable_endpoint_url": f"{url}/airtable",
            "airtable_upload_url": f"{url}/airtable-content",
            "airtable_api_key": _secret(AIRTABLE_TOKEN),
            "airtable_base_id": AIRTABLE_BASE_ID,
            "app_host": HOST,
            "app_port": place["receiver_port"],
            "status_port": place["status_port"],
            "public_url": f"http://{HOST}:{place['receiver_port']}",
            "twm_data_dir": folder(settings),
            "budget_time_scale": TIME_SCALE,
            "periodic_backfill_interval": settings.periodic_backfill_interval or POLL_SECONDS,
        }
    )


def folder(settings: Settings) -> Path:
    """Return where the sandbox keeps its database and Dagster's history."""
    return settings.twm_data_dir / "sandbox"


def _is_real(name: str) -> bool:
    """Return whether a setting speaks of a real account, its database, its spool or the way to it."""
    return name.startswith(("teamwork_", "missive_", "airtable_")) or name in (
        "pg_dsn",
        "dagster_pg_url",
        "spool_dir",
        "attachments_url",
        "public_url",
        "ngrok_authtoken",
        "allow_unsigned_webhooks",
    )


def _secret(text: str) -> object:
    from pydantic import SecretStr  # noqa: PLC0415 - the settings' own type

    return SecretStr(text)


def remembered_place(settings: Settings) -> Json:
    """Return ports and anchor of the sandbox, chosen at its first start: a restart has the same account."""
    path = folder(settings) / "sandbox.json"
    try:
        known: Json = json.loads(path.read_text())
    except FileNotFoundError:
        known = {"port": _free_port(), "anchor": datetime.now(UTC).replace(microsecond=0).isoformat()}
    place = {"receiver_port": _free_port(besides={known["port"]}), **known}
    place = {"status_port": _free_port(besides={place["port"], place["receiver_port"]}), **place}
    if place != known:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_private(path, json.dumps(place))
    return place


def _free_port(*, besides: Container[int] = ()) -> int:
    """Return a port that is free now and not one that systems give to outgoing connections."""
    ports = iter(lambda: secrets.choice(PORTS), None)
    return next(port for port in ports if port not in besides and not _is_taken(port))


def start_sandbox(settings: Settings, place: Json, env: dict[str, str]) -> processes.Child:
    """Start the sandbox as a child and wait until it answers.

    Args:
        settings: Those of the sandbox.
        place: See `remembered_place`.
        env: The child's environment.

    Raises:
        TwmError: If it does not come up; the text has the end of its log.
    """
    if _is_taken(place["port"]):
        msg = (
            f"Port {place['port']}, which the sandbox had before, is taken: another `twm up --sandbox` runs,"
            f" or another program. End it, or remove {settings.twm_data_dir} to begin anew."
        )
        raise ConfigError(msg)
    command = ["-m", "twm_pipeline.sandbox", "--port", str(place["port"]), "--anchor", place["anchor"]]
    pace = ["--changes-per-hour", str(CHANGES_PER_HOUR), "--budgets", str(TIME_SCALE)]
    pace += ["--webhook-time-scale", str(TIME_SCALE)]
    child = processes.start("sandbox", [*command, *pace], env=env, logs=settings.twm_data_dir / "logs")
    deadline = time.monotonic() + START_SECONDS
    while not _is_taken(place["port"]):
        if child.process.poll() is not None or time.monotonic() > deadline:
            processes.stop([child])
            msg = f"The sandbox did not start. The end of {child.log}:\n{child.log_end()}"
            raise TwmError(msg)
        time.sleep(0.05)
    return child


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0
