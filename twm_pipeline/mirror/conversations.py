"""Missive's conversations in the mirror: what of them has been read, merges, and their children."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from twm_pipeline.mirror.tables import EMAILS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from twm_pipeline.mirror.tables import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadState:
    """What a conversation was like when its messages and comments were read.

    Args:
        read_at: Its `last_activity_at` then; None while they have not been read.
        messages_count: As the vendor counted them.
        drafts_count: Likewise.
    """

    read_at: datetime | None
    messages_count: int | None
    drafts_count: int | None


def read_state(connection: Connection, ids: Sequence[str]) -> dict[str, ReadState]:
    """Return what was read of each known conversation among *ids*."""
    rows = connection.execute(
        text(
            "SELECT id, children_read_at, messages_count, drafts_count FROM missive.conversations"
            " WHERE id = ANY(:ids)"
        ),
        {"ids": list(ids)},
    )
    return {
        row.id: ReadState(
            read_at=row.children_read_at,
            messages_count=row.messages_count,
            drafts_count=row.drafts_count,
        )
        for row in rows
    }


def note_children_read(connection: Connection, moments: Mapping[str, datetime]) -> None:
    """Note, per conversation, the `last_activity_at` at which its messages and comments were read."""
    connection.execute(
        text(
            "UPDATE missive.conversations c SET children_read_at = n.moment"
            " FROM unnest(CAST(:ids AS text[]), CAST(:moments AS timestamptz[])) AS n (id, moment)"
            " WHERE c.id = n.id AND c.children_read_at IS DISTINCT FROM n.moment"
        ),
        {"ids": list(moments), "moments": list(moments.values())},
    )


def one_of_second(connection: Connection, moment: datetime) -> str | None:
    """Return a living conversation whose last activity is *moment*, or None."""
    return connection.execute(
        text(
            "SELECT id FROM missive.conversations WHERE last_activity_at = :moment AND NOT deleted"
            " AND merged_into IS NULL AND missing_since IS NULL LIMIT 1"
        ),
        {"moment": moment},
    ).scalar()


def known_messages(
    connection: Connection, ids: Sequence[str], *, drafts: bool = False
) -> list[tuple[str, str, bytes | None]]:
    """Return (conversation, message, digest of its row in the list) of the living messages (drafts) of *ids*.

    One that is set aside has no digest, so that its body is read again: only when it is stored is that over.
    """
    rows = connection.execute(
        text(
            "SELECT e.conversation_id, e.id, CASE WHEN s.object_id IS NULL THEN e.stub_hash END AS stub_hash"
            " FROM missive.emails e LEFT JOIN twm.set_aside s"
            " ON s.source = 'missive' AND s.stream = 'emails' AND s.object_id = e.id"
            " WHERE e.conversation_id = ANY(:ids) AND NOT e.deleted AND e.draft = :drafts"
        ),
        {"ids": list(ids), "drafts": drafts},
    )
    return [
        (row.conversation_id, row.id, bytes(row.stub_hash) if row.stub_hash is not None else None)
        for row in rows
    ]


def with_drafts(connection: Connection) -> list[str]:
    """Return the conversations of which living drafts are stored."""
    rows = connection.execute(
        text("SELECT DISTINCT conversation_id FROM missive.emails WHERE draft AND NOT deleted ORDER BY 1")
    )
    return [row.conversation_id for row in rows if row.conversation_id is not None]


def drafts_among(connection: Connection, ids: Sequence[str]) -> set[str]:
    """Return those messages of *ids* that are stored as drafts."""
    rows = connection.execute(
        text("SELECT id FROM missive.emails WHERE id = ANY(:ids) AND draft"), {"ids": list(ids)}
    )
    return {row.id for row in rows}


def known_comments(connection: Connection, ids: Sequence[str]) -> list[tuple[str, str]]:
    """Return (conversation, id) of the comments of conversations, those in the trash with theirs included."""
    rows = connection.execute(
        text(
            "SELECT conversation_id, id FROM missive.comments WHERE conversation_id = ANY(:ids)"
            " AND (NOT deleted OR deleted_evidence = 'vendor')"
        ),
        {"ids": list(ids)},
    )
    return [(row.conversation_id, row.id) for row in rows]


def conversations_of(connection: Connection, ids: Sequence[str], *, table: Table = EMAILS) -> dict[str, str]:
    """Return the stored conversation of each known row of *table* among *ids*."""
    rows = connection.execute(
        text(
            f"SELECT id, conversation_id FROM {table.name}"
            " WHERE id = ANY(:ids) AND conversation_id IS NOT NULL"
        ),
        {"ids": list(ids)},
    )
    return {row.id: row.conversation_id for row in rows}


def parents_of_set_aside(connection: Connection, ids: Sequence[str]) -> list[str]:
    """Return the conversations that the raw JSON of set-aside messages names."""
    rows = connection.execute(
        text(
            "SELECT DISTINCT raw #>> '{conversation,id}' AS id FROM twm.set_aside"
            " WHERE source = 'missive' AND object_id = ANY(:ids) AND raw #>> '{conversation,id}' IS NOT NULL"
        ),
        {"ids": list(ids)},
    )
    return [row.id for row in rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Which quiet conversations a sweep reads in full: those with an id above `after`, up to `upto`.

    Args:
        after: Exclusive; empty: from the first.
        upto: Inclusive; None: to the last.
        quiet: How many quiet conversations there are.
    """

    after: str
    upto: str | None
    quiet: int


