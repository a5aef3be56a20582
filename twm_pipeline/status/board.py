"""The figures as a running page has them: read when somebody asks, never more often than they are worth."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from twm_pipeline.db import embedded_server, open_engine, translate_errors
from twm_pipeline.db.engine import MIRROR_DATABASE, parse_dsn
from twm_pipeline.errors import DatabaseUnavailableError, TwmError
from twm_pipeline.mirror.insights import load_plot
from twm_pipeline.status.figures import count_everything, read_figures, read_local_figures

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine

    from twm_pipeline.records import Json
    from twm_pipeline.settings import Settings

FRESH_SECONDS = 2.0
"""So long everybody is shown the same figures, however many browsers ask."""
COUNT_SHARE = 20
"""Rows are counted again after this many times the seconds that it took."""
LEAST_COUNT_SECONDS = 10.0
CONNECT_SECONDS = 3
STATEMENT_SECONDS = 20


@dataclass
class Counts:
    """What takes long to count, counted the more rarely the longer it takes."""

    clock: Callable[[], float] = time.monotonic
    _counted: Json = field(default_factory=dict)
    _due: float = 0.0

    def __call__(self, connection: Connection, settings: Settings) -> Json:
        """Return the counts, which may be a little old."""
        began = self.clock()
        if not self._counted or began >= self._due:
            self._counted = count_everything(connection, settings)
            now = self.clock()
            self._due = now + max(LEAST_COUNT_SECONDS, COUNT_SHARE * (now - began))
        return self._counted


class Board:
    """What the page and the metrics show; made for many threads.

    It reads only (PostgreSQL is told so), starts no server, and has an answer while PostgreSQL has none.

    Args:
        settings: Of the deployment.
        clock: Seconds that only grow.
    """

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings = settings
        self._clock = clock
        self._turn = threading.Lock()
        self._count = Counts(clock)
        self._engine: Engine | None = None
        self._figures: Json = {}
        self._read_at = float("-inf")

    def figures(self) -> Json:
        """Return the figures of this moment, or of a moment ago."""
        with self._turn:
            if self._clock() - self._read_at >= FRESH_SECONDS:
                self._figures = self._read()
                self._read_at = self._clock()
            return self._figures

    def plot(self, name: str) -> bytes | None:
        """Return a picture of an insight as a PNG; None where there is none, or no answer."""
        with self._turn:
            try:
                url = self._address()
                with translate_errors(url), self._engine_for(url).connect() as connection:
                    return load_plot(connection, name)
            except (TwmError, DBAPIError):
                self._forget_engine()
                return None

    def close(self) -> None:
        """Give the connections back."""
        with self._turn:
            self._forget_engine()

    def _read(self) -> Json:
        try:
            url = self._address()
            with translate_errors(url), self._engine_for(url).connect() as connection:
                return read_figures(connection, self.settings, count=self._count)
        except TwmError as error:
            self._forget_engine()
            return read_local_figures(self.settings, problem=str(error))
        except DBAPIError as error:
            refusal = f"PostgreSQL refused a statement: {type(error.orig).__name__}."
            problem = f"{refusal} `twm up` brings its tables up to date."
            return read_local_figures(self.settings, problem=problem)

    def _address(self) -> URL:
        """Return where the mirror is, without starting its server."""
        if self.settings.pg_dsn is not None:
            return parse_dsn(self.settings.pg_dsn.get_secret_value(), name="PG_DSN")
        try:
            return embedded_server(self.settings).url(MIRROR_DATABASE)
        except OSError as error:
            msg = "The embedded PostgreSQL has not been started here; `twm up` starts it."
            raise DatabaseUnavailableError(msg) from error

    def _engine_for(self, url: URL) -> Engine:
        """Return the engine; a new one where the embedded server came up on another port."""
        limits = f"-c default_transaction_read_only=on -c statement_timeout={STATEMENT_SECONDS}s"
        options = f"{url.query.get('options', '')} {limits}".strip()
        mine = url.update_query_dict(
            {
                "connect_timeout": str(CONNECT_SECONDS),
                "tcp_user_timeout": str(1000 * STATEMENT_SECONDS),
                "options": options,
                "application_name": "twm status page",
            }
        )
        if self._engine is None or self._engine.url != mine:
            self._forget_engine()
            self._engine = open_engine(mine, pool_size=1)
        return self._engine

    def _forget_engine(self) -> None:
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None
