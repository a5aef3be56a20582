"""Links between rows: every link has its counterpart in the other table."""

from __future__ import annotations

from twm_pipeline.sandbox.airtable_cells import NewRow
from twm_pipeline.sandbox.airtable_store import Base, Cell, Field, Record, Table


def connect(base: Base, table: Table, item: Field) -> None:
    """Give the linked table its own field for a new link."""
    linked = base.tables[item.options["linkedTableId"]]
    taken = {field.name.casefold() for field in linked.fields.values()}
    name, number = table.name, 1
    while name.casefold() in taken:
        number += 1
        name = f"{table.name} {number}"
    options = {
        "linkedTableId": table.id,
        "isReversed": False,
        "prefersSingleRecordLink": False,
        "inverseLinkFieldId": item.id,
    }
    inverse = Field(id=base.ids("fld"), name=name, type="multipleRecordLinks", options=options)
    linked.fields[inverse.id] = inverse
    item.options["inverseLinkFieldId"] = inverse.id


def make_rows(base: Base, item: Field, cell: Cell, *, now: float) -> Cell:
    """Return a cell of links in which rows were made for new names."""
    linked = base.tables[item.options["linkedTableId"]]
    ids = []
    for entry in cell or ():
        known = linked.matches((linked.primary_field_id,), (str(entry),)) if isinstance(entry, NewRow) else []
        if isinstance(entry, NewRow) and not known:
            known = [linked.insert(base.ids("rec"), {linked.primary_field_id: str(entry)}, now=now)]
        ids.append(known[0].id if known else entry)
    return ids or None


def mirror(base: Base, item: Field, record: Record, cell: Cell, *, now: float) -> None:
    """Let the linked rows know what *record* will link to; call it before its cell changes."""
    inverse = item.options.get("inverseLinkFieldId")
    linked = base.tables.get(item.options["linkedTableId"])
    if inverse is None or linked is None:
        return
    before, after = set(record.cells.get(item.id) or ()), set(cell or ())
    for key in before ^ after:
        other = linked.records.get(key)
        if other is None:
            continue
        back = [entry for entry in other.cells.get(inverse, ()) if entry != record.id]
        linked.change(other, {inverse: ([*back, record.id] if key in after else back) or None}, now=now)
