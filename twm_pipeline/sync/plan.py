"""Decisions without I/O: what has been read of a mailbox, and what to read next."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from twm_pipeline.records import Json

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A stretch of a mailbox still to read, from `until` (newest, inclusive) down to `down_to`.

    Args:
        until: Unix seconds; rows of this second may be missing.
        down_to: Unix seconds, exclusive; None: to the beginning.
    """

    until: int
    down_to: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier:
    """How far a mailbox, which can only be read from the newest row down, has been read.

    Args:
        head: Newest activity seen on a first page; None before the first pass.
        gaps: What is missing below it, newest first.
    """

    head: int | None = None
    gaps: tuple[Gap, ...] = ()

    @classmethod
    def from_cursor(cls, cursor: Json) -> Frontier:
        """Return the frontier that `to_cursor` wrote."""
        gaps = tuple(Gap(until=gap["until"], down_to=gap["down_to"]) for gap in cursor.get("gaps", []))
        return cls(head=cursor.get("head"), gaps=gaps)

    def to_cursor(self) -> Json:
        """Return JSON for a checkpoint."""
        return {
            "head": self.head,
            "gaps": [{"until": gap.until, "down_to": gap.down_to} for gap in self.gaps],
        }

    def complete_below(self, *, floor: int | None) -> datetime | None:
        """Return the instant below which nothing is missing, or None while the beginning is missing."""
        if self.head is None:
            return None
        lowest = [gap.down_to for gap in self.gaps]
        if not lowest:
            return datetime.fromtimestamp(self.head, UTC)
        bottom = lowest[-1]
        return None if bottom is None or bottom == floor else datetime.fromtimestamp(bottom, UTC)

    def opened(
        self, times: Iterable[int], *, now: int, full: bool, overlap: int, floor: int | None
    ) -> Frontier:
        """Return the frontier after a first page has been stored.

        Args:
            times: `last_activity_at` of its rows.
            now: The answer's own clock: a row from the future must neither set the head nor stop a walk.
            full: Whether the page had as many rows as were asked for, so that more may follow.
            overlap: Seconds to step back behind the old head.
            floor: Where the history of a first pass ends; None: at the beginning.
        """
        every = list(times)
        honest = [moment for moment in every if moment <= now]
        if not every:
            return self
        down_to = floor if self.head is None else self.head - overlap
        head = max(honest, default=None) if self.head is None else max([self.head, *honest])
        oldest = min(honest or every)
        if not full or (down_to is not None and oldest < down_to):
            return replace(self, head=head)
        gap = Gap(until=oldest, down_to=down_to)
        return Frontier(head=head, gaps=tuple(dict.fromkeys((gap, *self.gaps))))

    def advanced(self, gap: Gap, *, oldest: int | None, newest: int | None = None) -> Frontier:
        """Return the frontier after a page of *gap* has been stored.

        Args:
            gap: As it was before the page.
            oldest: Everything of the gap above it is stored; None: the list has ended.
            newest: Newest believable row of the page: the head, where no first page had one.
        """
        done = oldest is None or (gap.down_to is not None and oldest < gap.down_to)
        rest = () if done else (replace(gap, until=min(oldest or gap.until, gap.until)),)
        gaps = [rest if item == gap else (item,) for item in self.gaps]
        head = newest if self.head is None else self.head
        return replace(self, head=head, gaps=tuple(item for group in gaps for item in group))

    def widened(self, *, floor: int | None) -> Frontier:
        """Return the frontier with everything between its head and *floor* still to read."""
        if self.head is None:
            return self
        return replace(self, gaps=(Gap(until=self.head, down_to=floor),))


def is_wider(old: datetime | None, new: datetime | None) -> bool:
    """Return whether a start date moved back, so that older rows are missing now."""
    return old is not None and (new is None or new < old)
