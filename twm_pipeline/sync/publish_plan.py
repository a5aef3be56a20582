"""What to send of some rows, decided from their cells and from what is known to be published of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from twm_pipeline.airtable.cells import Cells, digest
from twm_pipeline.mirror.published import Published


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One record to write.

    Args:
        row_id: The key of its row.
        record_id: The record; None: the one with this key, made if there is none.
        cells: Every cell by its field's name; None empties it.
        cells_hash: Digest of *cells*.
    """

    row_id: str
    record_id: str | None
    cells: Cells
    cells_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to send about some rows: nothing, for most of them."""

    writes: tuple[Write, ...] = ()
    removals: tuple[Published, ...] = ()
    unchanged: tuple[str, ...] = ()


def plan_publish(ids: Sequence[str], cells: Mapping[str, Cells], known: Mapping[str, Published]) -> Plan:
    """Return what differs between the rows *ids* and what was published of them.

    Args:
        ids: Keys of the rows to compare.
        cells: Cells of those that the view shows.
        known: What was published of them.
    """
    writes: list[Write] = []
    removals: list[Published] = []
    unchanged: list[str] = []
    for row_id in dict.fromkeys(ids):
        before = known.get(row_id)
        if row_id not in cells:
            (removals.append(before) if before else unchanged.append(row_id))
            continue
        cells_hash = digest(cells[row_id])
        if before is not None and before.record_id is not None and before.cells_hash == cells_hash:
            unchanged.append(row_id)
            continue
        writes.append(
            Write(
                row_id=row_id,
                record_id=before.record_id if before else None,
                cells=cells[row_id],
                cells_hash=cells_hash,
            )
        )
    return Plan(writes=tuple(writes), removals=tuple(removals), unchanged=tuple(unchanged))
