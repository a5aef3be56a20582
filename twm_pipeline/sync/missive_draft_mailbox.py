"""Missive's mailbox of drafts: nothing else tells that one was changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twm_pipeline.errors import AccessError, NotFoundError, RequestRefusedError
from twm_pipeline.mirror import conversations as store
from twm_pipeline.mirror.checkpoints import Checkpoint, save_checkpoint
from twm_pipeline.sources.missive_rows import activity_of
from twm_pipeline.sync.missive_children import Due
from twm_pipeline.sync.refusals import read_unless_refused
from twm_pipeline.sync.walks import walk_down

if TYPE_CHECKING:
    from twm_pipeline.http import Reply
    from twm_pipeline.sources.missive import MissiveSource
    from twm_pipeline.sync.engine import Pass
    from twm_pipeline.sync.missive_conversations import ConversationReader


class DraftMailbox:
    """Reads the drafts of every conversation that has some.

    Args:
        work: The pass.
        api: The account.
        conversations: Reads and stores what the mailbox lists.
    """

    def __init__(self, work: Pass, api: MissiveSource, conversations: ConversationReader) -> None:
        self.work = work
        self.api = api
        self.conversations = conversations

    def read(self) -> None:
        """Read the drafts of every conversation that has some, or had."""
        found = read_unless_refused(
            self.work,
            "emails",
            "drafts",
            read=self._list,
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
            self._read_those_of(item)
        if began is not None and self.work.owns_checkpoints:
            with self.work.commit() as connection:
                checkpoint = Checkpoint(last_event_time=began.date)
                save_checkpoint(connection, "missive", "emails", "drafts", checkpoint=checkpoint)

    def _list(self) -> tuple[dict[str, Due], Reply | None]:
        """Walk the mailbox; return what of it is still to be read, and the first answer."""
        listed: dict[str, Due] = {}
        began: Reply | None = None
        for step in walk_down(
            lambda until: self.api.fetch_conversations("drafts", until=until), time_of=activity_of
        ):
            began = began or step.page.reply
            rows = [row for row in step.rows if isinstance(row.get("id"), str)]
            due = self.conversations.store_rows(rows, step.page.reply, fresh=True)
            read = {item.id for item in due if item.row.get("drafts_count")}
            listed |= {row["id"]: Due(row, step.page.reply) for row in rows if row["id"] not in read}
        return listed, began

    def _read_those_of(self, due: Due) -> None:
        """Read the drafts of one conversation and store them."""
        children = self.conversations.children
        children.look_up([due])
        try:
            children.read_drafts(due, fresh=True)
        except (AccessError, NotFoundError):
            return  # a conversation that is gone takes them with it
        emails, problems, cleaned = children.read_bodies([due], fresh=True)
        with self.work.commit() as connection:
            problems += due.unusable
            self.conversations.store_emails(connection, emails, problems, cleaned=cleaned)
            self.conversations.mark_absent(connection, due)
            self.conversations.note_drafts_read(connection, [due])
            self.work.park(connection, due.denied)
