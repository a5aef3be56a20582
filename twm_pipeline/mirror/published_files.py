"""Which files of published e-mails were sent, and which are to be sent or looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from twm_pipeline.records import Json

FIRST_PAUSE = timedelta(minutes=5)
"""Between the second and the third try of sending the files of an e-mail; it doubles from there on."""
LONGEST_PAUSE = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRow:
    """One e-mail whose files differ from those in its record.

    Args:
        row_id: The e-mail.
        record_id: Its record.
        file_set: Digest of which files it has; None: none.
        files: The vendor's attachments, without addresses.
        links: The same with the signed addresses of the last read, which may have expired.
        tries: How often sending them was in vain.
    """

    row_id: str
    record_id: str
    file_set: bytes | None
    files: list[Json]
    links: list[Json]
    tries: int


def pending_files(
    connection: Connection, base: str, *, without: Sequence[str], most_tries: int, limit: int
) -> list[FileRow]:
    """Return e-mails whose set of files is not the one that was sent, those tried least first.

    Args:
        connection: For reading.
        base: Where they are published.
        without: E-mails that were looked at just now.
        most_tries: E-mails whose files were sent in vain so often are left out.
        limit: At most so many.
    """
    rows = connection.execute(
        text(
            "SELECT p.row_id, p.record_id, p.attachments_tries, e.attachments,"
            " e.raw -> 'attachments' AS links, twm.file_set(e.attachments) AS file_set"
            " FROM twm.published p JOIN missive.emails e ON e.id = p.row_id"
            " WHERE p.base = :base AND p.view = 'emails' AND p.record_id IS NOT NULL"
            " AND (e.attachments <> '[]'::jsonb OR p.attachments_hash IS NOT NULL)"
            " AND p.attachments_hash IS DISTINCT FROM twm.file_set(e.attachments)"
            " AND p.attachments_tries < :most_tries AND p.row_id <> ALL(:without)"
            " AND (p.attachments_due_at IS NULL OR twm.is_due(p.attachments_due_at, :longest))"
            " ORDER BY p.attachments_tries, e.delivered_at DESC NULLS LAST LIMIT :limit"
        ),
        {
            "base": base,
            "without": list(without),
            "most_tries": most_tries,
            "longest": LONGEST_PAUSE,
            "limit": limit,
        },
    )
    return [
        FileRow(
            row_id=row.row_id,
            record_id=row.record_id,
            file_set=bytes(row.file_set) if row.file_set is not None else None,
            files=_objects(row.attachments),
            links=_objects(row.links),
            tries=row.attachments_tries,
        )
        for row in rows
    ]


def _objects(value: Any) -> list[Json]:  # noqa: ANN401 - any JSON value
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def note_sent(connection: Connection, base: str, row: FileRow, *, by_address: bool) -> None:
    """Note that the files of a row were sent; those sent by their address are looked at later.

    What was handed over is there: whatever came before it is forgotten.
    """
    connection.execute(
        text(
            "UPDATE twm.published SET attachments_hash = :file_set,"
            " attachments_sent_at = CASE WHEN :by_address THEN now() END,"
            " attachments_due_at = CASE WHEN :by_address THEN attachments_due_at END,"
            " attachments_tries = CASE WHEN :by_address THEN attachments_tries ELSE 0 END"
            " WHERE base = :base AND view = 'emails' AND row_id = :row_id AND record_id = :record_id"
        ),
        {
            "base": base,
            "row_id": row.row_id,
            "record_id": row.record_id,
            "file_set": row.file_set,
            "by_address": by_address,
        },
    )


def note_failed(connection: Connection, base: str, row_ids: Sequence[str]) -> None:
    """Note that files did not arrive; they are sent again: at once the first time, then ever later."""
    connection.execute(
        text(
            "UPDATE twm.published SET attachments_hash = NULL, attachments_sent_at = NULL,"
            " attachments_due_at = CASE WHEN attachments_tries > 0"
            "  THEN now() + least(:first * power(2, least(attachments_tries, 20) - 1), :longest) END,"
            " attachments_tries = attachments_tries + 1"
            " WHERE base = :base AND view = 'emails' AND row_id = ANY(:ids)"
        ),
        {"base": base, "ids": list(row_ids), "first": FIRST_PAUSE, "longest": LONGEST_PAUSE},
    )


def sent_files(
    connection: Connection, base: str, *, older_than: timedelta, limit: int
) -> dict[str, tuple[str, int]]:
    """Return record → (e-mail, number of its files), of files sent by address a while ago, oldest first."""
    rows = connection.execute(
        text(
            "SELECT p.record_id, p.row_id, jsonb_array_length(e.attachments) AS files"
            " FROM twm.published p JOIN missive.emails e ON e.id = p.row_id"
            " WHERE p.base = :base AND p.view = 'emails' AND p.record_id IS NOT NULL"
            " AND p.attachments_sent_at IS NOT NULL AND twm.is_due(p.attachments_sent_at + :age, :age)"
            " ORDER BY p.attachments_sent_at LIMIT :limit"
        ),
        {"base": base, "age": older_than, "limit": limit},
    )
    return {row.record_id: (row.row_id, row.files) for row in rows}


def files_are_due(connection: Connection, base: str, *, older_than: timedelta, most_tries: int) -> bool:
    """Return whether files were sent by address long enough ago to be looked at, or are to be sent again.

    Args:
        connection: For reading.
        base: Where they are published.
        older_than: How long ago they were sent.
        most_tries: After so many nothing is sent again.
    """
    return bool(
        connection.execute(
            text(
                "SELECT EXISTS (SELECT FROM twm.published WHERE base = :base AND view = 'emails'"
                " AND record_id IS NOT NULL AND (twm.is_due(attachments_sent_at + :age, :age)"
                " OR attachments_hash IS NULL AND attachments_tries < :most_tries"
                " AND twm.is_due(attachments_due_at, :longest)))"
            ),
            {"base": base, "age": older_than, "most_tries": most_tries, "longest": LONGEST_PAUSE},
        ).scalar_one()
    )


def lost_files(connection: Connection, base: str, held: Mapping[str, int]) -> list[str]:
    """Return e-mails whose files had arrived, and whose records hold fewer now; have them sent again.

    Args:
        connection: Of a transaction.
        base: Where they are published.
        held: E-mail → number of files in its record.
    """
    rows = connection.execute(
        text(
            "UPDATE twm.published p SET attachments_hash = NULL, attachments_tries = 0"
            " FROM missive.emails e,"
            " unnest(CAST(:ids AS text[]), CAST(:counts AS integer[])) AS n (id, count)"
            " WHERE p.base = :base AND p.view = 'emails' AND p.row_id = n.id AND e.id = n.id"
            " AND p.attachments_hash IS NOT NULL AND p.attachments_sent_at IS NULL"
            " AND jsonb_array_length(e.attachments) > n.count RETURNING p.row_id"
        ),
        {"base": base, "ids": list(held), "counts": list(held.values())},
    )
    return [row.row_id for row in rows]


def note_arrived(connection: Connection, base: str, row_ids: Sequence[str]) -> None:
    """Note that files sent by their address are there."""
    connection.execute(
        text(
            "UPDATE twm.published SET attachments_sent_at = NULL, attachments_due_at = NULL,"
            " attachments_tries = 0"
            " WHERE base = :base AND view = 'emails' AND row_id = ANY(:ids)"
        ),
        {"base": base, "ids": list(row_ids)},
    )


def count_waiting_files(connection: Connection, base: str) -> int:
    """Return of how many e-mails the files are still to be sent."""
    query = text(
        "SELECT count(*) FROM twm.published p JOIN missive.emails e ON e.id = p.row_id WHERE p.base = :base"
        " AND p.view = 'emails' AND p.record_id IS NOT NULL AND e.attachments <> '[]'::jsonb"
        " AND p.attachments_hash IS DISTINCT FROM twm.file_set(e.attachments)"
    )
    return int(connection.execute(query, {"base": base}).scalar_one())
