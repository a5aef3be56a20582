"""The figures for Prometheus.

They come from PostgreSQL, the spool and the receiver's file when they are asked for: right, however many
processes run and whichever of them was started again.
"""

from __future__ import annotations

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
PLACES = ("new", "due", "later", "held", "dead")
Sample = tuple[list[str], float | datetime | None]


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
        figures = self._figures
        sources = [item for item in figures["sources"] if item["configured"] or item["account"]]
        yield _gauge("twm_database_up", "Whether PostgreSQL answers.", [], [([], not figures["problem"])])
        yield from _findings(figures["findings"])
        yield from _spools(figures["sources"])
        yield from _disk(figures["disk"])
        if figures["receiver"]:
            yield from _receiver(figures["receiver"])
        if not figures["problem"]:
            yield from _sources(sources)
            yield from _streams(sources)
            yield from _budgets([*sources, *([figures["airtable"]] if figures["airtable"] else [])])
            yield from _hooks(sources)
        if figures["airtable"]:
            yield from _airtable(figures["airtable"])


def _gauge(name: str, text: str, labels: list[str], samples: Iterable[Sample]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    return _filled(family, samples)


def _counter(name: str, text: str, labels: list[str], samples: Iterable[Sample]) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    return _filled(family, samples)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, samples: Iterable[Sample]) -> Metric:
    for labels, value in samples:
        if value is not None:
            family.add_metric(labels, value.timestamp() if isinstance(value, datetime) else float(value))
    return family


def _findings(findings: list[Json]) -> Iterator[Metric]:
    text = "What the status page says needs attention; 1 while it does."
    labels = ["name", "level", "subject"]
    samples = {tuple(item[label] for label in labels) for item in findings}
    yield _gauge("twm_finding", text, labels, [(list(sample), 1) for sample in sorted(samples)])


def _sources(sources: list[Json]) -> Iterator[Metric]:
    def each(name: str) -> list[Sample]:
        return [([item["source"]], item[name]) for item in sources]

    source = ["source"]
    yield _gauge("twm_source_lag_seconds", "Since the last complete pass ended.", source, each("lag_seconds"))
    yield _gauge(
        "twm_source_last_success_timestamp_seconds",
        "When the last complete pass ended.",
        source,
        each("last_success_at"),
    )
    yield _gauge(
        "twm_source_last_error_timestamp_seconds", "When a pass failed last.", source, each("last_error_at")
    )
    yield _gauge("twm_source_window_open", "Whether a window is open.", source, each("window_open"))
    pending = [([s["source"]], any(c["more_to_read"] for c in s["checkpoints"])) for s in sources]
    yield _gauge("twm_source_history_pending", "Whether history is still to be read.", source, pending)
    parked = [([s["source"]], s["set_aside"]["count"]) for s in sources]
    yield _gauge("twm_set_aside_records", "Records set aside with a reason.", source, parked)


def _streams(sources: list[Json]) -> Iterator[Metric]:
    rows: list[Sample] = [
        ([source["source"], table["stream"], state], table[state])
        for source in sources
        for table in source["tables"]
        for state in STATES
    ]
    yield _gauge("twm_rows", "Rows of the mirror.", ["source", "stream", "state"], rows)
    written: list[Sample] = [
        ([source["source"], stream], count)
        for source in sources
        for stream, count in source["written"].items()
    ]
    yield _counter("twm_rows_written", "Rows written since the mirror exists.", ["source", "stream"], written)
    heads: list[Sample] = [
        ([source["source"], item["stream"], item["feed"]], item["last_event_time"])
        for source in sources
        for item in source["checkpoints"]
    ]
    text = "The instant below which nothing of a feed is missing."
    yield _gauge("twm_checkpoint_timestamp_seconds", text, ["source", "stream", "feed"], heads)


def _spools(sources: list[Json]) -> Iterator[Metric]:
    readable = [source for source in sources if not source["spool"]["problem"]]
    entries: list[Sample] = [
        ([source["source"], place], source["spool"][place]) for source in readable for place in PLACES
    ]
    yield _gauge("twm_spool_entries", "Accepted deliveries on disk.", ["source", "place"], entries)
    oldest: list[Sample] = [([item["source"]], item["spool"]["oldest_seconds"]) for item in readable]
    yield _gauge(
        "twm_spool_oldest_seconds", "Age of the oldest delivery that waits for a window.", ["source"], oldest
    )


