"""What an Airtable base holds: tables, fields, records."""

from __future__ import annotations

import random
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from twm_pipeline.sandbox.airtable_errors import RefusedError

Cell = Any  # a stored cell: text, number, true, a list of names, ids or attachments; never empty
Cells = dict[str, Cell]  # by field id; empty cells are missing
Key = tuple[Cell, ...]
BASE_62 = string.ascii_letters + string.digits


class Ids:
    """Draws ids as Airtable forms them: a prefix and 14 characters.

    Args:
        seed: Equal seeds draw equal ids.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - a simulation, not a secret

    def __call__(self, prefix: str) -> str:
        """Return a new id."""
        return prefix + "".join(self._random.choices(BASE_62, k=14))


@dataclass(slots=True, kw_only=True)
class Attachment:
    """A file in a cell.

    Attributes:
        source: Where it is fetched from; None for an upload.
        state: `waiting` for its fetch, `stored`, or `dead`.
        content: The bytes, where they are few enough to be kept.
    """

    id: str
    filename: str
    source: str | None = None
    state: str = "waiting"
    size: int = 0
    type: str = ""
    sha256: str = ""
    content: bytes = field(default=b"", repr=False)


@dataclass(slots=True, kw_only=True)
class Field:
    """A column; a locked one cannot be written."""

    id: str
    name: str
    type: str
    description: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    locked: bool = False

    @property
    def choices(self) -> list[dict[str, str]]:
        """Return the choices of a select field."""
        found: list[dict[str, str]] = self.options.get("choices", [])
        return found


@dataclass(slots=True, kw_only=True)
class View:
    """A view; all are grids that show everything."""

    id: str
    name: str


@dataclass(slots=True, kw_only=True, eq=False)
class Record:
    """A row."""

    id: str
    number: int
    created_at: float
    modified_at: float
    cells: Cells = field(default_factory=dict)


class Table:
    """A table with its rows.

    Args:
        id: `tbl…`.
        name: Unique in the base, whatever the case.
        fields: The first is the primary one.
        views: At least one.
        description: None for none.
    """

    def __init__(
        self,
        *,
        id: str,  # noqa: A002 - Airtable's word
        name: str,
        fields: Sequence[Field],
        views: list[View],
        description: str | None = None,
    ) -> None:
        self.id = id
        self.name = name
        self.description = description
        self.fields = {item.id: item for item in fields}
        self.primary_field_id = fields[0].id
        self.views = views
        self.records: dict[str, Record] = {}
        self._numbers = 0
        self._indexes: dict[tuple[str, ...], dict[Key, dict[str, None]]] = {}

    def find_field(self, name: str) -> Field | None:
        """Return a field by its id or its exact name."""
        if name in self.fields:
            return self.fields[name]
        return next((item for item in self.fields.values() if item.name == name), None)

    def field(self, name: str) -> Field:
        """Return a field by its id or its exact name.

        Raises:
            RefusedError: If there is none.
        """
        found = self.find_field(name)
        if found is None:
            raise RefusedError(422, "UNKNOWN_FIELD_NAME", f'Unknown field name: "{name}"')
        return found

    def insert(self, record_id: str, cells: Mapping[str, Cell], *, now: float) -> Record:
        """Add a row and return it."""
        self._numbers += 1
        record = Record(id=record_id, number=self._numbers, created_at=now, modified_at=now)
        self.records[record_id] = record
        self._index(record)
        self.change(record, cells, now=now)
        return record

    def change(self, record: Record, cells: Mapping[str, Cell], *, now: float) -> None:
        """Set cells of a row; None empties one."""
        self._unindex(record)
        for key, value in cells.items():
            if value is None:
                record.cells.pop(key, None)
            else:
                record.cells[key] = value
        record.modified_at = now
        self._index(record)

    def remove(self, record_id: str) -> None:
        """Delete a row."""
        self._unindex(self.records[record_id])
        del self.records[record_id]

    def remove_field(self, field_id: str) -> None:
        """Delete a column with its cells."""
        del self.fields[field_id]
        self.forget_indexes()
        for record in self.records.values():
            record.cells.pop(field_id, None)

    def matches(self, field_ids: tuple[str, ...], key: Key) -> list[Record]:
        """Return the rows that have these cells, in order of their creation."""
        index = self._indexes.get(field_ids)
        if index is None:
            index = self._indexes[field_ids] = {}
            for record in self.records.values():
                index.setdefault(key_of(record, field_ids), {})[record.id] = None
        return [self.records[item] for item in index.get(key, ())]

    def forget_indexes(self) -> None:
        """Note that cells changed by another way than `change`."""
        self._indexes.clear()

    def _index(self, record: Record) -> None:
        for field_ids, index in self._indexes.items():
            index.setdefault(key_of(record, field_ids), {})[record.id] = None

    def _unindex(self, record: Record) -> None:
        for field_ids, index in self._indexes.items():
            index[key_of(record, field_ids)].pop(record.id)


def key_of(record: Record, field_ids: Iterable[str]) -> Key:
    """Return what upserts compare of a row."""
    return tuple(hashable(record.cells.get(item)) for item in field_ids)


def hashable(cell: Cell) -> Cell:
    """Return a cell that can be compared and looked up."""
    return tuple(cell) if isinstance(cell, list) else cell


class Base:
    """A base.

    Args:
        id: `app…`.
        name: As people see it.
        ids: Draws the ids of what is created in it.
        collaborators: Rows of `id`, `email` and `name`.
    """

    def __init__(self, *, id: str, name: str, ids: Ids, collaborators: Sequence[dict[str, str]] = ()) -> None:  # noqa: A002 - Airtable's word
        self.id = id
        self.name = name
        self.ids = ids
        self.collaborators = list(collaborators)
        self.tables: dict[str, Table] = {}

    def find_table(self, name: str) -> Table | None:
        """Return a table by its id or its exact name."""
        if name in self.tables:
            return self.tables[name]
        return next((item for item in self.tables.values() if item.name == name), None)

    def table(self, name: str) -> Table:
        """Return a table by its id or its exact name.

        Raises:
            LookupError: If there is none.
        """
        found = self.find_table(name)
        if found is None:
            raise LookupError(f"no table {name!r}")
        return found

    def table_of(self, record_id: str) -> Table | None:
        """Return the table a row lies in."""
        return next((item for item in self.tables.values() if record_id in item.records), None)

    def attachments(self) -> Iterator[Attachment]:
        """Yield every attachment in every cell."""
        for table in self.tables.values():
            ids = [item.id for item in table.fields.values() if item.type == "multipleAttachments"]
            for record in table.records.values():
                for field_id in ids:
                    yield from record.cells.get(field_id, ())

    @property
    def record_count(self) -> int:
        """Return the rows of all tables together."""
        return sum(len(table.records) for table in self.tables.values())


def copied(cell: Cell, ids: Ids) -> Cell:
    """Return a cell for another row; attachments become new ones."""
    if isinstance(cell, list):
        return [replace(item, id=ids("att")) if isinstance(item, Attachment) else item for item in cell]
    return cell


def timestamp(instant: float) -> str:
    """Return Unix seconds as Airtable writes them."""
    return written(datetime.fromtimestamp(instant, UTC))


def written(moment: datetime) -> str:
    """Return an aware moment as Airtable writes it."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
