"""Teamwork rows that lists do not show: read one by one, and called gone only with evidence (DESIGN D5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twm_pipeline.errors import AccessError, NotFoundError
from twm_pipeline.mirror.tables import FEEDS, TASKLISTS, TASKS
from twm_pipeline.mirror.tombstones import (
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
        return self._note_missing(TASKS, self._read_each(self._read_in_bulk(ids)))

    def look(self, ids: Sequence[int]) -> list[int]:
        """Do as `refresh`, by one request where only one task is asked for, whatever its state."""
        if len(ids) > 1:
            return self.refresh(ids)
        return self._note_missing(TASKS, self._read_each(ids))

    def look_at_rows(self, table: Table, ids: Sequence[int]) -> list[int]:
        """Read rows of another stream again and store them; return those that answered 404, now missing."""
        return self._note_missing(table, self._read_directory_rows(table)(ids))

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
        rest = self._read_in_bulk(ids) if table is TASKS else list(ids)
        readable, hidden = self._split_by_parent(table, rest)
        with self.work.read() as connection:
            hidden = without_inaccessible(connection, table, hidden)
        self._note_missing(table, hidden)
        if self.work.may_bury(table, wanted=len(readable), confirmed=confirmed):
            read = self._read_each if table is TASKS else self._read_directory_rows(table)
            self._note_missing(table, read(readable))

    def decide(self, table: Table, *, confirmed: bool = False) -> int:
        """Look again at rows missing for at least ten minutes; return how many are gone for good."""
        ids, seq = self.work.long_missing(table)
        if not ids:
            return 0
        rest = self._read_in_bulk(ids) if table is TASKS else ids
        readable, hidden = self._split_by_parent(table, rest)
        with self.work.commit() as connection:
            count = mark_inaccessible(connection, table, hidden, seq=seq)
        self.work.report.of(table.stream).written += count
        if not self.work.may_bury(table, wanted=len(readable), confirmed=confirmed):
            return 0
        read = self._read_each if table is TASKS else self._read_directory_rows(table)
        gone = read(readable)
        with self.work.commit() as connection:
            count = tombstone(connection, table, gone, seq=seq, at=self._now(), evidence="absence")
            if table is TASKS:
                follow_tasks(connection, gone)
        self.work.report.of(table.stream).deleted += count
        return count

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

    def _read_each(self, ids: Sequence[int]) -> list[int]:
        """Read tasks one by one and store them; return those that answered 404."""
        gone = []
        for task_id in ids:
            try:
                self.store_tasks([self.api.fetch_task(task_id)])
            except NotFoundError:
                gone.append(task_id)
        return gone

    def _read_directory_rows(self, table: Table) -> Callable[[Sequence[int]], list[int]]:
        def read(ids: Sequence[int]) -> list[int]:
            gone = []
            for object_id in ids:
                try:
                    row, reply = self.api.fetch_one(table.stream, object_id)
                except NotFoundError:
                    gone.append(object_id)
                else:
                    page = Page(rows=[row], included={}, has_more=False, reply=reply)
                    self.store_directory_rows(table, page)
            return gone

        return read

    def _note_missing(self, table: Table, ids: list[int]) -> list[int]:
        """Note *ids* as missing unless another process saw them since this pass's newest request."""
        if ids:
            with self.work.commit() as connection:
                mark_missing(connection, table, ids, seq=self.work.session.last_seq, at=self._now())
        return ids

    def _split_by_parent(self, table: Table, ids: Sequence[int]) -> tuple[list[int], list[int]]:
        """Return ids whose project can be read, and the others: theirs is no deletion but a lost access."""
        if table not in IN_PROJECTS or not ids:
            return list(ids), []
        with self.work.read() as connection:
            projects = projects_of(connection, table, ids)
        readable = {project: self._can_read_project(project) for project in set(projects.values())}
        shown = [item for item in ids if readable.get(projects.get(item))]
        return shown, [item for item in ids if item not in set(shown)]

    def _can_read_project(self, project_id: int | None) -> bool:
        if project_id is None:
            return False
        try:
            self.api.fetch_one("projects", project_id)
        except (NotFoundError, AccessError):
            return False
        return True
