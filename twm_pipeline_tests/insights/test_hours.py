"""Business hours, computed on paper, on days with clock changes too."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twm_pipeline.errors import ConfigError
from twm_pipeline.insights.hours import BusinessHours
from twm_pipeline.settings import load_settings

BERLIN = "Europe/Berlin"
HOUR = 3600.0


def hours(text: str = "Mo-Fr 09:00-17:00", zone: str = BERLIN) -> BusinessHours:
    return BusinessHours.of(load_settings(business_hours=text, timezone=zone))


def at(text: str, zone: str = BERLIN) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))


def between(start: str, end: str, *, when: str = "Mo-Fr 09:00-17:00", zone: str = BERLIN) -> float:
    [seconds] = hours(when, zone).between([at(start, zone)], [at(end, zone)])
    return float(seconds) / HOUR


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ("2025-06-11 10:00", "2025-06-11 11:30", 1.5),  # a Wednesday
        ("2025-06-11 08:00", "2025-06-11 09:15", 0.25),  # asked before it opened
        ("2025-06-11 16:00", "2025-06-12 10:00", 2),  # over a night
        ("2025-06-11 18:00", "2025-06-11 23:00", 0),  # all of it after it closed
        ("2025-06-13 16:30", "2025-06-16 09:30", 1),  # over a weekend
        ("2025-06-14 12:00", "2025-06-15 12:00", 0),  # within a weekend
        ("2025-06-09 00:00", "2025-06-16 00:00", 40),  # a week
        ("2025-06-11 10:00", "2025-06-11 10:00", 0),
    ],
)
def test_spans_are_as_computed_by_hand(start, end, expected):
    assert between(start, end) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        # On Sunday 30 March 2025 clocks go from 02:00 to 03:00, on 26 October from 03:00 back to 02:00.
        ("2025-03-28 16:00", "2025-03-31 10:00", 2),  # the hour that is missing lies outside
        ("2025-10-24 16:00", "2025-10-27 10:00", 2),
    ],
)
def test_a_clock_change_outside_of_business_hours_changes_nothing(start, end, expected):
    assert between(start, end) == pytest.approx(expected)


@pytest.mark.parametrize(("day", "expected"), [("2025-03-30", 23), ("2025-10-26", 25), ("2025-10-27", 24)])
def test_a_day_that_is_open_all_day_is_as_long_as_it_was(day, expected):
    start = at(f"{day} 00:00")
    next_day = (start.replace(tzinfo=None) + timedelta(days=1)).replace(tzinfo=ZoneInfo(BERLIN))
    always = hours("Mo-Su 00:00-24:00")

    [seconds] = always.between([start], [next_day])

    assert float(seconds) / HOUR == pytest.approx(expected)


def test_a_night_shift_on_a_sunday_loses_the_hour_that_there_is_not():
    assert between("2025-03-30 00:00", "2025-03-30 12:00", when="Su 01:00-06:00") == pytest.approx(4)
    assert between("2025-10-26 00:00", "2025-10-26 12:00", when="Su 01:00-06:00") == pytest.approx(6)


def test_hours_are_those_of_the_zone_and_of_no_other():
    utc = [datetime(2025, 6, 11, 7, 0, tzinfo=UTC)], [datetime(2025, 6, 11, 8, 0, tzinfo=UTC)]

    assert hours(zone=BERLIN).between(*utc) == pytest.approx([HOUR])  # nine to ten in Berlin
    assert hours(zone="UTC").between(*utc) == pytest.approx([0])
    assert hours(zone="America/New_York").between(*utc) == pytest.approx([0])


def test_weeks_may_begin_on_any_day():
    assert between("2025-06-09 00:00", "2025-06-16 00:00", when="Sa-Mo 10:00-12:00") == pytest.approx(6)


NO_HOURS = ["9-17", "Mo-Fr", "Mo-Fr 17:00-09:00", "Mo-Fr 09:60-17:00", "Mo-Fr 09:00-25:00", "Xx 09:00-10:00"]


@pytest.mark.parametrize("text", NO_HOURS)
def test_what_are_no_hours_is_refused_with_an_example(text):
    with pytest.raises(ConfigError, match="such as Mo-Fr 09:00-17:00"):
        load_settings(business_hours=text)


MOMENTS = st.datetimes(datetime(2019, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
ZONES = st.sampled_from(
    [BERLIN, "UTC", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Africa/Cairo"]
)
TEXTS = st.sampled_from(["Mo-Fr 09:00-17:00", "Mo-Su 00:00-24:00", "Sa-Mo 01:30-03:30", "We 00:00-08:00"])


@given(st.tuples(MOMENTS, MOMENTS, MOMENTS), ZONES, TEXTS)
def test_spans_add_up_and_are_never_longer_than_the_time_that_passed(moments, zone, text):
    first, middle, last = sorted(moments)
    chosen = hours(text, zone)

    one, two, whole = chosen.between([first, middle, first], [middle, last, last])

    assert one + two == pytest.approx(whole, abs=1e-3)
    assert -1e-6 <= whole <= (last - first).total_seconds() + 1e-3


@given(st.lists(st.tuples(MOMENTS, MOMENTS), min_size=1, max_size=5))
def test_many_spans_at_once_are_as_each_by_itself(spans):
    chosen = hours()
    starts, ends = [list(side) for side in zip(*[sorted(span) for span in spans], strict=True)]

    together = chosen.between(starts, ends)

    alone = [float(chosen.between([start], [end])[0]) for start, end in zip(starts, ends, strict=True)]
    assert np.allclose(together, alone, atol=1e-3)
