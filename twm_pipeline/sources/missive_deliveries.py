"""Missive's webhooks: which conversation a delivery is about.

Facts: Missive's documentation, "Webhooks" (missiveapp.com/docs/developers). The kind of event is
`rule.type`; every body but that of a validation request names its conversation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from twm_pipeline.errors import DeliveryError
from twm_pipeline.records import Hint
from twm_pipeline.sources.deliveries import encoding_of, read_object

_EVENT = re.compile(r"[0-9A-Za-z_.-]{1,64}")
_ID = re.compile(r"[0-9A-Za-z-]{1,64}")


def parse_delivery(*, path_event: str, headers: Mapping[str, str], body: bytes) -> Hint | None:
    """Return which conversation changed, or None for a validation request, which has none.

    Args:
        path_event: The kind of hook that the secret path belongs to; empty if there is none.
        headers: Names in lower case.
        body: As it came, authenticated.

    Raises:
        DeliveryError: 400 or 415 if *body* cannot be read.
    """
    if not body.strip():
        return None
    if headers.get("content-type") and encoding_of(headers, body) != "json":
        msg = "the content type is not JSON"
        raise DeliveryError(msg, status=415)
    data = read_object(body)
    conversation = data.get("conversation")
    if conversation is None:
        return None
    found = conversation.get("id") if isinstance(conversation, dict) else None
    if not isinstance(found, str) or not _ID.fullmatch(found):
        msg = "the conversation has no usable id"
        raise DeliveryError(msg, status=400)
    rule = data.get("rule")
    return Hint(
        event=_event_of(rule.get("type") if isinstance(rule, dict) else None, path_event),
        stream="conversations",
        object_id=found,
    )


def _event_of(*candidates: object) -> str:
    """Return the first of *candidates* that looks like an event, or nothing."""
    for candidate in candidates:
        if isinstance(candidate, str) and _EVENT.fullmatch(candidate):
            return candidate
    return ""
