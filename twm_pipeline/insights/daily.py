"""`insights.daily_activity`: what happened on each day, in all and per project, person and category.

A day is one of `TIMEZONE`. A task counts on the day it was created, and on the day it was completed while it
is completed; one that was reopened counts on each day on which the mirror saw that. A message counts on the
day it was delivered or sent: one that a Missive user wrote is outgoing, any other incoming.
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import pandas as pd

from twm_pipeline.insights import plots
from twm_pipeline.insights.result import Insight
from twm_pipeline.mirror.insights import Replacement, count_days, save_plot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Engine

    from twm_pipeline.mirror.insights import Count
    from twm_pipeline.settings import Settings

KEY = ("day", "dimension", "key")
MEASURES = ("tasks_created", "tasks_completed", "tasks_reopened", "mails_in", "mails_out")
DAYS_SHOWN = 90


def daily_activity(engine: Engine, settings: Settings) -> Insight:
    """Compute and store the table and its plot."""
    with engine.begin() as connection:
        table = tabulate(count_days(connection, zone=settings.timezone))
        replacement = Replacement(connection, "daily_activity", [*KEY, "name", *MEASURES], key=len(KEY))
        replacement.add(table[[*KEY, "name", *MEASURES]].itertuples(index=False, name=None))
        written = replacement.finish()
        days = table[table["dimension"] == "all"].set_index("day")
        png = plot(days)
        save_plot(connection, "daily_activity", png)
    return Insight(name="daily_activity", rows=len(table), written=written, png=png, figures=_figures(days))


def tabulate(counts: Sequence[Count]) -> pd.DataFrame:
    """Return a row for each day, dimension and key, a column for each measure, zeros where nothing was."""
    frame = pd.DataFrame(counts, columns=["day", "what", "dimension", "key", "name", "count"])
    if frame.empty:
        return pd.DataFrame(columns=[*KEY, "name", *MEASURES])
    names = frame.dropna(subset="name").groupby(["dimension", "key"])["name"].first()
    wide = frame.pivot_table(index=list(KEY), columns="what", values="count", aggfunc="sum", fill_value=0)
    wide = wide.reindex(columns=list(MEASURES), fill_value=0).astype(int).reset_index()
    wide = wide.merge(names.reset_index(), how="left", on=["dimension", "key"])
    wide["name"] = wide["name"].astype(object).where(wide["name"].notna(), None)
    return wide.sort_values(list(KEY), ignore_index=True)


def _figures(days: pd.DataFrame) -> dict[str, float]:
    """Return the sums of the last seven days that something is known of."""
    last = days.sort_index().tail(7)
    return {f"{name}_7_days": int(last[name].sum()) for name in MEASURES}


def plot(days: pd.DataFrame) -> bytes:
    """Return a picture of the last days: tasks on the left, mails on the right."""
    figure, (tasks, mails) = plots.new_figure(panels=2)
    if days.empty:
        plots.say_empty(tasks)
        plots.say_empty(mails)
    else:
        shown = _every_day(days)
        for axis, names in (
            (tasks, ("tasks_created", "tasks_completed")),
            (mails, ("mails_in", "mails_out")),
        ):
            for name, colour in zip(names, (plots.BLUE, plots.ORANGE), strict=True):
                weekly = shown[name].rolling(7, min_periods=1).mean()
                axis.bar(shown.index, shown[name], color=colour, alpha=0.3, width=1.0)
                axis.plot(shown.index, weekly, color=colour, label=name.partition("_")[2], linewidth=1.6)
            axis.tick_params(axis="x", rotation=30)
    plots.label(tasks, "Tasks a day, and the mean of a week", y="tasks")
    plots.label(mails, "Mails a day, and the mean of a week", y="mails")
    return plots.to_png(figure)


def _every_day(days: pd.DataFrame) -> pd.DataFrame:
    """Return the last days, those without anything among them."""
    last: date = max(days.index)
    span = pd.date_range(end=pd.Timestamp(last), periods=DAYS_SHOWN)
    known = days[list(MEASURES)].copy()
    known.index = pd.to_datetime(known.index)
    return known.reindex(span, fill_value=0)
