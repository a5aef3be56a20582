"""Addresses of files as they are now: those in the mirror expire, so messages and comments are read again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from twm_pipeline.mirror.attachments import FileRow, Key
from twm_pipeline.sources.missive import MissiveSource
from twm_pipeline.sources.missive_rows import child_time
from twm_pipeline.sync.engine import RECORD_FAULTS

if TYPE_CHECKING:
    from twm_pipeline.records import Json


def fresh_urls(api: MissiveSource, rows: Sequence[FileRow]) -> dict[Key, str]:
    """Return the addresses of files; those whose message cannot be read are left out.

    Raises:
        RetriableError: If the vendor does not answer anything else either.
    """
    try:
        return dict(_read(api, rows))
    except RECORD_FAULTS:
        if len(rows) == 1:
            api.fetch_owner_id()  # it answers this, so it was the message
            return {}
    middle = len(rows) // 2
    return {**fresh_urls(api, rows[:middle]), **fresh_urls(api, rows[middle:])}


def _read(api: MissiveSource, rows: Iterable[FileRow]) -> Iterator[tuple[Key, str]]:
    emails: dict[str, list[FileRow]] = {}
    comments: dict[str, list[FileRow]] = {}
    for row in rows:
        if row.owner == "emails":
            emails.setdefault(row.owner_id, []).append(row)
        elif row.conversation_id is not None:
            comments.setdefault(row.conversation_id, []).append(row)
    for message, _ in api.fetch_messages(list(emails), fresh=False):
        entries = message.get("attachments")
        yield from _urls_in(entries if isinstance(entries, list) else [], emails[str(message["id"])])
    for conversation_id, wanted in comments.items():
        yield from _urls_of_comments(api, conversation_id, wanted)


def _urls_in(entries: Iterable[object], wanted: Iterable[FileRow]) -> Iterator[tuple[Key, str]]:
    urls = {str(entry.get("id")): entry.get("url") for entry in entries if isinstance(entry, dict)}
    for row in wanted:
        url = urls.get(row.id)
        if isinstance(url, str):
            yield row.key, url


def _urls_of_comments(
    api: MissiveSource, conversation_id: str, wanted: Sequence[FileRow]
) -> Iterator[tuple[Key, str]]:
    """Read a conversation's comments, newest first, until those wanted have been seen."""
    missing = {row.owner_id for row in wanted}
    until: int | None = None
    while missing:
        page = api.fetch_children(conversation_id, "comments", until=until, fresh=False)
        for comment in page.rows:
            if comment.get("id") in missing:
                missing.discard(str(comment["id"]))
                owned = [row for row in wanted if row.owner_id == comment["id"]]
                yield from _urls_in([comment.get("attachment")], owned)
        oldest = _oldest(page.rows)
        if len(page.rows) < page.limit or oldest is None or oldest == until:
            return
        until = oldest


def _oldest(rows: Iterable[Json]) -> int | None:
    return min((time for row in rows if (time := child_time(row, "comments")) is not None), default=None)
