"""What has been read of a mailbox, and what may be called deleted."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from twm_pipeline.sync.plan import Frontier, Gap, is_wider

NOW = 1_000_000


def opened(frontier: Frontier, *times: int, full: bool = True, floor: int | None = None) -> Frontier:
    return frontier.opened(times, now=NOW, full=full, overlap=10, floor=floor)


def test_a_first_full_page_leaves_everything_below_it_to_read():
    frontier = opened(Frontier(), 900, 800, 700)

    assert frontier == Frontier(head=900, gaps=(Gap(until=700, down_to=None),))
    assert frontier.complete_below(floor=None) is None


def test_a_first_page_that_is_not_full_is_the_whole_mailbox():
    frontier = opened(Frontier(), 900, 800, full=False)

    assert frontier == Frontier(head=900)
    assert frontier.complete_below(floor=None) == datetime.fromtimestamp(900, UTC)


def test_an_empty_page_changes_nothing():
    before = Frontier(head=900, gaps=(Gap(until=500, down_to=400),))

    assert opened(before, full=False) == before


def test_a_page_that_reaches_the_old_head_moves_it():
    assert opened(Frontier(head=900), 950, 880) == Frontier(head=950)


def test_a_page_that_does_not_reach_the_old_head_leaves_a_gap_down_to_it():
    frontier = opened(Frontier(head=500), 950, 900)

    assert frontier == Frontier(head=950, gaps=(Gap(until=900, down_to=490),))
    assert frontier.complete_below(floor=None) == datetime.fromtimestamp(490, UTC)


def test_a_row_from_the_future_does_not_set_the_head():
    assert opened(Frontier(head=500), NOW + 5, 505, 480).head == 505


def test_a_page_of_rows_from_the_future_leaves_the_head_open_and_a_gap():
    frontier = opened(Frontier(), NOW + 9, NOW + 5)

    assert frontier.head is None
    assert frontier.gaps == (Gap(until=NOW + 5, down_to=None),)
    assert opened(frontier, NOW + 9, NOW + 5) == frontier
    assert frontier.advanced(frontier.gaps[0], oldest=300, newest=400).head == 400


def test_a_gap_shrinks_with_every_page_and_goes_when_its_end_is_reached():
    frontier = Frontier(head=900, gaps=(Gap(until=700, down_to=490),))

    frontier = frontier.advanced(frontier.gaps[0], oldest=600)
    assert frontier.gaps == (Gap(until=600, down_to=490),)
    assert frontier.advanced(frontier.gaps[0], oldest=489).gaps == ()
    assert frontier.advanced(frontier.gaps[0], oldest=None).gaps == ()


def test_rows_of_the_last_second_keep_a_gap_open():
    frontier = Frontier(head=900, gaps=(Gap(until=700, down_to=490),))

    assert frontier.advanced(frontier.gaps[0], oldest=490).gaps == (Gap(until=490, down_to=490),)


def test_a_wider_scope_makes_everything_below_the_head_a_gap():
    assert Frontier(head=900).widened(floor=100) == Frontier(head=900, gaps=(Gap(until=900, down_to=100),))
    assert Frontier().widened(floor=100) == Frontier()


gaps = st.builds(Gap, until=st.integers(0, NOW), down_to=st.none() | st.integers(0, NOW))


@given(head=st.none() | st.integers(0, NOW), items=st.lists(gaps, max_size=4))
def test_a_frontier_survives_its_checkpoint(head, items):
    frontier = Frontier(head=head, gaps=tuple(items))

    assert Frontier.from_cursor(frontier.to_cursor()) == frontier


@given(st.lists(st.lists(st.integers(0, NOW), min_size=1, max_size=5), max_size=6))
def test_the_head_never_moves_back(pages):
    frontier = Frontier()
    for times in pages:
        after = opened(frontier, *times)
        assert frontier.head is None or (after.head is not None and after.head >= frontier.head)
        frontier = after


def test_a_scope_is_wider_when_its_start_moves_back_or_goes():
    early, late = datetime(2024, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC)

    assert is_wider(late, early)
    assert is_wider(late, None)
    assert not is_wider(early, late)
    assert not is_wider(None, late)
