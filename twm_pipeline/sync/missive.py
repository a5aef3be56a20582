"""A pass over Missive: one walk per mailbox, then what is new in each conversation that changed."""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from twm_pipeline.errors import AccessError, NotFoundError, RequestRefusedError
from twm_pipeline.mirror import conversations as store
from twm_pipeline.mirror.checkpoints import (
    Checkpoint,
    SetAside,
    due_set_aside,
    from_iso,
    load_checkpoint,
    resolve_set_aside,
    save_checkpoint,
    set_aside,
    to_iso,
    waiting_set_aside,
)
from twm_pipeline.mirror.scope import Scope, apply_scope, remember_scope
from twm_pipeline.mirror.tables import COMMENTS, CONVERSATIONS, EMAILS, THREADS
from twm_pipeline.mirror.tombstones import (
    due_second_looks,
    forget_second_looks,
    mark_inaccessible,
    mark_missing,
    tombstone,
)
from twm_pipeline.mirror.upserts import Observed
from twm_pipeline.records import Json
from twm_pipeline.sources.fields import to_unix
from twm_pipeline.sources.missive import (
    MAILBOXES,
    Children,
    Mailbox,
    MissiveSource,
    Page,
    activity_of,
    is_trashed,
    parse_conversation,
    parse_message,
)
from twm_pipeline.sync.directories import is_due
from twm_pipeline.sync.engine import RECORD_FAULTS, Pass, PassOptions, ensure_account
from twm_pipeline.sync.missive_children import ChildReader, Due
from twm_pipeline.sync.missive_directories import DirectoryReader
from twm_pipeline.sync.missive_drafts import drafts_key
from twm_pipeline.sync.plan import Frontier, Gap, is_wider
from twm_pipeline.sync.refusals import read_unless_refused
from twm_pipeline.sync.walks import walk_down

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from twm_pipeline.http import Reply
    from twm_pipeline.mirror.checkpoints import Account
    from twm_pipeline.mirror.tables import Table

logger = logging.getLogger(__name__)

CONVERSATIONS_PER_BATCH = 10
UNSETTLED_SECONDS = 1
"""A vendor's `Date` and the moment at which it looked are no further apart."""
EMPTY_READS = 2


