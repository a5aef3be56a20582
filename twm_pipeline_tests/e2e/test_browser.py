"""What people see in the browser during a storm: one window per source, not a run per event (DESIGN D2)."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from twm_pipeline.records import SOURCES
from twm_pipeline.sandbox import SandboxControl
from twm_pipeline.settings import Settings, load_settings
from twm_pipeline.sync.drain import spool_of
from twm_pipeline.webhooks.secrets import HookSecrets
from twm_pipeline_tests.e2e.test_up import (
    TERMINATE,
    UP_SECONDS,
    ask,
    free_port,
    mirror_of,
    sandbox_of,
    started,
    wait_until,
)
from twm_pipeline_tests.faults.hooked import RULES
from twm_pipeline_tests.faults.world import dsn_of
from twm_pipeline_tests.truth.compare_truth import differences

pytestmark = pytest.mark.system

STORM_SECONDS = 20.0
CHANGES_AT_ONCE = 5
TURN_SECONDS = 0.2
LOG_SECONDS = 5.0
"""An asset is not materialized more often than this (DESIGN D2)."""
WINDOWS = frozenset(f"{source}_sync" for source in SOURCES)
OTHERS = ("webhooks_check", "attachments_download", "insights")
"""Jobs of which a storm may see one run each."""
MANY = 50
LOST = re.compile(r"(deleted )?task (?!comment ).*|(?!task comment ).*: (missing|set aside)")
"""What no delivery and no poll may leave untrue.

