"""What the assets and jobs work with: the mirror and the vendors, as the settings describe them.

The resources hold no address and no secret of their own: both are read when a run starts, so a change of
`.env` counts from the next run on. What the UI shows of it are the links of `defs/places.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from sqlalchemy import Connection, Engine, text

from twm_pipeline.db import connect_database
from twm_pipeline.records import SOURCES, Source
from twm_pipeline.settings import Settings, load_settings
from twm_pipeline.sync.accounts import configured_sources
from twm_pipeline.sync.window import prepare

NEEDED: dict[Source, str] = {
    "teamwork": "TEAMWORK_BASE_URL and TEAMWORK_API_KEY",
    "missive": "MISSIVE_API_TOKEN",
}


def why_switched_off(settings: Settings, source: Source) -> str | None:
    """Return what to set before *source* can be read, or None if it can be."""
    if source in configured_sources(settings):
        return None
    return f"{source.capitalize()} is switched off: set {NEEDED[source]} in .env or the environment."


def why_all_switched_off(settings: Settings) -> str | None:
    """Return what to set before any source can be read, or None if one can be."""
    reasons = [why_switched_off(settings, source) for source in SOURCES]
    return " ".join(filter(None, reasons)) if all(reasons) else None


class MirrorResource(dg.ConfigurableResource[None]):
    """The mirror: the PostgreSQL database of `PG_DSN`, else the embedded server, which is started."""

    def settings(self) -> Settings:
        """Return the deployment's settings as they are now.

        Raises:
            ConfigError: If one of them cannot be used.
        """
        return load_settings()

    @contextmanager
    def opened(self, log: dg.DagsterLogManager) -> Iterator[Engine]:
        """Give an engine on the mirror, its tables and views up to date.

        Raises:
            ConfigError: If the settings cannot be used.
            DatabaseUnavailableError: If PostgreSQL does not answer.
        """
        settings = self.settings()
        logging.getLogger("twm_pipeline").setLevel(settings.log_level)
        engine = connect_database(settings)
        try:
            for problem in prepare(engine, settings):
                log.warning(problem)
            yield engine
        finally:
            engine.dispose()


@contextmanager
def glance(settings: Settings, table: str) -> Iterator[Connection | None]:
    """Give a connection for one look into the mirror as it is, or None before *table* was made.

    For sensors and schedules: they make no tables, and keep no connection from one look to the next.

    Raises:
        DatabaseUnavailableError: If PostgreSQL does not answer.
    """
    engine = connect_database(settings)
    try:
        with engine.connect() as connection:
            is_made = connection.scalar(text("SELECT to_regclass(:table) IS NOT NULL"), {"table": table})
            yield connection if is_made else None
    finally:
        engine.dispose()


class VendorResource(dg.ConfigurableResource[None]):
    """One of the two vendors; its address, credentials and request budget come from the settings."""

    source: str

    def why_switched_off(self, settings: Settings) -> str | None:
        """Return what to set before the vendor can be read, or None if it can be."""
        return next((why_switched_off(settings, name) for name in NEEDED if name == self.source), None)
