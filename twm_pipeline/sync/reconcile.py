"""A complete sweep of a source: what no poll can see is found and repaired (DESIGN D5).

Everything living is listed and stored; what the mirror holds and no list shows is looked at by itself.
Absence alone only marks a row as missing; it becomes a tombstone when it is still gone ten minutes later.
A sweep that was interrupted goes on where it was (`mirror/sweeps.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from twm_pipeline.mirror.checkpoints import forget_checkpoints_ahead
from twm_pipeline.mirror.set_aside import forget_unidentified
from twm_pipeline.mirror.sweeps import open_sweep
from twm_pipeline.sync.reconcile_missive import MissiveSweep
from twm_pipeline.sync.reconcile_teamwork import TeamworkSweep

if TYPE_CHECKING:
    from twm_pipeline.records import Json
    from twm_pipeline.sync.engine import Pass


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcileOptions:
    """How to sweep.

    Args:
        dry_run: Do everything and keep nothing; the report says what a real sweep would do.
        confirm_deletions: Believe more deletions than DESIGN D5 does without asking.
        full: Read the messages and comments of every conversation, not only of those whose turn it is.
    """

    dry_run: bool = False
    confirm_deletions: bool = False
    full: bool = False


def reconcile(work: Pass, options: ReconcileOptions) -> dict[str, int]:
    """Sweep one source; return per stream how many rows are gone for good.

    Raises:
        RetriableError: If another process sweeps this source.
    """

    def may_go_on(place: Json) -> bool:
        return not options.full or bool(place.get("full"))

    with open_sweep(
        work.engine,
        work.source,
        place={"full": options.full},
        may_go_on=may_go_on,
        is_kept=not options.dry_run,
    ) as sweep:
        if sweep.continued:
            work.report.notes.append(
                f"{work.source}: went on with the interrupted sweep of {sweep.began_at:%d.%m. %H:%M} UTC;"
                " what changed since then in lists that it had read is found by the next one"
            )
        steps = TeamworkSweep if work.source == "teamwork" else MissiveSweep
        gone = steps(work, sweep, confirmed=options.confirm_deletions).run()
        sweep.finish()
    with work.commit() as connection:
        forget_unidentified(connection, work.source, before=sweep.began_at)
        ahead = forget_checkpoints_ahead(connection, work.source, now=work.require_vendor_now())
    if ahead:
        work.report.notes.append(
            f"{work.source}: the vendor's clock was set back behind the checkpoints of {', '.join(ahead)};"
            " the next pass reads these from the beginning, behind fresh changes"
        )
    return gone
