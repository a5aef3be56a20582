"""The control plane: changes, truth, counters, the clock, the switches."""

from __future__ import annotations

import inspect
import time
from typing import Any

import pytest
import requests

from twm_pipeline.sandbox import ALL_ANSWERS, Sandbox, SandboxControl, SandboxError
from twm_pipeline_tests.sandbox.clients import FULL, MissiveClient, TeamworkClient
from twm_pipeline_tests.sandbox.conftest import Start

SWITCHES = [(name, value) for name, values in ALL_ANSWERS.items() for value in values]


@pytest.fixture(scope="module")
def shared() -> Any:
    with Sandbox() as box:
        yield box


def test_every_switch_takes_every_listed_value_and_no_other(shared: Sandbox) -> None:
    for name, value in SWITCHES:
        shared.control.set_answer(name, value)
        assert shared.control.status()["answers"][name] == value
    for name, values in ALL_ANSWERS.items():
        shared.control.set_answer(name, values[0])
        with pytest.raises(SandboxError, match="cannot be"):
            shared.control.set_answer(name, "nonsense")
    with pytest.raises(SandboxError, match="unknown switch"):
        shared.control.set_answer("teamwork.nonsense", True)


@pytest.mark.parametrize(("name", "value"), SWITCHES)
def test_both_vendors_answer_under_every_switch(shared: Sandbox, name: str, value: Any) -> None:
    shared.control.set_answer(name, value)

    with TeamworkClient(shared) as teamwork, MissiveClient(shared) as missive:
        rows = teamwork.v3("tasks.json", **(FULL | SORTED))["tasks"]
        conversations = missive.conversations()
        shared.control.random_changes(3, seed=1)

    shared.control.set_answer(name, ALL_ANSWERS[name][0])
    assert rows
    assert conversations


SORTED = {"orderBy": "updatedat", "include": "projects,tasklists,users", "showDeleted": "true"}


def test_the_client_has_a_method_for_every_action(box: Sandbox) -> None:
    methods = {name for name, _ in inspect.getmembers(SandboxControl, inspect.isfunction)}

    assert set(box.world.control.actions) - methods == set()


def test_a_task_lives_through_everything(box: Sandbox, teamwork: TeamworkClient) -> None:
    control = box.control
    task_id = control.create_task("new", list_id=700_001, due="2026-04-01", assignees=[("teams", 400_001)])
    control.edit_task(task_id, name="edited", description="<b>x</b>", html=True)
    tag = control.create_tag("fresh")
    control.tag_task(task_id, tag)
    control.assign_task(task_id, [("users", 300_002), ("companies", 200_002)])
    control.complete_task(task_id)
    completed = teamwork.task(task_id)
    control.reopen_task(task_id)
    control.untag_task(task_id, tag)
    control.assign_task(task_id, None)
    reopened = teamwork.task(task_id)

    assert (completed["name"], completed["status"], completed["progress"]) == ("edited", "completed", 100)
    assert (completed["tagIds"], completed["assigneeUserIds"]) == ([tag], [300_002])
    assert completed["completedAt"] is not None
    assert (reopened["status"], reopened["completedAt"], reopened["assignees"]) == ("reopened", None, None)
    assert not reopened["tags"]


def test_a_sub_task_shows_on_its_parent(box: Sandbox, teamwork: TeamworkClient) -> None:
    parent = box.control.create_task("parent", list_id=700_001)
    teamwork.task(parent)

    child = box.control.create_task("child", list_id=700_001, parent_id=parent)

    assert teamwork.task(parent)["subTaskIds"] == [child]
    assert teamwork.task(child)["parentTask"] == {"id": parent, "type": "tasks"}


def test_a_moved_task_is_of_another_project(box: Sandbox, teamwork: TeamworkClient) -> None:
    project = box.control.create_project("elsewhere")
    other = box.control.create_tasklist("list", project)
    task_id = box.control.create_task("mover", list_id=700_001)

    box.control.move_task(task_id, other)

    assert task_id in {row["id"] for row in teamwork.v3(f"projects/{project}/tasks.json")["tasks"]}
    with pytest.raises(SandboxError, match="KeyError"):
        box.control.move_task(task_id, 1)


