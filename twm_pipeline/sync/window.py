"""The loop of DESIGN D2: one window per source, poll when due, fresh changes before history."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from twm_pipeline.errors import (
    CollisionError,
    ConfigError,
    RetriableError,
    TwmError,
    WindowClosedError,
    place_of,
)
from twm_pipeline.labels import load_categories
from twm_pipeline.logs import about
from twm_pipeline.mirror.activity import fold_activity
from twm_pipeline.mirror.changelog import follow_changes
from twm_pipeline.mirror.checkpoints import note_outcome
from twm_pipeline.mirror.drift import note_fields
from twm_pipeline.mirror.schema import categorize, migrate
from twm_pipeline.mirror.tables import TABLES
from twm_pipeline.settings import POLL_SECONDS
from twm_pipeline.sync.drain import Drain
from twm_pipeline.sync.engine import PassOptions, PassReport, open_pass
from twm_pipeline.sync.missive import MissivePass
from twm_pipeline.sync.outages import pause_after
from twm_pipeline.sync.reconcile import ReconcileOptions, reconcile
from twm_pipeline.sync.refusals import recall_refusals
from twm_pipeline.sync.teamwork import TeamworkPass
from twm_pipeline.sync.window_lock import window_lock

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

    from twm_pipeline.records import Source
    from twm_pipeline.settings import Settings
    from twm_pipeline.sync.window_lock import WindowLock

logger = logging.getLogger(__name__)

LONGEST_SLEEP_SECONDS = 1.0
SECONDARY_SECONDS = 120.0
"""Secondary mailboxes and feeds are read no more often than this: with the rest, a poll every five seconds
then takes less than a quarter of any budget; the smallest is Missive's 900 requests in 15 minutes."""
ASKED_POLL_SECONDS = 5.0
"""A delivery that names no object asks for a poll; not sooner than this after the one before."""


def prepare(engine: Engine, settings: Settings) -> list[str]:
    """Bring the mirror up to date and apply the label categories; return what is wrong with the latter.

    An invalid categories file stops nothing: the columns stay as they were. Changes are logged where they are
    published, and nowhere else.
    """
    migrate(engine)
    with engine.begin() as connection:
        follow_changes(connection, wanted=settings.publishes and settings.can_publish)
        fold_activity(connection)
    try:
        categorize(engine, load_categories(settings.label_categories_file))
    except ConfigError as error:
        logger.error("%s", error)  # noqa: TRY400 - an operator's mistake needs no traceback
        return [str(error)]
    return []


def run_pass(  # noqa: PLR0913 - the one place where a pass is put together
    engine: Engine,
    settings: Settings,
    source: Source,
    *,
    options: PassOptions,
    owns_checkpoints: bool = True,
    should_stop: Callable[[], None] = lambda: None,
    slice_is_over: Callable[[], bool] = lambda: False,
    on_commit: Callable[[PassReport], None] = lambda _: None,
) -> PassReport:
    """Do one pass over *source* and return its report; how it ended is noted for status and doctor."""
    try:
        with open_pass(
            engine,
            settings,
            source,
            owns_checkpoints=owns_checkpoints,
            should_stop=should_stop,
            slice_is_over=slice_is_over,
            on_commit=on_commit,
        ) as work:
            recall_refusals(work)  # a commit of this pass verifies nothing of what is refused
            if source == "teamwork":
                TeamworkPass(work, options).run()
            else:
                MissivePass(work, options).run()
    except WindowClosedError as error:
        work.report.complete = False
        work.report.closed = str(error)
        return work.report
    except TwmError as error:
        _note(engine, source, str(error))
        raise
    _note(engine, source, None)
    return work.report


def run_reconcile(  # noqa: PLR0913 - as run_pass
    engine: Engine,
    settings: Settings,
    source: Source,
    *,
    options: ReconcileOptions,
    should_stop: Callable[[], None] = lambda: None,
    on_commit: Callable[[PassReport], None] = lambda _: None,
) -> tuple[dict[str, int], PassReport]:
    """Sweep *source* completely; return rows gone per stream, and the report.

    Raises:
        WindowClosedError: If *should_stop* ended it; what is stored stays.
    """
    with (
        about(source=source),
        open_pass(
            engine,
            settings,
            source,
            owns_checkpoints=False,
            should_stop=should_stop,
            on_commit=on_commit,
            is_dry=options.dry_run,
        ) as work,
    ):
        gone = reconcile(work, options)
    return gone, work.report


