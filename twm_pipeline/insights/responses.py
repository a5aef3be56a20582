"""`insights.response_times`: how long whoever wrote first waited for the first reply of each conversation.

Measured from the first message from outside to the first of ours after it, in all and in business hours
(`BUSINESS_HOURS` in `TIMEZONE`). Drafts, deleted and hidden messages do not count. A conversation without a
reply has none; one that we began counts from the first answer we got.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from twm_pipeline.insights import plots
from twm_pipeline.insights.hours import BusinessHours
from twm_pipeline.insights.result import Insight
from twm_pipeline.mirror.insights import Replacement, first_replies, save_plot

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from sqlalchemy import Engine

    from twm_pipeline.settings import Settings

READ = ("thread_id", "asked_at", "replied_at", "replied_by_id", "replied_by")
COLUMNS = (*READ, "seconds", "business_seconds")
HOUR = 3600.0
DAY_OF_BUSINESS_HOURS = 24
WEEKS_SHOWN = 26


def response_times(engine: Engine, settings: Settings) -> Insight:
    """Compute and store the table and its plot."""
    hours = BusinessHours.of(settings)
    parts: list[pd.DataFrame] = []
    rows = 0
    with engine.begin() as connection, engine.connect() as reading:
        replacement = Replacement(connection, "response_times", COLUMNS, key=1)
        for part in first_replies(reading):
            frame = measure(part, hours=hours)
            replacement.add(_plain(frame))
            rows += len(frame)
            parts.append(_answered(frame))
        written = replacement.finish()
        answered = pd.concat(parts) if parts else _answered(measure([], hours=hours))
        png = plot(answered)
        save_plot(connection, "response_times", png)
    figures: dict[str, float] = {"conversations": rows, "replied": len(answered)}
    if len(answered):
        figures["median_business_hours"] = round(float(answered["business_seconds"].median()) / HOUR, 2)
    return Insight(name="response_times", rows=rows, written=written, png=png, figures=figures)


def measure(rows: Sequence[Any], *, hours: BusinessHours) -> pd.DataFrame:
    """Return the table of threads with their waits, in seconds; none where nobody replied."""
    frame = pd.DataFrame(list(rows), columns=list(READ), dtype=object)
    frame["seconds"], frame["business_seconds"] = None, None
    replied = frame[frame["replied_at"].notna()]
    asked_at, replied_at = list(replied["asked_at"]), list(replied["replied_at"])
    waits = [(end - start).total_seconds() for start, end in zip(asked_at, replied_at, strict=True)]
    frame.loc[replied.index, "seconds"] = waits
    frame.loc[replied.index, "business_seconds"] = hours.between(asked_at, replied_at)
    return frame


def _answered(frame: pd.DataFrame) -> pd.DataFrame:
    """Return what the plot needs of the threads that have a reply, in few bytes a row."""
    replied = frame[frame["replied_at"].notna()]
    asked = pd.to_datetime(replied["asked_at"], utc=True)
    return pd.DataFrame({"asked_at": asked, "business_seconds": replied["business_seconds"].astype(float)})


def _plain(frame: pd.DataFrame) -> list[tuple[Any, ...]]:
    """Return the rows with None, not NaN, for what is unknown."""
    return list(frame.astype(object).where(frame.notna(), None).itertuples(index=False, name=None))


def plot(answered: pd.DataFrame) -> bytes:
    """Return a picture: how long replies take on the left, how that changed on the right."""
    figure, (shares, weeks) = plots.new_figure(panels=2)
    if answered.empty:
        plots.say_empty(shares)
        plots.say_empty(weeks)
    else:
        waits = answered["business_seconds"] / HOUR
        shown = (0, DAY_OF_BUSINESS_HOURS)
        shares.hist(waits.clip(upper=shown[1]), bins=24, range=shown, color=plots.BLUE)
        weekly = waits.groupby(plots.week_of(answered["asked_at"])).median().tail(WEEKS_SHOWN)
        weeks.plot(weekly.index, weekly, color=plots.ORANGE, marker="o", markersize=3, linewidth=1.6)
        weeks.set_ylim(bottom=0)
        weeks.tick_params(axis="x", rotation=30)
    plots.label(shares, "Business hours to the first reply", y="conversations", x="hours (24: or more)")
    plots.label(weeks, "Median of each week", y="business hours")
    return plots.to_png(figure)
