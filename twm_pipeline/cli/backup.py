"""`twm backup`, `twm restore`: the mirror in one file, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from twm_pipeline.cli import output
from twm_pipeline.cli.mirror import embedded_while_needed, opened_mirror
from twm_pipeline.cli.options import AsJson, OfSandbox, settings_for
from twm_pipeline.db import back_up, mirror_url
from twm_pipeline.db import restore as restore_into
from twm_pipeline.mirror.status import count_tables

BACKUP_HELP = """Write the mirror into one file: rows, tombstones, checkpoints, what was published.

Everything else may go on meanwhile. Two things are not in it, keep them too: .env, and hooks.json below
TWM_DATA_DIR.

Examples: twm backup /backup/mirror-$(date +%F).dump · twm backup --sandbox /tmp/sandbox.dump
"""
RESTORE_HELP = """Fill an empty mirror from a file of twm backup, of this version or an older one.

Stop `twm up` first. The next sync goes on where the backup was; what changed since is read again.

Example: twm restore /backup/mirror-2026-01-31.dump
"""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("backup", help=BACKUP_HELP)(backup)
    app.command("restore", help=RESTORE_HELP)(restore)


def backup(
    file: Annotated[Path, typer.Argument(help="The file to write.")],
    *,
    sandbox: OfSandbox = False,
    as_json: AsJson = False,
) -> None:
    """Write the mirror into a file."""
    settings = settings_for(sandbox=sandbox)
    with embedded_while_needed(settings), output.progress(f"writing {file} …"):
        size = back_up(mirror_url(settings), file)
    if as_json:
        output.print_json({"file": str(file), "bytes": size})
    else:
        output.say(f"{file}: {size / 1e6:,.1f} MB")


def restore(
    file: Annotated[Path, typer.Argument(help="A file of twm backup.")],
    *,
    sandbox: OfSandbox = False,
    as_json: AsJson = False,
) -> None:
    """Fill an empty mirror from a file."""
    settings = settings_for(sandbox=sandbox)
    with embedded_while_needed(settings):
        with output.progress(f"reading {file} …"):
            restore_into(file, mirror_url(settings))
        with opened_mirror(settings) as engine, engine.connect() as connection:
            tables = count_tables(connection)
    if as_json:
        output.print_json({"file": str(file), "tables": tables})
    else:
        rows = [(table["table"], table["living"], table["deleted"]) for table in tables]
        output.print_table("Restored", ("table", "living", "deleted"), rows)
