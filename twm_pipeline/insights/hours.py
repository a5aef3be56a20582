"""Business hours: how much of a span of time somebody was there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import numpy as np

from twm_pipeline.settings import BUSINESS_HOURS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from twm_pipeline.settings import Settings

DAYS = ("Mo", "Tu", "We", "Th", "Fr", "Sa", "Su")


@dataclass(frozen=True, slots=True, kw_only=True)
class BusinessHours:
    """Opening hours, alike on certain days of the week, by the clock on the wall.

    Args:
        weekdays: 0 for Monday to 6 for Sunday.
        opens: After midnight.
        closes: After midnight; a day long: at the next midnight.
        zone: Whose clock.
    """

    weekdays: frozenset[int]
    opens: timedelta
    closes: timedelta
    zone: ZoneInfo

    @classmethod
    def of(cls, settings: Settings) -> BusinessHours:
        """Return the hours that the settings name: in OpenStreetMap's notation."""
        found = BUSINESS_HOURS.fullmatch(settings.business_hours)
        assert found is not None, "the settings have checked it"  # noqa: S101
        first, last = DAYS.index(found[1]), DAYS.index(found[2] or found[1])
        days = range(first, last + 1) if first <= last else (*range(first, 7), *range(last + 1))
        opens, closes = (timedelta(hours=int(found[n]), minutes=int(found[n + 1])) for n in (3, 5))
        return cls(weekdays=frozenset(days), opens=opens, closes=closes, zone=ZoneInfo(settings.timezone))

    def between(self, starts: Sequence[datetime], ends: Sequence[datetime]) -> NDArray[np.float64]:
        """Return the seconds of business between each start and its end, both aware.

        What the clock on the wall says decides when it opens; how long it is open is measured: a day on which
        clocks change has an hour less or more only where that hour lies within the business hours.
        """
        if not starts:
            return np.zeros(0)
        begins, finishes = (np.array([moment.timestamp() for moment in side]) for side in (starts, ends))
        moments, seconds = self._curve(min(*begins, *finishes), max(*begins, *finishes))
        return np.asarray(np.interp(finishes, moments, seconds) - np.interp(begins, moments, seconds))

    def _curve(self, first: float, last: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return instants at which it opens or closes, and the seconds of business up to each."""
        day = datetime.fromtimestamp(first, self.zone).date() - timedelta(days=1)
        until = datetime.fromtimestamp(last, self.zone).date() + timedelta(days=1)
        moments, seconds = [self._instant(day, timedelta(0))], [0.0]
        while day <= until:
            if day.weekday() in self.weekdays:
                opens, closes = self._instant(day, self.opens), self._instant(day, self.closes)
                moments += [opens, closes]
                seconds += [seconds[-1], seconds[-1] + max(closes - opens, 0.0)]
            day += timedelta(days=1)
        return np.maximum.accumulate(np.array(moments)), np.array(seconds)

    def _instant(self, day: date, offset: timedelta) -> float:
        """Return the Unix time at which the clock on the wall shows *offset* after midnight of *day*."""
        local = datetime.combine(day, time(), tzinfo=None) + offset
        return local.replace(tzinfo=self.zone).astimezone(UTC).timestamp()
