"""Deliveries that are late, lost, repeated, disordered or refused cost time, never truth (G2, G5, G6, G9)."""

from __future__ import annotations

from datetime import UTC, datetime

import hypothesis
import pytest
from hypothesis import strategies as st

from twm_pipeline.records import Hint, Source
from twm_pipeline.spool import Envelope
from twm_pipeline.sync.drain import spool_of
from twm_pipeline_tests.faults import worker
from twm_pipeline_tests.faults.hooked import (
    deliver,
    drain,
    hooked,
    make_rules,
    port_of,
    reachable,
    register,
    waiting,
    without_reserve,
)
from twm_pipeline_tests.webhooks.running import receiver_thread

HOUR = 3600
RETRIES = 3
SWITCHED_OFF_AFTER = 3
LABEL = "Urgent"


def living(row):
    return row["visible"] and not row["deleted"]


def plain(row):
    return row["visible"] and not (row["guest"] or row["trashed"] or row["junked"])


def is_deleted(world, task_id):
    return world.scalar("SELECT deleted FROM teamwork.tasks WHERE id = :id", id=task_id)


@pytest.fixture
def told(world):
    """Return a synced world whose vendors tell of every change; of a new label itself they do not."""
    world.control.create_label(LABEL)
    world.sync()
    with hooked(world) as told:
        yield told


# -- in what order and how often -----------------------------------------------------------------------------


def test_deliveries_alone_bring_every_change_that_has_one(told):
    task_id = told.ids("task", living)[0]
    thread_id = told.ids("conversation", plain)[0]
    [label_id] = told.ids("label", lambda row: row["name"] == LABEL)

    told.control.edit_task(task_id, name="Order steel")
    told.control.create_task("Order paint")
    told.control.complete_task(told.ids("task", living)[1])
    told.control.delete_task(told.ids("task", living)[2])
    told.control.reply(thread_id)
    told.control.comment(thread_id, "Who calls them?")
    told.control.label(thread_id, label_id)
    told.control.close_conversation(told.ids("conversation", plain)[1])
    told.control.receive_mail(subject="Offer")
    deliver(told)
    drain(told)

    told.assert_true()
    assert waiting(told) == 0


def test_a_deletion_delivered_after_the_restore_leaves_the_task_alive(told):
    task_id = told.ids("task", living)[0]
    told.control.hold_deliveries("TASK.DELETED")
    told.control.delete_task(task_id)
    told.control.restore_task(task_id)
    deliver(told)
    told.sync("teamwork")

    assert told.control.release_deliveries() == 1
    deliver(told)
    assert waiting(told) == 1
    drain(told)

    assert is_deleted(told, task_id) is False
    told.assert_true()


@pytest.mark.parametrize("spelling", ["id", "ID", "object.id"])
def test_a_deletion_is_a_tombstone_at_once(told, spelling):
    told.control.set_answer("teamwork.deletion_id", spelling)
    task_id = told.ids("task", living)[0]

    told.control.delete_task(task_id)
    deliver(told)
    drain(told)

    assert is_deleted(told, task_id) is True
    told.assert_true()


def test_a_restored_task_lives_again_though_its_restore_has_no_delivery(told):
    told.control.set_answer("teamwork.restore_fires", "none")
    told.control.set_answer("teamwork.restore_bumps_updated_at", value=False)
    task_id = told.ids("task", living)[0]
    told.control.delete_task(task_id)
    deliver(told)
    drain(told)
    assert is_deleted(told, task_id) is True

    told.control.advance(HOUR)
    told.control.create_task("The newest by far")
    told.sync("teamwork")
    told.control.restore_task(task_id)
    told.sync("teamwork")

    assert is_deleted(told, task_id) is False
    told.assert_true()


@pytest.mark.parametrize(
    "weather",
    [{"drop": 1.0}, {"drop": 0.5, "double": 0.5, "reorder": 1.0}],
    ids=["all are lost", "bad weather"],
)
def test_however_deliveries_travel_a_pass_and_a_reconcile_bring_the_truth(told, weather):
    told.control.set_deliveries(**weather, seed=3)
    for seed in range(3):
        told.control.random_changes(30, seed)
        drain(told)
    deliver(told)

    told.settle()

    told.assert_true()
    assert waiting(told) == 0
    states = {row["state"] for row in told.control.deliveries()}
    assert states == ({"dropped"} if weather == {"drop": 1.0} else {"dropped", "delivered"})


TASKS = {
    "edit_task": "TASK.UPDATED",
    "complete_task": "TASK.COMPLETED",
    "reopen_task": "TASK.REOPENED",
    "delete_task": "TASK.DELETED",
    "restore_task": "TASK.UPDATED",
    "move_task": "TASK.MOVED",
}
THREADS = {
    "reply": "outgoing_email",
    "comment": "new_comment",
    "label": "label_change",
    "unlabel": "label_change",
    "close_conversation": "conversation_closed",
    "reopen_conversation": "conversation_reopened",
}
OBJECTS = 3
MOST_CHANGES = 8
changes = st.lists(
    st.tuples(
        st.sampled_from([*TASKS, *THREADS]),
        st.integers(0, OBJECTS - 1),
        st.lists(st.integers(0, MOST_CHANGES), min_size=1, max_size=3),
    ),
    max_size=MOST_CHANGES,
)
"""What is done, to which object, and how many changes later each of the deliveries of it arrives."""


