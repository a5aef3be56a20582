"""Missive's conversations: stored as listed, and with what is new in those that are due."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from twm_pipeline.errors import AccessError, NotFoundError
from twm_pipeline.mirror import conversations as store
from twm_pipeline.mirror.scope import Scope, apply_scope
from twm_pipeline.mirror.set_aside import SetAside, resolve_set_aside, waiting_set_aside
from twm_pipeline.mirror.tables import COMMENTS, CONVERSATIONS, EMAILS, THREADS
from twm_pipeline.mirror.tombstones import mark_missing
from twm_pipeline.mirror.upserts import Observed
from twm_pipeline.records import WITHOUT_ID, Json
from twm_pipeline.sources.fields import to_unix
from twm_pipeline.sources.missive import MissiveSource
from twm_pipeline.sources.missive_rows import Children, activity_of, is_trashed, parse_conversation
from twm_pipeline.sync.engine import RECORD_FAULTS, Pass, PassOptions
from twm_pipeline.sync.missive_children import ChildReader, Due
from twm_pipeline.sync.missive_drafts import drafts_key, lacking_key

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from twm_pipeline.http import Reply
    from twm_pipeline.mirror.tables import Table

CONVERSATIONS_PER_BATCH = 10
UNSETTLED_SECONDS = 1
"""A vendor's `Date` and the moment at which it looked are no further apart."""


