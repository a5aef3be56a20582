"""Who may see the status page: this machine, and whoever knows the password."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
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
        if _knows(request.headers.get("authorization", ""), self._password.get_secret_value()):
            return None
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
