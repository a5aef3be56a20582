"""Where Dagster keeps its history: the classes that `dagster.yaml` names, placed by the settings.

A bare `dagster dev` makes a temporary home that is gone when it ends. These classes ignore it: runs, events
and ticks go to PostgreSQL (`DAGSTER_PG_URL`, else the embedded server), logs and artifacts below
`TWM_DATA_DIR`. Nothing of this is written into the instance's reference, which Dagster hands to its processes
on the command line, so no password is visible there.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Self

import psycopg2
from dagster import AssetCheckKey
from dagster._config.config_schema import UserConfigSchema
from dagster._core.execution.compute_logs import redirect_stream
from dagster._core.loader import LoadingContext
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecord
from dagster._core.storage.compute_log_manager import CapturedLogContext, ComputeIOType
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.root import LocalArtifactStorage
from dagster._core.storage.sql import create_engine
from dagster._serdes import ConfigurableClassData
from dagster._utils import touch_file
from dagster_postgres import DagsterPostgresStorage
from sqlalchemy import URL, Engine, event, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry

from twm_pipeline.db import dagster_url
from twm_pipeline.defs.clocks import hide_the_future
from twm_pipeline.settings import load_settings

_Answers = Mapping[AssetCheckKey, AssetCheckExecutionRecord]

STORAGE_LOCK = 74_770_004
LOOKED_FOR = ("runs", "instance_info", "event_logs", "jobs")
SETTLED = {
    "has_built_index",
    "has_instigators_table",
    "_has_instigators_table",
    "has_run_stats_index_cols",
}
"""Whether the database is of today's form: Dagster asks before most statements, and a yes stays true."""
UNUSED_SECONDS = 2.0
"""A connection that was not used for so long is tried first: the server may have been restarted."""


class _PlacedBySettings:
    """A part of the instance that takes no fields from `dagster.yaml`, since the settings say everything."""

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """Return no fields."""
        return {}


class TwmStorage(_PlacedBySettings, DagsterPostgresStorage):
    """Runs, events, schedules and ticks, in the database that the settings name.

    Dagster connects anew for every statement, twenty times a second with nothing to do, which cost more than
    all the rest. Here all instances of a process share one connection, and more while several are needed.
    """

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, _config_value: object) -> Self:
        """Return the storage, its tables made; the embedded server is started if that is where it is."""
        url = dagster_url(load_settings())
        engine = _shared_engine(url)
        address = url.render_as_string(hide_password=False)
        if _has_tables(engine):
            storage = cls(address, should_autocreate_tables=False, inst_data=inst_data)
        else:
            with _one_at_a_time(engine):
                storage = cls(address, inst_data=inst_data)
        for part in (storage._run_storage, storage._event_log_storage, storage._schedule_storage):
            part._engine = engine  # noqa: SLF001 - it offers no other way
            for question in SETTLED & set(dir(part)):
                setattr(part, question, _once_true(getattr(part, question)))
        hide_the_future(storage._schedule_storage)
        events = storage._event_log_storage
        events.get_latest_asset_check_execution_by_key = _until_the_next(  # type: ignore[method-assign]  # as above
            events.get_latest_asset_check_execution_by_key
        )
        return storage


class _Answer(AssetCheckExecutionRecord):
    """The last answer of a check, shown until there is a next one.

    Dagster's UI calls a check "not evaluated" as soon as its asset was materialized again. Here that is once
    a minute, so a check that failed would be seen for a minute an hour.
    """

    async def targets_latest_materialization(self, loading_context: LoadingContext) -> bool:  # noqa: ARG002
        """Return that it counts."""
        return True


class TwmComputeLogManager(_PlacedBySettings, LocalComputeLogManager):
    """What the runs print, in `dagster/storage` below `TWM_DATA_DIR`.

    Dagster also copies it to where the run's process writes, by four further processes for each run. They are
    spared where that is no terminal.
    """

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, _config_value: object) -> Self:
        """Return the manager; its folder is made on first use."""
        return cls(base_dir=str(_folder() / "storage"), inst_data=inst_data)

    @contextmanager
    def capture_logs(self, log_key: Sequence[str]) -> Iterator[CapturedLogContext]:
        """Write what is printed in the block to the files of *log_key*."""
        if sys.stderr.isatty():
            with super().capture_logs(log_key) as context:
                yield context
            return
        with (
            self.open_log_stream(log_key, ComputeIOType.STDOUT) as out,
            self.open_log_stream(log_key, ComputeIOType.STDERR) as err,
            redirect_stream(out, sys.stdout),
            redirect_stream(err, sys.stderr),
        ):
            yield CapturedLogContext(log_key)
        touch_file(self.complete_artifact_path(log_key))  # type: ignore[no-untyped-call]  # Dagster's own


class TwmArtifactStorage(_PlacedBySettings, LocalArtifactStorage):
    """Files of the runs, in `dagster` below `TWM_DATA_DIR`."""

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, _config_value: object) -> Self:
        """Return the storage; its folders are made on first use."""
        return cls(base_dir=str(_folder()), inst_data=inst_data)


@cache
def _shared_engine(url: URL) -> Engine:
    engine = create_engine(url, isolation_level="AUTOCOMMIT", pool_size=1, max_overflow=20)

    @event.listens_for(engine, "checkin")
    def note_use(_connection: object, record: ConnectionPoolEntry) -> None:
        record.info["used"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def try_out(connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: object) -> None:
        if time.monotonic() - record.info.get("used", math.inf) > UNUSED_SECONDS:
            try:
                engine.dialect.do_ping(connection)
            except psycopg2.Error as error:
                raise DisconnectionError from error  # the pool then connects anew

    return engine


def _once_true(ask: Callable[..., bool]) -> Callable[..., bool]:
    """Return *ask*, which asks no more what was answered with yes."""
    settled: set[tuple[str, ...]] = set()

    def answer(*given: object) -> bool:
        about = tuple(item for item in given if isinstance(item, str))  # and not the connection
        if about not in settled and not ask(*given):
            return False
        settled.add(about)
        return True

    return answer


def _until_the_next(ask: Callable[..., _Answers]) -> Callable[..., _Answers]:
    """Return *ask*, whose answers of checks are shown until the next ones."""

    def answer(*given: object, **options: object) -> _Answers:
        found = ask(*given, **options)
        return {key: _Answer(**record._asdict()) for key, record in found.items()}

    return answer


def _has_tables(engine: Engine) -> bool:
    """Return whether every part of the storage would find the table that it looks for."""
    names = ", ".join(f"to_regclass('{name}')" for name in LOOKED_FOR)
    with engine.connect() as connection:
        return bool(connection.scalar(text(f"SELECT num_nulls({names}) = 0")))


@contextmanager
def _one_at_a_time(engine: Engine) -> Iterator[None]:
    """Let one process at once make the tables: `twm up` starts several on a database that may be empty.

    Dagster tries again by itself when another process was faster, but not often enough on a busy machine.
    """
    with engine.connect() as connection:
        connection.detach()  # closed in the end, and the lock with it
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": STORAGE_LOCK})
        yield


def _folder() -> Path:
    """Return the folder of everything that Dagster keeps in files, which is its owner's own."""
    folder = load_settings().twm_data_dir / "dagster"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
