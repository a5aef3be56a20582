"""How far each feed has been read, of whose account, and what a running pass is doing."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from twm_pipeline.errors import AccountChangedError
from twm_pipeline.records import Source

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from twm_pipeline.records import Json

ERROR_CHARACTERS = 500
CLOCK_TOLERANCE = timedelta(minutes=10)
"""The clocks of a vendor's servers may differ by this much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """How far a feed of a stream has been read.

    Args:
        last_event_time: The instant below which nothing is missing; None until that is known.
        last_cursor: JSON of the stream's own walk (live head, history, gaps).
        scope: Fingerprint of the settings under which it was read.
    """

    last_event_time: datetime | None = None
    last_cursor: Json = field(default_factory=dict)
    scope: str | None = None


def load_checkpoint(connection: Connection, source: Source, stream: str, feed: str = "") -> Checkpoint | None:
    """Return the checkpoint of a feed, or None before its first commit."""
    row = connection.execute(
        text(
            "SELECT last_event_time, last_cursor, scope FROM twm.checkpoints"
            " WHERE source = :source AND stream = :stream AND feed = :feed"
        ),
        {"source": source, "stream": stream, "feed": feed},
    ).one_or_none()
    if row is None:
        return None
    return Checkpoint(last_event_time=row.last_event_time, last_cursor=row.last_cursor, scope=row.scope)


def save_checkpoint(  # noqa: PLR0913 - three words name a feed
    connection: Connection,
    source: Source,
    stream: str,
    feed: str = "",
    *,
    checkpoint: Checkpoint,
    may_step_back: bool = False,
) -> None:
    """Store *checkpoint* in the transaction of the rows it speaks of; `last_event_time` only moves forward.

    Args:
        connection: The transaction that also stores the rows.
        source: The vendor.
        stream: The stream.
        feed: The mailbox or feed; empty where the stream has one only.
        checkpoint: What has been read.
        may_step_back: True when a widened scope makes older rows missing again.
    """
    forward = (
        "excluded.last_event_time"
        if may_step_back
        else ("greatest(c.last_event_time, excluded.last_event_time)")
    )
    connection.execute(
        text(
            "INSERT INTO twm.checkpoints AS c (source, stream, feed, last_event_time, last_cursor, scope)"
            " VALUES (:source, :stream, :feed, :time, :cursor, :scope)"
            f" ON CONFLICT (source, stream, feed) DO UPDATE SET last_event_time = {forward},"
            " last_cursor = excluded.last_cursor, scope = excluded.scope, updated_at = now()"
        ).bindparams(bindparam("cursor", type_=JSONB)),
        {
            "source": source,
            "stream": stream,
            "feed": feed,
            "time": checkpoint.last_event_time,
            "cursor": checkpoint.last_cursor,
            "scope": checkpoint.scope,
        },
    )


def forget_checkpoints_ahead(connection: Connection, source: Source, *, now: datetime) -> list[str]:
    """Forget checkpoints ahead of the vendor's clock, which was set back; return the streams' names.

    Nothing would be read until that clock is there again. Without a checkpoint a stream is read from its
    beginning, behind fresh changes; what is stored is found equal.
    """
    rows = connection.execute(
        text(
            "DELETE FROM twm.checkpoints WHERE source = :source AND last_event_time > :latest"
            " RETURNING stream"
        ),
        {"source": source, "latest": now + CLOCK_TOLERANCE},
    )
    return sorted({row.stream for row in rows})


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Whose rows the mirror holds.

    Args:
        account: The site's address, or the token owner's id.
        owner_id: The person the credentials act for.
        credentials_digest: Digest of the credentials; a new one makes the account be looked up again.
        first_import_at: The vendor's clock when the first import began.
        link_base: Address under which people open objects.
        scope: Settings that decide which rows are shown.
    """

    account: str
    owner_id: str | None
    credentials_digest: bytes
    first_import_at: datetime
    link_base: str | None = None
    scope: Json = field(default_factory=dict)


