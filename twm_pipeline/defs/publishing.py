"""The two tables in Airtable as assets, the job that publishes them, and what starts it."""

from collections.abc import Iterator
from contextlib import contextmanager
from zoneinfo import ZoneInfo

import dagster as dg
from sqlalchemy import Connection

from twm_pipeline.airtable.fields import KEYS, Key
from twm_pipeline.defs.assets import DAILY_FRESHNESS
from twm_pipeline.defs.config import PublishConfig
from twm_pipeline.defs.failures import as_failures
from twm_pipeline.defs.interrupts import StopRequest, ending_gently
from twm_pipeline.defs.jobs import LONGEST_RUN_SECONDS, MAX_RUNTIME
from twm_pipeline.defs.places import links_of
from twm_pipeline.defs.report_ledger import ReportLedger, numbers_of, run_window
from twm_pipeline.defs.resources import MirrorResource, glance
from twm_pipeline.defs.sensors import INTERVAL_SECONDS, LEAD_SECONDS
from twm_pipeline.defs.tags import SOURCE
from twm_pipeline.defs.windows import runs_of, why_no_window, why_not, window_request
from twm_pipeline.errors import ConfigError, TwmError
from twm_pipeline.mirror.changelog import count_changes
from twm_pipeline.mirror.published import count_published, load_publication
from twm_pipeline.mirror.published_files import files_are_due
from twm_pipeline.mirror.set_aside import due_set_aside
from twm_pipeline.settings import Settings, load_settings
from twm_pipeline.sync.publish import PublishReport, why_stopped
from twm_pipeline.sync.publish_check import How
from twm_pipeline.sync.publish_files import FETCHED_AFTER, MOST_TRIES
from twm_pipeline.sync.publishing import PublishWindow

_SOURCES: dict[Key, tuple[str, ...]] = {
    "tasks": ("tasks", "projects", "tasklists", "people", "tags", "companies", "teams"),
    "emails": ("emails", "conversations"),
}
_DESCRIPTIONS: dict[Key, str] = {
    "tasks": "The table of tasks in Airtable, as `public.tasks` shows them; deleted ones are marked as such.",
    "emails": "The table of e-mails in Airtable, as `public.emails` shows them, a field for each category.",
}
CHECKS = {"twm/check": "airtable"}
"""Tag of the nightly runs that look at the base: they do not wait for a window's end, its holder looks."""
SUNDAY = 7
_HOW = (
    " Only rows that differ from what was last published are sent, ten a call, within five calls a second."
    " Nothing is published while DB_BACKEND is `postgres`."
)


def why_not_publishing(settings: Settings) -> str | None:
    """Return what to set before anything is published, or None if it can be."""
    if not settings.publishes:
        return "Publishing is switched off: DB_BACKEND is postgres; `both` publishes to Airtable."
    if not settings.can_publish:
        return "Publishing is switched off: set AIRTABLE_API_KEY and AIRTABLE_BASE_ID in .env."
    return None


def _spec(view: Key) -> dg.AssetSpec:
    vendor = "teamwork" if view == "tasks" else "missive"
    return dg.AssetSpec(
        key=["airtable", view],
        deps=[dg.AssetKey([vendor, stream]) for stream in _SOURCES[view]],
        group_name="airtable",
        description=_DESCRIPTIONS[view] + _HOW,
        kinds={"airtable"},
        owners=["team:operations"],
        skippable=True,
        freshness_policy=DAILY_FRESHNESS,
        metadata=links_of("airtable"),
    )


@dg.multi_asset(
    name="airtable_window",
    specs=[_spec(view) for view in KEYS],
    can_subset=True,
    required_resource_keys={"mirror"},
    description="Publishes what differs once, or listens for changes during a window.",
)
def airtable_assets(
    context: dg.AssetExecutionContext, config: PublishConfig
) -> Iterator[dg.MaterializeResult[None]]:
    """Publish the selected tables."""
    mirror: MirrorResource = context.resources.mirror
    results: list[dg.MaterializeResult[None]] = []
    with ending_gently() as stop, as_failures(context):
        settings = mirror.settings()
        if (reason := why_not_publishing(settings)) is not None:
            context.log.warning(reason)
            return
        selected = {key.path[-1] for key in context.selected_asset_keys}
        views = tuple(view for view in KEYS if view in selected)
        with mirror.opened(context.log) as engine:
            window = PublishWindow(
                engine=engine,
                settings=settings,
                seconds=config.window_seconds,
                views=views,
                resume=config.resume,
                check=config.to_check(),
            )
            results = _publish(context, window, stop)
    yield from results


airtable_publish = dg.define_asset_job(
    "airtable_publish",
    selection=dg.AssetSelection.assets(*(["airtable", view] for view in KEYS)).without_checks(),
    description=(
        "Sends to Airtable what differs from what was published last. The sensor opens a window when rows"
        " have changed; it then wakes for each change. Started by hand it is one look at everything that"
        " changed. In the launchpad `check` looks whether the base still holds what was sent and writes"
        " again what does not; `resume` goes on after a used-up monthly quota. No vendor is asked, and an"
        " Airtable that does not answer holds up nothing else."
    ),
    metadata=links_of("airtable"),
    tags={MAX_RUNTIME: str(LONGEST_RUN_SECONDS), SOURCE: "airtable"},
    executor_def=dg.in_process_executor,
)


