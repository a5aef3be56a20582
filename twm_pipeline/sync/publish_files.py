"""Files of published e-mails: by their signed address while it lives long enough, else by upload up to 5 MB.

Airtable fetches an address in its own time and says nothing when it fails, so what was sent that way is
looked at later and sent again. A file is sent again only when the set of an e-mail's files changed, or when
it did not arrive.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from twm_pipeline.airtable.cells import attachment_set
from twm_pipeline.airtable.client import MOST_UPLOAD_BYTES
from twm_pipeline.downloads import Downloads
from twm_pipeline.errors import NotFoundError, RecordError, RequestRefusedError, UnansweredError
from twm_pipeline.mirror.published_files import (
    FileRow,
    note_arrived,
    note_failed,
    note_sent,
    pending_files,
    sent_files,
)
from twm_pipeline.sources.missive import expiry_of

if TYPE_CHECKING:
    from twm_pipeline.airtable.client import AirtableClient
    from twm_pipeline.records import Json
    from twm_pipeline.sync.publish import Publisher

logger = logging.getLogger(__name__)

ROWS_AT_ONCE = 100
RECORDS_PER_CALL = 10
MOST_TRIES = 5
LONG_ENOUGH = timedelta(minutes=10)
"""An address that lives shorter may be dead before Airtable fetches it; then we fetch it ourselves."""
FETCHED_AFTER = timedelta(minutes=5)
"""After so long Airtable has fetched what it was given, or never will."""

Renew = Callable[[Sequence[str]], Mapping[str, list[Any]]]
"""Reads e-mails again and returns their attachments with fresh addresses."""


@dataclass(kw_only=True)
class FilePublisher:
    """Sends the files of one base's e-mails.

    Args:
        publisher: The base's.
        table_id: The table of e-mails.
        field_id: Its field of files.
        renew: Gets fresh addresses from the vendor; None: those that have expired wait.
    """

    publisher: Publisher
    table_id: str
    field_id: str
    renew: Renew | None = None
    sent: int = 0

    def __post_init__(self) -> None:
        self.base = self.publisher.base
        self.client: AirtableClient = self.publisher.client
        self.downloads = Downloads.of(self.publisher.settings)

    def run(self) -> int:
        """Look at what was sent by address, then send what is to be sent; return how many e-mails'."""
        self._look()
        seen: list[str] = []
        while True:
            self.publisher.should_stop()
            with self.publisher.reading() as connection:
                rows = pending_files(
                    connection, self.base, without=seen, most_tries=MOST_TRIES, limit=ROWS_AT_ONCE
                )
            if not rows:
                return self.sent
            seen += [row.row_id for row in rows]
            self._send_all(rows)

    def _look(self) -> None:
        """Find out what Airtable has fetched of what it was given."""
        while True:
            with self.publisher.reading() as connection:
                sent = sent_files(connection, self.base, older_than=FETCHED_AFTER, limit=ROWS_AT_ONCE)
            if not sent:
                return
            found = self.client.get_records(self.table_id, list(sent), fields=[self.field_id])
            held = {record.id: _count(record.cells.get(self.field_id)) for record in found}
            arrived = [row for record, (row, files) in sent.items() if held.get(record, 0) >= files]
            failed = [row for record, (row, files) in sent.items() if held.get(record, 0) < files]
            with self.publisher.commit() as connection:
                note_arrived(connection, self.base, arrived)
                note_failed(connection, self.base, failed)
            if failed:
                logger.warning(
                    "airtable: files of %d e-mails did not arrive; they are sent again", len(failed)
                )

    def _send_all(self, rows: Sequence[FileRow]) -> None:
        """Send what can be sent of *rows*: ten records a call by address, the others one by one."""
        links = {row.row_id: _by_id(row.links) for row in rows}
        stale = [row.row_id for row in rows if row.tries or not self._lives(row, links[row.row_id])]
        if stale and self.renew is not None:
            links |= {row_id: _by_id(found) for row_id, found in self.renew(stale).items()}
        usable = [row for row in rows if self._lives(row, links[row.row_id])]
        by_address = [row for row in usable if not self._is_uploaded(row, links[row.row_id])]
        for start in range(0, len(by_address), RECORDS_PER_CALL):
            self._send_addresses(by_address[start : start + RECORDS_PER_CALL], links)
        for row in usable:
            if self._is_uploaded(row, links[row.row_id]):
                self._upload(row, links[row.row_id])

    def _lives(self, row: FileRow, links: Mapping[str, Json], *, longer: timedelta = timedelta(0)) -> bool:
        """Return whether every file of *row* has an address that is good for some time."""
        until = datetime.now(UTC) + longer
        urls = [links.get(str(item.get("id")), {}).get("url") for item in row.files]
        return all(isinstance(url, str) and (expiry_of(url) or until) >= until for url in urls)

    def _is_uploaded(self, row: FileRow, links: Mapping[str, Json]) -> bool:
        """Return whether we fetch the files ourselves: the time is short, or Airtable failed to."""
        return bool(row.files) and (row.tries > 0 or not self._lives(row, links, longer=LONG_ENOUGH))

    def _send_addresses(self, rows: Sequence[FileRow], links: Mapping[str, Mapping[str, Json]]) -> None:
        self.publisher.should_stop()
        cells = [(row.record_id, {self.field_id: _cell(row, links[row.row_id]) or None}) for row in rows]
        try:
            self.client.update(self.table_id, cells)
        except (NotFoundError, RequestRefusedError) as error:
            if len(rows) > 1:
                for row in rows:
                    self._send_addresses([row], links)
                return
            self._failed(rows[0], error)
            return
        with self.publisher.commit() as connection:
            for row in rows:
                note_sent(connection, self.base, row, by_address=bool(row.files))
        self.sent += len(rows)

    def _upload(self, row: FileRow, links: Mapping[str, Json]) -> None:
        """Fetch the files and hand them over; larger ones go by address all the same."""
        self.publisher.should_stop()
        large: list[Json] = []
        contents: list[tuple[str, str, bytes]] = []
        try:
            for file in attachment_set({"attachments": row.files}):
                url = str(links[file.id]["url"])
                content = self.downloads.read(url, most_bytes=MOST_UPLOAD_BYTES)
                if not content:  # too large for an upload, or empty, which an upload may not be
                    large.append({"url": url, "filename": file.filename})
                else:
                    contents.append((file.filename, file.media_type, content))
            self.client.update(self.table_id, [(row.record_id, {self.field_id: large or None})])
            for filename, media_type, content in contents:
                self.client.upload_attachment(
                    row.record_id, self.field_id, filename=filename, media_type=media_type, content=content
                )
        except (UnansweredError, NotFoundError, RequestRefusedError, RecordError) as error:
            self._failed(row, error)
            return
        with self.publisher.commit() as connection:
            note_sent(connection, self.base, row, by_address=bool(large))
        self.sent += 1

    def _failed(self, row: FileRow, error: Exception) -> None:
        logger.warning(
            "airtable: files of e-mail %s were not taken: %s",
            row.row_id,
            error,
            extra={"object": f"emails/{row.row_id}"},
        )
        with self.publisher.commit() as connection:
            note_failed(connection, self.base, [row.row_id])


def _by_id(links: Sequence[Any]) -> dict[str, Json]:
    return {str(item.get("id")): item for item in links if isinstance(item, dict)}


def _cell(row: FileRow, links: Mapping[str, Json]) -> list[Json]:
    return [
        {"url": links[file.id]["url"], "filename": file.filename}
        for file in attachment_set({"attachments": row.files})
    ]


def _count(cell: object) -> int:
    """Return how many files a cell holds that Airtable has fetched: those have a size."""
    items = cell if isinstance(cell, list) else []
    return sum(isinstance(item, dict) and item.get("size") is not None for item in items)
