"""Where Dagster keeps its history: the classes that `dagster.yaml` names, placed by the settings.

A bare `dagster dev` makes a temporary home that is gone when it ends. These classes ignore it: runs, events
and ticks go to PostgreSQL (`DAGSTER_PG_URL`, else the embedded server), logs and artifacts below
`TWM_DATA_DIR`. Nothing of this is written into the instance's reference, which Dagster hands to its processes
on the command line, so no password is visible there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from dagster._config.config_schema import UserConfigSchema
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.root import LocalArtifactStorage
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage
from sqlalchemy import URL, text

from twm_pipeline.db import dagster_url, open_engine
from twm_pipeline.settings import load_settings

STORAGE_LOCK = 74_770_004


class _PlacedBySettings:
    """A part of the instance that takes no fields from `dagster.yaml`, since the settings say everything."""

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """Return no fields."""
        return {}


class TwmStorage(_PlacedBySettings, DagsterPostgresStorage):
    """Runs, events, schedules and ticks, in the database that the settings name."""

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, _config_value: object) -> Self:
        """Return the storage, its tables made; the embedded server is started if that is where it is."""
        url = dagster_url(load_settings())
        with _one_at_a_time(url):
            return cls(postgres_url=url.render_as_string(hide_password=False), inst_data=inst_data)


class TwmComputeLogManager(_PlacedBySettings, LocalComputeLogManager):
    """What the runs print, in `dagster/storage` below `TWM_DATA_DIR`."""

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, _config_value: object) -> Self:
        """Return the manager; its folder is made on first use."""
        return cls(base_dir=str(_folder() / "storage"), inst_data=inst_data)


class TwmArtifactStorage(_PlacedBySettings, LocalArtifactStorage):
    """Files of the runs, in `dagster` below `TWM_DATA_DIR`."""

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, _config_value: object) -> Self:
        """Return the storage; its folders are made on first use."""
        return cls(base_dir=str(_folder()), inst_data=inst_data)


@contextmanager
def _one_at_a_time(url: URL) -> Iterator[None]:
    """Let one process at once make the tables: `twm up` starts several on a database that may be empty.

    Dagster tries again by itself when another process was faster, but not often enough on a busy machine.
    """
    engine = open_engine(url, pool_size=1)
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": STORAGE_LOCK})
            yield
    finally:
        engine.dispose()


def _folder() -> Path:
    return load_settings().twm_data_dir / "dagster"