class MissivePass:
    """The steps of a pass over one account; `run` takes them in their order."""

    def __init__(self, work: Pass, options: PassOptions) -> None:
        self.work = work
        self.options = options
        self.api = MissiveSource(work.session)
        self.children = ChildReader(work, self.api, options)
        self.directories = DirectoryReader(work, self.api, options)
        self.overlap = int(work.settings.backfill_overlap_seconds) + 1
        self.account: Account = ensure_account(work, identify=self._identify)
        self.owner_id = self.account.owner_id or ""
        self.process_after = work.settings.instant(work.settings.missive_process_after)
        self.scope = Scope(process_after=self.process_after)
        self.floor = to_unix(self.process_after) if self.process_after else None
        # What was read of a conversation is one fact: a pass over some of the streams cannot state it.
        self.whole = all(options.wants(table.stream) for table in THREADS)
        if not self.whole:
            work.owns_checkpoints = False

    def _identify(self) -> tuple[str, str | None, Reply]:
        owner_id, reply = self.api.fetch_owner_id()
        return owner_id, owner_id, reply

    def run(self) -> None:
        """Do one pass: fresh changes of every mailbox, what has to be tried again, then history."""
        self.follow_scope()
        if self.options.ids:
            self.refresh(self.options.ids, complete=True)
            return
        if any(self.options.wants(table.stream) for table in THREADS):
            self._read_threads()
            if self.whole and is_due(self.work, self.options, EMAILS, "drafts"):
                self.read_drafts()
        self.directories.read_due()

    def _read_threads(self) -> None:
        """Read conversations with what is in them."""
        if not self.options.moves_checkpoints:
            self._reread()
            return
        due = MAILBOXES if self.options.secondary else MAILBOXES[:1]
        readable = [mailbox for mailbox in due if self._poll(mailbox)]
        if not self.whole:
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
        self._store_page(page, fresh=True)
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
            still_there=self.still_there,
        ):
            self.store_rows(step.rows, step.page.reply, fresh=not history)
            done += len(step.rows)
            frontier = frontier.advanced(gap, oldest=step.oldest, newest=step.newest)
            with self.work.commit() as connection:
                self._save(connection, mailbox, checkpoint, frontier)
            self.work.progress(f"conversations {mailbox}", phase="history" if history else "fresh", done=done)
            reached = step.oldest is None or (gap.down_to is not None and step.oldest < gap.down_to)
            if reached or (history and self.work.slice_is_over()):
                return
            gap = replace(gap, until=min(step.oldest or gap.until, gap.until))

    def still_there(self, moment: int) -> bool:
        """Return whether a known conversation of that second still has it as its last activity."""
        with self.work.read() as connection:
            conversation_id = store.one_of_second(connection, datetime.fromtimestamp(moment, UTC))
        if conversation_id is None:
            return False
        try:
            row, _ = self.api.fetch_conversation(conversation_id)
        except NotFoundError:
            return False
        return row.get("id") == conversation_id and activity_of(row) == moment

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
                self.store_rows(step.rows, step.page.reply, fresh=False, complete=True)
                done += len(step.rows)
                self.work.progress(f"conversations {mailbox}", phase="reading again", done=done)
                if step.oldest is not None and floor is not None and step.oldest < floor:
                    break

    def _store_page(self, page: Page, *, fresh: bool) -> None:
        self.store_rows(page.rows, page.reply, fresh=fresh)

    def store_rows(self, rows: Sequence[Json], reply: Reply, *, fresh: bool, complete: bool = False) -> None:
        """Store listed conversations, and what is new in those whose messages and comments are due."""
        self._store_all(self._settle(rows, reply, complete=complete), fresh=fresh)

    def _store_all(self, due: Sequence[Due], *, fresh: bool) -> None:
        for start in range(0, len(due), CONVERSATIONS_PER_BATCH):
            self._store_due(list(due[start : start + CONVERSATIONS_PER_BATCH]), fresh=fresh)

    def _settle(
        self, rows: Sequence[Json], reply: Reply, *, complete: bool, force: bool = False
    ) -> list[Due]:
        """Store conversations in which nothing is to be read; return the others.

        Args:
            rows: Conversations as the vendor shows them.
            reply: The answer they came in.
            complete: Read all of their messages and comments.
            force: Look for new messages and comments whatever the last activity says.
        """
        self.work.note_reply(reply)
        with self.work.read() as connection:
            ids = [str(row.get("id")) for row in rows]
            known = store.read_state(connection, ids)
            waiting = waiting_set_aside(connection, "missive", "conversations", ids)
        due: list[Json] = []
        settled: list[Json] = []
        for row in rows:
            is_asked_for = complete or force  # then also one that is set aside is tried before its time
            is_due = is_asked_for or _is_due(row, known.get(str(row.get("id"))))
            usable = isinstance(row.get("id"), str) and (is_asked_for or row["id"] not in waiting)
            (due if is_due and usable else settled).append(row)
        if settled:
            self._store_conversations(settled, reply, unread=waiting)
        return [Due(row, reply, complete, trashed=is_trashed(row, owner_id=self.owner_id)) for row in due]

    def _store_conversations(self, rows: Iterable[Json], reply: Reply, *, unread: Container[str]) -> None:
        """Store conversations as listed; those whose messages are *unread* stay set aside."""
        observed, problems = self._parse_conversations(rows, reply)
        with self.work.commit() as connection:
            counts = self.work.store(
                connection, CONVERSATIONS, observed, problems, cleaned=reply.cleaned, unresolved=unread
            )
            store.unmerge(connection, counts.written_ids)
            store.follow_trash(connection, counts.written_ids)

    def _parse_conversations(
        self, rows: Iterable[Json], reply: Reply
    ) -> tuple[list[Observed], list[SetAside]]:
        return self.work.parse(
            "conversations", rows, reply, lambda row: parse_conversation(row, owner_id=self.owner_id)
        )

    # -- messages and comments -------------------------------------------------------------------------------

    def _store_due(self, batch: list[Due], *, fresh: bool) -> None:
        """Read what is new in a few conversations and store it with them, in one transaction."""
        self.children.look_up(batch)
        batch = [due for due in batch if self._read_lists(due, fresh=fresh)]
        emails, email_problems, cleaned = self.children.read_bodies(batch, fresh=fresh)
        for due in batch:
            self.work.note_reply(due.reply)
        comments, comment_problems = self.children.parse_comments(batch)
        suspects: set[str] = set()
        with self.work.commit() as connection:
            self._store_parents(connection, batch)
            moved_from = store.conversations_of(connection, [str(item.record.id) for item in emails])
            email_problems += [problem for due in batch for problem in due.unusable]
            counts = self.work.store(connection, EMAILS, emails, email_problems, cleaned=cleaned)
            suspects = _left_behind(moved_from, emails, set(counts.written_ids))
            if not self.scope.shows_everything and counts.written_ids:
                apply_scope(connection, "missive", self.scope, ids=counts.written_ids)
            self.work.store(connection, COMMENTS, comments, comment_problems)
            store.follow_trash(connection, [due.id for due in batch])
            self._note_denied(connection, batch)
            if self.whole:
                store.note_children_read(connection, _activities(batch))
        if not self.work.is_dry:  # where nothing stays moved, they would be suspected again and again
            self.refresh([item for item in suspects if item not in {due.id for due in batch}])

    def _store_parents(self, connection: Connection, batch: Sequence[Due]) -> None:
        """Store the conversations of a batch, and note which of their children are absent."""
        parsed = [self._parse_conversations([due.row], due.reply) for due in batch]
        observed = [item for usable, _ in parsed for item in usable]
        problems = [item for _, refused in parsed for item in refused]
        counts = self.work.store(connection, CONVERSATIONS, observed, problems)
        store.unmerge(connection, counts.written_ids)
        for due in batch:
            self._mark_absent(connection, due)

    def _read_lists(self, due: Due, *, fresh: bool) -> bool:
        """Read both lists of a conversation; return False where it is gone or cannot be read now."""
        try:
            self.children.read_lists(due, fresh=fresh)
        except NotFoundError:
            if "users" not in due.row:  # a guest sees the conversation, not what is in it
                return True
            with self.work.commit() as connection:
                observed, problems = self._parse_conversations([due.row], due.reply)
                self.work.store(connection, CONVERSATIONS, observed, problems)
                seq = self.work.session.last_seq
                mark_missing(connection, CONVERSATIONS, [due.id], seq=seq, at=due.reply.date)
            return False
        except RECORD_FAULTS as error:
            problem = SetAside(stream="conversations", object_id=due.id, reason=str(error))
            self.children.set_aside_if_alone(problem, error)
            return False
        return True

    def _note_denied(self, connection: Connection, batch: Sequence[Due]) -> None:
        """Set lists aside that may not be read, and forget those that could be read now."""
        denied = {(problem.stream, problem.object_id): problem for due in batch for problem in due.denied}
        for stream in filter(self.options.wants, ("emails", "comments")):
            readable = [due.id for due in batch if (stream, due.id) not in denied]
            resolve_set_aside(connection, "missive", stream, readable)
        self._note_drafts_read(connection, batch)
        for problem in denied.values():
            self.work.report.of(problem.stream).set_aside += set_aside(connection, "missive", [problem])

    def _note_drafts_read(self, connection: Connection, batch: Iterable[Due]) -> None:
        readable = [drafts_key(due.id) for due in batch if due.drafts_read]
        resolve_set_aside(connection, "missive", "emails", readable)

    def _mark_absent(self, connection: Connection, due: Due) -> None:
        """Note messages and comments that a list read to its end no longer holds."""
        absent: dict[Children, tuple[Table, list[str]]] = {
            "messages": (EMAILS, due.absent_messages),
            "comments": (COMMENTS, due.absent_comments),
            "drafts": (EMAILS, due.absent_drafts),
        }
        for kind, reply in due.listed.items():
            table, ids = absent[kind]
            mark_missing(connection, table, ids, seq=reply.seq, at=reply.date)

    # -- drafts ----------------------------------------------------------------------------------------------

    def read_drafts(self) -> None:
        """Read the drafts of every conversation that has some, or had: nothing tells of a change of one."""
        found = read_unless_refused(
            self.work,
            "emails",
            "drafts",
            read=self._list_drafts,
            what="mailbox drafts",
            refusals=(AccessError, RequestRefusedError),
        )
        if found is None:
            return
        listed, began = found
        with self.work.read() as connection:
            stored = store.with_drafts(connection)
        if began is not None:
            listed |= {item: Due({"id": item}, began) for item in stored if item not in listed}
        for item in listed.values():
            self._read_drafts_of(item)
        if began is not None and self.work.owns_checkpoints:
            with self.work.commit() as connection:
                checkpoint = Checkpoint(last_event_time=began.date)
                save_checkpoint(connection, "missive", "emails", "drafts", checkpoint=checkpoint)

    def _list_drafts(self) -> tuple[dict[str, Due], Reply | None]:
        """Walk the mailbox; return what of it is still to be read, and the first answer."""
        listed: dict[str, Due] = {}
        began: Reply | None = None
        for step in walk_down(
            lambda until: self.api.fetch_conversations("drafts", until=until), time_of=activity_of
        ):
            began = began or step.page.reply
            rows = [row for row in step.rows if isinstance(row.get("id"), str)]
            due = self._settle(rows, step.page.reply, complete=False)
            self._store_all(due, fresh=True)
            read = {item.id for item in due if item.row.get("drafts_count")}
            listed |= {row["id"]: Due(row, step.page.reply) for row in rows if row["id"] not in read}
        return listed, began

    def _read_drafts_of(self, due: Due) -> None:
        """Read the drafts of one conversation and store them."""
        self.children.look_up([due])
        try:
            self.children.read_drafts(due, fresh=True)
        except (AccessError, NotFoundError):
            return  # a conversation that is gone takes them with it
        emails, problems, cleaned = self.children.read_bodies([due], fresh=True)
        with self.work.commit() as connection:
            counts = self.work.store(connection, EMAILS, emails, [*problems, *due.unusable], cleaned=cleaned)
            if not self.scope.shows_everything and counts.written_ids:
                apply_scope(connection, "missive", self.scope, ids=counts.written_ids)
            self._mark_absent(connection, due)
            self._note_drafts_read(connection, [due])
            self.work.report.of("emails").set_aside += set_aside(connection, "missive", due.denied)

    # -- single conversations --------------------------------------------------------------------------------

    def refresh(self, ids: Sequence[str], *, complete: bool = False, force: bool = False) -> list[str]:
        """Read conversations again and store them; return those that answered 404.

        An answer with another id is a merge: the alias is recorded and the children move (D5).

        Args:
            ids: Conversations.
            complete: Read all of their messages and comments, not only what is new.
            force: Look for new messages and comments whatever the last activity says.
        """
        gone: list[str] = []
        due: dict[str, Due] = {}
        for conversation_id in dict.fromkeys(ids):
            try:
                row, reply = self.api.fetch_conversation(conversation_id)
            except NotFoundError:
                gone.append(conversation_id)
                self._note_missing(conversation_id)
                continue
            except AccessError as error:  # no evidence of a deletion
                problem = SetAside(stream="conversations", object_id=conversation_id, reason=str(error))
                with self.work.commit() as connection:
                    self.work.report.of("conversations").set_aside += set_aside(
                        connection, "missive", [problem]
                    )
                    _forget_lists(connection, conversation_id)
                continue
            merged = row.get("id") != conversation_id
            if merged:
                with self.work.commit() as connection:
                    store.merge(connection, conversation_id, str(row["id"]), seq=reply.seq, at=reply.date)
                    resolve_set_aside(connection, "missive", "conversations", [conversation_id])
                    _forget_lists(connection, conversation_id)
            due |= {
                item.id: item for item in self._settle([row], reply, complete=complete or merged, force=force)
            }
            if len(due) == CONVERSATIONS_PER_BATCH:
                self._store_due(list(due.values()), fresh=True)
                due = {}
        if due:
            self._store_due(list(due.values()), fresh=True)
        return gone

    def _note_missing(self, conversation_id: str) -> None:
        with self.work.commit() as connection:
            at = self.work.require_vendor_now()
            seq = self.work.session.last_seq
            mark_missing(connection, CONVERSATIONS, [conversation_id], seq=seq, at=at)
            resolve_set_aside(connection, "missive", "conversations", [conversation_id])
            _forget_lists(connection, conversation_id)

    def _retry(self) -> None:
        """Try set-aside objects and unread conversations again, and look again at what was missing."""
        with self.work.read() as connection:
            conversations = due_set_aside(connection, "missive", "conversations")
            messages = due_set_aside(connection, "missive", "emails")
            comments = due_set_aside(connection, "missive", "comments")
            conversations += store.conversations_of(connection, messages).values()
            conversations += store.parents_of_set_aside(connection, [*messages, *comments])
            again = due_second_looks(connection, "missive", "conversations", now=self.work.vendor_now)
        for conversation_id in dict.fromkeys(conversations):
            if conversation_id.startswith("without-id-"):
                continue
            try:
                self.refresh([conversation_id], complete=True)
            except RECORD_FAULTS as error:
                problem = SetAside(stream="conversations", object_id=conversation_id, reason=str(error))
                self.children.set_aside_if_alone(problem, error)
                with self.work.commit() as connection:
                    _forget_lists(connection, conversation_id)
        self.refresh(again)
        if again:
            with self.work.commit() as connection:
                forget_second_looks(connection, "missive", "conversations", again)
        self.decide_missing()

    def decide_missing(self, *, confirmed: bool = False) -> int:
        """Look again at rows missing for at least ten minutes; return how many are gone for good."""
        count = 0
        ids, seq = self.work.long_missing(CONVERSATIONS)
        if ids and self.work.may_bury(CONVERSATIONS, wanted=len(ids), confirmed=confirmed):
            count += self._bury(CONVERSATIONS, self.refresh(ids), seq=seq)
        ids, seq = self.work.long_missing(EMAILS)
        if ids and self.work.may_bury(EMAILS, wanted=len(ids), confirmed=confirmed):
            count += self._decide_messages(ids, seq=seq)
        ids, seq = self.work.long_missing(COMMENTS)
        if ids and self.work.may_bury(COMMENTS, wanted=len(ids), confirmed=confirmed):
            count += self._decide_comments(ids, seq=seq)
        return count

    def _bury(self, table: Table, ids: Sequence[str], *, seq: int) -> int:
        with self.work.commit() as connection:
            at = self.work.require_vendor_now()
            count = tombstone(connection, table, ids, seq=seq, at=at, evidence="absence")
            if table is CONVERSATIONS:
                store.bury_children(connection, ids, seq=seq, at=at)
        self.work.report.of(table.stream).deleted += count
        return count

    def _decide_messages(self, ids: Sequence[str], *, seq: int) -> int:
        """Read missing messages themselves; a 404 counts while their conversation can be read."""
        with self.work.read() as connection:
            parents = store.conversations_of(connection, ids)
            drafts = store.drafts_among(connection, ids)
        found: set[str] = set()
        for row, reply in self.api.fetch_messages(list(ids)):
            found.add(str(row["id"]))
            observed, problems = self.work.parse(
                "emails",
                [row],
                reply,
                lambda row, reply=reply: parse_message(  # type: ignore[misc]  # bound per loop
                    row,
                    conversation_id=parents.get(str(row["id"])),
                    date=reply.date,
                    draft=row["id"] in drafts and row.get("delivered_at") is None,
                ),
            )
            with self.work.commit() as connection:
                self.work.store(connection, EMAILS, observed, problems)
        gone = [item for item in ids if item not in found]
        readable = {item: self._is_readable(item) for item in {parents.get(key) for key in gone}}
        hidden = [item for item in gone if not readable[parents.get(item)]]
        with self.work.commit() as connection:
            mark_inaccessible(connection, EMAILS, hidden, seq=seq)
        return self._bury(EMAILS, [item for item in gone if item not in hidden], seq=seq)

    def _is_readable(self, conversation_id: str | None) -> bool:
        if conversation_id is None:
            return False
        try:
            self.api.fetch_conversation(conversation_id)
        except (NotFoundError, AccessError):
            return False
        return True

    def _decide_comments(self, ids: Sequence[str], *, seq: int) -> int:
        """Read the comments of their conversations once more; what is absent again is gone."""
        with self.work.read() as connection:
            parents = store.conversations_of(connection, ids, table=COMMENTS)
        self.refresh(sorted(set(parents.values())), complete=True)
        with self.work.read() as connection:
            still = store.still_missing(connection, COMMENTS, ids)
        return self._bury(COMMENTS, still, seq=seq)

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


