"""Calls to Airtable, use of its budget, and from a change in the mirror to its record in an open window."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import requests
from sqlalchemy import Engine, text

from bench.imports import run_passes, settings_of
from bench.report import Aim, Report, median
from bench.servers import mirror, mirror_url, sandbox, server
from twm_pipeline.airtable.client import RECORDS_PER_CALL, REQUESTS_PER_SECOND
from twm_pipeline.db import connect_database
from twm_pipeline.mirror.changelog import follow_changes
from twm_pipeline.sandbox import SandboxControl, SandboxOptions
from twm_pipeline.settings import Settings, environment_of, load_settings
from twm_pipeline.sync.publish import PublishReport
from twm_pipeline.sync.publishing import PublishWindow

ROWS = 10_000
CHANGED = 100
SPARE = 1.3
"""Tasks to generate for each row wanted: some are deleted, or hidden otherwise."""
SLOW_SECONDS = 0.25
"""A plausible answer time of Airtable's for ten records; the sandbox itself takes a few milliseconds."""
SLOW_ROWS = 1_000
SINGLES, SINGLES_AIM = 60, 0.5
PAUSE_SECONDS, PATIENCE_SECONDS = 0.4, 30.0
SHARE_AIM = 0.75
EVERYTHING = "UPDATE twm.publications SET compared_at = NULL"
CHANGE = (
    "UPDATE teamwork.tasks SET title = 'Change ' || :number, content_hash = decode(md5(:number), 'hex')"
    " WHERE id = ANY(:ids)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One publication as the sandbox saw it.

    Args:
        seconds: Until nothing was left to do.
        setting_up: Calls about tables and fields.
        calls: Calls about records.
        span: Documented seconds from the first call about records to the last.
        refused: Answers 429.
    """

    seconds: float
    setting_up: int
    calls: int
    span: float
    refused: int

    @property
    def share(self) -> float:
        """Return which share of the documented budget was used, from the first call to the last."""
        return (self.calls - 1) / (REQUESTS_PER_SECOND * self.span) if self.span else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A mirror with as many rows as wanted, and the sandbox it is published to."""

    engine: Engine
    settings: Settings
    control: SandboxControl
    ids: list[int]

    def execute(self, statement: str, **values: Any) -> None:  # noqa: ANN401 - any SQL value
        """Run a statement in a transaction."""
        with self.engine.begin() as connection:
            connection.execute(text(statement), values)

    def change(self, ids: list[int], number: int) -> float:
        """Change tasks in the mirror; return when that was committed."""
        self.execute(CHANGE, ids=ids, number=str(number))
        return time.monotonic()


def run(*, scale: float = 1.0, pace: float = 1.0) -> Report:
    """Return calls, budget share and latencies.

    Args:
        scale: Share of the full size.
        pace: How much faster than documented the budget refills; at 1 the shares are those of a real base.
    """
    rows, singles = max(int(ROWS * scale), 3 * CHANGED // 2), max(int(SINGLES * scale), 3)
    with (
        server() as embedded,
        mirror(embedded, "publish") as engine,
        sandbox(SandboxOptions(tasks=int(rows * SPARE), conversations=2)) as box,
    ):
        dsn = mirror_url(embedded, "publish").render_as_string(hide_password=False)
        place = prepare(engine, box, dsn, rows=rows, pace=pace)
        phases = {"first": publish(place)}
        place.execute(EVERYTHING)
        phases["unchanged, all compared"] = publish(place)
        phases["unchanged"] = publish(place)
        place.change(place.ids[:CHANGED], 1)
        phases[f"{CHANGED} changed"] = publish(place)
        slow = place.ids[: max(int(SLOW_ROWS * scale), CHANGED)]
        place.control.set_latency(SLOW_SECONDS, "airtable")
        place.change(slow, 2)
        phases[f"{len(slow):,} changed, answers {SLOW_SECONDS * 1000:.0f} ms later"] = publish(place)
        place.control.set_latency(0, "airtable")
        latencies = listen(place, singles)
        bare = bare_calls(place, singles)
    return _report(rows, phases, latencies, bare)


def prepare(engine: Engine, box: dict[str, Any], dsn: str, *, rows: int, pace: float) -> Place:
    """Read the sandbox's tasks and show exactly so many; Airtable's budget is enforced afterwards."""
    with engine.begin() as connection:
        follow_changes(connection, wanted=True)
    fast = load_settings(**settings_of(box, dsn))
    run_passes(fast, "teamwork")
    hide = (
        "UPDATE teamwork.tasks SET out_of_scope = true WHERE id > (SELECT task_id FROM public.tasks ORDER BY"
    )
    with engine.begin() as connection:
        connection.execute(text(f"{hide} task_id OFFSET :last LIMIT 1)"), {"last": rows - 1})
        ids = list(connection.execute(text("SELECT task_id FROM public.tasks ORDER BY task_id")).scalars())
    settings = load_settings(
        **settings_of(box, dsn)
        | {
            "budget_time_scale": pace,
            "db_backend": "both",
            "airtable_api_key": box["airtable_token"],
            "airtable_base_id": box["airtable_base_id"],
            "airtable_endpoint_url": box["airtable_url"],
            "airtable_upload_url": box["airtable_upload_url"],
        }
    )
    control = SandboxControl(box["url"])
    control.set_budgets(pace, "airtable")
    return Place(engine=engine, settings=settings, control=control, ids=ids)


def publish(place: Place) -> Phase:
    """Publish the tasks once."""
    place.control.reset_counters()
    began = time.monotonic()
    reports: list[dict[Any, PublishReport]] = []
    PublishWindow(
        engine=place.engine, settings=place.settings, views=("tasks",), on_report=reports.append
    ).run()
    seconds = time.monotonic() - began
    asked = place.control.requests("airtable")
    about_records = [
        row for row in asked if "/meta/" not in row["path"] and not row["path"].startswith("meta")
    ]
    times = [row["at"] for row in about_records]
    return Phase(
        seconds=seconds,
        setting_up=len(asked) - len(about_records),
        calls=len(about_records),
        span=(max(times) - min(times)) * place.settings.budget_time_scale if times else 0.0,
        refused=sum(row["status"] == HTTPStatus.TOO_MANY_REQUESTS for row in asked),
    )


@contextmanager
def window(settings: Settings) -> Iterator[None]:
    """Keep a window open in a process of its own, as a run of Dagster does."""
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_keep_open, args=(environment_of(settings), ready), daemon=True)
    process.start()
    try:
        if not ready.wait(PATIENCE_SECONDS):
            msg = "the window did not open"
            raise TimeoutError(msg)
        yield
    finally:
        process.terminate()
        process.join()


def _keep_open(environment: dict[str, str], ready: Any) -> None:  # noqa: ANN401 - multiprocessing's event
    import os  # noqa: PLC0415 - of this process only

    os.environ.update(environment)
    settings = load_settings()
    PublishWindow(
        engine=connect_database(settings),
        settings=settings,
        seconds=24 * 3600,
        views=("tasks",),
        on_report=lambda _: ready.set(),
    ).run()


def listen(place: Place, count: int) -> list[float]:
    """Change one row at a time; return the seconds from each commit to Airtable's answer.

    The sandbox notes the times of its requests on the clock that all processes of a machine share.
    """
    with window(place.settings):
        return [_journey(place, number) for number in range(count)]


def _journey(place: Place, number: int) -> float:
    pause = threading.Event()  # never set: only its timeout is used
    pause.wait(PAUSE_SECONDS)
    place.control.reset_counters()
    committed = place.change([place.ids[number % len(place.ids)]], 1000 + number)
    while not (asked := place.control.requests("airtable")):
        if time.monotonic() - committed > PATIENCE_SECONDS:
            msg = "a change did not reach Airtable"
            raise TimeoutError(msg)
        pause.wait(0.02)
    return float(asked[0]["at"] + asked[0]["seconds"] - committed)


def bare_calls(place: Place, count: int) -> list[float]:
    """Return the seconds that changing one record takes a plain client, each time."""
    settings = place.settings
    with place.engine.connect() as connection:
        table_id = connection.scalar(
            text("SELECT field_id FROM twm.published_fields WHERE view = 'tasks' AND field = ''")
        )
        record_id = connection.scalar(text("SELECT min(record_id) FROM twm.published WHERE view = 'tasks'"))
    url = f"{settings.airtable_endpoint_url}/v0/{settings.airtable_base_id}/{table_id}"
    seconds = []
    with requests.Session() as session:
        session.trust_env = False
        if settings.airtable_api_key is not None:
            session.headers["Authorization"] = f"Bearer {settings.airtable_api_key.get_secret_value()}"
        for number in range(count + 1):
            time.sleep(PAUSE_SECONDS)
            began = time.monotonic()
            body = {"records": [{"id": record_id, "fields": {"name": f"Bare {number}"}}]}
            session.patch(url, json=body, timeout=30).raise_for_status()
            seconds.append(time.monotonic() - began)
    return seconds[1:]  # the first one opens the connection


def _report(rows: int, phases: dict[str, Phase], latencies: list[float], bare: list[float]) -> Report:
    report = Report(
        name="publish",
        title=f"Publish: {rows:,} rows to the sandbox's Airtable at its documented pace",
        columns=("", "seconds", "calls to set up", "calls about records", "share of 5/s", "answers 429"),
        notes=[
            "share: calls about records but the first / (5 x seconds from the first to the last).",
            f"latency: {len(latencies)} changes, one at a time, from the commit in PostgreSQL to Airtable's"
            " answer, less the median of one bare call from a plain client.",
        ],
    )
    for name, phase in phases.items():
        share = f"{phase.share:.0%}" if phase.calls > 1 else "-"
        report.rows.append(
            (
                name,
                f"{phase.seconds:.1f}",
                f"{phase.setting_up}",
                f"{phase.calls:,}",
                share,
                f"{phase.refused}",
            )
        )
        report.figures[name] = {
            "seconds": phase.seconds,
            "set_up": phase.setting_up,
            "calls": phase.calls,
            "share": phase.share,
            "refused": phase.refused,
        }
    added = [seconds - median(bare) for seconds in latencies]
    ninth = sorted(added)[int(len(added) * 0.99)]
    report.figures["latency"] = {"p50": median(added), "p99": ninth, "bare": median(bare), "all": latencies}
    report.rows.append(("one change, window open", f"{median(added):.3f} (p99 {ninth:.3f})", "", "1", "", ""))
    report.aims = _aims(rows, phases, median(added))
    return report


def _aims(rows: int, phases: dict[str, Phase], latency: float) -> list[Aim]:
    first, changed = phases["first"], phases[f"{CHANGED} changed"]
    wanted = -(-rows // RECORDS_PER_CALL)
    quiet = sum(phase.calls + phase.setting_up for name, phase in phases.items() if "unchanged" in name)
    refused = sum(phase.refused for phase in phases.values())
    return [
        Aim(
            text=f"first: {wanted:,} calls and the set-up",
            measured=f"{first.calls:,} and {first.setting_up}",
            met=first.calls == wanted,
        ),
        Aim(text="unchanged: no call", measured=str(quiet), met=quiet == 0),
        Aim(
            text=f"{CHANGED} changed: {CHANGED // RECORDS_PER_CALL} calls",
            measured=str(changed.calls),
            met=changed.calls == CHANGED // RECORDS_PER_CALL and changed.setting_up == 0,
        ),
        Aim(
            text=f"first: at least {SHARE_AIM:.0%} of the budget without one 429",
            measured=f"{first.share:.0%}, {refused} refused",
            met=first.share >= SHARE_AIM and refused == 0,
        ),
        Aim(
            text=f"from the mirror to Airtable: median at most {SINGLES_AIM} s over one bare call",
            measured=f"{latency:.3f} s",
            met=latency <= SINGLES_AIM,
        ),
    ]
