"""Attachments: fetched after the call that named them was answered, read by URLs that expire."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import mimetypes
from collections import Counter
from dataclasses import asdict
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from starlette.requests import Request
from starlette.responses import Response

from twm_pipeline.sandbox.airtable_errors import RefusedError, invalid
from twm_pipeline.sandbox.airtable_store import Attachment, Field, Ids, Record, Table
from twm_pipeline.sandbox.answers import Answers
from twm_pipeline.sandbox.courier import is_loopback
from twm_pipeline.sandbox.options import Clock, Json

URL_SECONDS = 2 * 3600
LARGEST_UPLOAD = 5 * 1024 * 1024
LARGEST_FETCH = 1 << 30
LARGEST_KEPT = 1 << 20
FETCH_SECONDS = 10.0
AT_ONCE = 8
MOST_REDIRECTS = 3
REPEATED = 2
SIGNING_KEY = b"sandbox-airtable"
CHUNK = 1 << 16


class FetchError(Exception):
    """A file that could not be fetched."""


class Files:
    """The attachments' storage.

    Args:
        answers: The open questions.
        clock: The account's time.
    """

    def __init__(self, *, answers: Answers, clock: Clock) -> None:
        self.answers = answers
        self.clock = clock
        self.url = ""
        self.fetched = self.failed = 0
        self._stored: dict[str, Attachment] = {}
        self._failures: Counter[str] = Counter()
        self._failing = 0
        self._go = asyncio.Event()
        self._go.set()
        self._places = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    # Fetching.

    def fetch(self, table: Table, record: Record, item: Field, attachment: Attachment) -> None:
        """Fetch an attachment later."""
        task = asyncio.get_running_loop().create_task(self._fetch(table, record, item, attachment))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _fetch(self, table: Table, record: Record, item: Field, attachment: Attachment) -> None:
        url = attachment.source or ""
        try:
            async with self._places:
                await self._go.wait()
                self._maybe_fail()
                async with asyncio.timeout(FETCH_SECONDS):
                    content_type, content = await fetch(url)
        except (
            FetchError,
            OSError,
            TimeoutError,
            ValueError,
            asyncio.IncompleteReadError,
            asyncio.LimitOverrunError,
        ):
            self.failed += 1
            self._failures[url] += 1
            self._lose(table, record, item, attachment)
            return
        self.fetched += 1
        self.store(attachment, content_type=content_type, content=content)

    def _maybe_fail(self) -> None:
        if self._failing:
            self._failing -= self._failing > 0
            raise FetchError("told to fail")

    def _lose(self, table: Table, record: Record, item: Field, attachment: Attachment) -> None:
        attachment.state = "dead"
        if self.answers["airtable.failed_attachment"] == "dead_url" or record.id not in table.records:
            return
        left = [entry for entry in record.cells.get(item.id, ()) if entry is not attachment]
        table.change(record, {item.id: left or None}, now=record.modified_at)

    def store(self, attachment: Attachment, *, content_type: str, content: bytes) -> None:
        """Keep a file."""
        guessed = mimetypes.guess_type(attachment.filename)[0]
        attachment.type = content_type or guessed or "application/octet-stream"
        attachment.size = len(content)
        attachment.sha256 = hashlib.sha256(content).hexdigest()
        attachment.content = content if len(content) <= LARGEST_KEPT else b""
        attachment.state = "stored"
        self._stored[attachment.id] = attachment

    def details(self, attachments: list[Attachment]) -> dict[str, Any]:
        """Return what an answer says besides when it names URLs that failed again and again."""
        if not any(self._failures[entry.source or ""] >= REPEATED for entry in attachments):
            return {}
        return {"details": {"message": "partialSuccess", "reasons": ["ATTACHMENTS_FAILED_UPLOADING"]}}

    # What the control plane does.

    def fail(self, *, count: int | None = None) -> None:
        """Let so many of the next fetches fail; None for all, 0 for none."""
        self._failing = -1 if count is None else count

    def hold(self) -> None:
        """Fetch nothing from now on."""
        self._go.clear()

    def release(self) -> None:
        """Fetch again."""
        self._go.set()

    async def wait(self, *, seconds: float = 30.0) -> None:
        """Wait until nothing is to be fetched.

        Raises:
            TimeoutError: If that takes longer.
        """
        async with asyncio.timeout(seconds):
            while self._tasks:
                await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Give up what is under way."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def to_dict(self) -> dict[str, int]:
        """Return the counters."""
        return {"waiting": len(self._tasks), "fetched": self.fetched, "failed": self.failed}

    # Reading.

    def row(self, attachment: Attachment) -> dict[str, Any]:
        """Return an attachment as the API does; a stored one has a URL of its own for two hours."""
        if attachment.state != "stored":
            return {"id": attachment.id, "url": attachment.source, "filename": attachment.filename}
        url = self._signed(attachment)
        row = {
            "id": attachment.id,
            "url": url,
            "filename": attachment.filename,
            "size": attachment.size,
            "type": attachment.type,
        }
        if attachment.type.startswith("image/"):
            sizes = {"small": (36, 36), "large": (512, 512), "full": (3000, 3000)}
            row["width"], row["height"] = sizes["large"]
            row["thumbnails"] = {
                name: {"url": url, "width": width, "height": height}
                for name, (width, height) in sizes.items()
            }
        return row

    def _signed(self, attachment: Attachment) -> str:
        expires = self.clock.now() + URL_SECONDS
        signature = sign(attachment.id, expires)
        return f"{self.url}/{attachment.id}/{expires}/{signature}/{quote(attachment.filename, safe='')}"

    async def download(self, request: Request) -> Response:
        """Answer with a file's bytes until its URL has expired."""
        key, expires = request.path_params["id"], request.path_params["expires"]
        if not hmac.compare_digest(request.path_params["signature"], sign(key, expires)):
            return Response(status_code=HTTPStatus.FORBIDDEN)
        if self.clock.now() > expires:
            return Response(status_code=HTTPStatus.GONE)
        found = self._stored[key]
        return Response(found.content or bytes(found.size), media_type=found.type)