def _forget_lists(connection: Connection, conversation_id: str) -> None:
    """Forget that lists of a conversation are set aside: it is gone, or is tried again as a whole."""
    resolve_set_aside(connection, "missive", "emails", [conversation_id, drafts_key(conversation_id)])
    resolve_set_aside(connection, "missive", "comments", [conversation_id])


def _is_due(row: Json, known: store.ReadState | None) -> bool:
    """Return whether messages and comments are to be read.

    A message that vanished moves the count only; whether a draft moves more than theirs is not documented.
    """
    if known is None or known.read_at is None or activity_of(row) != to_unix(known.read_at):
        return True
    counts = (row.get("messages_count"), row.get("drafts_count") or 0)
    return counts != (known.messages_count, known.drafts_count or 0)


def _activities(batch: Iterable[Due]) -> dict[str, datetime]:
    """Return, per conversation, the last activity at which its messages and comments were read.

    One whose activity is of the very second in which it was read is left out: more may arrive in that second
    without moving it, so the next pass reads the conversation once more.
    """
    moments = {due.id: activity for due in batch if (activity := activity_of(due.row)) is not None}
    dates = {due.id: min(reply.date for reply in (due.reply, *due.listed.values())) for due in batch}
    return {
        key: datetime.fromtimestamp(value, UTC)
        for key, value in moments.items()
        if abs(dates[key].timestamp() - value) > UNSETTLED_SECONDS
    }


def _left_behind(before: dict[str, str], emails: Iterable[Observed], written: set[Any]) -> set[str]:
    """Return conversations that messages have moved out of: they may have been merged away."""
    suspects = set()
    for item in emails:
        old = before.get(str(item.record.id))
        new = getattr(item.record, "conversation_id", None)
        if old is not None and new is not None and old != new and item.record.id in written:
            suspects.add(old)
    return suspects
