"""What the mirror's own books need not keep for ever; rows of the vendors are never removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

_REMOVED: Mapping[str, str] = {
    # What a pass was doing that was killed, long ago.
    "progress": "DELETE FROM twm.progress WHERE updated_at < now() - interval '1 day'",
    # Requests count for minutes; the last ones stay when a source stands still.
    "budget_requests": "DELETE FROM twm.budget_requests WHERE sent_at < now() - interval '1 hour'",
    "monthly_calls": "DELETE FROM twm.monthly_calls WHERE month < current_date - interval '13 months'",
    # While publishing stands still a row may change many times; one entry says it.
    "change_log": "DELETE FROM twm.change_log old USING twm.change_log new"
    " WHERE (old.view, old.row_id) = (new.view, new.row_id) AND old.id < new.id",
}


def remove_old(connection: Connection) -> dict[str, int]:
    """Remove what nobody asks for any more; return how many rows of which table of schema `twm`."""
    return {table: connection.execute(text(query)).rowcount for table, query in _REMOVED.items()}
