"""The mirror's tables as assets: one multi-asset a vendor, whose op runs the window (DESIGN D2)."""

from collections.abc import Iterable, Iterator
from datetime import timedelta

import dagster as dg

from twm_pipeline.defs.columns import column_schema
from twm_pipeline.defs.config import SyncConfig
from twm_pipeline.defs.failures import as_failures
from twm_pipeline.defs.figures import Figures
from twm_pipeline.defs.interrupts import StopRequest, ending_gently
from twm_pipeline.defs.ledger import Interval, Ledger
from twm_pipeline.defs.places import links_of
from twm_pipeline.defs.resources import MirrorResource, VendorResource
from twm_pipeline.errors import WindowClosedError
from twm_pipeline.links import link_to_status_page
from twm_pipeline.mirror.tables import DIRECTORIES, MISSIVE_DIRECTORIES, STREAMS, THREADS, Table, table_of
from twm_pipeline.records import Source
from twm_pipeline.sync.engine import PassOptions, PassReport
from twm_pipeline.sync.window import Window

OWNERS = ["team:operations"]

STREAM_FRESHNESS = dg.FreshnessPolicy.time_window(
    warn_window=timedelta(minutes=10), fail_window=timedelta(minutes=30)
)
"""A window says every minute that a table was verified; between two windows there are seconds."""
DIRECTORY_FRESHNESS = dg.FreshnessPolicy.time_window(
    warn_window=timedelta(minutes=45), fail_window=timedelta(hours=2)
)
DAILY_FRESHNESS = dg.FreshnessPolicy.time_window(
    warn_window=timedelta(hours=26), fail_window=timedelta(hours=50)
)
"""What is made anew only when something changed is looked at once a night."""

DESCRIPTIONS = {
    "teamwork/tasks": (
        "Every task of the site, completed, private and deleted ones included. Read by what changed since"
        " the checkpoint; deleted ones by a feed of their own; restored ones by the site's activity. A"
        " deleted task stays as a row with `deleted`. People read it as the view `public.tasks`, with names"
        " instead of ids."
    ),
    "teamwork/projects": "Projects, archived ones included; tasks, time and comments are found under them.",
    "teamwork/tasklists": "Task lists; a task belongs to a project through its list.",
    "teamwork/people": "Users, collaborators, contacts: the names behind assignees and editors.",
    "teamwork/tags": "Tags of the site and of single projects; a task holds their ids.",
    "teamwork/companies": "Companies: owners of projects, sometimes assignees of tasks.",
    "teamwork/teams": "Teams and who belongs to them; a task may be assigned to one.",
    "teamwork/time_entries": (
        "Time that people logged, on a task or on a project alone. Read by what changed since the checkpoint;"
        " `logged_at` is UTC, so its day may be another one than the person's."
    ),
    "teamwork/task_comments": (
        "What people wrote on tasks (and on milestones, files and the like: `object_type`). Read by what"
        " changed since the checkpoint. A comment goes with its task when that is deleted, and comes back"
        " with it."
    ),
    "missive/conversations": (
        "Threads as the token's owner sees them: subject, assignees, shared labels, state. Walked newest"
        " first, mailbox by mailbox. Threads in the trash and merged ones stay as rows with `deleted`."
    ),
    "missive/emails": (
        "Messages of every channel with full bodies, as HTML and as readable text. Of a thread that changed"
        " only what is new is read. People read it as the view `public.emails`, with a column for each"
        " category of labels."
    ),
    "missive/comments": (
        "What colleagues wrote beside a thread. Missive gives comments no version: the newest read wins."
    ),
    "missive/shared_labels": (
        "Labels with the labels they lie in: `parent_id`, and `full_name` with the parents' names. One"
        " that two readings ten minutes apart lack is gone."
    ),
    "missive/users": "Who works in Missive: the people behind assignees and authors.",
    "missive/teams": "Teams of Missive, to which conversations and labels may belong.",
}
TOGETHER = " Conversations, messages and comments are read together: selecting one of them reads all three."
DIRECTORY = (
    " A directory: read completely every DIRECTORY_INTERVAL_SECONDS, because its rows are few and not all of"
    " their changes move a date."
)
FIGURES = (
    "\n\n**Figures** of a materialization are those since the one before, a minute at most: rows `fetched`,"
    " `written` (new or different), `unchanged`, `deleted`, `set_aside` (of no use, tried again);"
    " `deliveries_applied` counts webhooks. `lag_seconds` is how far the mirror may be behind the vendor."
    " `requests` and seconds are the whole source's."
)


