"""Files from signed addresses: streamed, checked against what is announced, and never from a private network.

An address comes from outside, so it must not make this machine ask its own network for something. Every name
is resolved before it is asked, redirects included, and the connection itself is looked at before anything is
sent: a name that resolves to something else a moment later changes nothing.
"""

from __future__ import annotations

import hashlib
import socket
import time
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from twm_pipeline.errors import FileTooLargeError, LinkRefusedError, UnansweredError, UnsafeAddressError
from twm_pipeline.http import (
    CHUNK_BYTES,
    CONNECT_SECONDS,
    READ_SECONDS,
    USER_AGENT,
    date_of,
    is_loopback,
    retry_after,
)

if TYPE_CHECKING:
    from twm_pipeline.settings import Settings

Address = IPv4Address | IPv6Address

MOST_REDIRECTS = 5
PATIENCE_SECONDS = 60.0
LEAST_BYTES_PER_SECOND = 8192
"""After `PATIENCE_SECONDS` a file has to arrive at least as fast, on average: a trickle holds up others."""
NAT64 = IPv6Network("64:ff9b::/96")
ASK_LATER = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that arrived completely: its size in bytes and its SHA-256, in hexadecimal digits."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Downloads:
    """Fetches files.

    Args:
        private_hosts: Names whose private addresses may be asked all the same.
    """

    private_hosts: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> Downloads:
        """Return what may fetch from public addresses, and from where Missive's API itself is."""
        api = urlsplit(settings.missive_base_url).hostname or ""
        return cls(private_hosts=(api, *settings.attachments_private_hosts))

    def read(self, url: str, *, most_bytes: int) -> bytes | None:
        """Return the file at a signed address, or None if it is larger than *most_bytes*.

        Raises:
            UnansweredError: See `fetch`, as the others.
            LinkRefusedError: See `fetch`.
            UnsafeAddressError: See `fetch`.
        """
        content = bytearray()
        try:
            self.fetch(url, content.extend, most_bytes=most_bytes)
        except FileTooLargeError:
            return None
        return bytes(content)

    def fetch(
        self,
        url: str,
        sink: Callable[[bytes], object],
        *,
        most_bytes: int,
        should_stop: Callable[[], None] = lambda: None,
    ) -> Fetched:
        """Hand the file at a signed address to *sink*, piece by piece; no credentials of ours are sent.

        Args:
            url: The address.
            sink: Takes each piece.
            most_bytes: Of a file that is announced larger nothing is fetched.
            should_stop: Asked between pieces; raises to end it.

        Raises:
            UnansweredError: No complete answer; later there may be one.
            LinkRefusedError: The storage refuses this address: it has expired, or the file is gone.
            FileTooLargeError: It is larger than *most_bytes*.
            UnsafeAddressError: The address, or one it leads to, is not public.
        """
        trusted = frozenset(item for host in self.private_hosts for item in _addresses(host))
        with requests.Session() as session:
            session.auth = _no_credentials
            session.headers.update({"User-Agent": USER_AGENT, "Accept-Encoding": "identity"})
            for scheme in ("http://", "https://"):
                session.mount(scheme, _VettedAdapter(trusted))
            try:
                with _follow(session, url, trusted) as answer:
                    return _read_file(answer, sink, most_bytes=most_bytes, should_stop=should_stop)
            except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
                # The library's text may repeat the address with its signature; the class says enough.
                msg = f"the file's storage gives no complete answer ({type(error).__name__})"
                raise UnansweredError(msg) from error


def _follow(session: requests.Session, url: str, trusted: frozenset[Address]) -> requests.Response:
    """Return the streamed answer of 200 at *url*, or where it leads to."""
    for _ in range(1 + MOST_REDIRECTS):
        vet(url, trusted)
        session.trust_env = not is_loopback(url)
        session.cookies.clear()
        answer = session.get(url, timeout=(CONNECT_SECONDS, READ_SECONDS), stream=True, allow_redirects=False)
        if not answer.is_redirect:
            return _accepted(answer)
        answer.close()
        url = redirected(url, answer.headers["Location"])
    msg = f"the address of the file leads on and on, {MOST_REDIRECTS} times"
    raise LinkRefusedError(msg)


def redirected(url: str, location: str) -> str:
    """Return where *url* leads to.

    Raises:
        UnsafeAddressError: If that is out of encryption.
    """
    following = urljoin(url, location)
    if urlsplit(url).scheme == "https" and urlsplit(following).scheme != "https":
        msg = "the address of the file leads out of encryption"
        raise UnsafeAddressError(msg)
    return following


