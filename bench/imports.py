"""CPU and memory of a first import, beside a bare loop that fetches and decodes the same bytes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson
import requests

from bench.report import Aim, Report, median, ratio
from bench.servers import (
    Usage,
    append_body,
    bytes_server,
    measured,
    mirror,
    mirror_url,
    sandbox,
    scratch_folder,
    server,
)
from twm_pipeline.db import EmbeddedServer, connect_database
from twm_pipeline.records import Source
from twm_pipeline.sandbox import SandboxControl, SandboxOptions
from twm_pipeline.settings import Settings, load_settings
from twm_pipeline.sync.engine import PassOptions, PassReport
from twm_pipeline.sync.window import Window

TASKS, CONVERSATIONS = 20_000, 5_000
TIMES = 10
ROUNDS = 3
MEMORY_AIM = 1.3
TIMEOUT_SECONDS = 60
TIME_SCALE = 10_000.0
"""So that the product's own budget never waits; the sandbox enforces none here."""
SOURCES: tuple[Source, ...] = ("teamwork", "missive")
MIB = 1 << 20


def run(*, scale: float = 1.0, rounds: int = ROUNDS, times: int = TIMES) -> Report:
    """Return CPU seconds per 1,000 records of both sources, and peak memory at *times* the size."""
    tasks, conversations = max(int(TASKS * scale), 50), max(int(CONVERSATIONS * scale), 20)
    small = SandboxOptions(tasks=tasks, conversations=conversations)
    report = Report(
        name="imports",
        title=f"First import: {tasks:,} tasks, {conversations:,} conversations, no budgets",
        columns=("", "records", "requests", "MiB", "CPU s per 1,000", "seconds", "of bare loop", "peak MiB"),
        notes=[
            "CPU and memory of the client's process alone: vendors and PostgreSQL run in others.",
            f"bare loop: requests and orjson on the same stored bytes. Medians of {rounds}, in turns.",
        ],
    )
    with server() as embedded:
        peaks = _measure_speed(embedded, report, small, rounds)
        if times > 1:
            _measure_memory(embedded, report, peaks, small, times)
    return report


@dataclass(slots=True, kw_only=True)
class Compared:
    """Imports of one source and bare loops over the same bytes."""

    records: int = 0
    requests: int = 0
    bytes: int = 0
    imports: list[Usage] = field(default_factory=list)
    loops: list[Usage] = field(default_factory=list)

    @property
    def peak_bytes(self) -> int:
        """The highest memory of any import."""
        return max(usage.peak_bytes for usage in self.imports)


def _measure_speed(
    embedded: EmbeddedServer, report: Report, options: SandboxOptions, rounds: int
) -> dict[Source, int]:
    """Add a line per source and loop; return the peak memory of each source's import."""
    peaks: dict[Source, int] = {}
    with sandbox(options) as box, scratch_folder() as folder:
        for source in SOURCES:
            compared = _compare(embedded, box, source, folder / source, rounds)
            peaks[source] = compared.peak_bytes
            report.figures[source] = asdict(compared)
            for name, usages in (("import", compared.imports), ("bare loop", compared.loops)):
                report.rows.append(_line(f"{source}: {name}", compared, usages))
    return peaks


def _compare(
    embedded: EmbeddedServer, box: dict[str, Any], source: Source, bodies: Path, rounds: int
) -> Compared:
    """Import and loop in turns."""
    compared = Compared()
    control = SandboxControl(box["url"])
    for number in range(rounds):
        control.reset_counters()
        compared.records, usage = import_once(embedded, f"import_{source}_{number}", box, source)
        compared.imports.append(usage)
        if number == 0:
            urls = [address(box, row) for row in control.requests(source)]
            save_bodies(urls, box, bodies)
            compared.requests, compared.bytes = len(urls), bodies.stat().st_size
        with bytes_server(bodies) as url:
            compared.loops.append(measured(fetch_all, url, compared.requests)[1])
    control.close()
    return compared


def import_once(
    embedded: EmbeddedServer, name: str, box: dict[str, Any], source: Source
) -> tuple[int, Usage]:
    """Import *source* into a new database in a process of its own; return rows stored, and what it used."""
    with mirror(embedded, name):
        pass
    dsn = mirror_url(embedded, name).render_as_string(hide_password=False)
    options = settings_of(box, dsn)
    return measured(import_source, options, source)


