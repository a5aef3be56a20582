"""Time entries and comments of Teamwork: what changed since the checkpoint, whatever order the site lists in.

Both lists are small beside that of tasks, but less is documented of them: whether they come in the order
asked for, and whether `showDeleted` adds deleted rows or replaces the living ones. Both are looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sqlalchemy import text

from twm_pipeline.errors import PagingError
from twm_pipeline.mirror.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from twm_pipeline.mirror.set_aside import SetAside, due_set_aside, resolve_set_aside
from twm_pipeline.mirror.tables import FEEDS
from twm_pipeline.sources.teamwork_rows import changed_at, is_deleted, posted_at, updated_at
from twm_pipeline.sync.engine import RECORD_FAULTS
from twm_pipeline.sync.walks import Order, UpStep, honest_times, is_ascending, key_of, walk_up

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from sqlalchemy import Connection

    from twm_pipeline.mirror.tables import Table
    from twm_pipeline.sources.teamwork import Activity, Page, TeamworkSource
    from twm_pipeline.sync.engine import Pass, PassOptions
    from twm_pipeline.sync.teamwork_absent import AbsentRows

ORDERS = {
    "time_entries": Order(time_of=updated_at),
    # An edit does not move a comment in the list, so edited ones come before what was asked for.
    "task_comments": Order(time_of=posted_at, may_be_older=True),
}
PROBE_ROWS = 50
MAX_READS = 6
MAX_PAGES = 4000


@dataclass(frozen=True, slots=True)
class _Sum:
    """What a whole read held, in a few bytes: two reads with the same sum held the same rows."""

    rows: int = 0
    keys: int = 0

    def plus(self, page: Page) -> _Sum:
        keys = sum(hash(key_of(row)) for row in page.rows)
        return _Sum(self.rows + len(page.rows), (self.keys + keys) & (2**64 - 1))


class FeedReader:
    """Reads time entries and comments.

    Args:
        work: The pass.
        api: The site.
        options: What the pass is asked for.
        absent: Looks for rows by their ids.
        store: Stores a page, with the checkpoint that it reaches.
        overlap: How far a read steps back behind the checkpoint.
    """

    def __init__(  # noqa: PLR0913 - what a pass gives to its parts
        self,
        work: Pass,
        api: TeamworkSource,
        options: PassOptions,
        *,
        absent: AbsentRows,
        store: Callable[[Table, Page, Checkpoint | None], object],
        overlap: timedelta,
    ) -> None:
        self.work = work
        self.api = api
        self.options = options
        self.absent = absent
        self.store = store
        self.overlap = overlap

    def read(self, table: Table) -> None:
        """Read what changed since the checkpoint (or what the options ask for), oldest first."""
        with self.work.read() as connection:
            known = load_checkpoint(connection, "teamwork", table.stream) or Checkpoint()
        if not self.options.moves_checkpoints:
            self._reread(table, known)
            return
        figures = self.work.report.of(table.stream)
        figures.checkpoint_before = known.last_event_time
        checkpoint = self._poll(table, known)
        self._retry(table)
        figures.checkpoint_after = checkpoint.last_event_time
        self.work.note_lag(table.stream, checkpoint.last_event_time)

    def _poll(self, table: Table, known: Checkpoint) -> Checkpoint:
        """Read deleted rows with the others; where those do not come along, read them by themselves."""
        checkpoint, sees_living = known, False
        for step in self.steps(table, known, deleted=True):
            sees_living = sees_living or any(not is_deleted(row) for page in step.pages for row in page.rows)
            reached = _reached(checkpoint, step.newest)
            self._store(table, step, reached if sees_living else None)
            checkpoint = reached if sees_living else checkpoint
            if self._is_over(table):
                return checkpoint
        if sees_living:
            return checkpoint
        asked_at = self.work.vendor_now
        for step in self.steps(table, known, deleted=False):
            newest = min(step.newest, asked_at) if step.newest and asked_at else step.newest
            checkpoint = _reached(checkpoint, newest)
            self._store(table, step, checkpoint)
            if self._is_over(table):
                break
        return checkpoint

    def _is_over(self, table: Table) -> bool:
        """Return whether the rest has to wait for the next pass."""
        figures = self.work.report.of(table.stream)
        if not self.work.slice_is_over():
            return False
        self.work.progress(table.stream, phase="history", done=figures.fetched)
        self.work.report.complete = False
        return True

    def _store(self, table: Table, step: UpStep, checkpoint: Checkpoint | None) -> None:
        """Store a step's pages; the checkpoint is committed with the last of them."""
        for page in step.pages[:-1]:
            self.store(table, page, None)
        for page in step.pages[-1:]:
            self.store(table, page, checkpoint)

    def save(self, connection: Connection, table: Table, checkpoint: Checkpoint) -> None:
        """Move the checkpoint, if this pass may."""
        if self.work.owns_checkpoints and self.options.moves_checkpoints:
            save_checkpoint(connection, "teamwork", table.stream, checkpoint=checkpoint)

    def _reread(self, table: Table, known: Checkpoint) -> None:
        """Read again from a date or from the beginning, without touching the checkpoint."""
        settings = self.work.settings
        since = None if self.options.full else settings.instant(self.options.since)
        until = settings.instant(self.options.until)
        for deleted in (False, True):
            for step in self.steps(table, replace(known, last_event_time=since), deleted=deleted):
                self._store(table, step, None)
                done = self.work.report.of(table.stream).fetched
                self.work.progress(table.stream, phase="reading again", done=done)
                if until and step.newest and step.newest > until:
                    break

    def listing(self, table: Table) -> Iterator[Page]:
        """Yield everything that lives, and then what is known to be deleted.

        Raises:
            PagingError: If the list contradicts itself again and again.
        """
        with self.work.read() as connection:
            known = load_checkpoint(connection, "teamwork", table.stream) or Checkpoint()
        for deleted in (False, True):
            for step in self.steps(table, replace(known, last_event_time=None), deleted=deleted):
                yield from step.pages

    # -- walks -----------------------------------------------------------------------------------------------

    def steps(self, table: Table, known: Checkpoint, *, deleted: bool) -> Iterator[UpStep]:
        """Yield pages of what changed since *known*, each with the place that it reaches."""
        head = known.last_event_time
        start = head - self.overlap if head else None

        def fetch(after: datetime | None, number: int) -> Page:
            page = self.api.fetch_feed(
                table.stream, updated_after=after, page=number, deleted=deleted, fresh=head is not None
            )
            self.work.note_reply(page.reply)
            return page

        first = fetch(start, 1)
        if first.has_more and self._is_ordered(table, deleted=deleted):
            yield from walk_up(fetch, start=start, order=ORDERS[table.stream])
        else:
            yield from walk_until_two_agree(lambda number: fetch(start, number), first, head=head)

    def _is_ordered(self, table: Table, *, deleted: bool) -> bool:
        """Return whether the site lists in the order asked for: also when that is turned round."""
        up, down = (
            self.api.fetch_feed(
                table.stream, page_size=PROBE_ROWS, deleted=deleted, newest_first=newest_first
            )
            for newest_first in (False, True)
        )
        rising, falling = (honest_times(page, ORDERS[table.stream].time_of) for page in (up, down))
        turned = bool(rising and falling) and rising[0] < falling[0]
        return turned and is_ascending(rising) and is_ascending(reversed(falling))

    # -- single rows -----------------------------------------------------------------------------------------

    def follow(self, activity: Activity) -> None:
        """Look at what the activity feed says was deleted or restored, where the mirror has it otherwise."""
        for table in FEEDS:
            gone = activity.deleted.get(table.stream, [])
            back = activity.restored.get(table.stream, [])
            if (gone or back) and self.options.wants(table.stream):
                ids = self._otherwise(table, gone, back)
                self.absent.bury_if_said(table, ids, said=set(gone))

    def _otherwise(self, table: Table, gone: Sequence[int], back: Sequence[int]) -> list[int]:
        with self.work.read() as connection:
            rows = connection.execute(
                text(
                    f"SELECT id FROM {table.name} WHERE (id = ANY(:gone) AND NOT deleted)"  # noqa: S608 - a name from tables.py
                    " OR (id = ANY(:back) AND deleted)"
                ),
                {"gone": list(gone), "back": list(back)},
            )
            return [row.id for row in rows]

    def _retry(self, table: Table) -> None:
        """Try rows again that were set aside."""
        with self.work.read() as connection:
            due = due_set_aside(connection, "teamwork", table.stream)
        ids = [int(item) for item in due if item.isdigit()]
        try:
            gone = self.absent.look_at_rows(table, ids)
        except RECORD_FAULTS as error:
            problems = [SetAside(stream=table.stream, object_id=item, reason=str(error)) for item in due]
            with self.work.commit() as connection:
                self.work.park(connection, problems)
            return
        if gone:
            with self.work.commit() as connection:
                resolve_set_aside(connection, "teamwork", table.stream, gone)


