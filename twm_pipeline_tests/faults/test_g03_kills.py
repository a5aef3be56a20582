"""Whatever a process dies at, no checkpoint passes a row that is not stored (G3).

At every second statement of the transactions that store something in every run; at every one of a whole pass
with TWM_WHOLE_DATA=1.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretStr

from twm_pipeline_tests.faults import worker
from twm_pipeline_tests.faults.mortal import LIVED, Nursery, nursery
from twm_pipeline_tests.faults.wire import Said, Wire
from twm_pipeline_tests.faults.world import World, wait_for_requests

WHOLE = "TWM_WHOLE_DATA" in os.environ
KILLS = 10 if WHOLE else 4
SCALE = 300.0
SECONDS_BETWEEN = 200  # more than a pass steps back behind its checkpoint
STRIDE = 2
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
        at: The number of the statement among those that count, from 0.
        answered: Kill it when PostgreSQL has done what the statement says, and not before.
    """

    at: int = -1
    answered: bool = False
    nursery: Nursery | None = None
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
        assert self.nursery is not None
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


def assert_nothing_is_missing_below_the_checkpoints(world: World) -> None:
    head = world.scalar("SELECT last_event_time FROM twm.checkpoints WHERE stream = 'tasks' AND feed = ''")
    if head is not None:
        stored = ids_in(world, "SELECT id FROM teamwork.tasks")
        for row in world.control.truth("task"):
            below = datetime.fromtimestamp(row["updated_at"], UTC) < head
            assert row["id"] in stored or not below or row["deleted"] or not row["visible"]
    head = world.scalar(
        "SELECT to_timestamp((last_cursor ->> 'head')::float8) FROM twm.checkpoints WHERE source = 'missive'"
        " AND feed = 'all' AND last_cursor -> 'gaps' = '[]'"
    )
    stored = ids_in(world, "SELECT id FROM missive.emails")
    read = ids_in(
        world, "SELECT id || ' ' || extract(epoch FROM children_read_at)::bigint FROM missive.conversations"
    )
    for row in world.control.truth("conversation"):
        activity = datetime.fromtimestamp(row["last_activity_at"], UTC)
        plain = row["visible"] and not (row["guest"] or row["trashed"] or row["junked"])
        below = head is not None and activity < head
        if plain and (below or f"{row['id']} {row['last_activity_at']}" in read):
            assert set(row["message_ids"]) <= stored


def ids_in(world: World, query: str) -> set[Any]:
    with world.engine.connect() as connection:
        return set(connection.exec_driver_sql(query).scalars())


@pytest.fixture
def world(make_world):
    return make_world(tasks=12, conversations=4)


@pytest.mark.parametrize("answered", [False, True], ids=["unheard", "unanswered"])
@pytest.mark.parametrize("source", ["teamwork", "missive"])
def test_a_death_at_any_statement_leaves_rows_and_checkpoint_of_one_moment(world, database, source, answered):
    world.sync(source)
    reaper = Reaper(answered=answered)
    wire = Wire(database, before=reaper.before, after=reaper.after)
    died_at: list[str] = []

    with wire.open() as url:
        dsn = SecretStr(url.render_as_string(hide_password=False))
        with nursery(world.settings.model_copy(update={"pg_dsn": dsn})) as reaper.nursery:
            for number in itertools.count(step=1 if WHOLE or answered else STRIDE):
                work(world, source, number)
                reaper.aim(number)
                reaper.nursery.start(source)
                ended = reaper.nursery.ended()
                wait_until_its_locks_are_free(world)
                assert_nothing_is_missing_below_the_checkpoints(world)
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
        if world.scalar("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0:
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
        assert_nothing_is_missing_below_the_checkpoints(world)
        world.control.random_changes(3, number)
    world.settle()

    world.assert_true()
    assert world.control.violations() == 0
