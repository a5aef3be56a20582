from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from twm_pipeline.sandbox import Sandbox, SandboxOptions
from twm_pipeline_tests.sandbox.airtable_clients import AirtableClient
from twm_pipeline_tests.sandbox.clients import MissiveClient, TeamworkClient
from twm_pipeline_tests.sandbox.receivers import Receiver

ANCHOR = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
Start = Callable[..., Sandbox]


@pytest.fixture(scope="session")
def closer() -> Iterator[ThreadPoolExecutor]:
    """Stop sandboxes beside the next tests: a server takes a moment to end."""
    with ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.fixture
def start(closer: ThreadPoolExecutor) -> Iterator[Start]:
    """Start sandboxes that end with the test."""
    running: list[Sandbox] = []

    def begin(**options) -> Sandbox:
        box = Sandbox(SandboxOptions(**{"tasks": 120, "conversations": 90, "anchor": ANCHOR, **options}))
        running.append(box.__enter__())
        return box

    yield begin
    for box in running:
        closer.submit(box.__exit__, None, None, None)


@pytest.fixture
def box(start: Start) -> Sandbox:
    return start()


@pytest.fixture
def teamwork(box: Sandbox) -> Iterator[TeamworkClient]:
    with TeamworkClient(box) as client:
        yield client


@pytest.fixture
def missive(box: Sandbox) -> Iterator[MissiveClient]:
    with MissiveClient(box) as client:
        yield client


@pytest.fixture
def airtable(start: Start) -> Iterator[AirtableClient]:
    with AirtableClient(start(tasks=3, conversations=3)) as client:
        yield client


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver
