"""`twm sync`: one pass now, as recorded runs."""

from __future__ import annotations

from typing import Annotated

import typer

from twm_pipeline.cli import output
from twm_pipeline.cli.options import AsJson, OfSandbox, settings_for
from twm_pipeline.cli.runs import job_request, report_problems, run_jobs
from twm_pipeline.errors import ConfigError
from twm_pipeline.records import SOURCES, Json, Source
from twm_pipeline.settings import Settings, parse_since
from twm_pipeline.sync.accounts import configured_sources

PUBLISHED = ("compared", "created", "updated", "removed", "set_aside", "files", "calls")
LOOKED_AT = ("rows", "records", "checked", "missing", "different")

HELP = """Read what changed, now: one pass of each source, until nothing is left; then publish what differs.

With --check or --check-all what is gone from Airtable, or was changed there, is written again; no vendor is
asked for it. --full looks at all of Airtable too.

Examples: twm sync · twm sync teamwork --since 01.03.2025 · twm sync missive --full --json · twm sync airtable
· twm sync --sandbox
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("sync", help=HELP)(sync)


def sync(  # noqa: PLR0913 - each is an option of the command
    sources: Annotated[
        list[str] | None, typer.Argument(help="teamwork, missive, airtable; all of them if none is named.")
    ] = None,
    *,
    since: Annotated[
        str | None,
        typer.Option(metavar="DATE", help="Read again what changed since, such as 31.12.2024."),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Read everything again from the beginning.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Look at some of Airtable's records too, others each time.")
    ] = False,
    check_all: Annotated[
        bool, typer.Option("--check-all", help="Look at all of Airtable's records too, a hundred a call.")
    ] = False,
    sandbox: OfSandbox = False,
    as_json: AsJson = False,
) -> None:
    """Read what changed, now."""
    if since is not None and full:
        raise typer.BadParameter("use --since or --full, not both")
    if since is not None:
        parse_since(since)
    settings = settings_for(sandbox=sandbox)
    publish = publishes(settings, sources)
    if (check or check_all) and not publish:
        raise typer.BadParameter("--check and --check-all go with airtable, where it is set up")
    look = "whole" if check_all or full else "sample" if check else None
    named = [name for name in sources or [] if name != "airtable"]
    chosen = choose_sources(settings, named) if named or not sources else []
    requests = [request(source, since=since, full=full) for source in chosen]
    if publish:
        requests.append(publish_request(resume=bool(sources), check=look))
    results = run_jobs(settings, requests)
    if as_json:
        output.print_json(results)
    else:
        show_results(results)
    if code := max(report_problems(results), report_refusals(results)):
        raise typer.Exit(code)


def report_refusals(results: list[Json]) -> int:
    """Write what the vendors refuse to show; return `FAILED` if it was read before, or is a mailbox."""
    refusals = [item for result in results for item in result["refusals"]]
    for item in refusals:
        output.complain(f"{item['source']}: {item['refused']}")
    return output.FAILED if any(item["is_lost"] for item in refusals) else output.OK


def request(source: Source, *, since: str | None = None, full: bool = False) -> Json:
    """Return the run to ask for: one pass over *source*, until it is complete."""
    config: Json = {"full": full}
    if since is not None:
        config["since"] = since
    return job_request(f"{source}_sync", op=f"{source}_window", config=config)


def publish_request(*, resume: bool = False, check: str | None = None) -> Json:
    """Return the run that publishes what differs.

    Args:
        resume: Also after the monthly quota was used up.
        check: Look at the base as well: at a `sample`, or at the `whole`.
    """
    config: Json = {"resume": resume}
    if check is not None:
        config["check"] = check
    return job_request("airtable_publish", op="airtable_window", config=config)


def publishes(settings: Settings, names: list[str] | None) -> bool:
    """Return whether to publish: where it is set up, or an error where it is asked for and is not.

    Raises:
        ConfigError: If it is named and switched off.
    """
    ready = settings.publishes and settings.can_publish
    if names and "airtable" in names and not ready:
        msg = "Airtable is switched off: set DB_BACKEND to `both`, AIRTABLE_API_KEY and AIRTABLE_BASE_ID."
        raise ConfigError(msg)
    return ready and (not names or "airtable" in names)


def choose_sources(settings: Settings, names: list[str] | None) -> list[Source]:
    """Return the sources that are named, or all that are configured.

    Raises:
        ConfigError: If none is, or one that is named is not.
    """
    configured = configured_sources(settings)
    if not names:
        if not configured:
            msg = (
                "Nothing is configured. Set TEAMWORK_BASE_URL and TEAMWORK_API_KEY, or MISSIVE_API_TOKEN, in"
                " .env; or try `twm up --sandbox`, which needs no account."
            )
            raise ConfigError(msg)
        return list(configured)
    unknown = [name for name in names if name not in SOURCES]
    if unknown:
        raise typer.BadParameter(f"{', '.join(unknown)}: there are {' and '.join(SOURCES)}")
    chosen = [source for source in SOURCES if source in names]
    missing = [source for source in chosen if source not in configured]
    if missing:
        msg = f"{', '.join(missing)}: no credentials are set; `twm doctor` says which."
        raise ConfigError(msg)
    return chosen


def show_results(results: list[Json]) -> None:
    """Write what each run did: one row per table."""
    rows = [
        (
            f"{report['source']}/{stream}",
            figures.get("dagster/row_count"),
            figures.get("fetched", 0),
            figures.get("written", 0),
            figures.get("deleted", 0),
            figures.get("set_aside", 0),
        )
        for result in results
        for report in result["reports"]
        for stream, figures in report["streams"].items()
        if report["source"] in SOURCES
    ]
    _show_published(results)
    if rows:
        columns = ("table", "rows now", "fetched", "written", "deleted", "set aside")
        output.print_table("Tables", columns, rows)
        output.say("")
    totals = [
        (
            report["source"],
            result["status"].lower(),
            report["requests"],
            report["answers_429"],
            float(report["seconds"]),
            result["run_id"][:8],
        )
        for result in results
        for report in result["reports"]
        if report["source"] != "insights"
    ]
    if totals:
        columns = ("source", "status", "requests", "answers 429", "seconds", "run")
        output.print_table("Runs", columns, totals)
    for result in results:
        if result["success"] and not result["reports"]:
            output.say(f"{result['job']}: another process is at it, and does what was asked for here.")


def _show_published(results: list[Json]) -> None:
    rows = [
        (f"airtable/{view}", figures.get("dagster/row_count"), *(figures.get(name, 0) for name in PUBLISHED))
        for result in results
        for report in result["reports"]
        if report["source"] == "airtable"
        for view, figures in report["streams"].items()
    ]
    if rows:
        columns = ("table", "records now", *(name.replace("_", " ") for name in PUBLISHED))
        output.print_table("Published", columns, rows)
        output.say("")
    looks = [
        (
            f"airtable/{look['stream']}",
            look["how"],
            *(look.get(name) for name in LOOKED_AT),
            len(look["doubled"]),
        )
        for result in results
        for look in result["looks"]
    ]
    if looks:
        output.print_table("Looked at", ("table", "how", *LOOKED_AT, "doubled keys"), looks)
        output.say("")
