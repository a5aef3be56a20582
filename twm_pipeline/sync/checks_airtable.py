"""Does Airtable show the mirror: the checks of what is published."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from sqlalchemy import text

from twm_pipeline.airtable.fields import Key
from twm_pipeline.mirror.findings import Finding, Verdict
from twm_pipeline.mirror.looks import load_look
from twm_pipeline.mirror.published import count_published, month_of_calls
from twm_pipeline.sync.publish_check import SHOWN_KEYS

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from twm_pipeline.settings import Settings

LATE_PUBLISHING_SECONDS = 900
LONG_LATE_PUBLISHING_SECONDS = 3600
LATE_LOOK_SECONDS = 2 * 86_400
"""A look is taken every night."""


def check_publishing(engine: Engine, settings: Settings) -> list[Finding]:
    """Return whether the base shows the mirror, by what is known of it here; Airtable is asked nothing.

    Records changed by hand are found by the publishing window itself (`publish_check`); what its last look
    found is told.
    """
    base = str(settings.airtable_base_id)
    with engine.connect() as connection:
        calls, exhausted = month_of_calls(connection, base)
        found = [_find_records(connection, base, view) for view in get_args(Key)]
    words = f"{calls:,} calls this month"
    quota = Finding(
        asset=("airtable", "tasks"),
        check="quota_is_left",
        verdict="error" if exhausted else "ok",
        text=f"{words}; Airtable says that they are used up" if exhausted else words,
        figures={"calls": calls},
    )
    return [*found, quota]


def _find_records(connection: Connection, base: str, view: Key) -> Finding:
    rows = int(connection.execute(text(f"SELECT count(*) FROM public.{view}")).scalar_one())  # noqa: S608 - one of two names
    records = count_published(connection, base, view)
    waiting, oldest, aside = connection.execute(
        text(
            "SELECT count(DISTINCT row_id), coalesce(extract(epoch FROM now() - min(changed_at)), 0)::float8,"
            " (SELECT count(*) FROM twm.set_aside WHERE source = 'airtable' AND stream = :view)"
            " FROM twm.change_log WHERE view = :view"
        ),
        {"view": view},
    ).one()
    missing = max(rows - records - aside - waiting, 0)
    verdict: Verdict = "ok"
    looked = _what_a_look_found(connection, base, view)
    if aside or oldest > LATE_PUBLISHING_SECONDS or missing or looked:
        verdict = "error" if oldest > LONG_LATE_PUBLISHING_SECONDS else "warning"
    words = f"{records:,} records for {rows:,} rows, {waiting:,} changes wait"
    if waiting:
        words += f", the oldest for {oldest:,.0f} s"
    if aside:
        words += f"; {aside:,} rows are refused by Airtable: twm status"
    if missing:
        words += f"; {missing:,} rows have no record: twm sync airtable"
    words = "; ".join([words, *looked])
    figures = {"rows": rows, "records": records, "waiting": waiting, "oldest_seconds": round(oldest, 1)}
    return Finding(
        asset=("airtable", view), check="records_equal_rows", verdict=verdict, text=words, figures=figures
    )


def _what_a_look_found(connection: Connection, base: str, view: Key) -> list[str]:
    """Return in words what the last look at the base found, and that there was none for long."""
    look = load_look(connection, base, view)
    words = []
    if look.age_seconds is not None and look.age_seconds > LATE_LOOK_SECONDS:
        words.append(
            f"nobody looked at the base for {look.age_seconds / 3600:,.0f} hours: twm sync airtable --check"
        )
    if look.missing or look.different:
        words.append(
            f"at the last look {look.missing:,} records were gone and {look.different:,} showed something"
            " else; they are written again"
        )
    if look.doubled:
        keys = ", ".join(look.doubled[:SHOWN_KEYS])
        words.append(
            f"{len(look.doubled):,} keys have several records, such as {keys}: delete all but one of each"
        )
    return words
