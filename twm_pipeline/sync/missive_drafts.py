"""The list of drafts of a conversation: its order proves little, so mail does not depend on it.

Where drafts without `delivered_at` stand, and whether `until` leaves them out, is not documented. So it is
read until nothing new comes, and is a proof of absence only where nothing can have been left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from twm_pipeline.mirror.set_aside import SetAside
from twm_pipeline.sources.fields import plain
from twm_pipeline.sources.missive import Page
from twm_pipeline.sources.missive_rows import child_time

if TYPE_CHECKING:
    from twm_pipeline.records import Json

UNREAD_DRAFTS = "drafts-of-"
LACKING_DRAFTS = "some-drafts-of-"


def drafts_key(conversation_id: str) -> str:
    """Return the id under which the drafts of a conversation are set aside, apart from its messages."""
    return UNREAD_DRAFTS + conversation_id


def lacking_key(conversation_id: str) -> str:
    """Return the id under which drafts are set aside that no page shows; the others are read as ever."""
    return LACKING_DRAFTS + conversation_id


def lacking_drafts(conversation_id: str, *, lacking: int) -> SetAside:
    """Return drafts of a conversation that exist by its count, though a full first page hides them."""
    reason = f"{lacking} drafts are on no page of their list: Missive shows the same full page again"
    parent = {"conversation": {"id": conversation_id}}
    return SetAside(stream="emails", object_id=lacking_key(conversation_id), reason=reason, raw=parent)


def unread_drafts(conversation_id: str, error: Exception) -> SetAside:
    """Return the drafts of a conversation as something to be tried again."""
    parent = {"conversation": {"id": conversation_id}}
    return SetAside(stream="emails", object_id=drafts_key(conversation_id), reason=str(error), raw=parent)


def walk_drafts(fetch: Callable[[int | None], Page], *, count: object) -> Iterator[Page]:
    """Yield pages of a list in whatever order until nothing new comes.

    Args:
        fetch: Returns the page for an `until`.
        count: How many there are, as the conversation says, where it does.
    """
    seen: set[Any] = set()
    asked: set[int | None] = set()
    places: list[int | None] = [None]
    while places:
        until = places.pop(0)
        if until in asked:
            continue
        asked.add(until)
        page = fetch(until)
        yield page
        ids = {plain(row, "id") for row in page.rows}
        is_new = not ids <= seen
        seen |= ids
        if len(page.rows) < page.limit and (until is None or len(seen) == count):
            return
        if is_new:
            places = list(_places_below(page.rows))


def _places_below(rows: list[Json]) -> Iterator[int]:
    """Yield where the list may go on, the newest place first, so that none is skipped."""
    dated = [row for row in rows if row.get("delivered_at") is not None]
    for known in (dated, rows):
        times = [moment for row in known if (moment := child_time(row, "drafts")) is not None]
        if times:
            # Whether `until` is inclusive is as open here as in `walk_down`.
            yield from (min(times) + 1, min(times), min(times) - 1)
