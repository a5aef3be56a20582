"""From a change at the vendor to its row in PostgreSQL when no window is open, beside a bare Dagster."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg

from bench.deployment import LOOK_SECONDS, dagster_with, postgres, settings_of, wait_for
from bench.imports import run_passes
from bench.latency import (
    MAIL_EVERY,
    Journey,
    Rows,
    Vendors,
    journeys,
    quantile,
    rows_of,
    words,
)
from bench.report import Aim, Report, median
from bench.servers import sandbox, scratch_folder
from twm_pipeline.db import dagster_url, mirror_url
from twm_pipeline.records import SOURCES
from twm_pipeline.sandbox import SandboxControl, SandboxOptions
from twm_pipeline.settings import Settings
from twm_pipeline.sync.drain import spool_of

STARTS = 30
TURN_SECONDS = 5.0
"""How often Dagster's daemon looks at its sensors."""
AIM = 0.5
LOOK = "SELECT max(id) FROM job_ticks WHERE type = 'SENSOR' AND strpos(tick_body, %s) > 0"
UNDER_WAY = "SELECT count(*) FROM runs WHERE status NOT IN ('SUCCESS', 'FAILURE', 'CANCELED')"
QUEUED = """
    SELECT extract(epoch FROM max(timestamp) FILTER (WHERE dagster_event_type = 'PIPELINE_STARTING')
        - max(timestamp) FILTER (WHERE dagster_event_type = 'PIPELINE_ENQUEUED'))
    FROM event_logs WHERE run_id = (SELECT run_id FROM runs ORDER BY id DESC LIMIT 1)
"""
LOCATIONS = {"twm_pipeline": "twm_pipeline.definitions", "floor": "bench.floor"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """How long it took from an event to its row, in seconds.

    Args:
        seconds: All of it, without the vendor's time.
        queued: Of it, in Dagster's queue. That is looked at once a second, in step with the sensors, so one
            kind of event may always come just in time and the other just too late.
        journey: Of ours.
    """

    seconds: float
    queued: float
    journey: Journey | None = None

    @property
    def own(self) -> float:
        """What was not spent in the queue."""
        return self.seconds - self.queued


@dataclass(frozen=True, slots=True, kw_only=True)
class Starter:
    """Lets Dagster start a run for something that happens at a chosen moment between two looks of a sensor.

    Args:
        vendors: Where changes are made.
        rows: Where what comes of them is awaited.
        folder: Where the floor's files are put.
        dagster: A session on Dagster's database.
    """

    vendors: Vendors
    rows: Rows
    folder: Path
    dagster: psycopg.Connection[Any]

    def ours(self, number: int, *, phase: float) -> Start:
        """Make a change, and return how long it took."""
        is_mail = number % MAIL_EVERY == 0
        self._await_look("missive_spool_sensor" if is_mail else "teamwork_spool_sensor", phase)
        change = self.vendors.change(number)
        heard = self.rows.await_all([change.row])
        queued = self.await_end()
        [journey] = journeys(self.vendors.control, [change], heard)
        return Start(seconds=journey.accepted, queued=queued, journey=journey)

    def floor(self, number: int, *, phase: float) -> Start:
        """Put a file in the floor's folder, and return how long its row took."""
        self._await_look("file_sensor", phase)
        began = time.monotonic()
        file = self.folder / str(number)
        file.touch()
        [heard] = self.rows.await_all([f"floor {number}"]).values()
        file.unlink()
        return Start(seconds=heard - began, queued=self.await_end())

    def _await_look(self, sensor: str, phase: float) -> None:
        """Wait until *sensor* has just looked, and *phase* seconds more."""
        before = now = self._ask(LOOK, sensor)
        while now == before:
            time.sleep(LOOK_SECONDS)
            now = self._ask(LOOK, sensor)
        time.sleep(phase)

    def await_end(self) -> float:
        """Wait until no run is under way, and return how long the newest one was queued."""
        while self._ask(UNDER_WAY) != 0:
            time.sleep(LOOK_SECONDS)
        return float(self._ask(QUEUED) or 0)

    def _ask(self, query: LiteralString, *values: str) -> Any:  # noqa: ANN401 - a column of any type
        row = self.dagster.execute(query, values).fetchone()
        return None if row is None else row[0]


def run(*, scale: float = 1.0) -> Report:
    """Return how long it takes when each event has to open its own window, which is one pass then."""
    count = max(int(STARTS * scale), 1)
    report = Report(
        name="starts",
        title="From a change to its row, no window open",
        columns=("", "events", "p50 s", "p99 s", "p50 without the queue", "from the change: p50", "p99"),
        notes=[
            "One at a time, in turns; SYNC_WINDOW_SECONDS=0, schedules stopped, sensors on.",
            "Both kinds come at the same moments between two looks of their sensors, spread evenly.",
            "Dagster looks at its queue once a second, in step with the sensors: one kind may always come"
            " just in time there, and the other just too late.",
        ],
    )
    ours: list[Start] = []
    floor: list[Start] = []
    with sandbox(SandboxOptions()) as box, scratch_folder() as folder:
        settings = settings_of(box, folder, sync_window_seconds=0.0)
        with postgres(settings):
            for source in SOURCES:
                run_passes(settings, source)
            with _starter(settings, Vendors(SandboxControl(box["url"])), folder) as starter:
                for number in range(count):
                    phase = TURN_SECONDS * (number + 0.5) / count
                    ours.append(starter.ours(number, phase=phase))
                    floor.append(starter.floor(number, phase=phase))
    _add(report, ours, floor)
    return report


@contextmanager
def _starter(settings: Settings, vendors: Vendors, folder: Path) -> Iterator[Starter]:
    """Run Dagster with the product's definitions and the floor's."""
    (files := folder / "files").mkdir()
    mirror = mirror_url(settings)
    env = {"TWM_BENCH_FOLDER": str(files), "TWM_BENCH_DSN": words(mirror)}
    with (
        rows_of(mirror) as rows,
        dagster_with(settings, LOCATIONS, folder, env),
        psycopg.connect(words(dagster_url(settings)), autocommit=True) as dagster,
    ):
        # Hooks that were just made let the product poll at once: these runs are not to be measured.
        spools = [spool_of(settings, source) for source in SOURCES]
        wait_for(lambda: not any(spool.waiting().count for spool in spools))
        starter = Starter(vendors=vendors, rows=rows, folder=files, dagster=dagster)
        starter.await_end()
        yield starter


def _add(report: Report, ours: Sequence[Start], floor: Sequence[Start]) -> None:
    for name, starts in (("no window open", ours), ("a one-line sensor and asset", floor)):
        changed = [item.journey.from_change for item in starts if item.journey is not None]
        all_of_it, own = [item.seconds for item in starts], [item.own for item in starts]
        cells = [(all_of_it, 0.5), (all_of_it, 0.99), (own, 0.5), (changed, 0.5), (changed, 0.99)]
        shown = (f"{quantile(values, share):.2f}" if values else "" for values, share in cells)
        report.rows.append((name, str(len(starts)), *shown))
    more = median(item.own for item in ours) - median(item.own for item in floor)
    whole = median(item.seconds for item in ours) - median(item.seconds for item in floor)
    report.aims.append(
        Aim(
            text=f"median at most {AIM} s over a one-line sensor and asset",
            measured=f"{more:+.2f} s without the queue, {whole:+.2f} s with it",
            met=more <= AIM,
        )
    )
    report.figures = {"ours": [asdict(item) for item in ours], "floor": [asdict(item) for item in floor]}
