"""A pass over Missive: fresh changes of each mailbox, what has to be tried again, then the gaps below."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from twm_pipeline.errors import AccessError
from twm_pipeline.mirror import conversations as store
from twm_pipeline.mirror.checkpoints import Checkpoint, from_iso, load_checkpoint, save_checkpoint, to_iso
from twm_pipeline.mirror.scope import Scope, apply_scope, remember_scope
from twm_pipeline.mirror.set_aside import due_set_aside
from twm_pipeline.mirror.tables import EMAILS, THREADS
from twm_pipeline.mirror.tombstones import due_second_looks, forget_second_looks
from twm_pipeline.sources.fields import to_unix
from twm_pipeline.sources.missive import MAILBOXES, Mailbox, MissiveSource, Page
from twm_pipeline.sources.missive_rows import activity_of
from twm_pipeline.sync.accounts import ensure_account
from twm_pipeline.sync.directories import is_due
from twm_pipeline.sync.engine import Pass, PassOptions
from twm_pipeline.sync.missive_absent import AbsentThreads
from twm_pipeline.sync.missive_conversations import ConversationReader
from twm_pipeline.sync.missive_directories import DirectoryReader
from twm_pipeline.sync.missive_draft_mailbox import DraftMailbox
from twm_pipeline.sync.plan import Frontier, Gap, is_wider
from twm_pipeline.sync.refusals import read_unless_refused
from twm_pipeline.sync.walks import walk_down

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from twm_pipeline.http import Reply
    from twm_pipeline.mirror.checkpoints import Account

EMPTY_READS = 2
"""How often an empty first page is asked for again where rows are known to be."""


class MissivePass:
    """The steps of a pass over one account; `run` takes them in their order."""

    def __init__(self, work: Pass, options: PassOptions) -> None:
        self.work = work
        self.options = options
        self.api = MissiveSource(work.session)
        self.directories = DirectoryReader(work, self.api, options)
        self.overlap = int(work.settings.backfill_overlap_seconds) + 1
        self.account: Account = ensure_account(work, identify=self._identify)
        self.process_after = work.settings.instant(work.settings.missive_process_after)
        self.scope = Scope(process_after=self.process_after)
        self.floor = to_unix(self.process_after) if self.process_after else None
        self.conversations = ConversationReader(
            work, self.api, options, owner_id=self.account.owner_id or "", scope=self.scope
        )
        self.drafts = DraftMailbox(work, self.api, self.conversations)
        self.absent = AbsentThreads(work, self.api, self.conversations)
        if not self.conversations.reads_all:
            work.owns_checkpoints = False

    def _identify(self) -> tuple[str, str | None, Reply]:
        owner_id, reply = self.api.fetch_owner_id()
        return owner_id, owner_id, reply

    def run(self) -> None:
        """Do one pass: fresh changes of every mailbox, what has to be tried again, then history."""
        self.follow_scope()
        if self.options.ids:
            self.conversations.refresh(self.options.ids, complete=True)
            return
        if any(self.options.wants(table.stream) for table in THREADS):
            self._read_threads()
            if self.conversations.reads_all and is_due(self.work, self.options, EMAILS, "drafts"):
                self.drafts.read()
        self.directories.read_due()

    def _read_threads(self) -> None:
        """Read conversations with what is in them."""
        if not self.options.moves_checkpoints:
            self._reread()
            return
        due = MAILBOXES if self.options.secondary else MAILBOXES[:1]
        readable = [mailbox for mailbox in due if self._poll(mailbox)]
        if not self.conversations.reads_all:
            return
        for mailbox in readable:
            self._close_gaps(mailbox, history=False)
        self._retry()
        if self.options.history:
            for mailbox in readable:
                self._close_gaps(mailbox, history=True)
        self._note_lag()

    def follow_scope(self) -> None:
        """Hide and show all rows anew when a setting of the scope changed."""
        if self.scope.to_json() != self.account.scope:
            with self.work.commit() as connection:
                apply_scope(connection, "missive", self.scope)
                remember_scope(connection, "missive", self.scope)

    # -- mailboxes -------------------------------------------------------------------------------------------

    def _load(self, mailbox: Mailbox) -> tuple[Checkpoint, Frontier]:
        """Return the checkpoint of a mailbox and its frontier, widened when the start date moved back."""
        with self.work.read() as connection:
            checkpoint = load_checkpoint(connection, "missive", "conversations", mailbox) or Checkpoint(
                scope=to_iso(self.process_after) or ""
            )
        frontier = Frontier.from_cursor(checkpoint.last_cursor)
        now = to_iso(self.process_after) or ""
        if checkpoint.scope != now:
            if is_wider(from_iso(checkpoint.scope or None), self.process_after):
                frontier = frontier.widened(floor=self.floor)
            checkpoint = replace(checkpoint, scope=now)
            with self.work.commit() as connection:
                self._save(connection, mailbox, checkpoint, frontier, may_step_back=True)
        return checkpoint, frontier

    def _save(
        self,
        connection: Connection,
        mailbox: Mailbox,
        checkpoint: Checkpoint,
        frontier: Frontier,
        *,
        may_step_back: bool = False,
    ) -> None:
        if self.work.owns_checkpoints:
            moved = replace(
                checkpoint,
                last_event_time=frontier.complete_below(floor=self.floor),
                last_cursor=frontier.to_cursor(),
            )
            save_checkpoint(
                connection,
                "missive",
                "conversations",
                mailbox,
                checkpoint=moved,
                may_step_back=may_step_back,
            )

    def _poll(self, mailbox: Mailbox) -> bool:
        """Read the first page of a mailbox; what it does not reach down to becomes a gap.

        Returns:
            False where the token may not read this mailbox.
        """
        checkpoint, frontier = self._load(mailbox)
        page = read_unless_refused(
            self.work,
            "conversations",
            mailbox,
            read=lambda: self._first_page(mailbox, known=frontier.head is not None),
            what=f"mailbox {mailbox}",
            refusals=(AccessError,),
        )
        if page is None:
            return False
        times = [moment for row in page.rows if (moment := activity_of(row)) is not None]
        opened = frontier.opened(
            times,
            now=int(page.reply.date.timestamp()),
            full=len(page.rows) >= page.limit,
            overlap=self.overlap,
            floor=self.floor,
        )
        if mailbox == "all":
            self.work.report.of("conversations").checkpoint_before = checkpoint.last_event_time
        self.conversations.store_rows(page.rows, page.reply, fresh=True)
        if opened != frontier:
            with self.work.commit() as connection:
                self._save(connection, mailbox, checkpoint, opened)
        return True

    def _first_page(self, mailbox: Mailbox, *, known: bool) -> Page:
        """Return the first page; where rows are known to be, an empty one is asked for again."""
        page = self.api.fetch_conversations(mailbox)
        for _ in range(EMPTY_READS if known else 0):
            if page.rows:
                break
            page = self.api.fetch_conversations(mailbox)
        return page

    def _close_gaps(self, mailbox: Mailbox, *, history: bool) -> None:
        """Read what is missing below the head; *history* is what lay there before the first pass."""
        _, frontier = self._load(mailbox)
        for gap in frontier.gaps:
            if (gap.down_to is None or gap.down_to == self.floor) == history:
                self._close_gap(mailbox, gap, history=history)

    def _close_gap(self, mailbox: Mailbox, gap: Gap, *, history: bool) -> None:
        checkpoint, frontier = self._load(mailbox)
        done = 0
        for step in walk_down(
            lambda until: self.api.fetch_conversations(mailbox, until=until, fresh=not history),
            time_of=activity_of,
            start=gap.until,
            still_there=self.conversations.still_there,
        ):
            self.conversations.store_rows(step.rows, step.page.reply, fresh=not history)
            done += len(step.rows)
            frontier = frontier.advanced(gap, oldest=step.oldest, newest=step.newest)
            with self.work.commit() as connection:
                self._save(connection, mailbox, checkpoint, frontier)
            self.work.progress(f"conversations {mailbox}", phase="history" if history else "fresh", done=done)
            reached = step.oldest is None or (gap.down_to is not None and step.oldest < gap.down_to)
            if reached or (history and self.work.slice_is_over()):
                return
            gap = replace(gap, until=min(step.oldest or gap.until, gap.until))

    def _reread(self) -> None:
        """Read again from a date or from the beginning, without touching the checkpoints."""
        settings = self.work.settings
        since = settings.instant(self.options.since)
        floor = self.floor if self.options.full or since is None else to_unix(since)
        until = settings.instant(self.options.until)
        for mailbox in MAILBOXES:
            done = 0
            for step in walk_down(
                lambda moment, mailbox=mailbox: self.api.fetch_conversations(  # type: ignore[misc]  # bound per loop
                    mailbox, until=moment, fresh=False
                ),
                time_of=activity_of,
                start=to_unix(until) if until else None,
            ):
                self.conversations.store_rows(step.rows, step.page.reply, fresh=False, complete=True)
                done += len(step.rows)
                self.work.progress(f"conversations {mailbox}", phase="reading again", done=done)
                if step.oldest is not None and floor is not None and step.oldest < floor:
                    break

    def _retry(self) -> None:
        """Try set-aside objects and unread conversations again, and look again at what was missing."""
        with self.work.read() as connection:
            conversations = due_set_aside(connection, "missive", "conversations")
            messages = due_set_aside(connection, "missive", "emails")
            comments = due_set_aside(connection, "missive", "comments")
            conversations += store.conversations_of(connection, messages).values()
            conversations += store.parents_of_set_aside(connection, [*messages, *comments])
            again = due_second_looks(connection, "missive", "conversations", now=self.work.vendor_now)
        self.conversations.retry(conversations)
        self.conversations.refresh(again)
        if again:
            with self.work.commit() as connection:
                forget_second_looks(connection, "missive", "conversations", again)
        self.absent.decide()

    def _note_lag(self) -> None:
        """Note how far the mirror may be behind, and whether anything is left to read."""
        main: datetime | None = None
        for mailbox in MAILBOXES:
            checkpoint, frontier = self._load(mailbox)
            if frontier.gaps:
                self.work.report.complete = False
            if mailbox == "all":
                main = checkpoint.last_event_time
        self.work.report.of("conversations").checkpoint_after = main
        self.work.note_lag("conversations", main)
