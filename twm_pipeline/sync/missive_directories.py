"""Missive's shared labels, users and teams: complete lists, in which absence twice is the only sign."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from twm_pipeline.errors import PagingError
from twm_pipeline.mirror.checkpoints import Checkpoint, save_checkpoint
from twm_pipeline.mirror.tables import MISSIVE_DIRECTORIES
from twm_pipeline.mirror.tombstones import mark_missing, tombstone
from twm_pipeline.sources.fields import plain
from twm_pipeline.sources.missive_rows import DIRECTORY_PARSERS
from twm_pipeline.sync.directories import is_due
from twm_pipeline.sync.refusals import read_unless_refused

if TYPE_CHECKING:
    from twm_pipeline.mirror.tables import Table
    from twm_pipeline.sources.missive import MissiveSource, Page
    from twm_pipeline.sync.engine import Pass, PassOptions

MAX_READS = 4


class DirectoryReader:
    """Reads the directories of an account.

    Args:
        work: The pass.
        api: The account.
        options: What the pass is asked for.
    """

    def __init__(self, work: Pass, api: MissiveSource, options: PassOptions) -> None:
        self.work = work
        self.api = api
        self.options = options

    def read_due(self, *, confirmed: bool = False) -> None:
        """Read every directory whose beat has come; one that the token may not read is skipped and said."""
        for table in MISSIVE_DIRECTORIES:
            if self.options.wants(table.stream) and is_due(self.work, self.options, table):
                read = partial(self.read, table, confirmed=confirmed)
                read_unless_refused(self.work, table.stream, read=read)

    def read(self, table: Table, *, confirmed: bool = False) -> int:
        """Read a directory and store it; return how many rows are gone for good.

        Args:
            table: One of `MISSIVE_DIRECTORIES`.
            confirmed: Believe more deletions than DESIGN D5 does without asking.
        """
        pages = self._fetch(table)
        first = pages[0].reply
        found = {plain(row, "id") for page in pages for row in page.rows}
        for page in pages:
            observed, problems = self.work.parse(
                table.stream, page.rows, page.reply, DIRECTORY_PARSERS[table.stream]
            )
            with self.work.commit() as connection:
                self.work.store(connection, table, observed, problems, cleaned=page.reply.cleaned)
        # Who stands behind an id that cannot be read is not known: such a list lacks nobody.
        is_whole = all(isinstance(row.get("id"), str) for page in pages for row in page.rows)
        absent = [item for item in self._living(table) if item not in found] if is_whole else []
        with self.work.commit() as connection:
            mark_missing(connection, table, absent, seq=first.seq, at=first.date)
            if self.work.owns_checkpoints:
                checkpoint = Checkpoint(last_event_time=first.date)
                save_checkpoint(connection, "missive", table.stream, checkpoint=checkpoint)
        return self._bury(table, absent, seq=first.seq, confirmed=confirmed)

    def _bury(self, table: Table, absent: list[str], *, seq: int, confirmed: bool) -> int:
        """Call those gone that were absent ten minutes ago too: nothing reads one of them alone (D5)."""
        missing, _ = self.work.long_missing(table)
        gone = [item for item in missing if item in set(absent)]
        if not gone or not self.work.may_bury(table, wanted=len(gone), confirmed=confirmed):
            return 0
        with self.work.commit() as connection:
            at = self.work.require_vendor_now()
            count = tombstone(connection, table, gone, seq=seq, at=at, evidence="absence")
        self.work.report.of(table.stream).deleted += count
        return count

    def _fetch(self, table: Table) -> list[Page]:
        """Return the pages of a directory; several, or none where rows are known, until two reads agree."""
        pages = self.api.fetch_directory(table.stream)
        is_known = bool(self._living(table))
        for _ in range(MAX_READS):
            if len(pages) == 1 and (pages[0].rows or not is_known):
                return pages
            again = self.api.fetch_directory(table.stream)
            if _ids(again) == _ids(pages):
                return pages
            pages = again
        msg = f"Missive GET /{table.stream}: the list changed during each of {MAX_READS} reads"
        raise PagingError(msg)

    def _living(self, table: Table) -> list[str]:
        with self.work.read() as connection:
            rows = connection.execute(text(f"SELECT id FROM {table.name} WHERE NOT deleted"))  # noqa: S608 - a name from tables.py
            return [row.id for row in rows]


def _ids(pages: list[Page]) -> set[Any]:
    return {plain(row, "id") for page in pages for row in page.rows}