def settings_of(box: dict[str, Any], dsn: str) -> dict[str, Any]:
    """Return the settings of a deployment whose vendors are the sandbox."""
    return {
        "teamwork_base_url": box["teamwork_url"],
        "teamwork_api_key": box["teamwork_key"],
        "missive_base_url": box["missive_url"],
        "missive_api_token": box["missive_token"],
        "pg_dsn": dsn,
        "budget_time_scale": TIME_SCALE,
    }


def import_source(options: dict[str, Any], source: Source) -> int:
    """Run passes until *source* is complete; return how many rows were stored."""
    reports = run_passes(load_settings(**options), source)
    return sum(figures.written for report in reports for figures in report.streams.values())


def run_passes(settings: Settings, source: Source) -> list[PassReport]:
    """Run a window of one pass, the way Dagster's op does; return the reports."""
    reports: list[PassReport] = []
    engine = connect_database(settings)
    Window(engine, settings, source, 0, on_report=reports.append).run(PassOptions())
    engine.dispose()
    return reports


def address(box: dict[str, Any], row: dict[str, Any]) -> str:
    """Return the address of a request that the sandbox has logged."""
    base = box["teamwork_url"] if row["vendor"] == "teamwork" else box["missive_url"]
    query = row["query"]
    return f"{base}{row['path']}" + (f"?{query}" if query else "")


def save_bodies(urls: list[str], box: dict[str, Any], path: Path) -> None:
    """Fetch *urls* again and store the answers for the bare loop."""
    with requests.Session() as session, path.open("wb") as file:
        session.trust_env = False
        for url in urls:
            is_missive = url.startswith(box["missive_url"])
            session.auth = None if is_missive else (box["teamwork_key"], "x")
            headers = {"Authorization": f"Bearer {box['missive_token']}"} if is_missive else {}
            answer = session.get(url, headers=headers, timeout=TIMEOUT_SECONDS)
            append_body(file, answer.content)


def fetch_all(url: str, count: int) -> int:
    """Fetch and decode *count* bodies, one after the other; return their bytes."""
    total = 0
    with requests.Session() as session:
        session.trust_env = False
        for number in range(count):
            answer = session.get(f"{url}/{number}", timeout=TIMEOUT_SECONDS)
            orjson.loads(answer.content)
            total += len(answer.content)
    return total


def _line(name: str, compared: Compared, usages: list[Usage]) -> tuple[str, ...]:
    cpu = median(usage.cpu_seconds for usage in usages)
    return (
        name,
        f"{compared.records:,}",
        f"{compared.requests:,}",
        f"{compared.bytes / MIB:.1f}",
        f"{1000 * cpu / compared.records:.3f}",
        f"{median(usage.seconds for usage in usages):.1f}",
        ratio(cpu, median(usage.cpu_seconds for usage in compared.loops)),
        f"{max(usage.peak_bytes for usage in usages) / MIB:.0f}",
    )


def _measure_memory(
    embedded: EmbeddedServer, report: Report, peaks: dict[Source, int], small: SandboxOptions, times: int
) -> None:
    """Import a larger account of each source and hold the peak against the smaller one's."""
    for source in SOURCES:
        options = SandboxOptions(
            tasks=small.tasks * times if source == "teamwork" else 0,
            conversations=small.conversations * times if source == "missive" else 0,
        )
        with sandbox(options) as box:
            records, usage = import_once(embedded, f"large_{source}", box, source)
        peak = usage.peak_bytes
        report.rows.append(
            (
                f"{source}: larger import",
                f"{records:,}",
                "",
                "",
                f"{1000 * usage.cpu_seconds / records:.3f}",
                f"{usage.seconds:.1f}",
                "",
                f"{peak / MIB:.0f}",
            )
        )
        report.figures[f"{source}_larger"] = {"records": records, **asdict(usage)}
        report.aims.append(
            Aim(
                text=f"{source}: peak memory at {times} times the size at most {MEMORY_AIM} x",
                measured=ratio(peak, peaks[source]),
                met=peak <= MEMORY_AIM * peaks[source],
            )
        )
