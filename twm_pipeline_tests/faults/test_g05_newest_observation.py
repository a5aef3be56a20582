"""An older observation never replaces a newer one, however late its answer comes (G5).

A slow reader has asked and been answered; before it stores the answer, something changes and another process
stores that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from twm_pipeline.sync.engine import PassOptions, open_pass
from twm_pipeline.sync.missive import MissivePass
from twm_pipeline.sync.teamwork import TeamworkPass
from twm_pipeline_tests.faults.world import World


@contextmanager
def slow_reader_of_tasks(world: World) -> Iterator[None]:
    """Read the tasks now, and store them when the block ends."""
    with open_pass(world.engine, world.settings, "teamwork", owns_checkpoints=False) as work:
        slow = TeamworkPass(work, PassOptions())
        page = slow.fetcher(fresh=True)(None, 1)
        yield
        slow.store_tasks([page])


@contextmanager
def slow_reader_of_conversations(world: World) -> Iterator[None]:
    """Read the first page of conversations now, and store them with their contents when the block ends."""
    with open_pass(world.engine, world.settings, "missive", owns_checkpoints=False) as work:
        slow = MissivePass(work, PassOptions())
        page = slow.api.fetch_conversations("all")
        yield
        slow.conversations.store_rows(page.rows, page.reply, fresh=True)


def edit(world, task_id):
    world.control.edit_task(task_id, name="the newest name")


def tag(world, task_id):
    world.control.tag_task(task_id, world.control.create_tag("urgent"))


def delete(world, task_id):
    world.control.delete_task(task_id)


def delete_and_restore(world, task_id):
    world.control.delete_task(task_id)
    world.sync("teamwork")
    world.control.restore_task(task_id)


@pytest.mark.parametrize("moves", [True, False], ids=["with a version", "without a version"])
@pytest.mark.parametrize(
    "change", [edit, tag, delete, delete_and_restore], ids=lambda change: change.__name__
)
def test_a_task_that_changed_while_an_answer_was_under_way_keeps_the_change(make_world, change, moves):
    answers = {f"teamwork.{kind}_bumps_updated_at": moves for kind in ("tag", "delete", "restore")}
    world = make_world(answers=answers)
    world.sync("teamwork")
    task_id = world.ids("task", lambda row: row["visible"] and not row["deleted"])[0]

    with slow_reader_of_tasks(world):
        change(world, task_id)
        world.sync("teamwork")
        world.reconcile("teamwork")

    world.assert_true("teamwork")


def test_a_task_that_is_again_what_it_was_is_not_what_it_was_in_between(make_world):
    """Tagged when the slow reader looks, untagged when the other does, for whom then nothing differs."""
    world = make_world(answers={"teamwork.tag_bumps_updated_at": False})
    task_id = world.ids("task", lambda row: row["visible"] and not row["deleted"] and not row["tag_ids"])[0]
    tag_id = world.control.create_tag("urgent")
    world.sync("teamwork")
    world.control.tag_task(task_id, tag_id)

    with slow_reader_of_tasks(world):
        world.control.untag_task(task_id, tag_id)
        world.sync("teamwork", options=PassOptions(ids=(str(task_id),)))

    world.assert_true("teamwork")


def label(world, thread_id):
    [label_id] = world.ids("label", lambda row: row["name"] == "Urgent")
    world.control.label(thread_id, label_id)


def trash(world, thread_id):
    world.control.trash(thread_id)


def close(world, thread_id):
    world.control.close_conversation(thread_id)


@pytest.mark.parametrize("change", [label, trash, close], ids=lambda change: change.__name__)
def test_a_conversation_that_changed_while_an_answer_was_under_way_keeps_the_change(world, change):
    world.control.create_label("Urgent")
    world.sync("missive")
    plain = lambda row: row["visible"] and not (row["guest"] or row["trashed"] or row["junked"])  # noqa: E731
    thread_id = world.ids("conversation", plain)[0]

    with slow_reader_of_conversations(world):
        change(world, thread_id)
        world.sync("missive", options=PassOptions(ids=(thread_id,)))

    world.assert_true("missive")
