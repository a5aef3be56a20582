"""A day as bars."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from twm_pipeline.status.charts import HEIGHT, LEAST_HEIGHT, WIDTH, draw_hours

BERLIN = ZoneInfo("Europe/Berlin")
NOON = datetime(2026, 3, 2, 11, 30, tzinfo=UTC)


def test_the_highest_bar_fills_the_frame_and_the_others_are_in_proportion():
    chart = draw_hours([0, 25, 100, 50], now=NOON, zone=BERLIN)

    assert [bar.height for bar in chart.bars] == [0, HEIGHT / 4, HEIGHT, HEIGHT / 2]
    assert all(bar.y + bar.height == HEIGHT for bar in chart.bars)
    assert chart.bars[-1].x + chart.bars[-1].width <= WIDTH
    assert (chart.highest, chart.total) == (100, 175)


def test_a_single_change_among_thousands_is_still_seen():
    assert draw_hours([1, 10_000], now=NOON, zone=BERLIN).bars[0].height == LEAST_HEIGHT


def test_hours_are_those_of_the_operator_also_where_a_clock_changes():
    summer = datetime(2026, 3, 29, 2, 5, tzinfo=UTC)

    hours = [bar.hour.strftime("%H:%M") for bar in draw_hours([1, 1, 1, 1], now=summer, zone=BERLIN).bars]

    assert hours == ["00:00", "01:00", "03:00", "04:00"]


def test_a_day_without_a_change_is_no_error():
    assert draw_hours([0] * 24, now=NOON, zone=BERLIN).highest == 0
    assert draw_hours([], now=NOON, zone=BERLIN).bars == ()
