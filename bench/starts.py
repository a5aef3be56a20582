"""From a change at the vendor to its row in PostgreSQL when no window is open, beside a bare Dagster."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg

from bench.deployment import LOOK_SECONDS, dagster_with, postgres, settings_of
from bench.imports import run_passes
from bench.latency import (
    COLUMNS,
    MAIL_EVERY,
    Journey,
    Rows,
    Vendors,
    journeys,
    line,
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

STARTS = 30
TURN_SECONDS = 5.0
"""How often Dagster's daemon looks at its sensors."""
AIM = 0.5
LOCATIONS = {"twm_pipeline": "twm_pipeline.definitions", "floor": "bench.floor"}


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

    def ours(self, number: int, *, phase: float) -> Journey:
        """Make a change, and return how long it took."""
        is_mail = number % MAIL_EVERY == 0
        self._await_look("missive_spool_sensor" if is_mail else "teamwork_spool_sensor", phase)
        change = self.vendors.change(number)
        heard = self.rows.await_all([change.row])
        self.await_rest()
        return journeys(self.vendors.control, [change], heard)[0]

    def floor(self, number: int, *, phase: float) -> float:
        """Put a file in the floor's folder, and return how long its row took."""
        self._await_look("file_sensor", phase)
        began = time.monotonic()
        file = self.folder / str(number)
        file.touch()
        heard = self.rows.await_all([f"floor {number}"])
        file.unlink()
        self.await_rest()
        return next(iter(heard.values())) - began

    def _await_look(self, sensor: str, phase: float) -> None:
        """Wait until *sensor* has just looked, and *phase* seconds more."""
        query = "SELECT max(id) FROM job_ticks WHERE type = 'SENSOR' AND strpos(tick_body, %s) > 0"
        before = now = self._ask(query, sensor)
        while now == before:
            time.sleep(LOOK_SECONDS)
            now = self._ask(query, sensor)
        time.sleep(phase)

    def await_rest(self) -> None:
        """Wait until no run is under way."""
        ended = "SELECT count(*) FROM runs WHERE status NOT IN ('SUCCESS', 'FAILURE', 'CANCELED')"
        time.sleep(LOOK_SECONDS)
        while self._ask(ended) != (0,):
            time.sleep(LOOK_SECONDS)

    def _ask(self, query: LiteralString, *values: str) -> tuple[Any, ...] | None:
        return self.dagster.execute(query, values).fetchone()


def run(*, scale: float = 1.0) -> Report:
    """Return how long it takes when each event has to open its own window, which is one pass then."""
    count = max(int(STARTS * scale), 1)
    report = Report(
        name="starts",
        title="From a change to its row, no window open",
        columns=COLUMNS,
        notes=[
            "One at a time, in turns; SYNC_WINDOW_SECONDS=0, schedules stopped, sensors on.",
            "Both kinds come at the same moments between two looks of their sensors, spread evenly.",
        ],
    )
    ours: list[Journey] = []
    floor: list[float] = []
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
        yield Starter(vendors=vendors, rows=rows, folder=files, dagster=dagster)


def _add(report: Report, ours: Sequence[Journey], floor: Sequence[float]) -> None:
    plain = [f"{1000 * quantile(floor, share):.1f}" for share in (0.5, 0.99)]
    report.rows = [
        line("no window open", ours),
        ("a one-line sensor and asset", str(len(floor)), *plain, "", "", ""),
    ]
    more = median(item.accepted for item in ours) - median(floor)
    report.aims.append(
        Aim(
            text=f"median at most {AIM} s over a one-line sensor and asset",
            measured=f"{more:+.2f} s",
            met=more <= AIM,
        )
    )
    report.figures = {"ours": [asdict(item) for item in ours], "floor": list(floor)}
