"""Whether the receiver answers, and what it counted since it started."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING

from twm_pipeline.webhooks.tally import read_tally

if TYPE_CHECKING:
    from twm_pipeline.records import Json
    from twm_pipeline.settings import Settings

ASK_SECONDS = 1.0
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - addresses that are listened on, to be asked


def read_receiver(settings: Settings) -> Json | None:
    """Return the receiver's state and counts; None where webhooks are disabled.

    `health` is `ok`, `full` or `failing` in its own words, None if it does not answer; `expected` says
    whether the vendors have an address under which they reach it.
    """
    if settings.disable_webhooks:
        return None
    counts = read_tally(settings) or {"started_at": None, "accepted": {}, "refused": []}
    address = f"{settings.app_host}:{settings.app_port}"
    return {"address": address, "expected": settings.expects_webhooks, "health": _ask(settings), **counts}


def _ask(settings: Settings) -> str | None:
    host = EVERYWHERE.get(settings.app_host, settings.app_host)
    connection = http.client.HTTPConnection(host, settings.app_port, timeout=ASK_SECONDS)
    try:
        connection.request("GET", "/health")
        return str(json.loads(connection.getresponse().read(1000))["status"])
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return None
    finally:
        connection.close()
