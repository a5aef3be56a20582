"""A client on a sandbox's Airtable."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from twm_pipeline.airtable.client import AirtableClient, budget_plan
from twm_pipeline.budget import Budget
from twm_pipeline.sandbox import Sandbox, SandboxControl, SandboxOptions
from twm_pipeline.settings import Settings

TIME_SCALE = 40.0


@dataclass
class World:
    """A sandbox, and everything that speaks to its Airtable."""

    box: Sandbox
    settings: Settings
    budget: Budget
    client: AirtableClient

    @property
    def control(self) -> SandboxControl:
        return self.box.control

    def records(self, table: str) -> dict[str, dict[str, Any]]:
        """Return the truth about a table: cells by field name, by record id."""
        rows = self.control.truth("airtable_record")
        return {row["id"]: row["cells"] for row in rows if row["table"] == table}

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """Return the truth about the tables: fields by name of the table."""
        return {row["name"]: row["fields"] for row in self.control.truth("airtable_table")}


Start = Callable[..., World]


@pytest.fixture
def start(settings: Settings, engine: Any) -> Iterator[Start]:
    """Return a function that starts a sandbox and a client of its base; options are the sandbox's."""
    with ExitStack() as stack:

        def begin(*, time_scale: float = TIME_SCALE, **options: Any) -> World:
            box = stack.enter_context(
                Sandbox(SandboxOptions(**{"tasks": 12, "conversations": 6, "budgets": TIME_SCALE, **options}))
            )
            given = {
                "airtable_api_key": box.airtable_token,
                "airtable_base_id": box.airtable_base_id,
                "airtable_endpoint_url": box.airtable_url,
                "airtable_upload_url": box.airtable_upload_url,
                "budget_time_scale": time_scale,
            }
            own = Settings(**{**dict(settings), **given})
            budget = stack.enter_context(Budget(engine, budget_plan(own)))
            return World(box=box, settings=own, budget=budget, client=AirtableClient(own, budget))

        yield begin


@pytest.fixture
def world(start: Start) -> World:
    return start()