@hypothesis.settings(
    max_examples=hypothesis.settings().max_examples // 8,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(changes=changes, drains=st.sets(st.integers(0, MOST_CHANGES)))
def test_any_order_and_repetition_of_the_deliveries_ends_in_the_same_rows(world, changes, drains):
    if world.scalar("SELECT count(*) FROM teamwork.tasks") == 0:
        world.control.create_label(LABEL)
        world.sync()
    tasks = world.ids("task", lambda row: row["visible"])[:OBJECTS]
    threads = world.ids("conversation", plain)[:OBJECTS]
    arriving: dict[int, list[Hint]] = {}

    for number, (change, which, delays) in enumerate(changes):
        hint = do(world, change, tasks[which] if change in TASKS else threads[which])
        for delay in delays:
            arriving.setdefault(min(number + delay, MOST_CHANGES), []).append(hint)
        spool(world, arriving.pop(number, []))
        if number in drains:
            drain(world)
    for rest in arriving.values():
        spool(world, rest)
        drain(world)

    drain(world)
    world.assert_true()
    assert waiting(world) == 0


def do(world, change, object_id):
    """Change an object as people do; return what a delivery says of it."""
    fields = {}
    if change == "edit_task":
        fields = {"progress": world.control.request_count() % 100}
    elif change == "move_task":
        project_id = next(row["project_id"] for row in world.control.truth("task") if row["id"] == object_id)
        fields = {
            "list_id": world.ids(
                "tasklist", lambda row: row["project_id"] == project_id and row["deleted_at"] is None
            )[0]
        }
    elif change in ("label", "unlabel"):
        fields = {"label_id": world.ids("label")[-1]}
    elif change == "comment":
        fields = {"body": "Who calls them?"}
    if change in TASKS:
        world.control.do(change, task_id=object_id, **fields)
        return Hint(event=TASKS[change], stream="tasks", object_id=str(object_id))
    getattr(world.control, change)(object_id, **fields)
    return Hint(event=THREADS[change], stream="conversations", object_id=object_id)


def spool(world, hints):
    for hint in hints:
        source: Source = "teamwork" if hint.stream == "tasks" else "missive"
        envelope = Envelope(source=source, hint=hint, received_at=datetime.now(UTC), headers={}, body=b"{}")
        spool_of(world.settings, source).put([envelope])


# -- receivers that are away, full, or several ---------------------------------------------------------------


def test_what_a_full_receiver_refused_is_sent_again_when_there_is_room(world):
    world.sync()
    with hooked(world) as told:
        port = port_of(told)
    full = told.settings.model_copy(update={"spool_reserve_megabytes": 1 << 40})
    with receiver_thread(full, port=port):
        task_id = told.control.create_task("Order steel")
        thread_id = told.control.receive_mail(subject="Offer")["conversation_id"]
        deliver(told)
        refused = {status for row in told.control.deliveries() for status in row["statuses"]}
    assert (refused, waiting(told)) == ({503}, 0)

    with receiver_thread(told.settings, port=port):
        told.control.advance(HOUR)
        deliver(told)
    drain(told)

    assert is_deleted(told, task_id) is False
    assert told.scalar("SELECT count(*) FROM missive.emails WHERE conversation_id = :id", id=thread_id) == 1
    told.assert_true()


def test_a_switched_off_hook_is_noticed_and_resumed_and_the_gap_polled(world):
    world.sync()
    with hooked(world) as told:
        port = port_of(told)
    for number in range(SWITCHED_OFF_AFTER):
        told.control.create_task(f"Order {number}")
    for _ in range(RETRIES + 1):
        deliver(told)
        told.control.advance(HOUR)
    deliver(told)
    off = [row["event"] for row in told.control.hooks("teamwork") if row["status"] != "ACTIVE"]
    assert off == ["TASK.CREATED"]

    with receiver_thread(told.settings, port=port):
        unheard = told.control.create_task("Order steel")
        register(told)
        assert all(row["status"] == "ACTIVE" for row in told.control.hooks("teamwork"))
        heard = told.control.create_task("Order paint")
        deliver(told)
    assert waiting(told) == 2
    told.sync("teamwork")

    assert (is_deleted(told, unheard), is_deleted(told, heard)) == (False, False)
    told.assert_true()
    assert waiting(told) == 0


def test_two_receivers_and_two_windows_on_one_spool_end_as_one_of_each(make_world):
    world = make_world(tasks=150, conversations=30)
    world.sync()
    with (
        receiver_thread(without_reserve(world.settings)) as one,
        receiver_thread(without_reserve(world.settings)) as other,
    ):
        told = reachable(world, one.url)
        register(told)
        make_rules(reachable(world, other.url))
        told.control.set_deliveries(double=0.5, reorder=0.2, seed=4)
        told.control.random_changes(40, 1)
        both = [worker.start(told.settings, "teamwork", "missive") for _ in range(2)]
        told.control.random_changes(40, 2)
        for process in both:
            worker.finish(process)
        deliver(told)
    told.settle()

    told.assert_true()
    assert waiting(told) == 0
