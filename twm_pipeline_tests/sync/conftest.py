from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine

from twm_pipeline.sandbox import Sandbox, SandboxOptions
from twm_pipeline.settings import Settings
from twm_pipeline_tests.sync.accounts import Account, Open
from twm_pipeline_tests.sync.bases import Base, base_of


@pytest.fixture
def open_account(engine: Engine, settings: Settings) -> Iterator[Open]:
    """Open accounts whose sandbox ends with the test."""
    running: list[Sandbox] = []

    def begin(**options: Any) -> Account:
        box = Sandbox(SandboxOptions(**{"tasks": 80, "conversations": 60, **options}))
        running.append(box.__enter__())
        return Account(box, engine, settings_of(box, settings))

    yield begin
    for box in running:
        box.__exit__(None, None, None)


def settings_of(box: Sandbox, settings: Settings) -> Settings:
    """Return *settings* with the sandbox as both vendors and budgets that never wait."""
    from twm_pipeline.settings import load_settings  # noqa: PLC0415 - after the fixture hid the developer's own

    return load_settings(
        **settings.model_dump(exclude_defaults=True),
        teamwork_base_url=box.teamwork_url,
        teamwork_api_key=box.teamwork_key,
        missive_base_url=box.missive_url,
        missive_api_token=box.missive_token,
        budget_time_scale=1000,
    )


@pytest.fixture
def account(open_account: Open) -> Account:
    return open_account()


@pytest.fixture
def synced(account: Account) -> Account:
    """Return an account that is read, with nothing counted yet."""
    account.sync("teamwork")
    account.sync("missive")
    account.control.reset_counters()
    return account


@pytest.fixture
def make_base(open_account: Open) -> Callable[..., Base]:
    return lambda **options: base_of(open_account(**{"tasks": 40, "conversations": 8, **options}))


@pytest.fixture
def fresh(make_base: Callable[..., Base]) -> Base:
    """Return a mirror whose base is empty."""
    return make_base()


@pytest.fixture
def base(fresh: Base) -> Base:
    """Return a mirror that is published."""
    fresh.publish()
    fresh.requests()
    return fresh


@pytest.fixture
def picky(base: Base) -> Base:
    """Return a base whose field `priority` takes only what it holds already."""
    known = {cells["priority"] for cells in base.records().values() if "priority" in cells} - {"low"}
    for row in base.task_ids("priority = 'low'"):
        base.control.edit_task(row, priority=None)
    base.account.sync("teamwork")
    base.publish()
    choices = {"choices": [{"name": name} for name in sorted(known)]}
    base.control.airtable_retype_field("Tasks", "priority", "singleSelect", choices)
    base.requests()
    return base
