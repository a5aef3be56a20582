"""Whatever a process dies at, no checkpoint passes a row that is not stored (G3)."""

import random
from datetime import UTC, datetime

from twm_pipeline_tests.faults import worker
from twm_pipeline_tests.faults.world import wait_for_requests

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