def _disk(disk: Json) -> Iterator[Metric]:
    yield _gauge("twm_spool_free_bytes", "Room on the spool's disk.", [], [([], disk["free_bytes"])])
    yield _gauge(
        "twm_spool_reserve_bytes", "Room that deliveries leave to others.", [], [([], disk["reserve_bytes"])]
    )


def _receiver(receiver: Json) -> Iterator[Metric]:
    yield _gauge(
        "twm_receiver_up", "Whether the receiver answers.", [], [([], receiver["health"] is not None)]
    )
    accepted: list[Sample] = [([source], count) for source, count in receiver["accepted"].items()]
    yield _counter(
        "twm_deliveries_accepted", "Deliveries stored since the receiver started.", ["source"], accepted
    )
    refused: list[Sample] = [
        ([str(item["status"]), item["reason"]], item["count"]) for item in receiver["refused"]
    ]
    text = "Requests refused since the receiver started."
    yield _counter("twm_deliveries_refused", text, ["status", "reason"], refused)


def _budgets(owners: list[Json]) -> Iterator[Metric]:
    budgets = [budget for owner in owners for budget in owner["budgets"]]
    account = ["account"]

    def each(name: str) -> list[Sample]:
        return [([item["account"]], item[name]) for item in budgets]

    yield _counter("twm_vendor_requests", "Requests sent to the vendor.", account, each("requests"))
    yield _counter("twm_vendor_throttled", "Answers 429 of the vendor.", account, each("throttled"))
    windows = [(item["account"], window) for item in budgets for window in item["windows"]]
    labels = ["account", "window_seconds"]
    used: list[Sample] = [([name, f"{window['seconds']:g}"], window["used"]) for name, window in windows]
    yield _gauge("twm_budget_used_requests", "Requests that count in a window of the budget.", labels, used)
    limits: list[Sample] = [
        ([name, f"{window['seconds']:g}"], window["requests"]) for name, window in windows
    ]
    yield _gauge("twm_budget_limit_requests", "Requests that a window of the budget allows.", labels, limits)
    waits: list[Sample] = [([item["account"]], item["waiting_until"] is not None) for item in budgets]
    yield _gauge("twm_budget_waiting", "Whether a process waits for leave to ask.", account, waits)


def _hooks(sources: list[Json]) -> Iterator[Metric]:
    counts: dict[tuple[str, str], int] = {}
    for source in sources:
        for hook in source["hooks"]:
            key = (source["source"], hook["status"])
            counts[key] = counts.get(key, 0) + 1
    samples: list[Sample] = [(list(key), count) for key, count in sorted(counts.items())]
    yield _gauge("twm_hooks", "Our hooks at the vendor.", ["source", "status"], samples)


def _airtable(airtable: Json) -> Iterator[Metric]:
    def each(name: str) -> list[Sample]:
        return [([view["view"]], view[name]) for view in airtable["views"]]

    view = ["view"]
    yield _gauge("twm_airtable_records", "Records published.", view, each("records"))
    yield _gauge("twm_airtable_waiting_rows", "Changed rows not compared yet.", view, each("waiting"))
    yield _gauge(
        "twm_airtable_published_timestamp_seconds",
        "When a record was written last.",
        view,
        each("published_at"),
    )
    yield _gauge(
        "twm_airtable_compared_timestamp_seconds", "When all was compared last.", view, each("compared_at")
    )
    yield _gauge("twm_airtable_month_calls", "Calls of this month.", [], [([], airtable["calls"])])
    yield _gauge(
        "twm_airtable_month_limit_calls", "Calls allowed a month.", [], [([], airtable["monthly_calls"])]
    )
    yield _gauge(
        "twm_airtable_quota_used_up",
        "Whether the month's calls are used up.",
        [],
        [([], airtable["exhausted"])],
    )
