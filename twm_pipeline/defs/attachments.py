"""Files of messages as an asset, the job that downloads them, and the sensor that starts it."""

from collections.abc import Iterator

import dagster as dg

from twm_pipeline.defs.assets import DAILY_FRESHNESS, OWNERS
from twm_pipeline.defs.config import AttachmentsConfig
from twm_pipeline.defs.failures import as_failures
from twm_pipeline.defs.interrupts import StopRequest, ending_gently
from twm_pipeline.defs.jobs import LONGEST_RUN_SECONDS, MAX_RUNTIME
from twm_pipeline.defs.places import links_of
from twm_pipeline.defs.report_ledger import ReportLedger, numbers_of, run_window
from twm_pipeline.defs.resources import MirrorResource, glance, why_switched_off
from twm_pipeline.defs.sensors import LEAD_SECONDS
from twm_pipeline.defs.tags import SOURCE
from twm_pipeline.defs.windows import request_unless_busy, why_no_window, window_request
from twm_pipeline.errors import TwmError
from twm_pipeline.mirror.attachments import MOST_COUNTED, count_due, read_attachments
from twm_pipeline.settings import Settings, load_settings
from twm_pipeline.sync.attachment_look import AttachmentReport
from twm_pipeline.sync.attachments import AttachmentWindow

KEY = dg.AssetKey(["missive", "attachments"])
INTERVAL_SECONDS = 30
"""An open window is told of new files at once; without one, addresses live long enough for this."""
OFF = "Downloading files is switched off: ATTACHMENTS_DOWNLOAD is false."


@dg.multi_asset(
    name="attachments_window",
    specs=[
        dg.AssetSpec(
            key=KEY,
            deps=[dg.AssetKey(["missive", stream]) for stream in ("emails", "comments", "conversations")],
            group_name="missive",
            description=(
                "Files of messages and comments, in ATTACHMENTS_URL under paths that a person can find; the"
                " view `missive.attachments` says where each is, with its checksum. Only files that are not"
                " stored yet are fetched; what failed is tried again."
            ),
            kinds={"file", "missive"},
            owners=OWNERS,
            skippable=True,
            freshness_policy=DAILY_FRESHNESS,
            metadata={"dagster/table_name": "missive.attachments", **links_of("missive")},
        )
    ],
    required_resource_keys={"mirror"},
    description="Downloads the files that are due once, or listens for new ones during a window.",
)
def attachments_asset(
    context: dg.AssetExecutionContext, config: AttachmentsConfig
) -> Iterator[dg.MaterializeResult[None]]:
    """Download files of messages."""
    mirror: MirrorResource = context.resources.mirror
    results: list[dg.MaterializeResult[None]] = []
    with ending_gently() as stop, as_failures(context):
        settings = mirror.settings()
        if not settings.attachments_download:
            context.log.warning(OFF)
            return
        with mirror.opened(context.log) as engine:
            window = AttachmentWindow(
                engine=engine, settings=settings, seconds=config.window_seconds, retry=config.retry
            )
            results = _download(context, window, stop)
    yield from results


attachments_download = dg.define_asset_job(
    "attachments_download",
    selection=dg.AssetSelection.assets(KEY),
    description=(
        "Downloads files of messages and comments that are not stored yet. The sensor opens a window when"
        " some are due, because the vendor's addresses are valid for a short time only. What failed is tried"
        " again by itself; `retry` in the launchpad, or `twm attachments retry`, does it now."
    ),
    metadata=links_of("missive"),
    tags={MAX_RUNTIME: str(LONGEST_RUN_SECONDS), SOURCE: "missive"},
    executor_def=dg.in_process_executor,
)


def _download(
    context: dg.AssetExecutionContext, window: AttachmentWindow, stop: StopRequest
) -> list[dg.MaterializeResult[None]]:
    """Run *window* to its end; return the last materialization."""

    def log(_: str, figures: AttachmentReport) -> None:
        context.log_event(dg.AssetMaterialization(asset_key=KEY, metadata=_metadata(window, figures)))

    ledger = ReportLedger(
        ("attachments",),
        make=AttachmentReport,
        changed=lambda report: bool(report.stored or report.failed),
        log=log,
    )

    def on_report(report: AttachmentReport, ended: bool) -> None:
        if ended:
            ledger.note_reports({"attachments": report})
        else:
            ledger.note_commit("attachments", report)

    window.on_report = on_report
    if not run_window(window, ledger, stop):
        context.log.info("Another process downloads files already; this run is not needed.")
        return []
    return [
        dg.MaterializeResult(asset_key=KEY, metadata=_metadata(window, figures))
        for figures in ledger.close().values()
    ]


def _metadata(window: AttachmentWindow, figures: AttachmentReport) -> dict[str, int | float | str]:
    with window.engine.connect() as connection:
        found = read_attachments(connection)
    return {
        "dagster/row_count": found["stored"],
        "waiting": found["pending"],
        "store": window.settings.attachments_store,
        **numbers_of(figures),
    }


@dg.sensor(
    name="attachments_sensor",
    job=attachments_download,
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Opens a window that downloads files of messages when some are due and none is open.",
)
def attachments_sensor(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Look for files to download."""
    settings = load_settings()
    if not settings.attachments_download:
        return dg.SkipReason(OFF)
    try:
        count = _count_due(settings)
    except TwmError as error:
        return dg.SkipReason(str(error))
    if not count:
        return dg.SkipReason("No file is due.")
    busy = why_no_window(context.instance, settings, "attachments", lead_seconds=LEAD_SECONDS)
    if busy is not None:
        return dg.SkipReason(
            f"Files that are due: {count}{' or more' if count == MOST_COUNTED else ''}. {busy}"
        )
    return window_request(settings, "attachments")


@dg.schedule(
    name="attachments_schedule",
    job=attachments_download,
    cron_schedule="11 4 * * *",
    execution_timezone=load_settings().timezone,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Looks every night whether all files are stored, also where none is due: so it is verified.",
)
def attachments_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Request a run that downloads what is due once, unless one is under way."""
    settings = load_settings()
    if not settings.attachments_download:
        return dg.SkipReason(OFF)
    if (reason := why_switched_off(settings, "missive")) is not None:
        return dg.SkipReason(reason)
    return request_unless_busy(context.instance, attachments_download.name)


def _count_due(settings: Settings) -> int:
    """Return how many files are to be fetched now; none where nothing has been read yet.

    Raises:
        DatabaseUnavailableError: If PostgreSQL does not answer.
    """
    with glance(settings, "missive.attachments") as connection:
        return count_due(connection) if connection is not None else 0
