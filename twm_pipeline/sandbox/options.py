"""How a sandbox is started, and its clock."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Literal

TEAMWORK_KEY = "sandbox-teamwork-key"
MISSIVE_TOKEN = "missive_pat-sandbox"  # noqa: S105 - the sandbox's published key, no secret
AIRTABLE_TOKEN = "patSandbox0000000.published"  # noqa: S105 - likewise
AIRTABLE_BASE_ID = "appSandboxMirror0"
AIRTABLE_FOREIGN_BASE_ID = "appSandboxForeign"

Budgets = Literal["off", "on"] | float
Json = Any  # whatever JSON can say


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxOptions:
    """What a sandbox holds and how it behaves.

    Attributes:
        seed: Decides the generated content and the faults with a probability.
        tasks: Generated tasks; ignored with `data_dir`.
        conversations: Generated conversations; ignored with `data_dir`.
        data_dir: Folder with `tasks.jsonl.gz` and `emails.jsonl.gz`.
        budgets: `off`, `on`, or a time scale: with 60.0 one documented minute
            passes in one real second.
        answers: Switches of `ALL_ANSWERS` that differ from their defaults.
        host: Loopback address to listen on.
        port: Port to listen on; 0 takes a free one.
        anchor: The instant at which generated content ends; None is a minute ago. The
            clock runs from the later of both.
        changes_per_hour: Random changes made while the sandbox runs.
        latency_seconds: Waited before every answer of a vendor.
        webhook_time_scale: What the waits between retries of a delivery are divided by.
    """

    seed: int = 7
    tasks: int = 300
    conversations: int = 120
    data_dir: Path | None = None
    budgets: Budgets = "off"
    answers: Mapping[str, Any] = field(default_factory=dict)
    host: str = "127.0.0.1"
    port: int = 0
    anchor: datetime | None = None
    changes_per_hour: float = 0
    latency_seconds: float = 0.0
    webhook_time_scale: float = 1.0


class Clock:
    """The time in the simulated accounts: real time plus an offset that only grows.

    Args:
        anchor: Unix seconds the clock must not start before.
    """

    def __init__(self, anchor: float | None = None) -> None:
        self.offset = max(0.0, (anchor or 0.0) - time.time())

    def time(self) -> float:
        """Return the present Unix time with its fraction."""
        return time.time() + self.offset

    def now(self) -> int:
        """Return the present Unix second."""
        return int(self.time())

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass at once.

        Raises:
            ValueError: If *seconds* is negative.
        """
        if seconds < 0:
            raise ValueError("time does not run backwards")
        self.offset += seconds


def http_date(instant: float) -> str:
    """Return *instant* as a `Date` header has it."""
    return format_datetime(datetime.fromtimestamp(int(instant), UTC), usegmt=True)


def iso(instant: int | None) -> str | None:
    """Return Unix seconds as Teamwork writes them, None for none."""
    return None if instant is None else datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
