"""Walks through the vendors' lists that miss no row and end only with a proof.

Teamwork is walked upwards by `updatedAt`, Missive downwards by `until`. Both yield what has not been seen and
the place up to which everything has been yielded, so that a caller can commit both after every step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

from twm_pipeline.errors import PagingError, RecordError
from twm_pipeline.records import Json
from twm_pipeline.sources.fields import plain
from twm_pipeline.sources.teamwork_rows import updated_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from twm_pipeline.sources import missive, teamwork

P = TypeVar("P")

ONE_SECOND = timedelta(seconds=1)
EARLIEST = datetime.min.replace(tzinfo=UTC)
MAX_READS_OF_A_BLOCK = 8
MAX_PAGES_OF_A_BLOCK = 2000
ASKS = 3
REMEMBERED_PAGES = 3
"""Of a downward walk; a row can only come again within a second of where it was seen first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpStep:
    """Pages of tasks to store now, and the newest update below which everything has been yielded."""

    pages: tuple[teamwork.Page, ...]
    newest: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """By what a list comes, oldest first.

    Args:
        time_of: The instant of a row.
        may_be_older: Whether rows from before what was asked for come too: those that changed since.
    """

    time_of: Callable[[Json], datetime | None]
    may_be_older: bool = False


BY_UPDATE = Order(time_of=updated_at)


def walk_up(
    fetch: Callable[[datetime | None, int], teamwork.Page],
    *,
    start: datetime | None,
    until: datetime | None = None,
    order: Order = BY_UPDATE,
) -> Iterator[UpStep]:
    """Yield the rows of a list ordered by `updatedAt` (or by *order*), from *start* to the end.

    Page numbers shift whenever a row is touched, so each page is page 1 of a query that starts one second
    before the newest row read. Only where a page does not raise that newest row (many rows of one second) are
    further page numbers read, and believed when two reads agree (DESIGN D3). An end is asked for again where
    a row is missing that must be there: the newest read, or one of *until*.

    Args:
        fetch: Returns page *n* of the rows updated after an instant.
        start: Where to begin; None: at the oldest row.
        until: The update of a row known to be in the list unless it moved away; None: none is known.
        order: By what the list comes.

    Raises:
        PagingError: If the list contradicts itself again and again.
    """
    newest = start
    after = start
    seen: set[tuple[Any, ...]] = set()
    while True:
        known = max(filter(None, (until, newest if seen else None)), default=None)
        pages = [_fetch_up_to(fetch, after, known, order)]
        raised = _newest_of(pages[0], newest, order)
        if raised == newest and pages[0].has_more:
            pages, raised = _read_block(fetch, after, newest, order)
        yield UpStep(pages=_only_new(pages, seen), newest=raised)
        if not pages[-1].has_more:
            return
        # Only rows of the last second read can come again: nothing older has to be remembered.
        seen = _keys_of(pages)
        newest = raised
        after = newest - ONE_SECOND if newest is not None else None


def _fetch_up_to(
    fetch: Callable[[datetime | None, int], teamwork.Page],
    after: datetime | None,
    known: datetime | None,
    order: Order,
) -> teamwork.Page:
    """Return page 1; as the last one it is asked for again unless it reaches the row *known* to be there."""
    page = _fetch_up(fetch, after, 1, order)
    if known is None:
        return page
    for _ in range(ASKS - 1):
        if page.has_more or max(honest_times(page, order.time_of), default=EARLIEST) >= known:
            break
        again = _fetch_up(fetch, after, 1, order)
        page = max(page, again, key=lambda answer: (answer.has_more, len(answer.rows)))
    return page


def _fetch_up(
    fetch: Callable[[datetime | None, int], teamwork.Page], after: datetime | None, number: int, order: Order
) -> teamwork.Page:
    return _consistent(lambda: fetch(after, number), lambda page: _check_order(page, after, order))


def _consistent(ask: Callable[[], P], check: Callable[[P], str | None]) -> P:
    """Return an answer that *check* has nothing against, asking again a bounded number of times."""
    problem = None
    for _ in range(ASKS):
        page = ask()
        problem = check(page)
        if problem is None:
            return page
    raise PagingError(f"{problem} ({ASKS} times)")


