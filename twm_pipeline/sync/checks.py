"""Is the copy true and current: every check of a source and of what is published, and what each means.

Most are one look into the mirror; the sample asks the vendor a handful of requests. A check that fails stops
nothing: it says what to look at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from sqlalchemy import text

from twm_pipeline.airtable.fields import Key
from twm_pipeline.mirror.drift import find_fields, note_fields
from twm_pipeline.mirror.findings import (
    REFERENCES,
    WITH_CHECKPOINT,
    Finding,
    Verdict,
    find_checkpoint,
    find_keys,
    find_references,
    find_refusals,
    find_set_aside,
)
from twm_pipeline.mirror.hooks import load_hooks
from twm_pipeline.mirror.status import read_checkpoints, read_held_deletions
from twm_pipeline.mirror.tables import TABLES
from twm_pipeline.sync.drain import spool_of
from twm_pipeline.sync.sample import SAMPLED, sample_vendor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sqlalchemy import Connection, Engine

    from twm_pipeline.mirror.tables import Table
    from twm_pipeline.records import Json, Source
    from twm_pipeline.settings import Settings

LATE_POLLS = 3
LATE_SECONDS = 600
LONG_LATE_SECONDS = 1800
"""After so long without a complete pass somebody should know, and act; or after `LATE_POLLS` intervals."""

MEANINGS: Mapping[str, str] = {
    "keys_are_unique": (
        "Every row has an id, and no two the same, so the people's views show each once. If not, the primary"
        " key's index is broken: REINDEX it, and look at the disk."
    ),
    "references_resolve": (
        "The rows that people see name a parent that is in the mirror: task, task list, project;"
        " message, conversation. While history is read some may be missing. Later up to 1 % is normal"
        " (lists that the key's owner may not read); more: `twm reconcile`."
    ),
    "nothing_is_set_aside": (
        "No record waits that could not be used. One that does is tried again by itself, with waits up"
        " to a day; its reason names what is wrong: `twm queue list`."
    ),
    "checkpoint_is_current": (
        "The checkpoint is not in the future, and nothing that the poll should have met lies beyond it;"
        " directories were read completely in time."
    ),
    "stream_is_readable": (
        "The vendor shows the stream, all of its mailboxes and feeds. What it refuses (403) is left out and"
        " goes stale while the rest goes on: give the key's owner access, or live without it. The text has"
        " the vendor's words."
    ),
    "fields_are_known": (
        "The vendor sends no field that it did not send before, and none with values of another kind."
        " Nothing is lost if it does: `raw` has it, and `twm reparse` fills a new column. Told for a"
        " week."
    ),
    "sample_equals_vendor": (
        "Rows that were read again, others each time, are as the mirror has them. Those that differ are"
        " repaired by the look; when it is many, changes are being missed."
    ),
    "source_is_read": (
        "A pass over the source ended well lately, and the last one did not fail. The text is the last"
        " error, and says what to do."
    ),
    "deliveries_are_applied": (
        "No accepted webhook delivery was given up. `twm queue list` shows those that were, with"
        " reasons, and `twm queue retry` tries them again."
    ),
    "hooks_work": (
        "The vendor has our hooks and sends to them. Polling goes on without them, so this costs"
        " minutes and no change: `twm webhooks list`, `twm webhooks repair`."
    ),
    "deletions_are_believed": (
        "No deletions wait for a person. More rows of a table are gone than is believed without asking: a"
        " lost permission looks the same. Look at one or two at the vendor; if it is right, `twm reconcile"
        " --confirm-deletions`."
    ),
    "records_equal_rows": (
        "Every row that people see has its record in Airtable, what changed was sent within the hour, and"
        " the nightly look at the base found the records as they were published. Records that were removed"
        " or changed by hand are written again by the look; doubled ones a person has to delete."
    ),
    "quota_is_left": (
        "The workspace's calls of this month are not used up. If they are, nothing is sent until next"
        " month or until `twm sync airtable` is called after raising the plan; the mirror goes on."
    ),
}
"""Check → what it states and what to do where it is not so."""


def checks_of(origin: str) -> list[tuple[tuple[str, str], str]]:
    """Return asset and name of every check of a source, or of `airtable`."""
    if origin == "airtable":
        return [(("airtable", view), "records_equal_rows") for view in get_args(Key)] + [
            (("airtable", "tasks"), "quota_is_left")
        ]
    found = [
        ((origin, table.stream), name) for table in TABLES if table.source == origin for name in _names(table)
    ]
    whole = ("source_is_read", "deliveries_are_applied", "deletions_are_believed", "hooks_work")
    return [*found, *(((origin, "api"), name) for name in whole)]


def _names(table: Table) -> Iterator[str]:
    yield "keys_are_unique"
    if table in REFERENCES:
        yield "references_resolve"
    if table in WITH_CHECKPOINT:
        yield "checkpoint_is_current"
    yield "stream_is_readable"
    yield "nothing_is_set_aside"
    yield "fields_are_known"
    if table in {item for item, _ in SAMPLED.values()}:
        yield "sample_equals_vendor"


def check_source(
    engine: Engine,
    settings: Settings,
    source: Source,
    *,
    asks_vendor: bool = True,
    should_stop: Callable[[], None] = lambda: None,
) -> list[Finding]:
    """Return what every check of *source* found.

    Args:
        engine: The mirror.
        settings: The deployment's settings.
        source: The vendor.
        asks_vendor: Whether a sample is read again.
        should_stop: Raises `WindowClosedError` when somebody wants it to end.

    Raises:
        TwmError: As `sample_vendor`.
    """
    found: list[Finding] = []
    with engine.connect() as connection:
        checkpoints = read_checkpoints(connection, source)
        found += _find_whole(connection, settings, source)
    more = any(item["more_to_read"] for item in checkpoints) or not checkpoints
    main = {item["stream"]: item for item in checkpoints if item["feed"] in ("", "all")}
    for table in TABLES:
        if table.source == source:
            should_stop()
            if not more:
                note_fields(engine, table)
            with engine.connect() as connection:
                found += _find_table(connection, settings, table, main.get(table.stream), more_to_read=more)
    if asks_vendor:
        found.append(sample_vendor(engine, settings, source, should_stop=should_stop))
    return found


def _find_table(
    connection: Connection, settings: Settings, table: Table, checkpoint: Json | None, *, more_to_read: bool
) -> Iterator[Finding]:
    yield find_keys(connection, table)
    if table in REFERENCES:
        yield find_references(connection, table, more_to_read=more_to_read)
    directories = settings.directory_interval_seconds
    current = find_checkpoint(connection, table, checkpoint, directory_seconds=directories)
    if current is not None:
        yield current
    yield find_refusals(connection, table)
    yield find_set_aside(connection, table.source, table.stream)
    yield find_fields(connection, table)


def _find_whole(connection: Connection, settings: Settings, source: Source) -> Iterator[Finding]:
    yield _find_reading(connection, settings, source)
    waiting = spool_of(settings, source).waiting()
    yield Finding(
        asset=(source, "api"),
        check="deliveries_are_applied",
        verdict="warning" if waiting.dead else "ok",
        text=f"{waiting.dead:,} deliveries were given up: twm queue list"
        if waiting.dead
        else "none was given up",
        figures={"dead": waiting.dead, "waiting": waiting.count, "later": waiting.later},
    )
    held = read_held_deletions(connection, source)
    yield Finding(
        asset=(source, "api"),
        check="deletions_are_believed",
        verdict="warning" if held else "ok",
        text="; ".join(item.describe() for item in held) or "no deletion waits to be confirmed",
        figures={"held": sum(item.wanted for item in held)},
    )
    yield _find_hooks(connection, settings, source)


def _find_reading(connection: Connection, settings: Settings, source: Source) -> Finding:
    row = connection.execute(
        text(
            "SELECT last_error, last_success_at,"
            " extract(epoch FROM now() - coalesce(last_success_at, first_import_at))::float8 AS age"
            " FROM twm.sources WHERE source = :source"
        ),
        {"source": source},
    ).one_or_none()
    if row is None:
        return _reading(source, "warning", "it has never been read")
    late = LATE_POLLS * settings.poll_seconds
    verdict: Verdict = "ok"
    if row.age > max(LATE_SECONDS, late):
        verdict = "error" if row.age > max(LONG_LATE_SECONDS, 2 * late) else "warning"
    word = "the last pass that ended well" if row.last_success_at else "the first import began"
    words = f"{word} {row.age:,.0f} s ago"
    if row.last_error:
        verdict = "error" if verdict != "ok" else "warning"
        words += f"; since then: {row.last_error}"
    return _reading(source, verdict, words, {"age_seconds": round(row.age, 1)})


def _reading(
    source: Source, verdict: Verdict, words: str, figures: Mapping[str, float] | None = None
) -> Finding:
    return Finding(
        asset=(source, "api"), check="source_is_read", verdict=verdict, text=words, figures=figures or {}
    )


def _find_hooks(connection: Connection, settings: Settings, source: Source) -> Finding:
    """Return whether hooks are missing that are wanted; where none are wanted, that is as it should be."""
    hooks = load_hooks(connection, source)
    broken = [hook for hook in hooks if hook.is_open and hook.problem] if settings.expects_webhooks else []
    words = f"{len(hooks) - len(broken):,} hooks are registered"
    if not settings.expects_webhooks:
        words = "no hooks are wanted: the vendor is polled"
    elif broken:
        words = f"{len(broken):,} hooks could not be made, such as {broken[0].event}: {broken[0].problem}"
    return Finding(
        asset=(source, "api"),
        check="hooks_work",
        verdict="warning" if broken else "ok",
        text=words,
        figures={"hooks": len(hooks) - len(broken), "broken": len(broken)},
    )
