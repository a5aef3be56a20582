"""The sensor that tells people: failed runs, failed checks, tables that grow stale, and when each is over."""

from __future__ import annotations

import itertools
import socket
import time
from collections import defaultdict
from collections.abc import Container, Iterator, Mapping

import dagster as dg
from dagster._core.definitions.freshness import FreshnessState
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from twm_pipeline.alerts import LINES_PER_POST, AlertState, Level, Trouble, follow, send
from twm_pipeline.defs.attachments import KEY as ATTACHMENTS
from twm_pipeline.defs.jobs import WINDOW
from twm_pipeline.defs.publishing import why_not_publishing
from twm_pipeline.defs.resources import why_all_switched_off, why_switched_off
from twm_pipeline.defs.windows import runs_of
from twm_pipeline.errors import RetriableError
from twm_pipeline.records import SOURCES
from twm_pipeline.settings import Settings, load_settings

INTERVAL_SECONDS = 30
STALE_PATIENCE_SECONDS = 600
"""After a night switched off every table is stale until its first pass: that is nothing to tell."""
SURE_SECONDS = 120
"""A window that has been open for so long works: what failed the one before is over."""
LONGEST_PAUSE_SECONDS = 3600
LATEST_RUNS = 5
_TOLD = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.STARTED]


@dg.sensor(
    name="alerts_sensor",
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Posts to ALERT_WEBHOOK_URL what fails or grows stale, and when that is over.",
)
def alerts_sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Look what is wrong, and tell what changed."""
    settings = load_settings()
    if settings.alert_webhook_url is None:
        return dg.SkipReason("Nobody is told: ALERT_WEBHOOK_URL is not set.")
    repository = context.repository_def
    if repository is None:
        return dg.SkipReason("The definitions are being loaded.")
    now = time.time()
    state = AlertState.from_text(context.cursor)
    runs = last_runs(context.instance, repository)
    troubles = [
        *failed_runs(context.instance, runs, known=state.troubles),
        *failed_checks(context.instance, repository),
        *stale_assets(context.instance, repository, settings),
    ]
    silent = {f"run {name}" for name, record in runs.items() if record is None}
    unanswered = unanswered_checks(context.instance, repository)
    state = follow(state, troubles, now=now, uncertain=silent | unanswered)
    words = _send(state, settings, now)
    context.update_cursor(state.to_text())
    return dg.SkipReason(
        f"{len(troubles)} things are wrong. {words}" if troubles else f"All is well. {words}"
    )


def _send(state: AlertState, settings: Settings, now: float) -> str:
    """Send what is in the outbox, and return how that went; what is not taken stays there."""
    if settings.alert_webhook_url is None or not state.outbox:
        return "There is nothing to tell."
    if now < state.not_before <= now + LONGEST_PAUSE_SECONDS:  # later: the clock was set back
        return f"{len(state.outbox)} lines wait: the receiver asked for a pause."
    lines = state.outbox[:LINES_PER_POST]
    try:
        send(settings.alert_webhook_url, lines, sender=socket.gethostname())
    except RetriableError as error:
        state.not_before = now + min(error.retry_after or 0.0, LONGEST_PAUSE_SECONDS)
        return f"{error}; {len(state.outbox)} lines wait and are tried again."
    del state.outbox[: len(lines)]
    return f"{len(lines)} lines were told."


def last_runs(
    instance: dg.DagsterInstance, repository: dg.RepositoryDefinition
) -> dict[str, dg.RunRecord | None]:
    """Return for each job its last run that says how it goes; None where none does, or none is kept."""
    found: dict[str, dg.RunRecord | None] = {}
    for name in repository.job_names:
        if not name.startswith("__"):  # materialized by hand: whoever did sees it
            wanted = dg.RunsFilter(job_name=name, statuses=_TOLD)
            records = instance.get_run_records(wanted, limit=LATEST_RUNS)
            found[name] = next(itertools.dropwhile(_says_nothing, records), None)
    return found


def failed_runs(
    instance: dg.DagsterInstance, runs: Mapping[str, dg.RunRecord | None], *, known: Container[str]
) -> Iterator[Trouble]:
    """Return the jobs whose last run failed; one that fails every minute is one trouble."""
    for name, record in runs.items():
        if record is None or record.dagster_run.status != dg.DagsterRunStatus.FAILURE:
            continue
        key, run_id = f"run {name}", record.dagster_run.run_id
        why = "" if key in known else f": {_why_failed(instance, run_id)}"
        yield Trouble(key=key, text=f"{name} fails (run {run_id[:8]}){why}")


def _says_nothing(record: dg.RunRecord) -> bool:
    """Return whether a run is under way and may still fail."""
    run = record.dagster_run
    if run.status != dg.DagsterRunStatus.STARTED:
        return False
    return WINDOW not in run.tags or time.time() - (record.start_time or time.time()) < SURE_SECONDS


def _why_failed(instance: dg.DagsterInstance, run_id: str) -> str:
    """Return our own words for a failure; those of a library may hold anything."""
    records = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.STEP_FAILURE).records
    for record in records:
        event = record.event_log_entry.dagster_event
        data = event.step_failure_data if event else None
        if data is not None and data.user_failure_data is not None:
            return str(data.user_failure_data.description)
        if data is not None and data.error is not None:
            return str(data.error.cls_name)
    return "its process was lost"


def failed_checks(instance: dg.DagsterInstance, repository: dg.RepositoryDefinition) -> Iterator[Trouble]:
    """Return the checks whose last answer was no."""
    for key, evaluation in _evaluations(instance, repository).items():
        if evaluation is not None and not evaluation.passed:
            level: Level = "error" if evaluation.severity == dg.AssetCheckSeverity.ERROR else "warning"
            text = f"{_named(key)}: {evaluation.description}"
            yield Trouble(key=f"check {_named(key)}", text=text, level=level)


def unanswered_checks(instance: dg.DagsterInstance, repository: dg.RepositoryDefinition) -> set[str]:
    """Return the keys of checks that are being made now."""
    if not runs_of(instance, "checks"):
        return set()
    return {
        f"check {_named(key)}" for key, found in _evaluations(instance, repository).items() if found is None
    }


def _evaluations(
    instance: dg.DagsterInstance, repository: dg.RepositoryDefinition
) -> dict[dg.AssetCheckKey, dg.AssetCheckEvaluation | None]:
    """Return the last answer of every check that was ever asked; None while it has none."""
    keys = list(repository.asset_graph.asset_check_keys)
    records = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    found: dict[dg.AssetCheckKey, dg.AssetCheckEvaluation | None] = {}
    for key, record in records.items():
        event = record.event.dagster_event if record.event else None
        is_answered = record.status != AssetCheckExecutionRecordStatus.PLANNED and event is not None
        found[key] = event.asset_check_evaluation_data if event is not None and is_answered else None
    return found


def _named(key: dg.AssetCheckKey) -> str:
    return f"{key.asset_key.to_user_string()} {key.name}"


def stale_assets(
    instance: dg.DagsterInstance, repository: dg.RepositoryDefinition, settings: Settings
) -> Iterator[Trouble]:
    """Return per source the tables that were not verified in time, as Dagster's daemon judges them."""
    keys = list(repository.asset_graph.materializable_asset_keys)
    stale: dict[str, list[str]] = defaultdict(list)
    for key, record in instance.get_freshness_state_records(keys).items():
        if record.freshness_state == FreshnessState.FAIL and not _is_switched_off(settings, key):
            stale[key.path[0]].append(key.path[-1])
    for group, names in stale.items():
        text = f"{group} is stale, nothing was verified in time: {', '.join(sorted(names))}"
        yield Trouble(key=f"stale {group}", text=text, patience_seconds=STALE_PATIENCE_SECONDS)


def _is_switched_off(settings: Settings, key: dg.AssetKey) -> bool:
    """Return whether a table may be as old as it is: the settings say that nothing brings it up to date."""
    if key == ATTACHMENTS and not settings.attachments_download:
        return True
    if key.path[0] == "airtable":
        return why_not_publishing(settings) is not None
    source = next((item for item in SOURCES if item == key.path[0]), None)
    reason = why_all_switched_off(settings) if source is None else why_switched_off(settings, source)
    return reason is not None
