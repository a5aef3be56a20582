"""Listing records: parameters, filters, order, and iterators that expire."""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import QueryParams

from twm_pipeline.sandbox.airtable_errors import RefusedError, invalid
from twm_pipeline.sandbox.airtable_formula import compile_formula, holds
from twm_pipeline.sandbox.airtable_rows import formula_row, sort_key
from twm_pipeline.sandbox.airtable_store import Base, Field, Record, Table
from twm_pipeline.sandbox.answers import Answers
from twm_pipeline.sandbox.options import Clock, Json

LARGEST_PAGE = 100
REMEMBERED_ITERATORS = 1000
MOST_DIGITS = 9
OFFSET = re.compile(r"itr[0-9A-Za-z]{14}/rec[0-9A-Za-z]{14}")
SORT = re.compile(r"sort\[(\d+)\]\[(field|direction)\]")
IN_QUERY = ("timeZone", "userLocale")
LISTS = {"fields[]": "fields", "recordMetadata[]": "recordMetadata"}
KNOWN = (
    "pageSize",
    "offset",
    "maxRecords",
    "view",
    "fields",
    "filterByFormula",
    "sort",
    "returnFieldsByFieldId",
    "cellFormat",
    "recordMetadata",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What a request to list asks for, checked."""

    page_size: int
    most: int | None
    offset: str | None
    formula: str | None
    view: str | None
    sort: list[tuple[Field, bool]]
    fields: list[Field] | None
    by_id: bool
    comments: bool


def from_query(params: QueryParams) -> dict[str, Any]:
    """Return the parameters of a GET as a POST has them in its body."""
    given: dict[str, Any] = {}
    sort: dict[int, dict[str, str]] = {}
    for name, value in params.multi_items():
        place = SORT.fullmatch(name)
        if place:
            sort.setdefault(int(place[1]), {})[place[2]] = value
        elif name in LISTS or name in ("fields", "recordMetadata"):
            given.setdefault(LISTS.get(name, name), []).append(value)
        elif name not in IN_QUERY:
            given[name] = value
    if sort:
        given["sort"] = [sort[key] for key in sorted(sort)]
    return given


def parse_query(given: Mapping[str, Any], table: Table) -> Query:
    """Return a checked query.

    Raises:
        RefusedError: If a parameter is unknown or cannot have its value.
    """
    if not given.keys() <= set(KNOWN) or given.get("cellFormat", "json") != "json":
        raise invalid()
    metadata = given.get("recordMetadata", [])
    if not is_texts(metadata) or not set(metadata) <= {"commentCount"}:
        raise invalid()
    fields = given.get("fields")
    if not is_texts(fields or []) or not isinstance(given.get("sort", []), list):
        raise invalid()
    return Query(
        page_size=whole(given.get("pageSize", LARGEST_PAGE), most=LARGEST_PAGE),
        most=None if "maxRecords" not in given else whole(given["maxRecords"]),
        offset=words(given.get("offset")),
        formula=words(given.get("filterByFormula")),
        view=words(given.get("view")),
        sort=[parse_sort(entry, table) for entry in given.get("sort", [])],
        fields=None if not fields else [table.field(name) for name in fields],
        by_id=flag(given.get("returnFieldsByFieldId", False)),
        comments=bool(metadata),
    )


def parse_sort(entry: Json, table: Table) -> tuple[Field, bool]:
    """Return a field and whether it sorts downwards."""
    if (
        not isinstance(entry, dict)
        or not isinstance(entry.get("field"), str)
        or not entry.keys() <= {"field", "direction"}
    ):
        raise invalid()
    if entry.get("direction", "asc") not in ("asc", "desc"):
        raise invalid()
    return table.field(entry["field"]), entry.get("direction") == "desc"


def is_texts(value: Json) -> bool:
    """Say whether a value is a list of texts."""
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def words(value: Json) -> str | None:
    """Return a text, None for none."""
    if not isinstance(value, str | None):
        raise invalid()
    return value or None


def whole(value: Json, *, most: int | None = None) -> int:
    """Return a number from 1 on."""
    text = str(value)
    if (
        isinstance(value, bool | float)
        or not text.isascii()
        or not text.isdecimal()
        or len(text) > MOST_DIGITS
    ):
        raise invalid()
    if int(text) < 1 or (most is not None and int(text) > most):
        raise invalid()
    return int(text)


def flag(value: Json) -> bool:
    """Return a boolean, in JSON or in a query."""
    if isinstance(value, bool):
        return value
    if value not in ("true", "false", "1", "0"):
        raise invalid()
    return value in ("true", "1")


class Iterators:
    """The lists that clients are reading through.

    A list is of the moment its first page was read: records that appear later are not in it,
    deleted ones are left out, cells are as they are when their page is read.

    Args:
        answers: The open questions.
        clock: The account's time.
        new_id: Draws ids.
    """

    def __init__(self, *, answers: Answers, clock: Clock, new_id: Callable[[str], str]) -> None:
        self.answers = answers
        self.clock = clock
        self._new_id = new_id
        self._lists: OrderedDict[str, tuple[float, list[str]]] = OrderedDict()

    def expire(self) -> int:
        """Forget all lists; return how many there were."""
        count = len(self._lists)
        self._lists.clear()
        return count

    def page(self, base: Base, table: Table, query: Query) -> tuple[list[Record], str | None]:
        """Return the records of a page, and the offset of the next.

        Raises:
            RefusedError: If the offset is damaged or its list is no more.
        """
        if query.offset is None:
            key, ids, start = "", [record.id for record in select(base, table, query, self.answers)], 0
        else:
            key, ids, start = self._resume(query.offset)
        end = start + query.page_size
        found = [table.records[item] for item in ids[start:end] if item in table.records]
        if end >= len(ids):
            return found, None
        return found, f"{key or self._remember(ids)}/{ids[end]}"

    def _remember(self, ids: list[str]) -> str:
        key = self._new_id("itr")
        self._lists[key] = (self.clock.time(), ids)
        while len(self._lists) > REMEMBERED_ITERATORS:
            self._lists.popitem(last=False)
        return key

    def _resume(self, offset: str) -> tuple[str, list[str], int]:
        if not OFFSET.fullmatch(offset):
            raise RefusedError(422, "INVALID_OFFSET_VALUE", "The value of offset is invalid")
        key, _, record_id = offset.partition("/")
        since, ids = self._lists.get(key, (0.0, []))
        if self.clock.time() > since + float(self.answers["airtable.iterator_seconds"]):
            raise RefusedError(422, "LIST_RECORDS_ITERATOR_NOT_AVAILABLE")
        if record_id not in ids:
            raise RefusedError(422, "INVALID_OFFSET_VALUE", "The value of offset is invalid")
        return key, ids, ids.index(record_id)


def select(base: Base, table: Table, query: Query, answers: Answers) -> list[Record]:
    """Return all records a query asks for, in order."""
    found = list(table.records.values())
    if query.view is not None:
        if not any(query.view in (view.id, view.name) for view in table.views):
            raise RefusedError(422, "VIEW_NAME_NOT_FOUND", f"View {query.view} not found")
    elif answers["airtable.record_order"] == "arbitrary":
        found.sort(key=lambda record: hashlib.sha256(record.id.encode()).digest())
    if query.formula is not None:
        formula = compile_formula(query.formula, knows=lambda name: table.find_field(name) is not None)
        found = [record for record in found if holds(formula, formula_row(base, table, record))]
    for item, downwards in reversed(query.sort):
        found.sort(key=lambda record, item=item: sort_key(base, table, record, item), reverse=downwards)  # type: ignore[misc]
    return found[: query.most]
