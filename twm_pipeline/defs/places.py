"""Where people go from an asset or a job of the UI: links in its metadata, made from the settings once."""

from __future__ import annotations

from functools import cache

import dagster as dg

from twm_pipeline.links import AIRTABLE_APP, MISSIVE_APP, link_to_status_page
from twm_pipeline.settings import Settings, load_settings


def links_of(*names: str) -> dict[str, dg.MetadataValue]:
    """Return links to the status page and to what is named, as far as their addresses are known.

    Args:
        names: `teamwork`, `missive`, `airtable`; another name has no address outside.
    """
    places = _places()
    found = {name.capitalize(): places.get(name) for name in names} | {"Status page": places["status"]}
    return {title: dg.MetadataValue.url(url) for title, url in found.items() if url is not None}


@cache
def _places() -> dict[str, str | None]:
    settings = load_settings()
    return {
        "teamwork": settings.teamwork_base_url,
        "missive": MISSIVE_APP if settings.missive_api_token else None,
        "airtable": _airtable(settings),
        "status": link_to_status_page(settings),
    }


def _airtable(settings: Settings) -> str | None:
    return f"{AIRTABLE_APP}/{settings.airtable_base_id}" if settings.can_publish else None