def load_account(connection: Connection, source: Source) -> Account | None:
    """Return the account whose rows are stored, or None before the first pass."""
    row = connection.execute(
        text(
            "SELECT account, owner_id, credentials_digest, first_import_at, link_base, scope"
            " FROM twm.sources WHERE source = :source"
        ),
        {"source": source},
    ).one_or_none()
    return Account(**row._mapping) if row else None  # noqa: SLF001 - SQLAlchemy's public name for it


def save_account(connection: Connection, source: Source, account: Account) -> None:
    """Store or refresh *account*.

    Raises:
        AccountChangedError: If rows of another account are stored.
    """
    known = load_account(connection, source)
    if known is not None and known.account != account.account:
        msg = (
            f"{source}: the mirror holds the rows of {known.account}, but the credentials belong to"
            f" {account.account}. Put the old credentials back, or use an empty database (PG_DSN or"
            " TWM_DATA_DIR) for the new account."
        )
        raise AccountChangedError(msg)
    connection.execute(
        text(
            "INSERT INTO twm.sources AS s"
            " (source, account, owner_id, credentials_digest, first_import_at, link_base, scope)"
            " VALUES (:source, :account, :owner_id, :credentials_digest, :first_import_at, :link_base,"
            " :scope)"
            " ON CONFLICT (source) DO UPDATE SET owner_id = excluded.owner_id,"
            " credentials_digest = excluded.credentials_digest, link_base = excluded.link_base,"
            " scope = excluded.scope"
        ).bindparams(bindparam("scope", type_=JSONB)),
        {
            "source": source,
            "account": account.account,
            "owner_id": account.owner_id,
            "credentials_digest": account.credentials_digest,
            "first_import_at": account.first_import_at,
            "link_base": account.link_base,
            "scope": account.scope,
        },
    )


def note_outcome(connection: Connection, source: Source, *, error: str | None) -> None:
    """Remember how the last pass of *source* ended, and that nothing is under way any more."""
    connection.execute(text("DELETE FROM twm.progress WHERE source = :source"), {"source": source})
    change = (
        "last_success_at = now(), last_error = NULL, last_error_at = NULL"
        if error is None
        else "last_error = :error, last_error_at = now()"
    )
    connection.execute(
        text(f"UPDATE twm.sources SET {change} WHERE source = :source"),
        {"source": source} if error is None else {"source": source, "error": error[:ERROR_CHARACTERS]},
    )


def add_counter(connection: Connection, source: Source, name: str, amount: int) -> None:
    """Add *amount* to a running total shown by status, such as cleaned NUL characters."""
    if amount:
        connection.execute(
            text(
                "INSERT INTO twm.counters AS c (source, name, value) VALUES (:source, :name, :amount)"
                " ON CONFLICT (source, name) DO UPDATE SET value = c.value + excluded.value"
            ),
            {"source": source, "name": name, "amount": amount},
        )


def note_progress(  # noqa: PLR0913 - one line of a progress display
    connection: Connection, source: Source, stream: str, *, phase: str, done: int, total: int | None = None
) -> None:
    """Show people who wait what a pass is doing; overwritten each time."""
    connection.execute(
        text(
            "INSERT INTO twm.progress (source, stream, phase, done, total) VALUES (:source, :stream, :phase,"
            " :done, :total) ON CONFLICT (source, stream) DO UPDATE SET phase = excluded.phase,"
            " done = excluded.done, total = excluded.total, updated_at = now()"
        ),
        {"source": source, "stream": stream, "phase": phase, "done": done, "total": total},
    )


def to_iso(moment: datetime | None) -> str | None:
    """Return *moment* for a cursor's JSON."""
    return moment.astimezone(UTC).isoformat() if moment else None


def from_iso(value: str | None) -> datetime | None:
    """Return the instant that `to_iso` wrote."""
    return datetime.fromisoformat(value) if value else None
