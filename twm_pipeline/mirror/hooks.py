"""What is known of our hooks at the vendors, and of creations that have not ended well."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from psycopg.errors import LockNotAvailable
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from twm_pipeline.errors import RetriableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from sqlalchemy import Connection, Engine

    from twm_pipeline.records import Source

HOOKS_LOCK = 74_770_003
LOCK_NUMBERS: dict[Source, int] = {"teamwork": 1, "missive": 2}
LOCK_SECONDS = 60
PROBLEM_CHARACTERS = 500

Open = Literal["asked", "refused"]
ASKED: Open = "asked"
REFUSED: Open = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownHook:
    """A hook of ours, or a creation without a good end.

    Args:
        hook_id: The vendor's id; of a creation a name of our own.
        event: The event or type it is for.
        url: Its address, without a secret path.
        proof: Keyed digest of the token or secret path; None where that is not known.
        status: `asked` or `refused` for a creation, else the vendor's status in lower case.
        checked_at: When this was seen last.
        attempts: How often the creation was tried.
        problem: What the vendor said last.
    """

    hook_id: str
    event: str
    url: str
    proof: bytes | None
    status: str
    checked_at: datetime
    attempts: int = 0
    problem: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether this is a creation whose outcome is not known, or that was refused."""
        return self.status in (ASKED, REFUSED)


def load_hooks(connection: Connection, source: Source) -> list[KnownHook]:
    """Return everything known of the hooks of *source*, oldest first."""
    rows = connection.execute(
        text(
            "SELECT hook_id, event, url, proof, status, checked_at, attempts, problem FROM twm.hooks"
            " WHERE source = :source ORDER BY created_at, hook_id"
        ),
        {"source": source},
    )
    return [KnownHook(**row._mapping) for row in rows]  # noqa: SLF001 - SQLAlchemy's public name for it


def note_asked(connection: Connection, source: Source, *, event: str, url: str, proof: bytes) -> None:
    """Record the intention to make a hook; committed before the vendor is asked."""
    connection.execute(
        text(
            "INSERT INTO twm.hooks AS h (source, hook_id, event, url, proof, status, attempts)"
            " VALUES (:source, :id, :event, :url, :proof, :asked, 1)"
            " ON CONFLICT (source, hook_id) DO UPDATE SET url = excluded.url, proof = excluded.proof,"
            " status = :asked, problem = NULL, checked_at = now(), attempts = CASE"
            " WHEN (h.url, h.proof) = (excluded.url, excluded.proof) THEN h.attempts + 1 ELSE 1 END"
        ),
        {"source": source, "id": _open_id(event), "event": event, "url": url, "proof": proof, "asked": ASKED},
    )


def note_problem(connection: Connection, source: Source, *, event: str, status: Open, problem: str) -> None:
    """Record how the creation of a hook for *event* has failed."""
    connection.execute(
        text(
            "UPDATE twm.hooks SET status = :status, problem = :problem, checked_at = now()"
            " WHERE source = :source AND hook_id = :id"
        ),
        {
            "source": source,
            "id": _open_id(event),
            "status": status,
            "problem": problem[:PROBLEM_CHARACTERS],
        },
    )


def note_made(  # noqa: PLR0913 - a hook has these parts
    connection: Connection, source: Source, *, hook_id: str, event: str, url: str, proof: bytes | None
) -> None:
    """Record a hook of ours that exists."""
    connection.execute(
        text(
            "INSERT INTO twm.hooks (source, hook_id, event, url, proof, status)"
            " VALUES (:source, :id, :event, :url, :proof, 'active')"
            " ON CONFLICT (source, hook_id) DO UPDATE SET event = excluded.event, url = excluded.url,"
            " proof = excluded.proof, status = excluded.status, checked_at = now()"
        ),
        {"source": source, "id": hook_id, "event": event, "url": url, "proof": proof},
    )


def note_seen(connection: Connection, source: Source, statuses: Mapping[str, str]) -> None:
    """Record the *statuses* of hooks, by id, as the vendor has just named them."""
    connection.execute(
        text(
            "UPDATE twm.hooks AS h SET status = seen.status, checked_at = now()"
            " FROM unnest(CAST(:ids AS text[]), CAST(:statuses AS text[])) AS seen (id, status)"
            " WHERE h.source = :source AND h.hook_id = seen.id"
        ),
        {
            "source": source,
            "ids": list(statuses),
            "statuses": [status.lower() for status in statuses.values()],
        },
    )


def forget_hook(connection: Connection, source: Source, hook_id: str) -> None:
    """Forget a hook that exists no more, or a creation that is not wanted any more."""
    connection.execute(
        text("DELETE FROM twm.hooks WHERE source = :source AND hook_id = :id"),
        {"source": source, "id": hook_id},
    )


def forget_open(connection: Connection, source: Source, *, event: str) -> None:
    """Forget the intention to make a hook for *event*."""
    forget_hook(connection, source, _open_id(event))


def forget_all_hooks(connection: Connection, source: Source) -> None:
    """Forget every hook: the account they were made in is gone."""
    connection.execute(text("DELETE FROM twm.hooks WHERE source = :source"), {"source": source})


@contextmanager
def hooks_lock(engine: Engine, source: Source) -> Iterator[None]:
    """Let one process at a time change the hooks of *source*.

    Raises:
        RetriableError: If another one goes on doing so for a minute.
    """
    key = {"key": HOOKS_LOCK, "number": LOCK_NUMBERS[source]}
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        try:
            connection.execute(text(f"SET lock_timeout = '{LOCK_SECONDS}s'"))
            connection.execute(text("SELECT pg_advisory_lock(:key, :number)"), key)
            yield
        except OperationalError as error:
            if not isinstance(error.orig, LockNotAvailable):
                raise
            msg = f"Another process has been registering hooks for {LOCK_SECONDS} s; try again later."
            raise RetriableError(msg) from error
        finally:
            connection.invalidate()  # the server releases the lock with it, whatever has happened meanwhile


def _open_id(event: str) -> str:
    return f"open {event}"
