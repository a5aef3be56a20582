"""Files of published e-mails: by their signed address while it lives long enough, else by upload up to 5 MB.

Airtable fetches an address in its own time and says nothing when it fails, so what was sent that way is
looked at later and sent again. A file is sent again only when the set of an e-mail's files changed, or when
it did not arrive.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from twm_pipeline.airtable.cells import Attachment, attachment_set
from twm_pipeline.airtable.client import MOST_UPLOAD_BYTES
from twm_pipeline.airtable.fields import ATTACHMENTS
from twm_pipeline.downloads import Downloads
from twm_pipeline.errors import (
    DatabaseUnavailableError,
    NotFoundError,
    RecordError,
    RequestRefusedError,
    StoreUnavailableError,
    TwmError,
    UnansweredError,
    WindowClosedError,
)
from twm_pipeline.mirror.published import write_again
from twm_pipeline.mirror.published_files import (
    FileRow,
    note_arrived,
    note_failed,
    note_sent,
    pending_files,
    sent_files,
)
from twm_pipeline.sources.missive_rows import expiry_of
from twm_pipeline.sync.attachments import stored_copy

if TYPE_CHECKING:
    from twm_pipeline.airtable.client import AirtableClient
    from twm_pipeline.records import Json
    from twm_pipeline.sync.publish import Publisher

logger = logging.getLogger(__name__)

ROWS_AT_ONCE = 100
RECORDS_PER_CALL = 10
MOST_TRIES = 10
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
        publisher: The base's, prepared.
        renew: Gets fresh addresses from the vendor; None: those that have expired wait.
        sent: Of how many e-mails the files were sent.
        renewed: E-mails whose addresses are fresh, whatever this machine's clock makes of their expiry.
    """

    publisher: Publisher
    renew: Renew | None = None
    sent: int = 0
    renewed: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.base = self.publisher.base
        layout = self.publisher.layouts["emails"]
        self.table_id, self.field_id = layout.table_id, layout.fields[ATTACHMENTS]
        self.client: AirtableClient = self.publisher.client
        self.downloads = Downloads.of(self.publisher.settings)

    def _stored(self, email_id: str, attachment_id: str) -> bytes | None:
        """Return a file that we have stored, or None if we have not or it is too large for an upload."""
        return stored_copy(
            self.publisher.engine,
            self.publisher.settings,
            email_id=email_id,
            attachment_id=attachment_id,
            most_bytes=MOST_UPLOAD_BYTES,
        )

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
            held = {record.id: count_files(record.cells.get(self.field_id)) for record in found}
            gone = [row for record, (row, _) in sent.items() if record not in held]
            arrived = [row for record, (row, files) in sent.items() if held.get(record, -1) >= files]
            failed = [row for record, (row, files) in sent.items() if held.get(record, files) < files]
            with self.publisher.commit() as connection:
                write_again(connection, self.base, "emails", gone, is_gone=True)
                note_arrived(connection, self.base, [*arrived, *gone])
                note_failed(connection, self.base, failed)
            if failed:
                logger.warning(
                    "airtable: files of %d e-mails did not arrive; they are sent again", len(failed)
                )

    def _send_all(self, rows: Sequence[FileRow]) -> None:
        """Send what can be sent of *rows*: ten records a call by address, the others one by one."""
        links = {row.row_id: _by_id(row.links) for row in rows}
        rows = [
            row for row in rows if not (self._is_uploaded(row, links[row.row_id]) and self._send_stored(row))
        ]
        self._renew([row for row in rows if row.tries or not self._lives(row, links[row.row_id])], links)
        usable = [row for row in rows if self._lives(row, links[row.row_id])]
        by_address = [row for row in usable if not self._is_uploaded(row, links[row.row_id])]
        for start in range(0, len(by_address), RECORDS_PER_CALL):
            self._send_addresses(by_address[start : start + RECORDS_PER_CALL], links)
        for row in usable:
            if self._is_uploaded(row, links[row.row_id]):
                self._send_fetched(row, links[row.row_id])

    def _renew(self, rows: Sequence[FileRow], links: dict[str, dict[str, Json]]) -> None:
        """Replace addresses in *links* by fresh ones, as far as the vendor gives any."""
        if not rows or self.renew is None:
            return
        try:
            found = self.renew([row.row_id for row in rows])
        except (DatabaseUnavailableError, WindowClosedError):
            raise
        except TwmError as error:  # the vendor's trouble: Airtable's rows do not wait for it
            logger.warning("airtable: files of e-mails wait for fresh addresses: %s", error)
            self.renew = None
            return
        links |= {row_id: _by_id(items) for row_id, items in found.items()}
        self.renewed |= found.keys()
        lost = [row.row_id for row in rows if not self._lives(row, links[row.row_id])]
        with self.publisher.commit() as connection:
            note_failed(connection, self.base, lost)

    def _lives(self, row: FileRow, links: Mapping[str, Json], *, longer: timedelta = timedelta(0)) -> bool:
        """Return whether every file of *row* has an address that is good for some time."""
        until = datetime.now(UTC) + longer
        urls = [links.get(str(item.get("id")), {}).get("url") for item in row.files]
        is_fresh = row.row_id in self.renewed and not longer
        return all(isinstance(url, str) and (is_fresh or (expiry_of(url) or until) >= until) for url in urls)

    def _is_uploaded(self, row: FileRow, links: Mapping[str, Json]) -> bool:
        """Return whether we fetch the files ourselves: the time is short, or Airtable failed to."""
        return bool(row.files) and (row.tries > 0 or not self._lives(row, links, longer=LONG_ENOUGH))

    def _send_addresses(self, rows: Sequence[FileRow], links: Mapping[str, Mapping[str, Json]]) -> None:
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

    def _send_stored(self, row: FileRow) -> bool:
        """Upload the files as we have stored them, asking no vendor; return whether we have them all."""
        contents: list[tuple[Attachment, bytes]] = []
        for file in attachment_set({"attachments": row.files}):
            self.publisher.should_stop()
            try:
                content = self._stored(row.row_id, file.id)
            except StoreUnavailableError as error:
                logger.warning("airtable: files of e-mails are not taken from the store: %s", error)
                return False
            if not content:
                return False
            contents.append((file, content))
        self._upload(row, contents, large=[])
        return True

    def _send_fetched(self, row: FileRow, links: Mapping[str, Json]) -> None:
        """Fetch the files and upload them; larger ones, and empty ones, go by address all the same."""
        contents: list[tuple[Attachment, bytes]] = []
        large: list[Json] = []
        try:
            for file in attachment_set({"attachments": row.files}):
                self.publisher.should_stop()
                url = str(links[file.id]["url"])
                content = self.downloads.read(url, most_bytes=MOST_UPLOAD_BYTES)
                if content:
                    contents.append((file, content))
                else:
                    large.append({"url": url, "filename": file.filename})
        except (UnansweredError, RecordError) as error:
            self._failed(row, error)
            return
        self._upload(row, contents, large=large)

    def _upload(
        self, row: FileRow, contents: Sequence[tuple[Attachment, bytes]], *, large: Sequence[Json]
    ) -> None:
        """Hand files over; the cell is emptied first, so that nothing of an earlier try is doubled."""
        try:
            self.client.update(self.table_id, [(row.record_id, {self.field_id: list(large) or None})])
            for file, content in contents:
                self._hand_over(row, file, content)
        except (NotFoundError, RequestRefusedError, RecordError) as error:
            self._failed(row, error)
            return
        except UnansweredError:
            # It may be about this file alone: the next look begins with the others.
            with self.publisher.commit() as connection:
                note_failed(connection, self.base, [row.row_id])
            raise
        with self.publisher.commit() as connection:
            note_sent(connection, self.base, row, by_address=bool(large))
        self.sent += 1

    def _hand_over(self, row: FileRow, file: Attachment, content: bytes) -> None:
        self.client.upload_attachment(
            row.record_id,
            self.field_id,
            filename=file.filename,
            media_type=file.media_type,
            content=content,
        )

    def _failed(self, row: FileRow, error: Exception) -> None:
        """Have files sent again later; where their record is gone, it is made again first."""
        logger.warning(
            "airtable: files of e-mail %s were not taken: %s",
            row.row_id,
            error,
            extra={"object": f"emails/{row.row_id}"},
        )
        with self.publisher.commit() as connection:
            if isinstance(error, NotFoundError):
                write_again(connection, self.base, "emails", [row.row_id], is_gone=True)
            else:
                note_failed(connection, self.base, [row.row_id])


def _by_id(links: Sequence[Any]) -> dict[str, Json]:
    return {str(item.get("id")): item for item in links if isinstance(item, dict)}


def _cell(row: FileRow, links: Mapping[str, Json]) -> list[Json]:
    return [
        {"url": links[file.id]["url"], "filename": file.filename}
        for file in attachment_set({"attachments": row.files})
    ]


def count_files(cell: object) -> int:
    """Return how many files a cell holds that Airtable has fetched: those have a size."""
    items = cell if isinstance(cell, list) else []
    return sum(isinstance(item, dict) and item.get("size") is not None for item in items)
