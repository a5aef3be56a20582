"""Airtable's meta API: who one is, which bases there are, tables and fields."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twm_pipeline.sandbox.airtable_account import USER, Account, Call, Endpoint
from twm_pipeline.sandbox.airtable_errors import MissingTableError, RefusedError, forbidden
from twm_pipeline.sandbox.airtable_links import connect
from twm_pipeline.sandbox.airtable_schema import Rules, checked_keys, field_row, table_row
from twm_pipeline.sandbox.airtable_store import Base, Field, Table

Row = dict[str, Any]
PERMISSIONS = {"read": "read", "comment": "comment", "edit": "edit", "create": "create", "owner": "create"}


class Meta:
    """The endpoints about schemas.

    Args:
        account: The account.
    """

    def __init__(self, account: Account) -> None:
        self.account = account

    def endpoints(self) -> list[Endpoint]:
        """Return the endpoints."""
        base = "meta/bases/{base}/tables"
        write: dict[str, Any] = {"scope": "schema.bases:write", "role": "create"}
        return [
            Endpoint(method="GET", path="meta/whoami", answer=self._whoami),
            Endpoint(method="GET", path="meta/bases", answer=self._bases, scope="schema.bases:read"),
            Endpoint(method="GET", path=base, answer=self._tables, scope="schema.bases:read"),
            Endpoint(method="POST", path=base, answer=self._create_table, **write),
            Endpoint(method="PATCH", path=f"{base}/{{table}}", answer=self._change_table, **write),
            Endpoint(method="POST", path=f"{base}/{{table}}/fields", answer=self._create_field, **write),
            Endpoint(
                method="PATCH", path=f"{base}/{{table}}/fields/{{field}}", answer=self._change_field, **write
            ),
        ]

    def rules(self, base: Base) -> Rules:
        """Return what is checked in a base."""
        return Rules(base, plan=lambda: self.account.plan)

    def _whoami(self, _: Call) -> Row:
        row: Row = {"id": USER["id"]}
        if self.account.answers["airtable.whoami_scopes"]:
            row["scopes"] = sorted(self.account.scopes)
        return row

    def _bases(self, call: Call) -> Row:
        found = self.account.reachable
        start = 0
        offset = call.request.query_params.get("offset")
        if offset is not None:
            start = next((n for n, base in enumerate(found) if f"itr{base.id[3:]}/{base.id}" == offset), -1)
            if start < 0:
                raise RefusedError(422, "INVALID_OFFSET_VALUE", "The value of offset is invalid")
        end = start + int(self.account.answers["airtable.bases_page"])
        permission = PERMISSIONS[self.account.role]
        rows = [{"id": b.id, "name": b.name, "permissionLevel": permission} for b in found[start:end]]
        more = {"offset": f"itr{found[end].id[3:]}/{found[end].id}"} if end < len(found) else {}
        return {"bases": rows, **more}

    def _tables(self, call: Call) -> Row:
        visible = "visibleFieldIds" in call.request.query_params.getlist("include[]")
        return {"tables": [table_row(table, visible=visible) for table in call.base.tables.values()]}

    def _create_table(self, call: Call) -> Row:
        table = self.rules(call.base).new_table(call.json())
        call.base.tables[table.id] = table
        for item in list(table.fields.values()):
            self._connect(call.base, table, item)
        return table_row(table)

    def _change_table(self, call: Call) -> Row:
        table = find_table(call)
        rules = self.rules(call.base)
        given = checked_keys(call.json(), required=(), optional=("name", "description"))
        name = rules.table_name(given["name"], besides=table) if "name" in given else table.name
        table.description = changed_description(given, table.description, rules.description)
        table.name = name
        return table_row(table)

    def _create_field(self, call: Call) -> Row:
        table = find_table(call)
        item = self.rules(call.base).new_field(call.json(), besides=list(table.fields.values()))
        table.fields[item.id] = item
        self._connect(call.base, table, item)
        return field_row(item)

    def _change_field(self, call: Call) -> Row:
        table = find_table(call)
        item = table.find_field(call.names["field"])
        if item is None:
            raise forbidden()
        rules = self.rules(call.base)
        given = checked_keys(call.json(), required=(), optional=("name", "description"))
        others = [other for other in table.fields.values() if other is not item]
        name = rules.field_name(given["name"], besides=others) if "name" in given else item.name
        item.description = changed_description(given, item.description, rules.description)
        item.name = name
        return field_row(item)

    @staticmethod
    def _connect(base: Base, table: Table, item: Field) -> None:
        if item.type == "multipleRecordLinks":
            connect(base, table, item)


def find_table(call: Call) -> Table:
    """Return the table a path names.

    Raises:
        MissingTableError: If there is none.
    """
    found = call.base.find_table(call.names["table"])
    if found is None:
        raise MissingTableError
    return found


def changed_description(given: Row, before: str | None, check: Callable[[Row], str | None]) -> str | None:
    """Return a description after a change; an empty one takes it away."""
    if "description" not in given:
        return before
    return None if given["description"] == "" else check(given)
