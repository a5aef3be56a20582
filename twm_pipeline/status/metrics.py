"""The figures for Prometheus.

They come from PostgreSQL, the spool and the receiver's file when they are asked for: right, however many
processes run and whichever of them was started again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from twm_pipeline.records import Json

CONTENT_TYPE = CONTENT_TYPE_LATEST
STATES = ("living", "deleted", "inaccessible", "missing")
FILE_STATES = ("stored", "pending", "hidden", "skipped", "failed")
PLACES = ("new", "due", "later", "held", "dead")
Value = float | datetime | None
Samples = Iterable[tuple[tuple[str, ...], Value]]


def expose(figures: Json) -> bytes:
    """Return *figures* in Prometheus' text format; what is not known is left out."""
    registry = CollectorRegistry()
    registry.register(_Figures(figures))
    return generate_latest(registry)


class _Figures(Collector):
    """Figures that were read already, as metrics."""

    def __init__(self, figures: Json) -> None:
        self._figures = figures

    def collect(self) -> Iterable[Metric]:
        """Return all of them."""
        figures, airtable = self._figures, self._figures["airtable"]
        is_up = not figures["problem"]
        yield _gauge("twm_database_up", "Whether PostgreSQL answers.", (), [((), is_up)])
        yield from _spools(figures["sources"])
        yield from _disk(figures["disk"])
        if figures["receiver"]:
            yield from _receiver(figures["receiver"])
        if is_up:
            sources = [item for item in figures["sources"] if item["configured"] or item["account"]]
            owners = [*sources, {"source": "airtable", **airtable}] if airtable else sources
            yield from _sources(sources)
            yield from _streams(sources)
            yield from _owners(owners)
            yield from _budgets([budget for owner in owners for budget in owner["budgets"]])
        if figures["attachments"]:
            yield from _attachments(figures["attachments"])
        if airtable:
            yield from _airtable(airtable)


def _gauge(name: str, text: str, labels: tuple[str, ...], samples: Samples) -> Metric:
    return _filled(GaugeMetricFamily(name, text, labels=labels), samples)


def _counter(name: str, text: str, labels: tuple[str, ...], samples: Samples) -> Metric:
    return _filled(CounterMetricFamily(name, text, labels=labels), samples)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, samples: Samples) -> Metric:
    for labels, value in samples:
        if value is not None:
            family.add_metric(labels, value.timestamp() if isinstance(value, datetime) else float(value))
    return family


def _each(items: list[Json], label: str, name: str) -> Samples:
    """Return a sample of every item: its figure *name*, labelled by what it has under *label*."""
    return [((item[label],), item[name]) for item in items]


def _spools(sources: list[Json]) -> Iterator[Metric]:
    source = ("source",)
    readable = [item for item in sources if not item["spool"]["problem"]]
    states = [((item["source"],), item in readable) for item in sources]
    yield _gauge("twm_spool_readable", "Whether the spool's folders can be listed.", source, states)
    entries = [((item["source"], place), item["spool"][place]) for item in readable for place in PLACES]
    yield _gauge("twm_spool_entries", "Accepted deliveries on disk.", ("source", "place"), entries)
    oldest = [((item["source"],), item["spool"]["oldest_seconds"]) for item in readable]
    yield _gauge("twm_spool_oldest_seconds", "Age of the oldest delivery that waits.", source, oldest)


def _disk(disk: Json) -> Iterator[Metric]:
    yield _gauge("twm_spool_free_bytes", "Room on the spool's disk.", (), [((), disk["free_bytes"])])
    text = "Room on the spool's disk that deliveries leave to others."
    yield _gauge("twm_spool_reserve_bytes", text, (), [((), disk["reserve_bytes"])])


def _receiver(receiver: Json) -> Iterator[Metric]:
    health = receiver["health"]
    yield _gauge("twm_receiver_up", "Whether the receiver answers.", (), [((), health is not None)])
    yield _gauge("twm_receiver_healthy", "Whether it can store deliveries.", (), [((), health == "ok")])
    accepted = [((source,), count) for source, count in receiver["accepted"].items()]
    text = "Deliveries stored since the receiver started."
    yield _counter("twm_deliveries_accepted", text, ("source",), accepted)
    refused = [((str(item["status"]), item["reason"]), item["count"]) for item in receiver["refused"]]
    text = "Requests refused since the receiver started."
    yield _counter("twm_deliveries_refused", text, ("status", "reason"), refused)


