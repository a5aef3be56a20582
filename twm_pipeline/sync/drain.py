"""The drain of a window: deliveries in the spool become re-reads, beside the polls and before all else.

It runs in a thread of its own, so that an event waits neither for a poll nor for history; both share one
request budget, in which fresh changes come first. Checkpoints are the polls' business: the drain moves none.
"""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from twm_pipeline.errors import (
    AccessError,
    CollisionError,
    RecordError,
    RetriableError,
    TwmError,
    WindowClosedError,
    place_of,
)
from twm_pipeline.mirror.set_aside import SetAside, reasons_set_aside
from twm_pipeline.spool import Entry, Spool
from twm_pipeline.sync.changes import Change, Changes, open_changes
from twm_pipeline.sync.engine import RECORD_FAULTS, PassReport, open_pass
from twm_pipeline.sync.outages import pause_after
from twm_pipeline.sync.watch import watching

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

    from twm_pipeline.records import Source
    from twm_pipeline.settings import Settings

logger = logging.getLogger(__name__)

ENTRIES_PER_ROUND = 200
OBJECT_FAULTS = (*RECORD_FAULTS, AccessError)
"""Failures that may be one object's own; whether they are, another request of the same vendor shows."""
LONGEST_WAIT_SECONDS = 1.0
"""So often the spool is looked at even where the file system tells of nothing."""
JOIN_SECONDS = 90.0
"""A request that is under way when a window ends may take this long to be answered or given up."""


