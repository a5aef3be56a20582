"""What a benchmark hands back, as a table for people and as JSON."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """One aim, what was measured for it, and whether that is enough (None: cannot be told)."""

    text: str
    measured: str
    met: bool | None


@dataclass(slots=True, kw_only=True)
class Report:
    """The outcome of one benchmark.

    Args:
        name: Of the JSON file.
        title: Above the table.
        columns: Heads of the table.
        rows: Its cells.
        aims: What the figures are held against.
        figures: Everything measured, for the JSON file.
        notes: What a reader has to know.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    aims: list[Aim] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def publish(report: Report, *, console: Console, folder: Path = RESULTS) -> Path:
    """Print *report* and write it to *folder*; return the file."""
    table = Table(title=report.title, title_justify="left")
    for place, head in enumerate(report.columns):
        table.add_column(head, justify="right" if place else "left")
    for row in report.rows:
        table.add_row(*row)
    console.print(table)
    for aim in report.aims:
        verdict = {True: "met", False: "NOT MET", None: "not measured"}[aim.met]
        console.print(f"  {verdict:>12}  {aim.text}: {aim.measured}", highlight=False)
    for note in report.notes:
        console.print(f"  {note}", style="dim", highlight=False)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{report.name}.json"
    path.write_bytes(orjson.dumps(asdict(report) | {"machine": machine()}, option=orjson.OPT_INDENT_2))
    return path


def machine() -> dict[str, Any]:
    """Return what the figures were measured on, and when."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
        "cpus": os.cpu_count(),
        "load_average": os.getloadavg(),
        "at": datetime.now(UTC),
    }


def median(values: Iterable[float]) -> float:
    """Return the median of *values*."""
    return statistics.median(values)


def ratio(value: float, base: float) -> str:
    """Return *value* in multiples of *base*."""
    return f"{value / base:.2f} x" if base else "-"