A deleted message or the old comments of a restored task are found by a reconcile, drafts every 15 minutes.
"""
PAUSE = threading.Event()  # never set: only its timeout is used
RUNS = "{runsOrError {... on Runs {results {runId jobName status}}}}"
MATERIALIZATIONS = (
    "query ($path: [String!]!) {assetOrError(assetKey: {path: $path})"
    " {... on Asset {assetMaterializations(limit: 500) {timestamp runId}}}}"
)
BROWSER = (
    *("chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--hide-scrollbars", "--window-size=1500,1100", "--virtual-time-budget=15000"),
)


@dataclass(frozen=True)
class Deployment:
    """Everything that `twm up --sandbox` started, and the folder for what the browser saw."""

    process: subprocess.Popen[Any]
    port: int
    settings: Settings
    control: SandboxControl
    engine: Engine
    folder: Path

    def runs(self, status: str | None = None) -> list[tuple[str, str]]:
        """Return job and id of the runs that read the vendors."""
        rows = ask(self.port, self.process, RUNS)["runsOrError"]["results"]
        return sorted(
            (row["jobName"], row["runId"])
            for row in rows
            if status in (None, row["status"]) and row["jobName"] in WINDOWS
        )

    def windows(self) -> dict[str, str] | None:
        """Return the started run of each source, or None until there is one of each."""
        found = dict(self.runs("STARTED"))
        return found if len(found) == len(SOURCES) else None

    def materialized_at(self, *path: str) -> list[float]:
        """Return when an asset was materialized, in order."""
        asset = ask(self.port, self.process, MATERIALIZATIONS, path=list(path))["assetOrError"]
        return sorted(int(row["timestamp"]) / 1000 for row in asset["assetMaterializations"])

    def make_rules(self) -> None:
        """Make the rules that only people can make, as `twm webhooks register` tells them to."""
        secret = HookSecrets.load(self.settings).missive_secret
        address = next(str(row["url"]).rpartition("/")[0] for row in self.control.hooks("missive"))
        for kind in RULES:
            self.control.create_rule(kind, address, secret)

    def browse(self, page: str, name: str) -> str:
        """Open a page, keep a picture of it, and return its text with its links."""
        profile, url = f"--user-data-dir={self.folder / 'browser'}", f"http://127.0.0.1:{self.port}/{page}"
        picture = f"--screenshot={self.folder / name}.png"
        for wanted in (picture, "--dump-dom"):
            done = subprocess.run(
                [*BROWSER, profile, wanted, url], capture_output=True, text=True, timeout=60, check=True
            )
        assert (self.folder / f"{name}.png").stat().st_size > 0
        return done.stdout

    def lost(self) -> list[str]:
        """Return what of the truth is not in the mirror, drafts aside."""
        drafts = [row["id"] for row in self.control.truth("message") if row["draft"]]
        found = differences(self.control.truth(), dsn_of(self.engine.url))
        return [line for line in found if LOST.fullmatch(line) and not any(key in line for key in drafts)]

    def waiting(self) -> int:
        counts = [spool_of(self.settings, source).waiting() for source in SOURCES]
        return sum(waiting.count + waiting.later + waiting.dead for waiting in counts)


@pytest.fixture
def deployment(env: dict[str, str], place: Path, tmp_path: Path) -> Iterator[Deployment]:
    """Start everything and give it once there is a window of each source."""
    settings, port = load_settings(twm_data_dir=place / "data"), free_port()
    with started(["-m", "twm_pipeline.cli", "up", "--sandbox", "--port", str(port)], env) as up:
        simulated = wait_until(lambda: sandbox_of(settings), up)
        engine = wait_until(lambda: mirror_of(simulated), up)
        control = SandboxControl(str(simulated.teamwork_base_url).removesuffix("/teamwork"))
        made = Deployment(up, port, simulated, control, engine, tmp_path)
        wait_until(made.windows, up)
        made.make_rules()
        yield made
        control.close()
        engine.dispose()
        up.send_signal(signal.SIGTERM)
        _, errors = up.communicate(timeout=60)
    assert up.returncode == 0, errors


@contextlib.contextmanager
def storm(deployment: Deployment) -> Iterator[None]:
    """Let people change something all the time while the block runs."""
    over = threading.Event()

    def work() -> None:
        control, number = SandboxControl(deployment.control.url), 0
        while not over.wait(TURN_SECONDS):
            control.random_changes(CHANGES_AT_ONCE, number)
            number += 1
        control.close()

    people = threading.Thread(target=work)
    people.start()
    try:
        yield
    finally:
        over.set()
        people.join()


def test_a_storm_is_one_window_per_source_and_not_a_run_per_event(deployment):
    runs = deployment.runs()
    began = time.time()

    with storm(deployment):
        PAUSE.wait(STORM_SECONDS)
        overview = deployment.browse("runs", "runs")
        history = deployment.browse("assets/teamwork/tasks?view=events", "tasks")
    seconds = time.time() - began

    told = deployment.control.deliveries(state="delivered")
    assert len(told) > 10 * seconds
    assert [job for job, _ in runs] == ["missive_sync", "teamwork_sync"]
    assert deployment.runs() == deployment.runs("STARTED") == runs
    assert re.search(r"In progress \([23]\)", overview)  # the third one downloads files
    shown = set(re.findall(r'href="/runs/([0-9a-f-]{36})"', overview))
    assert len(shown - {run_id for _, run_id in runs}) <= len(OTHERS)
    assert overview.count("twm/trigger: s") >= len(SOURCES)  # a schedule, or a sensor
    assert "rows fetched" in history
    assert "deliveries_applied" in history
    for path in (("teamwork", "tasks"), ("missive", "conversations"), ("missive", "emails")):
        during = [moment for moment in deployment.materialized_at(*path) if moment > began]
        assert 3 <= len(during) <= seconds / LOG_SECONDS + 2


def test_a_window_cancelled_in_the_storm_ends_and_the_next_one_goes_on(deployment):
    process, before = deployment.process, deployment.runs()

    with storm(deployment):
        wait_until(lambda: len(deployment.control.deliveries(state="delivered")) > MANY, process)
        for _, run_id in before:
            ask(deployment.port, process, TERMINATE, runId=run_id)
        wait_until(lambda: deployment.runs("CANCELED") == before, process)
        wait_until(deployment.windows, process)

    deployment.control.wait_for_deliveries(UP_SECONDS, retries=True)
    wait_until(lambda: deployment.waiting() == 0, process)
    wait_until(lambda: deployment.lost() == [], process)
    assert len(deployment.runs()) == 2 * len(before)
