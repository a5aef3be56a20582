"""A fresh checkout for each test, and no process left behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from twm_pipeline.settings import INHERITED, environment_of, load_settings


@pytest.fixture
def env(place: Path) -> dict[str, str]:
    """Return the environment of a fresh checkout: nothing is configured, files go to this test's folder.

    All settings are handed down, so that no process reads the developer's `.env`.
    """
    handed_down = environment_of(load_settings(twm_data_dir=place / "data"))
    return {name: value for name, value in handed_down.items() if name != "DAGSTER_HOME"}


@pytest.fixture(autouse=True)
def _nothing_left(place: Path) -> Iterator[None]:
    yield
    for process in psutil.process_iter():
        try:
            mine = str(place) in process.environ().get(INHERITED, "")
        except (psutil.Error, OSError):
            continue
        if mine and process.pid != os.getpid():
            process.kill()
