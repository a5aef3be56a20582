"""Lengths of time, sizes and counts as a person says them."""

from __future__ import annotations


def span(seconds: float | None) -> str:
    """Return a length of time as a person says it."""
    if seconds is None:
        return "never"
    for size, word in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {word}"
    return f"{seconds:.0f} s"


def count_of(count: int, one: str, many: str | None = None) -> str:
    """Return *count* with its noun and verb: `1 hook is`, `2 hooks are`."""
    return f"{count:,} {one} is" if count == 1 else f"{count:,} {many or one + 's'} are"


def size(count: float) -> str:
    """Return a number of bytes in the largest fitting unit of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:  # noqa: PLR2004 - the step from a unit to the next
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
