"""Publishing through faults of Airtable, people at work in the base, and deaths of its processes (G4, G6-G8).

A small storm in every run; the whole one with TWM_WHOLE_STORM=1.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import text

from twm_pipeline.errors import DatabaseUnavailableError, TwmError, WindowClosedError
from twm_pipeline.mirror.changelog import follow_changes
from twm_pipeline.sandbox import SandboxControl
from twm_pipeline.sandbox.client import SandboxError
from twm_pipeline.sync.publishing import PublishWindow
from twm_pipeline.sync.window_lock import window_lock
from twm_pipeline_tests.faults import publisher
from twm_pipeline_tests.faults.test_g02_open_questions import WORLDS
from twm_pipeline_tests.faults.world import World, wait_for_requests
from twm_pipeline_tests.publishing import airtable_at, airtable_settings, base_differences, publish
from twm_pipeline_tests.truth.compare_base import KEYS, TABLES

logger = logging.getLogger(__name__)

SCALE = 20.0
PAUSE = threading.Event()  # never set: only its timeout is used
FAULTS = ("429", "500", "502", "503", "html_502", "reset", "reset_midway", "truncated", "stall")
DONE_BEFORE_5XX = ("nothing", "all", "half")
PRIORITIES = {"choices": [{"name": "high"}, {"name": "medium"}]}
SHOWN = 12
ROOM = {"airtable.records_per_base": 0}
"""A base that is full shows less than the views; `sync/test_publish_refusals.py` says what then."""

needs_patience = pytest.mark.skipif(
    "TWM_WHOLE_STORM" not in os.environ, reason="takes minutes; TWM_WHOLE_STORM=1 runs it"
)

MakeWorld = Callable[..., World]


@pytest.fixture
def make_publishing(make_world: MakeWorld) -> MakeWorld:
    """Return what makes a world whose mirror is read, and is to be published to an empty base."""

    def make(*, scale: float = SCALE, **options: object) -> World:
        world = make_world(overrides={"budget_time_scale": scale}, **options)
        world.settings = world.settings.model_copy(update=airtable_settings(airtable_at(world.control.url)))
        with world.engine.begin() as connection:
            follow_changes(connection, wanted=True)
        world.sync()
        world.control.set_budgets(scale, "airtable")
        return world

    return make


def assert_published(world: World) -> None:
    """Require that the base shows what the views show, each row once."""
    found = base_differences(world.engine, world.control)
    assert not found, "\n".join([f"{len(found)} differences", *found[:SHOWN]])
    assert world.control.violations("airtable") == 0


def calls(world: World) -> int:
    return world.control.request_count("airtable")


# -- one fault -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "done"),
    [
        *(("500", done) for done in DONE_BEFORE_5XX),
        ("reset", "all"),
        ("reset_midway", "all"),
        ("truncated", "all"),
    ],
)
def test_a_write_that_is_not_answered_is_made_once(make_publishing, fault, done):
    world = make_publishing(conversations=3, scale=1000, answers={"airtable.done_before_5xx": done})
    world.control.add_fault("airtable", fault, path="tbl", count=3, after=1, retry_after="none")

    publish(world.engine, world.settings)

    assert_published(world)


def test_a_table_that_is_made_without_an_answer_is_made_once(make_publishing):
    world = make_publishing(conversations=3, scale=1000)
    world.control.add_fault("airtable", "reset_midway", path="meta/.*/tables", count=2, after=1)

    publish(world.engine, world.settings)

    tables = [row["name"] for row in world.control.truth("airtable_table")]
    assert sorted(tables) == ["Emails", "Tasks"]
    assert_published(world)


@pytest.mark.parametrize("answers", WORLDS, ids=range(len(WORLDS)))
def test_the_base_shows_the_views_under_all_other_answers_at_once(make_publishing, answers):
    own = {name: value for name, value in answers.items() if name.startswith("airtable.")}
    world = make_publishing(tasks=30, conversations=3, scale=1000, answers=own | ROOM)
    world.control.add_fault("airtable", "500", path="tbl", count=2, after=1, retry_after="none")

    publish(world.engine, world.settings)
    world.control.random_changes(20, 1)
    world.sync()
    publish(world.engine, world.settings)

    assert_published(world)


def test_an_outage_that_lasts_ends_a_run_and_loses_nothing(make_publishing):
    world = make_publishing(conversations=3, scale=1000)
    world.control.add_fault("airtable", "503", path="tbl", count=None, after=3, retry_after="none")

    with pytest.raises(TwmError):
        publish(world.engine, world.settings)
    world.control.clear_faults()
    publish(world.engine, world.settings)

    assert_published(world)


def test_ingestion_goes_on_while_airtable_does_not_answer(make_publishing):
    world = make_publishing(conversations=3, scale=1000)
    world.control.add_fault("airtable", "503", count=None, retry_after="none")
    with pytest.raises(TwmError):
        publish(world.engine, world.settings)

    world.control.random_changes(30, 1)
    world.settle()

    world.assert_true()


# -- processes -------------------------------------------------------------------------------------------


def test_two_publishers_started_at_once_make_every_record_once(make_publishing):
    world = make_publishing(tasks=200, conversations=10)

    both = [publisher.start(world.settings) for _ in range(2)]
    ran = [publisher.finish(process) for process in both]

    assert any(ran)
    assert_published(world)


def test_a_publisher_that_finds_another_at_work_makes_no_call(make_publishing):
    world = make_publishing()

    with window_lock(world.engine, "airtable"):
        ran = PublishWindow(engine=world.engine, settings=world.settings).run()

    assert not ran
    assert calls(world) == 0


def test_a_publisher_killed_again_and_again_leaves_no_trace(make_publishing):
    world = make_publishing(tasks=400, conversations=10)
    chance = random.Random(3)

    for _ in range(3):
        asked = world.control.request_count()
        process = publisher.start(world.settings)
        wait_for_requests(world.control, asked + chance.randint(1, 10))
        publisher.kill(process)
    publish(world.engine, world.settings)

    assert_published(world)
    before = calls(world)
    publish(world.engine, world.settings, views=("tasks",))
    assert calls(world) == before


def test_postgresql_lost_between_a_call_and_its_commit(make_publishing):
    world = make_publishing(conversations=3, scale=1000)
    world.control.set_latency(0.3, "airtable")
    lost: list[TwmError] = []

    def run() -> None:
        with contextlib.suppress(DatabaseUnavailableError, WindowClosedError):
            publish(world.engine, world.settings)
            return
        lost.append(DatabaseUnavailableError("lost"))

    thread = threading.Thread(target=run)
    asked = world.control.request_count()
    thread.start()
    wait_for_requests(world.control, asked + 5)  # the schema, two tables, two calls that write
    PAUSE.wait(0.1)  # the next one is under way
    terminate_connections(world)
    thread.join()
    waiting = world.scalar("SELECT count(*) FROM twm.change_log")
    world.control.set_latency(0, "airtable")
    publish(world.engine, world.settings)

    assert lost
    assert waiting > 0
    assert_published(world)


def terminate_connections(world: World) -> None:
    """Have PostgreSQL drop everybody who works in this database."""
    with world.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )


# -- everything at once ----------------------------------------------------------------------------------


@dataclass
class People:
    """People who work in the base while it is published: they edit, delete, double, rename, retype.

    Args:
        control: A control plane of their own.
        chance: Decides what they do.
    """

    control: SandboxControl
    chance: random.Random
    done: Counter[str] = field(default_factory=Counter)
    copies: list[tuple[str, str]] = field(default_factory=list)

    def act(self) -> None:
        """Do one thing; what is there no more cannot be done."""
        action = self.chance.choice(
            [*[self.edit] * 6, *[self.delete] * 4, *[self.double] * 2, self.rename, self.retype, self.drop]
        )
        with contextlib.suppress(SandboxError):
            action()
            self.done[action.__name__] += 1

    def _record(self) -> tuple[str, str]:
        rows = list(self.control.truth("airtable_record"))
        if not rows:
            raise SandboxError("the base is empty")
        row = self.chance.choice(rows)
        return row["table"], row["id"]

    def edit(self) -> None:
        table, record = self._record()
        view = next(view for view, name in TABLES.items() if name == table)
        key, text_field = KEYS[view][0], {"tasks": "name", "emails": "Subject"}[view]
        changed: dict[str, Any] = self.chance.choice(
            [{text_field: "Edited by hand"}, {text_field: None}, {key: "my own"}]
        )
        self.control.airtable_edit(table, record, changed)

    def delete(self) -> None:
        table, record = self._record()
        self.control.airtable_delete(table, record)

    def double(self) -> None:
        table, record = self._record()
        self.copies.append((table, self.control.airtable_duplicate(table, record)))

    def rename(self) -> None:
        """Give a field another name, or its own again."""
        names = ["description", "What is to be done"]
        for old, new in (names, names[::-1]):
            with contextlib.suppress(SandboxError):
                self.control.airtable_rename_field("Tasks", old, new)
                return

    def retype(self) -> None:
        """Let a field refuse some of what is sent, and the next time nothing any more."""
        if self.done["retype"] % 2:
            self.control.airtable_retype_field("Tasks", "priority", "singleLineText")
        else:
            self.control.airtable_retype_field("Tasks", "priority", "singleSelect", PRIORITIES)

    def drop(self) -> None:
        """Delete a field, once in a while the table."""
        if self.chance.random() < 0.2:
            self.control.airtable_delete_table("Emails")
        else:
            self.control.airtable_delete_field("Tasks", "projectName")

    def tidy(self) -> None:
        """Take back what only people can: copies, other types, other names."""
        for table, copy in self.copies:
            with contextlib.suppress(SandboxError):
                self.control.airtable_delete(table, copy)
        with contextlib.suppress(SandboxError):
            self.control.airtable_retype_field("Tasks", "priority", "singleLineText")
        with contextlib.suppress(SandboxError):
            self.control.airtable_rename_field("Tasks", "What is to be done", "description")


def rage(world: World, *, turns: int, longest_life: float, seed: int) -> People:
    """Publish by processes that are killed so often, while faults, people and both vendors are at work."""
    publish(world.engine, world.settings)
    chance = random.Random(seed)
    people = People(SandboxControl(world.control.url), random.Random(seed + 1))
    over = threading.Event()
    workers = [
        threading.Thread(target=work, args=(world, over, seed)),
        threading.Thread(target=live, args=(people, over)),
    ]
    for worker in workers:
        worker.start()
    processes = [publisher.start(world.settings, seconds=5) for _ in range(2)]
    for turn in range(turns):
        world.control.clear_faults("airtable")
        for kind in chance.sample(FAULTS, 2):
            world.control.add_fault(
                "airtable", kind, count=3, probability=0.2, retry_after=chance.choice(["none", "seconds"])
            )
        world.control.set_answer("airtable.done_before_5xx", chance.choice(DONE_BEFORE_5XX))
        PAUSE.wait(chance.uniform(0.5, longest_life))
        publisher.kill(processes[turn % 2])
        processes[turn % 2] = publisher.start(world.settings, seconds=5)
    over.set()
    for worker in workers:
        worker.join()
    for process in processes:
        publisher.kill(process)
    return people


def work(world: World, over: threading.Event, seed: int) -> None:
    """Change things at both vendors and read them, again and again."""
    control = SandboxControl(world.control.url)
    while not over.wait(0.3):
        seed += 1
        control.random_changes(6, seed)
        world.insist()
    control.close()


def live(people: People, over: threading.Event) -> None:
    while not over.wait(0.1):
        people.act()


def calm(world: World, people: People) -> None:
    """Let the faults end, and the mirror and the base have their chance."""
    world.control.clear_faults()
    people.tidy()
    people.control.close()
    world.settle()
    with world.engine.begin() as connection:
        refused = connection.execute(
            text("UPDATE twm.set_aside SET next_attempt_at = now() WHERE source = 'airtable'")
        )
    status = world.control.status()["vendors"]["airtable"]
    logger.info(
        "people: %s; set aside at the end: %d; answers: %s, faults: %d",
        dict(people.done),
        refused.rowcount,
        status["statuses"],
        status["faults"],
    )
    PublishWindow(engine=world.engine, settings=world.settings, check="whole").run()


def assert_all_is_well(world: World) -> None:
    world.assert_true()
    assert_published(world)
    assert world.scalar("SELECT count(*) FROM twm.set_aside WHERE source = 'airtable'") == 0
    assert world.scalar("SELECT count(*) FROM twm.change_log") == 0
    before = calls(world)
    publish(world.engine, world.settings, views=("tasks",))
    assert calls(world) == before


def test_a_storm_over_the_base_leaves_what_the_views_show(make_publishing):
    world = make_publishing(tasks=100, conversations=15)

    people = rage(world, turns=2, longest_life=3, seed=31)
    calm(world, people)

    assert_all_is_well(world)


@needs_patience
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [41, 42, 43])
def test_the_whole_storm_over_the_base(make_publishing, seed):
    world = make_publishing(tasks=600, conversations=150)

    people = rage(world, turns=25, longest_life=6, seed=seed)
    calm(world, people)

    assert_all_is_well(world)
