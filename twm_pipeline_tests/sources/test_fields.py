"""Single values of vendor JSON: none, usable, or an error that names the key and never shows the value."""

import contextlib
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twm_pipeline.errors import RecordError
from twm_pipeline.sources.fields import (
    read_bool,
    read_calendar_date,
    read_id,
    read_int,
    read_iso,
    read_list,
    read_object,
    read_text,
    read_unix,
    to_unix,
)

READERS = {
    "text": read_text,
    "int": read_int,
    "bool": read_bool,
    "id": read_id,
    "list": read_list,
    "object": read_object,
    "iso": read_iso,
    "calendar date": read_calendar_date,
    "unix": read_unix,
}

NOTHING: dict[str, object] = {
    "text": None,
    "int": None,
    "bool": None,
    "id": None,
    "list": [],
    "object": None,
    "iso": None,
    "calendar date": None,
    "unix": None,
}

READ = {
    "a text": (read_text, "Floor", "Floor"),
    "an empty text": (read_text, "", ""),
    "a number as text": (read_text, 401, "401"),
    "an int": (read_int, 40, 40),
    "an int as text": (read_int, "40", 40),
    "an int as a float": (read_int, 40.0, 40),
    "a negative int": (read_int, "-5", -5),
    "an empty int": (read_int, "", None),
    "true": (read_bool, True, True),
    "one": (read_bool, 1, True),
    "zero": (read_bool, 0, False),
    "an id": (read_id, 301, 301),
    "an id of v1": (read_id, "301", 301),
    "id 0": (read_id, 0, None),
    "an empty id": (read_id, "", None),
    "the largest id": (read_id, 2**63 - 1, 2**63 - 1),
    "an instant": (read_iso, "2025-03-04T09:15:00Z", datetime(2025, 3, 4, 9, 15, tzinfo=UTC)),
    "an instant elsewhere": (read_iso, "2025-03-04T10:15:00+01:00", datetime(2025, 3, 4, 9, 15, tzinfo=UTC)),
    "an instant with fractions": (
        read_iso,
        "2025-03-04T09:15:00.25Z",
        datetime(2025, 3, 4, 9, 15, 0, 250_000, tzinfo=UTC),
    ),
    "an instant without zone": (read_iso, "2025-03-04T09:15:00", datetime(2025, 3, 4, 9, 15, tzinfo=UTC)),
    "no instant": (read_iso, "", None),
    "the Go zero instant": (read_iso, "0001-01-01T00:00:00Z", None),
    "a day": (read_calendar_date, "2025-03-14", date(2025, 3, 14)),
    "a day at midnight": (read_calendar_date, "2025-03-14T00:00:00Z", date(2025, 3, 14)),
    "a day late in the west": (read_calendar_date, "2025-03-14T23:30:00-08:00", date(2025, 3, 14)),
    "a day early in the east": (read_calendar_date, "2025-03-14T00:30:00+12:00", date(2025, 3, 14)),
    "no day": (read_calendar_date, "", None),
    "the Go zero day": (read_calendar_date, "0001-01-01T00:00:00Z", None),
    "Unix seconds": (read_unix, 1741072500, datetime(2025, 3, 4, 7, 15, tzinfo=UTC)),
    "Unix seconds before 1970": (read_unix, -1, datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)),
}

UNUSABLE = {
    "a list as text": (read_text, ["s3cret"]),
    "true as text": (read_text, True),
    "a fraction as int": (read_int, 40.5),
    "words as int": (read_int, "s3cret"),
    "two signs": (read_int, "--5"),
    "true as int": (read_int, True),
    "an int too large for its column": (read_int, 2**31),
    "more digits than Python reads": (read_int, "9" * 5000),
    "words as truth": (read_bool, "s3cret"),
    "two as truth": (read_bool, 2),
    "a negative id": (read_id, -1),
    "an id too large": (read_id, 2**63),
    "an id in words": (read_id, "s3cret"),
    "an id in an object": (read_id, {"s3cret": 1}),
    "two signs of an id": (read_id, "--5"),
    "an object as list": (read_list, {"s3cret": 1}),
    "a text as list": (read_list, "s3cret"),
    "a list as object": (read_object, ["s3cret"]),
    "words as instant": (read_iso, "s3cret"),
    "a number as instant": (read_iso, 1741072500),
    "an instant past the calendar": (read_iso, "9999-12-31T23:59:59-08:00"),
    "words as day": (read_calendar_date, "s3cret-day"),
    "a number as day": (read_calendar_date, 20250314),
    "an object as day": (read_calendar_date, {"s3cret": 1}),
    "a day that is none": (read_calendar_date, "2025-02-30"),
    "words as Unix seconds": (read_unix, "s3cret"),
    "true as Unix seconds": (read_unix, True),
    "Unix seconds past the calendar": (read_unix, 10**12),
    "Unix seconds without end": (read_unix, float("inf")),
    "no number of Unix seconds": (read_unix, float("nan")),
}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.parametrize("kind", READERS)
def test_what_is_null_or_absent_is_none(kind):
    reader = READERS[kind]

    assert reader({}, "key") == NOTHING[kind]
    assert reader({"key": None}, "key") == NOTHING[kind]


@pytest.mark.parametrize(("reader", "value", "expected"), READ.values(), ids=READ)
def test_a_value_is_read_in_every_form_the_vendors_use(reader, value, expected):
    found = reader({"key": value}, "key")

    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(("reader", "value"), UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_value_is_named_by_its_key_and_not_shown(reader, value):
    with pytest.raises(RecordError, match=r"^dueDate: expected .+, but read a value of type \w+$") as caught:
        reader({"dueDate": value}, "dueDate")

    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@given(value=JSON)
def test_any_json_is_read_or_refused(reader, value):
    with contextlib.suppress(RecordError):
        reader({"key": value}, "key")


@given(st.integers(-62_000_000_000, 253_000_000_000))
def test_unix_seconds_survive_a_round_trip(seconds):
    moment = read_unix({"at": seconds}, "at")

    assert moment is not None
    assert to_unix(moment) == seconds
