"""How the commands speak: tables for people, JSON for programs, one line for an error, a bar meanwhile."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from twm_pipeline import logs

OK, FAILED, MISUSED, TO_BE_CHANGED = 0, 1, 2, 3

_BARS: list[Console] = []
"""The console of the bar that is shown, if one is: lines beside it have to go through it."""
PLAIN_WIDTH = 160
"""Columns of a table without a terminal: whoever reads a log wants the words whole."""


def out() -> Console:
    """Return a console on standard output, without colours unless it is a terminal."""
    return _console(stderr=False)


def err() -> Console:
    """Return a console on standard error: progress and errors, so that output can be piped."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    if _BARS and stream.isatty():
        return _BARS[-1]
    width = None if stream.isatty() else PLAIN_WIDTH
    return Console(file=stream, highlight=False, soft_wrap=True, width=width)


class Show(Protocol):
    """Shows how far something is."""

    def __call__(self, words: str, *, done: int | None = None, total: int | None = None) -> None:
        """Replace what is shown; without a *total* the bar only says that something goes on."""
        ...


@contextmanager
def progress(words: str) -> Iterator[Show]:
    """Give what shows how far something is, on standard error; nothing is shown without a terminal."""
    console = err()
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
    )
    with Progress(
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal,
        redirect_stdout=False,  # what is piped stays in its pipe
        redirect_stderr=False,
    ) as bars:
        bar = bars.add_task(words, total=None)

        def show(words: str, *, done: int | None = None, total: int | None = None) -> None:
            bars.update(bar, description=printable(words), completed=done or 0, total=total)

        _BARS.append(console)
        try:
            yield show
        finally:
            _BARS.pop()


def say(text: str) -> None:
    """Write a line for a person; brackets in it are no markup."""
    out().print(printable(text), markup=False)


def note(text: str) -> None:
    """Write a line for a person beside what the command prints."""
    err().print(text, markup=False)


def complain(text: str) -> None:
    """Write an error."""
    err().print(printable(text), markup=False, style="red")


def printable(text: str) -> str:
    """Return *text* without what would steer a terminal, its lines kept: part of it may come from outside."""
    return "\n".join(map(logs.printable, text.replace("\t", "    ").split("\n")))


def print_json(value: Any) -> None:  # noqa: ANN401 - whatever a command reports
    """Write *value* as JSON; instants in ISO 8601."""
    sys.stdout.write(json.dumps(value, default=_plain, indent=2, ensure_ascii=False) + "\n")


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table; numbers are aligned to the right."""
    rows = [list(row) for row in rows]
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for index, name in enumerate(columns):
        numeric = all(isinstance(row[index], int | float) for row in rows) and bool(rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    out().print(table, markup=False)


def _cell(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, float):
        return f"{value:,.1f}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return "-" if value is None else printable(str(value))
