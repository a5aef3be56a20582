"""What a deployment costs while nothing happens: CPU and memory of everything that `twm up` runs."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from bench.deployment import settings_of, twm_up
from bench.report import Aim, Report
from bench.servers import sandbox, scratch_folder
from twm_pipeline.sandbox import SandboxControl, SandboxOptions

SECONDS = 120.0
SETTLE_SECONDS = 10.0
CPU_AIM, MEMORY_AIM = 0.05, 1_200_000_000
ROLES = {
    "twm_pipeline.cli": "twm up",
    "twm_pipeline.webhooks": "receiver",
    "dagster api grpc": "code server",
    "dagster._daemon": "daemon",
    "dagster_webserver": "webserver",
    "spawn_main": "windows",
    "postgres": "PostgreSQL",
}
"""Part of a command line → what the process is."""


def run(*, scale: float = 1.0) -> Report:
    """Return what each kind of process uses."""
    seconds = max(SECONDS * scale, 5.0)
    with sandbox(SandboxOptions()) as box, scratch_folder() as folder:
        settings = settings_of(box, folder)
        control = SandboxControl(box["url"])
        with twm_up(settings, control) as pid:
            time.sleep(min(SETTLE_SECONDS, seconds))
            roots = [pid, _postmaster(settings.twm_data_dir)]
            requests, began, before = control.request_count(), time.monotonic(), measure(roots)
            time.sleep(seconds)
            after, seconds = measure(roots), time.monotonic() - began
            requests = control.request_count() - requests
    return _report(before, after, seconds, requests)


def _postmaster(data: Path) -> int:
    """Return the process id of the embedded server, which is nobody's child."""
    return int((data / "postgres" / "data" / "postmaster.pid").read_text().split()[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What a process used.

    Args:
        role: What it is.
        cpu_seconds: Since it began, with what its ended children used.
        rss_bytes: Resident memory, shared pages included.
        pss_bytes: Resident memory, of shared pages its share.
    """

    role: str
    cpu_seconds: float
    rss_bytes: int
    pss_bytes: int


def measure(roots: Iterable[int]) -> dict[int, Use]:
    """Return what *roots* and everything below them have used so far."""
    found: dict[int, Use] = {}
    for root in map(psutil.Process, roots):
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                found[process.pid] = _use_of(process)
    return found


def _use_of(process: psutil.Process) -> Use:
    cpu, memory = process.cpu_times(), process.memory_full_info()
    words = " ".join(process.cmdline())
    return Use(
        role=next((role for part, role in ROLES.items() if part in words), "helpers of the runs"),
        cpu_seconds=cpu.user + cpu.system + cpu.children_user + cpu.children_system,
        rss_bytes=memory.rss,
        pss_bytes=getattr(memory, "pss", memory.rss),  # Linux alone tells it
    )


def _report(before: dict[int, Use], after: dict[int, Use], seconds: float, requests: int) -> Report:
    roles: dict[str, list[int]] = defaultdict(list)
    for pid, use in after.items():
        roles[use.role].append(pid)
    report = Report(
        name="idle",
        title=f"Everything that `twm up` runs, {seconds:.0f} s of nothing to do",
        columns=("", "processes", "% of a core", "RSS MB", "PSS MB"),
        notes=[
            f"Both windows open; {requests} requests of the polls meanwhile. The sandbox is not counted.",
            "RSS counts pages that processes share once for each of them; PSS counts them once.",
        ],
    )

    def spent(pids: Iterable[int]) -> float:
        new = sum(after[pid].cpu_seconds for pid in pids)
        return (new - sum(before[pid].cpu_seconds for pid in pids if pid in before)) / seconds

    # What ended meanwhile is counted with its parent, but what it had used before is not to be counted again.
    cpu = spent(after) - sum(use.cpu_seconds for pid, use in before.items() if pid not in after) / seconds
    rss, pss = (sum(getattr(use, name) for use in after.values()) for name in ("rss_bytes", "pss_bytes"))
    for role, pids in roles.items():
        sizes = [sum(getattr(after[pid], name) for pid in pids) for name in ("rss_bytes", "pss_bytes")]
        cells = (f"{100 * spent(pids):.2f}", *(f"{size / 1e6:.0f}" for size in sizes))
        report.rows.append((role, str(len(pids)), *cells))
    report.rows.append(("all", str(len(after)), f"{100 * cpu:.2f}", f"{rss / 1e6:.0f}", f"{pss / 1e6:.0f}"))
    report.aims = [
        Aim(
            text=f"at most {100 * CPU_AIM:.0f} % of a core",
            measured=f"{100 * cpu:.2f} %",
            met=cpu <= CPU_AIM,
        ),
        Aim(
            text=f"at most {MEMORY_AIM / 1e6:,.0f} MB resident",
            measured=f"{pss / 1e6:,.0f} MB (sum of RSS: {rss / 1e6:,.0f} MB)",
            met=pss <= MEMORY_AIM,
        ),
    ]
    report.figures = {
        "seconds": seconds,
        "cpu_share": cpu,
        "rss_bytes": rss,
        "pss_bytes": pss,
        "processes": [asdict(use) for use in after.values()],
    }
    return report
