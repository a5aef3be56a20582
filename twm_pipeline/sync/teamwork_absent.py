"""Teamwork rows that lists do not show: read one by one, and called gone only with evidence (DESIGN D5)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from twm_pipeline.errors import AccessError, NotFoundError, RequestRefusedError
from twm_pipeline.mirror.tables import FEEDS, PROJECTS, TASKLISTS, TASKS
from twm_pipeline.mirror.tombstones import (
    among_deleted,
    follow_tasks,
    mark_inaccessible,
    mark_missing,
    next_observation,
    projects_of,
    tombstone,
    without_inaccessible,
)
from twm_pipeline.sources.fields import plain_id
from twm_pipeline.sources.teamwork import IDS_PER_CALL, Page, TeamworkSource

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Sequence
    from datetime import datetime

    from twm_pipeline.mirror.tables import Table
    from twm_pipeline.sync.engine import Pass

IN_PROJECTS = (TASKS, TASKLISTS, *FEEDS)
ACTIVITY_SPAN = timedelta(days=30)
"""How far the site's activity is searched for the deletion of a project that does not answer any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fates:
    """What may have become of rows that no list shows.

    Args:
        open: Gone or only not listed: each has to be asked for.
        hidden: Of a project that this key cannot read, or such a project: no deletion, but a lost access.
    """

    open: list[int] = field(default_factory=list)
    hidden: list[int] = field(default_factory=list)


