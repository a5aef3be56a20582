"""Rows that PostgreSQL refuses, by a type, by a constraint or by a trigger of the mirror's owner.

Nothing of this costs a batch that is stored anything but its savepoint.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from sqlalchemy.exc import DBAPIError

from twm_pipeline.db import is_unavailable
from twm_pipeline.mirror.set_aside import SetAside
from twm_pipeline.mirror.upserts import Counts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from twm_pipeline.mirror.tables import Table
    from twm_pipeline.mirror.upserts import Observed

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

ABOUT_ROWS = ("22", "23", "44", "P0")
"""Classes of SQLSTATEs that a row may be at fault for: data, constraints, views' conditions, PL/pgSQL."""
ABOUT_TRANSACTIONS = "40"
"""Class of SQLSTATEs such as a deadlock's: the same rows can be stored by the next try."""
RAISED = "exec_stmt_raise"
"""What executes RAISE in PostgreSQL: unless a trigger gives the SQLSTATE of what passes, a row is meant."""

_NAME = re.compile(r"[A-Za-z_][\w$]{0,62}")
_FUNCTION = re.compile(r"^PL/pgSQL\S*(?: function)? ([A-Za-z_][\w$.]{0,126})\(", re.MULTILINE)


def store_halving(
    connection: Connection,
    table: Table,
    items: Sequence[Observed],
    *,
    store: Callable[[Sequence[Observed]], Counts],
    refused: list[SetAside],
) -> Counts:
    """Store *items*; where one is refused try both halves until it is alone.

    Args:
        connection: The transaction; each try is a savepoint of it.
        table: Of the stream.
        items: Rows.
        store: Stores some of them in the transaction.
        refused: Takes those that are refused, with reasons that hold nothing of them.
    """
    counts = Counts()
    for part in _halving(
        connection,
        items,
        do=store,
        refuse=lambda item, cause: refused.append(_refused(table, item, cause)),
    ):
        counts.add(part)
        counts.written_ids += part.written_ids
    return counts


def update_halving(
    connection: Connection, table: Table, ids: Sequence[Any], *, update: Callable[[Sequence[Any]], int]
) -> int:
    """Update rows by their ids; those that are refused stay as they are, which the log says.

    Args:
        connection: The transaction; each try is a savepoint of it.
        table: Of the stream.
        ids: Rows.
        update: Updates some of them in the transaction, and returns how many changed.
    """

    def refuse(row_id: object, cause: BaseException | None) -> None:
        words = f"{type(cause).__name__}{_place(cause)}"
        logger.warning("%s %s stays as it is: PostgreSQL refuses the row: %s", table.name, row_id, words)

    return sum(_halving(connection, ids, do=update, refuse=refuse))


def _halving(
    connection: Connection,
    items: Sequence[T],
    *,
    do: Callable[[Sequence[T]], R],
    refuse: Callable[[T, BaseException | None], None],
) -> list[R]:
    """Do something to *items*, to both halves of them where one is refused; return what came of each part."""
    if not items:
        return []
    try:
        with connection.begin_nested():
            return [do(items)]
    except (psycopg.Error, DBAPIError, UnicodeError) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        if not _is_about_rows(cause):
            raise
        if len(items) == 1:
            refuse(items[0], cause)
            return []
    middle = len(items) // 2
    halves = (items[:middle], items[middle:])
    return [part for half in halves for part in _halving(connection, half, do=do, refuse=refuse)]


def _is_about_rows(cause: BaseException | None) -> bool:
    if isinstance(cause, psycopg.Error):
        kind = (cause.sqlstate or "")[:2]
        said_by_a_trigger = cause.diag.source_function == RAISED
        passes = kind == ABOUT_TRANSACTIONS or is_unavailable(cause)
        return kind in ABOUT_ROWS or (said_by_a_trigger and not passes)
    return isinstance(cause, UnicodeError)


def _refused(table: Table, item: Observed, cause: BaseException | None) -> SetAside:
    """Return a row as a record to set aside; what is in a conversation names it, to be read with it."""
    parent = getattr(item.record, "conversation_id", None)
    return SetAside(
        stream=table.stream,
        object_id=str(item.record.id),
        reason=f"PostgreSQL refuses the row: {type(cause).__name__}{_place(cause)}",
        raw={"conversation": {"id": parent}} if parent is not None else None,
    )


def _place(cause: BaseException | None) -> str:
    """Return what refuses a row, by name: messages and details of PostgreSQL quote the row."""
    if not isinstance(cause, psycopg.Error):
        return ""
    names = [f"function {name}" for name in _FUNCTION.findall(cause.diag.context or "")[:1]]
    if cause.diag.source_function != RAISED:  # else they are whatever the trigger says
        named = {"constraint": cause.diag.constraint_name, "column": cause.diag.column_name}
        names += [f"{what} {name}" for what, name in named.items() if name and _NAME.fullmatch(name)]
    return f" ({', '.join(names)})" if names else ""
