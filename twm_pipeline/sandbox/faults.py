"""Faults that can be injected into a vendor's answers."""

from __future__ import annotations

import random
import re
from dataclasses import asdict, dataclass
from typing import Any

import orjson

HTML_PAGE = b"<!DOCTYPE html><html><head><title>%s</title></head><body><h1>%s</h1></body></html>"
REFUSED = "403"
"""What a plan or a role does not allow."""
LASTING = (REFUSED, "404", "422", "no_list")
"""No faults of the moment, so they are none of `FAULT_KINDS`: an object is answered like this for ever."""
REPLACED: dict[str, tuple[int, str, bytes]] = {
    REFUSED: (
        403,
        "application/json",
        b'{"errors":[{"title":"unexpected error","detail":"403: Forbidden"}]}',
    ),
    "404": (404, "application/json", b'{"error":{"message":"Not found"}}'),
    "422": (422, "application/json", b'{"error":{"message":"Validation failed"}}'),
    "no_list": (200, "application/json", b"{}"),
    "429": (429, "application/json", b""),
    "500": (500, "application/json", b'{"error":"internal"}'),
    "502": (502, "application/json", b'{"error":"bad gateway"}'),
    "503": (503, "application/json", b'{"error":"unavailable"}'),
    "html_200": (200, "text/html; charset=utf-8", HTML_PAGE % (b"Maintenance", b"Back soon")),
    "html_404": (404, "text/html; charset=utf-8", HTML_PAGE % (b"404", b"404 Not Found")),
    "html_502": (502, "text/html; charset=utf-8", HTML_PAGE % (b"502", b"502 Bad Gateway")),
    "reset": (0, "text/plain", b""),
}
LIST_KINDS = ("repeated_page", "missing_included", "future_row", "empty_page", "malformed_row")
FAULT_KINDS = (
    *(kind for kind in REPLACED if kind not in LASTING),
    "reset_midway",
    "stall",
    "truncated",
    *LIST_KINDS,
)
FUTURE_SECONDS = 4_087_497_600
FUTURE_DATE = "2099-07-12T00:00:00Z"
DATE_FIELDS = ("updatedAt", "last_activity_at", "delivered_at", "dateLastEdited", "created_at", "dateTime")


@dataclass(slots=True, kw_only=True)
class Fault:
    """A fault, and on which requests it shows.

    Attributes:
        vendor: `teamwork`, `missive` or `airtable`.
        kind: One of `FAULT_KINDS` or `LASTING`.
        count: Times it shows; None for ever.
        probability: Share of matching requests it shows on.
        path: Regular expression found in the path below the vendor's base; None for all.
        after: Matching requests that are let through first.
        retry_after: With `429`: `seconds`, `date` or `none`.
        seconds: Length of a stall, or what Retry-After says.
        value: With `missing_included`: `empty` or `null`; with `malformed_row`: the field to break.
    """

    vendor: str
    kind: str
    count: int | None = 1
    probability: float = 1.0
    path: str | None = None
    after: int = 0
    retry_after: str = "seconds"
    seconds: float = 1.0
    value: str | None = None
    seen: int = 0
    fired: int = 0

    def __post_init__(self) -> None:
        """Refuse what does not exist."""
        if self.kind not in (*FAULT_KINDS, *LASTING):
            raise ValueError(f"unknown fault {self.kind!r}; known: {FAULT_KINDS}")
        if self.vendor not in ("teamwork", "missive", "airtable"):
            raise ValueError(f"unknown vendor {self.vendor!r}")
        re.compile(self.path or "")

    def replacement(self) -> tuple[int, dict[str, str], bytes] | None:
        """Return the answer given instead of the vendor's."""
        if self.kind not in REPLACED:
            return None
        status, media_type, body = REPLACED[self.kind]
        return status, {"content-type": media_type}, body

    def transform(self, body: bytes, previous: bytes | None) -> bytes | None:
        """Return the vendor's answer spoiled, or None where this fault does not apply."""
        if self.kind in ("stall", "reset_midway"):
            return body
        if self.kind == "truncated":
            return body[: len(body) // 2]
        page = orjson.loads(body)
        key = next((name for name, value in page.items() if isinstance(value, list)), None)
        if key is None or not self._spoil(page, key, previous):
            return None
        return orjson.dumps(page)

    def _spoil(self, page: dict[str, Any], key: str, previous: bytes | None) -> bool:
        """Spoil a page in place; say whether that was possible."""
        if self.kind == "missing_included" and "included" in page:
            page["included"] = None if self.value == "null" else {}
        elif self.kind == "empty_page":
            self._empty(page, key)
        elif self.kind == "repeated_page" and previous is not None:
            page[key] = orjson.loads(previous).get(key, [])
        elif self.kind in ("malformed_row", "future_row"):
            return self._spoil_row(page[key])
        else:
            return False
        return True

    def _empty(self, page: dict[str, Any], key: str) -> None:
        page[key] = []
        page.pop("offset", None)
        if "meta" in page:
            page["included"] = {}
            page["meta"]["page"] |= {"count": 0, "hasMore": False}

    def _spoil_row(self, rows: list[Any]) -> bool:
        if not rows:
            return False
        if self.kind == "malformed_row":
            row = rows[len(rows) // 2]
            field = self.value or next((name for name in DATE_FIELDS if name in row), "id")
            row[field] = {"unexpected": [True]}
            return True
        row = rows[-1 if self.vendor == "teamwork" else 0]
        field = next((name for name in DATE_FIELDS if name in row), "")
        if not field:
            return False
        row[field] = FUTURE_SECONDS if isinstance(row[field], int) else FUTURE_DATE
        if "dateUpdated" in row:
            row["dateUpdated"] = FUTURE_DATE
        return True


class FaultBook:
    """The faults injected at present.

    Args:
        seed: Decides the faults with a probability.
    """

    def __init__(self, seed: int) -> None:
        self.faults: list[Fault] = []
        self._random = random.Random(seed)  # noqa: S311 - a simulation, not a secret

    def add(self, fault: Fault) -> None:
        """Inject a fault."""
        self.faults.append(fault)

    def clear(self, vendor: str | None = None) -> None:
        """Take back the faults of one vendor, or all."""
        self.faults = [item for item in self.faults if vendor is not None and item.vendor != vendor]

    def pick(self, vendor: str, path: str) -> Fault | None:
        """Return the fault that this request meets, if any; the oldest first."""
        for fault in self.faults:
            if fault.vendor != vendor or (fault.path and not re.search(fault.path, path)):
                continue
            fault.seen += 1
            if fault.seen <= fault.after or (fault.count is not None and fault.fired >= fault.count):
                continue
            if fault.probability >= 1 or self._random.random() < fault.probability:
                return fault
        return None

    def rows(self) -> list[dict[str, Any]]:
        """Return the faults with how often they showed."""
        return [asdict(item) for item in self.faults]
