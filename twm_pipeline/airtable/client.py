"""The calls of one base: pyairtable over a session that asks the budget first and raises our errors."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from twm_pipeline.airtable.fields import FoundField, FoundTable
from twm_pipeline.airtable.session import AirtableSession, Pace
from twm_pipeline.budget import Budget, Limit, Plan
from twm_pipeline.errors import ConfigError, PagingError, RecordError, UnansweredError, place_of
from twm_pipeline.http import CONNECT_SECONDS, READ_SECONDS

if TYPE_CHECKING:
    from pyairtable import Table
    from pyairtable.formulas import Formula

    from twm_pipeline.settings import Settings

REQUESTS_PER_SECOND = 5
RECORDS_PER_CALL = 10
RECORDS_PER_PAGE = 100
MOST_UPLOAD_BYTES = 5 << 20
LISTINGS = 3
"""How often a listing is begun whose iterator expires."""

CellsById = Mapping[str, Any]


def budget_plan(settings: Settings) -> Plan:
    """Return what Airtable allows a base: 5 requests a second, whoever sends them ("Rate limits")."""
    return Plan(
        account=f"airtable {settings.airtable_base_id}",
        limits=(Limit(REQUESTS_PER_SECOND, 1 / settings.budget_time_scale),),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundRecord:
    """A record as it is in Airtable; empty cells are left out.

    Args:
        id: Airtable's id.
        cells: Field id → cell.
    """

    id: str
    cells: CellsById


@dataclass(frozen=True, slots=True, kw_only=True)
class Whoami:
    """The token's owner, and its scopes where Airtable tells them."""

    id: str
    scopes: frozenset[str] | None


