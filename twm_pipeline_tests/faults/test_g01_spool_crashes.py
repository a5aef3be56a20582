"""A spool whose processes die at any instruction, or race each other (G1, G6)."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from twm_pipeline.spool import Spool
from twm_pipeline_tests.faults import spooler

KILLS = 10


def deaths(action: str, folder: Path) -> list[tuple[Path, set[str]]]:
    """Return the spool that each death left, and the names that were told before it; the last two lived."""
    process = spooler.start(action, folder)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors[-2000:]
    lines = [line.split() for line in out.splitlines()]
    assert {line[1] for line in lines[:-2]} == {str(spooler.KILLED)}, errors[-2000:]
    assert {line[1] for line in lines[-2:]} == {"0"}, errors[-2000:]
    return [(folder / line[0], set(line[2:])) for line in lines]


def assert_each_is_once_and_whole(spool: Spool, *, attempts: int = 0) -> set[str]:
    """Return the ids that lie in the spool."""
    listed = spool.entries()
    ids = [item.id for item in listed]
    assert len(ids) == len(set(ids))
    for item in listed:
        found = spool.read(item.name)
        assert found is not None
        assert found.body == spooler.envelope(int(found.hint.object_id or -1)).body
        assert item.attempts >= attempts
        assert (spool.reason(item.name) is not None) >= (item.place in ("retry", "dead"))
    return set(ids)


def ids_of(names: set[str]) -> set[str]:
    return {name.split(".")[1] for name in names}


def test_a_death_in_put_loses_nothing_acknowledged_and_shows_nothing_half_written(tmp_path):
    left = deaths("put", tmp_path)

    for folder, told in left:
        spool = spooler.open_spool(folder)
        there = {item.name for item in spool.entries("new")}
        assert told <= there
        claimed = spool.claim(limit=99)
        assert {entry.name for entry in claimed} == there
        assert spool.waiting().dead == 0
        assert_each_is_once_and_whole(spool)
    assert len(left) > 2 * 20
    assert len(left[-1][1]) == spooler.BATCH


def test_after_a_death_in_put_the_spool_goes_on(tmp_path):
    for folder, told in deaths("put", tmp_path):
        spool = spooler.open_spool(folder)

        [more] = spool.put([spooler.envelope(7)])

        assert {more} | told <= {entry.name for entry in spool.claim(limit=99)}


@pytest.mark.parametrize(
    ("action", "attempts"),
    [
        ("claim", 0),
        ("release", 0),
        ("fail", 0),
        ("fail for good", 0),
        ("claim a retry", 1),
        ("take back", 0),
        ("retry", 0),
    ],
)
def test_a_death_loses_no_entry_and_no_attempt(tmp_path, action, attempts):
    left = deaths(action, tmp_path)

    for folder, told in left:
        spool = spooler.open_spool(folder)
        assert assert_each_is_once_and_whole(spool, attempts=attempts) == ids_of(told)
        spool.take_back()
        assert assert_each_is_once_and_whole(spool, attempts=attempts) == ids_of(told)
        assert spool.waiting().held == 0
    assert len(left) > 2 * spooler.BATCH


def test_a_death_in_done_leaves_each_entry_whole_or_gone(tmp_path):
    left = deaths("done", tmp_path)

    remaining = set()
    for folder, told in left:
        ids = assert_each_is_once_and_whole(spooler.open_spool(folder))
        assert ids <= ids_of(told)
        remaining.add(len(ids))
    assert remaining == {0, 1, 2, 3}


def read_some(process: subprocess.Popen[str], lines: int) -> list[str]:
    return [read_line(process) for _ in range(lines)]


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def kill(process: subprocess.Popen[str], told: list[str]) -> set[str]:
    """Kill a process and return all the whole lines that it told."""
    process.kill()
    rest, _ = process.communicate()
    return {line.strip() for line in [*told, *rest.splitlines(keepends=True)] if line.endswith("\n")}


def test_a_receiver_killed_at_random_has_stored_all_that_it_acknowledged(tmp_path):
    chance, told = random.Random(7), set()

    for _ in range(KILLS):
        process = spooler.start("put for ever", tmp_path)
        told |= kill(process, read_some(process, chance.randint(1, 60)))

    spool = spooler.open_spool(tmp_path)
    assert told <= {item.name for item in spool.entries("new")}
    assert_each_is_once_and_whole(spool)
    spool.claim(limit=1_000_000)
    assert spool.waiting().dead == 0


def test_a_window_killed_at_random_loses_nothing(tmp_path):
    chance, done = random.Random(8), set()
    spool = spooler.open_spool(tmp_path)
    known = {
        name
        for number in range(40)
        for name in spool.put([spooler.envelope(5 * number + i) for i in range(5)])
    }

    for _ in range(KILLS):
        process = spooler.start("use all", tmp_path)
        done |= kill(process, read_some(process, chance.randint(1, 6)))

    there = assert_each_is_once_and_whole(spool)
    assert ids_of(known) - ids_of(done) <= there
    assert len(there) < len(known)


def test_two_processes_never_claim_the_same_entry(tmp_path):
    spool = spooler.open_spool(tmp_path)
    known = {
        name
        for number in range(60)
        for name in spool.put([spooler.envelope(5 * number + i) for i in range(5)])
    }
    processes = [spooler.start("claim all", tmp_path) for _ in range(2)]
    for process in processes:
        assert read_line(process) == "ready\n"
    for process in processes:
        print("go", file=process.stdin, flush=True)

    claimed = [process.communicate(timeout=60)[0].split() for process in processes]

    assert sorted(claimed[0] + claimed[1]) == sorted(known)
    assert spool.waiting().held == len(known)
