"""Where a person goes from a figure: to an object at the vendor, to runs in Dagster, to the status page."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from twm_pipeline.records import WITHOUT_ID

if TYPE_CHECKING:
    from twm_pipeline.records import Json
    from twm_pipeline.settings import Settings

EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - no address to listen on, but one that a link cannot have
MISSIVE_APP = "https://mail.missiveapp.com"
AIRTABLE_APP = "https://airtable.com"
_OBJECTS = {
    ("teamwork", "tasks"): "/app/tasks/{}",
    ("teamwork", "tasklists"): "/app/tasklists/{}",
    ("teamwork", "projects"): "/app/projects/{}",
    ("missive", "conversations"): "/#inbox/conversations/{}",
}


def link_to_object(source: Json, stream: str | None, object_id: str | None) -> str | None:
    """Return where people see an object of *source*; None where the vendor has no address for it."""
    path = _OBJECTS.get((source["source"], stream or ""))
    base = MISSIVE_APP if source["source"] == "missive" else source["link_base"]
    if path is None or base is None or not object_id or object_id.startswith(WITHOUT_ID):
        return None
    return str(base) + path.format(quote(object_id, safe=""))


def link_to_vendor(source: Json) -> str | None:
    """Return where people work in the vendor's service."""
    return MISSIVE_APP if source["source"] == "missive" else source["link_base"]


def link_to_runs(settings: Settings, job: str) -> str | None:
    """Return the runs of *job* in Dagster's UI; None where its address is not known."""
    return f"{settings.dagster_ui_url}/runs?q[0]=job:{job}" if settings.dagster_ui_url else None


def link_to_status_page(settings: Settings) -> str | None:
    """Return the address of the status page; None where it listens everywhere, so has none of its own."""
    host = settings.status_host
    if host in EVERYWHERE:
        return None
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.status_port}"
