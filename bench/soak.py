"""`python -m bench.soak --minutes N`: random work, faults, kills and lost access; ends at the first untruth.

Each round lets people work, injects faults, kills or races the processes that sync, then gives the mirror
its chance (a clean pass, a reconcile, the second look ten minutes later) and compares it with the truth.
"""

from __future__ import annotations

import argparse
import logging
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from twm_pipeline.db import EmbeddedServer, open_engine
from twm_pipeline.mirror.schema import migrate
from twm_pipeline.sandbox import FAULT_KINDS, Sandbox, SandboxError, SandboxOptions
from twm_pipeline_tests.faults import worker
from twm_pipeline_tests.faults.world import World, settings_for

SCALE = 600.0
TASKS, CONVERSATIONS = 400, 100
SLOW_FAULTS = ("429", "stall")
KILLED_SHARE = 0.6
LONGEST_LIFE_SECONDS = 2.5
PAUSE = threading.Event()  # never set: only its timeout is used


class Soak:
    """One world and what is done to it.

    Args:
        world: Sandbox and mirror.
        chance: Decides everything.
    """

    def __init__(self, world: World, chance: random.Random) -> None:
        self.world = world
        self.chance = chance
        self.done: Counter[str] = Counter()

    def round(self) -> list[str]:
        """Work, break things, repair; return what differs from the truth then."""
        for _ in range(self.chance.randint(2, 4)):
            self.world.control.random_changes(self.chance.randint(5, 40), self.chance.randrange(1 << 30))
            self._rare_change()
            self._fault()
            self._processes()
        self.world.settle()
        self.done["rounds"] += 1
        return self.world.differences()

    def _rare_change(self) -> None:
        """Do something that no storm does; what is impossible just now is left out."""
        control, chance = self.world.control, self.chance
        kind = chance.choice(
            ("delete conversation", "hide", "show", "list", "archive", "person", "label", "tag")
        )
        conversations = self.world.ids("conversation")
        projects = self.world.ids("project", lambda row: row["deleted_at"] is None)
        changes: dict[str, Callable[[], object]] = {
            "delete conversation": lambda: control.delete_conversation(chance.choice(conversations)),
            "hide": lambda: control.set_conversation_access(chance.choice(conversations), accessible=False),
            "show": lambda: self._show(conversations),
            "list": lambda: control.delete_tasklist(chance.choice(self.world.ids("tasklist"))),
            "archive": lambda: control.archive_project(
                chance.choice(projects), archived=chance.choice((True, False))
            ),
            "person": lambda: control.rename_person(
                chance.choice(self.world.ids("person")), "Renamed", "Person"
            ),
            "label": lambda: control.rename_label(
                chance.choice(self.world.ids("label")), f"L{chance.random()}"
            ),
            "tag": lambda: control.delete_tag(chance.choice(self.world.ids("tag"))),
        }
        try:
            changes[kind]()
        except (SandboxError, IndexError):
            return
        self.done[kind] += 1

    def _show(self, conversations: list[str]) -> None:
        for key in conversations:
            self.world.control.set_conversation_access(key, accessible=True)

    def _fault(self) -> None:
        self.world.control.clear_faults()
        kind, vendor = self.chance.choice(FAULT_KINDS), self.chance.choice(("teamwork", "missive"))
        count = 2 if kind in SLOW_FAULTS else self.chance.choice((1, 5, 25))
        self.world.control.add_fault(
            vendor, kind, count=count, probability=self.chance.choice((0.1, 0.5, 1.0))
        )
        self.done[f"fault {kind}"] += 1

    def _processes(self) -> None:
        """Let one or two processes sync, and kill them or not."""
        started = [
            worker.start(self.world.settings, *self.chance.sample(["teamwork", "missive"], 2))
            for _ in range(self.chance.choice((1, 1, 2)))
        ]
        for process in started:
            if self.chance.random() < KILLED_SHARE:
                PAUSE.wait(self.chance.uniform(0.3, LONGEST_LIFE_SECONDS))
                process.kill()
                self.done["kills"] += 1
            process.communicate()
            self.done["processes"] += 1


def run(minutes: float, seed: int) -> int:
    """Soak for *minutes*; return 0 when nothing was untrue and no budget was exceeded."""
    folder = Path(tempfile.mkdtemp(prefix="twm-soak-"))
    folder.chmod(0o711)  # as root the server runs as another account
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        server = EmbeddedServer(folder / "postgres", options={"fsync": "off", "synchronous_commit": "off"})
        server.start()
        stack.callback(server.stop)
        server.create_database("twm")
        engine = open_engine(server.url("twm"))
        stack.callback(engine.dispose)
        migrate(engine)
        options = SandboxOptions(seed=seed, tasks=TASKS, conversations=CONVERSATIONS, budgets=SCALE)
        box = stack.enter_context(Sandbox(options))
        settings = settings_for(box, server.url("twm"), folder / ".twm", budget_time_scale=SCALE)
        soak = Soak(World(control=box.control, engine=engine, settings=settings), random.Random(seed))  # noqa: S311 - no secret
        ends = time.monotonic() + minutes * 60
        while time.monotonic() < ends:
            if untrue := soak.round():
                print(f"seed {seed}, round {soak.done['rounds']}: {len(untrue)} differences")
                print("\n".join(untrue[:20]))
                return 1
            violations = box.control.violations()
            print(f"{ends - time.monotonic():6.0f} s left, {violations} budget violations, {dict(soak.done)}")
            if violations:
                return 1
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
