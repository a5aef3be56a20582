"""What became of each file of a message or comment: waiting, stored, skipped, failed.

Triggers note a file in the transaction of the row that has it. What it is called and where it can be fetched
is read from that row; the address in there may have expired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import text

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from twm_pipeline.records import Json

CHANNEL = "twm_attachments"
"""Notified at the commit of a row with files that were not known."""
FIRST_WAIT = timedelta(minutes=1)
LONGEST_WAIT = timedelta(days=1)
MOST_TRIES = 12
"""Fetched in vain so often, over more than two days, a file waits for `twm attachments retry`."""
MOST_COUNTED = 1000
HIDDEN_WAIT = timedelta(days=1)
"""A file of a deleted or hidden message is looked at so much later, if no trigger says that it is back."""

Owner = Literal["emails", "comments"]
Key = tuple[str, str, str]

_DUE = (
    "state IN ('pending', 'failed') AND next_try_at IS NOT NULL"
    f" AND twm.is_due(next_try_at, make_interval(secs => {LONGEST_WAIT.total_seconds():.0f}))"
)
_HIDDEN = """
    SELECT count(*) FROM twm.attachments a
    LEFT JOIN missive.emails e ON a.owner = 'emails' AND e.id = a.owner_id
    LEFT JOIN missive.comments m ON a.owner = 'comments' AND m.id = a.owner_id
    LEFT JOIN missive.conversations c ON c.id = coalesce(e.conversation_id, m.conversation_id)
    WHERE a.state = 'pending'
    AND (coalesce(e.deleted, m.deleted, true) OR coalesce(c.deleted OR e.out_of_scope, false))
