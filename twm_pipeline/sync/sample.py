"""A sample of rows read again from the vendor: does the mirror hold what is there?

The vendors give no count that could be believed, so rows are compared, others each time until all had their
turn. They are read by the path of a re-read on demand, which stores what differs: a look is a repair too.
Only rows that have been quiet are judged; a change of this minute is the next poll's to find.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from twm_pipeline.errors import AccessError, RetriableError
from twm_pipeline.mirror.findings import Finding, Verdict
from twm_pipeline.mirror.sampling import count_sampled, next_sample, save_sampled
from twm_pipeline.mirror.tables import CONVERSATIONS, TASKS
from twm_pipeline.sync.engine import PassOptions, open_pass
from twm_pipeline.sync.missive import MissivePass
from twm_pipeline.sync.teamwork import TeamworkPass

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Engine

    from twm_pipeline.mirror.tables import Table
    from twm_pipeline.records import Source
    from twm_pipeline.settings import Settings

SAMPLED: Mapping[Source, tuple[Table, int]] = {"teamwork": (TASKS, 100), "missive": (CONVERSATIONS, 5)}
"""Source → what is sampled and how many rows at once: one or two requests, and some three a conversation."""
DIFFERING_TOLD, SHARE_TOLD = 2, 0.05
DIFFERING_WRONG, SHARE_WRONG = 5, 0.25
"""A few rows may differ: not every change moves a date that a poll can see; the nightly sweep finds those."""


def sample_vendor(
    engine: Engine, settings: Settings, source: Source, *, should_stop: Callable[[], None] = lambda: None
) -> Finding:
    """Read the next rows of *source* again, within the budget of history, and return how many differed.

    Raises:
        PermanentError: The vendor refuses the credentials; a source of another account.
        WindowClosedError: *should_stop* said so.
    """
    table, limit = SAMPLED[source]
    with engine.connect() as connection:
        ids = next_sample(connection, table, limit=limit)
        began = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    requests = 0
    if ids:
        try:
            requests = _read_again(engine, settings, source, [str(item) for item in ids], should_stop)
        except (RetriableError, AccessError) as error:
            return _finding(table, "warning", f"the sample could not be read: {error}", {})
    with engine.begin() as connection:
        looked, differing = count_sampled(connection, table, ids, since=began)
        save_sampled(connection, table, ids, limit=limit)
    return _judge(table, looked=looked, differing=differing, requests=requests)


def _read_again(
    engine: Engine, settings: Settings, source: Source, ids: list[str], should_stop: Callable[[], None]
) -> int:
    """Read objects and store what differs; return how many requests that took.

    How a source is doing is what its passes say: a sample that went well is none.
    """
    with open_pass(
        engine, settings, source, owns_checkpoints=False, should_stop=should_stop, is_patient=True
    ) as work:
        kind = TeamworkPass if source == "teamwork" else MissivePass
        kind(work, PassOptions(ids=tuple(ids))).run()
    return work.report.requests


def _judge(table: Table, *, looked: int, differing: int, requests: int) -> Finding:
    share = differing / looked if looked else 0.0
    verdict: Verdict = "ok"
    if differing >= DIFFERING_WRONG and share > SHARE_WRONG:
        verdict = "error"
    elif differing >= DIFFERING_TOLD and share > SHARE_TOLD:
        verdict = "warning"
    words = f"{differing:,} of {looked:,} rows differed from the vendor's"
    if differing:
        words += " and are repaired"
    if verdict != "ok":
        words += (
            ": changes are being missed, see the runs of the last days; `twm reconcile` repairs all of them"
        )
    return _finding(table, verdict, words, {"looked_at": looked, "differed": differing, "requests": requests})


def _finding(table: Table, verdict: Verdict, words: str, figures: Mapping[str, int]) -> Finding:
    asset = (table.source, table.stream)
    return Finding(asset=asset, check="sample_equals_vendor", verdict=verdict, text=words, figures=figures)
