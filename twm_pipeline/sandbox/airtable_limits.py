"""What limits the calls to Airtable: five a second, the penalty after that, the month's quota."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from twm_pipeline.sandbox.airtable_errors import RefusedError
from twm_pipeline.sandbox.budgets import Budget, Verdict, Window
from twm_pipeline.sandbox.options import Json

PENALTY_SECONDS = 30.0
PER_SECOND = 5
PER_SECOND_BEYOND_QUOTA = 2
RECORDS_PER_BASE = {"free": 1_000, "team": 50_000, "business": 125_000}


class PenaltyBudget(Budget):
    """A budget that answers nothing for a while once it was broken.

    Args:
        limit: Requests a second; asked anew each time.
    """

    def __init__(self, limit: Callable[[], int]) -> None:
        super().__init__([Window(limit, 1.0)], concurrency=None, sliding=lambda: True)
        self.silent_until = 0.0
        self.penalties = 0
        self._admitted = 0
        self._first = self._last = 0.0

    def set_scale(self, scale: float) -> None:
        """Let a documented second pass in 1 / *scale* seconds; 0 switches the budget off."""
        super().set_scale(scale)
        self.silent_until = 0.0
        self.forget()

    def forget(self) -> None:
        """Start counting anew."""
        self.penalties = self._admitted = 0

    @property
    def share(self) -> float:
        """Return which share of the budget was used between the first and the last request."""
        seconds = (self._last - self._first) * (self.scale or 1.0)
        return 0.0 if seconds <= 0 else (self._admitted - 1) / (seconds * self.windows[0].limit())

    def _judge(self, now: float) -> Verdict:
        if self.scale and now < self.silent_until:
            rest = self.silent_until - now
            limit = self.windows[0].limit()
            return Verdict(allowed=False, limit=limit, remaining=0, reset_seconds=rest, violation="penalty")
        verdict = super()._judge(now)
        if verdict.allowed:
            self._first = self._first if self._admitted else now
            self._last = now
            self._admitted += 1
            return verdict
        self.penalties += 1
        self.silent_until = now + PENALTY_SECONDS / self.scale
        return replace(verdict, reset_seconds=PENALTY_SECONDS / self.scale)


class Quota:
    """The calls left of this month.

    Args:
        mode: Says what happens beyond them: `stop` or `slow`.
    """

    def __init__(self, mode: Callable[[], Json]) -> None:
        self.left: int | None = None
        self.refused = 0
        self._mode = mode

    def per_second(self) -> int:
        """Return the requests allowed in a second."""
        return PER_SECOND_BEYOND_QUOTA if self.left == 0 and self._mode() == "slow" else PER_SECOND

    def charge(self, *, meta: bool) -> None:
        """Count a call.

        Raises:
            RefusedError: If the month is used up, unless the call is about the schema.
        """
        if self.left is None:
            return
        if self.left > 0:
            self.left -= 1
        elif not meta and self._mode() == "stop":
            self.refused += 1
            raise RefusedError(429, "PUBLIC_API_BILLING_LIMIT_EXCEEDED")