"""
_KEY = "(owner, owner_id, id) = (:owner, :owner_id, :id)"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRow:
    """One file that is to be fetched.

    Args:
        owner: The stream of the row that it belongs to.
        owner_id: That row.
        id: The attachment.
        conversation_id: Where it was sent.
        subject: Of the conversation.
        filename: As the vendor gives it.
        extension: As the vendor gives it.
        media_type: Such as `image/png`.
        announced_size: Its bytes, as the vendor says.
        inline: Whether the message shows it in its text.
        sent_at: When the message was delivered.
        url: Its address as last read.
        tries: How often it was fetched in vain.
        sha256: Of what came the last time, if that was not what was announced.
        store: Where `path` is.
        path: Where it is to go, once that is settled.
    """

    owner: Owner
    owner_id: str
    id: str
    conversation_id: str | None
    subject: str | None
    filename: str | None
    extension: str | None
    media_type: str
    announced_size: int | None
    inline: bool
    sent_at: datetime | None
    url: str | None
    tries: int = 0
    sha256: str | None = None
    store: str | None = None
    path: str | None = None

    @property
    def key(self) -> Key:
        """What identifies the row."""
        return self.owner, self.owner_id, self.id


_COLUMNS = ", ".join(FileRow.__dataclass_fields__)


def due_files(connection: Connection, *, without: Sequence[Key] = (), limit: int) -> list[FileRow]:
    """Return files whose time has come, found last first: their addresses live longest.

    Args:
        connection: For reading.
        without: Those under way.
        limit: At most so many.
    """
    rows = connection.execute(
        text(
            f"SELECT {_COLUMNS} FROM twm.attachment_files WHERE {_DUE} AND NOT deleted AND NOT out_of_scope"
            " AND owner || ' ' || owner_id || ' ' || id <> ALL(:without) ORDER BY found_at DESC LIMIT :limit"
        ),
        {"without": [" ".join(key) for key in without], "limit": limit},
    )
    return [FileRow(**row) for row in rows.mappings()]


def count_due(connection: Connection) -> int:
    """Return how many files are to be fetched now; of more than `MOST_COUNTED` only so many are counted."""
    query = text(
        f"SELECT count(*) FROM (SELECT FROM twm.attachment_files WHERE {_DUE} AND NOT deleted"
        " AND NOT out_of_scope LIMIT :most) AS due"
    )
    return int(connection.execute(query, {"most": MOST_COUNTED}).scalar_one())


def postpone_hidden(connection: Connection) -> None:
    """Put off the files of messages that are deleted or out of scope: not every look is to meet them."""
    connection.execute(
        text(
            "UPDATE twm.attachments a SET next_try_at = now() + :wait FROM twm.attachment_files f"
            " WHERE (f.owner, f.owner_id, f.id) = (a.owner, a.owner_id, a.id)"
            " AND (f.deleted OR f.out_of_scope)"
            " AND f.state IN ('pending', 'failed') AND twm.is_due(f.next_try_at, :longest)"
        ),
        {"wait": HIDDEN_WAIT, "longest": LONGEST_WAIT},
    )


def reconsider_skipped(connection: Connection, *, rule: str) -> None:
    """Have files fetched that were skipped by another rule than *rule*."""
    connection.execute(
        text(
            "UPDATE twm.attachments SET state = 'pending', reason = NULL, next_try_at = now()"
            " WHERE state = 'skipped' AND rule IS DISTINCT FROM :rule"
        ),
        {"rule": rule},
    )


def settle_path(connection: Connection, row: FileRow, *, store: str, path: str) -> None:
    """Note where a file is to go before it is fetched: what was killed half way goes there again."""
    _update(connection, row, "store = :store, path = :path", store=store, path=path)


def note_stored(
    connection: Connection, row: FileRow, *, size: int, sha256: str, reason: str | None = None
) -> None:
    """Note that a file lies where `settle_path` said; *reason* says what is odd about it."""
    _update(
        connection,
        row,
        "state = 'stored', reason = :reason, size = :size, sha256 = :sha256, stored_at = now(),"
        " next_try_at = NULL",
        reason=reason,
        size=size,
        sha256=sha256,
    )


def note_skipped(connection: Connection, row: FileRow, *, reason: str, rule: str) -> None:
    """Note that a rule of the settings leaves a file out."""
    _update(
        connection,
        row,
        "state = 'skipped', reason = :reason, rule = :rule, next_try_at = NULL",
        reason=reason,
        rule=rule,
    )


def note_failed(connection: Connection, row: FileRow, *, reason: str, sha256: str | None = None) -> None:
    """Note that a file was fetched in vain; it is tried again after a wait that doubles each time."""
    wait = min(FIRST_WAIT * 2**row.tries, LONGEST_WAIT) if row.tries + 1 < MOST_TRIES else None
    _update(
        connection,
        row,
        "state = 'failed', reason = :reason, sha256 = :sha256, tries = tries + 1,"
        " next_try_at = now() + CAST(:wait AS interval)",
        reason=reason,
        sha256=sha256,
        wait=wait,
    )


def put_off(connection: Connection, row: FileRow, *, reason: str, wait: timedelta) -> None:
    """Look at a file again later; nothing was tried and nothing is counted."""
    _update(connection, row, "reason = :reason, next_try_at = now() + :wait", reason=reason, wait=wait)


def _update(connection: Connection, row: FileRow, values: str, **parameters: Any) -> None:  # noqa: ANN401 - columns
    owner, owner_id, file_id = row.key
    connection.execute(
        text(f"UPDATE twm.attachments SET {values} WHERE {_KEY}"),
        {"owner": owner, "owner_id": owner_id, "id": file_id, **parameters},
    )


def retry_failed(connection: Connection) -> int:
    """Have every file that failed fetched again now, as if for the first time; return how many."""
    query = text(
        "UPDATE twm.attachments SET state = 'pending', tries = 0, next_try_at = now() WHERE state = 'failed'"
    )
    return connection.execute(query).rowcount


def find_stored(connection: Connection, *, email_id: str, attachment_id: str) -> tuple[str, str, int] | None:
    """Return store, path and size of an e-mail's file, if it is stored."""
    query = text(f"SELECT store, path, size FROM twm.attachments WHERE {_KEY} AND state = 'stored'")
    row = connection.execute(
        query, {"owner": "emails", "owner_id": email_id, "id": attachment_id}
    ).one_or_none()
    return None if row is None else (row.store, row.path, row.size)


def read_attachments(connection: Connection) -> Json:
    """Return how many files are in which state, and the bytes of those that are stored.

    Files that wait, but whose message is deleted or hidden, are `hidden`: nobody fetches them.
    """
    query = text(
        "SELECT count(*) FILTER (WHERE state = 'stored') AS stored,"
        " count(*) FILTER (WHERE state = 'pending') AS pending,"
        " count(*) FILTER (WHERE state = 'skipped') AS skipped,"
        " count(*) FILTER (WHERE state = 'failed') AS failed,"
        " coalesce(sum(size) FILTER (WHERE state = 'stored'), 0)::bigint AS stored_bytes,"
        " max(stored_at) AS last_stored_at FROM twm.attachments"
    )
    counts = dict(connection.execute(query).mappings().one())
    hidden = int(connection.execute(text(_HIDDEN)).scalar_one()) if counts["pending"] else 0
    return {**counts, "pending": counts["pending"] - hidden, "hidden": hidden}


def list_failed(connection: Connection, *, limit: int) -> list[Json]:
    """Return files that were fetched in vain, with the reasons, the latest first."""
    query = text(
        "SELECT attachment_id, email_id, comment_id, filename, subject, reason, tries, next_try_at"
        " FROM missive.attachments WHERE state = 'failed' ORDER BY sent_at DESC NULLS LAST LIMIT :limit"
    )
    return [dict(row) for row in connection.execute(query, {"limit": limit}).mappings()]
