"""Missive's rows that no list shows: asked for once more, and called gone only with evidence (DESIGN D5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twm_pipeline.errors import AccessError, NotFoundError
from twm_pipeline.mirror import conversations as store
from twm_pipeline.mirror.tables import COMMENTS, CONVERSATIONS, EMAILS
from twm_pipeline.mirror.tombstones import mark_inaccessible, tombstone
from twm_pipeline.sources.missive_rows import parse_message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twm_pipeline.mirror.tables import Table
    from twm_pipeline.sources.missive import MissiveSource
    from twm_pipeline.sync.engine import Pass
    from twm_pipeline.sync.missive_conversations import ConversationReader


class AbsentThreads:
    """Looks again at conversations, messages and comments that were missing.

    Args:
        work: The pass.
        api: The account.
        conversations: Reads conversations again.
    """

    def __init__(self, work: Pass, api: MissiveSource, conversations: ConversationReader) -> None:
        self.work = work
        self.api = api
        self.conversations = conversations

    def decide(self, *, confirmed: bool = False) -> None:
        """Look again at rows missing for at least ten minutes; those that are gone for good are buried."""
        for table, look in (
            (CONVERSATIONS, self._look_at_conversations),
            (EMAILS, self._look_at_messages),
            (COMMENTS, self._look_at_comments),
        ):
            ids, seq = self.work.long_missing(table)
            if ids and self.work.may_bury(table, wanted=len(ids), confirmed=confirmed):
                self._bury(table, look(ids, seq), seq=seq)

    def _bury(self, table: Table, ids: Sequence[str], *, seq: int) -> None:
        with self.work.commit() as connection:
            at = self.work.require_vendor_now()
            count = tombstone(connection, table, ids, seq=seq, at=at, evidence="absence")
            if table is CONVERSATIONS:
                store.bury_children(connection, ids, seq=seq, at=at)
        self.work.report.of(table.stream).deleted += count

    def _look_at_conversations(self, ids: Sequence[str], _seq: int) -> list[str]:
        """Read conversations; return those that answered 404."""
        return self.conversations.refresh(ids)

    def _look_at_messages(self, ids: Sequence[str], seq: int) -> list[str]:
        """Read messages themselves; return those that answered 404 while their conversation can be read."""
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
        return [item for item in gone if item not in hidden]

    def _is_readable(self, conversation_id: str | None) -> bool:
        if conversation_id is None:
            return False
        try:
            self.api.fetch_conversation(conversation_id)
        except (NotFoundError, AccessError):
            return False
        return True

    def _look_at_comments(self, ids: Sequence[str], _seq: int) -> list[str]:
        """Read the comments of their conversations once more; return those that are absent again."""
        with self.work.read() as connection:
            parents = store.conversations_of(connection, ids, table=COMMENTS)
        self.conversations.refresh(sorted(set(parents.values())), complete=True)
        with self.work.read() as connection:
            return store.still_missing(connection, COMMENTS, ids)