class AbsentRows:
    """Looks for rows by their ids.

    Args:
        work: The pass.
        api: The site.
        store_tasks: Stores pages of tasks.
        store_directory_rows: Stores a page of a directory.
    """

    def __init__(
        self,
        work: Pass,
        api: TeamworkSource,
        *,
        store_tasks: Callable[[Iterable[Page]], Any],
        store_directory_rows: Callable[[Table, Page], Any],
    ) -> None:
        self.work = work
        self.api = api
        self.store_tasks = store_tasks
        self.store_directory_rows = store_directory_rows

    def refresh(self, ids: Sequence[int]) -> list[int]:
        """Read tasks again and store them; return those that answered 404 each, now noted as missing."""
        return self._note_missing(TASKS, self._read_singly(TASKS, self._read_in_bulk(ids)))

    def look(self, ids: Sequence[int]) -> list[int]:
        """Do as `refresh`, by one request where only one task is asked for, whatever its state."""
        if len(ids) > 1:
            return self.refresh(ids)
        return self._note_missing(TASKS, self._read_singly(TASKS, ids))

    def look_at_rows(self, table: Table, ids: Sequence[int]) -> list[int]:
        """Read rows of another stream again and store them; return those that answered 404, now missing."""
        return self._note_missing(table, self._read_singly(table, ids))

    def bury_if_said(self, table: Table, ids: Sequence[int], *, said: Container[int]) -> list[int]:
        """Read rows again; a 404 is a deletion where the vendor *said* so. Return the other 404s.

        The deletion is as old as this call: what another process sees alive meanwhile is newer.
        """
        seq = 0
        if any(item in said for item in ids):
            with self.work.commit() as connection:
                seq = next_observation(connection)
        gone = self.look(ids) if table is TASKS else self.look_at_rows(table, ids)
        deleted = [item for item in gone if item in said]
        if deleted:
            with self.work.commit() as connection:
                count = tombstone(connection, table, deleted, seq=seq, at=self._now(), evidence="event")
                if table is TASKS:
                    follow_tasks(connection, deleted)
            self.work.report.of(table.stream).deleted += count
        return [item for item in gone if item not in said]

    def look_in_bulk(self, ids: Sequence[int]) -> list[int]:
        """Read tasks again, a hundred a call; note those as missing that no list shows."""
        return self._note_missing(TASKS, self._read_in_bulk(ids))

    def sweep(self, table: Table, ids: Sequence[int], *, confirmed: bool) -> None:
        """Look for living rows that a complete list does not hold, in as few requests as can be.

        Tasks are read a hundred a call; of the rest those of a project that cannot be read cost one request a
        project, and the others one each, unless they are more than would be believed anyway.
        """
        fates = self._tell_fates(table, ids)
        with self.work.read() as connection:
            hidden = without_inaccessible(connection, table, fates.hidden)
        self._note_missing(table, hidden)
        if self.work.may_bury(table, wanted=len(fates.open), confirmed=confirmed):
            fates.open[:] = self._read_singly(table, fates.open)
        self._note_missing(table, fates.open)

    def decide(self, table: Table, *, confirmed: bool = False) -> None:
        """Look again at rows missing for at least ten minutes; those that are gone for good are buried."""
        ids, seq = self.work.long_missing(table)
        if not ids:
            return
        fates = self._tell_fates(table, ids)
        with self.work.commit() as connection:
            count = mark_inaccessible(connection, table, fates.hidden, seq=seq)
        self.work.report.of(table.stream).written += count
        if self.work.may_bury(table, wanted=len(fates.open), confirmed=confirmed):
            self._bury(table, self._read_singly(table, fates.open), seq=seq, evidence="absence")

    def _bury(self, table: Table, ids: Sequence[int], *, seq: int, evidence: str) -> None:
        if not ids:
            return
        with self.work.commit() as connection:
            count = tombstone(connection, table, ids, seq=seq, at=self._now(), evidence=evidence)
            if table is TASKS:
                follow_tasks(connection, ids)
        self.work.report.of(table.stream).deleted += count

    def _now(self) -> datetime:
        return self.work.require_vendor_now()

    def _read_in_bulk(self, ids: Sequence[int]) -> list[int]:
        """Read tasks a hundred a call, living and deleted; return those that neither list shows."""
        rest: list[int] = []
        for start in range(0, len(ids), IDS_PER_CALL):
            chunk = list(ids[start : start + IDS_PER_CALL])
            for deleted in (False, True):
                chunk = self._read_chunk(chunk, deleted=deleted)
            rest += chunk
        return rest

    def _read_chunk(self, ids: list[int], *, deleted: bool) -> list[int]:
        """Read tasks by a list, which the site may cut shorter than asked for; return those it lacks."""
        while ids:
            page = self.api.fetch_tasks_by_id(ids, deleted=deleted)
            self.store_tasks([page])
            found = {plain_id(row) for row in page.rows}
            ids = [item for item in ids if item not in found]
            if not found or not page.has_more:
                break
        return ids

    def _read_singly(self, table: Table, ids: Sequence[int]) -> list[int]:
        """Read rows one by one and store them; return those that answered 404.

        One that may not be read (403) is there, but not for this key: that needs no second look.
        """
        read = self._store_task if table is TASKS else partial(self._store_directory_row, table)
        gone, forbidden = [], []
        seq = self.work.session.last_seq + 1
        for object_id in ids:
            try:
                read(object_id)
            except NotFoundError:
                gone.append(object_id)
            except AccessError:
                forbidden.append(object_id)
        if forbidden:
            with self.work.commit() as connection:
                count = mark_inaccessible(connection, table, forbidden, seq=seq)
            self.work.report.of(table.stream).written += count
        return gone

    def _store_task(self, task_id: int) -> None:
        self.store_tasks([self.api.fetch_task(task_id)])

    def _store_directory_row(self, table: Table, object_id: int) -> None:
        row, reply = self.api.fetch_one(table.stream, object_id)
        self.store_directory_rows(table, Page(rows=[row], included={}, has_more=False, reply=reply))

    def _note_missing(self, table: Table, ids: list[int]) -> list[int]:
        """Note *ids* as missing unless another process saw them since this pass's newest request."""
        if ids:
            with self.work.commit() as connection:
                mark_missing(connection, table, ids, seq=self.work.session.last_seq, at=self._now())
        return ids

    def _tell_fates(self, table: Table, ids: Sequence[int]) -> Fates:
        """Look for absent rows in bulk and by their project; what is known to be deleted is buried."""
        rest = self._read_in_bulk(ids) if table is TASKS else list(ids)
        if not rest or table not in (PROJECTS, *IN_PROJECTS):
            return Fates(open=rest)
        seq = self.work.session.last_seq + 1
        if table is PROJECTS:
            # A project is deleted for everybody or only hidden from this key: a 404 does not tell which.
            rest = self._read_singly(PROJECTS, rest)
            said = self._said_deleted(rest)
            self._bury(PROJECTS, [item for item in rest if item in said], seq=seq, evidence="event")
            return Fates(hidden=[item for item in rest if item not in said])
        with self.work.read() as connection:
            projects = projects_of(connection, table, rest)
            deleted = among_deleted(connection, PROJECTS, set(projects.values()))
        self._bury(
            table, [item for item in rest if projects.get(item) in deleted], seq=seq, evidence="parent"
        )
        rest = [item for item in rest if projects.get(item) not in deleted]
        readable = {key: self._can_read_project(key) for key in {projects.get(item) for item in rest}}
        shown = [item for item in rest if readable[projects.get(item)]]
        return Fates(open=shown, hidden=[item for item in rest if not readable[projects.get(item)]])

    def _said_deleted(self, ids: Sequence[int]) -> set[int]:
        """Return those projects among *ids* of which the site's activity says that they were deleted."""
        if not ids:
            return set()
        since = self._now() - ACTIVITY_SPAN
        try:
            activity = self.api.fetch_activity(since=since, streams=("projects",))
        except (AccessError, NotFoundError, RequestRefusedError) as error:
            self.work.report.problems.append(f"deleted projects are shown as inaccessible: {error}")
            return set()
        return set(ids).intersection(activity.deleted.get("projects", ()))

    def _can_read_project(self, project_id: int | None) -> bool:
        if project_id is None:
            return False
        try:
            self.api.fetch_one("projects", project_id)
        except (NotFoundError, AccessError):
            return False
        return True
