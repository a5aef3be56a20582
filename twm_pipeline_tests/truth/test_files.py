"""Real content goes through the sandbox, budgets enforced, into the mirror and equals its files.

A slice in every run; everything with TWM_WHOLE_DATA=1. Skipped where the content is not to be had.
"""

import gzip
import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from twm_pipeline.db import open_engine
from twm_pipeline.sandbox import FAULT_KINDS, SandboxControl
from twm_pipeline.settings import load_settings
from twm_pipeline_tests.faults import worker
from twm_pipeline_tests.faults.world import World, dsn_of, wait_for_requests
from twm_pipeline_tests.truth.compare_files import compare

ROOT = Path(__file__).resolve().parent.parent.parent
DATA = Path(os.environ.get("TWM_SHARED_DATA", ROOT.parent / "shared" / "data"))
FILES = ("tasks.jsonl.gz", "emails.jsonl.gz")
SLICE = 40
SCALE = 400
KILLS = 10
FEW_KILLS = 4
EDITS = 60

needs_data = pytest.mark.skipif(
    not all((DATA / name).is_file() for name in FILES), reason=f"no real content in {DATA} (TWM_SHARED_DATA)"
)
needs_patience = pytest.mark.skipif(
    "TWM_WHOLE_DATA" not in os.environ, reason="takes minutes; TWM_WHOLE_DATA=1 runs it"
)


def cut_slice(folder: Path) -> Path:
    """Write one in so many threads, and one in so many tasks, to *folder*."""
    folder.mkdir()
    for name, key in zip(FILES, ("id", "thread_key"), strict=True):
        with (
            gzip.open(DATA / name, "rb") as source,
            gzip.open(folder / name, "wb", compresslevel=1) as target,
        ):
            for line in source:
                digest = hashlib.sha256(str(json.loads(line)[key]).encode()).digest()
                if int.from_bytes(digest[8:10], "big") % SLICE == 0:
                    target.write(line)
    return folder


@pytest.fixture
def import_of(database, tmp_path):
    """Return what serves a folder's files from a process of its own and gives the world around it."""
    processes = []

    def make(data: Path) -> World:
        command = [sys.executable, "-m", "twm_pipeline.sandbox", "--data", str(data), "--budgets", str(SCALE)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        processes.append(process)
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        settings = load_settings(
            teamwork_base_url=said["teamwork_url"],
            teamwork_api_key=said["teamwork_key"],
            missive_base_url=said["missive_url"],
            missive_api_token=said["missive_token"],
            pg_dsn=database.render_as_string(hide_password=False),
            twm_data_dir=tmp_path / ".twm",
            budget_time_scale=SCALE,
        )
        control = SandboxControl(said["url"])
        return World(control=control, engine=open_engine(database), settings=settings)

    yield make
    for process in processes:
        process.terminate()
        process.communicate()


def assert_equal_and_quiet(world: World, data: Path) -> None:
    world.sync()
    violations = world.control.violations()
    findings = compare(data, dsn_of(world.engine.url))
    before = world.versions()
    world.sync()

    assert not findings.differing, "\n".join(findings.lines())
    assert world.versions() == before
    assert violations == 0
    assert world.control.violations() == 0
    world.control.close()
    world.engine.dispose()


@needs_data
def test_a_slice_of_real_content_equals_its_files(import_of, tmp_path):
    data = cut_slice(tmp_path / "data")

    assert_equal_and_quiet(import_of(data), data)


@needs_data
@needs_patience
@pytest.mark.timeout(1800)
def test_all_real_content_equals_its_files(import_of):
    assert_equal_and_quiet(import_of(DATA), DATA)


def survive(world: World, *, requests: int, kills: int) -> None:
    """Import with kills, every fault, and edits going on; then require the truth."""
    chance = random.Random(11)
    for number in range(kills):
        for vendor in ("teamwork", "missive"):
            for kind in FAULT_KINDS[number::kills]:
                world.control.add_fault(vendor, kind, count=2, probability=0.1)
        asked = world.control.request_count()
        process = worker.start(world.settings, *chance.sample(["teamwork", "missive"], 2))
        wait_for_requests(world.control, asked + chance.randint(1, requests // 2))
        world.control.random_changes(EDITS // 2, number)
        wait_for_requests(world.control, asked + chance.randint(requests // 2, requests))
        process.kill()
        process.communicate()
        world.control.random_changes(EDITS // 2, kills + number)
    world.settle(full=True)

    world.assert_true()
    assert world.control.violations() == 0
    world.control.close()
    world.engine.dispose()


@needs_data
def test_a_slice_of_real_content_survives_kills_faults_and_edits(import_of, tmp_path):
    survive(import_of(cut_slice(tmp_path / "data")), requests=60, kills=FEW_KILLS)


@needs_data
@needs_patience
@pytest.mark.timeout(3600)
def test_all_real_content_survives_kills_faults_and_edits(import_of):
    survive(import_of(DATA), requests=1500, kills=KILLS)
