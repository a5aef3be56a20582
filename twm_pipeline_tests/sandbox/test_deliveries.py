"""How deliveries travel: acceptance, retries, switching off, losses, repetitions, order."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest

from twm_pipeline.sandbox import Sandbox, SandboxError, SandboxOptions
from twm_pipeline_tests.sandbox.clients import MissiveClient, TeamworkClient
from twm_pipeline_tests.sandbox.conftest import Start
from twm_pipeline_tests.sandbox.receivers import Receiver

HOUR = 3600


def ids(receiver: Receiver) -> list[int]:
    """Return the tasks that were heard of, in order."""
    return [json.loads(got.body)["task"]["id"] for got in receiver.received]


def only(box: Sandbox) -> dict[str, Any]:
    [row] = box.control.deliveries()
    return row


def status(teamwork: TeamworkClient) -> str:
    [row] = teamwork.json("/webhooks.json")["webhooks"]
    return str(row["status"])


def test_a_delivery_is_logged_with_its_times(
    box: Sandbox, teamwork: TeamworkClient, receiver: Receiver
) -> None:
    [hook] = teamwork.subscribe(receiver.url, "TASK.CREATED")
    before = time.monotonic(), time.time()

    task_id = box.control.create_task("x")
    box.control.wait_for_deliveries()

    row = only(box)
    assert (row["vendor"], row["hook"], row["event"]) == ("teamwork", hook, "TASK.CREATED")
    assert (row["object_id"], row["state"], row["attempts"]) == (task_id, "delivered", 1)
    assert row["statuses"] == [200]
    assert before[0] <= row["changed_at"] <= row["sent_at"] <= row["answered_at"] <= time.monotonic()
    assert before[1] <= row["changed_time"] <= row["answered_time"] <= time.time()


def test_a_vendor_answers_while_a_delivery_waits(
    box: Sandbox, teamwork: TeamworkClient, receiver: Receiver
) -> None:
    teamwork.subscribe(receiver.url, "TASK.CREATED")
    receiver.answer = lambda _: 0

    task_id = box.control.create_task("x")

    assert teamwork.task(task_id)["id"] == task_id
    assert only(box)["state"] == "waiting"
    with pytest.raises(SandboxError, match="not all was delivered"):
        box.control.wait_for_deliveries(0.01)


@pytest.mark.parametrize(
    ("vendor", "answer", "accepted"),
    [
        ("teamwork", 200, True),
        ("teamwork", 201, False),
        ("teamwork", 204, False),
        ("teamwork", 302, False),
        ("teamwork", 500, False),
        ("missive", 201, True),
        ("missive", 204, True),
        ("missive", 302, False),
        ("missive", 500, False),
    ],
)
def test_which_answers_a_vendor_accepts(
    box: Sandbox, receiver: Receiver, vendor: str, answer: int, accepted: bool
) -> None:
    receiver.statuses(answer)
    with TeamworkClient(box) as teamwork, MissiveClient(box) as missive:
        if vendor == "teamwork":
            teamwork.subscribe(receiver.url, "TASK.CREATED")
            box.control.create_task("x")
        else:
            missive.subscribe(receiver.url, "incoming_email")
            box.control.receive_mail()
    box.control.wait_for_deliveries()

    row = only(box)
    assert (row["state"], row["statuses"]) == ("delivered" if accepted else "waiting", [answer])
    assert len(receiver.received) == 1
    assert box.control.status()["deliveries"]["retries"] == (not accepted)


def test_an_answer_that_is_late_is_none(box: Sandbox, teamwork: TeamworkClient, receiver: Receiver) -> None:
    teamwork.subscribe(receiver.url, "TASK.CREATED")
    receiver.answer = lambda _: 0
    box.control.set_deliveries(answer_seconds=0.05)

    box.control.create_task("x")
    box.control.wait_for_deliveries()

    assert (only(box)["state"], only(box)["statuses"]) == ("waiting", [0])


def test_the_documented_limits_are_5_and_15_seconds() -> None:
    from twm_pipeline.sandbox.deliveries import ANSWER_SECONDS  # noqa: PLC0415

    assert ANSWER_SECONDS == {"teamwork": 5.0, "missive": 15.0}


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x", "https://sync.example.com/x", "http://192.0.2.1/x"])
def test_nothing_leaves_the_machine(box: Sandbox, teamwork: TeamworkClient, url: str) -> None:
    teamwork.subscribe(url, "TASK.CREATED")

    box.control.create_task("x")
    box.control.wait_for_deliveries()

    assert only(box)["statuses"] == [0]


def test_teamwork_tries_again_each_hour_three_times_and_then_gives_up(
    box: Sandbox, teamwork: TeamworkClient, receiver: Receiver
) -> None:
    teamwork.subscribe(receiver.url, "TASK.CREATED")
    receiver.answer = lambda _: 500
    box.control.create_task("x")
    box.control.wait_for_deliveries()
    box.control.advance(HOUR - 60)
    box.control.wait_for_deliveries()
    early = only(box)["attempts"]

    for _ in range(5):
        box.control.advance(HOUR)
        box.control.wait_for_deliveries()

    assert early == 1
    assert (only(box)["state"], only(box)["statuses"]) == ("discarded", [500] * 4)
    assert len(receiver.received) == 4
    assert status(teamwork) == "ACTIVE"


def test_a_retry_repeats_the_body_of_the_moment_and_may_succeed(
    box: Sandbox, teamwork: TeamworkClient, receiver: Receiver
) -> None:
    teamwork.subscribe(receiver.url, "TASK.UPDATED")
    receiver.statuses(500)
    box.control.edit_task(1_000_002, name="then")
    box.control.wait_for_deliveries()

    box.control.edit_task(1_000_002, name="now", fire=False)
    box.control.advance(HOUR)
    box.control.wait_for_deliveries(retries=True)

    first, second = receiver.received
    assert (first.body, first.headers) == (second.body, second.headers)
    assert json.loads(second.body)["task"]["name"] == "then"
    assert (only(box)["state"], only(box)["statuses"]) == ("delivered", [500, 200])


def test_waits_are_divided_by_the_time_scale(start: Start, receiver: Receiver) -> None:
    box = start(webhook_time_scale=HOUR / 0.05)
    with TeamworkClient(box) as teamwork:
        teamwork.subscribe(receiver.url, "TASK.CREATED")
    receiver.statuses(500, 500)

    box.control.create_task("x")
    box.control.wait_for_deliveries(retries=True)

    assert only(box)["statuses"] == [500, 500, 200]


def test_an_older_page_of_teamwork_has_other_waits(
    box: Sandbox, teamwork: TeamworkClient, receiver: Receiver
) -> None:
    box.control.set_answer("teamwork.webhook_retries", "minutes")
    teamwork.subscribe(receiver.url, "TASK.CREATED")
    receiver.answer = lambda _: 500
    box.control.create_task("x")

    for seconds in (60, 300, 600):
        box.control.wait_for_deliveries()
        box.control.advance(seconds)
    box.control.wait_for_deliveries(retries=True)

    assert (only(box)["state"], only(box)["attempts"]) == ("discarded", 4)


def discard(box: Sandbox, count: int) -> None:
    """Create tasks and let every attempt to tell of them pass."""
    for number in range(count):
        box.control.create_task(f"lost {number}")
    for _ in range(4):
        box.control.wait_for_deliveries()
        box.control.advance(HOUR)
    box.control.wait_for_deliveries(retries=True)


def test_three_discarded_deliveries_switch_a_webhook_off_until_it_is_resumed(
    box: Sandbox, teamwork: TeamworkClient, receiver: Receiver
) -> None:
    [hook] = teamwork.subscribe(receiver.url, "TASK.CREATED")
    receiver.answer = lambda _: 404
    discard(box, 2)
    after_two = status(teamwork)
    discard(box, 1)
    after_three = status(teamwork)
    receiver.answer = lambda _: 200
    box.control.create_task("nobody is told")
    teamwork.send("PUT", f"/webhooks/{hook}/resume.json")
    receiver.received.clear()

    task_id = box.control.create_task("told")
    box.control.wait_for_deliveries()

    assert (after_two, after_three) == ("ACTIVE", "INACTIVE")
    assert ids(receiver) == [task_id]
    assert status(teamwork) == "ACTIVE"


def test_retries_of_a_hook_that_was_deleted_or_switched_off_are_discarded(
    box: Sandbox, teamwork: TeamworkClient, receiver: Receiver
) -> None:
    [hook] = teamwork.subscribe(receiver.url, "TASK.CREATED")
    receiver.statuses(500)
    box.control.create_task("x")
    box.control.wait_for_deliveries()

    teamwork.send("DELETE", f"/webhooks/{hook}.json")
    box.control.advance(HOUR)
    box.control.wait_for_deliveries(retries=True)

    assert (only(box)["state"], len(receiver.received)) == ("discarded", 1)


def test_missive_tries_with_growing_waits_and_switches_nothing_off(
    box: Sandbox, missive: MissiveClient, receiver: Receiver
) -> None:
    missive.subscribe(receiver.url, "incoming_email")
    receiver.answer = lambda _: 500
    for _ in range(4):
        box.control.receive_mail()
    attempts = []
    for seconds in (30, 120, 600, 3600, 10_800):
        box.control.wait_for_deliveries()
        attempts.append(box.control.deliveries()[0]["attempts"])
        box.control.advance(seconds)
    box.control.wait_for_deliveries(retries=True)
    receiver.answer = lambda _: 200
    box.control.receive_mail()
    box.control.wait_for_deliveries()

    assert attempts == [1, 2, 3, 4, 5]
    assert [row["state"] for row in box.control.deliveries()] == ["discarded"] * 4 + ["delivered"]


def test_a_delivery_is_sent_again_on_request(
    box: Sandbox, teamwork: TeamworkClient, receiver: Receiver
) -> None:
    [hook] = teamwork.subscribe(receiver.url, "TASK.CREATED")
    task_id = box.control.create_task("x")
    box.control.wait_for_deliveries()
    path = f"/webhooks/{hook}/redeliver.json"

    answers = [teamwork.send("POST", path, {"uuid": key}) for key in (only(box)["id"], "unknown")]
    box.control.wait_for_deliveries()

    assert [answer.status_code for answer in answers] == [200, 404]
    assert ids(receiver) == [task_id, task_id]
    assert [row["copy"] for row in box.control.deliveries()] == [False, True]


def test_some_are_dropped_and_some_come_twice_alike_for_equal_seeds(start: Start, receiver: Receiver) -> None:
    logs = []
    for box in (start(), start()):
        with TeamworkClient(box) as teamwork:
            teamwork.subscribe(receiver.url, "TASK.UPDATED")
        box.control.set_deliveries(drop=0.2, double=0.2, seed=5)
        receiver.received.clear()
        box.control.bulk_edit(100)
        box.control.wait_for_deliveries()
        logs.append([(row["object_id"], row["state"], row["copy"]) for row in box.control.deliveries()])

    dropped = {task_id for task_id, state, _ in logs[0] if state == "dropped"}
    doubled = [task_id for task_id, _, copy in logs[0] if copy]
    assert logs[0] == logs[1]
    assert 5 < len(dropped) < 40
    assert 5 < len(doubled) < 40
    assert not dropped & set(ids(receiver))
    assert sorted(ids(receiver)) == sorted(
        [key for key, _, copy in logs[0] if not copy and key not in dropped] + doubled
    )


def test_some_overtake_others(box: Sandbox, teamwork: TeamworkClient, receiver: Receiver) -> None:
    teamwork.subscribe(receiver.url, "TASK.UPDATED")
    box.control.set_deliveries(reorder=0.5, at_once=1)

    box.control.bulk_edit(30)
    box.control.wait_for_deliveries()

    changed = [row["object_id"] for row in box.control.deliveries()]
    assert sorted(ids(receiver)) == sorted(changed)
    assert ids(receiver) != changed


def test_in_good_weather_one_at_a_time_keeps_the_order(
    box: Sandbox, teamwork: TeamworkClient, receiver: Receiver
) -> None:
    teamwork.subscribe(receiver.url, "TASK.UPDATED")
    box.control.set_deliveries(at_once=1)

    box.control.bulk_edit(30)
    box.control.wait_for_deliveries()

    assert ids(receiver) == [row["object_id"] for row in box.control.deliveries()]


def test_no_more_than_so_many_are_sent_at_once(
    box: Sandbox, teamwork: TeamworkClient, receiver: Receiver
) -> None:
    teamwork.subscribe(receiver.url, "TASK.CREATED")
    box.control.set_deliveries(at_once=3)
    together = threading.Barrier(3)
    lock, active, peaks = threading.Lock(), [0], [0]

    def answer(_: object) -> int:
        with lock:
            active[0] += 1
            peaks.append(active[0])
        together.wait(5)
        with lock:
            active[0] -= 1
        return 200

    receiver.answer = answer
    for number in range(9):
        box.control.create_task(f"{number}")
    box.control.wait_for_deliveries()

    assert max(peaks) == 3
    assert len(receiver.received) == 9


def test_a_delay_passes_with_the_clock(box: Sandbox, teamwork: TeamworkClient, receiver: Receiver) -> None:
    teamwork.subscribe(receiver.url, "TASK.CREATED")
    box.control.set_deliveries(delay_seconds=600)
    box.control.create_task("x")
    waiting = only(box)["state"]

    box.control.advance(600)
    box.control.wait_for_deliveries()

    assert (waiting, only(box)["state"]) == ("waiting", "delivered")


def test_a_deletion_can_be_held_until_after_the_restore(
    box: Sandbox, teamwork: TeamworkClient, receiver: Receiver
) -> None:
    teamwork.subscribe(receiver.url, "TASK.DELETED", "TASK.UPDATED")
    box.control.hold_deliveries("TASK.DELETED")
    box.control.delete_task(1_000_002)
    box.control.restore_task(1_000_002)
    box.control.edit_task(1_000_002, name="alive")
    box.control.wait_for_deliveries()
    before = [got.path for got in receiver.received]

    released = box.control.release_deliveries()
    box.control.wait_for_deliveries()

    assert (before, released) == (["/TASK.UPDATED"], 1)
    assert [got.path for got in receiver.received] == ["/TASK.UPDATED", "/TASK.DELETED"]


def test_everything_can_be_held(box: Sandbox, teamwork: TeamworkClient, receiver: Receiver) -> None:
    teamwork.subscribe(receiver.url, "TASK.UPDATED")
    box.control.hold_deliveries()
    box.control.bulk_edit(5)
    box.control.wait_for_deliveries()
    held = box.control.status()["deliveries"]["held"], len(receiver.received)

    box.control.release_deliveries()
    box.control.wait_for_deliveries()

    assert held == (5, 0)
    assert len(receiver.received) == 5


def test_a_time_scale_is_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        Sandbox(SandboxOptions(tasks=1, conversations=1, webhook_time_scale=0)).__enter__()


def test_unknown_weather_is_refused(box: Sandbox) -> None:
    with pytest.raises(SandboxError, match="nonsense"):
        box.control.set_deliveries(nonsense=1)


def test_counts_and_the_log_are_cut_as_asked(
    box: Sandbox, teamwork: TeamworkClient, receiver: Receiver
) -> None:
    teamwork.subscribe(receiver.url, "TASK.UPDATED")
    box.control.bulk_edit(4)
    box.control.wait_for_deliveries()

    state = box.control.status()
    rows = box.control.deliveries("teamwork", since=3)

    assert (state["hooks"], state["deliveries"]["states"]) == ({"teamwork": 1}, {"delivered": 4})
    assert [row["number"] for row in rows] == [4]
    assert box.control.deliveries("missive") == box.control.deliveries(state="dropped") == []
    assert [row["url"] for row in box.control.hooks()] == [f"{receiver.url}/TASK.UPDATED"]
    box.control.reset_counters()
    assert box.control.deliveries() == []


def test_a_storm_fires_webhooks_of_both_vendors(
    box: Sandbox, teamwork: TeamworkClient, missive: MissiveClient, receiver: Receiver
) -> None:
    teamwork.subscribe(receiver.url, "TASK.UPDATED", "TASK.CREATED", "TASK.DELETED")
    missive.subscribe(receiver.url, "incoming_email")
    box.control.set_deliveries(drop=0.05, double=0.05, reorder=0.1)

    made = box.control.random_changes(300, seed=3)
    box.control.wait_for_deliveries()

    rows = box.control.deliveries()
    first = [row["event"] for row in rows if not row["copy"]]
    assert first.count("incoming_email") == made["receive_mail"]
    assert first.count("TASK.DELETED") == made["delete_task"]
    sent = [row for row in rows if row["state"] != "dropped"]
    assert {row["state"] for row in sent} == {"delivered"}
    assert len(receiver.received) == len(sent)
