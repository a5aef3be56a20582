"""The checks as Dagster knows them: one op a source, a job of their own, every hour."""

from collections.abc import Callable, Iterable, Iterator

import dagster as dg
from sqlalchemy import Engine

from twm_pipeline.defs.failures import as_failures
from twm_pipeline.defs.interrupts import StopRequest, ending_gently
from twm_pipeline.defs.jobs import MAX_RUNTIME
from twm_pipeline.defs.places import links_of
from twm_pipeline.defs.publishing import why_not_publishing
from twm_pipeline.defs.resources import MirrorResource, why_all_switched_off, why_switched_off
from twm_pipeline.defs.windows import request_unless_busy
from twm_pipeline.links import link_to_object
from twm_pipeline.mirror.findings import Finding
from twm_pipeline.records import SOURCES, Origin, Source
from twm_pipeline.settings import Settings, load_settings
from twm_pipeline.sync.checks import MEANINGS, check_source, checks_of
from twm_pipeline.sync.checks_airtable import check_publishing

LONGEST_CHECKS_SECONDS = 1800
SEVERITIES = {"warning": dg.AssetCheckSeverity.WARN, "error": dg.AssetCheckSeverity.ERROR}

Look = Callable[[Engine, Settings, StopRequest], Iterable[Finding]]


def _checks(
    origin: Origin, *, why_not_checked: Callable[[Settings], str | None], look: Look
) -> dg.AssetChecksDefinition:
    """Return the op with all checks of a source, or of what is published."""

    @dg.multi_asset_check(
        name=f"{origin}_checks",
        specs=[
            dg.AssetCheckSpec(name, asset=list(asset), description=MEANINGS[name])
            for asset, name in checks_of(origin)
        ],
        can_subset=True,
        required_resource_keys={"mirror"},
        description=f"Looks whether what is known of {origin.capitalize()} is true and current.",
    )
    def check(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        mirror: MirrorResource = context.resources.mirror
        with ending_gently() as stop, as_failures(context.op_execution_context):
            settings = mirror.settings()
            if (reason := why_not_checked(settings)) is not None:
                context.log.info(reason)
                return
            with mirror.opened(context.log) as engine:
                found = list(look(engine, settings, stop))
        for item in found:
            if dg.AssetCheckKey(dg.AssetKey(item.asset), item.check) in context.selected_asset_check_keys:
                yield to_result(item, settings)

    return check


def to_result(finding: Finding, settings: Settings) -> dg.AssetCheckResult:
    """Return *finding* for Dagster's event log, with links to the objects at the vendor."""
    metadata: dict[str, int | float | str | dg.MarkdownMetadataValue] = {**finding.figures}
    if finding.objects:
        names = "\n".join(f"- {name_object(finding, item, settings)}" for item in finding.objects)
        metadata["objects"] = dg.MetadataValue.md(names)
    return dg.AssetCheckResult(
        asset_key=list(finding.asset),
        check_name=finding.check,
        passed=finding.verdict == "ok",
        severity=SEVERITIES.get(finding.verdict, dg.AssetCheckSeverity.WARN),
        description=finding.text,
        metadata=metadata,
    )


def name_object(finding: Finding, object_id: str, settings: Settings) -> str:
    """Return an object's id in Markdown, as a link where the vendor has an address for it."""
    source, stream = finding.asset
    base = {"source": source, "link_base": settings.teamwork_base_url}
    link, shown = link_to_object(base, stream, object_id), f"`{object_id.replace('`', '')}`"
    return shown if link is None else f"[{shown}]({link})"


def _source_checks(source: Source) -> dg.AssetChecksDefinition:
    return _checks(
        source,
        why_not_checked=lambda settings: why_switched_off(settings, source),
        look=lambda engine, settings, stop: check_source(engine, settings, source, should_stop=stop.check),
    )


asset_checks = [
    *(_source_checks(source) for source in SOURCES),
    _checks(
        "airtable",
        why_not_checked=why_not_publishing,
        look=lambda engine, settings, _: check_publishing(engine, settings),
    ),
]

checks = dg.define_asset_job(
    "checks",
    selection=dg.AssetSelection.checks(*asset_checks),
    description=(
        "Looks every hour whether the copy is true and current; each check says in the asset's tab *Checks*"
        " what it states and what to do where that is not so. Most are one look into the mirror; the sample"
        " asks each vendor a handful of requests. A check that fails stops nothing."
    ),
    metadata=links_of(),
    tags={MAX_RUNTIME: str(LONGEST_CHECKS_SECONDS)},
    executor_def=dg.in_process_executor,
)


@dg.schedule(
    name="checks_schedule",
    job=checks,
    cron_schedule="23 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Looks every hour whether the copy is true and current.",
)
def checks_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Request the checks unless they are under way or nothing is set up."""
    if (reason := why_all_switched_off(load_settings())) is not None:
        return dg.SkipReason(reason)
    return request_unless_busy(context.instance, checks.name)
