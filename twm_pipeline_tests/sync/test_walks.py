"""Walks miss no row, whatever moves under them, and end only with a proof."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twm_pipeline.errors import PagingError
from twm_pipeline.http import Reply
from twm_pipeline.sources import missive, teamwork
from twm_pipeline.sync.walks import UpStep, walk_down, walk_up

EPOCH = datetime(2025, 1, 1, tzinfo=UTC)
NOW = EPOCH + timedelta(days=400)


def at(second: int) -> datetime:
    return EPOCH + timedelta(seconds=second)


def iso(second: int) -> str:
    return at(second).strftime("%Y-%m-%dT%H:%M:%SZ")


def reply(date: datetime = NOW) -> Reply:
    return Reply(data={}, seq=1, date=date)


@dataclass
class TeamworkList:
    """A task list ordered by update; *edits* happen before the request of that number."""

    updates: dict[int, int]
    page_size: int
    inclusive: bool = False
    edits: dict[int, list[int]] = field(default_factory=dict)
    clock: int = 10_000
    requests: int = 0

    def fetch(self, after: datetime | None, number: int) -> teamwork.Page:
        for task_id in self.edits.get(self.requests, []):
            if task_id in self.updates:
                self.clock += 1
                self.updates[task_id] = self.clock
        self.requests += 1
        rows = sorted((second, task_id) for task_id, second in self.updates.items())
        if after is not None:
            rows = [row for row in rows if at(row[0]) > after or (self.inclusive and at(row[0]) == after)]
        start = (number - 1) * self.page_size
        page = rows[start : start + self.page_size]
        return teamwork.Page(
            rows=[{"id": task_id, "updatedAt": iso(second)} for second, task_id in page],
            included={},
            has_more=start + self.page_size < len(rows),
            reply=reply(),
        )


def rows_of(steps):
    return {(row["id"], row["updatedAt"]) for step in steps for page in step.pages for row in page.rows}


@given(
    seconds=st.lists(st.integers(0, 12), max_size=40),
    page_size=st.integers(1, 7),
    inclusive=st.booleans(),
    edits=st.dictionaries(st.integers(0, 30), st.lists(st.integers(0, 45), max_size=3), max_size=12),
)
def test_every_task_is_read_in_its_last_version_however_rows_move(seconds, page_size, inclusive, edits):
    vendor = TeamworkList(dict(enumerate(seconds)), page_size, inclusive, edits)

    try:
        steps = list(walk_up(vendor.fetch, start=None))
    except PagingError:
        # Rows of one second that change on every read are given up loudly, never silently.
        assert edits
        return

    assert rows_of(steps) >= {(task_id, iso(second)) for task_id, second in vendor.updates.items()}


@given(seconds=st.lists(st.integers(0, 12), min_size=1, max_size=40), page_size=st.integers(1, 7))
def test_nothing_below_the_reported_newest_is_missing_after_any_step(seconds, page_size):
    vendor = TeamworkList(dict(enumerate(seconds)), page_size)
    seen: list[UpStep] = []

    for step in walk_up(vendor.fetch, start=None):
        seen.append(step)
        assert step.newest is not None
        stored = rows_of(seen)
        # A resumed walk starts one second before: what lies below must have been yielded.
        below = {
            (task_id, iso(second))
            for task_id, second in vendor.updates.items()
            if at(second) <= step.newest - timedelta(seconds=1)
        }
        assert stored >= below


def test_a_quiet_list_costs_one_request():
    vendor = TeamworkList({1: 5, 2: 6}, page_size=50)

    steps = list(walk_up(vendor.fetch, start=at(4)))

    assert vendor.requests == 1
    assert steps[-1].newest == at(6)


def test_a_first_read_costs_a_request_a_page_and_no_more():
    vendor = TeamworkList({n: n for n in range(1000)}, page_size=100)

    list(walk_up(vendor.fetch, start=None))

    assert vendor.requests <= 11


def test_a_row_from_the_future_neither_sets_the_watermark_nor_stops_the_walk():
    vendor = TeamworkList({1: 5, 2: 6, 3: 400 * 86_400 + 1}, page_size=1)

    steps = list(walk_up(vendor.fetch, start=None))

    assert {row_id for row_id, _ in rows_of(steps)} == {1, 2, 3}
    assert steps[-1].newest == at(6)


def test_a_list_in_another_order_is_an_error():
    rows = [{"id": 1, "updatedAt": iso(9)}, {"id": 2, "updatedAt": iso(3)}]
    page = teamwork.Page(rows=rows, included={}, has_more=False, reply=reply())

    with pytest.raises(PagingError, match="another one"):
        list(walk_up(lambda _after, _number: page, start=None))


def test_the_same_page_for_every_query_is_an_error_and_no_endless_loop():
    rows = [{"id": n, "updatedAt": iso(n)} for n in range(5)]
    page = teamwork.Page(rows=rows, included={}, has_more=True, reply=reply())

    with pytest.raises(PagingError):
        list(walk_up(lambda _after, _number: page, start=None))


def test_one_repeated_page_in_the_middle_loses_no_row():
    vendor = TeamworkList({n: n for n in range(30)}, page_size=5)
    pages: list[teamwork.Page] = []

    def fetch(after, number):
        page = vendor.fetch(after, number)
        if len(pages) == 3:
            page = pages[-1]
        pages.append(page)
        return page

    assert {row_id for row_id, _ in rows_of(walk_up(fetch, start=None))} == set(range(30))


@pytest.mark.parametrize("left", [0, 2], ids=["empty", "cut short"])
@pytest.mark.parametrize("wrong", [1, 3])
def test_one_end_by_error_is_not_the_end_of_history(wrong, left):
    vendor = TeamworkList({n: n for n in range(30)}, page_size=5)

    def fetch(after, number):
        page = vendor.fetch(after, number)
        return replace(page, rows=page.rows[:left], has_more=False) if vendor.requests == wrong else page

    found = rows_of(walk_up(fetch, start=None, until=at(29)))

    assert {row_id for row_id, _ in found} == set(range(30))


def test_one_empty_page_by_error_in_the_middle_is_not_the_end():
    vendor = TeamworkList({n: n for n in range(30)}, page_size=5)

    def fetch(after, number):
        page = vendor.fetch(after, number)
        return replace(page, rows=[], has_more=False) if vendor.requests == 3 else page

    assert {row_id for row_id, _ in rows_of(walk_up(fetch, start=None))} == set(range(30))


def test_history_ends_although_its_last_row_moved_away():
    vendor = TeamworkList({n: n for n in range(30)}, page_size=5)

    found = rows_of(walk_up(vendor.fetch, start=None, until=at(40)))

    assert {row_id for row_id, _ in found} == set(range(30))


@pytest.mark.parametrize("repeated", [2, 3, 4, 5])
def test_a_repeated_page_among_rows_of_one_second_loses_no_row(repeated):
    vendor = TeamworkList({n: 7 if n < 20 else 8 for n in range(25)}, page_size=5)
    pages: list[teamwork.Page] = []

    def fetch(after, number):
        page = vendor.fetch(after, number)
        pages.append(page)
        return pages[-2] if len(pages) == repeated else page

    try:
        found = rows_of(walk_up(fetch, start=None))
    except PagingError:
        return
    assert {row_id for row_id, _ in found} == set(range(25))


@dataclass
class MissiveList:
    """A list paged by `until`; rows of one second are not divided; *touched* jump to the top."""

    times: dict[str, int]
    limit: int
    inclusive: bool = True
    touches: dict[int, list[str]] = field(default_factory=dict)
    clock: int = 100_000
    requests: int = 0

    def fetch(self, until: int | None) -> missive.Page:
        for row_id in self.touches.get(self.requests, []):
            if row_id in self.times:
                self.clock += 1
                self.times[row_id] = self.clock
        self.requests += 1
        rows = sorted(((-moment, row_id) for row_id, moment in self.times.items()))
        if until is not None:
            rows = [row for row in rows if -row[0] < until or (self.inclusive and -row[0] == until)]
        page = rows[: self.limit]
        if page:
            page += [row for row in rows[self.limit :] if row[0] == page[-1][0]]
        return missive.Page(
            rows=[{"id": row_id, "t": -moment} for moment, row_id in page],
            limit=self.limit,
            reply=reply(datetime.fromtimestamp(200_000, UTC)),
        )


def ids_of(steps):
    return [row["id"] for step in steps for row in step.rows]


def time_of(row):
    return row["t"]


@given(
    moments=st.lists(st.integers(0, 15), max_size=60),
    limit=st.integers(2, 9),
    inclusive=st.booleans(),
    touches=st.dictionaries(
        st.integers(0, 30), st.lists(st.integers(0, 60).map(str), max_size=3), max_size=10
    ),
)
def test_every_untouched_row_is_read_under_either_meaning_of_until(moments, limit, inclusive, touches):
    times = {str(n): moment for n, moment in enumerate(moments)}
    vendor = MissiveList(dict(times), limit, inclusive, touches)

    found = ids_of(walk_down(vendor.fetch, time_of=time_of))

    untouched = {row_id for row_id, moment in times.items() if vendor.times[row_id] == moment}
    assert set(found) >= untouched


@given(
    moments=st.lists(st.integers(0, 15), min_size=1, max_size=60),
    limit=st.integers(2, 9),
    inclusive=st.booleans(),
    stop=st.integers(1, 8),
)
def test_a_walk_resumed_where_another_stopped_misses_nothing(moments, limit, inclusive, stop):
    vendor = MissiveList({str(n): moment for n, moment in enumerate(moments)}, limit, inclusive)
    found: list[str] = []
    resume: int | None = None

    for number, step in enumerate(walk_down(vendor.fetch, time_of=time_of), start=1):
        found += [row["id"] for row in step.rows]
        resume = step.oldest
        if number == stop:
            break
    if resume is not None:
        found += ids_of(walk_down(vendor.fetch, time_of=time_of, start=resume))

    assert set(found) == set(vendor.times)


def test_more_rows_of_one_second_than_a_page_do_not_end_the_walk():
    times = {f"old{n}": 5 for n in range(3)} | {f"tie{n}": 50 for n in range(120)} | {"new": 60}

    found = ids_of(walk_down(MissiveList(times, limit=50).fetch, time_of=time_of))

    assert sorted(found) == sorted(times)


def test_a_page_full_of_rows_from_the_future_does_not_end_the_walk():
    times = {f"future{n}": 300_000 + n for n in range(10)} | {f"row{n}": n for n in range(10)}

    found = ids_of(walk_down(MissiveList(times, limit=5).fetch, time_of=time_of))

    assert sorted(found) == sorted(times)


def test_one_empty_page_by_error_is_not_the_end():
    vendor = MissiveList({str(n): n for n in range(40)}, limit=5)

    def fetch(until):
        page = vendor.fetch(until)
        return missive.Page(rows=[], limit=5, reply=page.reply) if vendor.requests == 3 else page

    assert set(ids_of(walk_down(fetch, time_of=time_of))) == set(vendor.times)


def test_an_empty_page_where_a_row_is_known_to_be_stops_the_walk_with_an_error():
    vendor = MissiveList({str(n): n for n in range(40)}, limit=5)

    def fetch(until):
        page = vendor.fetch(until)
        return missive.Page(rows=[], limit=5, reply=page.reply) if vendor.requests > 2 else page

    with pytest.raises(PagingError, match="known to be"):
        ids_of(walk_down(fetch, time_of=time_of, still_there=lambda _: True))


def test_a_page_that_ignores_until_is_an_error():
    vendor = MissiveList({str(n): n for n in range(40)}, limit=5)

    with pytest.raises(PagingError, match="newer rows"):
        ids_of(walk_down(lambda _: vendor.fetch(None), time_of=time_of))


def test_a_short_list_costs_one_request():
    vendor = MissiveList({"a": 1, "b": 2}, limit=10)

    ids_of(walk_down(vendor.fetch, time_of=time_of))

    assert vendor.requests == 1


@pytest.mark.parametrize("inclusive", [True, False])
def test_a_page_cut_short_does_not_end_a_walk_that_proves_its_end(inclusive):
    times = {f"row{n}": n for n in range(30)}
    vendor = MissiveList(times, limit=10, inclusive=inclusive)
    cut = iter([True])

    def fetch(until):
        page = vendor.fetch(until)
        return replace(page, rows=page.rows[:6]) if until is not None and next(cut, False) else page

    found = ids_of(walk_down(fetch, time_of=time_of, proves_end=True))

    assert sorted(found) == sorted(times)
