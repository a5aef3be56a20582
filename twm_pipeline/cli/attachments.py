"""`twm attachments`: files of messages, downloaded now, and those that could not be."""

from __future__ import annotations

from typing import Annotated

import typer

from twm_pipeline.cli import output
from twm_pipeline.cli.help import Group
from twm_pipeline.cli.mirror import opened_mirror
from twm_pipeline.cli.options import AsJson, OfSandbox, settings_for
from twm_pipeline.cli.output import print_table, say
from twm_pipeline.cli.runs import report_problems, run_jobs
from twm_pipeline.cli.status import attachments_line
from twm_pipeline.errors import ConfigError
from twm_pipeline.mirror.attachments import list_failed, read_attachments
from twm_pipeline.records import Json
from twm_pipeline.settings import Settings

HELP = """Files of messages and comments, kept in ATTACHMENTS_URL (docs/attachments.md).

Examples: twm attachments list · twm attachments download · twm attachments retry
"""
DOWNLOAD_HELP = """Download now what is due, as a recorded Dagster run.

Example: twm attachments download
"""
RETRY_HELP = """Fetch every file that failed again now, and whatever else is due.

Example: twm attachments retry
"""
LIST_HELP = """Show how many files are stored, and those that could not be, with the reasons.

Examples: twm attachments list · twm attachments list --json | jq '.failed[].reason'
"""
SHOWN = 50


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(cls=Group, help=HELP, no_args_is_help=True)
    group.command("list", help=LIST_HELP)(show)
    group.command("download", help=DOWNLOAD_HELP)(download)
    group.command("retry", help=RETRY_HELP)(retry)
    app.add_typer(group, name="attachments")


def download(*, sandbox: OfSandbox = False, as_json: AsJson = False) -> None:
    """Download what is due."""
    _run(settings_for(sandbox=sandbox), as_json=as_json, retry=False)


def retry(*, sandbox: OfSandbox = False, as_json: AsJson = False) -> None:
    """Download what failed, too."""
    _run(settings_for(sandbox=sandbox), as_json=as_json, retry=True)


def _run(settings: Settings, *, as_json: bool, retry: bool) -> None:
    if not settings.attachments_download:
        msg = "Downloading files is switched off: ATTACHMENTS_DOWNLOAD is false."
        raise ConfigError(msg)
    request = {
        "job": "attachments_download",
        "run_config": {"ops": {"attachments_window": {"config": {"retry": retry}}}},
    }
    results = run_jobs(settings, [request])
    if as_json:
        output.print_json(results[0])
    else:
        _show_result(results[0])
    if code := report_problems(results):
        raise typer.Exit(code)


def _show_result(result: Json) -> None:
    for report in result["reports"]:
        found = report["streams"]["attachments"]
        say(
            f"{found['stored']:,} files stored ({found['bytes'] / 1e6:,.1f} MB),"
            f" {found['skipped']:,} left out, {found['failed']:,} failed;"
            f" {found['dagster/row_count']:,} in {found['store']}"
        )


def show(
    *,
    sandbox: OfSandbox = False,
    limit: Annotated[int, typer.Option(min=1, help="Show at most so many files.")] = SHOWN,
    as_json: AsJson = False,
) -> None:
    """Show what could not be downloaded."""
    settings = settings_for(sandbox=sandbox)
    with opened_mirror(settings) as engine, engine.connect() as connection:
        counts, failed = read_attachments(connection), list_failed(connection, limit=limit)
    if as_json:
        output.print_json({"store": settings.attachments_store, "counts": counts, "failed": failed})
        return
    say(attachments_line(counts, settings.attachments_store))
    names = ("filename", "subject", "tries", "next_try_at", "reason")
    rows = [tuple(row[name] for name in names) for row in failed]
    if rows:
        print_table("Failed", ("file", "subject", "tries", "next try", "reason"), rows)
