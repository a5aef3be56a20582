"""Who may see the status page: this machine, and whoever knows the password."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse, Response

from twm_pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pydantic import SecretStr
    from starlette.requests import Request
    from starlette.types import ASGIApp

    from twm_pipeline.settings import Settings

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
MOST_WRONG = 20
"""Wrong passwords from one address within `WRONG_SECONDS`; then none is looked at until they are over."""
WRONG_SECONDS = 60
MOST_GUESSERS = 1000
Next = Callable[["Request"], Awaitable[Response]]


def require_password(settings: Settings) -> None:
    """Refuse to show the page to a network without a password.

    Raises:
        ConfigError: Saying what to set.
    """
    if settings.status_password is None and not is_loopback(settings.status_host):
        msg = (
            f"STATUS_HOST is {settings.status_host}: others can reach the status page there. Set"
            " STATUS_PASSWORD too, or leave STATUS_HOST at 127.0.0.1."
        )
        raise ConfigError(msg)


def is_loopback(host: str) -> bool:
    """Return whether nobody but this machine reaches *host*."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Attempts:
    """Wrong passwords of the last minute, by address; of IPv6 by network, since one host has all of it.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wrong: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._wrong)

    def wait_seconds(self, address: str) -> int:
        """Return how long *address* has to wait until a password of it is looked at again; 0: not at all."""
        began, count = self._of(address)
        left = began + WRONG_SECONDS - self._clock()
        return math.ceil(left) if count >= MOST_WRONG else 0

    def note_wrong(self, address: str) -> None:
        """Count a wrong password; of too many guessers the one that began first is forgotten."""
        began, count = self._of(address)
        self._wrong[_network_of(address)] = (began, count + 1)
        if len(self._wrong) > MOST_GUESSERS:
            self._wrong.popitem(last=False)

    def _of(self, address: str) -> tuple[float, int]:
        """Return when the address's minute began and how many passwords were wrong in it."""
        now = self._clock()
        began, count = self._wrong.get(_network_of(address), (now, 0))
        if now - began < WRONG_SECONDS:
            return began, count
        self._wrong.pop(_network_of(address))
        return now, 0


def _network_of(address: str) -> str:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(found) if found.version == 4 else str(ipaddress.ip_network((found, 64), strict=False))  # noqa: PLR2004 - of IP


class Guard(BaseHTTPMiddleware):
    """Lets those in who know the password, and adds the headers that bind the browser.

    Without a password only requests under the names of this machine are answered: a page of somebody else
    whose name points here (DNS rebinding) must not read this one through a browser.

    Args:
        app: What is guarded.
        password: None: there is none.
    """

    def __init__(self, app: ASGIApp, *, password: SecretStr | None) -> None:
        super().__init__(app)
        self._password = password
        self._attempts = Attempts()

    async def dispatch(self, request: Request, call_next: Next) -> Response:
        """Answer, or refuse to."""
        response = self._refusal(request) or await call_next(request)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    def _refusal(self, request: Request) -> Response | None:
        if self._password is None:
            if is_loopback(_name_of(request.headers.get("host", ""))):
                return None
            words = "Under this name the page is shown only with a password: set STATUS_PASSWORD.\n"
            return PlainTextResponse(words, 421)
        address = request.client.host if request.client else ""
        given = request.headers.get("authorization", "")
        if given and (wait := self._attempts.wait_seconds(address)):
            words = "Too many wrong passwords; none is looked at for a while.\n"
            return PlainTextResponse(words, 429, headers={"Retry-After": str(wait)})
        if _knows(given, self._password.get_secret_value()):
            return None
        if given:
            self._attempts.note_wrong(address)
        challenge = {"WWW-Authenticate": 'Basic realm="twm status", charset="UTF-8"'}
        return PlainTextResponse("The password is that of STATUS_PASSWORD.\n", 401, headers=challenge)


def _name_of(host: str) -> str:
    """Return the name in a Host header, without port and brackets."""
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return name.strip("[]").lower()


def _knows(header: str, password: str) -> bool:
    """Return whether a header has *password*, in a time that tells nothing of it; any user name will do."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        given = base64.b64decode(encoded, validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return False
    digests = [hashlib.sha256(text).digest() for text in (given, password.encode())]
    return hmac.compare_digest(*digests)
