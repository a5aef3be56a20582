"""A pass over Teamwork: tasks by what changed, deleted ones, restored ones, directories on a slower beat."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from twm_pipeline.errors import RecordError
from twm_pipeline.mirror.checkpoints import Checkpoint, from_iso, load_checkpoint, save_checkpoint, to_iso
from twm_pipeline.mirror.scope import Scope, apply_scope, apply_scope_below, remember_scope
from twm_pipeline.mirror.set_aside import SetAside, due_set_aside, resolve_set_aside
from twm_pipeline.mirror.tables import DIRECTORIES, FEEDS, TASKS, table_of
from twm_pipeline.mirror.tombstones import due_second_looks, follow_tasks, forget_second_looks, living_among
from twm_pipeline.mirror.upserts import Observed
from twm_pipeline.sources.fields import read_iso
from twm_pipeline.sources.teamwork import Page, TeamworkSource, to_param
from twm_pipeline.sources.teamwork_rows import INCLUDED, PARSERS, parse_task, updated_at
from twm_pipeline.sync.accounts import ensure_account
from twm_pipeline.sync.directories import is_due
from twm_pipeline.sync.engine import RECORD_FAULTS, Pass, PassOptions
from twm_pipeline.sync.plan import is_wider
from twm_pipeline.sync.refusals import read_unless_refused
from twm_pipeline.sync.teamwork_absent import AbsentRows
from twm_pipeline.sync.teamwork_feeds import FeedReader
from twm_pipeline.sync.walks import ONE_SECOND, honest_times, walk_up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlalchemy import Connection

    from twm_pipeline.http import Reply
    from twm_pipeline.mirror.checkpoints import Account
    from twm_pipeline.mirror.tables import Table

PROBE_ROWS = 50
HISTORY_ROWS_PER_COMMIT = 1000
"""Of history several pages are one commit: it is read once, and a commit costs more than its rows."""


class TeamworkPass:
    """The steps of a pass over one site; `run` takes them in their order."""

    def __init__(self, work: Pass, options: PassOptions) -> None:
        self.work = work
        self.options = options
        self.api = TeamworkSource(work.session)
        self.absent = AbsentRows(
            work,
            self.api,
            store_tasks=self.store_tasks,
            store_directory_rows=self.store_directory_rows,
        )
        self.overlap = max(timedelta(seconds=work.settings.backfill_overlap_seconds), ONE_SECOND)
        self.account: Account = ensure_account(work, identify=self._identify)
        self.feeds = FeedReader(
            work, self.api, options, absent=self.absent, store=self.store_directory_rows, overlap=self.overlap
        )
        self._stored_before: dict[str, set[str]] = defaultdict(set)  # side-loaded rows, by stream
        settings = work.settings
        self.scope = Scope(
            process_after=settings.instant(settings.teamwork_process_after),
            completed_before=(
                None if settings.include_completed_tasks_on_initial_sync else self.account.first_import_at
            ),
            excluded_projects=settings.teamwork_excluded_projects,
            excluded_companies=settings.teamwork_excluded_companies,
        )

    def _identify(self) -> tuple[str, str | None, Reply]:
        reply = self.api.fetch_me()
        person = reply.data.get("person") if isinstance(reply.data, dict) else None
        owner = str(person.get("id")) if isinstance(person, dict) else None
        return str(self.work.settings.teamwork_base_url), owner, reply

    def run(self) -> None:
        """Do one pass: fresh changes first, then what has to be tried again, then history."""
        self.follow_scope()
        if self.options.ids:
            self.absent.refresh([int(item) for item in self.options.ids])
            return
        if self.options.wants("tasks"):
            if self.options.moves_checkpoints:
                self._poll_tasks()
            else:
                self._reread_tasks()
            if self.options.secondary:
                self._read_deleted()
                self._read_activity()
            self._retry()
        self._read_due_directories()
        if self.options.wants("tasks") and self.options.moves_checkpoints and self.options.history:
            self._read_history()
        self._read_feeds()
        self._note_lag()

    def _read_feeds(self) -> None:
        """Read what changed among time entries and comments; behind history, which is worth more."""
        for table in FEEDS if self.options.secondary else ():
            if self.options.wants(table.stream):
                read_unless_refused(self.work, table.stream, read=partial(self.feeds.read, table))

    # -- scope -----------------------------------------------------------------------------------------------

    def follow_scope(self) -> None:
        """Hide and show all rows anew when a setting of the scope changed."""
        if self.scope.to_json() == self.account.scope:
            return
        with self.work.commit() as connection:
            apply_scope(connection, "teamwork", self.scope)
            remember_scope(connection, "teamwork", self.scope)

    def _created_after(self) -> dict[str, str]:
        """Return the parameter that leaves older tasks out; its bound may be exclusive."""
        if self.scope.process_after is None:
            return {}
        return {"createdAfter": to_param(self.scope.process_after - ONE_SECOND)}

    # -- tasks -----------------------------------------------------------------------------------------------

    def _poll_tasks(self) -> None:
        """Read what changed since the live head; before the first pass, find where the head is."""
        with self.work.read() as connection:
            checkpoint = load_checkpoint(connection, "teamwork", "tasks")
        if checkpoint is None:
            checkpoint = self._first_checkpoint()
            if checkpoint is None:
                return
        checkpoint = self._widen(checkpoint)
        head = from_iso(checkpoint.last_cursor.get("head"))
        figures = self.work.report.of("tasks")
        figures.checkpoint_before = checkpoint.last_event_time
        for step in walk_up(self.fetcher(fresh=True), start=head - self.overlap if head else None):
            head = max(filter(None, (head, step.newest)), default=None)
            cursor = {**checkpoint.last_cursor, "head": to_iso(head)}
            checkpoint = replace(checkpoint, last_cursor=cursor)
            self.store_tasks(step.pages, checkpoint=checkpoint)
        figures.checkpoint_after = _complete_below(checkpoint)

    def fetcher(self, *, fresh: bool) -> Callable[[datetime | None, int], Page]:
        """Return what asks for page *n* of the living tasks updated after an instant."""
        extra = self._created_after()
        return lambda after, number: self.api.fetch_tasks(
            updated_after=after, page=number, extra=extra, fresh=fresh
        )

    def _first_checkpoint(self) -> Checkpoint | None:
        """Return a checkpoint at the newest task, with everything before it as history, or None if empty.

        The head then follows fresh changes from the first minute, however long the history takes.
        """
        page = self.api.fetch_tasks(page_size=PROBE_ROWS, newest_first=True, extra=self._created_after())
        self.work.note_reply(page.reply)
        newest = max(_honest(page), default=None)
        if newest is None and not page.rows:
            return None
        history = {"after": None, "until": to_iso(newest)}
        return Checkpoint(
            last_cursor={"head": to_iso(newest), "history": history if newest else None},
            scope=to_iso(self.scope.process_after) or "",
        )

    def _widen(self, checkpoint: Checkpoint) -> Checkpoint:
        """Return the checkpoint with a history to read when the start date moved back."""
        now = to_iso(self.scope.process_after) or ""
        if checkpoint.scope == now:
            return checkpoint
        cursor = dict(checkpoint.last_cursor)
        if is_wider(from_iso(checkpoint.scope or None), self.scope.process_after):
            cursor["history"] = {"after": None, "until": cursor.get("head")}
        widened = replace(checkpoint, scope=now, last_cursor=cursor)
        with self.work.commit() as connection:
            self._save(connection, widened, may_step_back=True)
        return widened

    def _save(self, connection: Connection, checkpoint: Checkpoint, *, may_step_back: bool = False) -> None:
        if self.work.owns_checkpoints:
            complete = replace(checkpoint, last_event_time=_complete_below(checkpoint))
            save_checkpoint(connection, "teamwork", "tasks", checkpoint=complete, may_step_back=may_step_back)

    def _read_history(self) -> None:
        """Go on with the tasks that were there before the first pass, oldest first."""
        with self.work.read() as connection:
            checkpoint = load_checkpoint(connection, "teamwork", "tasks")
        history = checkpoint.last_cursor.get("history") if checkpoint else None
        if checkpoint is None or not history:
            return
        after, until = from_iso(history["after"]), from_iso(history["until"])
        done = 0
        unstored: list[Page] = []
        start = after - ONE_SECOND if after else None
        try:
            for step in walk_up(self.fetcher(fresh=False), start=start, until=until):
                finished = not step.pages[-1].has_more or bool(step.newest and until and step.newest > until)
                rest = None if finished else {"after": to_iso(step.newest), "until": to_iso(until)}
                checkpoint = replace(checkpoint, last_cursor={**checkpoint.last_cursor, "history": rest})
                unstored += step.pages
                over = finished or self.work.slice_is_over()
                if over or sum(len(page.rows) for page in unstored) >= HISTORY_ROWS_PER_COMMIT:
                    pages, unstored = unstored, []
                    self.store_tasks(pages, checkpoint=checkpoint)
                    done += sum(len(page.rows) for page in pages)
                    self.work.progress("tasks", phase="history", done=done)
                if over:
                    break
        finally:
            if unstored:  # what has been read when the walk fails is not read twice
                self.store_tasks(unstored, checkpoint=checkpoint)
        self.work.report.of("tasks").checkpoint_after = _complete_below(checkpoint)

    def _reread_tasks(self) -> None:
        """Read again from a date or from the beginning, without touching the checkpoint."""
        settings = self.work.settings
        since = None if self.options.full else settings.instant(self.options.since)
        until = settings.instant(self.options.until)
        done = 0
        for step in walk_up(self.fetcher(fresh=False), start=since - ONE_SECOND if since else None):
            done += sum(len(page.rows) for page in step.pages)
            self.store_tasks(step.pages)
            self.work.progress("tasks", phase="reading again", done=done)
            if until and step.newest and step.newest > until:
                break

    def store_tasks(self, pages: Iterable[Page], *, checkpoint: Checkpoint | None = None) -> list[int]:
        """Store pages of tasks with what came along with them; return the ids stored as living."""
        living: list[int] = []
        with self.work.commit() as connection:
            for page in pages:
                self._store_included(connection, page)
                observed, problems = self.work.parse("tasks", page.rows, page.reply, _with_date(page.reply))
                counts = self.work.store(connection, TASKS, observed, problems, cleaned=page.reply.cleaned)
                if not self.scope.shows_everything and counts.written_ids:
                    apply_scope(connection, "teamwork", self.scope, ids=counts.written_ids)
                follow_tasks(connection, counts.written_ids)
                living += [int(item.record.id) for item in observed if not item.record.deleted]
            if checkpoint is not None:
                self._save(connection, checkpoint)
        return living

    def _store_included(self, connection: Connection, page: Page) -> None:
        """Store side-loaded rows that are not known yet; the directory replaces them later."""
        for name, stream in INCLUDED.items():
            stored = self._stored_before[stream]
            usable = []
            for key, row in (page.included.get(name) or {}).items():
                if key in stored:
                    continue
                try:
                    record = PARSERS[stream](row, date=page.reply.date)
                except (RecordError, AttributeError):
                    continue  # its id is shown instead of its name until the directory is read
                usable.append(Observed(record=record, seq=page.reply.seq))
            if usable and self.work.store_unknown(connection, table_of("teamwork", stream), usable) == 0:
                stored.update(str(item.record.id) for item in usable)

    # -- deleted and restored --------------------------------------------------------------------------------

    def read_deleted_in_full(self, *, on_page: Callable[[Page], None]) -> None:
        """Read the whole feed of deleted tasks; *on_page* is told of every page once it is stored."""
        self._read_deleted(in_full=True, on_page=on_page)

    def _read_deleted(
        self, *, in_full: bool = False, on_page: Callable[[Page], None] = lambda _: None
    ) -> None:
        """Read the feed of deleted tasks; its checkpoint is the newest `deletedAt`."""
        with self.work.read() as connection:
            checkpoint = load_checkpoint(connection, "teamwork", "tasks", "deleted") or Checkpoint()
        last = checkpoint.last_event_time
        from_start = in_full or last is None or not self.options.moves_checkpoints
        after = None if from_start or last is None else last - self.overlap
        newest = last
        for step in walk_up(
            lambda key, number: self.api.fetch_deleted_tasks(
                deleted_after=after, updated_after=key, page=number
            ),
            start=None,
        ):
            before = self.work.report.of("tasks").written
            self.store_tasks(step.pages)
            self.work.report.of("tasks").deleted += self.work.report.of("tasks").written - before
            for page in step.pages:
                on_page(page)
            moments = [moment for page in step.pages for moment in _deletions(page)]
            newest = max([*moments, newest] if newest else moments, default=None)
        if newest is not None and newest != last:
            self._save_feed("deleted", newest)

    def _save_feed(self, feed: str, moment: datetime) -> None:
        if self.work.owns_checkpoints and self.options.moves_checkpoints:
            with self.work.commit() as connection:
                save_checkpoint(
                    connection, "teamwork", "tasks", feed, checkpoint=Checkpoint(last_event_time=moment)
                )

    def _read_activity(self) -> None:
        """Read the activity feed for what was restored or deleted without moving its `updatedAt`."""
        with self.work.read() as connection:
            checkpoint = load_checkpoint(connection, "teamwork", "tasks", "activity") or Checkpoint()
        last = checkpoint.last_event_time
        since = (last or self.account.first_import_at) - self.overlap
        activity = read_unless_refused(
            self.work,
            "tasks",
            "activity",
            read=lambda: self.api.fetch_activity(since=since),
            what="restored tasks are found by reconcile only",
        )
        if activity is None:
            return
        self.absent.refresh(activity.restored.get("tasks", []))
        with self.work.read() as connection:  # what the feed of deleted tasks, read before, has left out
            said = living_among(connection, TASKS, activity.deleted.get("tasks", []))
        self.absent.bury_if_said(TASKS, said, said=set(said))
        self.feeds.follow(activity)
        if activity.newest is not None and activity.newest != last:
            self._save_feed("activity", activity.newest)

    # -- single objects --------------------------------------------------------------------------------------

    def _retry(self) -> None:
        """Try set-aside tasks again, and look again at those that answered 404 ten minutes ago."""
        with self.work.read() as connection:
            due = due_set_aside(connection, "teamwork", "tasks")
            again = due_second_looks(connection, "teamwork", "tasks", now=self.work.vendor_now)
        ids = [int(item) for item in due if item.isdigit()]
        try:
            gone = self.absent.refresh(ids)
            with self.work.commit() as connection:
                resolve_set_aside(connection, "teamwork", "tasks", gone)
        except RECORD_FAULTS as error:
            with self.work.commit() as connection:
                problems = [SetAside(stream="tasks", object_id=item, reason=str(error)) for item in due]
                self.work.park(connection, problems)
        self.absent.refresh([int(item) for item in again])
        if again:
            with self.work.commit() as connection:
                forget_second_looks(connection, "teamwork", "tasks", again)
        self.absent.decide(TASKS)

    # -- directories -----------------------------------------------------------------------------------------

    def _read_due_directories(self) -> None:
        """Read every directory whose beat has come, completely."""
        for table in DIRECTORIES:
            if self.options.wants(table.stream) and is_due(self.work, self.options, table):
                read_unless_refused(self.work, table.stream, read=partial(self.read_directory, table))

    def read_directory(self, table: Table) -> set[int]:
        """Read a directory in full and store it; return the ids it holds."""
        found: set[int] = set()
        began: datetime | None = None
        for page in self.api.fetch_directory(table.stream):
            began = began or page.reply.date
            found |= self.store_directory_rows(table, page)
        if began is not None:
            with self.work.commit() as connection:
                if self.scope.excludes:
                    apply_scope(connection, "teamwork", self.scope)
                if self.work.owns_checkpoints:
                    save_checkpoint(
                        connection, "teamwork", table.stream, checkpoint=Checkpoint(last_event_time=began)
                    )
        return found

    def store_directory_rows(self, table: Table, page: Page, head: Checkpoint | None = None) -> set[int]:
        """Store a page of any stream but tasks, with the checkpoint it reaches; return its ids."""
        observed, problems = self.work.parse(
            table.stream, page.rows, page.reply, lambda row: PARSERS[table.stream](row, date=page.reply.date)
        )
        with self.work.commit() as connection:
            counts = self.work.store(connection, table, observed, problems, cleaned=page.reply.cleaned)
            if table in FEEDS and not self.scope.shows_everything:
                apply_scope_below(connection, table, self.scope, ids=counts.written_ids)
            if head is not None:
                self.feeds.save(connection, table, head)
        return {int(item.record.id) for item in observed}

    def _note_lag(self) -> None:
        """Note how far the mirror may be behind, and whether history is left."""
        with self.work.read() as connection:
            checkpoint = load_checkpoint(connection, "teamwork", "tasks")
        if checkpoint and checkpoint.last_cursor.get("history"):
            self.work.report.complete = False
        self.work.note_lag("tasks", checkpoint.last_event_time if checkpoint else None)


def _with_date(reply: Reply) -> Callable[[dict[str, Any]], Any]:
    return lambda row: parse_task(row, date=reply.date)


def _honest(page: Page) -> list[datetime]:
    """Return the updates on a page that are not later than the answer itself."""
    return honest_times(page, updated_at)


def _deletions(page: Page) -> list[datetime]:
    return honest_times(page, lambda row: read_iso(row, "deletedAt"))


def _complete_below(checkpoint: Checkpoint) -> datetime | None:
    """Return the instant below which no task is missing: the history's place while there is one."""
    history = checkpoint.last_cursor.get("history")
    return from_iso(history["after"] if history else checkpoint.last_cursor.get("head"))
