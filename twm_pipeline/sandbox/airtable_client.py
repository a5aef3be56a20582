"""The control plane's Airtable from the other side."""

from __future__ import annotations

from collections.abc import Sequence

from twm_pipeline.sandbox.options import Json


class AirtableControl:
    """What people do to the base, and fate to the token. Tables and fields are named by id or name."""

    def do(self, action: str, **fields: Json) -> Json:
        """Run an action by its name and return its result."""
        raise NotImplementedError

    # Rows. Cells are converted where they do not fit, as the UI does.

    def airtable_create(self, table: str, fields: dict[str, Json]) -> str:
        """Add a row and return its id."""
        return str(self.do("airtable_create", table=table, fields=fields))

    def airtable_edit(self, table: str, record_id: str, fields: dict[str, Json]) -> None:
        """Change cells of a row; null empties one."""
        self.do("airtable_edit", table=table, record_id=record_id, fields=fields)

    def airtable_delete(self, table: str, *record_ids: str) -> None:
        """Delete rows."""
        self.do("airtable_delete", table=table, record_ids=record_ids)

    def airtable_duplicate(self, table: str, record_id: str) -> str:
        """Duplicate a row and return the new one's id."""
        return str(self.do("airtable_duplicate", table=table, record_id=record_id))

    def airtable_wipe(self, *, tables: bool = False) -> int:
        """Delete all rows, with *tables* everything; return how many rows there were."""
        return int(self.do("airtable_wipe", tables=tables))

    # Tables and fields.

    def airtable_add_table(self, name: str, fields: Sequence[dict[str, Json]]) -> str:
        """Add a table and return its id."""
        return str(self.do("airtable_add_table", name=name, fields=fields))

    def airtable_rename_table(self, table: str, name: str) -> None:
        """Rename a table."""
        self.do("airtable_rename_table", table=table, name=name)

    def airtable_delete_table(self, table: str) -> None:
        """Delete a table, and the links to it."""
        self.do("airtable_delete_table", table=table)

    def airtable_add_field(self, table: str, name: str, type: str, options: Json = None) -> str:  # noqa: A002 - Airtable's word
        """Add a field of any type, computed ones too; return its id."""
        return str(self.do("airtable_add_field", table=table, name=name, type=type, options=options))

    def airtable_rename_field(self, table: str, field: str, name: str) -> None:
        """Rename a field."""
        self.do("airtable_rename_field", table=table, field=field, name=name)

    def airtable_retype_field(self, table: str, field: str, type: str, options: Json = None) -> None:  # noqa: A002 - Airtable's word
        """Give a field another type; cells that do not fit it are emptied."""
        self.do("airtable_retype_field", table=table, field=field, type=type, options=options)

    def airtable_delete_field(self, table: str, field: str) -> None:
        """Delete a field."""
        self.do("airtable_delete_field", table=table, field=field)

    def airtable_lock_field(self, table: str, field: str, *, locked: bool = True) -> None:
        """Let the token's user write a field no more, or again."""
        self.do("airtable_lock_field", table=table, field=field, locked=locked)

    # Bases.

    def airtable_create_base(self, name: str) -> str:
        """Give the token one more base, an empty one, and return its id."""
        return str(self.do("airtable_create_base", name=name))

    def airtable_prepare_old_base(self, **fields: Json) -> dict[str, int]:
        """Build the base as an earlier connector left it; return the rows of each table.

        Args:
            **fields: `rows` at most from either vendor, `time_zone`, `categories`: names of columns.
        """
        result: dict[str, int] = self.do("airtable_prepare_old_base", **fields)
        return result

    # The token and the limits.

    def airtable_set_scopes(self, *scopes: str) -> None:
        """Give the token exactly these scopes."""
        self.do("airtable_set_scopes", scopes=scopes)

    def airtable_set_role(self, role: str) -> None:
        """Give the token's user another role: `read`, `comment`, `edit`, `create` or `owner`."""
        self.do("airtable_set_role", role=role)

    def airtable_set_access(self, *, granted: bool) -> None:
        """Take the bases from the token, or give them back."""
        self.do("airtable_set_access", granted=granted)

    def airtable_set_plan(self, plan: str) -> None:
        """Change the workspace's plan: `free`, `team` or `business`."""
        self.do("airtable_set_plan", plan=plan)

    def airtable_set_quota(self, calls: int | None) -> None:
        """Leave so many calls for this month; None for no limit."""
        self.do("airtable_set_quota", calls=calls)

    def airtable_expire_iterators(self) -> int:
        """Let all offsets expire; return how many lists were being read."""
        return int(self.do("airtable_expire_iterators"))

    # Attachments.

    def airtable_fail_attachments(self, count: int | None = None) -> None:
        """Let so many of the next fetches fail; None for all, 0 for none."""
        self.do("airtable_fail_attachments", count=count)

    def airtable_hold_attachments(self) -> None:
        """Fetch nothing from now on."""
        self.do("airtable_hold_attachments")

    def airtable_release_attachments(self) -> None:
        """Fetch again."""
        self.do("airtable_release_attachments")

    def airtable_wait_for_attachments(self, seconds: float = 30.0) -> None:
        """Wait until nothing is to be fetched.

        Raises:
            SandboxError: If that takes longer.
        """
        self.do("airtable_wait_for_attachments", seconds=seconds)
