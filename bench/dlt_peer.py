"""dlt upserting the same rows into the same server, with the settings that were fastest when tried.

Tried on dlt 1.31 with 10,000 and 20,000 messages: CSV files (COPY) before INSERT statements, strategy
`upsert` (MERGE) about equal to `delete-insert`, no compression of the files between the steps (half the
client's CPU). Rows go in as dictionaries, which is what a source of JSON has, and once more as an Arrow table
where pyarrow is installed (the bench extra leaves it out): that spares dlt its own look at every value. Lists
are JSON columns and bytes hexadecimal text, since dlt knows no arrays and its CSV no bytes.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from sqlalchemy import URL

    from twm_pipeline.mirror.tables import Table
    from twm_pipeline.records import Record

ENVIRONMENT = {
    "RUNTIME__DLTHUB_TELEMETRY": "false",
    "RUNTIME__LOG_LEVEL": "ERROR",
    "DATA_WRITER__DISABLE_COMPRESSION": "true",
}
TYPES = {bool: "bool", int: "bigint", datetime: "timestamp", date: "date", list: "json"}


def is_installed() -> bool:
    """Return whether the bench extra is there."""
    return importlib.util.find_spec("dlt") is not None


def has_arrow() -> bool:
    """Return whether rows can be handed over as Arrow tables."""
    return importlib.util.find_spec("pyarrow") is not None


class DltPeer(AbstractContextManager["DltPeer"]):
    """A dlt pipeline into a dataset of its own.

    Args:
        url: The database.
        table: The stream's table, for the columns.
        folder: Where dlt keeps its files.
        arrow: Hand rows over as Arrow tables instead of dictionaries.
    """

    def __init__(self, url: URL, table: Table, folder: Path, *, arrow: bool) -> None:
        import dlt  # noqa: PLC0415 - only in the bench extra
        from dlt.destinations import postgres  # noqa: PLC0415 - only in the bench extra

        os.environ.update(ENVIRONMENT)
        self.table = table
        self.arrow = arrow
        self._dlt: Any = dlt
        self._columns: dict[str, Any] = {}
        address = url.set(drivername="postgresql").render_as_string(hide_password=False)
        kind = "arrow" if arrow else "rows"
        self._pipeline: Any = dlt.pipeline(
            f"bench_{table.stream}_{kind}",
            destination=postgres(credentials=address),
            dataset_name=f"dlt_{table.stream}_{kind}",
            pipelines_dir=str(folder),
        )

    def __exit__(self, *_: object) -> None:
        self._pipeline.drop()

    def prepare(self, records: Sequence[Record]) -> list[dict[str, Any]]:
        """Return *records* as dlt takes them; not part of what is timed."""
        names = self.table.columns
        self._columns = self._columns or column_hints(names, records)
        return [{name: plain(getattr(record, name)) for name in names} for record in records]

    def run(self, rows: list[dict[str, Any]]) -> None:
        """Upsert *rows* in one run of the pipeline."""
        data: Any = self._to_arrow(rows) if self.arrow else rows
        resource = self._dlt.resource(
            iter([data]),
            name=self.table.stream,
            primary_key="id",
            write_disposition={"disposition": "merge", "strategy": "upsert"},
            columns=self._columns,
            max_table_nesting=0,
        )
        self._pipeline.run(resource, loader_file_format="csv").raise_on_failed_jobs()

    def _to_arrow(self, rows: list[dict[str, Any]]) -> Any:  # noqa: ANN401 - pyarrow is optional
        import pyarrow as pa  # noqa: PLC0415 - optional

        types = {
            "bool": pa.bool_(),
            "bigint": pa.int64(),
            "timestamp": pa.timestamp("us", "UTC"),
            "date": pa.date32(),
        }
        lists = [name for name, hint in self._columns.items() if hint["data_type"] == "json"]
        for row in rows:
            row.update(
                {name: orjson.dumps(row[name]).decode() for name in lists if isinstance(row[name], list)}
            )
        fields = [(name, types.get(hint["data_type"], pa.string())) for name, hint in self._columns.items()]
        return pa.Table.from_pylist(rows, schema=pa.schema(fields))


def column_hints(names: Sequence[str], records: Sequence[Record]) -> dict[str, Any]:
    """Return dlt's column hints, so that it need not guess types."""
    hints: dict[str, Any] = {}
    for name in names:
        known = (value for record in records if (value := getattr(record, name)) is not None)
        kind = type(plain(next(known, "")))
        hints[name] = {"data_type": TYPES.get(kind, "text"), "nullable": name != "id"}
    return hints


def plain(value: object) -> object:
    """Return *value* as dlt's CSV can hold it."""
    return value.hex() if isinstance(value, bytes) else value
