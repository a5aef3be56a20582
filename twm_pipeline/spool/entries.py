"""What an entry of the spool is: a delivery, its file, and what the file's name says (`docs/spool.md`)."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from twm_pipeline.errors import RecordError
from twm_pipeline.records import Hint, Source
from twm_pipeline.spool.files import open_to_read

Place = Literal["new", "cur", "retry", "dead"]

PLACES: tuple[Place, ...] = ("new", "cur", "retry", "dead")
FORMAT = 1
MAX_HEAD_BYTES = 1 << 20
LONGEST_WAIT_SECONDS = 86_400.0
"""No wait is longer. What is due later than this from now was put there before the clock was set back."""

ENTRY = re.compile(r"[0-9]{16}\.[0-9a-f]{16}\.[0-9]{1,6}", re.ASCII)
WAITING_ENTRY = re.compile(rf"[0-9]{{13}}\.{ENTRY.pattern}", re.ASCII)

_DUE_CHARACTERS = 13
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """One delivery as it was accepted.

    Args:
        source: The vendor.
        hint: What the delivery says that changed.
        received_at: When it arrived.
        headers: Those of the request that are worth keeping; no secret is among them.
        body: The bytes as they came.
    """

    source: Source
    hint: Hint
    received_at: datetime
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A claimed delivery: it lies in `cur` until it is done, released or failed."""

    name: str
    attempts: int
    envelope: Envelope


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """What the name of a file says of an entry.

    Args:
        place: The folder it lies in.
        name: The file's name there.
        id: The random part of the name, which an entry keeps for life.
        received_at: When the delivery arrived.
        attempts: How often its object was found faulty.
        due: When it is tried again, of an entry in `retry`.
    """

    place: Place
    name: str
    id: str
    received_at: datetime
    attempts: int
    due: datetime | None


def encode(envelope: Envelope) -> bytes:
    """Return the content of a delivery's file: a line of JSON, then the bytes as they came."""
    head = {
        "format": FORMAT,
        "received_at": envelope.received_at.astimezone(UTC).isoformat(),
        "source": envelope.source,
        "event": envelope.hint.event,
        "stream": envelope.hint.stream,
        "object_id": envelope.hint.object_id,
        "headers": dict(envelope.headers),
        "length": len(envelope.body),
    }
    return json.dumps(head).encode() + b"\n" + envelope.body


def read_envelope(path: Path, *, source: Source) -> Envelope:
    """Return the delivery in a file.

    Raises:
        RecordError: If that is not what the file holds, or the disk does not give it.
        FileNotFoundError: If it is gone.
        OSError: If this process can open nothing just now.
    """
    try:
        with open(path, "rb", opener=open_to_read) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                msg = "it is no plain file"
                raise RecordError(msg)
            line = file.readline(MAX_HEAD_BYTES)
            head = _parse_head(line, source=source)
            if status.st_size != len(line) + head["length"]:
                msg = f"the body is not of the {head['length']} bytes that the head tells of"
                raise RecordError(msg)
            return _to_envelope(head, file.read())
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in _EXHAUSTED:
            raise
        msg = f"the file cannot be read: {error.strerror}"
        raise RecordError(msg) from error


def _parse_head(line: bytes, *, source: Source) -> dict[str, Any]:
    try:
        head = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        head = None
    if not isinstance(head, dict):
        msg = "the first line is no JSON object"
        raise RecordError(msg)
    if head.get("format") != FORMAT:
        msg = "the head is of a format that this version does not know"
        raise RecordError(msg)
    if head.get("source") != source or not isinstance(head.get("length"), int):
        msg = "the head is of another source or has no length"
        raise RecordError(msg)
    return head


def _to_envelope(head: dict[str, Any], body: bytes) -> Envelope:
    msg = "the head lacks a key, or has one of another type"
    try:
        received_at = datetime.fromisoformat(head["received_at"]).astimezone(UTC)
        headers = {str(name): str(value) for name, value in head["headers"].items()}
        event, *ids = head["event"], head["stream"], head["object_id"]
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise RecordError(msg) from error
    if not isinstance(event, str) or not all(isinstance(item, str | None) for item in ids):
        raise RecordError(msg)
    hint = Hint(event=event, stream=ids[0], object_id=ids[1])
    return Envelope(source=head["source"], hint=hint, received_at=received_at, headers=headers, body=body)


def places_of(name: str) -> tuple[Place, ...]:
    """Return where an entry of this name can lie; nowhere, if it is no name of ours."""
    if WAITING_ENTRY.fullmatch(name):
        return ("retry",)
    return ("new", "cur", "dead") if ENTRY.fullmatch(name) else ()


def bare_name(name: str) -> str:
    """Return a name without the time at which it is due."""
    return name[_DUE_CHARACTERS + 1 :] if WAITING_ENTRY.fullmatch(name) else name


def attempts_of(name: str) -> int:
    """Return how often the object of an entry was found faulty."""
    return int(name.rpartition(".")[2])


def to_listed(place: Place, name: str) -> Listed:
    """Return what a name of ours says."""
    *due, stamp, random, attempts = name.split(".")
    return Listed(
        place=place,
        name=name,
        id=random,
        received_at=datetime.fromtimestamp(int(stamp) / 1e6, UTC),
        attempts=int(attempts),
        due=datetime.fromtimestamp(int(due[0]) / 1000, UTC) if due else None,
    )


def due_of(name: str) -> float:
    """Return when an entry in `retry` is tried again, in seconds since 1970."""
    return int(name[:_DUE_CHARACTERS]) / 1000


def is_due(due: float, now: float) -> bool:
    """Return whether that time has come, or cannot be meant (`LONGEST_WAIT_SECONDS`)."""
    return due <= now or due > now + LONGEST_WAIT_SECONDS