def _reached(checkpoint: Checkpoint, newest: datetime | None) -> Checkpoint:
    head = max(filter(None, (checkpoint.last_event_time, newest)), default=None)
    return replace(checkpoint, last_event_time=head)


def walk_until_two_agree(
    fetch: Callable[[int], Page], first: Page, *, head: datetime | None
) -> Iterator[UpStep]:
    """Yield the pages of a query by their numbers, again and again until two reads held the same.

    Without an order a row may slip from one page to another between two requests, and a page cut short may
    lack any row. A single page on which nothing is newer than *head* is believed at once: if it lacks
    something, the checkpoint does not pass it.
    """
    before: _Sum | None = None
    for _ in range(MAX_READS):
        found, newest, page, number = _Sum(), None, first, 1
        while True:
            found = found.plus(page)
            newest = max([*honest_times(page, changed_at), *([newest] if newest else [])], default=None)
            is_quiet = number == 1 and head is not None and (newest is None or newest <= head)
            is_last = not page.has_more
            settled = is_last and (found == before or is_quiet)
            yield UpStep(pages=(page,), newest=newest if settled else None)
            if settled:
                return
            if is_last:
                break
            if number >= MAX_PAGES:
                msg = f"Teamwork: more than {MAX_PAGES} pages of one list"
                raise PagingError(msg)
            number += 1
            page = fetch(number)
        before = found
        first = fetch(1)
    msg = f"Teamwork: a list changed during each of {MAX_READS} reads"
    raise PagingError(msg)
