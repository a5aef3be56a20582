"""How records are read: as JSON, by formulas, as keys to sort by."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from twm_pipeline.sandbox.airtable_cells import READ_ONLY_VALUES
from twm_pipeline.sandbox.airtable_errors import RefusedError
from twm_pipeline.sandbox.airtable_formula import ERRORS, Value, compile_formula, moment
from twm_pipeline.sandbox.airtable_formula import Row as FormulaRow
from twm_pipeline.sandbox.airtable_store import Attachment, Base, Cell, Field, Record, Table, timestamp

Row = dict[str, Any]
AttachmentRow = Callable[[Attachment], Row]


def record_row(  # noqa: PLR0913 - what a request may ask for
    base: Base,
    table: Table,
    record: Record,
    *,
    attachment_row: AttachmentRow,
    by_id: bool = False,
    fields: Iterable[Field] | None = None,
) -> Row:
    """Return a record as the API does; empty cells are left out.

    Args:
        base: Where it lies.
        table: Where it lies.
        record: The record.
        attachment_row: Turns an attachment into JSON.
        by_id: Name fields by their ids.
        fields: Only these; None for all.
    """
    cells = {}
    for item in table.fields.values() if fields is None else fields:
        value = read_cell(base, table, record, item)
        if value is None:
            continue
        if item.type == "multipleAttachments":
            value = [attachment_row(entry) for entry in value]
        cells[item.id if by_id else item.name] = value
    return {"id": record.id, "createdTime": timestamp(record.created_at), "fields": cells}


def read_cell(base: Base, table: Table, record: Record, item: Field) -> Cell:
    """Return a cell, stored or computed; None for an empty one."""
    if item.type in READ_ONLY_VALUES:
        return READ_ONLY_VALUES[item.type](record)
    if item.type == "formula":
        return formula_cell(base, table, record, item)
    if item.type == "count":
        return len(record.cells.get(item.options.get("recordLinkFieldId") or "", ()))
    return record.cells.get(item.id)


def formula_cell(base: Base, table: Table, record: Record, item: Field) -> Cell:
    """Return what a formula gives; one that this sandbox cannot read gives nothing."""
    try:
        node = compile_formula(item.options["formula"], knows=lambda name: table.find_field(name) is not None)
        value = node(formula_row(base, table, record))
    except RefusedError:
        return None
    except (*ERRORS, RecursionError):
        return {"error": "#ERROR!"}
    if isinstance(value, datetime):
        return timestamp(value.timestamp())
    return None if value in (None, "") else value


def formula_row(base: Base, table: Table, record: Record) -> FormulaRow:
    """Return a record as formulas read it."""

    def value(name: str) -> Value:
        special = {
            "RECORD_ID": record.id,
            "CREATED_TIME": moment(timestamp(record.created_at)),
            "LAST_MODIFIED_TIME": moment(timestamp(record.modified_at)),
        }
        item = table.find_field(name)
        if item is None:
            return special[name]
        return formula_value(base, item, read_cell(base, table, record, item))

    return value


def formula_value(base: Base, item: Field, cell: Cell) -> Value:
    """Return a cell as formulas read it: lists joined, days and times as moments."""
    if item.type == "checkbox":
        return bool(cell)
    if cell is None:
        return None
    if item.type in ("date", "dateTime", "createdTime", "lastModifiedTime"):
        return moment(cell)
    if item.type == "multipleRecordLinks":
        linked = base.tables[item.options["linkedTableId"]]
        return ", ".join(
            str(linked.records[key].cells.get(linked.primary_field_id, "Unnamed record")) for key in cell
        )
    if isinstance(cell, list):
        return ", ".join(plain(entry) for entry in cell)
    return plain(cell) if isinstance(cell, dict) else cell


def plain(entry: Cell) -> str:
    """Return one of a cell's entries as text."""
    if isinstance(entry, Attachment):
        return entry.filename
    return str(entry.get("name") or entry.get("text")) if isinstance(entry, dict) else str(entry)


def sort_key(base: Base, table: Table, record: Record, item: Field) -> tuple[int, Value]:
    """Return what orders records by a field; empty cells come first."""
    value = formula_value(base, item, read_cell(base, table, record, item))
    if item.type in ("singleSelect",) and value is not None:
        names = [choice["name"] for choice in item.choices]
        value = names.index(value) if value in names else len(names)
    if isinstance(value, str):
        value = value.casefold()
    return (0, 0) if value is None else (1, value)
