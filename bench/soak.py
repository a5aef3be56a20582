"""`python -m bench.soak --minutes N [--seed S]`: everything at once for N minutes; ends at the first untruth.

Each round lets people work at both vendors and in the base, with faults, bad weather for deliveries, and
processes that sync and publish and are killed at random. Then the mirror gets its chance (a clean pass, a
reconcile, the second look ten minutes later) and is compared with the truth, and the base with the mirror.
The same seed makes the same decisions again; which statement a death meets is up to the machine.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from bench.servers import mirror, scratch_folder, server
from twm_pipeline.errors import TwmError
from twm_pipeline.mirror.changelog import follow_changes
from twm_pipeline.sandbox import FAULT_KINDS, Sandbox, SandboxError, SandboxOptions
from twm_pipeline.sync.publishing import PublishWindow
from twm_pipeline_tests.faults import publisher, worker
from twm_pipeline_tests.faults.hooked import deliver, drain, hooked, waiting
from twm_pipeline_tests.faults.world import World, settings_for
from twm_pipeline_tests.publishing import airtable_at, airtable_settings, base_differences

SCALE = 600.0
AIRTABLE_SCALE = 20.0
TASKS, CONVERSATIONS = 300, 80
SLOW_FAULTS = ("429", "stall")
AIRTABLE_FAULTS = ("500", "503", "html_502", "reset", "reset_midway", "truncated")
KILLED_SHARE = 0.6
LONGEST_LIFE_SECONDS = 2.5
LONGEST_WAIT_SECONDS = 300.0
"""Longer than the waits of a delivery that fails twice (SPOOL_RETRY_SECONDS, doubled)."""
PAUSE = threading.Event()  # never set: only its timeout is used
SHOWN = 20


class Soak:
    """One deployment and what is done to it.

    Args:
        world: Sandbox and mirror, with hooks at the vendors.
        chance: Decides everything.
    """

    def __init__(self, world: World, chance: random.Random) -> None:
        self.world = world
        self.control = world.control
        self.chance = chance
        self.done: Counter[str] = Counter()

    def round(self) -> list[str]:
        """Work, break things, repair; return what differs then."""
        for _ in range(self.chance.randint(2, 4)):
            count = self.chance.randint(5, 40)
            self.control.random_changes(count, self.chance.randrange(1 << 30))
            self.done["changes"] += count
            self._rare_change()
            self._work_in_the_base()
            self._fault()
            self._processes()
        return self.calm()

    def calm(self) -> list[str]:
        """Give mirror and base their chance; return what differs from the truth then."""
        self.control.clear_faults()
        deliver(self.world)
        self.world.settle()
        self._apply_what_waits()
        found = self.world.differences()
        if waiting(self.world):
            found.append(f"{waiting(self.world)} deliveries wait")
        PublishWindow(engine=self.world.engine, settings=self.world.settings, check="whole").run()
        found += base_differences(self.world.engine, self.control)
        if violations := self.control.violations():
            found.append(f"{violations} requests over a budget")
        self.done["rounds"] += 1
        self.done["requests"] = self.control.request_count()
        self.done["deliveries"] = len(self.control.deliveries())
        return found

    def _apply_what_waits(self) -> None:
        """Drain until nothing waits: an object that a fault met is tried again later."""
        until = time.monotonic() + LONGEST_WAIT_SECONDS
        while waiting(self.world) and time.monotonic() < until:
            drain(self.world)
            PAUSE.wait(1)

    def _rare_change(self) -> None:
        """Do something that no storm does; what is impossible just now is left out."""
        control, chance = self.control, self.chance
        threads = self.world.ids("conversation")
        projects = self.world.ids("project", lambda row: row["deleted_at"] is None)
        changes: list[Callable[[], object]] = [
            lambda: control.delete_conversation(chance.choice(threads)),
            lambda: control.set_conversation_access(chance.choice(threads), accessible=self._coin()),
            lambda: control.set_project_access(chance.choice(projects), accessible=self._coin()),
            lambda: control.delete_tasklist(chance.choice(self.world.ids("tasklist"))),
            lambda: control.archive_project(chance.choice(projects), archived=self._coin()),
            lambda: control.rename_person(chance.choice(self.world.ids("person")), "Renamed", "Person"),
            lambda: control.rename_label(chance.choice(self.world.ids("label")), f"L{chance.random()}"),
            lambda: control.delete_tag(chance.choice(self.world.ids("tag"))),
            lambda: control.advance(chance.choice([1, 60, 7200, 30 * 24 * 3600])),
        ]
        with suppress(SandboxError, IndexError):
            chance.choice(changes)()
            self.done["rare changes"] += 1

    def _coin(self) -> bool:
        return self.chance.choice((True, False))

    def _work_in_the_base(self) -> None:
        """Edit or delete a record by hand."""
        rows = list(self.control.truth("airtable_record"))
        if not rows:
            return
        row = self.chance.choice(rows)
        with suppress(SandboxError):
            if self._coin():
                self.control.airtable_delete(row["table"], row["id"])
            else:
                name = "name" if row["table"] == "Tasks" else "Subject"
                self.control.airtable_edit(row["table"], row["id"], {name: "Edited by hand"})
            self.done["edits in the base"] += 1

    def _fault(self) -> None:
        chance = self.chance
        self.control.clear_faults()
        kind, vendor = chance.choice(FAULT_KINDS), chance.choice(("teamwork", "missive"))
        count = 2 if kind in SLOW_FAULTS else chance.choice((1, 5, 25))
        self.control.add_fault(vendor, kind, count=count, probability=chance.choice((0.1, 0.5, 1.0)))
        self.control.add_fault("airtable", chance.choice(AIRTABLE_FAULTS), count=3, probability=0.2)
        self.control.set_deliveries(
            drop=chance.choice((0, 0.1, 0.5)), double=0.1, reorder=0.2, seed=chance.randrange(1 << 30)
        )
        self.done["faults"] += 2

    def _processes(self) -> None:
        """Let processes sync and publish at once, and kill some; a drain works beside them."""
        started = [
            worker.start(self.world.settings, *self.chance.sample(["teamwork", "missive"], 2))
            for _ in range(self.chance.choice((1, 1, 2)))
        ]
        started.append(publisher.start(self.world.settings, seconds=LONGEST_LIFE_SECONDS))
        for process in started:
            is_endless = process is started[-1]
            if is_endless or self.chance.random() < KILLED_SHARE:
                PAUSE.wait(self.chance.uniform(0.3, LONGEST_LIFE_SECONDS))
                process.kill()
                self.done["kills"] += 1
            process.communicate()
            self.done["processes"] += 1
        with suppress(TwmError):
            drain(self.world)


def open_soak(stack: ExitStack, folder: Path, seed: int) -> Soak:
    """Return a deployment that has imported everything and is told of changes."""
    embedded = stack.enter_context(server())
    engine = stack.enter_context(mirror(embedded, "twm"))
    options = SandboxOptions(seed=seed, tasks=TASKS, conversations=CONVERSATIONS, budgets=SCALE)
    box = stack.enter_context(Sandbox(options))
    settings = settings_for(box, engine.url, folder / ".twm", budget_time_scale=AIRTABLE_SCALE)
    settings = settings.model_copy(update=airtable_settings(airtable_at(box.control.url)))
    with engine.begin() as connection:
        follow_changes(connection, wanted=True)
    world = World(control=box.control, engine=engine, settings=settings)
    box.control.set_budgets(AIRTABLE_SCALE)
    world.sync()
    told = stack.enter_context(hooked(world))
    return Soak(told, random.Random(seed))  # noqa: S311 - no secret


def run(minutes: float, seed: int) -> int:
    """Soak for *minutes*; return 0 when nothing was untrue and no budget was exceeded."""
    with ExitStack() as stack:
        soak = open_soak(stack, stack.enter_context(scratch_folder()), seed)
        ends = time.monotonic() + minutes * 60
        while (left := ends - time.monotonic()) > 0:
            if untrue := soak.round():
                print(f"seed {seed}, round {soak.done['rounds']}: {len(untrue)} differences")
                print("\n".join(untrue[:SHOWN]))
                return 1
            print(f"{left:6.0f} s left, {dict(soak.done)}", flush=True)
    print("nothing untrue")
    return 0


def main() -> int:
    """Soak as asked."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)  # faults are what it is about
    return run(given.minutes, given.seed)


if __name__ == "__main__":
    sys.exit(main())
