"""`twm status-page`: the status page and `/metrics`, alone."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from twm_pipeline.settings import environment_of, load_settings

HELP = """Show the status page and /metrics until Ctrl-C. It reads only, and starts no PostgreSQL.

It listens on loopback unless told otherwise; beyond it STATUS_PASSWORD has to be set.

Examples: twm status-page · twm status-page --port 8081 · twm status-page --host 0.0.0.0
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("status-page", help=HELP)(status_page)


def status_page(
    *,
    host: Annotated[str | None, typer.Option(help="Address to listen on; STATUS_HOST if left out.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; STATUS_PORT if left out.")] = None,
) -> None:
    """Become the status page."""
    given = {"status_host": host, "status_port": port}
    settings = load_settings(**{name: value for name, value in given.items() if value is not None})
    sys.stdout.flush()
    os.execve(  # noqa: S606 - no shell is wanted
        sys.executable, [sys.executable, "-m", "twm_pipeline.status"], environment_of(settings)
    )
