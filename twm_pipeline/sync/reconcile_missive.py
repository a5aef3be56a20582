"""A complete sweep of Missive: every mailbox listed, some conversations read in full by turns.

A list shows labels, assignees, state and counts of 50 conversations a request; messages and comments cost two
requests a conversation. So those active lately are read in full by every sweep, the others by turns.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from twm_pipeline.errors import AccessError
from twm_pipeline.mirror.conversations import Turn, next_turn
from twm_pipeline.mirror.tables import CONVERSATIONS
from twm_pipeline.mirror.tombstones import count_rows
from twm_pipeline.sources.missive import MAILBOXES, Mailbox
from twm_pipeline.sources.missive_rows import activity_of
from twm_pipeline.sync.engine import PassOptions
from twm_pipeline.sync.missive import MissivePass
from twm_pipeline.sync.missive_conversations import CONVERSATIONS_PER_BATCH
from twm_pipeline.sync.refusals import read_unless_refused
from twm_pipeline.sync.walks import DownStep, walk_down

if TYPE_CHECKING:
    from twm_pipeline.http import Reply
    from twm_pipeline.mirror.sweeps import Sweep
    from twm_pipeline.records import Json
    from twm_pipeline.sync.engine import Pass

DAY_SECONDS = 86_400


class MissiveSweep:
    """The steps of a sweep over one account.

    Args:
        work: An open pass; it moves no checkpoint.
        sweep: What was seen, and the place: `lists` (mailbox → the second at which it goes on, None at its
            end), `since` (conversations active later are read in full), `after` and `upto` (whose turn it
            is).
        confirmed: Whether mass deletions are believed.
    """

    def __init__(self, work: Pass, sweep: Sweep, *, confirmed: bool) -> None:
        self.work = work
        self.sweep = sweep
        self.confirmed = confirmed
        self.sync = MissivePass(work, PassOptions(directories=True))
        self.lists: dict[str, int | None] = sweep.place.setdefault("lists", {})
        self.done = sweep.count_seen(CONVERSATIONS)
        with work.read() as connection:
            self.total = count_rows(connection, CONVERSATIONS)

    def run(self) -> dict[str, int]:
        """Take the steps in their order; return per stream how many rows are gone for good."""
        self.sync.follow_scope()
        readable = [self._may_list(mailbox) for mailbox in MAILBOXES]
        if all(readable):  # of a list that may not be read nothing can be absent
            self._look_at_absent()
        self.sync.drafts.read()
        self.sync.directories.read_due(confirmed=self.confirmed)
        self.sync.absent.decide(confirmed=self.confirmed)
        self.sweep.turn = self.sweep.place.get("upto") or ""
        return {stream: figures.deleted for stream, figures in self.work.report.streams.items()}

    def _may_list(self, mailbox: Mailbox) -> bool:
        """List a mailbox from where it goes on; return False where the token may not read it."""
        if mailbox in self.lists and self.lists[mailbox] is None:
            return True
        listed = read_unless_refused(
            self.work,
            "conversations",
            mailbox,
            read=lambda: self._list(mailbox),
            what=f"mailbox {mailbox}",
            refusals=(AccessError,),
        )
        return listed is not None

    def _list(self, mailbox: Mailbox) -> int:
        """Store what no list before has shown; return how many conversations were seen by then."""
        for step in walk_down(
            lambda until: self.sync.api.fetch_conversations(mailbox, until=until, fresh=False),
            time_of=activity_of,
            start=self.lists.get(mailbox),
            still_there=self.sync.conversations.still_there,
            proves_end=True,
        ):
            self._store(step, mailbox)
            if self.lists[mailbox] is None:
                break
        return self.done

    def _store(self, step: DownStep, mailbox: Mailbox) -> None:
        """Store the new rows of a page, some with all that is in them; then the place after it."""
        reply = step.page.reply
        self.work.note_reply(reply)
        if "since" not in self.sweep.place:
            self._plan(reply)
        ids = [str(row.get("id")) for row in step.rows]
        fresh = self.sweep.unseen(CONVERSATIONS, ids)
        rows = [row for row in step.rows if str(row.get("id")) in fresh]
        in_full = [row for row in rows if self._is_read_in_full(row)]
        for start in range(0, len(in_full), CONVERSATIONS_PER_BATCH):  # minutes each: none is read twice
            batch = in_full[start : start + CONVERSATIONS_PER_BATCH]
            self.sync.conversations.store_rows(batch, reply, fresh=False, complete=True)
            self.sweep.see(CONVERSATIONS, [str(row.get("id")) for row in batch])
        others = [row for row in rows if not self._is_read_in_full(row)]
        self.sync.conversations.store_rows(others, reply, fresh=False)
        self.sweep.see(CONVERSATIONS, ids)
        below = step.oldest is not None and self.sync.floor is not None and step.oldest < self.sync.floor
        self.lists[mailbox] = None if below else step.oldest
        self.sweep.save()
        self.done += len(fresh)
        self._show(mailbox)

    def _plan(self, reply: Reply) -> None:
        """Decide, by the vendor's clock, which conversations this sweep reads in full."""
        settings = self.work.settings
        since = int(reply.date.timestamp()) - settings.reconcile_days * DAY_SECONDS
        with self.work.read() as connection:
            turn = next_turn(
                connection,
                after=self.sweep.turn,
                quiet_since=datetime.fromtimestamp(since, UTC),
                most=settings.reconcile_conversations,
            )
        self.sweep.place |= {"since": since, "after": turn.after, "upto": turn.upto}
        if not self.sweep.place["full"] and turn.quiet:
            self.work.report.notes.append(self._describe(turn))

    def _describe(self, turn: Turn) -> str:
        days, most = self.work.settings.reconcile_days, self.work.settings.reconcile_conversations
        nights = f"all of them within {-(-turn.quiet // most)} sweeps" if most else "none of them"
        return (
            f"missive: messages and comments of conversations active in the last {days} days are read again;"
            f" of {turn.quiet:,} quiet ones up to {most:,} by turns, {nights} (RECONCILE_CONVERSATIONS)"
        )

    def _is_read_in_full(self, row: Json) -> bool:
        place = self.sweep.place
        active = activity_of(row)
        if place["full"] or active is None or active >= place["since"]:
            return True
        key = str(row.get("id"))
        return key > place["after"] and (place["upto"] is None or key <= place["upto"])

    def _look_at_absent(self) -> None:
        """Look at each conversation that no list has shown: gone, merged, or only not listed."""
        place = self.sweep.place
        ids = self.sweep.absent_conversations(
            CONVERSATIONS, active_since=self.sync.process_after, turn=(place["after"], place["upto"])
        )
        self.work.report.of("conversations").absent = len(ids)
        for start in range(0, len(ids), CONVERSATIONS_PER_BATCH):
            batch = ids[start : start + CONVERSATIONS_PER_BATCH]
            self.sync.conversations.refresh(batch, complete=True)
            self.sweep.see(CONVERSATIONS, batch)
            self.done += len(batch)
            self._show("absent")

    def _show(self, what: str) -> None:
        self.work.progress(
            "conversations", phase=f"reconcile {what}", done=self.done, total=max(self.total, self.done)
        )
