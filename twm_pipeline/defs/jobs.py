"""The jobs: a window or a pass over one vendor, and the complete sweep of both."""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from twm_pipeline.defs.config import ReconcileConfig
from twm_pipeline.defs.failures import as_failures, for_each_source
from twm_pipeline.defs.figures import Figures
from twm_pipeline.defs.interrupts import StopRequest, ending_gently
from twm_pipeline.defs.ledger import Interval, Ledger
from twm_pipeline.defs.places import links_of
from twm_pipeline.defs.resources import MirrorResource, why_switched_off
from twm_pipeline.defs.tags import SOURCE
from twm_pipeline.errors import MassDeletionError
from twm_pipeline.mirror.tables import STREAMS
from twm_pipeline.records import SOURCES, Source
from twm_pipeline.sync.engine import PassReport
from twm_pipeline.sync.reconcile import ReconcileOptions
from twm_pipeline.sync.window import run_reconcile

MAX_RUNTIME = "dagster/max_runtime"
WINDOW = "twm/window"
"""Tag of the runs that keep a window open, with the source as its value: one at a time (`dagster.yaml`)."""
LONGEST_RUN_SECONDS = 6 * 3600
"""For runs that people start, such as reading everything again within the vendor's budget."""


def _sync_job(source: Source) -> UnresolvedAssetJobDefinition:
    """Return the job that materializes all tables of *source*."""
    return dg.define_asset_job(
        f"{source}_sync",
        selection=dg.AssetSelection.assets(
            *([source, stream] for stream in STREAMS[source])
        ).without_checks(),
        description=(
            f"Reads what changed in {source.capitalize()} into the mirror. The schedule and the sensor keep a"
            " *window* open: a run of SYNC_WINDOW_SECONDS that polls, and applies webhook deliveries as they"
            " come; the next one follows at once. Started by hand it is one pass, also beside a window; the"
            " launchpad takes `since`, `until`, `ids` or `full` to read something again. A run may be"
            " terminated or killed at any time: what is committed stays, and the next one goes on there."
        ),
        metadata=links_of(source),
        tags={MAX_RUNTIME: str(LONGEST_RUN_SECONDS), SOURCE: source},
        executor_def=dg.in_process_executor,
    )


SYNC_JOBS: dict[Source, UnresolvedAssetJobDefinition] = {source: _sync_job(source) for source in SOURCES}


@dg.op(required_resource_keys={"mirror"}, out=dg.Out(dg.Nothing))
def sweep(context: dg.OpExecutionContext, config: ReconcileConfig) -> None:
    """List everything that lives at the vendors, and look at each row that no list shows.

    A vendor that fails does not keep the other one from being swept; the run fails in the end.
    """
    mirror: MirrorResource = context.resources.mirror
    with ending_gently() as stop, as_failures(context):
        settings = mirror.settings()
        used = []
        for source in config.to_sources():
            if (reason := why_switched_off(settings, source)) is not None:
                context.log.warning(reason)
            else:
                used.append(source)
        for_each_source(context, used, lambda source: _sweep_source(context, config, source, stop))


def _sweep_source(
    context: dg.OpExecutionContext, config: ReconcileConfig, source: Source, stop: StopRequest
) -> list[MassDeletionError]:
    """Sweep one vendor, log what was found, and return which deletions wait for a confirmation."""
    mirror: MirrorResource = context.resources.mirror
    options = ReconcileOptions(
        dry_run=config.dry_run, confirm_deletions=config.confirm_deletions, full=config.full
    )
    with mirror.opened(context.log) as engine:
        figures = Figures(engine, source)

        def log(stream: str, interval: Interval) -> None:
            context.log_event(figures.materialization(stream, interval))

        ledger = Ledger(STREAMS[source], log=log)
        gone, report = run_reconcile(
            engine,
            mirror.settings(),
            source,
            options=options,
            should_stop=stop.check,
            on_commit=(lambda _: None) if config.dry_run else ledger.note_commit,
        )
        if not config.dry_run:
            ledger.note_report(report)
            for stream, interval in ledger.close().items():
                log(stream, interval)
    _tell(context, config, gone, report)
    return [MassDeletionError(text) for text in report.held_deletions]


def _tell(
    context: dg.OpExecutionContext, config: ReconcileConfig, gone: dict[str, int], report: PassReport
) -> None:
    verdict = "would be marked as deleted" if config.dry_run else "gone for good"
    context.log_event(
        dg.AssetObservation(
            asset_key=[report.source, "api"],
            description="What a complete sweep found.",
            metadata={
                "requests": report.requests,
                "seconds": report.seconds,
                "dry_run": config.dry_run,
                **{f"gone_{stream}": count for stream, count in gone.items()},
                **{f"written_{stream}": figures.written for stream, figures in report.streams.items()},
                **{f"absent_{stream}": figures.absent for stream, figures in report.streams.items()},
                "notes": report.notes,
                "held_deletions": report.held_deletions,
                "problems": report.problems,
            },
        )
    )
    for stream, count in gone.items():
        context.log.info("%s/%s: %d rows %s", report.source, stream, count, verdict)
    for note in report.notes:
        context.log.info(note)
    for problem in (*report.problems, *report.held_deletions):
        context.log.warning(problem)


@dg.job(
    description=(
        "A complete sweep, every night: lists everything that lives at the vendors, reads what the mirror"
        " lacks, and looks at each row that no list shows. It finds what no poll can see, such as rows that"
        " vanished. With `dry_run` it only compares. Deletions by absence beyond 5 % of a table are held, and"
        " the run fails and says so, until `confirm_deletions` is set."
    ),
    metadata=links_of(*SOURCES),
    tags={MAX_RUNTIME: str(LONGEST_RUN_SECONDS)},
    executor_def=dg.in_process_executor,
)
def reconcile() -> None:
    """Sweep both vendors."""
    sweep()
