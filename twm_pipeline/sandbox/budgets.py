"""The vendors' rate limits: so many requests in a window, so many at once."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

MINUTE_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a budget says to one request.

    Attributes:
        allowed: False when the request is over a limit; then it broke the budget.
        limit: Requests per window of the window that is nearest to its limit.
        remaining: Requests left in that window.
        reset_seconds: Real seconds until that window has room again.
        violation: `budget` or `concurrency` when it is not allowed.
    """

    allowed: bool
    limit: int
    remaining: int
    reset_seconds: float
    violation: str | None = None


class Window:
    """A number of requests in a stretch of time.

    Args:
        limit: Returns the number allowed; asked anew each time.
        seconds: Documented length.
    """

    def __init__(self, limit: Callable[[], int], seconds: float) -> None:
        self.limit = limit
        self.seconds = seconds
        self._times: deque[float] = deque()

    def look(self, now: float, *, scale: float, sliding: bool) -> Verdict:
        """Say whether one more request fits at monotonic *now*, without counting it."""
        length = self.seconds / scale
        start = now - length if sliding else math.floor(now / length) * length
        while self._times and self._times[0] <= start:
            self._times.popleft()
        limit = self.limit()
        used = len(self._times)
        begin = self._times[0] if sliding and self._times else max(start, 0.0)
        reset = begin + length - now if used or not sliding else length
        return Verdict(
            allowed=used < limit, limit=limit, remaining=max(limit - used, 0), reset_seconds=max(reset, 0.0)
        )

    def count(self, now: float) -> None:
        """Count a request that was let through."""
        self._times.append(now)

    def clear(self) -> None:
        """Forget all requests."""
        self._times.clear()


class Budget:
    """All limits of one vendor account.

    Args:
        windows: The account's windows.
        concurrency: Requests at once; None for no limit.
        sliding: Says whether windows slide or stand on fixed ground.
    """

    def __init__(
        self, windows: list[Window], *, concurrency: int | None, sliding: Callable[[], bool]
    ) -> None:
        self.windows = windows
        self.concurrency = concurrency
        self.sliding = sliding
        self.scale = 0.0
        self.active = 0
        self.peak = 0

    def set_scale(self, scale: float) -> None:
        """Let a documented minute pass in 60 / *scale* seconds; 0 switches the budget off."""
        self.scale = scale
        for window in self.windows:
            window.clear()

    def admit(self, now: float) -> Verdict:
        """Judge a request at monotonic *now*; one that is let through counts until `release`."""
        verdict = self._judge(now)
        if verdict.allowed:
            self.active += 1
            self.peak = max(self.peak, self.active)
        return verdict

    def release(self) -> None:
        """Note that a request which was let through is over."""
        self.active -= 1

    def _judge(self, now: float) -> Verdict:
        if not self.scale:
            limit = self.windows[0].limit()
            return Verdict(allowed=True, limit=limit, remaining=limit, reset_seconds=MINUTE_SECONDS)
        sliding = self.sliding()
        verdicts = [window.look(now, scale=self.scale, sliding=sliding) for window in self.windows]
        worst = min(verdicts, key=lambda item: (item.allowed, item.remaining, -item.reset_seconds))
        if not worst.allowed:
            return replace(worst, violation="budget")
        if self.concurrency is not None and self.active >= self.concurrency:
            return replace(worst, allowed=False, reset_seconds=1.0, violation="concurrency")
        for window in self.windows:
            window.count(now)
        return replace(worst, remaining=worst.remaining - 1)
