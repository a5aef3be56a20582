"""Telling of what was refused without letting a flood of it flood the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twm_pipeline.webhooks.tally import Tally

logger = logging.getLogger(__name__)

QUIET_SECONDS = 60.0


class Refusals:
    """Logs the first refusal of each kind at once, and then a count each minute; the tally has them all.

    Args:
        tally: Where each is counted.
        clock: Seconds that only grow.
    """

    def __init__(self, tally: Tally, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._tally = tally
        self._clock = clock
        self._told: dict[tuple[int, str], float] = {}
        self._untold: dict[tuple[int, str], int] = {}

    def note(self, status: int, reason: str) -> None:
        """Log a refusal unless one of its kind was logged just now.

        Args:
            status: What the sender is answered.
            reason: One of a few fixed texts.
        """
        self._tally.refuse(status, reason)
        kind = (status, reason)
        count = self._untold.get(kind, 0) + 1
        now = self._clock()
        if now - self._told.get(kind, float("-inf")) < QUIET_SECONDS:
            self._untold[kind] = count
            return
        self._told[kind], self._untold[kind] = now, 0
        logger.warning("Refused with %d: %s (%d since the last such line)", status, reason, count)
