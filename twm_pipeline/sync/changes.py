"""What deliveries say has changed, read again and stored: the drain's half of a window's work."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from twm_pipeline.mirror.tables import CONVERSATIONS, FEEDS, TASKS, table_of
from twm_pipeline.mirror.tombstones import MISSING_WAIT, note_second_looks, tasks_below, unknown_ids
from twm_pipeline.records import Source
from twm_pipeline.sync.engine import Pass, PassOptions
from twm_pipeline.sync.missive import MissivePass
from twm_pipeline.sync.teamwork import TeamworkPass

if TYPE_CHECKING:
    from twm_pipeline.mirror.tables import Table

MOST_TASKS_BELOW = 1000
"""So many tasks of a list or project are read again at once; the rest is left to polls and reconcile."""
STATE_EVENTS = frozenset(
    ("label_change", "assignment_change", "conversation_closed", "conversation_reopened")
)
"""Types of Missive's rules that change a conversation and nothing in it; any other may bring more."""
QUIET_ACTIONS = frozenset(("CREATED", "UPDATED"))
"""Actions on a list or project that change its own row only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One object, and every event by which deliveries named it."""

    stream: str
    object_id: str
    events: frozenset[str] = frozenset()

    @property
    def actions(self) -> frozenset[str]:
        """What was done to it, such as `DELETED`."""
        return frozenset(event.rpartition(".")[2] for event in self.events)


class Changes(Protocol):
    """Reads changed objects of one source."""

    work: Pass

    def apply(self, changes: Sequence[Change]) -> bool:
        """Read the objects again and store them; return whether more may have changed than these."""

    def probe(self) -> None:
        """Make one cheap request: whether the vendor answers at all."""


def open_changes(work: Pass) -> Changes:
    """Return what reads the changed objects of the pass's source."""
    source: Source = work.source
    return TeamworkChanges(work) if source == "teamwork" else MissiveChanges(work)


class TeamworkChanges:
    """Reads changed tasks, and lists and projects with the tasks that change with them.

    Args:
        work: An open pass; it moves no checkpoint.
    """

    def __init__(self, work: Pass) -> None:
        self.work = work
        self.sync = TeamworkPass(work, PassOptions())

    def probe(self) -> None:
        """Ask whose key this is."""
        self.sync.api.fetch_me()

    def apply(self, changes: Sequence[Change]) -> bool:
        """See `Changes.apply`."""
        by_stream: dict[str, dict[int, Change]] = defaultdict(dict)
        for change in changes:
            by_stream[change.stream][int(change.object_id)] = change
        more = False
        for stream in ("projects", "tasklists"):
            rows = by_stream[stream]
            if rows:
                self._look_at(table_of("teamwork", stream), rows)
                more = self._read_below(stream, rows.values()) or more
        for table in (TASKS, *FEEDS):
            if by_stream[table.stream]:
                self._look_at(table, by_stream[table.stream])
        return more

    def _look_at(self, table: Table, changes: dict[int, Change]) -> None:
        """Read rows again; a 404 after a DELETED event is a deletion, any other is looked at once more."""
        said = {item for item, change in changes.items() if "DELETED" in change.actions}
        gone = self.sync.absent.bury_if_said(table, list(changes), said=said)
        if gone and table is TASKS:
            due_at = self.work.require_vendor_now() + MISSING_WAIT
            with self.work.commit() as connection:
                note_second_looks(connection, table, unknown_ids(connection, table, gone), due_at=due_at)

    def _read_below(self, stream: str, changes: Iterable[Change]) -> bool:
        """Read the known tasks of lists and projects whose event may have changed them."""
        loud = [int(change.object_id) for change in changes if change.actions - QUIET_ACTIONS]
        if not loud:
            return False
        with self.work.read() as connection:
            ids = tasks_below(connection, stream, loud, limit=MOST_TASKS_BELOW)
        self.sync.absent.look_in_bulk(ids)
        return True


class MissiveChanges:
    """Reads changed conversations with what is new in them.

    Args:
        work: An open pass; it moves no checkpoint.
    """

    def __init__(self, work: Pass) -> None:
        self.work = work
        self.sync = MissivePass(work, PassOptions())

    def probe(self) -> None:
        """Ask for the newest conversations."""
        self.sync.api.fetch_conversations("all")

    def apply(self, changes: Sequence[Change]) -> bool:
        """See `Changes.apply`."""
        loud = [change.object_id for change in changes if change.events - STATE_EVENTS]
        quiet = [change.object_id for change in changes if not change.events - STATE_EVENTS]
        conversations = self.sync.conversations
        gone = [*conversations.refresh(loud, force=True), *conversations.refresh(quiet)]
        if gone:
            at = self.work.require_vendor_now()
            with self.work.commit() as connection:
                unknown = unknown_ids(connection, CONVERSATIONS, gone)
                note_second_looks(connection, CONVERSATIONS, unknown, due_at=at + MISSING_WAIT)
        return False
