"""`twm check`: is the copy true and current?"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from twm_pipeline.cli import output
from twm_pipeline.cli.mirror import opened_mirror
from twm_pipeline.cli.options import AsJson, OfSandbox, settings_for
from twm_pipeline.mirror.findings import Finding, Verdict
from twm_pipeline.settings import Settings
from twm_pipeline.sync.accounts import configured_sources
from twm_pipeline.sync.checks import check_source
from twm_pipeline.sync.checks_airtable import check_publishing

HELP = """Look whether the copy is true and current: keys, references, checkpoints, what is set aside, new
fields of the vendors, and a sample of rows that is read again.

The job `checks` does the same every hour and keeps the answers; this one records nothing. What is not in
order is shown; everything that was looked at with --all. Exit code 1: a check failed; warnings count as no
failure.

Examples: twm check · twm check --all · twm check --no-sample · twm check --json · twm check --sandbox
"""

MARKS: dict[Verdict, str] = {"ok": "ok", "warning": "!", "error": "WRONG"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("check", help=HELP)(check)


def check(
    *,
    sandbox: OfSandbox = False,
    sample: Annotated[bool, typer.Option(help="Read a sample again; without it no vendor is asked.")] = True,
    everything: Annotated[bool, typer.Option("--all", help="Show what is in order, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check everything."""
    settings = settings_for(sandbox=sandbox)
    found = _look(settings, sample=sample)
    if as_json:
        output.print_json([asdict(item) for item in found])
    elif found:
        _show(found, everything=everything)
    else:
        output.say("Nothing is configured; `twm doctor` says what to set.")
    if any(item.verdict == "error" for item in found):
        raise typer.Exit(output.FAILED)


def _show(found: list[Finding], *, everything: bool) -> None:
    """Write what is not in order, or everything, and how much is."""
    rows = [
        (MARKS[item.verdict], "/".join(item.asset), item.check, item.text)
        for item in found
        if everything or item.verdict != "ok"
    ]
    if rows:
        output.print_table("Checks", ("", "asset", "check", "found"), rows)
        output.say("")
    count = sum(item.verdict == "ok" for item in found)
    assets = len({item.asset for item in found})
    output.say(f"{count} of {len(found)} checks of {assets} assets are in order.")


def _look(settings: Settings, *, sample: bool) -> list[Finding]:
    found: list[Finding] = []
    with opened_mirror(settings) as engine, output.progress("checking …") as show:
        for source in configured_sources(settings):
            show(f"checking {source} …")
            found += check_source(engine, settings, source, asks_vendor=sample)
        if settings.publishes and settings.can_publish:
            show("checking airtable …")
            found += check_publishing(engine, settings)
    return found
