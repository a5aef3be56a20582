"""What a check found, and the checks that one look into the mirror can answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from sqlalchemy import text

from twm_pipeline.mirror.refusals import describe_refusal, read_refusals
from twm_pipeline.mirror.tables import (
    COMMENTS,
    CONVERSATIONS,
    DIRECTORIES,
    EMAILS,
    FEEDS,
    MISSIVE_DIRECTORIES,
    TASKLISTS,
    TASKS,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

    from twm_pipeline.mirror.tables import Table
    from twm_pipeline.records import Json

Verdict = Literal["ok", "warning", "error"]

UNRESOLVED_SHARE_TOLD = 0.01
UNRESOLVED_SHARE_WRONG = 0.10
"""Shares of a table's shown rows whose parent may be missing: a list that the key may not read is normal."""
SHOWN_REASONS = 3
CLOCK_TOLERANCE_SECONDS = 600
UNNOTICED_SECONDS = 1800
"""A row older than this that lies beyond its checkpoint was brought by something else than the poll."""
DIRECTORY_SLACK_SECONDS = 900

REFERENCES: Mapping[Table, tuple[tuple[str, Table], ...]] = {
    TASKS: (("tasklist_id", TASKLISTS),),
    TASKLISTS: (("project_id", next(table for table in DIRECTORIES if table.stream == "projects")),),
    EMAILS: (("conversation_id", CONVERSATIONS),),
    COMMENTS: (("conversation_id", CONVERSATIONS),),
}
"""Table → columns that name a row of another table."""
SCOPED = frozenset({TASKS, EMAILS})
"""Tables with rows that the settings of the scope hide."""
MOMENTS: Mapping[Table, str] = {TASKS: "updated_at", CONVERSATIONS: "last_activity_at"}
"""Table that is read by what changed → the column in whose order the vendor lists it."""
WITH_CHECKPOINT = frozenset({*DIRECTORIES, *MISSIVE_DIRECTORIES, *FEEDS, *MOMENTS})
"""Tables whose stream has a checkpoint of its own; the others are read with their parents."""
_LISTED = {
    TASKS: "NOT out_of_scope",
    CONVERSATIONS: "NOT coalesce(trashed, false) AND NOT coalesce(junked, false)",
}
"""Rows that the walk of the checkpoint itself meets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The answer of one check.

    Args:
        asset: Source and stream of the asset that it speaks of.
        check: The check's name, a statement that should be true.
        verdict: Whether it is; `warning`: somebody should know, `error`: somebody should act.
        text: What was found and what to do, for an operator; nothing of a row's content.
        figures: Numbers behind it.
        objects: Ids of the vendor's objects that it is about, some of them.
    """

    asset: tuple[str, str]
    check: str
    verdict: Verdict
    text: str
    figures: Mapping[str, int | float | str] = field(default_factory=dict)
    objects: tuple[str, ...] = ()


def find_keys(connection: Connection, table: Table) -> Finding:
    """Return whether every row has a key of its own.

    With another collation after an upgrade of the system an index of texts loses its way and lets doubles in
    that its own constraint does not see. So texts are compared in the order of their bytes, which is not
    that index's; where it is, no collation can change it, and the index alone is read. The people's views
    join tables by their keys: they show a row once if those are unique.
    """
    key = "id" if table.source == "teamwork" else 'id COLLATE "C"'
    rows, keys = connection.execute(text(f"SELECT count(*), count(DISTINCT {key}) FROM {table.name}")).one()
    doubled = rows - keys
    return Finding(
        asset=(table.source, table.stream),
        check="keys_are_unique",
        verdict="error" if doubled else "ok",
        text=f"{rows:,} rows, {doubled:,} without a key of their own"
        + (": REINDEX the table's primary key and look at the disk" if doubled else ""),
        figures={"rows": rows, "doubled": doubled},
    )


def find_references(connection: Connection, table: Table, *, more_to_read: bool) -> Finding:
    """Return whether the rows that people see belong to something that is in the mirror.

    Args:
        connection: To the mirror.
        table: One of `REFERENCES`.
        more_to_read: Whether history is still being read; then a share may be missing.
    """
    shown = f"NOT r.deleted AND NOT r.inaccessible{' AND NOT r.out_of_scope' if table in SCOPED else ''}"
    count = f"SELECT count(*) FROM {table.name} r WHERE {shown}"
    # Which parents are missing the indexes tell; hardly any ever is, and only then the rows are read.
    without = {
        f"without_{parent.stream}": connection.execute(
            text(
                f"{count} AND r.{column} = ANY(ARRAY(SELECT DISTINCT o.{column} FROM {table.name} o"
                f" WHERE o.{column} IS NOT NULL"
                f" AND NOT EXISTS (SELECT FROM {parent.name} p WHERE p.id = o.{column})))"
            )
        ).scalar_one()
        for column, parent in REFERENCES[table]
    }
    missing = max(without.values())
    if not missing:
        return _on_references(table, "ok", "every parent of a shown row is in the mirror", without)
    total = connection.execute(text(count)).scalar_one()
    share = missing / total
    words = f"{missing:,} of {total:,} shown rows name a parent that is not in the mirror"
    if more_to_read:
        words += "; history is still being read, so that is expected"
    elif share > UNRESOLVED_SHARE_TOLD:
        words += ": directories or `twm reconcile` should bring it; if not, the key may not read it"
    verdict = "ok" if more_to_read else _grade(share, UNRESOLVED_SHARE_TOLD, UNRESOLVED_SHARE_WRONG)
    return _on_references(table, verdict, words, {"rows": total, **without})


