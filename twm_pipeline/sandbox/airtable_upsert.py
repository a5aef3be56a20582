"""`performUpsert`: which records the entries of a request are."""

from __future__ import annotations

from typing import Any

from twm_pipeline.sandbox.airtable_errors import RefusedError, invalid
from twm_pipeline.sandbox.airtable_store import Field, Key, Record, hashable
from twm_pipeline.sandbox.airtable_writes import Batch, Change, NewCells, Writer

MERGE_TYPES = (
    "number",
    "singleLineText",
    "multilineText",
    "richText",
    "singleSelect",
    "multipleSelects",
    "date",
)


def plan_upsert(writer: Writer, batch: Batch, *, replace: bool) -> list[Change]:
    """Return what an upsert does to which records.

    Raises:
        RefusedError: If one entry matches several records, lacks a field to merge on, names a record
            that is gone, or has a value that does not fit; or a field cannot be merged on.
    """
    merge_on = merge_fields(writer, batch.merge_on or [])
    changes: list[Change] = []
    keys: set[Key] = set()
    for record_id, fields in batch.entries:
        cells = writer.cells(fields)
        record: Record | None
        if record_id is not None:
            record = writer.named(record_id)
        else:
            key = merge_key(cells, merge_on)
            if key in keys and writer.answers["airtable.equal_keys"] == "refused":
                raise invalid("Two records of the request have the same values to merge on")
            keys.add(key)
            record = match(writer, merge_on, key)
        changes.append(Change(record=record, cells=writer.emptied(record, cells) if replace else cells))
    return changes


def merge_fields(writer: Writer, names: list[str]) -> list[Field]:
    """Return the fields to merge on, if they are of types that can be."""
    found = [writer.table.field(name) for name in names]
    if len({item.id for item in found}) < len(found):
        raise invalid("performUpsert.fieldsToMergeOn names a field twice")
    for item in found:
        if item.type not in MERGE_TYPES:
            raise invalid(f'Field "{item.name}" cannot be merged on')
    return found


def merge_key(cells: NewCells, merge_on: list[Field]) -> Key:
    """Return an entry's values to merge on, as they are stored."""
    lacking = [item.name for item in merge_on if item.id not in cells]
    if lacking:
        raise RefusedError(422, "INVALID_RECORDS", f'A record lacks "{lacking[0]}", which is merged on')
    return tuple(hashable(cells[item.id]) for item in merge_on)


def match(writer: Writer, merge_on: list[Field], key: Key) -> Record | None:
    """Return the record with these values, None where there is none."""
    found = writer.table.matches(tuple(item.id for item in merge_on), key)
    if len(found) > 1:
        kind = str(writer.answers["airtable.several_matches"])
        raise RefusedError(422, kind, "More than one record matches the values of performUpsert")
    return found[0] if found else None


def upsert_lists(changes: list[Change], records: list[Record]) -> dict[str, Any]:
    """Return the ids of what was created and updated."""
    pairs = list(zip(changes, records, strict=True))
    return {
        "createdRecords": [record.id for change, record in pairs if change.record is None],
        "updatedRecords": [record.id for change, record in pairs if change.record is not None],
    }
