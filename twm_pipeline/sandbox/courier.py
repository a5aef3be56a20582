"""Requests to subscribers, on loopback only."""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from twm_pipeline.sandbox.hooks import is_web_address

NO_ANSWER = 0
LARGEST_ANSWER = 1 << 16
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Courier:
    """Posts to subscribers, some of which may be reached by a tunnel."""

    def __init__(self) -> None:
        self.tunnels: dict[str, str] = {}

    async def post(self, url: str, *, headers: Mapping[str, str], body: bytes, seconds: float) -> int:
        """Return the status of the answer, 0 where there was none within *seconds*."""
        for public, local in self.tunnels.items():
            if url.startswith(public):
                url = local + url.removeprefix(public)
        if not is_loopback(url):
            return NO_ANSWER
        try:
            async with asyncio.timeout(seconds):
                return await post(url, headers=headers, body=body)
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return NO_ANSWER


async def post(url: str, *, headers: Mapping[str, str], body: bytes) -> int:
    """Return the status of the answer; a redirect is an answer like any other."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=parts.scheme == "https" or None)
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        fields = {"Host": parts.netloc, "Content-Length": len(body), "Connection": "close", **headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        writer.write(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = LENGTH.search(answer)
        if length is not None:
            await reader.readexactly(min(int(length[1]), LARGEST_ANSWER))
        return int(answer.split(b" ", 2)[1][:3])
    finally:
        writer.close()


def is_loopback(url: str) -> bool:
    """Say whether an address is of this machine; names but `localhost` are not looked up."""
    host = urlsplit(url).hostname if is_web_address(url) else None
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
