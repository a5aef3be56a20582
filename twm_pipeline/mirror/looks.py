"""Looks at the published base: asked for, under way, and what the last one found."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import text

from twm_pipeline.mirror.changelog import CHANNEL

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from twm_pipeline.records import Json


def want_check(connection: Connection, base: str, view: str, *, how: str) -> None:
    """Ask whoever publishes to compare everything, then to look at the base: at a `sample` or the `whole`."""
    connection.execute(
        text(
            "INSERT INTO twm.publications AS p (base, view, check_wanted) VALUES (:base, :view, :how)"
            " ON CONFLICT (base, view) DO UPDATE SET compared_at = NULL,"
            " check_wanted = greatest(p.check_wanted, excluded.check_wanted)"
        ),
        {"base": base, "view": view, "how": how},
    )
    connection.execute(text("SELECT pg_notify(:channel, :view)"), {"channel": CHANNEL, "view": view})


def note_sampled(connection: Connection, base: str, view: str, *, cursor: str | None) -> None:
    """Note that records up to *cursor* were looked at; None: the next sample begins with the first."""
    connection.execute(
        text("UPDATE twm.publications SET check_cursor = :cursor WHERE base = :base AND view = :view"),
        {"base": base, "view": view, "cursor": cursor},
    )


def note_checked(connection: Connection, base: str, view: str, *, how: str, found: Json) -> None:
    """Store what a look found; more than that may have been asked for meanwhile."""
    connection.execute(
        text(
            "UPDATE twm.publications SET checked_at = now(), check_found = CAST(:found AS jsonb),"
            " check_wanted = nullif(check_wanted, :how) WHERE base = :base AND view = :view"
        ),
        {"base": base, "view": view, "how": how, "found": json.dumps(found)},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LastLook:
    """What the last look at the records of a view found.

    Args:
        age_seconds: Since then; before the first look since the oldest record was written, None before that.
        missing: How many records of ours were gone.
        different: How many showed something else than was published.
        doubled: Keys that several records have.
    """

    age_seconds: float | None = None
    missing: int = 0
    different: int = 0
    doubled: tuple[str, ...] = ()


def load_look(connection: Connection, base: str, view: str) -> LastLook:
    """Return what the last look found, or that there was none."""
    row = connection.execute(
        text(
            "SELECT check_found AS found, extract(epoch FROM now() - coalesce(checked_at, (SELECT"
            " min(published_at) FROM twm.published WHERE base = :base AND view = :view)))::float8 AS age"
            " FROM twm.publications WHERE base = :base AND view = :view"
        ),
        {"base": base, "view": view},
    ).one_or_none()
    if row is None:
        return LastLook()
    found = row.found or {}
    return LastLook(
        age_seconds=row.age,
        missing=found.get("missing", 0),
        different=found.get("different", 0),
        doubled=tuple(found.get("doubled", ())),
    )