@dataclass
class Drain:
    """Applies the entries of one source's spool; only the holder of the window's lock has one.

    Args:
        engine: The mirror.
        settings: The deployment's settings.
        source: The vendor.
        should_stop: Raises `WindowClosedError` when the window is over.
    """

    engine: Engine
    settings: Settings
    source: Source
    should_stop: Callable[[], None] = lambda: None
    failure: BaseException | None = None
    poll_wanted: threading.Event = field(default_factory=threading.Event)
    _news: threading.Event = field(default_factory=threading.Event)
    _closing: threading.Event = field(default_factory=threading.Event)
    _reports: SimpleQueue[PassReport] = field(default_factory=SimpleQueue)

    def __post_init__(self) -> None:
        self.spool = spool_of(self.settings, self.source)

    def reports(self) -> Iterator[PassReport]:
        """Yield the reports of the rounds that have ended since the last call."""
        while True:
            try:
                yield self._reports.get_nowait()
            except Empty:
                return

    def run_once(self) -> None:
        """Apply everything that waits, in this thread.

        Raises:
            TwmError: What stopped it; what was not applied waits again.
        """
        self._tidy_up()
        if self.spool.waiting().count:
            with self._opened() as changes:
                while self._round(changes):
                    pass

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Apply entries as they come, in a thread of its own, while the block runs."""
        self._tidy_up()
        # In the window's context: the lines of the thread tell the same source and run.
        context = contextvars.copy_context()
        thread = threading.Thread(
            target=context.run, args=(self._listen,), name=f"{self.source}-drain", daemon=True
        )
        with watching(self.settings.spool_folder / self.source / "new", self._news):
            thread.start()
            try:
                yield
            finally:
                self._closing.set()
                self._news.set()
                thread.join(JOIN_SECONDS)

    def _tidy_up(self) -> None:
        """Take back what dead processes had claimed, and remove what they left half-written."""
        self.spool.take_back()
        self.spool.sweep()

    def _check(self) -> None:
        if self._closing.is_set():
            msg = "The window is over."
            raise WindowClosedError(msg)
        self.should_stop()

    def _listen(self) -> None:
        while not self._closing.is_set():
            try:
                if self._await_entries():
                    with self._opened() as changes:
                        self._work(changes)
            except WindowClosedError:
                return
            except CollisionError as error:
                logger.info("%s: %s", self.source, error)
            except (RetriableError, OSError) as error:
                logger.warning("%s: deliveries wait: %s", self.source, error)
                self._closing.wait(pause_after(error))
            except Exception as error:  # noqa: BLE001 - handed to the window's thread, which raises it
                self.failure = error
                return

    def _work(self, changes: Changes) -> None:
        """Apply entries until the window is over; the session to the vendor stays open."""
        while True:
            self._check()
            if not self._round(changes):
                self._await_entries()

    def _await_entries(self) -> bool:
        """Wait until entries are there; return False when the window is over."""
        while not self._closing.is_set():
            self._news.clear()
            waiting = self.spool.waiting()
            if waiting.new or waiting.due:
                return True
            self._news.wait(LONGEST_WAIT_SECONDS)
            self.should_stop()
        return False

    @contextmanager
    def _opened(self) -> Iterator[Changes]:
        with open_pass(
            self.engine,
            self.settings,
            self.source,
            owns_checkpoints=False,
            should_stop=self._check,
            is_hasty=True,
        ) as work:
            yield open_changes(work)

    def _round(self, changes: Changes) -> bool:
        """Claim some entries and apply them; return False when none waits."""
        # Retries are rounds of their own: what was faulty before must not hold up what is fresh.
        entries = self.spool.claim(limit=ENTRIES_PER_ROUND, retries=False) or self.spool.claim(
            limit=ENTRIES_PER_ROUND
        )
        if not entries:
            return False
        changes.work.begin_report()
        began = time.monotonic()
        batch = _Batch(self, changes, entries)
        try:
            batch.apply()
        finally:
            batch.release_rest()
            changes.work.count_traffic()
            self._reports.put(changes.work.report)
        logger.debug(  # a line costs Dagster more than the round; its materializations tell the same
            "%s: %d deliveries about %d objects applied, %d faulty, %.0f ms",
            self.source,
            len(entries),
            batch.objects,
            batch.faulty,
            (time.monotonic() - began) * 1000,
        )
        return True


class _Batch:
    """Claimed entries, grouped by the object they name: two about one object are one re-read."""

    def __init__(self, drain: Drain, changes: Changes, entries: Sequence[Entry]) -> None:
        self.drain = drain
        self.changes = changes
        self.faulty = 0
        self._entries: dict[Change, list[Entry]] = _grouped(entries)
        self.objects = len(self._entries)

    def apply(self) -> None:
        """Apply every change; an object at fault holds up no other.

        Raises:
            TwmError: An outage, or what stops the whole source.
        """
        for change in [change for change in self._entries if change.object_id == ""]:
            self.drain.poll_wanted.set()
            self._finish(change)
        work = list(self._entries)
        if work:
            self._apply(work)

    def release_rest(self) -> None:
        """Give back what was not applied: an outage counts nothing."""
        for entries in self._entries.values():
            for entry in entries:
                self.drain.spool.release(entry)

    def _apply(self, work: Sequence[Change]) -> None:
        try:
            more = self.changes.apply(work)
        except OBJECT_FAULTS as error:
            self._divide(work, error)
            return
        except (TwmError, SQLAlchemyError, OSError):
            raise
        except Exception as error:  # noqa: BLE001 - a defect that one object meets must not hold up the others
            self._divide(work, RecordError(f"a defect of this program: {place_of(error)}"))
            return
        if more:
            self.drain.poll_wanted.set()
        reasons = self._set_aside_reasons(work)
        for change in work:
            reason = reasons.get((change.stream, change.object_id))
            if reason is None:
                self._finish(change)
            else:
                self._fail(change, reason)

    def _divide(self, work: Sequence[Change], error: TwmError) -> None:
        """Apply both halves of *work*, or blame its only object, if the vendor answers anything else."""
        try:
            self.changes.probe()
        except OBJECT_FAULTS:
            raise error from None
        if len(work) == 1:
            self._set_aside(work[0], str(error))
            self._fail(work[0], str(error))
            return
        middle = len(work) // 2
        self._apply(work[:middle])
        self._apply(work[middle:])

    def _set_aside_reasons(self, work: Sequence[Change]) -> dict[tuple[str, str], str]:
        """Return why objects of *work* could not be used, where that is so."""
        if not any(figures.set_aside for figures in self.changes.work.report.streams.values()):
            return {}
        with self.changes.work.read() as connection:
            ids = [change.object_id for change in work]
            return reasons_set_aside(connection, self.drain.source, ids)

    def _set_aside(self, change: Change, reason: str) -> None:
        """Park the object: it is tried again for ever, with growing waits, when its entry is dead."""
        problem = SetAside(stream=change.stream, object_id=change.object_id, reason=reason)
        with self.changes.work.commit() as connection:
            self.changes.work.park(connection, [problem])

    def _finish(self, change: Change) -> None:
        entries = self._entries.pop(change)
        for entry in entries:
            self.drain.spool.done(entry)
        if change.object_id:
            self.changes.work.report.of(change.stream).deliveries += len(entries)

    def _fail(self, change: Change, reason: str) -> None:
        self.faulty += 1
        settings = self.drain.settings
        for entry in self._entries.pop(change):
            dead = self.drain.spool.fail(
                entry,
                reason,
                most_attempts=settings.max_queue_attempts,
                first_wait_seconds=settings.spool_retry_seconds,
            )
            if dead:
                logger.error(
                    "%s: a delivery about %s %s is dead",
                    self.drain.source,
                    change.stream,
                    change.object_id,
                    extra={"object": f"{change.stream}/{change.object_id}"},
                )


def spool_of(settings: Settings, source: Source) -> Spool:
    """Return the spool of *source*."""
    return Spool(settings.spool_folder, source, reserve_bytes=settings.spool_reserve_megabytes * 1_000_000)


def _grouped(entries: Sequence[Entry]) -> dict[Change, list[Entry]]:
    """Return the entries of each object; those that name none are under one that has no id."""
    objects: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        hint = entry.envelope.hint
        known = hint.stream is not None and hint.object_id is not None
        key = (str(hint.stream), str(hint.object_id)) if known else ("", "")
        objects.setdefault(key, []).append(entry)
    return {
        Change(
            stream=stream,
            object_id=object_id,
            events=frozenset(entry.envelope.hint.event for entry in group),
        ): group
        for (stream, object_id), group in objects.items()
    }
