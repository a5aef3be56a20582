"""`twm queue`: deliveries that wait or were given up, and records set aside."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from twm_pipeline.cli import output
from twm_pipeline.cli.help import Group
from twm_pipeline.cli.mirror import opened_mirror
from twm_pipeline.cli.options import AsJson, OfSandbox, settings_for
from twm_pipeline.cli.output import complain, print_table, say
from twm_pipeline.cli.queue_items import Delivery, Item, chosen, parked_id
from twm_pipeline.errors import TwmError
from twm_pipeline.mirror.status import read_set_aside
from twm_pipeline.records import SOURCES, Json, Origin
from twm_pipeline.settings import Settings
from twm_pipeline.spool import PLACES, Listed, Place, Spool
from twm_pipeline.status.words import span
from twm_pipeline.sync.drain import spool_of

SHOWN = 50
MEANINGS: dict[Place, str] = {
    "new": "accepted, not begun",
    "cur": "in the hands of a window",
    "retry": "its object was faulty; tried again",
    "dead": "given up",
}

HELP = """Deliveries that wait or were given up, and records set aside.

Examples: twm queue list · twm queue show 3f9c · twm queue retry --all-dead · twm queue discard 3f9c --yes
"""
LIST_HELP = """Show how many deliveries lie where, those to be tried again or given up, and records set aside.

Where PostgreSQL does not answer, the deliveries are shown all the same, and the exit code is 1.

Examples: twm queue list · twm queue list --json | jq '.sources[].places.dead'
"""
SHOW_HELP = """Show one delivery or one record set aside; its content only with --body (personal data).

Examples: twm queue show 3f9c · twm queue show set-aside:missive/emails/6a1b --body
"""
RETRY_HELP = """Have deliveries and records tried again now, with no attempt counted.

Examples: twm queue retry --all-dead · twm queue retry 3f9c 77d0 set-aside:missive/emails/6a1b
"""
DISCARD_HELP = """Remove deliveries for good, or forget that records are set aside.

The object itself is not touched: the next change or `twm reconcile` reads it again.
Asks first; without a terminal it needs --yes.

