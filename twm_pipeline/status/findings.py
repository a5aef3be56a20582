"""What of the figures needs attention, in words a person can act on: pure decisions.

Every finding has its alert in `docs/alerts.yml` and its line in `docs/operations.md`, under the same name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from twm_pipeline.mirror.refusals import describe_refusal
from twm_pipeline.records import Json
from twm_pipeline.status.words import count_of, span

Level = Literal["bad", "warn", "note"]

LEVELS: tuple[Level, ...] = ("bad", "warn", "note")
LATE = timedelta(minutes=10)
VERY_LATE = timedelta(hours=1)
DELIVERIES_LATE = timedelta(minutes=5)
QUOTA_SHARE = 0.8
"""Of Airtable's monthly calls; publishing itself warns at the same share."""
NOT_COMPARED = timedelta(days=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that a person should know of.

    Args:
        name: As in the alert rules and in `docs/operations.md`.
        level: `bad`: something does not arrive; `warn`: it soon may not; `note`: worth a look.
        text: What it is, and what to do.
        subject: The source, or the part of the product.
    """

    name: str
    level: Level
    text: str
    subject: str


def find(figures: Json) -> list[Finding]:
    """Return what needs attention, the worst first."""
    found = [*_of_mirror(figures), *_of_receiver(figures), *_of_disk(figures["disk"])]
    for source in figures["sources"]:
        if source["configured"]:
            found += [*_of_source(source, figures["taken_at"]), *_of_budgets(source), *_of_hooks(source)]
            found += [] if figures["problem"] else _of_import(source)
        found += _of_spool(source)
    if figures["attachments"]:
        found += _of_attachments(figures["attachments"])
    if figures["airtable"]:
        found += _of_airtable(figures["airtable"], figures["taken_at"])
    return sorted(found, key=lambda finding: LEVELS.index(finding.level))


def _of_mirror(figures: Json) -> Iterator[Finding]:
    if figures["problem"]:
        yield Finding(name="DatabaseDown", level="bad", text=figures["problem"], subject="Mirror")


def _of_receiver(figures: Json) -> Iterator[Finding]:
    receiver = figures["receiver"]
    if receiver is None:
        return
    if receiver["health"] is None and receiver["expected"]:
        text = (
            f"The receiver does not answer on {receiver['address']}: no webhook arrives, polling goes on."
            " Start it again, or set DISABLE_WEBHOOKS=true if none is wanted."
        )
        yield Finding(name="ReceiverDown", level="bad", text=text, subject="Receiver")
    elif receiver["health"] not in ("ok", None):
        text = "The receiver cannot store deliveries; the vendors send them again later. Look at the disk."
        yield Finding(name="ReceiverFailing", level="bad", text=text, subject="Receiver")


def _of_disk(disk: Json) -> Iterator[Finding]:
    if disk["free_bytes"] is not None and disk["free_bytes"] < disk["reserve_bytes"]:
        text = "The disk of the spool is full but for its reserve: deliveries are put off. Make room."
        yield Finding(name="DiskFull", level="bad", text=text, subject="Disk")


def _of_source(source: Json, now: datetime) -> Iterator[Finding]:
    name = source["source"].capitalize()
    lag = source["lag_seconds"]
    level: Level
    if lag is not None and lag > LATE.total_seconds():
        level = "bad" if lag > VERY_LATE.total_seconds() else "warn"
        where = "." if source["window_open"] else ", and no window is open: look at the runs in Dagster's UI."
        text = f"The last complete pass ended {span(lag)} ago{where}"
        yield Finding(name="SourceLate", level=level, text=text, subject=name)
    if source["last_error"] and (
        source["last_success_at"] is None or source["last_error_at"] > source["last_success_at"]
    ):
        ago = span((now - source["last_error_at"]).total_seconds())
        text = f"The last pass failed {ago} ago: {source['last_error']}"
        yield Finding(name="SourceFailing", level="warn", text=text, subject=name)
    for item in source["refusals"]:
        level = "warn" if item["is_lost"] else "note"
        yield Finding(name="StreamRefused", level=level, text=describe_refusal(item), subject=name)
    for text in source["held_deletions"]:
        yield Finding(name="DeletionsHeld", level="warn", text=text, subject=name)
    for item in source["new_fields"]:
        text = f"{item['stream']}: {item['text']}."
        yield Finding(name="FieldsNew", level="note", text=text, subject=name)
    if count := source["set_aside"]["count"]:
        text = f"{count_of(count, 'record')} set aside with a reason; each is tried again by itself."
        yield Finding(name="RecordsSetAside", level="note", text=text, subject=name)


def _of_import(source: Json) -> Iterator[Finding]:
    name = source["source"].capitalize()
    if source["account"] is None:
        text = (
            "Nothing of it has been read yet. If this does not change within a minute or two, the last run in"
            " Dagster's UI says why, and so does `twm doctor`."
        )
        yield Finding(name="SourceUnread", level="warn", text=text, subject=name)
    elif source["last_success_at"] is None and not source["last_error"]:
        text = "The first pass is under way: what is shown is not complete yet."
        yield Finding(name="SourceUnread", level="warn", text=text, subject=name)
    elif any(item["more_to_read"] for item in source["checkpoints"]):
        text = "History is still being read; what changes now is read first."
        yield Finding(name="HistoryPending", level="note", text=text, subject=name)


def _of_budgets(source: Json) -> Iterator[Finding]:
    for budget in source["budgets"]:
        if budget["paused_until"]:
            until = f"{budget['paused_until']:%H:%M:%S} UTC"
            text = f"No request is sent until {until}: {budget['paused_reason']}"
            yield Finding(name="VendorPause", level="note", text=text, subject=source["source"].capitalize())


def _of_hooks(source: Json) -> Iterator[Finding]:
    wrong = [hook for hook in source["hooks"] if hook["status"] != "active"]
    if wrong:
        text = (
            f"{count_of(len(wrong), 'hook')} not active, of {len(source['hooks'])}; they are checked every"
            " 15 minutes, and at once by `twm webhooks repair`."
        )
        yield Finding(name="HooksNotActive", level="warn", text=text, subject=source["source"].capitalize())


def _of_spool(source: Json) -> Iterator[Finding]:
    spool, name = source["spool"], source["source"].capitalize()
    if spool["problem"]:
        yield Finding(name="SpoolUnreadable", level="bad", text=spool["problem"], subject=name)
        return
    if spool["waiting"] and spool["oldest_seconds"] > DELIVERIES_LATE.total_seconds():
        text = (
            f"{count_of(spool['waiting'], 'delivery', 'deliveries')} waiting, the oldest for"
            f" {span(spool['oldest_seconds'])}."
        )
        yield Finding(name="DeliveriesLate", level="warn", text=text, subject=name)
    if spool["dead"]:
        text = (
            f"{count_of(spool['dead'], 'delivery', 'deliveries')} given up; the next poll or reconcile finds"
            " what they told. `twm queue list` shows them."
        )
        yield Finding(name="DeliveriesDead", level="note", text=text, subject=name)


def _of_attachments(attachments: Json) -> Iterator[Finding]:
    if count := attachments["failed"]:
        text = f"{count_of(count, 'file')} not to be had, after many tries: `twm attachments list` says why."
        yield Finding(name="AttachmentsFailed", level="note", text=text, subject="Attachments")


def _of_airtable(airtable: Json, now: datetime) -> Iterator[Finding]:
    quota = airtable["monthly_calls"]
    if airtable["stopped"]:
        yield Finding(name="AirtableQuotaUsedUp", level="bad", text=airtable["stopped"], subject="Airtable")
    elif quota and airtable["calls"] > QUOTA_SHARE * quota:
        text = f"{airtable['calls']:,} of {quota:,} calls of this month are used."
        yield Finding(name="AirtableQuotaLow", level="warn", text=text, subject="Airtable")
    if airtable["last_error"] and not airtable["stopped"]:
        ago = span((now - airtable["last_error_at"]).total_seconds())
        text = f"Publishing failed {ago} ago: {airtable['last_error']}"
        yield Finding(name="AirtableFailing", level="warn", text=text, subject="Airtable")
    for view in airtable["views"]:
        if view["compared_at"] and now - view["compared_at"] > NOT_COMPARED:
            ago = span((now - view["compared_at"]).total_seconds())
            text = f"{view['view'].capitalize()} were last compared {ago} ago; it is done every night."
            yield Finding(name="AirtableNotCompared", level="warn", text=text, subject="Airtable")
    if count := airtable["set_aside"]["count"]:
        text = f"{count_of(count, 'row')} not accepted by Airtable, with a reason; tried again by itself."
        yield Finding(name="RecordsSetAside", level="note", text=text, subject="Airtable")