def test_renames_and_deletions_in_the_directories(box: Sandbox, teamwork: TeamworkClient) -> None:
    control = box.control
    control.rename_project(500_001, "P")
    control.rename_tasklist(700_001, "L")
    control.rename_person(300_002, "A", "B")
    control.rename_tag(900_001, "T")
    control.delete_person(300_003)
    control.delete_tag(900_002)
    task_id = control.create_task("hidden with its list", list_id=700_001)
    control.complete_tasklist(700_001)
    hidden = task_id in teamwork.ids()
    control.reopen_tasklist(700_001)

    assert teamwork.v3("projects/500001.json")["project"]["name"] == "P"
    assert teamwork.v3("tasklists/700001.json")["tasklist"]["name"] == "L"
    assert teamwork.v3("people/300002.json")["person"]["firstName"] == "A"
    tags = {row["id"]: row["name"] for row in teamwork.v3("tags.json", pageSize=500)["tags"]}
    assert (tags[900_001], 900_002 in tags) == ("T", False)
    assert not any(900_002 in (row["tagIds"] or ()) for row in teamwork.tasks(**FULL))
    assert 300_003 not in {row["id"] for row in teamwork.v3("people.json")["people"]}
    assert (hidden, task_id in teamwork.ids()) == (False, True)


def test_archiving_hides_and_unarchiving_returns(box: Sandbox, teamwork: TeamworkClient) -> None:
    task_id = box.control.create_task("x", list_id=700_001)

    box.control.archive_project(500_001)
    hidden = task_id not in teamwork.ids()
    box.control.archive_project(500_001, archived=False)

    assert hidden
    assert task_id in teamwork.ids()


def test_a_bulk_edit_gives_many_rows_one_second(box: Sandbox, teamwork: TeamworkClient) -> None:
    ids = box.control.bulk_edit(60, priority="low")

    rows = [row for row in teamwork.tasks(**FULL) if row["id"] in ids]

    assert len({row["updatedAt"] for row in rows}) == 1
    assert {row["priority"] for row in rows} == {"low"}


def test_rows_may_be_redated_for_good(box: Sandbox, teamwork: TeamworkClient, missive: MissiveClient) -> None:
    key = box.control.receive_mail()["conversation_id"]
    task_id = box.control.create_task("from the future")

    box.control.redate_task(task_id, 4_087_497_600)
    box.control.redate_conversation(key, 4_087_497_600)

    assert teamwork.task(task_id)["updatedAt"] == "2099-07-12T00:00:00Z"
    assert missive.conversations()[0]["id"] == key


def test_time_is_logged_and_deleted(box: Sandbox, teamwork: TeamworkClient) -> None:
    task_id = box.control.create_task("x", list_id=700_001)
    log = box.control.log_time(task_id, 30)
    found = teamwork.v3(f"tasks/{task_id}/time.json")["timelogs"]

    box.control.delete_time(log)

    assert [row["minutes"] for row in found] == [30]
    assert teamwork.v3(f"tasks/{task_id}/time.json")["timelogs"] == []


def test_a_conversation_lives_through_everything(box: Sandbox, missive: MissiveClient) -> None:
    control = box.control
    made = control.receive_mail(subject="First", body="<p>one</p>")
    key = made["conversation_id"]
    control.advance(1)
    control.reply(key, "<p>two</p>")
    note = control.comment(key, "note")
    control.edit_comment(key, note, "edited")
    label = control.create_label("Fresh, new")
    control.label(key, label)
    control.rename_label(label, "Renamed")
    control.close_conversation(key)
    closed = missive.conversation(key)
    control.receive_mail(key)
    reopened = missive.conversation(key)
    control.unlabel(key, label)
    control.junk(key)

    assert closed["users"][0]["closed"] is True
    assert closed["shared_label_names"] == "Renamed"
    assert (reopened["users"][0]["closed"], reopened["messages_count"]) == (False, 3)
    assert missive.children(key, "comments")[0]["body"] == "edited"
    replies = [row for row in missive.children(key, "messages") if row["author"]]
    assert replies[0]["in_reply_to"] == [missive.children(key, "messages")[-1]["email_message_id"]]
    assert missive.conversation(key)["shared_labels"] == []
    assert key in missive.walk("junked")


def test_what_cannot_be_done_is_refused_in_words(box: Sandbox) -> None:
    impossible: list[tuple[str, dict[str, Any]]] = [
        ("nonsense", {}),
        ("edit_task", {"task_id": 1_000_001, "nonsense": 1}),
        ("set_flag", {"conversation_id": "x", "flag": "nonsense"}),
        ("advance", {"seconds": -1}),
        ("create_task", {}),
    ]
    for action, fields in impossible:
        with pytest.raises(SandboxError, match=action):
            box.control.do(action, **fields)


