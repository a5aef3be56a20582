"""Airtable's records API: read, list, create, update, upsert, delete, upload."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Any

from twm_pipeline.sandbox.airtable_account import Account, Call, Endpoint
from twm_pipeline.sandbox.airtable_cells import Writing
from twm_pipeline.sandbox.airtable_errors import RefusedError, invalid
from twm_pipeline.sandbox.airtable_files import parse_upload
from twm_pipeline.sandbox.airtable_meta import find_table
from twm_pipeline.sandbox.airtable_query import IN_QUERY, Iterators, flag, from_query, parse_query
from twm_pipeline.sandbox.airtable_rows import record_row
from twm_pipeline.sandbox.airtable_store import Attachment, Field, Record, Table
from twm_pipeline.sandbox.airtable_upsert import plan_upsert, upsert_lists
from twm_pipeline.sandbox.airtable_writes import (
    MOST_RECORDS,
    Batch,
    Change,
    Writer,
    delete,
    missing,
    parse_create,
    parse_single,
    parse_updates,
)

Row = dict[str, Any]
READ: dict[str, Any] = {"scope": "data.records:read"}
WRITE: dict[str, Any] = {"scope": "data.records:write", "role": "edit"}
ONE = "{base}/{table}/{record}"
ALL = "{base}/{table}"


class Records:
    """The endpoints about records.

    Args:
        account: The account.
    """

    def __init__(self, account: Account) -> None:
        self.account = account
        self.iterators = Iterators(answers=account.answers, clock=account.clock, new_id=account.ids)

    def endpoints(self) -> list[Endpoint]:
        """Return the endpoints."""
        return [
            Endpoint(method="POST", path=f"{ALL}/listRecords", answer=self._list_by_post, **READ),
            Endpoint(method="GET", path=ALL, answer=self._list, **READ),
            Endpoint(method="GET", path=ONE, answer=self._get, **READ),
            Endpoint(method="POST", path=ALL, answer=self._create, **WRITE),
            Endpoint(method="PATCH", path=ALL, answer=self._update_all, **WRITE),
            Endpoint(method="PUT", path=ALL, answer=self._update_all, **WRITE),
            Endpoint(method="PATCH", path=ONE, answer=self._update_one, **WRITE),
            Endpoint(method="PUT", path=ONE, answer=self._update_one, **WRITE),
            Endpoint(method="DELETE", path=ALL, answer=self._delete_all, **WRITE),
            Endpoint(method="DELETE", path=ONE, answer=self._delete_one, **WRITE),
            Endpoint(
                method="POST",
                path="{base}/{record}/{field}/uploadAttachment",
                answer=self._upload,
                upload=True,
                **WRITE,
            ),
        ]

    # Reading.

    def _list(self, call: Call) -> Row:
        return self._page(call, from_query(call.request.query_params))

    def _list_by_post(self, call: Call) -> Row:
        given = call.json()
        if not isinstance(given, dict) or any(name not in IN_QUERY for name in call.request.query_params):
            raise invalid()
        return self._page(call, given)

    def _page(self, call: Call, given: Row) -> Row:
        table = find_table(call)
        query = parse_query(given, table)
        records, offset = self.iterators.page(call.base, table, query)
        rows = [self._row(call, table, item, by_id=query.by_id, fields=query.fields) for item in records]
        if query.comments:
            rows = [row | {"commentCount": 0} for row in rows]
        return {"records": rows} | ({} if offset is None else {"offset": offset})

    def _row(
        self, call: Call, table: Table, record: Record, *, by_id: bool, fields: Iterable[Field] | None = None
    ) -> Row:
        files = self.account.files
        return record_row(call.base, table, record, attachment_row=files.row, by_id=by_id, fields=fields)

    def _find(self, call: Call, table: Table) -> Record:
        found = table.records.get(call.names["record"])
        if found is None:
            raise RefusedError(404, str(self.account.answers["airtable.missing_record"]))
        return found

    def _get(self, call: Call) -> Row:
        table = find_table(call)
        given = from_query(call.request.query_params)
        if (
            not given.keys() <= {"returnFieldsByFieldId", "cellFormat"}
            or given.get("cellFormat", "json") != "json"
        ):
            raise invalid()
        by_id = flag(given.get("returnFieldsByFieldId", False))
        return self._row(call, table, self._find(call, table), by_id=by_id)

    # Writing.

    def _create(self, call: Call) -> Row:
        table = find_table(call)
        batch = parse_create(call.json())
        writer = self._writer(call, table, batch)
        changes = [Change(record=None, cells=writer.cells(fields)) for _, fields in batch.entries]
        return self._apply(call, writer, batch, changes)

    def _update_one(self, call: Call) -> Row:
        table = find_table(call)
        batch = parse_single(call.json())
        record = self._find(call, table)
        writer = self._writer(call, table, batch)
        cells = writer.cells(batch.entries[0][1])
        if call.request.method == "PUT":
            cells = writer.emptied(record, cells)
        return self._apply(call, writer, batch, [Change(record=record, cells=cells)])

    def _update_all(self, call: Call) -> Row | Awaitable[Row]:
        table = find_table(call)
        batch = parse_updates(call.json())
        writer = self._writer(call, table, batch)
        replace = call.request.method == "PUT"
        if batch.merge_on is not None:
            changes = plan_upsert(writer, batch, replace=replace)
            milliseconds = int(self.account.answers["airtable.upsert_race_milliseconds"])
            if milliseconds:
                return self._apply_late(call, writer, batch, changes, seconds=milliseconds / 1000)
            return self._apply(call, writer, batch, changes)
        changes = []
        for key, fields in batch.entries:
            record, cells = writer.named(str(key)), writer.cells(fields)
            changes.append(Change(record=record, cells=writer.emptied(record, cells) if replace else cells))
        return self._apply(call, writer, batch, changes)

    def _writer(self, call: Call, table: Table, batch: Batch) -> Writer:
        account = self.account
        writing = Writing(
            base=call.base,
            answers=account.answers,
            typecast=batch.typecast,
            may_configure=account.may("create"),
        )
        return Writer(
            call.base, table, writing=writing, now=account.clock.time(), most_records=account.most_records
        )

    async def _apply_late(
        self, call: Call, writer: Writer, batch: Batch, changes: list[Change], *, seconds: float
    ) -> Row:
        """Let other requests come between looking for matches and writing."""
        await asyncio.sleep(seconds)
        for change in changes:
            if change.record is not None:
                writer.named(change.record.id)
        return self._apply(call, writer, batch, changes)

    def _apply(self, call: Call, writer: Writer, batch: Batch, changes: list[Change]) -> Row:
        details = self.account.files.details(new_attachments(changes))
        records = writer.apply(changes, fetch=self.account.files.fetch)
        rows = [self._row(call, writer.table, record, by_id=batch.by_id) for record in records]
        if batch.single:
            return rows[0] | details
        lists = {} if batch.merge_on is None else upsert_lists(changes, records)
        return {"records": rows} | lists | details

    # Deleting.

    def _delete_one(self, call: Call) -> Row:
        table = find_table(call)
        record = self._find(call, table)
        delete(call.base, table, record.id, now=self.account.clock.time())
        return {"id": record.id, "deleted": True}

    def _delete_all(self, call: Call) -> Row:
        table = find_table(call)
        params = call.request.query_params
        ids = [*params.getlist("records[]"), *params.getlist("records")]
        if not 1 <= len(ids) <= MOST_RECORDS or len(set(ids)) < len(ids):
            raise RefusedError(422, "INVALID_RECORDS")
        for key in ids:
            if key not in table.records:
                raise missing(key, self.account.answers)
        for key in ids:
            delete(call.base, table, key, now=self.account.clock.time())
        return {"records": [{"id": key, "deleted": True} for key in ids]}

    # Uploading.

    def _upload(self, call: Call) -> Row:
        table = call.base.table_of(call.names["record"])
        if table is None:
            raise RefusedError(404, str(self.account.answers["airtable.missing_record"]))
        item = table.field(call.names["field"])
        if item.locked:
            raise RefusedError(403, "INVALID_PERMISSIONS")
        if item.type != "multipleAttachments":
            raise RefusedError(422, "INVALID_VALUE_FOR_COLUMN", f'Field "{item.name}" takes no attachments')
        attachment, content_type, content = parse_upload(call.json(), self.account.ids)
        record = table.records[call.names["record"]]
        self.account.files.store(attachment, content_type=content_type, content=content)
        cell = [*record.cells.get(item.id, ()), attachment]
        table.change(record, {item.id: cell}, now=self.account.clock.time())
        return self._row(call, table, record, by_id=True, fields=[item])


def new_attachments(changes: list[Change]) -> list[Attachment]:
    """Return the attachments that changes name by URL."""
    return [
        entry
        for change in changes
        for cell in change.cells.values()
        if isinstance(cell, list)
        for entry in cell
        if isinstance(entry, Attachment) and entry.state == "waiting"
    ]
