"""Teamwork's webhooks: which object a delivery is about.

Facts: Teamwork's guides "Webhooks overview" and "Webhook samples" (apidocs.teamwork.com). The body does not
name the event. Version 2 comes as JSON or as a form with dotted names; a deletion has the id at the top;
version 1 is a form with `event` and `objectId`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from twm_pipeline.records import Hint
from twm_pipeline.sources.deliveries import encoding_of, read_form, read_object

EVENT_HEADER = "x-projects-event"
STREAMS = {
    "TASK": "tasks",
    "TASKLIST": "tasklists",
    "PROJECT": "projects",
    "TIME": "time_entries",
    "COMMENT": "task_comments",
}
"""Objects that are read by their id; of every other kind, what changed is looked for."""

_EVENT = re.compile(r"[A-Z]{1,32}\.[A-Z]{1,32}")
_ID = re.compile(r"0{0,18}([1-9][0-9]{0,17})")


def parse_delivery(*, path_event: str, headers: Mapping[str, str], body: bytes) -> Hint | None:
    """Return what changed, or None for a ping that says nothing.

    Args:
        path_event: The last part of the path, such as `task-deleted`; empty if there is none.
        headers: Names in lower case.
        body: As it came, authenticated.

    Raises:
        DeliveryError: 400 or 415 if *body* cannot be read.
    """
    if not body.strip():
        return None
    fields = _read(headers, body)
    if not fields:
        return None
    event = _event_of(headers.get(EVENT_HEADER), path_event.replace("-", ".", 1), fields.get("event"))
    stream, object_id = _object_of(event, fields)
    return Hint(event=event, stream=stream if object_id else None, object_id=object_id)


def _read(headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """Return the values by their dotted names in lower case, as a form has them: `task.id`, `id`."""
    if encoding_of(headers, body) == "form":
        return {name.lower(): value for name, value in read_form(body).items()}
    return dict(_flatten(read_object(body)))


def _flatten(data: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in data.items():
        yield name.lower(), value
        if isinstance(value, dict):
            yield from ((f"{name}.{inner}".lower(), item) for inner, item in value.items())


def _event_of(*candidates: object) -> str:
    """Return the first of *candidates* that looks like an event, or nothing."""
    for candidate in candidates:
        if isinstance(candidate, str) and _EVENT.fullmatch(event := candidate.strip().upper()):
            return event
    return ""


def _object_of(event: str, fields: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return stream and id of the object; without an event only a task in the body says what it is."""
    kind = event.partition(".")[0]
    names = (f"{kind.lower()}.id", "id", "objectid") if kind else ("task.id",)
    stream = STREAMS.get(kind or "TASK")
    if stream is None:
        return None, None
    return stream, next(filter(None, (_read_id(fields.get(name)) for name in names)), None)


def _read_id(value: object) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    found = _ID.fullmatch(value.strip() if isinstance(value, str) else _digits(value))
    return found[1] if found else None


def _digits(number: int) -> str:
    """Return the digits of *number*; an absurd one has none (Python refuses to write thousands of them)."""
    return str(number) if number.bit_length() < 64 else ""  # noqa: PLR2004 - more than 18 digits
