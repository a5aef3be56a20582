"""`insights.task_flow`: how old open tasks are, how long completed ones took, what is overdue.

An open task is overdue after the day it was due in `TIMEZONE`; a completed one was, if it was completed after
that day. The age is that of an open task; the cycle is the time from its creation to its completion.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from twm_pipeline.insights import plots
from twm_pipeline.insights.result import Insight
from twm_pipeline.mirror.insights import Replacement, save_plot, task_rows

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from sqlalchemy import Engine

    from twm_pipeline.settings import Settings

READ = ("task_id", "project_id", "project_name", "status", "created_at", "completed_at", "due_at")
COLUMNS = (*READ, "age_days", "cycle_days", "overdue", "overdue_days")
DAY_SECONDS = 86_400.0
AGES = ((7, "a week"), (30, "a month"), (90, "3 months"), (365, "a year"), (float("inf"), "longer"))
WEEKS_SHOWN = 26


def task_flow(engine: Engine, settings: Settings, *, now: datetime | None = None) -> Insight:
    """Compute and store the table and its plot.

    Args:
        engine: The mirror.
        settings: The deployment's settings.
        now: The instant up to which open tasks age; the present one unless a test says otherwise.
    """
    now, zone = now or datetime.now(UTC), ZoneInfo(settings.timezone)
    kept: list[pd.DataFrame] = []
    rows = 0
    with engine.begin() as connection, engine.connect() as reading:
        replacement = Replacement(connection, "task_flow", COLUMNS, key=1)
        for part in task_rows(reading):
            frame = measure(part, now=now, zone=zone)
            plain = frame.astype(object).where(frame.notna(), None)
            replacement.add(plain.itertuples(index=False, name=None))
            rows += len(frame)
            kept.append(_seen(frame))
        written = replacement.finish()
        flow = pd.concat(kept) if kept else _seen(measure([], now=now, zone=zone))
        png = plot(flow)
        save_plot(connection, "task_flow", png)
    is_open = flow["completed_at"].isna()
    figures: dict[str, float] = {
        "open": int(is_open.sum()),
        "overdue": int((is_open & flow["overdue"]).sum()),
    }
    if flow["cycle_days"].notna().any():
        figures["median_cycle_days"] = round(float(flow["cycle_days"].median()), 2)
    return Insight(name="task_flow", rows=rows, written=written, png=png, figures=figures)


def _seen(frame: pd.DataFrame) -> pd.DataFrame:
    """Return what figures and plot need, in few bytes a row."""
    return pd.DataFrame(
        {
            "completed_at": pd.to_datetime(frame["completed_at"], utc=True),
            "age_days": frame["age_days"].astype(float),
            "cycle_days": frame["cycle_days"].astype(float),
            "overdue": frame["overdue"].astype(bool),
        }
    )


def measure(rows: Sequence[Any], *, now: datetime, zone: ZoneInfo) -> pd.DataFrame:
    """Return the table of tasks with their ages, cycles and what is overdue, in days."""
    frame = pd.DataFrame(list(rows), columns=list(READ), dtype=object)
    created = pd.to_datetime(frame["created_at"], utc=True)
    # Where nothing is completed yet pandas would choose a coarser unit, into which the present does not fit.
    completed = pd.to_datetime(frame["completed_at"], utc=True).astype("datetime64[us, UTC]")
    is_open = completed.isna()
    age, cycle = ((until - created).dt.total_seconds() / DAY_SECONDS for until in (now, completed))
    frame["age_days"] = age.where(is_open).clip(lower=0).round(3)
    frame["cycle_days"] = cycle.clip(lower=0).round(3)
    ended = completed.fillna(pd.Timestamp(now).as_unit("us")).dt.tz_convert(zone)
    ended = ended.dt.tz_localize(None).dt.normalize()
    late = (ended - pd.to_datetime(frame["due_at"])).dt.days
    frame["overdue"] = np.asarray(late > 0, dtype=bool)
    frame["overdue_days"] = late.where(late > 0).astype("Int64")
    return frame


def plot(flow: pd.DataFrame) -> bytes:
    """Return a picture: ages of open tasks on the left, cycle times on the right."""
    figure, (ages, cycles) = plots.new_figure(panels=2)
    is_open = flow["completed_at"].isna()
    if is_open.any():
        edges = [0.0, *(edge for edge, _ in AGES)]
        late = is_open & flow["overdue"]
        for chosen, word, colour in ((is_open, "open", plots.BLUE), (late, "overdue", plots.ORANGE)):
            counts, _ = np.histogram(flow.loc[chosen, "age_days"].dropna(), bins=edges)
            ages.bar([name for _, name in AGES], counts, color=colour, label=word, width=0.7)
    else:
        plots.say_empty(ages)
    done = flow[flow["cycle_days"].notna()]
    if len(done):
        weekly = done["cycle_days"].groupby(plots.week_of(done["completed_at"])).median().tail(WEEKS_SHOWN)
        cycles.plot(weekly.index, weekly, color=plots.GREEN, marker="o", markersize=3, linewidth=1.6)
        cycles.set_ylim(bottom=0)
        cycles.tick_params(axis="x", rotation=30)
    else:
        plots.say_empty(cycles)
    plots.label(ages, "Open tasks by age", y="tasks", x="up to")
    plots.label(cycles, "Median cycle time of tasks completed in a week", y="days")
    return plots.to_png(figure)
