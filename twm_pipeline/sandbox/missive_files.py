"""The storage in which Missive's attachments lie, behind signed addresses."""

from __future__ import annotations

import hashlib
import hmac
import itertools
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from twm_pipeline.sandbox.answers import Answers
from twm_pipeline.sandbox.missive_account import Attachment, MissiveAccount
from twm_pipeline.sandbox.options import Clock

SIGNING_KEY = b"sandbox"
FILE_STATUSES = {"gone": 404, "refused": 403, "error": 500}
FILE_FAULTS = (*FILE_STATUSES, "redirect", "inside", "html", "cut", "empty", "short")
"""What may be wrong with a file: no such file, never allowed, an internal error; a redirect to itself or
into a private network; a page for people; half of it, nothing, less than its length says."""


class FileStorage:
    """Signs addresses and answers them.

    Args:
        account: Whose attachments lie here.
        answers: The open questions.
        clock: The account's time.
    """

    def __init__(self, account: MissiveAccount, *, answers: Answers, clock: Clock) -> None:
        self.account = account
        self.answers = answers
        self.clock = clock
        self.url = ""
        self.leaked_tokens = 0
        self.downloads = 0
        self.faults: dict[str, str] = {}
        self._reads = itertools.count(1)

    def attachment_row(self, item: Attachment) -> dict[str, Any]:
        """Return an attachment with a URL signed for this read alone."""
        name = item.filename
        extension = name.rpartition(".")[2] if name and "." in name else None
        expires = self.clock.now() + int(self.answers["missive.attachment_seconds"])
        nonce = f"{next(self._reads):x}"
        signature = sign(item.id, expires, nonce)
        path = f"{item.id}/{quote(name or 'file', safe='')}"
        return {
            "id": item.id,
            "filename": name,
            "extension": extension,
            "url": f"{self.url}/{path}?Expires={expires}&Signature={signature}&Key-Pair-Id={nonce}",
            "media_type": item.media_type,
            "sub_type": item.sub_type,
            "size": item.size,
            "width": item.width,
            "height": item.height,
        }

    async def download(self, request: Request) -> Response:
        """Answer a signed URL; a request that brings a token along is refused and counted."""
        if "authorization" in request.headers:
            self.leaked_tokens += 1
            return Response("Only one auth mechanism allowed", 400)
        key = request.path_params["id"]
        query = request.query_params
        expires, nonce = query.get("Expires", ""), query.get("Key-Pair-Id", "")
        genuine = expires.isdigit() and hmac.compare_digest(
            sign(key, int(expires), nonce), query.get("Signature", "")
        )
        if not genuine or int(expires) < self.clock.time():
            return Response("<Error><Code>AccessDenied</Code></Error>", 403, media_type="application/xml")
        item = self._attachment(key)
        if item is None:
            return Response("<Error><Code>NoSuchKey</Code></Error>", 404, media_type="application/xml")
        self.downloads += 1
        return answer_with_file(item, request, self.faults.get(key, self.faults.get("")))

    def _attachment(self, key: str) -> Attachment | None:
        """Find an attachment by walking everything; downloads are rare."""
        for conversation in self.account.conversations.values():
            notes = [note.attachment for note in conversation.notes if note.attachment is not None]
            for item in itertools.chain(*(mail.attachments for mail in conversation.messages), notes):
                if item.id == key:
                    return item
        return None


def sign(key: str, expires: int, nonce: str) -> str:
    """Return the signature of one attachment URL."""
    return hmac.new(SIGNING_KEY, f"{key}/{expires}/{nonce}".encode(), hashlib.sha256).hexdigest()[:32]


def answer_with_file(item: Attachment, request: Request, fault: str | None) -> Response:
    """Return the answer that holds a file, or what an awkward storage says instead (`FILE_FAULTS`)."""
    content, media_type = file_content(item), f"{item.media_type}/{item.sub_type}"
    if fault in FILE_STATUSES:
        return Response("<Error/>", FILE_STATUSES[fault], media_type="application/xml")
    if fault in ("redirect", "inside") and "again" not in request.query_params:
        target = str(request.url.include_query_params(again="1"))
        if fault == "inside":
            target = str(request.url.replace(hostname="127.0.0.2"))
        return Response(status_code=302, headers={"location": target})
    if fault == "html":
        return Response("<html>Please sign in</html>", media_type="text/html")
    if fault in ("cut", "empty"):
        content = content[: len(content) // 2] if fault == "cut" else b""
    answer = Response(content, media_type=media_type)
    if fault == "short":
        answer.body = content[: len(content) // 2]
    return answer


def file_content(item: Attachment) -> bytes:
    """Return as many bytes as the attachment has, the same each time."""
    block = hashlib.sha256(item.id.encode()).digest()
    return (block * (item.size // len(block) + 1))[: item.size]
