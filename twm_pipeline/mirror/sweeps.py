"""A complete sweep's memory in PostgreSQL: what it has seen, and where it goes on after an interruption.

Memory must not grow with the account (G12), and a sweep of a large one takes hours of the vendor's budget.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import OperationalError

from twm_pipeline.errors import DatabaseUnavailableError, RetriableError
from twm_pipeline.mirror.tombstones import next_observation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime

    from sqlalchemy import Connection, Engine

    from twm_pipeline.mirror.tables import Table
    from twm_pipeline.records import Json, Source

SWEEP_LOCK = 74_770_005
KEPT_HOURS = 20
"""An interrupted sweep goes on within so many hours, that is in the next night; later it begins anew."""


@dataclass(kw_only=True)
class Sweep:
    """The sweep under way.

    Args:
        connection: In autocommit, held until the sweep is over.
        source: The vendor.
        began_at: When it began, by the database's clock.
        first_seq: A number in the order of observation, drawn before its first request.
        place: Where its lists go on; the steps of the sweep know what is in there.
        turn: Up to this id conversations have had their turn.
        continued: Whether an earlier run began it.
        is_kept: Whether an interrupted sweep goes on; not so a dry run, which leaves no trace.
    """

    connection: Connection
    source: Source
    began_at: datetime
    first_seq: int
    place: Json = field(default_factory=dict)
    turn: str = ""
    continued: bool = False
    is_kept: bool = True

    @property
    def _seen(self) -> str:
        return "twm.sweep_seen" if self.is_kept else "pg_temp.sweep_seen"

    def unseen(self, table: Table, ids: Iterable[Any]) -> set[str]:
        """Return those of *ids*, as text, that no list has shown yet."""
        rows = self.connection.execute(
            text(
                "SELECT i.id FROM unnest(CAST(:ids AS text[])) AS i (id)"
                f" WHERE NOT EXISTS (SELECT FROM {self._seen} s"
                "  WHERE s.source = :source AND s.stream = :stream AND s.object_id = i.id)"
            ),
            {"ids": [str(item) for item in ids], "source": self.source, "stream": table.stream},
        )
        return {row.id for row in rows}

    def see(self, table: Table, ids: Iterable[Any]) -> None:
        """Remember ids that a list has shown or that were looked at, once their rows are stored."""
        self.connection.execute(
            text(
                f"INSERT INTO {self._seen} SELECT :source, :stream, unnest(CAST(:ids AS text[]))"
                " ON CONFLICT DO NOTHING"
            ),
            {"ids": [str(item) for item in ids], "source": self.source, "stream": table.stream},
        )

    def count_seen(self, table: Table) -> int:
        """Return how many rows of *table* have been seen."""
        query = text(f"SELECT count(*) FROM {self._seen} WHERE source = :source AND stream = :stream")
        values = {"source": self.source, "stream": table.stream}
        return int(self.connection.execute(query, values).scalar_one())

    def absent(self, table: Table) -> list[Any]:
        """Return living rows that no list has shown and no request observed since the sweep began."""
        return self._absent(table, "")

    def absent_tasks(self, table: Table, *, created_since: datetime | None) -> list[Any]:
        """Return absent tasks, but not those created before the start date: they are not listed."""
        return self._absent(
            table,
            "AND (CAST(:since AS timestamptz) IS NULL OR t.created_at IS NULL"
            "  OR t.created_at >= CAST(:since AS timestamptz))",
            since=created_since,
        )

    def absent_conversations(
        self, table: Table, *, active_since: datetime | None, turn: tuple[str, str | None]
    ) -> list[Any]:
        """Return absent conversations; below the start date, where none is listed, those whose turn it is."""
        return self._absent(
            table,
            "AND (CAST(:since AS timestamptz) IS NULL OR t.last_activity_at IS NULL"
            "  OR t.last_activity_at >= CAST(:since AS timestamptz)"
            "  OR (t.id > :after AND (CAST(:upto AS text) IS NULL OR t.id <= CAST(:upto AS text))))",
            since=active_since,
            after=turn[0],
            upto=turn[1],
        )

    def _absent(self, table: Table, condition: str, **values: Any) -> list[Any]:  # noqa: ANN401 - parameters of a query
        # One that is missing already waits for its second look, wherever it is decided.
        rows = self.connection.execute(
            text(
                f"SELECT t.id FROM {table.name} t"
                " WHERE NOT t.deleted AND t.missing_since IS NULL AND t.observed_seq < :first_seq"
                f" AND NOT EXISTS (SELECT FROM {self._seen} s"
                "  WHERE s.source = :source AND s.stream = :stream AND s.object_id = t.id::text)"
                f" {condition} ORDER BY t.id"
            ),
            {"source": self.source, "stream": table.stream, "first_seq": self.first_seq, **values},
        )
        return [row.id for row in rows]

    def save(self) -> None:
        """Store the place up to which everything listed is stored."""
        if self.is_kept:
            self.connection.execute(
                text(
                    "UPDATE twm.sweeps SET place = :place, moved_at = now() WHERE source = :source"
                ).bindparams(bindparam("place", type_=JSONB)),
                {"source": self.source, "place": self.place},
            )

    def finish(self) -> None:
        """Forget what was seen; the next sweep begins anew, with the conversations whose turn is next."""
        if self.is_kept:
            self.connection.execute(
                text("DELETE FROM twm.sweep_seen WHERE source = :source"), {"source": self.source}
            )
            self.connection.execute(
                text(
                    "UPDATE twm.sweeps SET began_at = NULL, moved_at = NULL, place = '{}', turn = :turn,"
                    " finished_at = now() WHERE source = :source"
                ),
                {"source": self.source, "turn": self.turn},
            )


@contextmanager
def open_sweep(
    engine: Engine,
    source: Source,
    *,
    place: Json,
    may_go_on: Callable[[Json], bool] = lambda _: True,
    is_kept: bool = True,
) -> Iterator[Sweep]:
    """Give the sweep of *source*: the interrupted one, or a new one that starts at *place*.

    Args:
        engine: The mirror.
        source: The vendor.
        place: Of a new sweep.
        may_go_on: Whether an interrupted sweep with this place does what this one is to do.
        is_kept: See `Sweep`.

    Raises:
        RetriableError: If another process sweeps this source.
        DatabaseUnavailableError: If PostgreSQL went away.
    """
    try:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            try:
                yield (
                    _load(connection, source, place=place, may_go_on=may_go_on)
                    if is_kept
                    else _begin_unkept(connection, source, place=place)
                )
                # The server notices a closed connection a moment later, and the next sweep may begin now.
                connection.execute(text("SELECT pg_advisory_unlock_all()"))
            finally:
                connection.invalidate()  # lock and temporary table go with it
    except OperationalError as error:
        msg = f"The mirror's PostgreSQL does not answer ({type(error.orig).__name__})."
        raise DatabaseUnavailableError(msg) from error


def _begin_unkept(connection: Connection, source: Source, *, place: Json) -> Sweep:
    connection.execute(text("CREATE TEMPORARY TABLE sweep_seen (LIKE twm.sweep_seen INCLUDING ALL)"))
    row = connection.execute(
        text(
            "SELECT clock_timestamp() AS now,"
            " coalesce((SELECT turn FROM twm.sweeps WHERE source = :source), '') AS turn"
        ),
        {"source": source},
    ).one()
    seq = next_observation(connection)
    return Sweep(
        connection=connection,
        source=source,
        began_at=row.now,
        first_seq=seq,
        place=dict(place),
        turn=row.turn,
        is_kept=False,
    )


def _load(connection: Connection, source: Source, *, place: Json, may_go_on: Callable[[Json], bool]) -> Sweep:
    """Return the interrupted sweep, or a new one in its place, with the lock held by *connection*."""
    held = connection.execute(
        text("SELECT pg_try_advisory_lock(:key, hashtext(:source))"), {"key": SWEEP_LOCK, "source": source}
    ).scalar_one()
    if not held:
        msg = f"{source}: another complete sweep is under way; this one was not started."
        raise RetriableError(msg)
    row = connection.execute(
        text(
            "SELECT began_at, first_seq, place, turn,"
            " coalesce(moved_at BETWEEN now() - make_interval(hours => :hours) AND clock_timestamp(), false)"
            " AS is_recent"
            " FROM twm.sweeps WHERE source = :source"
        ),
        {"source": source, "hours": KEPT_HOURS},
    ).one_or_none()
    if row is not None and row.is_recent and may_go_on(row.place):
        return Sweep(
            connection=connection,
            source=source,
            began_at=row.began_at,
            first_seq=row.first_seq,
            place=row.place,
            turn=row.turn,
            continued=True,
        )
    return _begin(connection, source, place=place, turn=row.turn if row else "")


def _begin(connection: Connection, source: Source, *, place: Json, turn: str) -> Sweep:
    connection.execute(text("DELETE FROM twm.sweep_seen WHERE source = :source"), {"source": source})
    seq = next_observation(connection)
    began_at = connection.execute(
        text(
            "INSERT INTO twm.sweeps (source, began_at, moved_at, first_seq, place)"
            " VALUES (:source, clock_timestamp(), now(), :seq, :place)"
            " ON CONFLICT (source) DO UPDATE SET began_at = excluded.began_at, moved_at = excluded.moved_at,"
            " first_seq = excluded.first_seq, place = excluded.place RETURNING began_at"
        ).bindparams(bindparam("place", type_=JSONB)),
        {"source": source, "seq": seq, "place": place},
    ).scalar_one()
    return Sweep(
        connection=connection,
        source=source,
        began_at=began_at,
        first_seq=seq,
        place=dict(place),
        turn=turn,
    )
