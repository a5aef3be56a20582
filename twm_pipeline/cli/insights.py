"""`twm insights`: the tables and plots about the work, computed now."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from twm_pipeline.cli import output
from twm_pipeline.cli.options import AsJson, OfSandbox, settings_for
from twm_pipeline.cli.runs import report_problems, run_jobs
from twm_pipeline.records import Json

HELP = """Compute the insights now: what happened each day, how long replies take, how tasks flow.

It is done every morning, and once when the first import is complete. No vendor is asked. The tables are in
the schema insights, the plots on the status page and in Dagster's UI.

Examples: twm insights · twm insights --json · twm insights --sandbox
"""

NO_FIGURES = ("dagster/row_count", "written", "plot")
"""Metadata of a materialization that say nothing about the work."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("insights", help=HELP)(insights)


def insights(
    *,
    sandbox: OfSandbox = False,
    as_json: AsJson = False,
) -> None:
    """Compute them."""
    results = run_jobs(settings_for(sandbox=sandbox), [insights_request()])
    if as_json:
        output.print_json(dict(_computed(results)))
    else:
        show_insights(results)
    if code := report_problems(results):
        raise typer.Exit(code)


def insights_request() -> Json:
    """Return the run to ask for."""
    return {"job": "insights"}


def show_insights(results: Sequence[Json]) -> None:
    """Write what stands out in each table; nothing where none was computed."""
    rows = [
        (f"insights/{name}", figures["rows"], _in_words(figures["figures"]))
        for name, figures in _computed(results)
    ]
    if rows:
        output.print_table("Insights", ("table", "rows", "what stands out"), rows)


def _computed(results: Sequence[Json]) -> list[tuple[str, Json]]:
    """Return the tables that were computed, with their rows and figures."""
    return [
        (name, {"rows": found["dagster/row_count"], "figures": _without(found, NO_FIGURES)})
        for result in results
        for report in result["reports"]
        if report["source"] == "insights"
        for name, found in report["streams"].items()
    ]


def _without(figures: Json, names: Sequence[str]) -> Json:
    return {name: value for name, value in figures.items() if name not in names}


def _in_words(figures: Json) -> str:
    words = {name.replace("_7_days", " (7 days)").replace("_", " "): value for name, value in figures.items()}
    return " · ".join(f"{name}: {value:,g}" for name, value in words.items())
