"""`twm status`: what is in the mirror, how current it is, and what waits or went wrong."""

from __future__ import annotations

from collections.abc import Sequence

import typer
from sqlalchemy import URL

from twm_pipeline.cli import output
from twm_pipeline.cli.mirror import opened_mirror
from twm_pipeline.cli.options import AsJson, OfSandbox, settings_for
from twm_pipeline.cli.output import print_table, say
from twm_pipeline.db import embedded_server
from twm_pipeline.records import Json
from twm_pipeline.settings import Settings
from twm_pipeline.status.figures import read_figures
from twm_pipeline.status.words import span

HELP = """Show rows, checkpoints, lag, deliveries, set-aside records, budgets and last errors of each source.

Examples: twm status · twm status --json | jq '.sources[].lag_seconds' · twm status --sandbox
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("status", help=HELP)(status)


def status(
    *,
    sandbox: OfSandbox = False,
    as_json: AsJson = False,
) -> None:
    """Show the state of the mirror."""
    settings = settings_for(sandbox=sandbox)
    found = collect(settings)
    if as_json:
        output.print_json(found)
        return
    sources = found["sources"]
    if not any(source["configured"] for source in sources):
        say("Nothing is configured; `twm doctor` says what to set, `twm up --sandbox` shows a demonstration.")
    for finding in found["findings"]:
        output.complain(f"{finding['subject']}: {finding['text']}")
    for source in sources:
        if source["configured"] or source["account"]:
            _show(source)
    if found["attachments"] and any(
        found["attachments"][state] for state in ("stored", "pending", "skipped", "failed")
    ):
        say(attachments_line(found["attachments"], found["attachments"]["store"]))
        say("")
    if found["airtable"]:
        _show_airtable(found["airtable"])
    _show_database(found["database"])


def collect(settings: Settings) -> Json:
    """Return the state of each source, and how to connect to the mirror."""
    with opened_mirror(settings) as engine, engine.connect() as connection:
        figures = read_figures(connection, settings)
        return {**figures, "database": _database(settings, engine.url)}


def attachments_line(counts: Json, store: str) -> str:
    """Return how many files of messages are in which state."""
    words = (
        f"{counts['stored']:,} stored ({counts['stored_bytes'] / 1e6:,.1f} MB), {counts['pending']:,} waiting"
    )
    failed = f"{counts['failed']:,} failed" + (" (twm attachments list)" if counts["failed"] else "")
    hidden = f", {counts['hidden']:,} of deleted or hidden messages" if counts["hidden"] else ""
    return f"ATTACHMENTS  {words}, {counts['skipped']:,} left out, {failed}{hidden} · {store}"


def _database(settings: Settings, url: URL) -> Json:
    """Return how to connect to the mirror; of the password only where it is."""
    embedded = settings.pg_dsn is None
    return {
        "host": url.host,
        "port": url.port,
        "database": url.database,
        "user": url.username,
        "password_in": str(embedded_server(settings).folder / "password") if embedded else "PG_DSN",
        "embedded": embedded,
    }


def _show_spool(spool: Json) -> None:
    """Print a line about deliveries that wait; none where all of them are applied."""
    words = [f"{spool['waiting']:,} waiting"] if spool["waiting"] else []
    if spool["later"]:
        words.append(f"{spool['later']:,} to be tried again, the first at {_when(spool['next_due'])}")
    if spool["dead"]:
        words.append(f"{spool['dead']:,} dead (twm queue list)")
    if words:
        say(f"  Deliveries: {', '.join(words)}")


def _show_airtable(found: Json) -> None:
    limit = f" of {found['monthly_calls']:,}" if found["monthly_calls"] else ""
    say(f"AIRTABLE  {found['base']} · {found['calls']:,}{limit} calls this month")
    columns = ("  table", "rows", "records", "changes waiting", "last published", "compared", "looked at")
    names = ("view", "rows", "records", "waiting", "published_at", "compared_at", "checked_at")
    print_table("", columns, _indented([tuple(view[name] for name in names) for view in found["views"]]))
    if found["files_waiting"]:
        say(f"  Files of {found['files_waiting']:,} e-mails are still to be sent")
    say("")
    _show_set_aside(found["set_aside"])


def _show_database(database: Json) -> None:
    options = {
        "-h": database["host"],
        "-p": database["port"],
        "-U": database["user"],
        "-d": database["database"],
    }
    words = " ".join(f"{name} {value}" for name, value in options.items() if value)
    while_up = "; the server runs while `twm up` does" if database["embedded"] else ""
    say(f"DATABASE  psql {words} · password in {database['password_in']}{while_up}")


def _show(source: Json) -> None:
    say(f"{source['source'].upper()}  {source['account'] or 'not read yet'}{_state(source)}")
    if sweep := source["sweep"]:
        began = f"; one of {_when(sweep['began_at'])} is not finished" if sweep["began_at"] else ""
        say(f"  last complete sweep: {_when(sweep['finished_at'] or 'none yet')}{began}")
    for item in source["progress"] if source["window_open"] else []:
        total = f" of {item['total']:,}" if item["total"] else ""
        say(f"  {item['stream']}: {item['phase']}, {item['done']:,}{total}")
    say("")
    tables = [(t["stream"], t["living"], t["deleted"], t["inaccessible"]) for t in source["tables"]]
    print_table("  Rows", ("  table", "living", "deleted", "inaccessible"), _indented(tables))
    say("")
    _show_checkpoints(source["checkpoints"])
    _show_spool(source["spool"])
    _show_budgets(source["budgets"])
    _show_set_aside(source["set_aside"])


def _state(source: Json) -> str:
    lag = source["lag_seconds"]
    words = [f"complete {span(lag)} ago" if lag is not None else "never complete"]
    if any(item["more_to_read"] for item in source["checkpoints"]):
        words.append("history is still being read")
    words.append("a window is open" if source["window_open"] else "no window is open")
    return " · " + " · ".join(words)


def _when(moment: object) -> str:
    return str(moment)[:19]


def _indented(rows: Sequence[tuple[object, ...]]) -> list[tuple[object, ...]]:
    return [(f"  {row[0]}", *row[1:]) for row in rows]


def _show_checkpoints(checkpoints: list[Json]) -> None:
    if checkpoints:
        rows = [
            (
                f"{item['stream']} {item['feed']}".strip(),
                item["last_event_time"],
                "yes" if item["more_to_read"] else "",
                item["updated_at"],
            )
            for item in checkpoints
        ]
        columns = ("  feed", "complete up to", "more to read", "moved")
        print_table("  Checkpoints", columns, _indented(rows))
        say("")


def _show_budgets(budgets: list[Json]) -> None:
    for item in budgets:
        say(
            f"  Budget: {item['requests']:,} requests, {item['last_minute']:,} in the last minute,"
            f" {item['throttled']:,} answers 429"
        )
        if item["paused_until"]:
            say(f"  paused until {_when(item['paused_until'])}: {item['paused_reason']}")
        if item["waiting_until"]:
            say(f"  waiting for leave until {_when(item['waiting_until'])}")
    say("")


def _show_set_aside(found: Json) -> None:
    if found["count"]:
        rows = [
            (item["stream"], item["object_id"], item["attempts"], item["next_attempt_at"], item["reason"])
            for item in found["records"]
        ]
        columns = ("  stream", "id", "tries", "next try", "reason")
        print_table(f"  Set aside: {found['count']}", columns, _indented(rows))
        say("")