class AirtableClient:
    """Asks one base. Every method counts against the budget and raises what `AirtableSession.send` raises.

    Cells go by field id both ways, so a renamed field is no other field.

    Args:
        settings: Token, base and addresses.
        budget: The base's budget, entered.
        sleep: Replaced by tests.

    Raises:
        ConfigError: If the token or the base is not set.
    """

    def __init__(
        self,
        settings: Settings,
        budget: Budget,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        from pyairtable import Api  # noqa: PLC0415 - takes a quarter of a second, which other runs are spared

        token, base_id = settings.airtable_api_key, settings.airtable_base_id
        if token is None or base_id is None:
            msg = "Airtable is switched off: set AIRTABLE_API_KEY and AIRTABLE_BASE_ID in .env."
            raise ConfigError(msg)
        self.pace = Pace(budget=budget, time_scale=settings.budget_time_scale, sleep=sleep)
        secret = token.get_secret_value()
        self._api = Api(
            secret,
            timeout=(int(CONNECT_SECONDS), int(READ_SECONDS)),
            retry_strategy=None,
            endpoint_url=settings.airtable_endpoint_url,
            use_field_ids=True,
        )
        self._api.session = AirtableSession(settings.airtable_endpoint_url, token=secret, pace=self.pace)
        self._base = self._api.base(base_id)
        self._upload_url = f"{settings.airtable_uploads}/{Api.VERSION}/{base_id}"

    def whoami(self) -> Whoami:
        """Return whose token this is."""
        with _expected("whoami"):
            data = self._api.get(self._api.urls.whoami)
            scopes = data.get("scopes")
            return Whoami(id=data["id"], scopes=None if scopes is None else frozenset(scopes))

    def permission_level(self) -> str | None:
        """Return what the token's owner may do in the base, such as `create`; None: it is out of reach."""
        with _expected("the list of bases"):
            for page in self._api.iterate_requests("GET", self._api.urls.bases):
                for base in page["bases"]:
                    if base["id"] == self._base.id:
                        return str(base["permissionLevel"])
        return None

    def schema(self) -> list[FoundTable]:
        """Return the tables of the base with their fields."""
        with _expected("the schema"):
            tables = [_found_table(table) for table in self._api.get(self._base.urls.tables)["tables"]]
        self.pace.names.update(table.name for table in tables)
        self.pace.names.update(field.name for table in tables for field in table.fields)
        return tables

    def create_table(self, name: str, *, description: str, fields: Sequence[Mapping[str, Any]]) -> FoundTable:
        """Make a table.

        Args:
            name: Unique in the base, whatever the case.
            description: Shown beside the name.
            fields: As the meta API takes them; the first becomes the primary field.

        Raises:
            UnansweredError: It may have been made all the same.
        """
        body = {"name": name, "description": description, "fields": list(fields)}
        with _expected("a new table"):
            return _found_table(self._api.post(self._base.urls.tables, json=body))

    def create_field(self, table_id: str, field: Mapping[str, Any]) -> FoundField:
        """Add a field to a table; see `create_table`."""
        with _expected("a new field"):
            return _found_field(self._api.post(self._table(table_id).urls.fields, json=dict(field)))

    def update(self, table_id: str, rows: Sequence[tuple[str, CellsById]]) -> None:
        """Change the given cells of at most ten records, all or none.

        Args:
            table_id: The table.
            rows: Record id and cells; None empties a cell, a cell that is left out stays as it is.

        Raises:
            NotFoundError: One of the records is gone; none was changed.
            RequestRefusedError: A cell was not accepted; none was changed.
            SchemaChangedError: A field is gone; none was changed.
        """
        _check_count(rows)
        with _expected("the changed records"):
            self._table(table_id).batch_update(
                [{"id": record_id, "fields": dict(cells)} for record_id, cells in rows]
            )

    def upsert(self, table_id: str, key_field_id: str, rows: Sequence[CellsById]) -> list[tuple[str, bool]]:
        """Change or make at most ten records by their key, all or none.

        Args:
            table_id: The table.
            key_field_id: The field that tells records apart.
            rows: Cells; the key is among them, each key once.

        Returns:
            For each row, in order, the record's id and whether it was made. After a repeated attempt a
            record that the first one made counts as found.

        Raises:
            RequestRefusedError: A cell was not accepted, or two records in Airtable have the same key.
        """
        keys = [row[key_field_id] for row in rows]
        _check_count(rows)
        if len(set(keys)) < len(keys):
            msg = "two rows of an upsert have the same key"
            raise ValueError(msg)
        with _expected("the upserted records"):
            answer = self._table(table_id).batch_upsert(
                [{"fields": dict(row)} for row in rows], key_fields=[key_field_id]
            )
            made = set(answer["createdRecords"])
            # The order of the answer is not promised, so the key decides.
            ids = {record["fields"][key_field_id]: record["id"] for record in answer["records"]}
            return [(ids[key], ids[key] in made) for key in keys]

    def delete(self, table_id: str, record_ids: Sequence[str]) -> None:
        """Delete at most ten records.

        Raises:
            NotFoundError: One of them is gone; after a repeated attempt perhaps because the first one worked.
        """
        _check_count(record_ids)
        with _expected("the deleted records"):
            self._table(table_id).batch_delete(record_ids)

    def list_records(
        self, table_id: str, *, fields: Sequence[str], formula: Formula | None = None
    ) -> Iterator[list[FoundRecord]]:
        """Yield every record, a page of a hundred at a time.

        Where Airtable forgets the listing it is begun again, so a record may come more than once.

        Args:
            table_id: The table.
            fields: Ids of the fields wanted.
            formula: Which records; None: all.

        Raises:
            PagingError: The listing was forgotten again and again.
        """
        options: dict[str, Any] = {"page_size": RECORDS_PER_PAGE, "fields": list(fields)}
        if formula is not None:
            options["formula"] = str(formula)
        for remaining in reversed(range(LISTINGS)):
            try:
                with _expected("a page of records"):
                    for page in self._table(table_id).iterate(**options):
                        yield [FoundRecord(id=record["id"], cells=record["fields"]) for record in page]
            except PagingError:
                if not remaining:
                    raise
            else:
                return

    def get_records(
        self, table_id: str, record_ids: Sequence[str], *, fields: Sequence[str]
    ) -> list[FoundRecord]:
        """Return those of at most a hundred records that are there."""
        from pyairtable.formulas import EQ, OR, RECORD_ID  # noqa: PLC0415 - as in the beginning

        if not record_ids:
            return []
        formula = OR(*(EQ(RECORD_ID(), record_id) for record_id in record_ids))
        pages = self.list_records(table_id, fields=fields, formula=formula)
        return list({record.id: record for page in pages for record in page}.values())

    def upload_attachment(
        self, record_id: str, field_id: str, *, filename: str, media_type: str, content: bytes
    ) -> list[str]:
        """Add a file to what the cell holds, and return Airtable's ids of all it holds now.

        It is not repeated after an outage: look at the cell first.

        Raises:
            RecordError: If the file is larger than Airtable takes (5 MB).
            NotFoundError: The record is gone.
        """
        if len(content) > MOST_UPLOAD_BYTES:
            msg = f"the file has {len(content)} bytes; Airtable takes {MOST_UPLOAD_BYTES}"
            raise RecordError(msg)
        # pyairtable's own call always goes to content.airtable.com, whatever the endpoint.
        url = f"{self._upload_url}/{record_id}/{field_id}/uploadAttachment"
        body = {"contentType": media_type, "filename": filename, "file": base64.b64encode(content).decode()}
        with _expected("the upload"):
            return [file["id"] for file in self._api.post(url, json=body)["fields"][field_id]]

    def _table(self, table_id: str) -> Table:
        return self._base.table(table_id)


def _check_count(rows: Sequence[object]) -> None:
    if len(rows) > RECORDS_PER_CALL:
        msg = f"{len(rows)} records in a call that takes {RECORDS_PER_CALL}"
        raise ValueError(msg)


def _found_table(data: Mapping[str, Any]) -> FoundTable:
    fields = tuple(_found_field(field) for field in data["fields"])
    return FoundTable(id=data["id"], name=data["name"], fields=fields)


def _found_field(data: Mapping[str, Any]) -> FoundField:
    return FoundField(id=data["id"], name=data["name"], type=data["type"])


@contextmanager
def _expected(what: str) -> Iterator[None]:
    """Turn an answer of another shape than Airtable's into the error of an answer that cannot be trusted."""
    try:
        yield
    except (ValidationError, KeyError, TypeError, AttributeError) as error:
        # Without its cause: pydantic's words repeat the answer, cells and all.
        msg = f"Airtable: {what}: not in the expected shape ({place_of(error)})"
        raise UnansweredError(msg) from None
