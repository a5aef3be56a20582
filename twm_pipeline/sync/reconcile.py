"""A complete sweep of both sources: what no poll can see is found and repaired (DESIGN D5).

Everything living is listed and stored; what the mirror holds and no list shows is looked at by itself.
Absence alone only marks a row as missing; it becomes a tombstone when it is still gone ten minutes later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from twm_pipeline.errors import AccessError
from twm_pipeline.mirror.checkpoints import forget_unidentified
from twm_pipeline.mirror.tables import CONVERSATIONS, DIRECTORIES, TASKS
from twm_pipeline.sources.missive import MAILBOXES, activity_of
from twm_pipeline.sync.engine import PassOptions
from twm_pipeline.sync.missive import MissivePass
from twm_pipeline.sync.teamwork import TeamworkPass
from twm_pipeline.sync.walks import walk_down, walk_up

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from twm_pipeline.mirror.tables import Table
    from twm_pipeline.sync.engine import Pass


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcileOptions:
    """How to sweep.

    Args:
        dry_run: Only list, and report what differs; nothing is stored.
        confirm_deletions: Believe more deletions than DESIGN D5 does without asking.
    """

    dry_run: bool = False
    confirm_deletions: bool = False


def reconcile(work: Pass, options: ReconcileOptions) -> dict[str, int]:
    """Sweep one source; return per stream how many rows no list shows (dry run) or are gone now."""
    with work.read() as connection:
        began = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    sweep = _reconcile_teamwork if work.source == "teamwork" else _reconcile_missive
    gone = sweep(work, options)
    if not options.dry_run:
        with work.commit() as connection:
            forget_unidentified(connection, work.source, before=began)
    return gone


def _reconcile_teamwork(work: Pass, options: ReconcileOptions) -> dict[str, int]:
    sweep = TeamworkPass(work, PassOptions(directories=True))
    before: int | None = None
    found: dict[Table, set[int]] = {TASKS: set()}
    for step in walk_up(sweep.fetcher(fresh=False), start=None):
        before = before or step.pages[0].reply.seq
        rows = [row for page in step.pages for row in page.rows]
        found[TASKS] |= {row["id"] for row in rows if isinstance(row.get("id"), int)}
        for page in step.pages:
            work.note_reply(page.reply)
        if not options.dry_run:
            sweep.store_tasks(step.pages)
        work.progress("tasks", phase="reconcile", done=len(found[TASKS]))
    for table in DIRECTORIES:
        try:
            found[table] = sweep.list_directory(table) if options.dry_run else sweep.read_directory(table)
        except AccessError as error:
            work.report.problems.append(f"{table.stream}: {error}")
    with work.read() as connection:
        absent = {
            table: _absent(connection, table, ids, before=before, only_scope=table is TASKS)
            for table, ids in found.items()
        }
    if options.dry_run:
        return {table.stream: len(ids) for table, ids in absent.items()}
    sweep.read_deleted_in_full()
    gone = {}
    for table, ids in absent.items():
        confirmed = options.confirm_deletions
        sweep.absent.sweep(table, _still_living(work, table, ids), confirmed=confirmed)
        gone[table.stream] = sweep.absent.decide(table, confirmed=confirmed)
    return gone


def _reconcile_missive(work: Pass, options: ReconcileOptions) -> dict[str, int]:
    sweep = MissivePass(work, PassOptions())
    before: int | None = None
    found: set[str] = set()
    for mailbox in MAILBOXES:
        for step in walk_down(
            lambda until, mailbox=mailbox: sweep.api.fetch_conversations(  # type: ignore[misc]  # bound per loop
                mailbox, until=until, fresh=False
            ),
            time_of=activity_of,
        ):
            before = before or step.page.reply.seq
            work.note_reply(step.page.reply)
            rows = [row for row in step.rows if str(row.get("id")) not in found]
            found |= {str(row.get("id")) for row in rows}
            if not options.dry_run:
                sweep.store_rows(rows, step.page.reply, fresh=False, complete=True)
            work.progress("conversations", phase=f"reconcile {mailbox}", done=len(found))
            if step.oldest is not None and sweep.floor is not None and step.oldest < sweep.floor:
                break
    with work.read() as connection:
        absent = _absent(connection, CONVERSATIONS, found, before=before)
    if options.dry_run:
        return {"conversations": len(absent)}
    sweep.refresh(absent, complete=True)
    return {"conversations": sweep.decide_missing(confirmed=options.confirm_deletions)}


def _absent(
    connection: Connection, table: Table, found: set[Any], *, before: int | None, only_scope: bool = False
) -> list[Any]:
    """Return living rows of *table*, older than the sweep's first answer, that no list showed."""
    condition = " AND NOT out_of_scope" if only_scope else ""
    rows = connection.execute(
        text(f"SELECT id FROM {table.name} WHERE NOT deleted AND observed_seq < :before{condition}"),  # noqa: S608 - a name from tables.py
        {"before": before},
    )
    return [row.id for row in rows if row.id not in found]


def _still_living(work: Pass, table: Table, ids: list[Any]) -> list[Any]:
    """Return those of *ids* that the feed of deleted rows has not made tombstones meanwhile."""
    with work.read() as connection:
        rows = connection.execute(
            text(f"SELECT id FROM {table.name} WHERE id = ANY(:ids) AND NOT deleted"),  # noqa: S608 - a name from tables.py
            {"ids": ids},
        )
        return [row.id for row in rows]