def source_assets(source: Source) -> tuple[dg.AssetSpec, dg.AssetsDefinition]:
    """Return the vendor's API, which is outside, and the assets that are read from it."""
    api = _api_spec(source)
    specs = [_table_spec(source, stream, api.key) for stream in STREAMS[source]]

    @dg.multi_asset(
        name=f"{source}_window",
        specs=specs,
        can_subset=True,
        required_resource_keys={"mirror", source},
        description=f"One pass over {source.capitalize()}, or a window of passes.",
    )
    def window(context: dg.AssetExecutionContext, config: SyncConfig) -> Iterator[dg.MaterializeResult[None]]:
        yield from _run(context, config, source)

    return api, window


def _api_spec(source: Source) -> dg.AssetSpec:
    name = source.capitalize()
    return dg.AssetSpec(
        key=[source, "api"],
        group_name=source,
        description=(
            f"{name}'s API, outside of this project. Every process reads it within one request budget. Its"
            " observations say what it was asked, how often it answered 429, and how long the budget made"
            " requests wait."
        ),
        kinds={"api", source},
        owners=OWNERS,
        metadata=links_of(source),
    )


def _table_spec(source: Source, stream: str, api: dg.AssetKey) -> dg.AssetSpec:
    table = table_of(source, stream)
    return dg.AssetSpec(
        key=[source, stream],
        deps=[api],
        group_name=source,
        description=_description(table),
        kinds={"postgres", source},
        owners=OWNERS,
        skippable=True,
        freshness_policy=DIRECTORY_FRESHNESS if _is_directory(table) else STREAM_FRESHNESS,
        metadata={
            "dagster/column_schema": column_schema(table),
            "dagster/table_name": table.name,
            **links_of(source),
        },
    )


def _description(table: Table) -> str:
    words = DESCRIPTIONS[f"{table.source}/{table.stream}"]
    together = TOGETHER if table in THREADS else ""
    return words + together + (DIRECTORY if _is_directory(table) else "") + FIGURES


def _is_directory(table: Table) -> bool:
    return table in (*DIRECTORIES, *MISSIVE_DIRECTORIES)


def _run(
    context: dg.AssetExecutionContext, config: SyncConfig, source: Source
) -> Iterator[dg.MaterializeResult[None]]:
    """Run one pass or one window, logging materializations on the way, and yield the last ones."""
    mirror: MirrorResource = context.resources.mirror
    vendor: VendorResource = getattr(context.resources, source)
    results: list[dg.MaterializeResult[None]] = []
    with ending_gently() as stop, as_failures(context):
        settings = mirror.settings()
        streams = [key.path[-1] for key in context.selected_asset_keys]
        options = config.to_options(source, streams)
        if (reason := vendor.why_switched_off(settings)) is not None:
            context.log.warning(reason)
            return
        with mirror.opened(context.log) as engine:
            window = Window(engine, settings, source, config.window_seconds)
            _announce(context, window)
            results = _listen(context, window, options=options, streams=streams, stop=stop)
    yield from results


