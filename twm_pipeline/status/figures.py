"""One source of figures for `twm status`, the status page and the metrics.

Nothing of it is personal: ids, counts, instants, and reasons in our own words or the vendor's.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from twm_pipeline.airtable.client import budget_plan as airtable_plan
from twm_pipeline.mirror.activity import read_written
from twm_pipeline.mirror.attachments import read_attachments
from twm_pipeline.mirror.insights import list_plots
from twm_pipeline.mirror.status import (
    count_requests,
    count_tables,
    read_budgets,
    read_publishing,
    read_status,
    unread_status,
)
from twm_pipeline.records import SOURCES, Json, Source
from twm_pipeline.sources import missive, teamwork
from twm_pipeline.status.deliveries import read_disk, read_spool
from twm_pipeline.status.findings import find
from twm_pipeline.status.receiver import read_receiver
from twm_pipeline.sync.accounts import configured_sources
from twm_pipeline.sync.publish import why_stopped
from twm_pipeline.sync.window_lock import holds_window

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from twm_pipeline.budget import Plan
    from twm_pipeline.settings import Settings

PLANS: dict[Source, Callable[[Settings], Plan]] = {
    "teamwork": teamwork.budget_plan,
    "missive": missive.budget_plan,
}


def count_everything(connection: Connection, settings: Settings) -> Json:
    """Return what takes seconds where there are millions of rows: counts of rows, of records, of files."""
    airtable = None
    if settings.publishes and settings.can_publish:
        airtable = read_publishing(connection, str(settings.airtable_base_id))
    return {
        "tables": count_tables(connection),
        "written": read_written(connection),
        "airtable": airtable,
        "attachments": {**read_attachments(connection), "store": settings.attachments_store},
    }


def read_figures(
    connection: Connection,
    settings: Settings,
    *,
    count: Callable[[Connection, Settings], Json] = count_everything,
) -> Json:
    """Return everything that is known of the deployment, and what of it needs attention.

    Args:
        connection: To the mirror.
        settings: Of the deployment.
        count: Returns what `count_everything` does, perhaps of a while ago.

    Raises:
        sqlalchemy.exc.DBAPIError: If PostgreSQL does not answer.
    """
    counts = count(connection, settings)
    mirrored = [
        {
            **read_status(
                connection, source, tables=[row for row in counts["tables"] if row["source"] == source]
            ),
            "written": counts["written"].get(source, {}),
            "window_open": holds_window(connection, source),
        }
        for source in SOURCES
    ]
    for item in mirrored:
        plan = PLANS[item["source"]](settings)
        _add_limits(connection, item["budgets"], plan, pace=settings.budget_time_scale)
    figures = _with_local(settings, mirrored)
    figures["attachments"] = counts["attachments"]
    figures["plots"] = list_plots(connection)
    if counts["airtable"]:
        figures["airtable"] = {**counts["airtable"], **_read_publishing(connection, settings)}
    return _judged(figures)


def read_local_figures(settings: Settings, *, problem: str) -> Json:
    """Return what is known without PostgreSQL: the spool and the receiver go on without it.

    Args:
        settings: Of the deployment.
        problem: Why the mirror cannot be asked.
    """
    unread = [{**unread_status(source), "written": {}, "window_open": False} for source in SOURCES]
    return _judged({**_with_local(settings, unread), "problem": problem})


def _with_local(settings: Settings, mirrored: list[Json]) -> Json:
    configured = configured_sources(settings)
    sources = [
        {**item, "configured": item["source"] in configured, "spool": read_spool(settings, item["source"])}
        for item in mirrored
    ]
    return {
        "taken_at": datetime.now(UTC),
        "problem": None,
        "sources": sources,
        "receiver": read_receiver(settings),
        "disk": read_disk(settings),
        "attachments": None,
        "airtable": None,
        "plots": [],
    }


def _judged(figures: Json) -> Json:
    return {**figures, "findings": [asdict(finding) for finding in find(figures)]}


def _add_limits(connection: Connection, budgets: list[Json], plan: Plan, *, pace: float) -> None:
    """Add to the account's budget what the vendor allows, and how much of it is used.

    Args:
        connection: To the mirror.
        budgets: Of which that of the plan's account is added to.
        plan: What the vendor allows, in seconds of its own clock.
        pace: How much faster than documented that clock runs; the windows are told as documented.
    """
    for budget in budgets:
        mine = budget["account"] == plan.account
        budget["windows"] = [
            {
                "seconds": round(limit.seconds * pace, 6),
                "requests": limit.requests,
                "used": count_requests(connection, plan.account, seconds=limit.seconds),
            }
            for limit in plan.limits
            if mine
        ]


def _read_publishing(connection: Connection, settings: Settings) -> Json:
    """Return how publishing stands at this moment."""
    budgets = read_budgets(connection, "airtable")
    _add_limits(connection, budgets, airtable_plan(settings), pace=settings.budget_time_scale)
    return {
        "monthly_calls": settings.airtable_monthly_calls,
        "stopped": why_stopped(connection, settings),
        "window_open": holds_window(connection, "airtable"),
        "budgets": budgets,
    }
