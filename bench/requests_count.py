"""Requests of a first import, a quiet pass and a complete sweep; their hours under the documented budgets."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from sqlalchemy import Engine

from bench.imports import run_passes, settings_of
from bench.report import Aim, Report
from bench.servers import mirror, mirror_url, sandbox, server
from bench.upsert import row_versions
from twm_pipeline.budget import HISTORY_SHARE, Plan
from twm_pipeline.mirror.tables import TABLES
from twm_pipeline.records import Source
from twm_pipeline.sandbox import SandboxControl, SandboxOptions
from twm_pipeline.settings import Settings, load_settings
from twm_pipeline.sources import missive, teamwork
from twm_pipeline.sync.reconcile import ReconcileOptions
from twm_pipeline.sync.window import run_reconcile

TASKS, CONVERSATIONS = 20_000, 2_000
SOURCES: tuple[Source, ...] = ("teamwork", "missive")
TASKS_AIM, CONVERSATION_AIM = 6.0, 2
QUIET_AIMS: dict[Source, int] = {"teamwork": 5, "missive": len(missive.MAILBOXES)}
LISTS_AIM = 24.0
FEW_LISTS = 16
"""Requests by which a sweep proves the ends of its lists."""
FEW = 10
"""Messages, and comments, of a conversation that two requests have to be enough for."""

KINDS: dict[str, str] = {
    "tasks": r"/tasks\.json",
    "directories": r"/(projects|tasklists|people|tags|companies|teams)\.json",
    "activity": r"/latestactivity\.json",
    "time entries": r"/time\.json",
    "comments of tasks": r"/comments\.json",
    "conversation lists": r"/conversations$",
    "messages of one": r"/conversations/[^/]+/messages$",
    "comments of one": r"/conversations/[^/]+/comments$",
    "bodies": r"/messages/",
}


def run(*, scale: float = 1.0) -> Report:
    """Return the counts of both sources."""
    tasks, conversations = max(int(TASKS * scale), 50), max(int(CONVERSATIONS * scale), 20)
    report = Report(
        name="requests",
        title=f"Requests: {tasks:,} tasks, {conversations:,} conversations",
        columns=("", "requests", "per 1,000 tasks or messages", "hours under the budget", "rows written"),
        notes=["hours: computed from the counts and the documented budgets, not measured."],
    )
    options = SandboxOptions(tasks=tasks, conversations=conversations)
    with server() as embedded, mirror(embedded, "requests") as engine, sandbox(options) as box:
        dsn = mirror_url(embedded, "requests").render_as_string(hide_password=False)
        settings = load_settings(**settings_of(box, dsn))
        control = SandboxControl(box["url"])
        truth = _truth(control)
        for source in SOURCES:
            first = _pass(control, settings, source)
            before = row_places(engine)
            quiet = _pass(control, settings, source)
            rewritten = len(before ^ row_places(engine))
            sweep = _sweep(control, settings, source, engine)
            _add(report, source, truth, first=first, quiet=quiet, sweep=sweep, rewritten=rewritten)
    return report


def _pass(control: SandboxControl, settings: Settings, source: Source) -> list[dict[str, Any]]:
    """Run passes until *source* is complete; return the requests made."""
    control.reset_counters()
    run_passes(settings, source)
    return control.requests(source)


def _sweep(
    control: SandboxControl, settings: Settings, source: Source, engine: Engine
) -> list[dict[str, Any]]:
    """Sweep *source* completely, nothing having changed; return the requests made."""
    control.reset_counters()
    run_reconcile(engine, settings, source, options=ReconcileOptions())
    return control.requests(source)


def row_places(engine: Engine) -> set[tuple[Any, ...]]:
    """Return every row of the mirror with who wrote it last: a rewrite, a new or a lost row changes it."""
    return {(table.name, *row) for table in TABLES for row in row_versions(engine, table)}


def _truth(control: SandboxControl) -> dict[str, Any]:
    """Return what exists: how many of each kind, and messages and comments per conversation."""
    kinds: Counter[str] = Counter()
    children: dict[str, Counter[str]] = {"message": Counter(), "comment": Counter()}
    for row in control.truth():
        kinds[row["kind"]] += 1
        if row["kind"] in children and row.get("conversation_id"):
            children[row["kind"]][row["conversation_id"]] += 1
    return {"kinds": kinds, "children": children}


def hours(source: Source, settings: Settings, count: int, *, share: float) -> float:
    """Return how long *count* requests take when *share* of the documented budget is theirs."""
    api = teamwork if source == "teamwork" else missive
    plan: Plan = api.budget_plan(settings)
    seconds = [count * limit.seconds / (limit.requests * share) for limit in plan.limits]
    return max(seconds) / 3600


def by_kind(log: list[dict[str, Any]]) -> dict[str, int]:
    """Return how many requests of each kind *log* holds."""
    found: Counter[str] = Counter()
    for row in log:
        found[next((kind for kind, path in KINDS.items() if re.search(path, row["path"])), "other")] += 1
    return dict(found)


def _add(  # noqa: PLR0913 - one source's part of the report
    report: Report,
    source: Source,
    truth: dict[str, Any],
    *,
    first: list[dict[str, Any]],
    quiet: list[dict[str, Any]],
    sweep: list[dict[str, Any]],
    rewritten: int,
) -> None:
    documented = load_settings(budget_time_scale=1)
    unit = truth["kinds"]["task" if source == "teamwork" else "message"]
    logs = (
        ("first import", first, HISTORY_SHARE),
        ("quiet pass", quiet, 1.0),
        ("sweep", sweep, HISTORY_SHARE),
    )
    for name, log, share in logs:
        time = hours(source, documented, len(log), share=share)
        changed = f"{rewritten}" if log is quiet else ""
        report.rows.append(
            (f"{source}: {name}", f"{len(log):,}", f"{1000 * len(log) / unit:.1f}", f"{time:.3f}", changed)
        )
        report.rows += [
            (f"    {kind}", f"{n:,}", f"{1000 * n / unit:.1f}", "", "") for kind, n in by_kind(log).items()
        ]
        report.figures[f"{source} {name}"] = {"requests": len(log), "kinds": by_kind(log), "hours": time}
    report.figures[source] = {"units": unit, "rows_written_by_quiet_pass": rewritten}
    report.aims += _task_aims(first, unit) if source == "teamwork" else _conversation_aims(first, truth)
    report.aims += [_sweep_aim(source, sweep, truth)]
    report.aims += [
        Aim(
            text=f"{source}: quiet pass at most {QUIET_AIMS[source]} requests",
            measured=str(len(quiet)),
            met=len(quiet) <= QUIET_AIMS[source],
        ),
        Aim(text=f"{source}: quiet pass writes no row", measured=str(rewritten), met=rewritten == 0),
    ]


def _sweep_aim(source: Source, log: list[dict[str, Any]], truth: dict[str, Any]) -> Aim:
    """Hold the lists of a sweep against their aim; what it reads in full is bounded by settings."""
    kind, name, aim = {
        "teamwork": ("task", "tasks", TASKS_AIM),
        "missive": ("conversation", "conversation lists", LISTS_AIM),
    }[source]
    per_thousand = 1000 * max(by_kind(log).get(name, 0) - FEW_LISTS, 0) / truth["kinds"][kind]
    return Aim(
        text=f"{source}: a sweep lists 1,000 {kind}s with at most {aim:.0f} requests, and {FEW_LISTS} in all",
        measured=f"{per_thousand:.1f}",
        met=per_thousand <= aim,
    )


def _task_aims(log: list[dict[str, Any]], tasks: int) -> list[Aim]:
    per_thousand = 1000 * by_kind(log).get("tasks", 0) / tasks
    constant = len(log) - by_kind(log).get("tasks", 0)
    return [
        Aim(
            text=f"teamwork: at most {TASKS_AIM:.0f} requests per 1,000 tasks and a constant",
            measured=f"{per_thousand:.1f} and {constant}",
            met=per_thousand <= TASKS_AIM,
        )
    ]


def _conversation_aims(log: list[dict[str, Any]], truth: dict[str, Any]) -> list[Aim]:
    """Hold the requests of every small conversation, and of all bodies, against the aims."""
    asked: Counter[str] = Counter()
    for row in log:
        if match := re.search(r"/conversations/([^/]+)/(?:messages|comments)$", row["path"]):
            asked[match[1]] += 1
    children = truth["children"]
    small = [count for key, count in asked.items() if max(children[kind][key] for kind in children) <= FEW]
    most = max(small, default=0)
    bodies = [len(row["path"].rsplit("/", 1)[1].split(",")) for row in log if "/messages/" in row["path"]]
    return [
        Aim(
            text=f"missive: at most {CONVERSATION_AIM} requests per conversation of up to {FEW} and {FEW}",
            measured=f"{sum(small) / max(len(small), 1):.3f} on average, {most} at most"
            f" ({sum(count > CONVERSATION_AIM for count in small)} of {len(small)} above)",
            met=most <= CONVERSATION_AIM,
        ),
        Aim(
            text="missive: bodies in batches",
            measured=f"{sum(bodies) / max(len(bodies), 1):.1f} a call",
            met=len(bodies) < sum(bodies),
        ),
    ]
