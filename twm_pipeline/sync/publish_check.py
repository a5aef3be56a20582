"""Holding a base against the mirror: records that are gone, or changed by hand, are written again.

Publishing itself never reads a record, so it does not see what people do to them. A sample looks at a
hundred records of each table in a call, others each time; where one of them is gone, or when asked to, all
records are read, a hundred a call. No vendor is asked for anything.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal
from zoneinfo import ZoneInfo

from twm_pipeline.airtable.cells import Cell, Cells, digest, is_empty, to_cells
from twm_pipeline.airtable.fields import ATTACHMENTS
from twm_pipeline.errors import AccessError, ConfigError, SchemaChangedError
from twm_pipeline.mirror.looks import note_checked, note_sampled, want_check
from twm_pipeline.mirror.published import (
    Published,
    count_rows,
    load_publication,
    next_published,
    published_by_record,
    rows_of_view,
    write_again,
)
from twm_pipeline.mirror.published_files import lost_files
from twm_pipeline.sync.publish_files import count_files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

    from twm_pipeline.airtable.client import FoundRecord
    from twm_pipeline.airtable.fields import Key, TableSpec
    from twm_pipeline.sync.publish import Publisher

logger = logging.getLogger(__name__)

How = Literal["sample", "whole"]

RECORDS_PER_PAGE = 100
ROWS_AT_ONCE = 1000
SHOWN_KEYS = 5


@dataclass(slots=True, kw_only=True)
class CheckReport:
    """What was found in one table.

    Args:
        how: At a `sample`, or at the `whole` table; a sample that misses a record becomes the latter.
        rows: How many the view has.
        records: How many the table has, those of the users among them; None: not all were looked at.
        checked: Records of ours that were looked at.
        missing: How many of ours are gone.
        different: How many show something else than was published.
        doubled: Keys of ours that several records have; only all records together tell.
        remade: Whether a field or the table was gone and has been made again.
    """

    how: str
    rows: int = 0
    records: int | None = None
    checked: int = 0
    missing: int = 0
    different: int = 0
    doubled: list[str] = field(default_factory=list)
    remade: bool = False

    @property
    def problems(self) -> list[str]:
        """Return in words what only people can mend."""
        if not self.doubled:
            return []
        keys = ", ".join(self.doubled[:SHOWN_KEYS])
        return [
            f"{len(self.doubled)} keys have several records in Airtable, such as {keys}: delete one of each"
        ]


def ask_for_check(engine: Engine, base: str, views: Iterable[Key], *, how: How) -> None:
    """Ask whoever publishes, now or next, for a look at the base."""
    with engine.begin() as connection:
        for view in views:
            want_check(connection, base, view, how=how)


def wanted_checks(engine: Engine, base: str, views: Iterable[Key]) -> dict[Key, str]:
    """Return what is asked for and not done yet."""
    with engine.connect() as connection:
        found = {view: load_publication(connection, base, view).check_wanted for view in views}
    return {view: how for view, how in found.items() if how is not None}


def check_base(publisher: Publisher, wanted: Mapping[Key, str]) -> dict[Key, CheckReport]:
    """Compare records with what was published; what differs is written when publishing goes on.

    Args:
        publisher: Of the base; its window's lock is held.
        wanted: For each view `sample` or `whole`.

    Raises:
        TwmError: As the client's.
    """
    specs = publisher.prepare()
    return {view: _check(publisher, specs[view], how=how) for view, how in wanted.items()}


def _check(publisher: Publisher, spec: TableSpec, *, how: str) -> CheckReport:
    report = CheckReport(how=how)
    layout = publisher.layouts[spec.key]
    check = _ViewCheck(publisher=publisher, spec=spec, report=report)
    try:
        if how == "whole" or check.sample():
            check.everything()
    except (SchemaChangedError, AccessError, ConfigError):
        publisher.set_up_again()
        report.remade = publisher.layouts[spec.key] != layout
        if not report.remade:
            raise
    finally:
        publisher.note_calls(spec.key)
    with publisher.commit() as connection:
        report.rows = count_rows(connection, spec.key)
        note_checked(connection, publisher.base, spec.key, how=how, found=asdict(report))
    return report


@dataclass(kw_only=True)
class _ViewCheck:
    """Checks one table.

    Args:
        publisher: The base's.
        spec: The table.
        report: Filled.
    """

    publisher: Publisher
    spec: TableSpec
    report: CheckReport

    def __post_init__(self) -> None:
        self.base, self.view = self.publisher.base, self.spec.key
        layout = self.publisher.layouts[self.view]
        self.table_id = layout.table_id
        cells = [item for item in self.spec.fields if item.form != "attachments"]
        self.names = {layout.fields[it.name]: it.name for it in cells if it.name in layout.fields}
        self.files = layout.fields.get(ATTACHMENTS)
        self.fields = [*self.names, *([self.files] if self.files else [])]
        self.zone = ZoneInfo(self.publisher.settings.timezone)

    def sample(self) -> bool:
        """Look at the next hundred records and return whether one of them is gone."""
        with self.publisher.reading() as connection:
            cursor = load_publication(connection, self.base, self.view).check_cursor
            known = next_published(
                connection, self.base, self.view, after=cursor or "", limit=RECORDS_PER_PAGE
            )
        ids = [str(item.record_id) for item in known]
        found = self.publisher.client.get_records(self.table_id, ids, fields=self.fields)
        self._compare(known, found)
        gone = self._missing(known, {record.id for record in found})
        with self.publisher.commit() as connection:
            full = len(known) == RECORDS_PER_PAGE
            note_sampled(connection, self.base, self.view, cursor=known[-1].row_id if full else None)
        return gone > 0

    def everything(self) -> None:
        """Look at every record of the table, those of the users among them."""
        self.report.checked = 0
        seen: dict[str, str] = {}
        key_field = self.publisher.layouts[self.view].fields[self.spec.key_field.name]
        for page in self.publisher.client.list_records(self.table_id, fields=self.fields):
            with self.publisher.reading() as connection:
                known = published_by_record(connection, self.base, self.view, [it.id for it in page])
            self._compare(known, [record for record in page if record.id not in seen])
            seen |= {record.id: str(record.cells.get(key_field)) for record in page}
            seen |= {str(item.record_id): item.row_id for item in known}  # as they are after this look
        self.report.records = len(seen)
        keys = Counter(seen.values())
        for known in self._published():
            self._missing(known, seen.keys())
            self.report.doubled += [item.row_id for item in known if keys[item.row_id] > 1]

    def _published(self) -> Iterator[list[Published]]:
        """Yield the rows that have a record, some at a time."""
        after = ""
        while True:
            with self.publisher.reading() as connection:
                known = next_published(connection, self.base, self.view, after=after, limit=ROWS_AT_ONCE)
            if not known:
                return
            yield known
            after = known[-1].row_id

    def _missing(self, known: Sequence[Published], found: Iterable[str]) -> int:
        """Have rows written again whose records are gone; return how many."""
        there = set(found)
        gone = [item.row_id for item in known if item.record_id not in there]
        self.report.missing += len(gone)
        self._write_again(gone, is_gone=True)
        return len(gone)

    def _compare(self, known: Sequence[Published], found: Iterable[FoundRecord]) -> None:
        """Have records written again that show something else than what was published."""
        with self.publisher.reading() as connection:
            rows = rows_of_view(connection, self.view, [item.row_id for item in known])
        records = {record.id: record for record in found}
        different = []
        for item in known:
            record, row = records.get(str(item.record_id)), rows.get(item.row_id)
            if record is None:
                continue
            self.report.checked += 1
            cells = to_cells(self.spec, row, timezone=self.zone) if row is not None else None
            # What is to be sent again anyway is not compared.
            if cells is not None and digest(cells) == item.cells_hash and not self._shows(record, cells):
                different.append(item.row_id)
        self._write_again(different, is_gone=False)
        lost = self._lost_files(known, records)
        self.report.different += len({*different, *lost})

    def _lost_files(self, known: Sequence[Published], records: Mapping[str, FoundRecord]) -> list[str]:
        """Have files sent again that somebody took out of a record; those that people add stay."""
        if self.files is None:
            return []
        held = {
            item.row_id: count_files(records[str(item.record_id)].cells.get(self.files))
            for item in known
            if item.record_id in records
        }
        with self.publisher.commit() as connection:
            return lost_files(connection, self.base, held)

    def _shows(self, record: FoundRecord, cells: Cells) -> bool:
        found: Mapping[str, Cell] = {self.names.get(key, ""): cell for key, cell in record.cells.items()}
        return all(_alike(cell, found.get(name)) for name, cell in cells.items())

    def _write_again(self, row_ids: Sequence[str], *, is_gone: bool) -> None:
        if row_ids:
            logger.info("airtable %s: %d records are written again", self.view, len(row_ids))
            with self.publisher.commit() as connection:
                write_again(connection, self.base, self.view, row_ids, is_gone=is_gone)


def _alike(cell: Cell, found: Cell) -> bool:
    """Return whether a cell holds what was sent; white space that Airtable may trim does not count."""
    cell, found = (" ".join(it.split()) if isinstance(it, str) else it for it in (cell, found))
    return cell == found or (is_empty(cell) and is_empty(found))
