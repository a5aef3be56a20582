"""People go on working while a walk is under way (G2, G5)."""

import threading
import time
from contextlib import contextmanager

import pytest

from twm_pipeline.sandbox import SandboxControl


@contextmanager
def busy_people(world, *, changes=2):
    """Change both accounts again and again until the block ends."""
    over = threading.Event()
    failures: list[Exception] = []

    def work():
        control = SandboxControl(world.control.url)
        try:
            seed = 0
            while not over.wait(0.05):
                seed += 1
                control.random_changes(changes, seed)
        except Exception as error:  # noqa: BLE001 - raised again in the test's own thread
            failures.append(error)
        finally:
            control.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert failures == []


@pytest.mark.parametrize("source", ["teamwork", "missive"])
def test_edits_during_an_import_and_a_reconcile(make_world, source):
    world = make_world(tasks=400, conversations=40, answers={"teamwork.max_page_size": 50})

    with busy_people(world):
        world.insist(source)
        world.insist(source)
        world.reconcile(source)
    world.settle(source)

    world.assert_true(source)


def test_a_block_of_one_second_that_changes_while_it_is_read(make_world):
    world = make_world(tasks=600, conversations=1, answers={"teamwork.max_page_size": 50})
    world.control.bulk_edit(400)

    with busy_people(world):
        world.insist("teamwork")
    world.settle("teamwork")

    world.assert_true("teamwork")


def test_what_a_poll_can_see_is_there_after_one_clean_pass(make_world):
    """No reconcile: only edits that move the version a poll goes by."""
    world = make_world(tasks=300, conversations=30)
    over = threading.Event()

    def work():
        control = SandboxControl(world.control.url)
        number = 0
        while not over.wait(0.02):
            number += 1
            control.edit_task(1_000_001 + number % 300, name=f"name {number}")
            control.receive_mail(subject=f"mail {number}")
        control.close()

    thread = threading.Thread(target=work)
    thread.start()
    world.insist()
    over.set()
    thread.join()
    world.sync()

    assert [
        line for line in world.differences() if "updated" in line or "missing" in line or "title" in line
    ] == []


@pytest.mark.parametrize("second_change", ["mail", "comment"])
def test_what_arrives_in_the_very_second_that_was_just_read_is_read_by_the_next_pass(
    make_world, second_change
):
    world = make_world(tasks=1, conversations=5)
    world.sync("missive")
    key = world.ids("conversation", lambda row: row["visible"] and not (row["guest"] or row["trashed"]))[0]
    threading.Event().wait(1 - time.time() % 1)  # a second that has just begun

    world.control.receive_mail(key)
    world.sync("missive")
    if second_change == "mail":
        world.control.receive_mail(key)
    else:
        world.control.comment(key, "in the same second")
    for _ in range(2):
        world.sync("missive")

    world.assert_true("missive")
