"""Every night: what was run long ago goes, so that Dagster's storage and the disk grow no further."""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable as CheckAnswers
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from sqlalchemy import Connection, Select, delete, func, select

from twm_pipeline.defs.failures import as_failures
from twm_pipeline.defs.interrupts import ending_gently
from twm_pipeline.defs.jobs import LONGEST_RUN_SECONDS, MAX_RUNTIME
from twm_pipeline.defs.places import links_of
from twm_pipeline.defs.resources import MirrorResource
from twm_pipeline.defs.windows import request_unless_busy
from twm_pipeline.errors import ConfigError
from twm_pipeline.logs import shorten_logs
from twm_pipeline.mirror.upkeep import remove_old
from twm_pipeline.records import SOURCES
from twm_pipeline.settings import load_settings
from twm_pipeline.spool import Spool

FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
RUNS_AT_ONCE = 200
_RUN_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def forget_runs(
    instance: dg.DagsterInstance, *, before: datetime, should_stop: Callable[[], None] = lambda: None
) -> int:
    """Delete runs that ended before a moment, with their events and what they printed; return how many.

    The run that holds the last materialization or observation of an asset, or the last answer of a check,
    stays: the UI, freshness and alerts look at it.
    """
    kept = _still_shown(instance)
    wanted = dg.RunsFilter(statuses=FINISHED, updated_before=before)
    count, cursor = 0, None
    while records := instance.get_run_records(wanted, limit=RUNS_AT_ONCE, ascending=True, cursor=cursor):
        for record in records:
            run_id = record.dagster_run.run_id
            if run_id in kept:
                cursor = run_id
                continue
            should_stop()
            instance.delete_run(run_id)
            instance.compute_log_manager.delete_logs(prefix=[run_id])
            count += 1
        if len(records) < RUNS_AT_ONCE:
            break
    return count


def _still_shown(instance: dg.DagsterInstance) -> set[str]:
    """Return the runs whose events are the latest of an asset or a check."""
    found: set[str] = set()
    for record in instance.get_asset_records(instance.all_asset_keys()):
        entry = record.asset_entry
        latest = (entry.last_materialization_record, entry.last_observation_record)
        found |= {item.run_id for item in latest if item is not None}
    with _check_answers(instance) as connection:
        found |= set(
            connection.scalars(select(CheckAnswers.c.run_id).where(CheckAnswers.c.id.in_(_latest())))
        )
    return found


def forget_answers(instance: dg.DagsterInstance, *, before: datetime) -> int:
    """Delete answers of checks that were given before a moment, but not the last of a check; return how many.

    Dagster keeps them in a table of their own, which deleting a run does not touch.
    """
    old = CheckAnswers.c.create_timestamp < before.astimezone(UTC).replace(tzinfo=None)
    with _check_answers(instance) as connection:
        return int(
            connection.execute(delete(CheckAnswers).where(old, CheckAnswers.c.id.not_in(_latest()))).rowcount
        )


def _check_answers(instance: dg.DagsterInstance) -> AbstractContextManager[Connection]:
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        msg = "Dagster's storage is no database."
        raise ConfigError(msg)
    return storage.index_connection()


def _latest() -> Select[tuple[int]]:
    return select(func.max(CheckAnswers.c.id)).group_by(CheckAnswers.c.asset_key, CheckAnswers.c.check_name)


def forget_ticks(instance: dg.DagsterInstance, *, before: datetime) -> None:
    """Delete ticks of schedules and sensors that are off or gone; the daemon does it for the others."""
    for state in instance.all_instigator_state():
        instance.purge_ticks(state.instigator_origin_id, state.selector_id, before=before.timestamp())


def remove_leftovers(instance: dg.DagsterInstance, folder: Path, *, before: datetime) -> int:
    """Remove what runs printed that are gone, such as those deleted in the UI; return how many folders."""
    old = [
        path.name
        for path in (folder.iterdir() if folder.is_dir() else ())
        if _RUN_ID.fullmatch(path.name) and path.stat().st_mtime < before.timestamp()
    ]
    gone = [name for name in old if not instance.has_run(name)]
    for name in gone:
        instance.compute_log_manager.delete_logs(prefix=[name])
    return len(gone)


@dg.op(required_resource_keys={"mirror"}, out=dg.Out(dg.Nothing))
def tidy(context: dg.OpExecutionContext) -> None:
    """Remove old runs, ticks, answers of checks, logs, leftovers of the spool, rows of our own books."""
    mirror: MirrorResource = context.resources.mirror
    with ending_gently() as stop, as_failures(context):
        settings = mirror.settings()
        before = datetime.now(UTC) - timedelta(days=settings.run_retention_days)
        printed = settings.twm_data_dir / "dagster" / "storage"
        removed = {
            "runs": forget_runs(context.instance, before=before, should_stop=stop.check),
            "answers_of_checks": forget_answers(context.instance, before=before),
            "printed_by_runs": remove_leftovers(context.instance, printed, before=before),
            "spool_files": sum(Spool(settings.spool_folder, source).sweep() for source in SOURCES),
            "logs_shortened": shorten_logs(settings.twm_data_dir / "logs"),
        }
        forget_ticks(context.instance, before=before)
        with mirror.opened(context.log) as engine, engine.begin() as connection:
            removed |= remove_old(connection)
        context.log.info("removed: %s", ", ".join(f"{count} {name}" for name, count in removed.items()))


@dg.job(
    description=(
        "Removes every night what need not be kept for ever: runs older than RUN_RETENTION_DAYS with their"
        " events, old ticks, answers of checks and logs. The last materialization of every asset stays, and"
        " no row of a vendor is ever removed."
    ),
    metadata=links_of(),
    tags={MAX_RUNTIME: str(LONGEST_RUN_SECONDS)},
    executor_def=dg.in_process_executor,
)
def housekeeping() -> None:
    """Tidy up."""
    tidy()


@dg.schedule(
    name="nightly_housekeeping_schedule",
    job=housekeeping,
    cron_schedule="47 4 * * *",
    execution_timezone=load_settings().timezone,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Removes old runs, events and logs every night, long before they fill the disk.",
)
def nightly_housekeeping(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Request housekeeping unless it is under way."""
    return request_unless_busy(context.instance, housekeeping.name)
