"""Which rows a complete sweep has seen, kept in PostgreSQL: memory must not grow with the account (G12)."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import Connection, Engine

    from twm_pipeline.mirror.tables import Table


class SeenRows:
    """Ids seen so far, in a temporary table of one connection.

    Args:
        connection: In autocommit, held until the sweep is over.
        table: The stream's table.
    """

    def __init__(self, connection: Connection, table: Table) -> None:
        self.connection = connection
        self.table = table
        self.count = 0
        self.name = f"pg_temp.seen_{table.source}_{table.stream}"
        connection.execute(
            text(f"CREATE TEMPORARY TABLE {self.name} AS SELECT id FROM {table.name} WITH NO DATA")
        )
        connection.execute(text(f"CREATE UNIQUE INDEX ON {self.name} (id)"))

    def add(self, ids: Iterable[Any]) -> set[Any]:
        """Remember *ids*; return those that had not been seen."""
        kind = "bigint" if self.table.source == "teamwork" else "text"
        rows = self.connection.execute(
            text(
                f"INSERT INTO {self.name} SELECT unnest(CAST(:ids AS {kind}[]))"
                " ON CONFLICT DO NOTHING RETURNING id"
            ),
            {"ids": list(ids)},
        )
        fresh = {row.id for row in rows}
        self.count += len(fresh)
        return fresh

    def absent(self, *, before: int, only_shown: bool = False) -> list[Any]:
        """Return living rows that have not been seen.

        Args:
            before: Only rows that no request of this number or a later one has observed.
            only_shown: Leave rows out of scope aside: they are not listed.
        """
        condition = " AND NOT t.out_of_scope" if only_shown else ""
        rows = self.connection.execute(
            text(
                f"SELECT t.id FROM {self.table.name} t"
                f" WHERE NOT t.deleted AND t.observed_seq < :before{condition}"
                f" AND NOT EXISTS (SELECT FROM {self.name} s WHERE s.id = t.id) ORDER BY t.id"
            ),
            {"before": before},
        )
        return [row.id for row in rows]


@contextmanager
def seen_rows(engine: Engine, *tables: Table) -> Iterator[dict[Table, SeenRows]]:
    """Give one `SeenRows` per table; what they remember goes with the block."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        try:
            yield {table: SeenRows(connection, table) for table in tables}
        finally:
            connection.invalidate()
