"""A mirror that is published to the sandbox's Airtable, for tests of publishing."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyairtable
from pydantic import SecretStr
from sqlalchemy import Engine

from twm_pipeline.airtable.fields import Key
from twm_pipeline.mirror.schema import categorize
from twm_pipeline.sandbox import SandboxControl
from twm_pipeline.sandbox.options import AIRTABLE_BASE_ID, AIRTABLE_TOKEN
from twm_pipeline.settings import Settings
from twm_pipeline.sync.publish import PublishReport
from twm_pipeline.sync.publishing import PublishWindow
from twm_pipeline_tests.faults.world import dsn_of
from twm_pipeline_tests.truth.compare_base import TABLES, differences, view_rows

Reports = dict[Key, PublishReport]

PATIENCE, PAUSE_SECONDS = 100, 0.02
PAUSE = threading.Event()  # never set: only its timeout is used


def airtable_settings(described: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a deployment that publishes to the sandbox which describes itself so."""
    return {
        "db_backend": "both",
        "airtable_api_key": SecretStr(described["airtable_token"]),
        "airtable_base_id": described["airtable_base_id"],
        "airtable_endpoint_url": described["airtable_url"],
        "airtable_upload_url": described["airtable_upload_url"],
    }


def airtable_at(url: str) -> dict[str, str]:
    """Return how the sandbox at this address describes its Airtable."""
    return {
        "airtable_url": f"{url}/airtable",
        "airtable_upload_url": f"{url}/airtable-content",
        "airtable_token": AIRTABLE_TOKEN,
        "airtable_base_id": AIRTABLE_BASE_ID,
    }


def publish(engine: Engine, settings: Settings, **options: Any) -> Reports:
    """Publish once and return the figures; no other process must be publishing."""
    reports: list[Reports] = []
    window = PublishWindow(engine=engine, settings=settings, on_report=reports.append, **options)
    for _ in range(PATIENCE):  # a lock is free a moment after the connection that held it was closed
        if window.run():
            return reports[-1]
        PAUSE.wait(PAUSE_SECONDS)
    raise AssertionError("another process is publishing")


def categories_are(engine: Engine, categories: Mapping[str, tuple[str, ...]]) -> None:
    """Apply categories as `twm categorize` does."""
    categorize(engine, dict(categories))


def kinds(requests: list[dict[str, Any]]) -> Counter[str]:
    """Return how many of the sandbox's Airtable requests did what."""
    return Counter(f"{row['method']} {'meta' if '/meta/' in row['path'] else 'records'}" for row in requests)


def airtable_table(settings: Settings, name: str) -> pyairtable.Table:
    """Return a table as anybody with pyairtable has it."""
    assert settings.airtable_api_key is not None
    api = pyairtable.Api(
        settings.airtable_api_key.get_secret_value(),
        endpoint_url=settings.airtable_endpoint_url,
        retry_strategy=None,
    )
    api.session.trust_env = False
    return api.table(str(settings.airtable_base_id), name)


def base_differences(engine: Engine, control: SandboxControl, **options: Any) -> list[str]:
    """Return what differs between both views and the truth about the base's tables."""
    records: dict[str, list[dict[str, Any]]] = {table: [] for table in TABLES.values()}
    for row in control.truth("airtable_record"):
        records.setdefault(row["table"], []).append(row["cells"])
    return [
        difference
        for view, table in TABLES.items()
        for difference in differences(view, view_rows(dsn_of(engine.url), view), records[table], **options)
    ]