def _sources(sources: list[Json]) -> Iterator[Metric]:
    for name, figure, text in (
        ("twm_source_lag_seconds", "lag_seconds", "Since the last complete pass ended."),
        ("twm_source_last_success_timestamp_seconds", "last_success_at", "When that was."),
        ("twm_source_last_error_timestamp_seconds", "last_error_at", "When a pass failed last."),
    ):
        yield _gauge(name, text, ("source",), _each(sources, "source", figure))
    pending = [((s["source"],), any(c["more_to_read"] for c in s["checkpoints"])) for s in sources]
    yield _gauge("twm_source_history_pending", "Whether history is still to be read.", ("source",), pending)
    held = [((s["source"],), len(s["held_deletions"])) for s in sources]
    text = "Tables whose deletions wait for a confirmation."
    yield _gauge("twm_deletions_held_tables", text, ("source",), held)
    refused = [((s["source"],), sum(item["is_lost"] for item in s["refusals"])) for s in sources]
    text = "Streams, mailboxes and feeds that were readable and are refused now."
    yield _gauge("twm_refused_feeds", text, ("source",), refused)
    fields = [((s["source"],), sum(item["count"] for item in s["new_fields"])) for s in sources]
    yield _gauge("twm_new_fields", "Fields that the vendor did not send before.", ("source",), fields)
    hooks = Counter((s["source"], hook["status"]) for s in sources for hook in s["hooks"])
    yield _gauge("twm_hooks", "Our hooks at the vendor.", ("source", "status"), hooks.items())


def _streams(sources: list[Json]) -> Iterator[Metric]:
    labels = ("source", "stream")
    rows = [
        ((source["source"], table["stream"], state), table[state])
        for source in sources
        for table in source["tables"]
        for state in STATES
    ]
    yield _gauge("twm_rows", "Rows of the mirror.", (*labels, "state"), rows)
    written = [((s["source"], stream), count) for s in sources for stream, count in s["written"].items()]
    yield _counter("twm_rows_written", "Rows written since the mirror exists.", labels, written)
    heads = [
        ((source["source"], item["stream"], item["feed"]), item["last_event_time"])
        for source in sources
        for item in source["checkpoints"]
    ]
    text = "The instant below which nothing of a feed is missing."
    yield _gauge("twm_checkpoint_timestamp_seconds", text, (*labels, "feed"), heads)


def _owners(owners: list[Json]) -> Iterator[Metric]:
    """Return what the sources and Airtable have in common."""
    source = ("source",)
    yield _gauge(
        "twm_window_open", "Whether a window is open.", source, _each(owners, "source", "window_open")
    )
    parked = [((owner["source"],), owner["set_aside"]["count"]) for owner in owners]
    yield _gauge("twm_set_aside_records", "Records set aside with a reason.", source, parked)


def _budgets(budgets: list[Json]) -> Iterator[Metric]:
    account = ("account",)
    sent, throttled = (_each(budgets, "account", name) for name in ("requests", "throttled"))
    yield _counter("twm_vendor_requests", "Requests sent to the vendor.", account, sent)
    yield _counter("twm_vendor_throttled", "Answers 429 of the vendor.", account, throttled)
    for state, text in (
        ("waiting", "Whether a process waits for leave to ask."),
        ("paused", "Whether the vendor asked for a pause."),
    ):
        states = [((item["account"],), item[f"{state}_until"] is not None) for item in budgets]
        yield _gauge(f"twm_budget_{state}", text, account, states)
    windows = [
        ((item["account"], f"{window['seconds']:g}"), window)
        for item in budgets
        for window in item["windows"]
    ]
    for name, figure, text in (
        ("twm_budget_used_requests", "used", "Requests that count in a window of the budget."),
        ("twm_budget_limit_requests", "requests", "Requests that a window of the budget allows."),
    ):
        counts = [(labels, window[figure]) for labels, window in windows]
        yield _gauge(name, text, ("account", "window_seconds"), counts)


def _attachments(attachments: Json) -> Iterator[Metric]:
    states = [((state,), attachments[state]) for state in FILE_STATES]
    yield _gauge("twm_attachments", "Files of messages and comments.", ("state",), states)
    stored = [((), attachments["stored_bytes"])]
    yield _gauge("twm_attachments_stored_bytes", "Bytes of the files that are stored.", (), stored)


def _airtable(airtable: Json) -> Iterator[Metric]:
    for name, figure, text in (
        ("twm_airtable_records", "records", "Records published."),
        ("twm_airtable_waiting_rows", "waiting", "Changed rows that are not compared yet."),
        ("twm_airtable_published_timestamp_seconds", "published_at", "When a record was written last."),
        ("twm_airtable_compared_timestamp_seconds", "compared_at", "When all was compared last."),
    ):
        yield _gauge(name, text, ("view",), _each(airtable["views"], "view", figure))
    for name, figure, text in (
        ("twm_airtable_month_calls", "calls", "Calls of this month."),
        ("twm_airtable_month_limit_calls", "monthly_calls", "Calls that the plan allows a month."),
    ):
        yield _gauge(name, text, (), [((), airtable[figure])])
    text = "Whether publishing failed when it was tried last."
    yield _gauge("twm_airtable_failing", text, (), [((), airtable["last_error"] is not None)])
    text = "Whether no call is left this month."
    yield _gauge("twm_airtable_quota_used_up", text, (), [((), airtable["stopped"] is not None)])
