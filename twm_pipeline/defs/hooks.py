"""The check of the hooks at the vendors: Teamwork switches one off silently when its deliveries fail."""

from collections.abc import Iterable

import dagster as dg

from twm_pipeline.defs.failures import as_failures, for_each_source
from twm_pipeline.defs.interrupts import StopRequest, ending_gently
from twm_pipeline.defs.jobs import MAX_RUNTIME
from twm_pipeline.defs.places import links_of
from twm_pipeline.defs.resources import MirrorResource, why_all_switched_off, why_switched_off
from twm_pipeline.defs.windows import request_unless_busy
from twm_pipeline.errors import TwmError
from twm_pipeline.records import SOURCES, Source
from twm_pipeline.settings import Settings, load_settings
from twm_pipeline.webhooks.registration import HooksReport, open_registrar
from twm_pipeline.webhooks.wanted import why_no_hooks

LONGEST_CHECK_SECONDS = 600


@dg.op(required_resource_keys={"mirror"}, out=dg.Out(dg.Nothing))
def check_hooks(context: dg.OpExecutionContext) -> None:
    """Make the hooks at the vendors those that are wanted, and say what was done.

    A vendor that fails does not keep the other one from being checked; the run fails in the end.
    """
    mirror: MirrorResource = context.resources.mirror
    with ending_gently() as stop, as_failures(context):
        settings = mirror.settings()
        if (reason := why_nothing_to_check(settings)) is not None:
            context.log.info(reason)
            return
        used = [source for source in SOURCES if why_switched_off(settings, source) is None]
        for_each_source(context, used, lambda source: _check(context, settings, source, stop))


def _check(
    context: dg.OpExecutionContext, settings: Settings, source: Source, stop: StopRequest
) -> Iterable[TwmError]:
    """Make the hooks at one vendor those that are wanted; what could not be repaired fails no run."""
    mirror: MirrorResource = context.resources.mirror
    with (
        mirror.opened(context.log) as engine,
        open_registrar(engine, settings, source, should_stop=stop.check) as registrar,
    ):
        _tell(context, registrar.register(patient=True))
    return ()


def _tell(context: dg.OpExecutionContext, report: HooksReport) -> None:
    """Log what was repaired, and what could not be."""
    for step in report.steps:
        action = step.action
        if step.problem is None:
            context.log.info("%s: %s %s: %s", report.source, action.verb, action.event, action.why or "done")
        else:
            context.log.warning("%s: %s %s: %s", report.source, action.verb, action.event, step.problem)
    for row in report.put_off:
        context.log.info("%s: %s has to wait: %s", report.source, row.event, row.problem or "no answer")
    context.log.info("%s: %d of %d hooks work", report.source, report.registered, report.wanted)


@dg.job(
    description=(
        "Looks every 15 minutes whether the hooks at the vendors are there and switched on, and repairs what"
        " is not: Teamwork switches one off without a word when its deliveries fail for hours. Without hooks"
        " polling finds every change all the same, only later. By hand: `twm webhooks list`."
    ),
    metadata=links_of(*SOURCES),
    tags={MAX_RUNTIME: str(LONGEST_CHECK_SECONDS), "dagster/max_retries": "0"},  # the next check comes soon
    executor_def=dg.in_process_executor,
)
def webhooks_check() -> None:
    """Check the hooks at both vendors."""
    check_hooks()


def why_nothing_to_check(settings: Settings) -> str | None:
    """Return why no vendor is to have hooks of ours, or None."""
    return why_no_hooks(settings) or why_all_switched_off(settings)


@dg.schedule(
    name="webhooks_check_schedule",
    job=webhooks_check,
    cron_schedule="7-59/15 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Checks and repairs the hooks at the vendors every 15 minutes.",
)
def webhooks_check_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Request a check unless one is under way or there is nothing to check."""
    if (reason := why_nothing_to_check(load_settings())) is not None:
        return dg.SkipReason(reason)
    return request_unless_busy(context.instance, webhooks_check.name)
