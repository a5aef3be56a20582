"""Whatever a process dies at, no checkpoint passes a row that is not stored (G3).

At every fourth statement of the transactions that store something in every run; at every one of a whole pass
with TWM_WHOLE_DATA=1.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
from dataclasses import dataclass, field

import pytest

from twm_pipeline_tests.databases import HELD_HERE
from twm_pipeline_tests.faults import worker
from twm_pipeline_tests.faults.mortal import LIVED, Nursery
from twm_pipeline_tests.faults.wire import Said, Wire
from twm_pipeline_tests.faults.world import World, dsn_secret, wait_for_requests

WHOLE = "TWM_WHOLE_DATA" in os.environ
KILLS = 10 if WHOLE else 4
SCALE = 300.0
SECONDS_BETWEEN = 200  # more than a pass steps back behind its checkpoint
STRIDE = 4
PATIENCE, PAUSE_SECONDS = 500, 0.01
PAUSE = threading.Event()  # never set: only its timeout is used
READING = ("SELECT", ";", "ROLLBACK", "BEGIN")
SEEN = {
    "teamwork": {"COPY", "INSERT INTO teamwork.tasks", "INSERT INTO twm.checkpoints", "COMMIT"},
    "missive": {
        "INSERT INTO missive.conversations",
        "INSERT INTO missive.emails",
        "UPDATE missive.conversations",
        "INSERT INTO twm.checkpoints",
        "COMMIT",
    },
}
"""What has to be among the statements died at, or the product works otherwise now."""


@dataclass
class Reaper:
    """Kills the process at the other end of a wire at one of its statements.

    Args:
        nursery: Whose process is at the other end.
        answered: Kill it when PostgreSQL has done what the statement says, and not before.
        at: The number of the statement among those that count, from 0.
    """

    nursery: Nursery
    answered: bool = False
    at: int = -1
    died_at: str | None = None
    _count: int = 0
    _awaited: Said | None = None
    _writing: dict[int, bool] = field(default_factory=dict)

    def aim(self, at: int) -> None:
        """Wait for another statement."""
        self.at, self.died_at, self._count, self._awaited = at, None, 0, None
        self._writing.clear()

    def before(self, said: Said) -> None:
        if not self._counts(said):
            return
        if self._count == self.at:
            self._awaited = said
            if not self.answered:
                self._strike(said)
        self._count += 1

    def after(self, said: Said) -> None:
        if said is self._awaited:
            self._strike(said)

    def _counts(self, said: Said) -> bool:
        """Return whether a statement belongs to a transaction that has begun to write.

        To die after an answer is to die before the next statement, except where there is none: at COMMIT.
        """
        if said.text == "BEGIN":
            self._writing[said.connection] = False
        elif said.connection in self._writing and not said.text.startswith(READING):
            self._writing[said.connection] = said.text != "COMMIT" or self._writing[said.connection]
        counts = WHOLE or self._writing.get(said.connection, False)
        if said.text in ("COMMIT", "ROLLBACK"):
            self._writing.pop(said.connection, None)
        return counts and (said.text == "COMMIT" or not self.answered)

    def _strike(self, said: Said) -> None:
        if self.died_at is None:
            self.died_at = said.text
            self.nursery.kill()
        raise ConnectionAbortedError


def work(world: World, source: str, number: int) -> None:
    """Let people change something that a pass stores in several tables, a little time apart."""
    for part in range(2):
        world.control.advance(SECONDS_BETWEEN)
        if source == "teamwork":
            world.control.create_task(f"Order {number}.{part}")
        else:
            thread = world.ids("conversation", lambda row: row["visible"] and not row["trashed"])[part]
            world.control.receive_mail(thread, subject=f"Offer {number}.{part}")
            world.control.comment(thread, "Who calls them?")
    world.control.advance(SECONDS_BETWEEN)


@pytest.fixture
def world(make_world):
    return make_world(tasks=12, conversations=4)


@pytest.mark.parametrize("answered", [False, True], ids=["unheard", "unanswered"])
@pytest.mark.parametrize("source", ["teamwork", "missive"])
def test_a_death_at_any_statement_leaves_rows_and_checkpoint_of_one_moment(
    world, database, nursery, source, answered
):
    world.sync(source)
    reaper = Reaper(nursery, answered=answered)
    wire = Wire(database, before=reaper.before, after=reaper.after)
    died_at: list[str] = []

    with wire.open() as url:
        settings = world.settings.model_copy(update={"pg_dsn": dsn_secret(url)})
        for number in itertools.count(step=1 if WHOLE or answered else STRIDE):
            work(world, source, number)
            reaper.aim(number)
            nursery.start(settings, source)
            ended = nursery.ended()
            wait_until_its_locks_are_free(world)
            world.assert_checkpoints_are_honest()
            if reaper.died_at is None:
                assert ended == LIVED
                break
            assert ended == -signal.SIGKILL
            died_at.append(reaper.died_at)

    world.assert_true(source)  # after one pass that lived
    expected = {"COMMIT"} if answered else SEEN[source]
    if WHOLE or answered:
        assert {start for start in expected if any(text.startswith(start) for text in died_at)} == expected
    assert len(died_at) >= len(expected)


def wait_until_its_locks_are_free(world: World) -> None:
    """Return when PostgreSQL has noticed the death."""
    for _ in range(PATIENCE):
        if world.scalar(f"SELECT count(*) FROM pg_locks WHERE {HELD_HERE}") == 0:
            return
        PAUSE.wait(PAUSE_SECONDS)
    raise AssertionError("a dead process holds a lock")


def test_a_process_killed_again_and_again_during_the_import_leaves_no_trace(make_world):
    world = make_world(
        tasks=800,
        conversations=80,
        budgets=SCALE,
        answers={"teamwork.max_page_size": 50},
        overrides={"budget_time_scale": SCALE},
    )
    chance = random.Random(5)

    for number in range(KILLS):
        asked = world.control.request_count()
        process = worker.start(world.settings, *chance.sample(["teamwork", "missive"], 2))
        wait_for_requests(world.control, asked + chance.randint(1, 40))
        process.kill()
        process.communicate()
        world.assert_checkpoints_are_honest()
        world.control.random_changes(3, number)
    world.settle()

    world.assert_true()
    assert world.control.violations() == 0
