"""Everything at once: changes, bad weather, faults, and every process killed again and again (G1-G6).

A small storm in every run; the whole one with TWM_WHOLE_STORM=1.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from twm_pipeline.records import SOURCES
from twm_pipeline.sandbox import FAULT_KINDS, SandboxControl
from twm_pipeline.settings import environment_of
from twm_pipeline_tests.faults import listener
from twm_pipeline_tests.faults.hooked import (
    DELIVERY_SECONDS,
    drain,
    lasting_port,
    make_rules,
    reachable,
    register,
    spools,
    without_reserve,
)
from twm_pipeline_tests.faults.world import World

logger = logging.getLogger(__name__)

SCALE = 300.0
WEATHER = {"drop": 0.05, "double": 0.05, "reorder": 0.1}
RETRY_SCALE = 3600.0
"""An hour between two attempts of a vendor passes in a second."""
VICTIMS = ("receiver", *SOURCES)
TURN_SECONDS = 0.05
PATIENCE_SECONDS = 60.0
FAULT_SHARE = 0.1
LONGEST_LIFE_SECONDS = 3.0
LONGEST_DEATH_SECONDS = 0.5
CHANGES_AT_ONCE = 5
LATENCY_SECONDS = 0.01
PAUSE = threading.Event()  # never set: only its timeout is used

needs_patience = pytest.mark.skipif(
    "TWM_WHOLE_STORM" not in os.environ, reason="takes minutes; TWM_WHOLE_STORM=1 runs it"
)


@dataclass
class Storm:
    """The processes that follow a world, each of which may be killed at any moment.

    Args:
        world: Synced, with settings that name the receiver's port.
        folder: For logs, and the account of what was done.
        orphans: How many entries killed windows had claimed.
    """

    world: World
    folder: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    kills: Counter[str] = field(default_factory=Counter)
    orphans: int = 0

    @property
    def account(self) -> Path:
        return self.folder / "done"

    def start(self, name: str) -> None:
        """Start one of the processes."""
        log = self.folder / f"{name}.log"
        if name == "receiver":
            self.processes[name] = self._start_receiver(log)
        else:
            [source] = [source for source in SOURCES if source == name]
            self.processes[name] = listener.start(self.world.settings, source, account=self.account, log=log)

    def _start_receiver(self, log: Path) -> subprocess.Popen[bytes]:
        with log.open("ab") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "twm_pipeline.webhooks"],
                env=environment_of(self.world.settings),
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"Receiver ")
        process.stdout.close()
        return process

    def kill(self, name: str) -> None:
        """Kill a process that has to live until now."""
        process = self.processes.pop(name)
        process.kill()
        assert process.wait() == -signal.SIGKILL, (self.folder / f"{name}.log").read_text()[-2000:]
        self.kills[name] += 1
        self.orphans += sum(spool.waiting().held for spool in spools(self.world) if spool.source == name)

    def stop(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()

    def accepted(self) -> Counter[listener.Key]:
        """Return what the receiver said that it had stored, by what it tells."""
        found: Counter[listener.Key] = Counter()
        for line in (self.folder / "receiver.log").read_text().splitlines():
            if said := re.search(r"Accepted \d+ of (\w+) in .* ms: (.*)", line):
                found.update((said[1], *item.split(" ")) for item in said[2].split(", "))
        return found


@contextlib.contextmanager
def storm_over(world: World, folder: Path) -> Iterator[Storm]:
    """Give a storm whose processes run and whose hooks are made; nothing is changed yet."""
    world.sync()
    port = lasting_port()
    told = reachable(world, f"http://127.0.0.1:{port}")
    quick = {"app_port": port, "spool_retry_seconds": 0.2, "periodic_backfill_interval": 2.0}
    told.settings = without_reserve(told.settings).model_copy(update=quick)
    storm = Storm(told, folder)
    try:
        for name in VICTIMS:
            storm.start(name)
        register(told)
        make_rules(told)
        told.control.set_deliveries(**WEATHER, seed=1)
        told.control.set_latency(LATENCY_SECONDS)
        yield storm
    finally:
        storm.stop()


def rage(storm: Storm, *, changes: int, kills: int, seed: int) -> None:
    """Kill each process so many times at random, with faults, while people make so many changes."""
    control, chance = storm.world.control, random.Random(seed)
    victims = [name for name in VICTIMS for _ in range(kills)]
    chance.shuffle(victims)
    at_work = threading.Thread(target=work, args=(storm, random.Random(seed + 1), changes, len(victims)))
    at_work.start()
    for victim in victims:
        control.clear_faults()
        for vendor in SOURCES:
            control.add_fault(vendor, chance.choice(FAULT_KINDS), count=3, probability=FAULT_SHARE)
        PAUSE.wait(chance.uniform(0, LONGEST_LIFE_SECONDS))
        storm.kill(victim)
        PAUSE.wait(chance.uniform(0, LONGEST_DEATH_SECONDS))
        storm.start(victim)
    at_work.join()


def work(storm: Storm, chance: random.Random, changes: int, kills: int) -> None:
    """Make changes a few at a time, for about as long as it takes to kill so often."""
    control = SandboxControl(storm.world.control.url)
    mean_seconds = kills * LONGEST_LIFE_SECONDS / 2 * CHANGES_AT_ONCE / changes
    for number in range(changes // CHANGES_AT_ONCE):
        control.random_changes(CHANGES_AT_ONCE, number)
        PAUSE.wait(chance.uniform(0, 2 * mean_seconds))
    control.close()


def calm(storm: Storm) -> None:
    """Let everything arrive, kill the windows once more, and give the mirror its chance."""
    control = storm.world.control
    control.clear_faults()
    control.set_latency(0)
    control.wait_for_deliveries(DELIVERY_SECONDS, retries=True)
    for source in SOURCES:
        storm.kill(source)
    with listener.accounting(storm.account):
        storm.world.settle()
        for _ in range(int(PATIENCE_SECONDS / TURN_SECONDS)):
            if not any(spool.waiting().later for spool in spools(storm.world)):
                break
            PAUSE.wait(TURN_SECONDS)
            drain(storm.world)


def dead_in(world: World) -> Counter[listener.Key]:
    """Return what could not be applied; each has its reason."""
    found: Counter[listener.Key] = Counter()
    for spool in spools(world):
        for item in spool.entries("dead"):
            envelope = spool.read(item.name)
            assert envelope is not None
            assert spool.reason(item.name)
            found[spool.source, envelope.hint.event, str(envelope.hint.object_id)] += 1
    return found


def assert_all_is_well(storm: Storm) -> None:
    world = storm.world
    acknowledged: Counter[listener.Key] = Counter(
        (row["vendor"], row["event"], str(row["object_id"]))
        for row in world.control.deliveries(state="delivered")
    )
    accepted, done, dead = storm.accepted(), listener.accounted(storm.account), dead_in(world)
    again = sum(row["attempts"] > 1 for row in world.control.deliveries())
    logger.info(
        "%s kills, %d entries claimed then; deliveries: %s, %d of them tried again;"
        " %d answered 200, %d stored, %d done, %d dead; %d requests",
        dict(storm.kills),
        storm.orphans,
        world.control.status()["deliveries"]["states"],
        again,
        acknowledged.total(),
        accepted.total(),
        done.total(),
        dead.total(),
        world.control.request_count(),
    )
    world.assert_true()
    assert acknowledged <= accepted
    assert accepted <= done + dead
    for spool in spools(world):
        waiting = spool.waiting()
        assert (waiting.new, waiting.held, waiting.due, waiting.later) == (0, 0, 0, 0)
    assert acknowledged.total() > 0
    assert world.control.violations() == 0


def test_a_storm_with_kills_leaves_the_truth_and_every_delivery_accounted_for(make_world, tmp_path):
    world = make_world(budgets=SCALE, webhook_time_scale=RETRY_SCALE, overrides={"budget_time_scale": SCALE})

    with storm_over(world, tmp_path) as storm:
        rage(storm, changes=150, kills=2, seed=21)
        calm(storm)

    assert_all_is_well(storm)


@needs_patience
@pytest.mark.timeout(1800)
def test_the_whole_storm(make_world, tmp_path):
    world = make_world(
        tasks=600,
        conversations=150,
        budgets=SCALE,
        webhook_time_scale=RETRY_SCALE,
        overrides={"budget_time_scale": SCALE},
    )

    with storm_over(world, tmp_path) as storm:
        rage(storm, changes=2000, kills=10, seed=22)
        calm(storm)

    assert_all_is_well(storm)
