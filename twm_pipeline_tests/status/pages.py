"""A status page to ask, in a thread of the test, and figures made by hand."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import requests

from twm_pipeline.mirror.status import unread_status
from twm_pipeline.records import SOURCES
from twm_pipeline.settings import Settings
from twm_pipeline.status.__main__ import build_server
from twm_pipeline.webhooks.server import listen

SECONDS = 30
NOW = datetime(2026, 3, 2, 12, 30, tzinfo=UTC)


@dataclass(frozen=True)
class Shown:
    """Where a page is."""

    url: str

    def get(self, path: str = "/", **how: Any) -> requests.Response:
        return requests.get(self.url + path, timeout=SECONDS, **how)


@contextlib.contextmanager
def shown(settings: Settings) -> Iterator[Shown]:
    """Give a page on a free port."""
    started = threading.Event()
    server = build_server(settings, on_start=started.set)
    listener = listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        assert started.wait(SECONDS)
        yield Shown(f"http://127.0.0.1:{listener.getsockname()[1]}")
    finally:
        server.should_exit = True
        thread.join(SECONDS)
        assert not thread.is_alive()


def make_figures(**changes: Any) -> dict[str, Any]:
    """Return figures of a deployment in which all is well; *changes* to a source are named after it."""
    spool: dict[str, Any] = {
        "problem": None,
        "waiting": 0,
        "oldest_seconds": 0.0,
        "faulty": [],
        "next_due": None,
    }
    spool |= dict.fromkeys(("new", "due", "later", "held", "dead"), 0)
    sources = [
        unread_status(source)
        | {
            "configured": True,
            "window_open": True,
            "written": {},
            "account": f"{source} account",
            "lag_seconds": 4.0,
        }
        | {"last_success_at": NOW, "spool": spool}
        for source in SOURCES
    ]
    for source in sources:
        source.update(changes.pop(source["source"], {}))
    figures = {
        "taken_at": NOW,
        "problem": None,
        "sources": sources,
        "receiver": {
            "address": "127.0.0.1:5000",
            "expected": True,
            "health": "ok",
            "started_at": NOW.isoformat(),
            "accepted": {"teamwork": 3},
            "refused": [{"status": 401, "reason": "teamwork: there is no signature", "count": 2}],
        },
        "disk": {"free_bytes": 10**10, "reserve_bytes": 10**8},
        "attachments": make_attachments(),
        "airtable": None,
        "plots": [],
        "findings": [],
    }
    return figures | changes


def make_attachments(**changes: Any) -> dict[str, Any]:
    """Return the figures of files that are all stored."""
    figures = {"stored": 4, "pending": 0, "hidden": 0, "skipped": 0, "failed": 0}
    return figures | {"stored_bytes": 1000, "last_stored_at": NOW, "store": "local"} | changes


def make_airtable(**changes: Any) -> dict[str, Any]:
    """Return the figures of a base that is up to date."""
    view = {"records": 7, "waiting": 0, "published_at": NOW, "compared_at": NOW}
    figures = {
        "base": "app0123456789abcd",
        "views": [{"view": "tasks", **view}, {"view": "emails", **view}],
        "calls": 10,
        "monthly_calls": 1000,
        "exhausted": False,
        "stopped": None,
        "last_error": None,
        "last_error_at": None,
        "window_open": True,
        "budgets": [],
        "set_aside": {"count": 0, "records": []},
    }
    return figures | changes