def next_turn(connection: Connection, *, after: str, quiet_since: datetime, most: int) -> Turn:
    """Return the turn of up to *most* conversations whose last activity is before *quiet_since*."""
    quiet = (
        "FROM missive.conversations WHERE last_activity_at < :since AND merged_into IS NULL"
        " AND (NOT deleted OR trashed)"
    )
    values = {"since": quiet_since, "after": after, "offset": max(most - 1, 0)}
    count = connection.execute(text(f"SELECT count(*) {quiet}"), values).scalar_one()
    upto = connection.execute(
        text(f"SELECT id {quiet} AND id > :after ORDER BY id OFFSET :offset LIMIT 1"), values
    ).scalar()
    return Turn(after=after, upto=upto if most else after, quiet=count)


def still_missing(connection: Connection, table: Table, ids: Sequence[Any]) -> list[Any]:
    """Return those of *ids* that are still marked as missing."""
    rows = connection.execute(
        text(f"SELECT id FROM {table.name} WHERE id = ANY(:ids) AND missing_since IS NOT NULL"),
        {"ids": list(ids)},
    )
    return [row.id for row in rows]


def merge(connection: Connection, old_id: str, new_id: str, *, seq: int, at: datetime) -> None:
    """Record that *old_id* answers as *new_id*, and move its children; the newest observation wins."""
    values = {"old": old_id, "new": new_id, "seq": seq, "at": at}
    _note_alias(connection, values)
    connection.execute(
        text(
            "UPDATE missive.conversations SET merged_into = :new, observed_seq = :seq, synced_at = now()"
            " WHERE merged_into = :old AND id <> :new AND observed_seq < :seq"
        ),
        values,
    )
    connection.execute(
        text(
            "UPDATE missive.conversations SET merged_into = :new, deleted = true, deleted_at = :at,"
            " deleted_evidence = 'merged', missing_since = NULL, observed_seq = :seq, synced_at = now()"
            " WHERE id = :old AND observed_seq < :seq AND merged_into IS DISTINCT FROM :new"
        ),
        values,
    )
    for table in ("emails", "comments"):
        connection.execute(
            text(
                f"UPDATE missive.{table} SET conversation_id = :new, observed_seq = :seq, synced_at = now()"
                " WHERE conversation_id = :old AND observed_seq < :seq"
            ),
            values,
        )


def _note_alias(connection: Connection, values: Mapping[str, Any]) -> None:
    connection.execute(
        text(
            "INSERT INTO missive.conversation_aliases AS a (old_id, new_id, observed_seq)"
            " VALUES (:old, :new, :seq) ON CONFLICT (old_id) DO UPDATE SET new_id = excluded.new_id,"
            " observed_seq = excluded.observed_seq, seen_at = now()"
            " WHERE a.observed_seq < excluded.observed_seq"
        ),
        values,
    )
    # What was merged into the old one before goes with it; a conversation is no alias of itself.
    connection.execute(
        text("DELETE FROM missive.conversation_aliases WHERE old_id = :new AND observed_seq < :seq"), values
    )
    connection.execute(
        text(
            "UPDATE missive.conversation_aliases SET new_id = :new, observed_seq = :seq, seen_at = now()"
            " WHERE new_id = :old AND observed_seq < :seq"
        ),
        values,
    )


def unmerge(connection: Connection, ids: Sequence[str]) -> None:
    """Forget merges of conversations that were just seen under their own id."""
    if ids:
        connection.execute(
            text(
                "UPDATE missive.conversations SET merged_into = NULL"
                " WHERE id = ANY(:ids) AND merged_into IS NOT NULL"
            ),
            {"ids": list(ids)},
        )
        connection.execute(
            text("DELETE FROM missive.conversation_aliases WHERE old_id = ANY(:ids)"), {"ids": list(ids)}
        )


def follow_trash(connection: Connection, ids: Sequence[str]) -> None:
    """Let the comments of conversations be deleted while these are in the trash, and living else.

    The list of comments does not say it, and taking a conversation out of the trash need not move anything.
    """
    connection.execute(
        text(
            "UPDATE missive.comments m SET deleted = c.deleted, deleted_at = c.deleted_at,"
            " deleted_evidence = CASE WHEN c.deleted THEN 'vendor' END, synced_at = now()"
            " FROM missive.conversations c WHERE c.id = m.conversation_id AND c.id = ANY(:ids)"
            " AND m.deleted <> c.deleted AND c.merged_into IS NULL"
            " AND (CASE WHEN c.deleted THEN c.trashed ELSE m.deleted_evidence = 'vendor' END)"
        ),
        {"ids": list(ids)},
    )


def bury_children(connection: Connection, ids: Sequence[str], *, seq: int, at: datetime) -> None:
    """Mark what belonged to conversations that are gone for good; a return of theirs reads it again."""
    for table in ("emails", "comments"):
        connection.execute(
            text(
                f"UPDATE missive.{table} SET deleted = true, deleted_at = :at, deleted_evidence = 'parent',"
                " missing_since = NULL, observed_seq = :seq, synced_at = now()"
                " WHERE conversation_id = ANY(:ids) AND NOT deleted AND observed_seq < :seq"
            ),
            {"ids": list(ids), "at": at, "seq": seq},
        )
    connection.execute(
        text("UPDATE missive.conversations SET children_read_at = NULL WHERE id = ANY(:ids) AND deleted"),
        {"ids": list(ids)},
    )
