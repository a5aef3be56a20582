"""A base in memory that takes and refuses fields as Airtable does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from twm_pipeline.airtable.client import Whoami
from twm_pipeline.airtable.fields import FoundField, FoundTable, fold
from twm_pipeline.errors import RequestRefusedError, TwmError

ALL_SCOPES = frozenset({"data.records:read", "data.records:write", "schema.bases:read", "schema.bases:write"})
OPTIONS_NEEDED = {"number", "checkbox", "dateTime"}


@dataclass
class FakeBase:
    """The calls of `AirtableClient` that set-up makes.

    Args:
        tables: What there is.
        scopes: What the token may do; None: Airtable does not say.
        level: What its owner may do.
        is_free: Whether the plan takes only green check marks.
        zones: The time zones it has names for; None: all.
        failures: Raised one by one by calls that make something, after they made it.
    """

    tables: list[FoundTable] = field(default_factory=list)
    scopes: frozenset[str] | None = ALL_SCOPES
    level: str | None = "create"
    is_free: bool = False
    zones: frozenset[str] | None = None
    failures: list[TwmError] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    sent: list[Mapping[str, Any]] = field(default_factory=list)
    _ids: Iterator[int] = field(default_factory=lambda: count(1))

    def whoami(self) -> Whoami:
        return Whoami(id="usr1", scopes=self.scopes)

    def permission_level(self) -> str | None:
        return self.level

    def schema(self) -> list[FoundTable]:
        return list(self.tables)

    def create_table(self, name: str, *, description: str, fields: Sequence[Mapping[str, Any]]) -> FoundTable:
        assert description
        self._refuse_doubles(name, [table.name for table in self.tables])
        table = FoundTable(id=f"tblNew{next(self._ids)}", name=name, fields=())
        for payload in fields:
            table = replace(table, fields=(*table.fields, self._make(payload, table)))
        self.tables.append(table)
        self._wrote(name)
        return table

    def create_field(self, table_id: str, payload: Mapping[str, Any]) -> FoundField:
        [place] = [place for place, table in enumerate(self.tables) if table.id == table_id]
        made = self._make(payload, self.tables[place])
        self.tables[place] = replace(self.tables[place], fields=(*self.tables[place].fields, made))
        self._wrote(made.name)
        return made

    def _make(self, payload: Mapping[str, Any], table: FoundTable) -> FoundField:
        self._refuse_doubles(payload["name"], [it.name for it in table.fields])
        options = payload.get("options")
        if (payload["type"] in OPTIONS_NEEDED) != (options is not None):
            raise RequestRefusedError("422 INVALID_REQUEST_UNKNOWN: options")
        if self.is_free and (options or {}).get("color", "greenBright") != "greenBright":
            raise RequestRefusedError("422 INVALID_REQUEST_UNKNOWN: color")
        zone = (options or {}).get("timeZone")
        if self.zones is not None and zone is not None and zone not in self.zones:
            raise RequestRefusedError("422 INVALID_REQUEST_UNKNOWN: timeZone")
        self.sent.append(payload)
        return FoundField(id=f"fldNew{next(self._ids)}", name=payload["name"], type=payload["type"])

    def _refuse_doubles(self, name: str, others: Sequence[str]) -> None:
        if not name.strip() or fold(name) in map(fold, others):
            raise RequestRefusedError("422 DUPLICATE_OR_EMPTY_FIELD_NAME")

    def _wrote(self, name: str) -> None:
        self.written.append(name)
        if self.failures:
            raise self.failures.pop(0)
