"""Which rows the views show: start dates, exclusions and the switch for old completed tasks (DESIGN D3).

Out of scope is hidden, not deleted, and no part of a row's hash: it is computed here for rows just written,
and for all rows when a setting changes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from twm_pipeline.mirror.tables import FEEDS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from twm_pipeline.mirror.tables import Table
    from twm_pipeline.records import Json, Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What is to be shown of a source.

    Args:
        process_after: Tasks created, or messages delivered, on or after.
        completed_before: Hide tasks completed before (the first import); None: show all.
        excluded_projects: Hide their tasks.
        excluded_companies: Hide the tasks of their projects.
    """

    process_after: datetime | None = None
    completed_before: datetime | None = None
    excluded_projects: tuple[int, ...] = ()
    excluded_companies: tuple[int, ...] = ()

    @property
    def shows_everything(self) -> bool:
        """Whether nothing is hidden."""
        return self == Scope()

    @property
    def excludes(self) -> bool:
        """Whether a task's project decides."""
        return bool(self.excluded_projects or self.excluded_companies)

    def to_json(self) -> Json:
        """Return JSON to compare with what was stored."""
        return {
            key: value.isoformat() if hasattr(value, "isoformat") else list(value)
            for key, value in asdict(self).items()
            if value
        }


# Exclusions fail closed: a task whose project or company is not known yet is hidden until it is.
_HIDDEN = {
    "teamwork": """
        UPDATE teamwork.tasks t SET out_of_scope = NOT t.out_of_scope
        FROM teamwork.tasks x
        LEFT JOIN teamwork.tasklists l ON l.id = x.tasklist_id
        LEFT JOIN teamwork.projects p ON p.id = l.project_id
        WHERE x.id = t.id AND (CAST(:ids AS bigint[]) IS NULL OR t.id = ANY(:ids)) AND t.out_of_scope <> (
            coalesce(t.created_at < CAST(:process_after AS timestamptz), false)
            OR coalesce(t.completed_at < CAST(:completed_before AS timestamptz), false)
            OR coalesce(l.project_id = ANY(:projects), cardinality(CAST(:projects AS bigint[])) > 0)
            OR coalesce(p.company_id = ANY(:companies), cardinality(CAST(:companies AS bigint[])) > 0)
        )
    """,
    "missive": """
        UPDATE missive.emails e SET out_of_scope = NOT e.out_of_scope
        WHERE (CAST(:ids AS text[]) IS NULL OR e.id = ANY(:ids)) AND e.out_of_scope <>
            coalesce(coalesce(e.delivered_at, e.created_at) < CAST(:process_after AS timestamptz), false)
    """,
}

# What lies on a task goes with it, hidden too while the task is not known; the rest goes with its project.
_HIDDEN_BELOW = """
    UPDATE {table} c SET out_of_scope = NOT c.out_of_scope
    FROM {table} x
    LEFT JOIN teamwork.tasks t ON t.id = x.task_id
    LEFT JOIN teamwork.projects p ON p.id = x.project_id
    WHERE x.id = c.id AND (CAST(:ids AS bigint[]) IS NULL OR c.id = ANY(:ids))
    AND (CAST(:task_ids AS bigint[]) IS NULL OR c.task_id = ANY(:task_ids)) AND c.out_of_scope <> CASE
        WHEN x.task_id IS NOT NULL THEN coalesce(t.out_of_scope, :hides)
        ELSE coalesce(x.created_at < CAST(:process_after AS timestamptz), false)
            OR coalesce(x.project_id = ANY(:projects), cardinality(CAST(:projects AS bigint[])) > 0)
            OR coalesce(p.company_id = ANY(:companies), cardinality(CAST(:companies AS bigint[])) > 0)
    END
"""


def apply_scope(
    connection: Connection, source: Source, scope: Scope, *, ids: Sequence[Any] | None = None
) -> None:
    """Hide and show rows by *scope*: the tasks or messages *ids* (with what lies on them), or all."""
    values: dict[str, Any] = {"ids": None if ids is None else list(ids), "process_after": scope.process_after}
    if source == "teamwork":
        values |= {
            "completed_before": scope.completed_before,
            "projects": list(scope.excluded_projects),
            "companies": list(scope.excluded_companies),
        }
    connection.execute(text(_HIDDEN[source]), values)
    if source == "teamwork":
        for table in FEEDS:
            _apply_below(connection, table, scope, task_ids=ids)


def apply_scope_below(connection: Connection, table: Table, scope: Scope, *, ids: Sequence[Any]) -> None:
    """Hide and show time entries or comments just written, as what they belong to is."""
    if ids:
        _apply_below(connection, table, scope, ids=ids)


def _apply_below(
    connection: Connection,
    table: Table,
    scope: Scope,
    *,
    ids: Sequence[Any] | None = None,
    task_ids: Sequence[Any] | None = None,
) -> None:
    values = {
        "ids": None if ids is None else list(ids),
        "task_ids": None if task_ids is None else list(task_ids),
        "process_after": scope.process_after,
        "projects": list(scope.excluded_projects),
        "companies": list(scope.excluded_companies),
        "hides": not scope.shows_everything,
    }
    connection.execute(text(_HIDDEN_BELOW.format(table=table.name)), values)


def remember_scope(connection: Connection, source: Source, scope: Scope) -> None:
    """Store *scope*, so that the next pass knows whether it changed."""
    connection.execute(
        text("UPDATE twm.sources SET scope = :scope WHERE source = :source").bindparams(
            bindparam("scope", type_=JSONB)
        ),
        {"source": source, "scope": scope.to_json()},
    )
