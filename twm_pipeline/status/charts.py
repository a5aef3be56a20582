"""A day as bars: the places of an SVG, computed here so that the page needs no script to draw it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

WIDTH = 480
HEIGHT = 72
GAP = 3
LEAST_HEIGHT = 2.0
"""An hour with one change among thousands is still to be seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One hour.

    Args:
        x: Left edge.
        y: Upper edge.
        width: Of the bar.
        height: Of the bar; 0 where nothing happened.
        hour: When it began, in the operator's zone.
        count: What happened.
    """

    x: float
    y: float
    width: float
    height: float
    hour: datetime
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Bars in a frame of `width` by `height`, and what a caption says of them."""

    bars: tuple[Bar, ...]
    highest: int
    total: int
    width: int = WIDTH
    height: int = HEIGHT


def draw_hours(counts: Sequence[int], *, now: datetime, zone: ZoneInfo) -> Chart:
    """Return the chart of *counts* an hour, of which the last is the hour of *now* (aware)."""
    highest = max(counts, default=0)
    step = WIDTH / max(len(counts), 1)
    this_hour = now.replace(minute=0, second=0, microsecond=0)
    bars = []
    for place, count in enumerate(counts):
        height = max(LEAST_HEIGHT, HEIGHT * count / highest) if count else 0.0
        hour = this_hour - timedelta(hours=len(counts) - 1 - place)
        bars.append(
            Bar(
                x=round(place * step + GAP / 2, 2),
                y=round(HEIGHT - height, 2),
                width=round(step - GAP, 2),
                height=round(height, 2),
                hour=hour.astimezone(zone),
                count=count,
            )
        )
    return Chart(bars=tuple(bars), highest=highest, total=sum(counts))
