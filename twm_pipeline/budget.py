"""One request budget per vendor account, kept in PostgreSQL and shared by every process (DESIGN D6).

Leave is asked before each attempt of each request. The answer carries the attempt's place in the order of
observation (D4), drawn after the wait and before anything is sent. Without PostgreSQL nothing is sent.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from twm_pipeline.errors import DatabaseUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from sqlalchemy import Connection, Engine

logger = logging.getLogger(__name__)

LEASE_LOCK = 74_770_001
HISTORY_SHARE = 0.8
"""History may use this share of every window; the rest is kept for fresh changes."""
MARGIN_SECONDS = 0.05
"""Windows are counted this much longer, for clocks that do not run alike."""
LOGGED_WAIT_SECONDS = 1.0
LONGEST_SLEEP_SECONDS = 2.0


# Asked for every request: the driver's own form spares SQLAlchemy's half of the time.
_DRAW = "SELECT * FROM twm.draw_attempt(%s, %s, CAST(%s AS integer[]), CAST(%s AS float8[]), %s)"
_FINISH = "SELECT twm.finish_attempt(%s, %s, %s)"


@dataclass(frozen=True, slots=True)
class Limit:
    """At most *requests* in any *seconds*."""

    requests: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a vendor allows one account.

    Args:
        account: The name under which all processes share the budget.
        limits: Sliding windows, all of which hold.
        concurrency: Requests under way at once; 0: not limited.
        adapts: Whether the vendor's own headers may raise the first limit (nobody set it by hand).
    """

    account: str
    limits: tuple[Limit, ...]
    concurrency: int = 0
    adapts: bool = False