def _accepted(answer: requests.Response) -> requests.Response:
    status = answer.status_code
    if status == HTTPStatus.OK:
        return answer
    answer.close()
    msg = f"the file's storage answers {status}"
    if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in ASK_LATER:
        raise LinkRefusedError(msg)
    raise UnansweredError(msg, retry_after=retry_after(answer, date_of(answer)))


def _read_file(
    answer: requests.Response,
    sink: Callable[[bytes], object],
    *,
    most_bytes: int,
    should_stop: Callable[[], None],
) -> Fetched:
    announced = answer.headers.get("Content-Length", "")
    _check_size(int(announced) if announced.isdecimal() else 0, most_bytes)
    begun, size = time.monotonic(), 0
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    # read1 hands over what has arrived; other ways wait for a whole piece, however slowly it comes.
    while piece := answer.raw.read1(CHUNK_BYTES, decode_content=True):
        size += len(piece)
        _check_size(size, most_bytes)
        if time.monotonic() - begun > PATIENCE_SECONDS + size / LEAST_BYTES_PER_SECOND:
            msg = f"the file arrives too slowly: {size} bytes in {time.monotonic() - begun:.0f} s"
            raise UnansweredError(msg)
        should_stop()
        sha256.update(piece)
        md5.update(piece)
        sink(piece)
    if "Content-Encoding" not in answer.headers:  # else they are of what was sent, not of the file
        _check_digest(answer, "Content-MD5", md5.digest())
        _check_digest(answer, "x-amz-checksum-sha256", sha256.digest())
    return Fetched(size, sha256.hexdigest())


def _check_size(size: int, most_bytes: int) -> None:
    if size > most_bytes:
        msg = f"the file is larger than {most_bytes:,} bytes"
        raise FileTooLargeError(msg)


def _check_digest(answer: requests.Response, header: str, found: bytes) -> None:
    """Compare with what the storage says; what is no digest (S3 has ones of parts) says nothing."""
    with suppress(Base64Error, ValueError):
        announced = b64decode(answer.headers.get(header, ""), validate=True)
        if len(announced) == len(found) and announced != found:
            msg = f"the file does not have the checksum that its storage announces ({header})"
            raise UnansweredError(msg)


def vet(url: str, trusted: Iterable[Address] = ()) -> None:
    """Pass if *url* is HTTP and its name resolves to public or *trusted* addresses only.

    A name that cannot be resolved here passes: behind a proxy that is the proxy's business, and otherwise
    nothing can be asked at it.

    Raises:
        UnsafeAddressError: Otherwise.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        msg = "the address of the file is not one of HTTP"
        raise UnsafeAddressError(msg)
    if not all(_is_allowed(item, trusted) for item in _addresses(parts.hostname)):
        msg = "the address of the file leads into a private network (ATTACHMENTS_PRIVATE_HOSTS)"
        raise UnsafeAddressError(msg)


def _addresses(host: str) -> list[Address]:
    """Return every address of a name; none if it cannot be resolved."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [ip_address(str(item[4][0]).partition("%")[0]) for item in found]


def _is_allowed(address: Address, trusted: Iterable[Address]) -> bool:
    return is_public(address) or address in trusted


def is_public(address: Address) -> bool:
    """Return whether *address* is one of the open internet, also where it only wraps one of IPv4."""
    if isinstance(address, IPv6Address):
        wrapped = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if address in NAT64:
            wrapped = IPv4Address(int(address) & 0xFFFF_FFFF)
        if wrapped is not None:
            return is_public(wrapped)
    return address.is_global and not address.is_multicast


def _no_credentials(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keep an entry of the user's netrc off a request."""
    return request


class _VettedAdapter(HTTPAdapter):
    """Makes connections that end before anything is sent if they lead into a private network.

    One to a proxy is not looked at: it is the operator's own, and resolves names by itself.
    """

    def __init__(self, trusted: frozenset[Address]) -> None:
        self._trusted = trusted
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - handed on as they are
        """Have the pools make connections of ours."""
        super().init_poolmanager(*args, **kwargs)
        trusted = self._trusted

        class Plain(HTTPConnection):
            def _new_conn(self) -> socket.socket:
                return _vetted(super()._new_conn(), trusted)

        class Secure(HTTPSConnection):
            def _new_conn(self) -> socket.socket:
                return _vetted(super()._new_conn(), trusted)

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class SecurePool(HTTPSConnectionPool):
            ConnectionCls = Secure

        self.poolmanager.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}


def _vetted(connection: socket.socket, trusted: frozenset[Address]) -> socket.socket:
    peer = ip_address(str(connection.getpeername()[0]).partition("%")[0])
    if not _is_allowed(peer, trusted):
        connection.close()
        msg = "the address of the file leads into a private network (ATTACHMENTS_PRIVATE_HOSTS)"
        raise UnsafeAddressError(msg)
    return connection