def _announce(context: dg.AssetExecutionContext, window: Window) -> None:
    """Say what this run is going to do, and where it can be watched."""
    name, settings = window.source.capitalize(), window.settings
    page = link_to_status_page(settings)
    watched = f" The status page: {page}" if page else ""
    if window.seconds > 0:
        words = "A window on %s: for %.0f s it polls every %.0f s and applies deliveries as they come.%s"
        context.log.info(words, name, window.seconds, settings.poll_seconds, watched)
    else:
        context.log.info("One pass over %s.%s", name, watched)


def _listen(
    context: dg.AssetExecutionContext,
    window: Window,
    *,
    options: PassOptions,
    streams: list[str],
    stop: StopRequest,
) -> list[dg.MaterializeResult[None]]:
    """Run *window* to its end; return the last materialization of each selected stream."""
    source = window.source
    figures = Figures(window.engine, source)

    def log(stream: str, interval: Interval) -> None:
        context.log_event(figures.materialization(stream, interval))

    def log_api(_: str, interval: Interval) -> None:
        context.log_event(figures.observation(interval))

    ledger, traffic = Ledger(streams, log=log), Ledger(["api"], log=log_api)
    _follow(context, window, figures, ledgers=(ledger, traffic))

    def sleep(seconds: float) -> None:
        stop.sleep(seconds)
        ledger.log_due()

    window.should_stop, window.sleep = stop.check, sleep
    try:
        ran = _run_window(context, window, options, stop)
    except (WindowClosedError, KeyboardInterrupt):
        ledger.log_changes()
        raise
    if not ran:
        context.log.info("Another window of %s is open; this run is not needed.", source.capitalize())
        return []
    log_api("api", traffic.close()["api"])
    for refusal in figures.refusals():
        context.log_event(refusal)
    return [figures.result(stream, interval) for stream, interval in ledger.close().items()]


def _follow(
    context: dg.AssetExecutionContext, window: Window, figures: Figures, *, ledgers: Iterable[Ledger]
) -> None:
    """Have *window* tell the ledgers, and people, what it does."""

    def on_commit(report: PassReport) -> None:
        for ledger in ledgers:
            ledger.note_commit(report)

    def on_report(report: PassReport) -> None:
        figures.report = report
        for ledger in ledgers:
            ledger.note_report(report)
        _tell(context, report)

    def on_drain(report: PassReport) -> None:
        for ledger in ledgers:
            ledger.note_deliveries(report)
        for problem in report.problems:
            context.log.warning(problem)

    window.on_commit, window.on_report, window.on_drain = on_commit, on_report, on_drain


def _run_window(
    context: dg.AssetExecutionContext, window: Window, options: PassOptions, stop: StopRequest
) -> bool:
    """Run *window*; a window that has to end because everything is being stopped has ended well.

    Raises:
        WindowClosedError: If work that was asked for is not done, or somebody cancelled this very run.
    """
    try:
        ran = window.run(options)
    except WindowClosedError:
        if not stop.requested or window.seconds == 0:
            raise
        ran = True
    if stop.requested and window.seconds > 0 and _is_cancelled(context):
        stop.check()
    return ran


def _is_cancelled(context: dg.AssetExecutionContext) -> bool:
    run = context.instance.get_run_by_id(context.run.run_id)
    return run is not None and run.status == dg.DagsterRunStatus.CANCELING


def _tell(context: dg.AssetExecutionContext, report: PassReport) -> None:
    """Write a line about a pass that changed something, and one for each thing to look at.

    A quiet pass leaves no line: every line is a row in Dagster's event log.
    """
    figures = report.streams.values()
    if any(item.written or item.deleted or item.set_aside for item in figures):
        context.log.info(
            "%s: %d rows fetched, %d written, %d deleted, %d set aside; %d requests, %d times 429, %.1f s%s",
            report.source,
            sum(item.fetched for item in figures),
            sum(item.written for item in figures),
            sum(item.deleted for item in figures),
            sum(item.set_aside for item in figures),
            report.requests,
            report.throttled,
            report.seconds,
            "" if report.complete else "; there is more to read",
        )
    for problem in (*report.problems, *report.held_deletions):
        context.log.warning(problem)
