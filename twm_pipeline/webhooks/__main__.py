"""`python -m twm_pipeline.webhooks`: the receiver as a process of its own, without the weight of `twm`."""

from __future__ import annotations

import sys

from twm_pipeline import logs
from twm_pipeline.errors import ConfigError
from twm_pipeline.settings import load_settings
from twm_pipeline.webhooks.server import build_server, listen

TO_BE_CHANGED = 3


def main() -> None:
    """Receive until told to stop."""
    try:
        settings = load_settings()
        logs.set_up(settings)
        logs.log_what_ends()
        server = build_server(settings, on_start=lambda: _announce(settings.app_host, settings.app_port))
        server.run(sockets=[listen(settings.app_host, settings.app_port)])
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(TO_BE_CHANGED)


def _announce(host: str, port: int) -> None:
    shown = f"[{host}]" if ":" in host else host
    sys.stdout.write(f"Receiver  http://{shown}:{port}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