def sign(key: str, expires: int) -> str:
    """Return the signature of a file's URL."""
    return hmac.new(SIGNING_KEY, f"{key}/{expires}".encode(), hashlib.sha256).hexdigest()[:32]


def parse_upload(body: Json, ids: Ids) -> tuple[Attachment, str, bytes]:
    """Return a new attachment, its media type and its bytes.

    Raises:
        RefusedError: If a key is missing or unknown, the file is not base64, or too large.
    """
    if not isinstance(body, dict) or body.keys() != {"contentType", "filename", "file"}:
        raise invalid()
    if not all(isinstance(value, str) and value for value in body.values()):
        raise invalid()
    try:
        content = base64.b64decode("".join(body["file"].split()), validate=True)
    except (binascii.Error, ValueError):
        raise invalid("file is not base64") from None
    if len(content) > LARGEST_UPLOAD:
        raise RefusedError(413, "REQUEST_TOO_LARGE", "The file is larger than 5 MB")
    return Attachment(id=ids("att"), filename=body["filename"]), body["contentType"], content


async def fetch(url: str, *, redirects: int = MOST_REDIRECTS) -> tuple[str, bytes]:
    """Return media type and bytes of what lies at a loopback address.

    Raises:
        FetchError: If there is no such file.
    """
    if not is_loopback(url):
        raise FetchError("not on loopback")
    status, headers, content = await get(url)
    if status in (301, 302, 303, 307, 308) and "location" in headers and redirects:
        return await fetch(urljoin(url, headers["location"]), redirects=redirects - 1)
    if status != HTTPStatus.OK or len(content) < int(headers.get("content-length", "0")):
        raise FetchError(f"answered {status}")
    return headers.get("content-type", "").partition(";")[0].strip(), content


async def get(url: str) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body; asked in HTTP/1.0, so that the body ends with the connection."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    reader, writer = await asyncio.open_connection(
        parts.hostname, parts.port or (443 if secure else 80), ssl=secure or None
    )
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        writer.write(f"GET {path} HTTP/1.0\r\nHost: {parts.netloc}\r\n\r\n".encode("latin-1"))
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        content = bytearray()
        while chunk := await reader.read(CHUNK):
            content += chunk
            if len(content) > LARGEST_FETCH:
                raise FetchError("too large")
    finally:
        writer.close()
    fields = (line.partition(":") for line in head[1:] if line)
    headers = {name.strip().lower(): value.strip() for name, _, value in fields}
    return int(head[0].split(" ", 2)[1]), headers, bytes(content)


def attachment_truth(attachment: Attachment) -> dict[str, Any]:
    """Return an attachment without its bytes."""
    row = asdict(attachment)
    del row["content"]
    return row
