"""Only the vendor's clock judges the vendor's rows, and no row dated ahead of it is believed (G2)."""

import pytest

YEAR_2099 = 4_087_497_600


@pytest.mark.parametrize("source", ["teamwork", "missive"])
def test_rows_from_the_future_are_stored_and_hold_up_nothing(make_world, source):
    world = make_world(tasks=120, conversations=70)
    tasks = world.ids("task", lambda row: row["visible"] and not row["deleted"])[:3]
    conversations = world.ids("conversation", lambda row: row["visible"] and not row["trashed"])[:60]
    for key in tasks:
        world.control.redate_task(key, YEAR_2099)
    for number, key in enumerate(conversations):
        world.control.redate_conversation(key, YEAR_2099 + number)

    world.sync(source)
    world.control.random_changes(30, 3, source)
    world.sync(source)
    head = world.scalar("SELECT max(last_event_time) < now() + interval '1 day' FROM twm.checkpoints")
    world.settle(source)

    assert head is True
    world.assert_true(source)


def test_a_task_from_the_future_is_not_frozen(world):
    task_id = world.ids("task", lambda row: row["visible"] and not row["deleted"])[0]
    world.control.redate_task(task_id, YEAR_2099)
    world.sync("teamwork")

    world.control.edit_task(task_id, name="corrected")
    world.sync("teamwork")

    assert world.scalar("SELECT title FROM teamwork.tasks WHERE id = :id", id=task_id) == "corrected"
