"""What computing an insight comes to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Insight:
    """One insight, stored.

    Args:
        name: Its table.
        rows: How many rows the table has.
        written: How many of them were written or removed: as many as differ.
        figures: What stands out, by name with its unit.
        png: The picture; it shows no person and no address.
    """

    name: str
    rows: int
    written: int
    png: bytes
    figures: Mapping[str, float] = field(default_factory=dict)