Examples: twm queue discard 3f9c · twm queue discard 3f9c set-aside:teamwork/tasks/17 --yes ·
twm queue discard --all-dead --yes
"""

ID_HELP = "The beginning of an id, a whole file name, or set-aside:SOURCE/STREAM/ID."

Ids = Annotated[list[str], typer.Argument(metavar="ID…", help=ID_HELP)]
SomeIds = Annotated[list[str] | None, typer.Argument(metavar="[ID…]", help=ID_HELP)]
AllDead = Annotated[bool, typer.Option("--all-dead", help="Every delivery that was given up.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    queue = typer.Typer(cls=Group, help=HELP, no_args_is_help=True)
    queue.command("list", help=LIST_HELP)(list_queue)
    queue.command("show", help=SHOW_HELP)(show)
    queue.command("retry", help=RETRY_HELP)(retry)
    queue.command("discard", help=DISCARD_HELP)(discard)
    app.add_typer(queue, name="queue")


def list_queue(
    *,
    limit: Annotated[int, typer.Option(min=1, help="Show at most so many of each kind and source.")] = SHOWN,
    sandbox: OfSandbox = False,
    as_json: AsJson = False,
) -> None:
    """Show what lies where."""
    found, problem = collect(settings_for(sandbox=sandbox), limit=limit)
    if as_json:
        output.print_json(found)
    else:
        for source in found["sources"]:
            _show_source(source)
        if (parked := found["airtable"]["set_aside"]) and parked["count"]:
            say("AIRTABLE")
            _show_parked(parked)
    if problem is not None:
        complain("Records set aside are not shown.")
        raise problem


def show(
    id: Annotated[str, typer.Argument(metavar="ID", help=ID_HELP)],  # noqa: A002 - the word on the command line
    *,
    body: Annotated[bool, typer.Option("--body", help="Show the content too: personal data.")] = False,
    sandbox: OfSandbox = False,
    as_json: AsJson = False,
) -> None:
    """Show one item."""
    with chosen(settings_for(sandbox=sandbox), [id]) as [item]:
        told = item.describe(body=body)
    if as_json:
        output.print_json(told)
        return
    for name, value in told.items():
        if value is not None:
            shown = json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value
            say(f"{name.replace('_', ' ')}: {shown}")


def retry(
    ids: SomeIds = None,
    *,
    all_dead: AllDead = False,
    sandbox: OfSandbox = False,
    as_json: AsJson = False,
) -> None:
    """Have items tried again."""
    settings = settings_for(sandbox=sandbox)
    _require_choice(ids, all_dead=all_dead, what="tried again")
    with chosen(settings, ids or [], all_dead=all_dead) as items:
        done = [(item.id, item.retry()) for item in items]
    _report(done, "will be tried again", "neither given up nor waiting for another try", as_json=as_json)


def discard(
    ids: SomeIds = None,
    *,
    all_dead: AllDead = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    sandbox: OfSandbox = False,
    as_json: AsJson = False,
) -> None:
    """Remove items."""
    _require_choice(ids, all_dead=all_dead, what="discarded")
    with chosen(settings_for(sandbox=sandbox), ids or [], all_dead=all_dead) as items:
        if items and not yes:
            _ask(items)
        done = [(item.id, item.discard()) for item in items]
    _report(done, "discarded", "gone already", as_json=as_json)


def _require_choice(ids: list[str] | None, *, all_dead: bool, what: str) -> None:
    if bool(ids) == all_dead:
        msg = f"name what is to be {what}, or say --all-dead"
        raise typer.BadParameter(msg)


def _ask(items: Sequence[Item]) -> None:
    """Go on only if a person says so."""
    if not sys.stdin.isatty():
        msg = "nobody can be asked without a terminal; say --yes"
        raise typer.BadParameter(msg)
    for item in items:
        typer.echo(output.printable(item.headline()), err=True)
    if not typer.confirm(f"Discard {_count(len(items))} for good?", err=True):
        complain("Nothing was discarded.")
        raise typer.Exit(output.FAILED)


def _report(done: list[tuple[str, bool]], success: str, failure: str, *, as_json: bool) -> None:
    if as_json:
        output.print_json([{"id": id_, "done": is_done} for id_, is_done in done])
    else:
        say(f"{_count(sum(is_done for _, is_done in done))} {success}.")
    late = [id_ for id_, is_done in done if not is_done]
    if late:
        complain(f"{', '.join(late)}: {failure}.")
        raise typer.Exit(output.FAILED)


def _count(number: int) -> str:
    return "1 item" if number == 1 else f"{number:,} items"


def collect(settings: Settings, *, limit: int) -> tuple[Json, TwmError | DBAPIError | None]:
    """Return what lies where, and why what PostgreSQL knows is not among it."""
    sources = [_spooled(spool_of(settings, source), limit=limit) for source in SOURCES]
    airtable: Json = {"source": "airtable", "set_aside": None}
    problem: TwmError | DBAPIError | None = None
    try:
        with opened_mirror(settings) as engine, engine.connect() as connection:
            for item in (*sources, airtable):
                item["set_aside"] = _set_aside(connection, item["source"], limit=limit)
    except (TwmError, DBAPIError) as error:
        problem = error
    return {"sources": sources, "airtable": airtable, "database_answered": problem is None}, problem


def _set_aside(connection: Connection, source: Origin, *, limit: int) -> Json:
    found = read_set_aside(connection, source, limit=limit)
    records = [{"id": parked_id(source, row), **row} for row in found["records"]]
    return {"count": found["count"], "records": records}


def _spooled(spool: Spool, *, limit: int) -> Json:
    entries = spool.entries()
    faulty = [Delivery(spool=spool, listed=item) for item in entries if item.place in ("retry", "dead")]
    return {
        "source": spool.source,
        "folder": str(spool.folder),
        "places": {place: _figures([item for item in entries if item.place == place]) for place in PLACES},
        "entries": [item.describe(body=False) for item in faulty[:limit]],
        "set_aside": None,
    }


def _figures(entries: Sequence[Listed]) -> Json:
    now = datetime.now(UTC)
    ages = [max((now - item.received_at).total_seconds(), 0.0) for item in entries]
    return {"count": len(entries), "oldest_seconds": max(ages, default=None)}


def _show_source(source: Json) -> None:
    places, parked = source["places"], source["set_aside"]
    if not any(item["count"] for item in places.values()) and not (parked and parked["count"]):
        say(f"{source['source'].upper()}  nothing waits")
        return
    say(f"{source['source'].upper()}  {source['folder']}")
    rows = [
        (f"  {place}", item["count"], span(item["oldest_seconds"]) if item["count"] else "", MEANINGS[place])
        for place, item in places.items()
    ]
    print_table("  Deliveries", ("  place", "number", "oldest", ""), rows)
    if source["entries"]:
        _show_entries(source)
    if parked and parked["count"]:
        _show_parked(parked)
    say("")


def _show_entries(source: Json) -> None:
    names = ("place", "event", "stream", "object_id", "attempts", "due", "reason")
    rows = [(f"  {item['id']}", *(item[name] for name in names)) for item in source["entries"]]
    columns = ("  id", "place", "event", "stream", "object", "tries", "next try", "reason")
    print_table("  Tried again, or given up", columns, rows)
    _say_how_many_more(len(rows), sum(source["places"][place]["count"] for place in ("retry", "dead")))


def _show_parked(parked: Json) -> None:
    names = ("attempts", "next_attempt_at", "reason")
    rows = [(f"  {item['id']}", *(item[name] for name in names)) for item in parked["records"]]
    print_table("  Records set aside", ("  id", "tries", "next try", "reason"), rows)
    _say_how_many_more(len(rows), parked["count"])


def _say_how_many_more(shown: int, total: int) -> None:
    if total > shown:
        say(f"  … and {total - shown:,} more (--limit)")
