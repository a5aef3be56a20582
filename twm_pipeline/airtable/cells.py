"""Rows of the views as cells: pure functions, the same cells for the same row wherever and whenever.

What Airtable would refuse never leaves here: control characters, texts over its limit, numbers that JSON
does not have. Cells are as Airtable itself shows them, so that what is read back can be compared.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from twm_pipeline.airtable.fields import FieldSpec, Form, TableSpec

Cell = str | int | float | bool | None
Cells = dict[str, Cell]

MOST_UNITS = 100_000
"""UTF-16 units in a text cell; Airtable does not say which unit it counts, and none gives a larger count."""
LARGEST_WHOLE = 2**53
DIGEST_BYTES = 16
CELLS_VERSION = b"1"
"""Raised when cells are made differently in a way that all rows should show; every row is then sent again."""

_LINE_BREAKS = dict.fromkeys(map(ord, "\r\v\f\x85\u2028\u2029"), "\n")
_CONTROLS = dict.fromkeys(
    code for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n\r\v\f\x85"
)
_SURROGATES = dict.fromkeys(range(0xD800, 0xE000), "\N{REPLACEMENT CHARACTER}")
_UNWANTED = {**_CONTROLS, **_LINE_BREAKS, **_SURROGATES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A file of an e-mail; its signed address is not among what the mirror keeps.

    Args:
        id: The vendor's id.
        filename: Ready for Airtable.
        media_type: Such as `application/pdf`.
        size: In bytes, as far as the vendor says.
    """

    id: str
    filename: str
    media_type: str
    size: int | None


def to_cells(spec: TableSpec, row: Mapping[str, Any], *, timezone: ZoneInfo) -> Cells:
    """Return field name → cell for every field but the attachments; None empties a cell.

    Args:
        spec: The table.
        row: A row of its view; a column that it lacks is an empty cell.
        timezone: The zone in which a bare date is midnight.
    """
    return {
        field.name: None if field.retired else _to_cell(field, row, timezone)
        for field in spec.fields
        if field.form != "attachments"
    }


def digest(cells: Cells) -> bytes:
    """Return 16 bytes that tell different cells apart, whatever their order.

    Empty cells do not count, so a new field that is empty in a row does not make the row a changed one.
    """
    filled = {name: value for name, value in cells.items() if not is_empty(value)}
    data = orjson.dumps(filled, option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES, key=CELLS_VERSION).digest()


def is_empty(value: object) -> bool:
    """Return whether Airtable leaves such a cell out when it is read."""
    return value is None or value is False or value in ("", [])


def attachment_set(row: Mapping[str, Any]) -> tuple[Attachment, ...]:
    """Return the files of a row in the vendor's order; each id once."""
    found = row.get("attachments")
    items = (
        [item for item in found if isinstance(item, dict) and item.get("id")]
        if isinstance(found, list)
        else []
    )
    return tuple({attachment.id: attachment for attachment in map(_to_attachment, items)}.values())


def _to_attachment(item: Mapping[str, Any]) -> Attachment:
    kind, subtype, size = item.get("media_type"), item.get("sub_type"), item.get("size")
    identity = clean_line(str(item["id"]))
    return Attachment(
        id=identity,
        filename=clean_line(str(item.get("filename") or "")).strip() or identity,
        media_type=f"{kind}/{subtype}" if kind and subtype else "application/octet-stream",
        size=size if isinstance(size, int) else None,
    )


def _to_cell(field: FieldSpec, row: Mapping[str, Any], timezone: ZoneInfo) -> Cell:
    value = row.get(field.column)
    if field.member is not None:
        value = value.get(field.member) if isinstance(value, Mapping) else None
    if value is None and field.form != "checkbox":
        return None
    if field.form == "instant":
        return _to_instant(value, timezone)
    if field.form == "number":
        return _to_number(value)
    if field.form == "checkbox":
        return value is True
    text = _TO_TEXT[field.form](value)
    return cut(clean(text) if field.type == "multilineText" else clean_line(text)) or None


def _to_text(value: Any) -> str:  # noqa: ANN401 - any JSON value
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else _to_json(value)


def _to_list(value: Any) -> str:  # noqa: ANN401 - any JSON value
    items = value if isinstance(value, list | tuple) else [value]
    return ", ".join(text for text in (_to_text(item) for item in items if item is not None) if text)


def _to_json(value: Any) -> str:  # noqa: ANN401 - any JSON value
    if isinstance(value, dict | list) and not value:
        return ""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


_TO_TEXT: dict[Form, Callable[[Any], str]] = {"text": _to_text, "list": _to_list, "json": _to_json}


def _to_number(value: object) -> float | None:
    """Return a number that JSON has and JavaScript holds exactly."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if math.isfinite(value) and abs(value) <= LARGEST_WHOLE else None


def _to_instant(value: object, timezone: ZoneInfo) -> str | None:
    """Return UTC with milliseconds and `Z`, as Airtable shows it; without a zone it would guess one."""
    if not isinstance(value, date):
        return None
    moment = value if isinstance(value, datetime) else datetime.combine(value, time.min)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone)
    try:
        moment = moment.astimezone(UTC)
    except OverflowError:  # the first and the last day there is
        return None
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def clean(text: str) -> str:
    r"""Return *text* without control characters and lone surrogates; every line break is ``\n``."""
    return text.replace("\r\n", "\n").translate(_UNWANTED)


def clean_line(text: str) -> str:
    """Return *text* in one line: a single-line field loses line breaks or refuses them."""
    return " ".join(clean(text).replace("\t", " ").split("\n"))


def cut(text: str) -> str:
    """Return *text* within Airtable's limit; what was cut says so at its end."""
    if len(text) * 2 <= MOST_UNITS:
        return text
    units = text.encode("utf-16-le")
    count = len(units) // 2
    if count <= MOST_UNITS:
        return text
    mark = f" … [cut here: the whole text has {len(text)} characters]"
    # A character outside the basic plane takes two units; half of one at the end is dropped.
    return units[: 2 * (MOST_UNITS - len(mark))].decode("utf-16-le", errors="ignore") + mark