@dataclass(slots=True)
class Usage:
    """What one process spent: requests sent, answers 429, seconds waited for leave."""

    requests: int = 0
    throttled: int = 0
    waited_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave for one attempt: its observation number and the concurrency slot it holds (0: none)."""

    seq: int
    slot: int


@dataclass
class Budget:
    """The budget of one account as one process uses it; a context manager that holds one connection.

    The connection holds the advisory locks of lease and slots, so a process that dies holds neither.

    Args:
        engine: The mirror's database.
        plan: What the vendor allows.
        should_stop: Asked while waiting; it raises when the window is over.
        sleep: Replaced by tests.
    """

    engine: Engine
    plan: Plan
    should_stop: Callable[[], None] = lambda: None
    sleep: Callable[[float], None] = time.sleep
    usage: Usage = field(default_factory=Usage)
    _connection: Connection | None = None
    _lease: int = 0
    _silent_until: float = 0.0
    _history_silent_until: float = 0.0

    def __enter__(self) -> Self:
        try:
            with _needs_database():
                self._open()
        except BaseException:
            if self._connection is not None:
                self._connection.invalidate()
                self._connection.close()
                self._connection = None
            raise
        return self

    def _open(self) -> None:
        connection = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        self._connection = connection
        # Losing the last moments of the request log in a crash costs less than an fsync per request.
        connection.execute(text("SET synchronous_commit = off"))
        connection.execute(
            text("INSERT INTO twm.budgets (account) VALUES (:a) ON CONFLICT DO NOTHING"),
            {"a": self.plan.account},
        )
        # One statement: a lease that can be seen before it is locked would be forgotten as a dead one.
        self._lease = connection.execute(
            text(
                "WITH lease AS (INSERT INTO twm.leases (account) VALUES (:a) RETURNING id)"
                " SELECT id FROM lease, LATERAL (SELECT pg_advisory_lock(:key, id)) AS locked"
            ),
            {"a": self.plan.account, "key": LEASE_LOCK},
        ).scalar_one()
        self._forget_dead_leases()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._connection is None:
            return
        try:
            self._connection.execute(text("DELETE FROM twm.leases WHERE id = :id"), {"id": self._lease})
            self._connection.execute(text("SELECT pg_advisory_unlock_all()"))
            self._connection.execute(text("RESET synchronous_commit"))
        except SQLAlchemyError:
            logger.warning("the budget's connection is gone; PostgreSQL has released what it held")
            self._connection.invalidate()
        finally:
            self._connection.close()
            self._connection = None

    def _forget_dead_leases(self) -> None:
        """Remove leases whose process is gone: their advisory lock can be had."""
        connection = self._require_connection()
        rows = connection.execute(
            text("SELECT id FROM twm.leases WHERE account = :a AND id <> :mine"),
            {"a": self.plan.account, "mine": self._lease},
        ).scalars()
        for lease in rows.all():
            free = connection.execute(
                text("SELECT pg_try_advisory_lock(:key, :lease)"), {"key": LEASE_LOCK, "lease": lease}
            ).scalar_one()
            if free:
                connection.execute(text("DELETE FROM twm.leases WHERE id = :lease"), {"lease": lease})
                connection.execute(
                    text("SELECT pg_advisory_unlock(:key, :lease)"), {"key": LEASE_LOCK, "lease": lease}
                )

    def draw(self, *, fresh: bool) -> Permit:
        """Wait for leave to send one attempt and return it.

        Args:
            fresh: Whether the request serves fresh changes; history may use only a share of the budget.

        Raises:
            DatabaseUnavailableError: If the budget cannot be asked; the request must not be sent.
            WindowClosedError: If the window ends while waiting.
        """
        told = False
        while True:
            with _needs_database():
                row = self._ask(fresh=fresh)
            if row.wait_seconds <= 0:
                self.usage.requests += 1
                return Permit(seq=row.seq, slot=row.slot)
            if not told and row.wait_seconds >= LOGGED_WAIT_SECONDS:
                logger.info(
                    "%s: waiting %.1f s for the request budget: %s",
                    self.plan.account,
                    row.wait_seconds,
                    row.reason,
                )
                told = True
            self.should_stop()
            pause = min(row.wait_seconds, LONGEST_SLEEP_SECONDS)
            self.usage.waited_seconds += pause
            self.sleep(pause)

    def _ask(self, *, fresh: bool) -> _Answer:
        silent_until = self._silent_until if fresh else max(self._silent_until, self._history_silent_until)
        silence = silent_until - time.monotonic()
        if silence > 0:
            return _Answer(silence, 0, 0, "the vendor's headers say that the budget is used")
        limits = self._limits(fresh=fresh)
        row = self._require_connection().exec_driver_sql(
            _DRAW,
            (
                self.plan.account,
                self._lease,
                _to_array(limit.requests for limit in limits),
                _to_array(limit.seconds for limit in limits),
                self.plan.concurrency,
            ),
        )
        return _Answer(*row.one())

    def _limits(self, *, fresh: bool) -> list[Limit]:
        share = 1.0 if fresh else HISTORY_SHARE
        return [
            Limit(max(1, int(limit.requests * share)), limit.seconds + MARGIN_SECONDS)
            for limit in self.plan.limits
        ]

    def finish(self, permit: Permit) -> None:
        """Count an attempt from the moment it was answered or given up, and give its slot back."""
        with _needs_database():
            connection = self._require_connection()
            connection.exec_driver_sql(_FINISH, (self.plan.account, permit.seq, permit.slot))

    def observe(self, *, limit: int | None, remaining: int | None, reset_seconds: float | None) -> None:
        """Take over what the vendor's headers say of the first window: others may use the same account."""
        first, *others = self.plan.limits
        if limit and limit != first.requests and (limit < first.requests or self.plan.adapts):
            self.plan = replace(self.plan, limits=(replace(first, requests=limit), *others))
        if remaining is None or reset_seconds is None:
            return
        until = time.monotonic() + min(reset_seconds, first.seconds)
        if remaining <= 0:
            self._silent_until = until
        elif remaining < first.requests * (1 - HISTORY_SHARE):
            self._history_silent_until = until

    def pause(self, seconds: float, *, reason: str) -> None:
        """Keep every process of the account silent for *seconds*: the vendor asked for it."""
        self.usage.throttled += 1
        with _needs_database():
            self._require_connection().execute(
                text(
                    "UPDATE twm.budgets SET throttled = throttled + 1, paused_reason = :reason,"
                    " paused_until ="
                    " greatest(paused_until, clock_timestamp() + make_interval(secs => :seconds))"
                    " WHERE account = :a"
                ),
                {"a": self.plan.account, "seconds": seconds, "reason": reason},
            )

    def settle(self, connection: Connection) -> None:
        """Say, in the transaction that stores their answers, that no request of this process is under way."""
        connection.execute(
            text("UPDATE twm.leases SET oldest_seq = NULL WHERE id = :lease AND oldest_seq IS NOT NULL"),
            {"lease": self._lease},
        )

    def oldest_other_seq(self, connection: Connection) -> int | None:
        """Return the oldest request of another process that is still under way, or None."""
        query = text("SELECT min(oldest_seq) FROM twm.leases WHERE account = :a AND id <> :mine").bindparams(
            a=self.plan.account, mine=self._lease
        )
        if connection.execute(query).scalar() is None:
            return None
        with _needs_database():
            self._forget_dead_leases()
        return connection.execute(query).scalar()

    def _require_connection(self) -> Connection:
        if self._connection is None:
            msg = "The budget is used outside of its `with` block."
            raise RuntimeError(msg)
        return self._connection


@contextmanager
def _needs_database() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:  # the connection's loss, and whatever is asked of it afterwards
        msg = "The mirror's PostgreSQL does not answer; no vendor request is made without it."
        raise DatabaseUnavailableError(msg) from error


def _to_array(numbers: Iterable[float]) -> str:
    return "{" + ",".join(map(str, numbers)) + "}"


@dataclass(frozen=True, slots=True)
class _Answer:
    wait_seconds: float
    seq: int
    slot: int
    reason: str | None