def _note(engine: Engine, source: Source, error: str | None) -> None:
    try:
        with engine.begin() as connection:
            note_outcome(connection, source, error=error)
    except DBAPIError:
        logger.warning("how the pass ended could not be noted: PostgreSQL does not answer")


@dataclass
class Window:
    """One run's period of listening to one source.

    Args:
        engine: The mirror.
        settings: The deployment's settings.
        source: The vendor.
        seconds: How long it lasts; 0: until one pass is complete.
        on_report: Told after every pass.
        on_commit: Told after every commit of a pass.
        on_drain: Told after deliveries have been applied.
        should_stop: Asked now and then; raises `WindowClosedError` when somebody wants the window to end.
        sleep: Replaced by tests.
    """

    engine: Engine
    settings: Settings
    source: Source
    seconds: float
    on_report: Callable[[PassReport], None] = lambda _: None
    on_commit: Callable[[PassReport], None] = lambda _: None
    on_drain: Callable[[PassReport], None] = lambda _: None
    should_stop: Callable[[], None] = lambda: None
    sleep: Callable[[float], None] = time.sleep
    _drain: Drain | None = None
    _secondary_at: float = float("-inf")
    _fields_noted: bool = False

    def run(self, options: PassOptions) -> bool:
        """Run passes until the time is over; return False when another window holds the lock.

        A pass without the lock (on demand, beside a window) still runs, but moves no checkpoint. One that
        moves none anyway, such as reading again from a date, does without the lock and is in nobody's way.

        Raises:
            TwmError: What stopped the source; an outage only if it lasted to the end of the window.
        """
        with about(source=self.source):
            return self._run(options)

    def _run(self, options: PassOptions) -> bool:
        if not options.moves_checkpoints:
            self._loop(options, None, deadline=None)
            return True
        deadline = time.monotonic() + self.seconds if self.seconds > 0 else None
        with window_lock(self.engine, self.source) as lock, ExitStack() as stack:
            whole = options == PassOptions()
            if lock is None and whole and self.seconds > 0:
                return False
            if lock is not None and whole:
                self._open_drain(stack, lock, deadline)
            self._loop(options, lock, deadline=deadline)
            return True

    def _open_drain(self, stack: ExitStack, lock: WindowLock, deadline: float | None) -> None:
        """Apply waiting deliveries now, or from now on beside the polls, until *stack* is closed."""
        drain = Drain(self.engine, self.settings, self.source, should_stop=self._stopper(lock, deadline))
        if deadline is None:
            drain.run_once()
        else:
            stack.callback(lambda: self._tell_drained(drain))
            stack.enter_context(drain.listening())
        self._tell_drained(drain)
        self._drain = drain

    def _tell_drained(self, drain: Drain) -> None:
        for report in drain.reports():
            self.on_drain(report)

    def _stopper(self, lock: WindowLock | None, deadline: float | None) -> Callable[[], None]:
        """Return what raises `WindowClosedError` when somebody or something ends the window."""

        def should_stop() -> None:
            self.should_stop()
            if lock is not None:
                lock.verify()
            if deadline is not None and time.monotonic() >= deadline:
                msg = "The window is over."
                raise WindowClosedError(msg)

        return should_stop

    def _loop(self, options: PassOptions, lock: WindowLock | None, *, deadline: float | None) -> None:
        outage: RetriableError | None = None
        while True:
            begun = time.monotonic()
            try:
                report = self._pass(options, lock, deadline)
                outage = None
            except RetriableError as error:
                if deadline is None and not isinstance(error, CollisionError):
                    raise
                logger.warning("%s: %s", self.source, error)
                outage, report = error, None
            if report is not None:
                self.on_report(report)
                if report.closed:
                    self._end(report.closed, deadline)
                    break
                if deadline is None and (report.complete or lock is None or not options.moves_checkpoints):
                    break
            pause = self._pause(report, begun, outage)
            asked_from = begun + ASKED_POLL_SECONDS if outage is None else None
            if deadline is None:
                self._wait(pause, lock, asked_from=asked_from)
            elif not self._wait_within(pause, deadline, lock, asked_from=asked_from):
                break
        if outage is not None:
            raise outage

    def _end(self, reason: str, deadline: float | None) -> None:
        """Say why the window ends; work that was asked for and is not done is an error."""
        logger.info("%s: %s", self.source, reason)
        if deadline is None:
            raise WindowClosedError(reason)

    def _pass(self, options: PassOptions, lock: WindowLock | None, deadline: float | None) -> PassReport:
        now = time.monotonic()
        slice_ends = now + self.settings.poll_seconds
        secondary = now - self._secondary_at >= self._secondary_beat
        report = run_pass(
            self.engine,
            self.settings,
            self.source,
            options=replace(options, secondary=secondary),
            owns_checkpoints=lock is not None,
            should_stop=self._stopper(lock, deadline),
            slice_is_over=lambda: options.moves_checkpoints and time.monotonic() >= slice_ends,
            on_commit=self.on_commit,
        )
        if secondary:
            self._secondary_at = now
        if report.complete and options.moves_checkpoints and not self._fields_noted:
            self._note_fields()
        return report

    def _note_fields(self) -> None:
        """Note once a window which fields the vendor sends; what comes later is news (see `mirror/drift`)."""
        self._fields_noted = True
        try:
            for table in TABLES:
                if table.source == self.source:
                    note_fields(self.engine, table)
        except DBAPIError as error:
            logger.warning("%s: fields could not be noted: %s", self.source, type(error.orig).__name__)

    @property
    def _secondary_beat(self) -> float:
        """Seconds between two reads of the secondary mailboxes and feeds; 0: every poll reads them."""
        settings = self.settings
        rare = settings.poll_seconds * settings.budget_time_scale >= POLL_SECONDS
        return 0.0 if rare else SECONDARY_SECONDS / settings.budget_time_scale

    def _pause(self, report: PassReport | None, begun: float, outage: RetriableError | None) -> float:
        """Return seconds until the next pass: none while history is left, else the interval."""
        if isinstance(outage, CollisionError):
            return 0.0
        if outage is not None:
            return pause_after(outage)
        if report is not None and not report.complete:
            return 0.0
        return max(begun + self.settings.poll_seconds - time.monotonic(), 0.0)

    def _wait_within(
        self, seconds: float, deadline: float, lock: WindowLock | None, *, asked_from: float | None
    ) -> bool:
        """Wait as `_wait`, listening to the very end of the window; return False when it has come."""
        try:
            self._wait(min(seconds, deadline - time.monotonic()), lock, asked_from=asked_from)
        except WindowClosedError:
            if time.monotonic() < deadline:
                raise
        return time.monotonic() < deadline

    def _wait(self, seconds: float, lock: WindowLock | None, *, asked_from: float | None) -> None:
        """Sleep until the next poll is due, or until a delivery asks for one from *asked_from* on."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.should_stop()
            self.sleep(min(left, LONGEST_SLEEP_SECONDS))
            if lock is not None:
                lock.verify()
            if self._drain is not None and self._is_asked(self._drain, asked_from):
                return

    def _is_asked(self, drain: Drain, asked_from: float | None) -> bool:
        """Tell of the deliveries applied meanwhile, and return whether one of them asks for a poll now.

        Raises:
            TwmError: What stopped the drain.
        """
        self._tell_drained(drain)
        if drain.failure is not None:
            failure = drain.failure
            _note(
                self.engine, self.source, str(failure) if isinstance(failure, TwmError) else place_of(failure)
            )
            raise drain.failure
        if asked_from is None or time.monotonic() < asked_from or not drain.poll_wanted.is_set():
            return False
        drain.poll_wanted.clear()
        return True
