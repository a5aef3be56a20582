"""A world per test: sandbox, empty mirror, and vendors' waits that pass at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from twm_pipeline.db import open_engine
from twm_pipeline.http import VendorSession
from twm_pipeline.sandbox import Sandbox, SandboxOptions
from twm_pipeline_tests.faults.mortal import Nursery, open_nursery
from twm_pipeline_tests.faults.world import World, settings_for

READ_SECONDS = 0.5
SMALL = {"tasks": 70, "conversations": 20}


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let back-off pass at once, and give a stalled answer up soon; the budget's own waits stay."""
    quick = partial(VendorSession, read_seconds=READ_SECONDS, sleep=lambda _: None)
    monkeypatch.setattr("twm_pipeline.sync.engine.VendorSession", quick)


@pytest.fixture
def make_world(database: URL, tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Return what makes a world: options of the sandbox, and overrides of the settings."""
    with ExitStack() as stack:

        def make(*, overrides: dict[str, Any] | None = None, **options: Any) -> World:
            box = stack.enter_context(Sandbox(SandboxOptions(**{**SMALL, **options})))
            engine = open_engine(database)
            stack.callback(engine.dispose)
            settings = settings_for(box, database, tmp_path / ".twm", **(overrides or {}))
            return World(control=box.control, engine=engine, settings=settings)

        yield make


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """Return a small world that nothing was imported from yet."""
    return make_world()


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Return what starts processes that do one pass."""
    with open_nursery() as nursery:
        yield nursery
