"""Writing records: a request is checked as a whole, then applied as a whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twm_pipeline.sandbox.airtable_cells import Writing, parse_cell
from twm_pipeline.sandbox.airtable_errors import RefusedError, forbidden, invalid
from twm_pipeline.sandbox.airtable_links import make_rows, mirror
from twm_pipeline.sandbox.airtable_schema import new_choice
from twm_pipeline.sandbox.airtable_store import Attachment, Base, Cell, Field, Record, Table
from twm_pipeline.sandbox.answers import Answers
from twm_pipeline.sandbox.options import Json

MOST_RECORDS = 10
MOST_MERGED = 3
NewCells = dict[str, Cell]  # by field id, None to empty one
NewAttachment = Callable[[Table, Record, Field, Attachment], None]
SETTINGS = ("typecast", "returnFieldsByFieldId")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What one entry of a request does; without a record it makes one."""

    record: Record | None
    cells: NewCells


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A request's body, checked but for the cells.

    Attributes:
        entries: Record ids, None for none, and cells by field name or id.
        single: The body was one record and not a list.
        merge_on: What `performUpsert` names; None without it.
    """

    entries: list[tuple[str | None, dict[str, Any]]]
    typecast: bool
    by_id: bool
    single: bool = False
    merge_on: list[str] | None = None


def parse_create(body: Json) -> Batch:
    """Return the records to create, of which there may be one alone.

    Raises:
        RefusedError: If the body has another form, an unknown key, or too many records.
    """
    if isinstance(body, dict) and "records" not in body:
        return parse_single(body)
    return batch_of(
        body, entries=[(None, fields_of(entry, "fields")) for entry in records_of(body, "records")]
    )


def parse_single(body: Json) -> Batch:
    """Return the one record of a body.

    Raises:
        RefusedError: If the body has another form or an unknown key.
    """
    if not isinstance(body, dict) or not isinstance(body.get("fields"), dict) or "records" in body:
        raise invalid()
    checked_settings(body, "fields")
    return batch_of(body, entries=[(None, body["fields"])], single=True)


def parse_updates(body: Json) -> Batch:
    """Return the records to update; with `performUpsert` some may lack an id.

    Raises:
        RefusedError: If the body has another form, an unknown key, too many records, or one twice.
    """
    records = records_of(body, "records", "performUpsert")
    merge_on = parse_upsert(body["performUpsert"]) if "performUpsert" in body else None
    entries = []
    for entry in records:
        fields = fields_of(entry, "id", "fields")
        if not isinstance(entry.get("id"), str) and (merge_on is None or "id" in entry):
            raise RefusedError(422, "INVALID_RECORDS")
        entries.append((entry.get("id"), fields))
    named = [key for key, _ in entries if key is not None]
    if len(set(named)) < len(named):
        message = "You cannot update the same record multiple times in a single request."
        raise RefusedError(422, "INVALID_RECORDS", message)
    return batch_of(body, entries=entries, merge_on=merge_on)


def parse_upsert(value: Json) -> list[str]:
    """Return the one to three fields to merge on."""
    names = value.get("fieldsToMergeOn") if isinstance(value, dict) and len(value) == 1 else None
    right = isinstance(names, list) and 1 <= len(names) <= MOST_MERGED
    if not isinstance(names, list) or not right or not all(isinstance(name, str) for name in names):
        raise invalid("performUpsert.fieldsToMergeOn must be an array of 1 to 3 field names or ids")
    return names


def checked_settings(body: dict[str, Any], *keys: str) -> None:
    """Refuse a body with other keys than these and the settings."""
    if not body.keys() <= {*keys, *SETTINGS} or any(
        type(body.get(name, False)) is not bool for name in SETTINGS
    ):
        raise invalid()


def records_of(body: Json, *keys: str) -> list[Any]:
    """Return the list of records of a body that may have *keys*."""
    if not isinstance(body, dict):
        raise invalid()
    checked_settings(body, *keys)
    records = body.get("records")
    if not isinstance(records, list) or not 1 <= len(records) <= MOST_RECORDS:
        raise RefusedError(422, "INVALID_RECORDS")
    return records


def fields_of(entry: Json, *keys: str) -> dict[str, Any]:
    """Return the cells of a record that may have *keys*."""
    fields = entry.get("fields") if isinstance(entry, dict) and entry.keys() <= set(keys) else None
    if not isinstance(fields, dict):
        raise RefusedError(422, "INVALID_RECORDS")
    return fields


def batch_of(body: dict[str, Any], **found: Any) -> Batch:  # noqa: ANN401 - the attributes of a batch
    """Return what was found in a body with its settings."""
    return Batch(
        typecast=body.get("typecast", False), by_id=body.get("returnFieldsByFieldId", False), **found
    )


class Writer:
    """Checks and applies what one request writes to a table.

    Args:
        base: The base.
        table: The table.
        writing: How cells are taken.
        now: The account's time.
        most_records: Rows the base may have.
    """

    def __init__(self, base: Base, table: Table, *, writing: Writing, now: float, most_records: int) -> None:
        self.base = base
        self.table = table
        self.writing = writing
        self.now = now
        self.most_records = most_records

    @property
    def answers(self) -> Answers:
        """Return the open questions."""
        return self.writing.answers

    def cells(self, fields: dict[str, Any]) -> NewCells:
        """Return the cells of one record as they will be stored.

        Raises:
            RefusedError: If a field is unknown or cannot have its value.
        """
        cells: NewCells = {}
        for name, value in fields.items():
            item = self.table.field(name)
            if item.id in cells:
                raise invalid(f'Field "{item.name}" is given twice')
            cells[item.id] = parse_cell(value, item, self.writing)
        return cells

    def named(self, record_id: str) -> Record:
        """Return a record that a batch names.

        Raises:
            RefusedError: If it does not exist any more.
        """
        found = self.table.records.get(record_id)
        if found is None:
            raise missing(record_id, self.answers)
        return found

    def emptied(self, record: Record | None, cells: NewCells) -> NewCells:
        """Return what a PUT does: every other field that can be written is emptied."""
        return dict.fromkeys(record.cells, None) | cells if record is not None else cells

    def apply(self, changes: list[Change], *, fetch: NewAttachment) -> list[Record]:
        """Make all changes; return the records they touched, one for each change.

        Raises:
            RefusedError: If the base would hold too many records.
        """
        new = sum(change.record is None for change in changes)
        if new and self.base.record_count + new > self.most_records:
            message = "This base has reached its limit of records"
            raise RefusedError(422, "RECORD_LIMIT_EXCEEDED", message)
        for field_id, names in self.writing.new_choices.items():
            choices = self.table.fields[field_id].choices
            for name in names:
                choices.append(new_choice(self.base, {"name": name}, len(choices)))
        return [self._apply(change, fetch) for change in changes]

    def _apply(self, change: Change, fetch: NewAttachment) -> Record:
        record = change.record or self.table.insert(self.base.ids("rec"), {}, now=self.now)
        cells = dict(change.cells)
        for field_id, cell in change.cells.items():
            item = self.table.fields[field_id]
            if item.type == "multipleRecordLinks":
                cells[field_id] = make_rows(self.base, item, cell, now=self.now)
                mirror(self.base, item, record, cells[field_id], now=self.now)
        before = {id(entry) for cell in record.cells.values() if isinstance(cell, list) for entry in cell}
        self.table.change(record, cells, now=self.now)
        for field_id, cell in cells.items():
            for entry in cell if isinstance(cell, list) else ():
                if isinstance(entry, Attachment) and entry.state == "waiting" and id(entry) not in before:
                    fetch(self.table, record, self.table.fields[field_id], entry)
        return record


def missing(record_id: str, answers: Answers) -> RefusedError:
    """Return the refusal of a batch that names a record which is gone."""
    way = str(answers["airtable.missing_in_batch"])
    if way == "403":
        return forbidden()
    if way in ("404", "422_model"):
        return RefusedError(int(way[:3]), "MODEL_ID_NOT_FOUND")
    return RefusedError(422, "ROW_DOES_NOT_EXIST", f"Record ID {record_id} does not exist in this table")


def delete(base: Base, table: Table, record_id: str, *, now: float) -> None:
    """Delete a row, and the links to it."""
    record = table.records[record_id]
    for item in table.fields.values():
        if item.type == "multipleRecordLinks":
            mirror(base, item, record, None, now=now)
    table.remove(record_id)
