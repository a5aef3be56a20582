"""`python -m twm_pipeline.status`: the status page as a process of its own, apart from the receiver."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

import uvicorn

from twm_pipeline import logs
from twm_pipeline.errors import ConfigError
from twm_pipeline.settings import Settings, load_settings
from twm_pipeline.status.page import build_page
from twm_pipeline.webhooks.server import Server, drop_traceback, listen

TO_BE_CHANGED = 3
MOST_CONNECTIONS = 100
STOP_SECONDS = 3


def main() -> None:
    """Show the page until told to stop."""
    try:
        settings = load_settings()
        logs.set_up(settings)
        logs.log_what_ends()
        server = build_server(settings, on_start=lambda: _announce(settings))
        host, port = settings.status_host, settings.status_port
        listener = listen(
            host, port, who="status page", advice="STATUS_HOST and STATUS_PORT, or --host and --port"
        )
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(TO_BE_CHANGED)
    server.run(sockets=[listener])


def build_server(settings: Settings, *, on_start: Callable[[], None] = lambda: None) -> Server:
    """Return a server to be run on a listening socket.

    Args:
        settings: Of the deployment.
        on_start: Called once connections are accepted.

    Raises:
        ConfigError: If it would listen beyond this machine without a password.
    """
    config = uvicorn.Config(
        build_page(settings),
        ws="none",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    logging.getLogger("uvicorn.error").addFilter(drop_traceback)
    return Server(config, on_start)


def _announce(settings: Settings) -> None:
    host = f"[{settings.status_host}]" if ":" in settings.status_host else settings.status_host
    sys.stdout.write(f"Status page  http://{host}:{settings.status_port}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
