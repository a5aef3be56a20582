"""Insights as assets: what the mirror tells about the work, computed every night and on demand."""

import base64
from collections.abc import Callable, Iterator

import dagster as dg
from sqlalchemy import Engine

from twm_pipeline.defs.assets import DAILY_FRESHNESS, OWNERS
from twm_pipeline.defs.failures import as_failures
from twm_pipeline.defs.interrupts import ending_gently
from twm_pipeline.defs.jobs import MAX_RUNTIME
from twm_pipeline.defs.places import links_of
from twm_pipeline.defs.resources import MirrorResource, glance
from twm_pipeline.defs.windows import request_unless_busy, runs_of, why_not
from twm_pipeline.errors import TwmError
from twm_pipeline.insights.result import Insight
from twm_pipeline.mirror.insights import list_plots
from twm_pipeline.mirror.status import first_imports
from twm_pipeline.settings import Settings, load_settings
from twm_pipeline.sync.accounts import configured_sources

LONGEST_SECONDS = 3600
NOTHING = "Nothing is set up yet, so there is nothing to compute from."
THERE = "The insights are there; the schedule computes them anew every morning."
LOOK_SECONDS = 30

_INSIGHTS: dict[str, tuple[tuple[str, ...], str]] = {
    "daily_activity": (
        ("teamwork/tasks", "teamwork/projects", "teamwork/people", "missive/emails", "missive/conversations"),
        "What happened on each day of TIMEZONE: tasks created, completed and reopened, mails in and out; in"
        " all, and per project, person and category. `dimension` says which of these a row is.",
    ),
    "response_times": (
        ("missive/emails", "missive/conversations"),
        "How long whoever wrote to us waited for the first reply, a row for each conversation: in all, and in"
        " BUSINESS_HOURS. Without a reply `replied_at` is empty.",
    ),
    "task_flow": (
        ("teamwork/tasks", "teamwork/projects"),
        "How old open tasks are, how long completed ones took, and what is or was overdue: a row for each.",
    ),
}


def _spec(name: str) -> dg.AssetSpec:
    sources, description = _INSIGHTS[name]
    return dg.AssetSpec(
        key=["insights", name],
        deps=[dg.AssetKey(source.split("/")) for source in sources],
        group_name="insights",
        description=description + " Made from what people see: no deleted or hidden row counts.",
        kinds={"pandas", "postgres"},
        owners=OWNERS,
        skippable=True,
        freshness_policy=DAILY_FRESHNESS,
        metadata={"dagster/table_name": f"insights.{name}", **links_of()},
    )


@dg.multi_asset(
    name="insights_tables",
    specs=[_spec(name) for name in _INSIGHTS],
    can_subset=True,
    required_resource_keys={"mirror"},
    description="Computes tables and plots from the mirror; no vendor is asked.",
)
def insight_assets(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None]]:
    """Compute the selected insights."""
    mirror: MirrorResource = context.resources.mirror
    selected = {key.path[-1] for key in context.selected_asset_keys}
    with ending_gently() as stop, as_failures(context):
        settings = mirror.settings()
        with mirror.opened(context.log) as engine:
            for name, compute in _computations().items():
                if name in selected:
                    stop.check()
                    yield _result(compute(engine, settings))


def _computations() -> dict[str, Callable[[Engine, Settings], Insight]]:
    # pandas takes most of a second, and every run of every job loads this module.
    from twm_pipeline.insights.daily import daily_activity  # noqa: PLC0415
    from twm_pipeline.insights.flow import task_flow  # noqa: PLC0415
    from twm_pipeline.insights.responses import response_times  # noqa: PLC0415

    return {"daily_activity": daily_activity, "response_times": response_times, "task_flow": task_flow}


def _result(insight: Insight) -> dg.MaterializeResult[None]:
    picture = base64.b64encode(insight.png).decode()
    return dg.MaterializeResult(
        asset_key=["insights", insight.name],
        metadata={
            "dagster/row_count": insight.rows,
            "written": insight.written,
            **insight.figures,
            "plot": dg.MetadataValue.md(f"![{insight.name}](data:image/png;base64,{picture})"),
        },
    )


insights = dg.define_asset_job(
    "insights",
    selection=dg.AssetSelection.assets(*(["insights", name] for name in _INSIGHTS)),
    description=(
        "Computes tables and plots about the work, every morning and on demand: what happened each day, how"
        " long people wait for a reply, how tasks flow. Everything is computed anew from the mirror, and only"
        " rows that differ are written; no vendor is asked."
    ),
    metadata=links_of(),
    tags={MAX_RUNTIME: str(LONGEST_SECONDS)},
    executor_def=dg.in_process_executor,
)


@dg.schedule(
    name="insights_schedule",
    job=insights,
    cron_schedule="41 5 * * *",
    execution_timezone=load_settings().timezone,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Computes the insights every morning, after the nightly sweep.",
)
def insights_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Request the insights unless they are computed just now or nothing is set up."""
    if not configured_sources(load_settings()):
        return dg.SkipReason(NOTHING)
    return request_unless_busy(context.instance, insights.name)


@dg.sensor(
    name="first_insights_sensor",
    job=insights,
    minimum_interval_seconds=LOOK_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Computes the insights once, as soon as the first import is complete: nobody has to wait for"
    " the first morning.",
)
def first_insights_sensor(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Request the first insights; once for each first import, should they fail."""
    settings = load_settings()
    if not configured_sources(settings):
        return dg.SkipReason(NOTHING)
    try:
        key, reason = _look(settings)
    except TwmError as error:
        return dg.SkipReason(str(error))
    reason = reason or why_not(runs_of(context.instance, insights.name))
    return dg.RunRequest(run_key=key) if reason is None else dg.SkipReason(reason)


def _look(settings: Settings) -> tuple[str, str | None]:
    """Return a name of the first import, and why its insights are not to be computed now, or None.

    Raises:
        DatabaseUnavailableError: If PostgreSQL does not answer.
    """
    with glance(settings, "insights.plots") as connection:
        if connection is None:
            return "", "Nothing has been read yet."
        if list_plots(connection):
            return "", THERE
        imports = first_imports(connection, configured_sources(settings))
    running = [source.capitalize() for source, began in imports.items() if began is None]
    key = " ".join(f"{source} {began:%Y-%m-%dT%H:%M:%S}" for source, began in imports.items() if began)
    return key, f"The first import of {' and '.join(running)} is not complete yet." if running else None
