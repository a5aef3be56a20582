"""`twm receiver`: what the vendors' webhooks talk to, alone."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from twm_pipeline.settings import environment_of, load_settings

HELP = """Receive webhooks until Ctrl-C, and keep them on disk for whoever runs the sync. Needs no PostgreSQL.

It listens on loopback unless told otherwise; a reverse proxy or a tunnel in front of it speaks HTTPS.

Examples: twm receiver · twm receiver --host 0.0.0.0 --port 8080
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("receiver", help=HELP)(receiver)


def receiver(
    *,
    host: Annotated[str | None, typer.Option(help="Address to listen on; APP_HOST if left out.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; APP_PORT if left out.")] = None,
) -> None:
    """Become the receiver: it runs all the time, and most of what `twm` has in memory is of no use to it."""
    given = {"app_host": host, "app_port": port}
    settings = load_settings(**{name: value for name, value in given.items() if value is not None})
    sys.stdout.flush()
    os.execve(  # noqa: S606 - no shell is wanted
        sys.executable, [sys.executable, "-m", "twm_pipeline.webhooks"], environment_of(settings)
    )
