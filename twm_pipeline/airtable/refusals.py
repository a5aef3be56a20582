"""What Airtable says when it refuses, and the error the caller gets: pure functions.

Airtable's own words are passed on, without anything that was in a cell.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

from twm_pipeline.errors import (
    AccessError,
    AuthenticationError,
    ConfigError,
    NotFoundError,
    PagingError,
    QuotaExhaustedError,
    RequestRefusedError,
    SchemaChangedError,
    TwmError,
)
from twm_pipeline.http import ADDRESS, HIDDEN, LONGEST_WORDS, MOST_WORDS, decode

LEAST_CELL = 3
"""Shorter cells are not looked for in a message: they would be found in any."""

QUOTA = "PUBLIC_API_BILLING_LIMIT_EXCEEDED"

_QUOTED = re.compile(r'"([^"]*)"')
_RECORD_PATH = re.compile(r"/rec[A-Za-z0-9]+(?:/|$)")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Airtable's error: its type, and its message where it has one."""

    type: str
    message: str = ""

    @classmethod
    def of(cls, body: bytes) -> Refusal | None:
        """Return the error in *body*, in either shape, or None where it is not Airtable that speaks."""
        try:
            data, _ = decode(body)
        except ValueError:
            return None
        error = data.get("error") if isinstance(data, dict) else None
        if isinstance(error, str):
            return cls(error)
        if isinstance(error, dict):
            return cls(str(error.get("type") or ""), str(error.get("message") or ""))
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was asked, as far as errors tell of it.

    Args:
        words: Method and path.
        path: The address without its query.
        query: The query.
        body: The JSON that was sent, or None.
    """

    words: str
    path: str
    query: str
    body: Any = None

    @classmethod
    def of(cls, *, words: str, path: str, query: str, body: bytes | str | None) -> Asked:
        """Return it for a request that was sent."""
        return cls(words=words, path=path, query=query, body=json.loads(body) if body else None)

    @property
    def names_records(self) -> bool:
        """Whether records are addressed by id, one of which may be gone."""
        return (
            _RECORD_PATH.search(self.path) is not None
            or any(key.startswith("records[") for key in parse_qs(self.query))
            or any("id" in record for record in self._records())
        )

    def cells(self) -> Iterator[str]:
        """Yield every text that was to become a cell."""
        for record in self._records():
            yield from _texts(record.get("fields"))
        if isinstance(self.body, Mapping):
            yield from (str(self.body[key]) for key in ("filename", "file") if key in self.body)

    def _records(self) -> list[Mapping[str, Any]]:
        found = self.body.get("records") if isinstance(self.body, Mapping) else None
        return [record for record in found if isinstance(record, Mapping)] if isinstance(found, list) else []


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def to_error(status: int, refusal: Refusal, asked: Asked, *, names: Collection[str]) -> TwmError:
    """Return the error of an answer that refuses for good.

    Args:
        status: 4xx.
        refusal: What Airtable says.
        asked: What was asked.
        names: Names of tables and fields, which may be repeated.
    """
    cells = list(asked.cells())
    said = " ".join(redact(it, cells=cells, names=names) for it in (refusal.type, refusal.message) if it)
    kind, advice = _reaction(status, refusal.type, names_records=asked.names_records)
    words = f"{asked.words}: {status} {said}"
    return kind(f"{words.removesuffix('.')}. {advice}" if advice else words)


def _reaction(status: int, kind: str, *, names_records: bool) -> tuple[type[TwmError], str]:
    """Return the class of the error, and what somebody should look at."""
    if kind in _BY_TYPE:
        return _BY_TYPE[kind]
    if names_records and (status == HTTPStatus.NOT_FOUND or kind == "MODEL_ID_NOT_FOUND"):
        return NotFoundError, ""
    return _BY_STATUS.get(status, (RequestRefusedError, ""))


_BY_TYPE: dict[str, tuple[type[TwmError], str]] = {
    QUOTA: (
        QuotaExhaustedError,
        "The workspace's calls of this month are used up; publishing waits until told",
    ),
    "ROW_DOES_NOT_EXIST": (NotFoundError, ""),
    "UNKNOWN_FIELD_NAME": (SchemaChangedError, ""),
    "LIST_RECORDS_ITERATOR_NOT_AVAILABLE": (PagingError, ""),
    "INVALID_OFFSET_VALUE": (PagingError, ""),
}
_BY_STATUS: dict[int, tuple[type[TwmError], str]] = {
    HTTPStatus.UNAUTHORIZED: (AuthenticationError, "Check AIRTABLE_API_KEY"),
    HTTPStatus.FORBIDDEN: (
        AccessError,
        "Check AIRTABLE_BASE_ID, the token's scopes and bases, and its owner's role in the base",
    ),
    HTTPStatus.NOT_FOUND: (ConfigError, "Check AIRTABLE_BASE_ID, and that the table is still there"),
}


def redact(message: str, *, cells: Iterable[str], names: Collection[str]) -> str:
    """Return *message* without quotations that are not *names*, without *cells* and addresses, cut.

    A quotation may itself hold quotation marks: from the first unknown one to the last mark all is hidden.
    What is longer than `LONGEST_WORDS` is no message: all of it is hidden.
    """
    if len(message) > LONGEST_WORDS:
        return HIDDEN
    unknown = next((it for it in _QUOTED.finditer(message) if it[1] not in names), None)
    if unknown is not None:
        end = message.rindex('"')
        message = f"{message[: unknown.start() + 1]}{HIDDEN}{message[end:]}"
    for cell in sorted(
        {it for it in cells if len(it) >= LEAST_CELL and it not in names}, key=len, reverse=True
    ):
        message = message.replace(cell, HIDDEN)
    return ADDRESS.sub(HIDDEN, message)[:MOST_WORDS]