def honest_times(page: teamwork.Page, time_of: Callable[[Json], datetime | None]) -> list[datetime]:
    """Return the rows' times in order, without unreadable ones and those later than the answer itself."""
    moments = []
    for row in page.rows:
        try:
            moment = time_of(row)
        except RecordError:
            continue
        if moment is not None and moment <= page.reply.date:
            moments.append(moment)
    return moments


def _newest_of(page: teamwork.Page, newest: datetime | None, order: Order) -> datetime | None:
    updates = honest_times(page, order.time_of)
    return max([*updates, newest]) if newest else max(updates, default=None)


def _check_order(page: teamwork.Page, after: datetime | None, order: Order) -> str | None:
    """Return what is wrong with a page that is not the answer to its query."""
    updates = honest_times(page, order.time_of)
    if not is_ascending(updates):
        return "Teamwork: a list asked for in the order of updates came in another one"
    if not order.may_be_older and after is not None and updates and updates[0] < after.replace(microsecond=0):
        return "Teamwork: a list of updates holds older rows than were asked for"
    return None


def is_ascending(moments: Iterable[datetime]) -> bool:
    """Return whether no moment comes before the one before it."""
    return all(earlier <= later for earlier, later in pairwise(moments))


def _keys_of(pages: Iterable[teamwork.Page]) -> set[tuple[Any, ...]]:
    return {key_of(row) for page in pages for row in page.rows}


def key_of(row: Json) -> tuple[Any, ...]:
    """Return what tells a row in this version from every other."""
    versions = ("updatedAt", "dateLastEdited", "dateDeleted")  # comments have names of their own
    return plain(row, "id"), *(plain(row, name) for name in versions)


def _only_new(pages: Iterable[teamwork.Page], seen: set[tuple[Any, ...]]) -> tuple[teamwork.Page, ...]:
    """Return *pages* without rows that were yielded in this very version a step before."""
    return tuple(replace(page, rows=[row for row in page.rows if key_of(row) not in seen]) for page in pages)


def _read_block(
    fetch: Callable[[datetime | None, int], teamwork.Page],
    after: datetime | None,
    newest: datetime | None,
    order: Order,
) -> tuple[list[teamwork.Page], datetime | None]:
    """Return pages 1, 2, 3 … up to the one that raises *newest*, read until two reads agree."""
    everything: list[teamwork.Page] = []
    before: set[tuple[Any, ...]] | None = None
    for _ in range(MAX_READS_OF_A_BLOCK):
        pages, raised = _read_block_once(fetch, after, newest, order)
        everything = [*everything, *pages]
        found = _keys_of(pages)
        if found == before:
            return everything, raised
        before = found
    msg = f"Teamwork: rows of one second changed during {MAX_READS_OF_A_BLOCK} reads"
    raise PagingError(msg)


def _read_block_once(
    fetch: Callable[[datetime | None, int], teamwork.Page],
    after: datetime | None,
    newest: datetime | None,
    order: Order,
) -> tuple[list[teamwork.Page], datetime | None]:
    pages: list[teamwork.Page] = []
    for number in range(1, MAX_PAGES_OF_A_BLOCK):
        page = _fetch_up(fetch, after, number, order)
        if pages and page.rows and _keys_of([page]) == _keys_of(pages[-1:]):
            msg = f"Teamwork: page {number} repeats page {number - 1}"
            raise PagingError(msg)
        pages.append(page)
        raised = _newest_of(page, newest, order)
        if not page.has_more or raised != newest:
            return pages, raised
    msg = f"Teamwork: more than {MAX_PAGES_OF_A_BLOCK} pages of one second"
    raise PagingError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class DownStep:
    """Rows to store now.

    Args:
        page: The page they are on.
        rows: Those not seen before.
        oldest: Everything above it has been yielded; None: the list has ended.
        newest: The newest believable row of the page.
    """

    page: missive.Page
    rows: tuple[Json, ...]
    oldest: int | None
    newest: int | None


