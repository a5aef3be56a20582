"""`twm reconcile`, `twm categorize`, `twm reparse`: repair and re-reading."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer
from sqlalchemy import Engine

from twm_pipeline.cli import output
from twm_pipeline.cli.mirror import opened_mirror
from twm_pipeline.cli.options import AsJson, OfSandbox, Sources, settings_for
from twm_pipeline.cli.runs import job_request, report_problems, run_jobs
from twm_pipeline.cli.sync import choose_sources
from twm_pipeline.labels import load_categories
from twm_pipeline.mirror.schema import categorize as apply_categories
from twm_pipeline.mirror.status import count_tables
from twm_pipeline.mirror.tables import TABLES, Table
from twm_pipeline.records import Json
from twm_pipeline.sync.reparse import Reparsed, reparse_table

RECONCILE_HELP = """Sweep the vendors completely and repair what no poll can see, such as vanished rows.

Everything is listed. Messages and comments are read again of recent Missive conversations, of the others by
turns (RECONCILE_DAYS, RECONCILE_CONVERSATIONS) or all at once (--full). What was interrupted goes on.

A row that is gone is looked at twice, ten minutes apart, before it becomes a tombstone. When more rows are
gone than 5 % of a table, nothing is believed without --confirm-deletions: a lost permission looks the same.

Examples: twm reconcile · twm reconcile teamwork --dry-run · twm reconcile missive --full · twm reconcile
--sandbox --dry-run
"""
CATEGORIZE_HELP = """Apply the label categories file again: a column per category in both views.

No vendor is asked.

Examples: twm categorize · twm categorize --sandbox
"""
REPARSE_HELP = """Fill the columns anew from the vendors' JSON that is stored in every row.

No vendor is asked. A second time changes nothing.

Examples: twm reparse · twm reparse teamwork.tasks missive.emails --json
"""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("reconcile", help=RECONCILE_HELP)(reconcile)
    app.command("categorize", help=CATEGORIZE_HELP)(categorize)
    app.command("reparse", help=REPARSE_HELP)(reparse)


def reconcile(  # noqa: PLR0913 - each is an option of the command
    sources: Sources = None,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Do everything, keep nothing, say what would change.")
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Read every Missive conversation in full, whatever its age.")
    ] = False,
    confirm_deletions: Annotated[
        bool, typer.Option("--confirm-deletions", help="Believe more deletions than 5 % of a table.")
    ] = False,
    sandbox: OfSandbox = False,
    as_json: AsJson = False,
) -> None:
    """Sweep the vendors completely."""
    settings = settings_for(sandbox=sandbox)
    chosen = choose_sources(settings, sources)
    config = {
        "sources": chosen,
        "dry_run": dry_run,
        "full": full,
        "confirm_deletions": confirm_deletions,
    }
    results = run_jobs(settings, [job_request("reconcile", op="sweep", config=config)])
    if as_json:
        output.print_json(results[0])
    else:
        _show_sweeps(results[0]["sweeps"], dry_run=dry_run)
    if code := report_problems(results):
        raise typer.Exit(code)


def _show_sweeps(sweeps: list[Json], *, dry_run: bool) -> None:
    rows = [
        (
            f"{sweep['source']}/{stream}",
            sweep.get(f"written_{stream}", 0),
            sweep.get(f"absent_{stream}", 0),
            count,
        )
        for sweep in sweeps
        for name, count in sweep.items()
        if name.startswith("gone_") and (stream := name.removeprefix("gone_"))
    ]
    title = "What a sweep would do; nothing was stored" if dry_run else "What the sweep did"
    if rows:
        output.print_table(title, ("table", "rows written", "not listed", "gone for good"), rows)
    for sweep in sweeps:
        for note in sweep.get("notes", []):
            output.say(note)
        for problem in (*sweep["problems"], *sweep["held_deletions"]):
            output.complain(str(problem))


def categorize(
    *,
    sandbox: OfSandbox = False,
    as_json: AsJson = False,
) -> None:
    """Apply the categories file again."""
    settings = settings_for(sandbox=sandbox)
    categories = load_categories(settings.label_categories_file)
    with opened_mirror(settings) as engine:
        changed = apply_categories(engine, categories)
    if as_json:
        output.print_json({"changed": changed, "categories": {k: list(v) for k, v in categories.items()}})
    elif settings.label_categories_file.exists():
        state = "applied" if changed else "as they were"
        output.say(f"{len(categories)} categories of {settings.label_categories_file}: {state}.")
    else:
        output.say(
            f"There is no file {settings.label_categories_file}, so the views have no category columns."
        )


def reparse(
    tables: Annotated[
        list[str] | None, typer.Argument(help="Such as teamwork.tasks; all of them if none is named.")
    ] = None,
    *,
    sandbox: OfSandbox = False,
    as_json: AsJson = False,
) -> None:
    """Fill the columns anew from the stored JSON."""
    chosen = _choose_tables(tables)
    results: list[Reparsed] = []
    with opened_mirror(settings_for(sandbox=sandbox)) as engine, output.progress("reading …") as show:
        totals = _count_rows(engine)
        for table in chosen:
            total = totals[table.name]
            tell = partial(_tell_rows, show, table.name, total)
            results.append(reparse_table(engine, table, on_batch=tell))
    if as_json:
        output.print_json([result.as_dict() for result in results])
    else:
        rows = [(r.table, r.read, r.rewritten, r.unusable, r.seconds) for r in results]
        output.print_table("Parsed again", ("table", "rows", "rewritten", "unusable", "seconds"), rows)
    if any(result.unusable for result in results):
        output.complain("Rows that the parsers cannot use stayed as they were.")
        raise typer.Exit(output.FAILED)


def _count_rows(engine: Engine) -> dict[str, int]:
    with engine.connect() as connection:
        return {row["table"]: row["living"] + row["deleted"] for row in count_tables(connection)}


def _tell_rows(show: output.Show, table: str, total: int, done: int) -> None:
    show(f"{table}: {done:,} of {total:,} rows", done=done, total=total)


def _choose_tables(names: list[str] | None) -> list[Table]:
    known = {table.name: table for table in TABLES}
    unknown = [name for name in names or [] if name not in known]
    if unknown:
        raise typer.BadParameter(f"{', '.join(unknown)}: there are {', '.join(known)}")
    return [table for name, table in known.items() if not names or name in names]