def _publish(
    context: dg.AssetExecutionContext, window: PublishWindow, stop: StopRequest
) -> list[dg.MaterializeResult[None]]:
    """Run *window* to its end; return the last materialization of each table."""

    def log(view: Key, figures: PublishReport) -> None:
        metadata = _metadata(window, view, figures)
        context.log_event(dg.AssetMaterialization(asset_key=["airtable", view], metadata=metadata))

    ledger = ReportLedger(
        window.views,
        make=PublishReport,
        changed=lambda report: bool(report.written or report.set_aside),
        log=log,
    )

    def on_report(reports: dict[Key, PublishReport]) -> None:
        ledger.note_reports(reports)
        for view, report in reports.items():
            for problem in report.problems:
                context.log.warning("airtable/%s: %s", view, problem)

    window.on_report, window.on_commit = on_report, ledger.note_commit
    ran = run_window(window, ledger, stop)
    if window.check is not None:
        _tell_found(context, window)
    if not ran:
        context.log.info("Another process publishes already; it also does what this run was to do.")
        return []
    return [
        dg.MaterializeResult(asset_key=["airtable", view], metadata=_metadata(window, view, figures))
        for view, figures in ledger.close().items()
    ]


def _metadata(window: PublishWindow, view: Key, figures: PublishReport) -> dict[str, int | float]:
    with window.engine.connect() as connection:
        records = count_published(connection, str(window.settings.airtable_base_id), view)
    numbers = {name: round(value, 3) for name, value in numbers_of(figures).items()}
    return {"dagster/row_count": records, **numbers}


def _tell_found(context: dg.AssetExecutionContext, window: PublishWindow) -> None:
    """Log what the look at the base found, whoever took it."""
    base = str(window.settings.airtable_base_id)
    with window.engine.connect() as connection:
        found = {view: load_publication(connection, base, view).check_found for view in window.views}
    for view, figures in found.items():
        context.log_event(
            dg.AssetObservation(
                asset_key=["airtable", view],
                description="What a look at the base found.",
                metadata={name: value for name, value in (figures or {}).items() if value is not None},
            )
        )


@dg.sensor(
    name="airtable_publish_sensor",
    job=airtable_publish,
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Opens a window that publishes to Airtable when rows have changed, or when something is to be"
    " tried again, and none is open.",
)
def airtable_publish_sensor(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Look for changes to publish."""
    settings = load_settings()
    if (reason := why_not_publishing(settings)) is not None:
        return dg.SkipReason(reason)
    waiting, reason = _look(settings)
    if reason is not None:
        return dg.SkipReason(reason)
    busy = why_no_window(context.instance, settings, "airtable", lead_seconds=LEAD_SECONDS)
    if busy is not None:
        return dg.SkipReason(f"{waiting} {busy}")
    return window_request(settings, "airtable")


@contextmanager
def _mirror(settings: Settings) -> Iterator[Connection]:
    """Give a connection to a mirror that publishing has tables in.

    Raises:
        TwmError: Why there is none.
    """
    with glance(settings, "twm.publications") as connection:
        if connection is None:
            msg = "Nothing has been read yet; there is nothing to publish."
            raise ConfigError(msg)
        yield connection


def _look(settings: Settings) -> tuple[str, str | None]:
    """Return what waits to be published, in words, and why nothing is to be done about it."""
    base = str(settings.airtable_base_id)
    try:
        with _mirror(settings) as connection:
            if (reason := why_stopped(connection, settings)) is not None:
                return "", reason
            if not all(load_publication(connection, base, view).is_compared for view in KEYS):
                return "Everything is to be compared with what was published.", None
            count = sum(count_changes(connection, view) for view in KEYS)
            if not count and _is_due(connection, base):
                return "What Airtable did not take is to be tried again, or files to be looked at.", None
    except TwmError as error:
        return "", str(error)
    if not count:
        return "", "Everything that changed is published."
    return f"{count} changes wait to be published.", None


def _is_due(connection: Connection, base: str) -> bool:
    """Return whether the time of something has come that no change will tell of."""
    return any(due_set_aside(connection, "airtable", view, limit=1) for view in KEYS) or files_are_due(
        connection, base, older_than=FETCHED_AFTER, most_tries=MOST_TRIES
    )


@dg.schedule(
    name="airtable_check_schedule",
    job=airtable_publish,
    cron_schedule="47 3 * * *",
    execution_timezone=load_settings().timezone,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Compares every row with what was published, then a sample of Airtable's records, on Sundays"
    " all of them; what is gone or was changed is written again.",
)
def airtable_check_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Request a look at the base unless nothing is published, or nothing may be asked."""
    settings = load_settings()
    if (reason := why_not_publishing(settings) or _why_not_checking(settings)) is not None:
        return dg.SkipReason(reason)
    if (busy := why_not(runs_of(context.instance, airtable_publish.name, tags=CHECKS))) is not None:
        return dg.SkipReason(busy)
    night = context.scheduled_execution_time.astimezone(ZoneInfo(settings.timezone))
    check: How = "whole" if night.isoweekday() == SUNDAY else "sample"
    return dg.RunRequest(run_config={"ops": {"airtable_window": {"config": {"check": check}}}}, tags=CHECKS)


def _why_not_checking(settings: Settings) -> str | None:
    """Return why the base is not looked at, or None."""
    base = str(settings.airtable_base_id)
    try:
        with _mirror(settings) as connection:
            if (reason := why_stopped(connection, settings)) is not None:
                return reason
            is_published = any(count_published(connection, base, view) for view in KEYS)
    except TwmError as error:
        return str(error)
    return None if is_published else "Nothing has been published yet; there is nothing to look at."