def walk_down(
    fetch: Callable[[int | None], missive.Page],
    *,
    time_of: Callable[[Json], int | None],
    start: int | None = None,
    still_there: Callable[[int], bool] = lambda _: False,
    proves_end: bool = False,
) -> Iterator[DownStep]:
    """Yield the rows of a list that is paged by `until`, from the newest (or *start*) down to its end.

    Whether `until` includes its own second is not documented for every list, and a second may have more rows
    than a page. So the next page is asked for with the second above the oldest row (which shows that row
    again under either answer), then with its own, then with the one below; only a page shorter than its limit
    ends the walk, and an empty one only where the row that must be on it has moved away.

    Args:
        fetch: Returns the page for an `until`.
        time_of: The Unix seconds by which the list is ordered.
        start: Inclusive place to begin; None: at the top.
        still_there: Whether a row of that second is known to be still in its place.
        proves_end: Whether to ask below the last page too: a page cut short must not end a complete sweep.

    Raises:
        PagingError: If the list contradicts itself again and again.
    """
    recent: deque[set[Any]] = deque(maxlen=REMEMBERED_PAGES)
    boundary = start
    while True:
        page, rows = _next_page(fetch, boundary, set().union(*recent), time_of)
        if not page.rows and boundary is not None and still_there(boundary):
            msg = "Missive: an empty page where a row is known to be"
            raise PagingError(msg)
        recent.append({plain(row, "id") for row in page.rows})
        honest = _honest_times(page, time_of)
        times = honest or [moment for row in page.rows if (moment := time_of(row)) is not None]
        ended = len(page.rows) < page.limit or not times
        if ended and times and proves_end:
            below = _ask_down(fetch, min(times), time_of)
            ended = {plain(row, "id") for row in below.rows} <= set().union(*recent)
        oldest = None if ended else min([*times, boundary] if boundary is not None else times)
        yield DownStep(page=page, rows=tuple(rows), oldest=oldest, newest=max(honest, default=None))
        if oldest is None:
            return
        boundary = oldest


def _honest_times(page: missive.Page, time_of: Callable[[Json], int | None]) -> list[int]:
    """Return the rows' times in order, without those later than the answer itself."""
    now = page.reply.date.timestamp()
    return [moment for row in page.rows if (moment := time_of(row)) is not None and moment <= now]


def _next_page(
    fetch: Callable[[int | None], missive.Page],
    boundary: int | None,
    seen: set[Any],
    time_of: Callable[[Json], int | None],
) -> tuple[missive.Page, list[Json]]:
    """Return the page that brings the walk on, and the unseen rows of it and of those asked for before."""
    unseen: dict[Any, Json] = {}
    for until in (None,) if boundary is None else (boundary + 1, boundary, boundary - 1):
        page = _ask_down(fetch, until, time_of)
        fresh = [row for row in page.rows if plain(row, "id") not in seen and plain(row, "id") not in unseen]
        unseen |= {plain(row, "id"): row for row in fresh}
        # A second with more rows than a page can fill the page above the boundary: that is no step.
        steps = boundary is None or any((time_of(row) or 0) <= boundary for row in fresh)
        if steps or len(page.rows) < page.limit:
            return page, list(unseen.values())
    msg = f"Missive: paging is stuck at {boundary}"
    raise PagingError(msg)


def _ask_down(
    fetch: Callable[[int | None], missive.Page], until: int | None, time_of: Callable[[Json], int | None]
) -> missive.Page:
    """Return the page for *until*; an empty one is asked for again before it is believed."""

    def check(page: missive.Page) -> str | None:
        times = _honest_times(page, time_of)
        if any(later > earlier for earlier, later in pairwise(times)):
            return "Missive: a list is not in the order of its time"
        if until is not None and times and times[0] > until:
            return "Missive: a page holds newer rows than were asked for"
        return None

    page: missive.Page = _consistent(lambda: fetch(until), check)
    if until is not None:
        for _ in range(ASKS - 1):
            if page.rows:
                break
            page = _consistent(lambda: fetch(until), check)
    return page
