"""The pictures of insights that the page shows, and what each says to whoever does not see it."""

from __future__ import annotations

from collections.abc import Mapping

PLOTS: Mapping[str, str] = {
    "daily_activity": (
        "Lines over the last 90 days: tasks created and completed a day, messages received and sent a day."
        " The numbers are in the table insights.daily_activity."
    ),
    "response_times": (
        "Bars: how many conversations had their first reply after how many business hours. A line: the"
        " median of each week. The numbers are in the table insights.response_times."
    ),
    "task_flow": (
        "Bars: open and overdue tasks by age. A line: the median cycle time of the tasks completed in each"
        " week. The numbers are in the table insights.task_flow."
    ),
}
"""Name in `insights.plots` → its words."""
