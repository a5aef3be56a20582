"""Processes that die, race each other, or lose their database (G3, G6, G8, G12)."""

import random
import shutil
import threading
import uuid
from datetime import UTC, datetime

import pytest

from twm_pipeline.db import EmbeddedServer, open_engine
from twm_pipeline.errors import TwmError
from twm_pipeline.mirror.schema import migrate
from twm_pipeline.sandbox import Sandbox, SandboxOptions
from twm_pipeline_tests.conftest import FAST_AND_FORGETFUL
from twm_pipeline_tests.faults import worker
from twm_pipeline_tests.faults.world import World, settings_for, wait_for_requests

KILLS = 10
SCALE = 300.0


def assert_nothing_is_missing_below_the_checkpoints(world):
    query = "SELECT last_event_time FROM twm.checkpoints WHERE source = :s AND stream = :t AND feed = :f"
    head = world.scalar(query, s="teamwork", t="tasks", f="")
    if head is not None:
        with world.engine.connect() as connection:
            stored = set(connection.exec_driver_sql("SELECT id FROM teamwork.tasks").scalars())
        for row in world.control.truth("task"):
            below = datetime.fromtimestamp(row["updated_at"], UTC) < head
            assert row["id"] in stored or not below or row["deleted"] or not row["visible"]
    head = world.scalar(query, s="missive", t="conversations", f="all")
    if head is not None:
        with world.engine.connect() as connection:
            stored = set(connection.exec_driver_sql("SELECT id FROM missive.emails").scalars())
        for row in world.control.truth("conversation"):
            plain = row["visible"] and not (row["guest"] or row["trashed"] or row["junked"])
            if plain and datetime.fromtimestamp(row["last_activity_at"], UTC) < head:
                assert set(row["message_ids"]) <= stored


def test_a_process_killed_ten_times_during_the_import_leaves_no_trace(make_world):
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


@pytest.mark.parametrize("source", ["teamwork", "missive"])
def test_two_processes_that_import_the_same_end_as_one(make_world, source):
    world = make_world(tasks=600, conversations=60, answers={"teamwork.max_page_size": 50})

    both = [worker.start(world.settings, source) for _ in range(2)]
    for process in both:
        worker.finish(process)
    world.sync(source)

    world.assert_true(source)


def test_two_processes_that_follow_edits_end_as_one(make_world):
    world = make_world(tasks=200, conversations=40)
    world.sync()

    for seed in range(2):
        both = [worker.start(world.settings, "teamwork", "missive") for _ in range(2)]
        world.control.random_changes(40, seed)
        for process in both:
            worker.finish(process)
    world.settle()

    world.assert_true()


def test_three_processes_together_exceed_no_budget(make_world):
    scale = 60.0
    world = make_world(
        tasks=2500,
        conversations=60,
        budgets=scale,
        answers={"teamwork.max_page_size": 50, "teamwork.rate_header": "none"},
        overrides={"budget_time_scale": scale},
    )

    workers = [
        worker.start(world.settings, *sources)
        for sources in (["teamwork", "missive"], ["missive"], ["teamwork"])
    ]
    for process in workers:
        worker.finish(process)

    status = world.control.status()["vendors"]
    assert world.control.violations() == 0
    assert status["missive"]["peak_concurrency"] <= 5
    assert status["teamwork"]["requests"] > 100


def test_postgresql_restarted_during_an_import(servers_folder, tmp_path):
    folder = servers_folder / f"restarted-{uuid.uuid4().hex[:8]}"
    server = EmbeddedServer(folder, options=FAST_AND_FORGETFUL)
    server.start()
    try:
        with Sandbox(SandboxOptions(tasks=300, conversations=60, latency_seconds=0.003)) as box:
            server.create_database("twm")
            engine = open_engine(server.url("twm"))
            migrate(engine)
            settings = settings_for(box, server.url("twm"), tmp_path / ".twm")
            world = World(control=box.control, engine=engine, settings=settings)
            stopped: list[TwmError] = []
            thread = threading.Thread(target=lambda: stopped.extend(world.insist("missive")))
            thread.start()
            wait_for_requests(world.control, 60)
            server.stop()
            server.start()
            thread.join()
            world.insist("missive", "teamwork")
            world.settle()

            assert stopped
            world.assert_true()
            engine.dispose()
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def test_memory_does_not_grow_with_the_account(server, template_database, tmp_path):
    peaks = {}
    for tasks, conversations in ((400, 60), (4000, 240)):
        name = f"memory_{uuid.uuid4().hex}"
        with server.connect() as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template_database}".encode())
        with Sandbox(SandboxOptions(tasks=tasks, conversations=conversations)) as box:
            settings = settings_for(box, server.url(name), tmp_path / ".twm")
            peaks[tasks] = worker.finish(worker.start(settings, "teamwork", "missive"))
        with server.connect() as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

    assert peaks[4000] <= 1.3 * peaks[400]