def _on_references(table: Table, verdict: Verdict, words: str, figures: Mapping[str, int]) -> Finding:
    asset = (table.source, table.stream)
    return Finding(asset=asset, check="references_resolve", verdict=verdict, text=words, figures=figures)


def find_refusals(connection: Connection, table: Table) -> Finding:
    """Return what of the stream of *table* the vendor refuses to show, in its words."""
    refused = [item for item in read_refusals(connection, table.source) if item["stream"] == table.stream]
    return Finding(
        asset=(table.source, table.stream),
        check="stream_is_readable",
        verdict="warning" if refused else "ok",
        text="; ".join(map(describe_refusal, refused)) or "nothing of it is refused",
        figures={"refused": len(refused)},
    )


def find_set_aside(connection: Connection, source: str, stream: str) -> Finding:
    """Return how many records of a stream could not be used and why; each is tried again by itself."""
    rows = connection.execute(
        text(
            "SELECT reason, count(*) AS records, (array_agg(object_id ORDER BY last_at DESC))[1\\:10] AS ids"
            " FROM twm.set_aside"
            " WHERE source = :source AND stream = :stream GROUP BY reason ORDER BY records DESC, reason"
        ),
        {"source": source, "stream": stream},
    ).all()
    total = sum(row.records for row in rows)
    reasons = "; ".join(f"{row.records:,}: {row.reason}" for row in rows[:SHOWN_REASONS])
    return Finding(
        asset=(source, stream),
        check="nothing_is_set_aside",
        verdict="warning" if total else "ok",
        text=f"{total:,} {'record is' if total == 1 else 'records are'} set aside ({reasons}): twm queue list"
        if total
        else "no record is set aside",
        figures={"set_aside": total},
        objects=tuple(object_id for row in rows[:SHOWN_REASONS] for object_id in row.ids),
    )


def find_checkpoint(
    connection: Connection, table: Table, checkpoint: Json | None, *, directory_seconds: float
) -> Finding | None:
    """Return whether the checkpoint of *table* moves and is believable; None where the table has none.

    Args:
        connection: To the mirror.
        table: The stream's.
        checkpoint: As `read_checkpoints` gives it; None: there is none yet.
        directory_seconds: How long directories may wait until they are read again.
    """
    if table not in WITH_CHECKPOINT:
        return None
    moment = checkpoint["last_event_time"] if checkpoint else None
    if checkpoint is None or moment is None:
        more = bool(checkpoint and checkpoint["more_to_read"])
        words = "its history is still being read for the first time" if more else "it has not been read yet"
        may_be = more or table in FEEDS  # an account need not have them, or the key may not see them
        return _on_checkpoint(table, "ok" if may_be else "warning", words)
    age = float(
        connection.execute(
            text("SELECT extract(epoch FROM now() - CAST(:moment AS timestamptz))"), {"moment": moment}
        ).scalar_one()
    )
    figures = {"age_seconds": round(age, 1)}
    if age < -CLOCK_TOLERANCE_SECONDS:
        words = f"it lies {-age:,.0f} s in the future: the clock of this machine or of the vendor is wrong"
        return _on_checkpoint(table, "error", words, figures)
    if table in (*DIRECTORIES, *MISSIVE_DIRECTORIES):
        allowed = 2 * directory_seconds + DIRECTORY_SLACK_SECONDS
        words = f"read completely {age:,.0f} s ago, every {directory_seconds:,.0f} s is planned"
        return _on_checkpoint(table, _grade(age, allowed, 4 * allowed), words, figures)
    if checkpoint["more_to_read"] or table not in MOMENTS:
        return _on_checkpoint(
            table, "ok", f"nothing is missing below {moment:%Y-%m-%d %H:%M:%S} UTC", figures
        )
    beyond = _count_beyond(connection, table, moment)
    words = f"complete up to {moment:%Y-%m-%d %H:%M:%S} UTC"
    if beyond:
        words += (
            f", but {beyond:,} older changes lie beyond it: the poll does not come through, see the last runs"
        )
    return _on_checkpoint(table, "warning" if beyond else "ok", words, {**figures, "beyond": beyond})


def _count_beyond(connection: Connection, table: Table, moment: object) -> int:
    """Return how many rows the poll should have met long ago lie beyond its checkpoint.

    A row that was dated into the future when it was written says nothing.
    """
    column = MOMENTS[table]
    query = text(
        f"SELECT count(*) FROM {table.name} WHERE {column} > :moment"
        f" AND {column} < now() - make_interval(secs => :old)"
        f" AND {column} <= synced_at + interval '5 minutes'"
        f" AND NOT deleted AND NOT inaccessible AND {_LISTED[table]}"
    )
    return int(connection.execute(query, {"moment": moment, "old": UNNOTICED_SECONDS}).scalar_one())


def _on_checkpoint(
    table: Table, verdict: Verdict, words: str, figures: Mapping[str, int | float | str] | None = None
) -> Finding:
    return Finding(
        asset=(table.source, table.stream),
        check="checkpoint_is_current",
        verdict=verdict,
        text=words,
        figures=figures or {},
    )


def _grade(value: float, told: float, wrong: float) -> Verdict:
    if value > wrong:
        return "error"
    return "warning" if value > told else "ok"
