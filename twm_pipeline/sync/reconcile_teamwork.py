"""A complete sweep of Teamwork: every living task, the deleted ones and the directories, listed in full."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from twm_pipeline.mirror.checkpoints import from_iso, to_iso
from twm_pipeline.mirror.tables import DIRECTORIES, FEEDS, TASK_COMMENTS, TASKS
from twm_pipeline.mirror.tombstones import count_rows, follow_tasks, newest_version
from twm_pipeline.sources.fields import plain_id
from twm_pipeline.sync.engine import PassOptions
from twm_pipeline.sync.refusals import read_unless_refused
from twm_pipeline.sync.teamwork import TeamworkPass
from twm_pipeline.sync.walks import ONE_SECOND, UpStep, walk_up

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twm_pipeline.mirror.sweeps import Sweep
    from twm_pipeline.mirror.tables import Table
    from twm_pipeline.sources.teamwork import Page
    from twm_pipeline.sync.engine import Pass


class TeamworkSweep:
    """The steps of a sweep over one site.

    Args:
        work: An open pass; it moves no checkpoint.
        sweep: What was seen, and the place: `tasks` (the update after which their list goes on), `listed`
            (whether it has ended). Directories are so short that they are listed anew.
        confirmed: Whether mass deletions are believed.
    """

    def __init__(self, work: Pass, sweep: Sweep, *, confirmed: bool) -> None:
        self.work = work
        self.sweep = sweep
        self.confirmed = confirmed
        self.sync = TeamworkPass(work, PassOptions(directories=True))
        self.done = sweep.count_seen(TASKS)

    def run(self) -> dict[str, int]:
        """Take the steps in their order; return per stream how many rows are gone for good."""
        self.sync.follow_scope()
        if not self.sweep.place.get("listed"):
            self._list_tasks()
        self.sync.read_deleted_in_full(on_page=lambda page: self.sweep.see(TASKS, _ids_of([page])))
        directories = [table for table in DIRECTORIES if self._list_directory(table)]
        feeds = [table for table in FEEDS if self._may_list_feed(table)]
        # Projects before what is in them: whether theirs was deleted decides what an absent task is.
        return {table.stream: self._judge(table) for table in (*directories, TASKS, *feeds)}

    def _list_tasks(self) -> None:
        """List every living task and store it."""
        with self.work.read() as connection:
            total, newest = count_rows(connection, TASKS), newest_version(connection, TASKS)
        after = from_iso(self.sweep.place.get("tasks"))
        start = after - ONE_SECOND if after else None
        for step in walk_up(self.sync.fetcher(fresh=False), start=start, until=newest):
            self._store(step)
            self.work.progress("tasks", phase="reconcile", done=self.done, total=max(total, self.done))
        self.sweep.place["listed"] = True
        self.sweep.save()

    def _store(self, step: UpStep) -> None:
        ids = _ids_of(step.pages)
        self.done += len(self.sweep.unseen(TASKS, ids))
        self.sync.store_tasks(step.pages)
        self.sweep.see(TASKS, ids)
        self.sweep.place["tasks"] = to_iso(step.newest)
        self.sweep.save()

    def _list_directory(self, table: Table) -> bool:
        """List a directory and store it; return False where the key may not read it."""
        ids = read_unless_refused(self.work, table.stream, read=partial(self.sync.read_directory, table))
        if ids is None:
            return False
        self.sweep.see(table, ids)
        return True

    def _may_list_feed(self, table: Table) -> bool:
        """List time entries or comments; return False where the key may not read them."""
        return read_unless_refused(self.work, table.stream, read=partial(self._list_feed, table)) is not None

    def _list_feed(self, table: Table) -> int:
        """Store time entries or comments; return how many rows were read."""
        figures = self.work.report.of(table.stream)
        for page in self.sync.feeds.listing(table):
            self.sync.store_directory_rows(table, self._once(table, page) if self.work.is_dry else page)
            self.sweep.see(table, _ids_of([page]))
            self.work.progress(table.stream, phase="reconcile", done=figures.fetched)
        return figures.fetched

    def _once(self, table: Table, page: Page) -> Page:
        """Return a page without rows that were seen: where nothing stays, a second read would count again."""
        fresh = self.sweep.unseen(table, _ids_of([page]))
        return replace(page, rows=[row for row in page.rows if str(plain_id(row)) in fresh])

    def _judge(self, table: Table) -> int:
        """Look at the rows that no list shows; return how many are gone for good."""
        if table is TASK_COMMENTS:
            with self.work.commit() as connection:
                follow_tasks(connection, comment_ids=self.sweep.absent(table))
        ids = (
            self.sweep.absent_tasks(table, created_since=self.sync.scope.process_after)
            if table is TASKS
            else self.sweep.absent(table)
        )
        self.work.report.of(table.stream).absent = len(ids)
        before = self.work.report.of(table.stream).deleted
        self.sync.absent.sweep(table, ids, confirmed=self.confirmed)
        self.sync.absent.decide(table, confirmed=self.confirmed)
        return self.work.report.of(table.stream).deleted - before


def _ids_of(pages: Iterable[Page]) -> set[int]:
    return {item for page in pages for row in page.rows if isinstance(item := plain_id(row), int)}
