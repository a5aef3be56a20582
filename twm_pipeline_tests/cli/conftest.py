"""A sandbox that the settings name, as commands find it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from twm_pipeline.sandbox import MISSIVE_TOKEN, TEAMWORK_KEY, Sandbox, SandboxOptions


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """Run a sandbox that the settings name."""
    with Sandbox(SandboxOptions(tasks=30, conversations=10)) as box:
        monkeypatch.setenv("TEAMWORK_BASE_URL", box.teamwork_url)
        monkeypatch.setenv("TEAMWORK_API_KEY", TEAMWORK_KEY)
        monkeypatch.setenv("MISSIVE_BASE_URL", box.missive_url)
        monkeypatch.setenv("MISSIVE_API_TOKEN", MISSIVE_TOKEN)
        monkeypatch.setenv("BUDGET_TIME_SCALE", "1000")
        yield box


@pytest.fixture
def publishing(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """Return a sandbox whose Airtable is published to."""
    for name, value in {
        "DB_BACKEND": "both",
        "AIRTABLE_API_KEY": box.airtable_token,
        "AIRTABLE_BASE_ID": box.airtable_base_id,
        "AIRTABLE_ENDPOINT_URL": box.airtable_url,
        "AIRTABLE_UPLOAD_URL": box.airtable_upload_url,
    }.items():
        monkeypatch.setenv(name, value)
    return box