def test_random_changes_are_alike_for_equal_accounts(start: Start) -> None:
    first, second = start(), start()

    made = [box.control.random_changes(150, seed=3) for box in (first, second)]

    assert made[0] == made[1]
    assert sum(made[0].values()) == 150
    assert len(made[0]) > 15
    names = [[row["name"] for row in box.control.truth("task")] for box in (first, second)]
    assert names[0] == names[1]
    only = first.control.random_changes(20, seed=4, vendor="missive")
    assert "edit_task" not in only


def test_after_a_storm_the_lists_still_equal_the_truth(box: Sandbox) -> None:
    box.control.random_changes(400, seed=11)
    truth = list(box.control.truth())

    with TeamworkClient(box) as teamwork, MissiveClient(box) as missive:
        tasks, trashed, everything = teamwork.ids(**FULL), missive.walk("trashed"), missive.walk("all")
        sorted_ids = teamwork.ids(**FULL, orderBy="updatedat")

    rows = [row for row in truth if row["kind"] == "task"]
    assert tasks == sorted_ids == {row["id"] for row in rows if row["visible"] and not row["deleted"]}
    conversations = {row["id"]: row for row in truth if row["kind"] == "conversation"}
    assert set(trashed) == {key for key, row in conversations.items() if row["trashed"]}
    assert set(everything) == {
        key for key, row in conversations.items() if not row["trashed"] and not row["junked"]
    }
    messages = {row["id"]: row for row in truth if row["kind"] == "message"}
    assert set(messages) == {
        key for row in conversations.values() for key in row["message_ids"] + row["draft_ids"]
    }


def test_the_truth_is_the_same_here_and_over_http(box: Sandbox) -> None:
    assert [row["kind"] for row in box.truth()] == [row["kind"] for row in box.control.truth()]
    assert {row["kind"] for row in box.truth()} == {
        *("task", "project", "tasklist", "person", "tag", "company", "team", "task_comment", "timelog"),
        *("conversation", "message", "comment", "user", "label", "missive_team"),
    }


def test_requests_are_counted_per_endpoint_and_logged(box: Sandbox) -> None:
    with TeamworkClient(box) as teamwork, MissiveClient(box) as missive:
        teamwork.task(min(teamwork.ids()))
        teamwork.status("tasks/1.json")
        missive.conversation(missive.conversations()[0]["id"])

    vendors = box.control.status()["vendors"]
    assert vendors["teamwork"]["endpoints"] == {
        "GET /projects/api/v3/tasks.json": 1,
        "GET /projects/api/v3/tasks/{id}.json": 2,
    }
    assert vendors["teamwork"]["statuses"] == {"200": 2, "404": 1}
    assert vendors["missive"]["endpoints"] == {"GET /conversations": 1, "GET /conversations/{id}": 1}
    log = box.control.requests()
    assert [row["at"] for row in log] == sorted(row["at"] for row in log)
    assert log[0]["query"] == "pageSize=500"
    assert len(box.control.requests("teamwork", since=2)) == 1
    box.control.reset_counters()
    assert box.control.request_count() == 0


def test_the_clock_advances_for_headers_and_changes(box: Sandbox, teamwork: TeamworkClient) -> None:
    before = box.control.status()["now"]

    after = box.control.advance(86_400)
    task_id = box.control.create_task("tomorrow")

    assert 86_400 <= after - before <= 86_405
    assert teamwork.task(task_id)["createdAt"] > time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(before))
    headers = requests.get(f"{box.url}/teamwork/", timeout=5).headers
    assert (
        headers["Date"] == time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(after)) or headers["Date"]
    )


def test_latency_can_be_set_while_running(box: Sandbox, teamwork: TeamworkClient) -> None:
    box.control.set_latency(0.2, "teamwork")
    began = time.monotonic()

    teamwork.v3("me.json")

    assert time.monotonic() - began >= 0.2


def test_the_account_changes_by_itself_when_asked_to(start: Start) -> None:
    box = start(changes_per_hour=72_000)
    before = list(box.control.truth())

    time.sleep(0.5)

    assert list(box.control.truth()) != before
