"""Reading single values out of vendor JSON: what is optional, what is "none", what makes a row unusable."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any

from twm_pipeline.errors import RecordError
from twm_pipeline.records import Json

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LARGEST_ID = 2**63 - 1
_LARGEST_INT = 2**31 - 1
_WHOLE_NUMBER = re.compile(r"\s*-?[0-9]{1,20}\s*")


def plain(row: Json, key: str) -> str | int | None:
    """Return a value for comparing rows, whatever a malformed one holds there."""
    value = row.get(key)
    return value if value is None or isinstance(value, (str, int)) else repr(value)


def plain_id(row: Json) -> str | int | None:
    """Return the id for comparing rows: as a number, also where it is written as a text."""
    try:
        return to_id(row.get("id"), "id")
    except RecordError:
        return plain(row, "id")


def read_text(row: Json, key: str) -> str | None:
    """Return a string; a number becomes its text (v1 and v3 of Teamwork disagree on ids and names)."""
    value = row.get(key)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    raise _unusable(key, value, "a text")


def read_int(row: Json, key: str) -> int | None:
    """Return an integer; the empty string is none."""
    value = row.get(key)
    if value is None or value == "":
        return None
    number = _to_int(value)
    if number is None or abs(number) > _LARGEST_INT:
        raise _unusable(key, value, "a whole number")
    return number


def read_bool(row: Json, key: str) -> bool | None:
    """Return a truth value; Teamwork also writes 0 and 1."""
    value = row.get(key)
    if value is None or isinstance(value, bool):
        return value
    if value in (0, 1):
        return bool(value)
    raise _unusable(key, value, "true or false")


def read_id(row: Json, key: str) -> int | None:
    """Return a numeric id; 0, the empty string and null are none."""
    return to_id(row.get(key), key)


def to_id(value: object, key: str) -> int | None:
    """Return *value* as a numeric id; 0, the empty string and None are none."""
    if value is None or value == "":
        return None
    number = _to_int(value)
    if number is None or not 0 <= number <= _LARGEST_ID:
        raise _unusable(key, value, "a numeric id")
    return number or None


def _to_int(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and _WHOLE_NUMBER.fullmatch(value):
        return int(value)
    return None


def read_list(row: Json, key: str) -> list[Any]:
    """Return a list; null and absent are empty."""
    value = row.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise _unusable(key, value, "a list")
    return value


def read_object(row: Json, key: str) -> Json | None:
    """Return an object, or None where it is null or absent."""
    value = row.get(key)
    if value is None:
        return None
    if not isinstance(value, dict):
        raise _unusable(key, value, "an object")
    return value


def read_iso(row: Json, key: str) -> datetime | None:
    """Return a UTC instant from ISO 8601; null, `""` and the Go zero value are none (teamwork.md, 1)."""
    value = row.get(key)
    if value is None or value == "":
        return None
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise _unusable(key, value, "an ISO 8601 time") from None
    if moment.year <= 1:
        return None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise _unusable(key, value, "an ISO 8601 time before the year 10000") from None


def read_calendar_date(row: Json, key: str) -> date | None:
    """Return a calendar date from a date or a date-time, without shifting it (teamwork.md, 1)."""
    value = row.get(key)
    if value is None or value == "":
        return None
    try:
        day = date.fromisoformat(value[:10])
    except (TypeError, ValueError, KeyError):  # KeyError: a slice of an object, from Python 3.12 on
        raise _unusable(key, value, "a date") from None
    return None if day.year <= 1 else day


def read_unix(row: Json, key: str) -> datetime | None:
    """Return a UTC instant from Unix seconds, which may be negative."""
    value = row.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _unusable(key, value, "Unix seconds")
    try:
        return _EPOCH + timedelta(seconds=value)
    except (OverflowError, ValueError):
        raise _unusable(key, value, "Unix seconds before the year 10000") from None


def to_unix(moment: datetime) -> int:
    """Return whole Unix seconds, rounded down."""
    return (moment - _EPOCH) // timedelta(seconds=1)


def _unusable(key: str, value: object, expected: str) -> RecordError:
    # The value itself may be a message body or an address: its type has to be enough.
    return RecordError(f"{key}: expected {expected}, but read a value of type {type(value).__name__}")
