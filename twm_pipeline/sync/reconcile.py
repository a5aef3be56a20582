"""A complete sweep of both sources: what no poll can see is found and repaired (DESIGN D5).

Everything living is listed and stored; what the mirror holds and no list shows is looked at by itself.
Absence alone only marks a row as missing; it becomes a tombstone when it is still gone ten minutes later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from twm_pipeline.mirror.checkpoints import forget_unidentified
from twm_pipeline.mirror.sweeps import SeenRows, seen_rows
from twm_pipeline.mirror.tables import CONVERSATIONS, DIRECTORIES, FEEDS, TASK_COMMENTS, TASKS
from twm_pipeline.mirror.tombstones import follow_tasks
from twm_pipeline.sources.fields import plain_id
from twm_pipeline.sources.missive import MAILBOXES, Mailbox, activity_of
from twm_pipeline.sources.teamwork_rows import is_deleted
from twm_pipeline.sync.engine import PassOptions
from twm_pipeline.sync.missive import MissivePass
from twm_pipeline.sync.teamwork import MISSING_RESOURCES, TeamworkPass
from twm_pipeline.sync.walks import walk_down, walk_up

if TYPE_CHECKING:
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
    with seen_rows(work.engine, TASKS, *DIRECTORIES, *FEEDS) as seen:
        before = _list_tasks(sweep, seen[TASKS], options)
        listed = [TASKS, *(table for table in DIRECTORIES if _list_directory(sweep, seen[table], options))]
        listed += [table for table in FEEDS if _list_feed(sweep, seen[table], options)]
        absent = {table: seen[table].absent(before=before, only_shown=table is TASKS) for table in listed}
    if options.dry_run:
        return {table.stream: len(ids) for table, ids in absent.items()}
    sweep.read_deleted_in_full()
    gone = {}
    with work.commit() as connection:
        follow_tasks(connection, comment_ids=absent.get(TASK_COMMENTS, ()))
    for table, ids in absent.items():
        confirmed = options.confirm_deletions
        sweep.absent.sweep(table, _still_living(work, table, ids), confirmed=confirmed)
        gone[table.stream] = sweep.absent.decide(table, confirmed=confirmed)
    return gone


def _list_tasks(sweep: TeamworkPass, seen: SeenRows, options: ReconcileOptions) -> int:
    """List every living task and store it; return the number of the first request."""
    before = 0
    for step in walk_up(sweep.fetcher(fresh=False), start=None):
        before = before or step.pages[0].reply.seq
        for page in step.pages:
            sweep.work.note_reply(page.reply)
            seen.add({item for row in page.rows if isinstance(item := plain_id(row), int)})
        if not options.dry_run:
            sweep.store_tasks(step.pages)
        sweep.work.progress("tasks", phase="reconcile", done=seen.count)
    return before


def _list_directory(sweep: TeamworkPass, seen: SeenRows, options: ReconcileOptions) -> bool:
    """List a directory and store it; return False where the key may not read it."""
    try:
        ids = sweep.list_directory(seen.table) if options.dry_run else sweep.read_directory(seen.table)
    except MISSING_RESOURCES as error:
        sweep.work.report.problems.append(f"{seen.table.stream}: {error}")
        return False
    seen.add(ids)
    return True


def _list_feed(sweep: TeamworkPass, seen: SeenRows, options: ReconcileOptions) -> bool:
    """List time entries or comments and store them; return False where the key may not read them."""
    table = seen.table
    try:
        for page in sweep.feeds.listing(table):
            seen.add(
                {item for row in page.rows if not is_deleted(row) and isinstance(item := plain_id(row), int)}
            )
            if not options.dry_run:
                sweep.store_directory_rows(table, page)
            sweep.work.progress(table.stream, phase="reconcile", done=seen.count)
    except MISSING_RESOURCES as error:
        sweep.work.report.problems.append(f"{table.stream}: {error}")
        return False
    return True


def _reconcile_missive(work: Pass, options: ReconcileOptions) -> dict[str, int]:
    sweep = MissivePass(work, PassOptions())
    before = 0
    with seen_rows(work.engine, CONVERSATIONS) as tables:
        seen = tables[CONVERSATIONS]
        for mailbox in MAILBOXES:
            first = _list_mailbox(sweep, mailbox, seen, options)
            before = before or first
        absent = seen.absent(before=before)
    if options.dry_run:
        return {"conversations": len(absent)}
    sweep.refresh(absent, complete=True)
    return {"conversations": sweep.decide_missing(confirmed=options.confirm_deletions)}


def _list_mailbox(sweep: MissivePass, mailbox: Mailbox, seen: SeenRows, options: ReconcileOptions) -> int:
    """List a mailbox and store what no mailbox before it held; return the number of the first request."""
    first = 0
    for step in walk_down(
        lambda until: sweep.api.fetch_conversations(mailbox, until=until, fresh=False), time_of=activity_of
    ):
        first = first or step.page.reply.seq
        sweep.work.note_reply(step.page.reply)
        fresh = seen.add({str(row.get("id")) for row in step.rows})
        if not options.dry_run:
            rows = [row for row in step.rows if str(row.get("id")) in fresh]
            sweep.store_rows(rows, step.page.reply, fresh=False, complete=True)
        sweep.work.progress("conversations", phase=f"reconcile {mailbox}", done=seen.count)
        if step.oldest is not None and sweep.floor is not None and step.oldest < sweep.floor:
            break
    return first


def _still_living(work: Pass, table: Table, ids: list[Any]) -> list[Any]:
    """Return those of *ids* that the feed of deleted rows has not made tombstones meanwhile."""
    with work.read() as connection:
        rows = connection.execute(
            text(f"SELECT id FROM {table.name} WHERE id = ANY(:ids) AND NOT deleted"),  # noqa: S608 - a name from tables.py
            {"ids": ids},
        )
        return [row.id for row in rows]
