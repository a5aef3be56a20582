"""Whether a body comes from a vendor: HMAC-SHA256 of the raw bytes, compared in constant time."""

from __future__ import annotations

import hmac

from twm_pipeline.errors import DeliveryError

TEAMWORK_HEADER = "x-projects-signature"
MISSIVE_HEADER = "x-hook-signature"
MISSIVE_PREFIX = "sha256="
"""Seen on deliveries, and missing in descriptions of them; both are accepted."""


def verify_teamwork(body: bytes, *, header: str, secret: str) -> None:
    """Return if *header* is the bare hexadecimal signature of *body*.

    Args:
        body: The bytes as they came.
        header: The value of `X-Projects-Signature`.
        secret: The token of the webhook.

    Raises:
        DeliveryError: 401 otherwise.
    """
    _verify(body, signature=header, secret=secret)


def verify_missive(body: bytes, *, header: str, secret: str) -> None:
    """Return if *header* is the signature of *body*, with or without `sha256=`.

    Args:
        body: The bytes as they came.
        header: The value of `X-Hook-Signature`.
        secret: The signature secret of the rule.

    Raises:
        DeliveryError: 401 otherwise.
    """
    _verify(body, signature=header.removeprefix(MISSIVE_PREFIX), secret=secret)


def _verify(body: bytes, *, signature: str, secret: str) -> None:
    expected = hmac.digest(secret.encode(), body, "sha256").hex()
    # As bytes: the comparison of texts raises for anything but ASCII.
    if not hmac.compare_digest(expected.encode(), signature.lower().encode(errors="replace")):
        msg = "the signature is wrong"
        raise DeliveryError(msg, status=401)