class ConversationReader:
    """Reads what is due of conversations and stores each with what was read of it.

    Args:
        work: The pass.
        api: The account.
        options: Which streams are selected.
        owner_id: The token's owner, whose trash counts.
        scope: What the views hide.
    """

    def __init__(
        self, work: Pass, api: MissiveSource, options: PassOptions, *, owner_id: str, scope: Scope
    ) -> None:
        self.work = work
        self.api = api
        self.children = ChildReader(work, api, options)
        self.options = options
        self.owner_id = owner_id
        self.scope = scope
        # What was read of a conversation is one fact: a pass over some of the streams cannot state it.
        self.reads_all = all(options.wants(table.stream) for table in THREADS)

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

    def store_rows(
        self, rows: Sequence[Json], reply: Reply, *, fresh: bool, complete: bool = False
    ) -> list[Due]:
        """Store listed conversations; return those whose messages and comments were due and have been read.

        Args:
            rows: Conversations as the vendor shows them.
            reply: The answer they came in.
            fresh: Whether the requests go before those of history.
            complete: Read all of their messages and comments, whatever is known.
        """
        due = self._settle(rows, reply, complete=complete)
        for start in range(0, len(due), CONVERSATIONS_PER_BATCH):
            self._store_due(due[start : start + CONVERSATIONS_PER_BATCH], fresh=fresh)
        return due

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
            refused = self._store_parents(connection, batch)
            moved_from = store.conversations_of(connection, [str(item.record.id) for item in emails])
            email_problems += [problem for due in batch for problem in due.unusable]
            written = self.store_emails(connection, emails, email_problems, cleaned=cleaned)
            suspects = _left_behind(moved_from, emails, written)
            self.work.store(connection, COMMENTS, comments, comment_problems)
            store.follow_trash(connection, [due.id for due in batch])
            self._note_denied(connection, batch)
            if self.reads_all:
                read = [due for due in batch if due.id not in refused]
                store.note_children_read(connection, _activities(read))
        if not self.work.is_dry:  # where nothing stays moved, they would be suspected again and again
            self.refresh([item for item in suspects if item not in {due.id for due in batch}])

    def store_emails(
        self,
        connection: Connection,
        emails: Iterable[Observed],
        problems: Iterable[SetAside],
        *,
        cleaned: int,
    ) -> set[Any]:
        """Store messages, hidden where the scope says so; return the ids of those that were written."""
        counts = self.work.store(connection, EMAILS, emails, problems, cleaned=cleaned)
        if not self.scope.shows_everything and counts.written_ids:
            apply_scope(connection, "missive", self.scope, ids=counts.written_ids)
        return set(counts.written_ids)

    def _store_parents(self, connection: Connection, batch: Sequence[Due]) -> frozenset[str]:
        """Store conversations, and note which children are absent; return those that PostgreSQL refused."""
        parsed = [self._parse_conversations([due.row], due.reply) for due in batch]
        observed = [item for usable, _ in parsed for item in usable]
        problems = [item for _, refused in parsed for item in refused]
        counts = self.work.store(connection, CONVERSATIONS, observed, problems)
        store.unmerge(connection, counts.written_ids)
        store.follow_trash(connection, counts.written_ids)  # first: what comes back with them may be absent
        for due in batch:
            self.mark_absent(connection, due)
        return counts.refused_ids

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
        self.note_drafts_read(connection, batch)
        self.work.park(connection, denied.values())

    def note_drafts_read(self, connection: Connection, batch: Iterable[Due]) -> None:
        """Forget that drafts were set aside which are known now."""
        batch = [due for due in batch if due.drafts_read]
        lacking = {problem.object_id for due in batch for problem in due.denied}
        keys = {key(due.id) for due in batch for key in (drafts_key, lacking_key)}
        resolve_set_aside(connection, "missive", "emails", keys - lacking)

    def mark_absent(self, connection: Connection, due: Due) -> None:
        """Note messages and comments that a list read to its end no longer holds."""
        absent: dict[Children, tuple[Table, list[str]]] = {
            "messages": (EMAILS, due.absent_messages),
            "comments": (COMMENTS, due.absent_comments),
            "drafts": (EMAILS, due.absent_drafts),
        }
        for kind, reply in due.listed.items():
            table, ids = absent[kind]
            mark_missing(connection, table, ids, seq=reply.seq, at=reply.date)

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
            except AccessError as error:
                self._note_unreadable(conversation_id, error)
                continue
            merged = row["id"] != conversation_id
            if merged:
                self._note_merge(conversation_id, str(row["id"]), reply)
            due |= {
                item.id: item for item in self._settle([row], reply, complete=complete or merged, force=force)
            }
            if len(due) == CONVERSATIONS_PER_BATCH:
                self._store_due(list(due.values()), fresh=True)
                due = {}
        if due:
            self._store_due(list(due.values()), fresh=True)
        return gone

    def retry(self, ids: Iterable[str]) -> None:
        """Read conversations again that are set aside, or parts of which are; a fault concerns one alone."""
        for conversation_id in dict.fromkeys(ids):
            if conversation_id.startswith(WITHOUT_ID):
                continue
            try:
                self.refresh([conversation_id], complete=True)
            except RECORD_FAULTS as error:
                problem = SetAside(stream="conversations", object_id=conversation_id, reason=str(error))
                self.children.set_aside_if_alone(problem, error)
                with self.work.commit() as connection:
                    _forget_lists(connection, conversation_id)

    def _note_missing(self, conversation_id: str) -> None:
        with self.work.commit() as connection:
            at = self.work.require_vendor_now()
            seq = self.work.session.last_seq
            mark_missing(connection, CONVERSATIONS, [conversation_id], seq=seq, at=at)
            resolve_set_aside(connection, "missive", "conversations", [conversation_id])
            _forget_lists(connection, conversation_id)

    def _note_unreadable(self, conversation_id: str, error: AccessError) -> None:
        """Set a conversation aside that may not be read: that is no evidence of a deletion."""
        problem = SetAside(stream="conversations", object_id=conversation_id, reason=str(error))
        with self.work.commit() as connection:
            self.work.park(connection, [problem])
            _forget_lists(connection, conversation_id)

    def _note_merge(self, alias: str, conversation_id: str, reply: Reply) -> None:
        with self.work.commit() as connection:
            store.merge(connection, alias, conversation_id, seq=reply.seq, at=reply.date)
            resolve_set_aside(connection, "missive", "conversations", [alias])
            _forget_lists(connection, alias)


def _forget_lists(connection: Connection, conversation_id: str) -> None:
    """Forget that lists of a conversation are set aside: it is gone, or is tried again as a whole."""
    keys = [conversation_id, drafts_key(conversation_id), lacking_key(conversation_id)]
    resolve_set_aside(connection, "missive", "emails", keys)
    resolve_set_aside(connection, "missive", "comments", [conversation_id])


def _is_due(row: Json, known: store.ReadState | None) -> bool:
    """Return whether messages and comments are to be read.

    A message that vanished moves the count only; whether a draft moves more than theirs is not documented.
    """
    if known is None or known.read_at is None or activity_of(row) != to_unix(known.read_at):
        return True
    counts = (row.get("messages_count"), row.get("drafts_count") or 0)
    return counts != (known.messages_count, known.drafts_count or 0)


def _activities(batch: Sequence[Due]) -> dict[str, datetime]:
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
