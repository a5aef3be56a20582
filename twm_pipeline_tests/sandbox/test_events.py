"""What fires, and what a delivery then says."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

import pytest

from twm_pipeline.sandbox import Sandbox
from twm_pipeline.sandbox.hooks import RULE_TYPES, TEAMWORK_EVENTS
from twm_pipeline_tests.sandbox.clients import TOKEN, MissiveClient, TeamworkClient
from twm_pipeline_tests.sandbox.receivers import Receiver
from twm_pipeline_tests.sandbox.test_samples import SAMPLES, differences

SECRET = "sample-missive-secret"
TASK_ID = 1_000_002


def load(name: str) -> Any:
    return json.loads((SAMPLES / name).read_text(encoding="utf-8"))


def signature(body: bytes, secret: str) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def test_the_samples_own_signatures_follow_the_same_recipe() -> None:
    for path in sorted(SAMPLES.glob("*/webhook.*.headers.json")):
        said = json.loads(path.read_text(encoding="utf-8"))
        name = path.name.removesuffix(".headers.json")
        body = next(
            item for item in (path.with_name(f"{name}{end}") for end in (".json", ".txt")) if item.exists()
        )
        signed = {key: value for key, value in said["headers"].items() if "Signature" in key}
        expected = signature(body.read_bytes(), said["signing_secret"]) if signed else None
        assert [value.removeprefix("sha256=") for value in signed.values()] == (
            [expected] if expected else []
        )


# Teamwork.


def everything(box: Sandbox) -> list[tuple[Callable[[], Any], list[str]]]:
    """Return every action with the events it fires, in order."""
    control = box.control
    made: dict[str, Any] = {}

    def keep(name: str, action: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: made.__setitem__(name, action())

    return [
        (keep("task", lambda: control.create_task("x", list_id=700_001)), ["TASK.CREATED"]),
        (lambda: control.edit_task(made["task"], name="y"), ["TASK.UPDATED"]),
        (lambda: control.assign_task(made["task"], None), ["TASK.UPDATED"]),
        (lambda: control.complete_task(made["task"]), ["TASK.COMPLETED"]),
        (lambda: control.reopen_task(made["task"]), ["TASK.REOPENED"]),
        (lambda: control.tag_task(made["task"], 900_001), ["TASK.TAGGED"]),
        (lambda: control.untag_task(made["task"], 900_001), ["TASK.UNTAGGED"]),
        (lambda: control.move_task(made["task"], 700_002), ["TASK.MOVED"]),
        (keep("comment", lambda: control.comment_task(made["task"], "c")), ["COMMENT.CREATED"]),
        (lambda: control.edit_task_comment(made["comment"], "d"), ["COMMENT.UPDATED"]),
        (lambda: control.delete_task_comment(made["comment"]), ["COMMENT.DELETED"]),
        (keep("time", lambda: control.log_time(made["task"], 90)), ["TIME.CREATED"]),
        (lambda: control.delete_time(made["time"]), ["TIME.DELETED"]),
        (lambda: control.delete_task(made["task"]), ["TASK.DELETED"]),
        (lambda: control.restore_task(made["task"]), []),
        (lambda: control.redate_task(made["task"], 1_700_000_000), []),
        (keep("project", lambda: control.create_project("p")), ["PROJECT.CREATED", "TASKLIST.CREATED"]),
        (lambda: control.rename_project(made["project"], "q"), ["PROJECT.UPDATED"]),
        (keep("list", lambda: control.create_tasklist("l", made["project"])), ["TASKLIST.CREATED"]),
        (lambda: control.rename_tasklist(made["list"], "m"), ["TASKLIST.UPDATED"]),
        (lambda: control.complete_tasklist(made["list"]), ["TASKLIST.COMPLETED"]),
        (lambda: control.reopen_tasklist(made["list"]), ["TASKLIST.REOPENED"]),
        (lambda: control.create_task("z", list_id=made["list"], fire=False), []),
        (lambda: control.delete_tasklist(made["list"]), ["TASKLIST.DELETED"]),
        (lambda: control.archive_project(made["project"]), ["PROJECT.ARCHIVED"]),
        (lambda: control.archive_project(made["project"], archived=False), []),
        (lambda: control.delete_project(made["project"]), ["PROJECT.DELETED"]),
        (lambda: control.delete_tag(900_002), []),
    ]


def test_every_action_fires_its_event(box: Sandbox, teamwork: TeamworkClient, receiver: Receiver) -> None:
    teamwork.subscribe(receiver.url, *sorted(TEAMWORK_EVENTS))
    actions = everything(box)
    expected = [event for _, events in actions for event in events]

    for action, _ in actions:
        action()
    box.control.wait_for_deliveries()

    assert [row["event"] for row in box.control.deliveries()] == expected
    assert sorted(got.path[1:] for got in receiver.received) == sorted(expected)


def test_a_silent_change_fires_nothing(box: Sandbox, teamwork: TeamworkClient, receiver: Receiver) -> None:
    teamwork.subscribe(receiver.url, "TASK.COMPLETED", "TASK.UPDATED")

    box.control.complete_task(TASK_ID, fire=False)
    box.control.edit_task(TASK_ID, name="silent", fire=False)

    assert box.control.deliveries() == []
    assert teamwork.task(TASK_ID)["name"] == "silent"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("teamwork.restore_fires", "UPDATED", ["TASK.UPDATED"]),
        ("teamwork.updated_fires_too", True, ["TASK.TAGGED", "TASK.UPDATED"]),
        ("teamwork.unarchive_fires", "UPDATED", ["PROJECT.UPDATED"]),
        ("teamwork.unarchive_fires", "REOPENED", ["PROJECT.REOPENED"]),
    ],
)
def test_what_fires_where_the_documentation_is_silent(
    box: Sandbox, teamwork: TeamworkClient, name: str, value: Any, expected: list[str]
) -> None:
    box.control.delete_task(TASK_ID)
    teamwork.subscribe("http://127.0.0.1:1", *sorted(TEAMWORK_EVENTS))
    box.control.set_answer(name, value)

    if "restore" in name:
        box.control.restore_task(TASK_ID)
    elif "updated" in name:
        box.control.tag_task(TASK_ID, 900_001)
    else:
        box.control.archive_project(500_001, archived=False)

    assert [row["event"] for row in box.control.deliveries()] == expected


def test_what_cannot_be_seen_and_other_projects_fire_nothing(
    box: Sandbox, teamwork: TeamworkClient, receiver: Receiver
) -> None:
    project = box.control.create_project("mine")
    task_list = box.control.create_tasklist("l", project)
    body = {"webhook": {"event": "TASK.CREATED", "url": receiver.url}}
    teamwork.send("POST", f"/projects/{project}/webhooks.json", body)

    inside = box.control.create_task("inside", list_id=task_list)
    box.control.create_task("elsewhere", list_id=700_001)
    box.control.create_task("hidden", list_id=task_list, hidden=True)
    box.control.set_project_access(project, accessible=False)
    box.control.create_task("no access", list_id=task_list)

    assert [row["object_id"] for row in box.control.deliveries()] == [inside]


def test_a_paused_hook_hears_nothing(box: Sandbox, teamwork: TeamworkClient, receiver: Receiver) -> None:
    [key] = teamwork.subscribe(receiver.url, "TASK.CREATED")
    teamwork.send("PUT", f"/webhooks/{key}/pause.json")
    box.control.create_task("unheard")
    teamwork.send("PUT", f"/webhooks/{key}/resume.json")

    task_id = box.control.create_task("heard")

    assert [row["object_id"] for row in box.control.deliveries()] == [task_id]


TEAMWORK_BODIES: dict[str, Callable[[Sandbox], Any]] = {
    "task-created": lambda box: box.control.create_task(
        "x",
        list_id=700_001,
        tag_ids=[900_001],
        assignees=[("users", 300_002)],
        start="2025-03-01",
        due="2025-03-21",
    ),
    "task-updated": lambda box: box.control.edit_task(TASK_ID, priority="high", start="2025-03-01"),
    "task-completed": lambda box: box.control.complete_task(TASK_ID),
    "tasklist-updated": lambda box: box.control.rename_tasklist(700_001, "x"),
    "project-archived": lambda box: box.control.archive_project(500_001),
    "comment-created": lambda box: box.control.comment_task(TASK_ID, "x"),
    "time-created": lambda box: box.control.log_time(TASK_ID, 90),
}


@pytest.mark.parametrize("name", TEAMWORK_BODIES)
def test_a_json_body_is_signed_and_has_the_keys_of_its_sample(
    box: Sandbox, teamwork: TeamworkClient, receiver: Receiver, name: str
) -> None:
    event = name.replace("-", ".").upper()
    teamwork.subscribe(receiver.url, event)

    TEAMWORK_BODIES[name](box)
    box.control.wait_for_deliveries()

    [got] = receiver.received
    sample, body = load(f"teamwork/webhook.{name}.v2.json"), json.loads(got.body)
    assert set(body) == set(sample)
    nullable = {"startDate", "dueDate", "priority", "taskId", "endDate"}
    for key, value in sample.items():
        assert not isinstance(value, dict) or set(body[key]) == set(value), key
    assert [
        row for row in differences([sample], body) if row.split(":")[0].split(".")[-1] not in nullable
    ] == []
    assert got.headers["x-projects-signature"] == signature(got.body, TOKEN)
    assert (got.headers["x-projects-event"], got.headers["content-type"]) == (event, "application/json")


@pytest.mark.parametrize(
    ("spelling", "keys"),
    [("id", {"id"}), ("ID", {"ID"}), ("object.id", {"task"})],
    ids=["id", "ID", "task.id"],
)
def test_the_body_of_a_deletion(
    box: Sandbox, teamwork: TeamworkClient, receiver: Receiver, spelling: str, keys: set[str]
) -> None:
    box.control.set_answer("teamwork.deletion_id", spelling)
    teamwork.subscribe(receiver.url, "TASK.DELETED")

    box.control.delete_task(TASK_ID)
    box.control.wait_for_deliveries()

    body = json.loads(receiver.received[0].body)
    assert set(body) == {"eventCreator", *keys}
    assert (body.get("task") or {}).get("id", body.get("id", body.get("ID"))) == TASK_ID


def test_forms_of_version_2_have_the_keys_of_their_samples(
    box: Sandbox, teamwork: TeamworkClient, receiver: Receiver
) -> None:
    for event in ("TASK.UPDATED", "TASK.DELETED"):
        body = {"webhook": {"event": event, "url": f"{receiver.url}/{event.lower()}"}}
        assert teamwork.send("POST", "/webhooks.json", body).status_code == 201

    box.control.edit_task(TASK_ID, name="größer & = %")
    box.control.delete_task(TASK_ID)
    box.control.wait_for_deliveries()

    for got in receiver.received:
        sample = SAMPLES / f"teamwork/webhook.{got.path[1:].replace('.', '-')}.v2-form.txt"
        fields = dict(parse_qsl(got.body.decode(), keep_blank_values=True))
        assert set(fields) == set(dict(parse_qsl(sample.read_text(), keep_blank_values=True)))
        assert fields.get("Task.Name", "größer & = %") == "größer & = %"
        assert got.headers["content-type"] == "application/x-www-form-urlencoded"
        assert "x-projects-signature" not in got.headers


def test_the_form_of_version_1(box: Sandbox, teamwork: TeamworkClient, receiver: Receiver) -> None:
    teamwork.subscribe(receiver.url, "TASK.UPDATED", "TASK.DELETED", version="1")

    box.control.edit_task(TASK_ID, name="x")
    box.control.delete_task(TASK_ID)
    box.control.wait_for_deliveries()

    bodies = {got.path[1:]: dict(parse_qsl(got.body.decode())) for got in receiver.received}
    assert set(bodies["TASK.UPDATED"]) == {"accountId", "event", "objectId", "userId", "projectId"}
    assert set(bodies["TASK.DELETED"]) == {"accountId", "event", "objectId", "userId"}
    assert bodies["TASK.DELETED"]["event"] == "TASK.DELETED"
    assert {body["objectId"] for body in bodies.values()} == {str(TASK_ID)}


def test_other_objects_as_forms(box: Sandbox, teamwork: TeamworkClient, receiver: Receiver) -> None:
    teamwork.subscribe(receiver.url, "TIME.CREATED", contentType="application/x-www-form-urlencoded")

    box.control.log_time(TASK_ID, 90)
    box.control.wait_for_deliveries()

    fields = dict(parse_qsl(receiver.received[0].body.decode()))
    assert (fields["Time.Hours"], fields["Time.Minutes"], fields["Time.TaskID"]) == ("1", "30", str(TASK_ID))
    assert fields["Time.Billable"] == "true"


def test_headers_that_may_be_missing(box: Sandbox, teamwork: TeamworkClient, receiver: Receiver) -> None:
    box.control.set_answer("teamwork.event_header", False)
    teamwork.subscribe(receiver.url, "TASK.UPDATED")

    box.control.bulk_edit(40)
    box.control.wait_for_deliveries()

    headers = [got.headers for got in receiver.received]
    assert not any("x-projects-event" in row for row in headers)
    assert sum("x-projects-delivery" in row for row in headers) == len(headers) // 20 >= 1


# Missive.


def happen(box: Sandbox, key: str) -> None:
    """Let everything happen in one conversation that fires something, and much that does not."""
    control = box.control
    label, user = control.create_label("Fresh"), next(control.truth("user"))["id"]
    control.reply(key)
    note = control.comment(key, "note")
    control.edit_comment(key, note, "edited")
    control.delete_comment(key, note)
    control.label(key, label)
    control.label(key, label)
    control.unlabel(key, label)
    control.assign(key, [user])
    control.trash(key)
    control.untrash(key)
    control.close_conversation(key)
    control.receive_mail(key, body="<p>again</p>", subject="S")
    control.close_conversation(key)
    control.reopen_conversation(key)


def test_every_action_of_missive_fires_its_rule(box: Sandbox, receiver: Receiver) -> None:
    key = box.control.receive_mail()["conversation_id"]
    for kind in RULE_TYPES:
        box.control.create_rule(kind, f"{receiver.url}/{kind}", SECRET)

    happen(box, key)
    box.control.wait_for_deliveries()

    expected = [
        *("outgoing_email", "new_comment", "label_change", "label_change", "assignment_change"),
        *("conversation_closed", "incoming_email", "conversation_reopened"),
        *("conversation_closed", "conversation_reopened"),
    ]
    rows = box.control.deliveries("missive")
    assert [row["event"] for row in rows] == expected
    assert {row["object_id"] for row in rows} == {key}
    for got in receiver.received:
        assert got.headers["x-hook-signature"] == f"sha256={signature(got.body, SECRET)}"


@pytest.mark.parametrize("kind", ["incoming_email", "new_comment", "label_change"])
def test_a_body_of_missive_has_the_shape_of_its_sample(box: Sandbox, receiver: Receiver, kind: str) -> None:
    attachment = {"filename": "a.pdf", "media_type": "application", "sub_type": "pdf", "size": 7}
    key = box.control.receive_mail()["conversation_id"]
    box.control.create_rule(kind, receiver.url, SECRET)
    receiver.received.clear()

    box.control.receive_mail(key, attachments=[attachment])
    box.control.comment(key, "x")
    box.control.label(key, box.control.create_label("Fresh"))
    box.control.wait_for_deliveries()

    [got] = receiver.received
    samples = [
        load(f"missive/webhook.{name}.json") for name in ("incoming_email", "new_comment", "label_change")
    ]
    [own] = [sample for sample in samples if sample["rule"]["type"] == kind]
    body = json.loads(got.body)
    assert set(body) == set(own)
    assert {name: set(value) for name, value in body.items()} == {
        name: set(value) for name, value in own.items()
    }
    assert body["rule"]["type"] == kind
    assert "body" not in body.get("message", {})


@pytest.mark.parametrize("answer", ["none", "unknown_key"])
def test_hooks_of_the_api_are_not_signed_with_a_key_we_know(
    box: Sandbox, missive: MissiveClient, receiver: Receiver, answer: str
) -> None:
    box.control.set_answer("missive.hook_signature", answer)
    missive.subscribe(receiver.url, "incoming_email")

    made = box.control.receive_mail(body="<p>x</p>")
    box.control.wait_for_deliveries()

    [got] = receiver.received
    body = json.loads(got.body)
    sample = load("missive/webhook.incoming_email.unsigned.json")
    assert (set(body), body["rule"]["description"]) == (set(sample), sample["rule"]["description"])
    assert (body["conversation"]["id"], body["message"]["id"]) == tuple(made.values())
    assert ("x-hook-signature" in got.headers) is (answer == "unknown_key")


@pytest.mark.parametrize(
    ("filters", "heard"),
    [
        ({"content_contains": "STEEL"}, True),
        ({"content_contains": "wood"}, False),
        ({"subject_contains": "offer", "from_eq": "clara.vogt@customer.example.com"}, True),
        ({"organization": "00000000-0000-4000-8000-000000000000"}, False),
        ({"is_task": True}, False),
    ],
    ids=["content", "other content", "subject and sender", "another organisation", "tasks only"],
)
def test_filters_narrow_a_hook(
    box: Sandbox, missive: MissiveClient, receiver: Receiver, filters: dict[str, Any], heard: bool
) -> None:
    missive.subscribe(receiver.url, "incoming_email", **filters)

    box.control.receive_mail(subject="An offer", body="<p>steel</p>")

    assert len(box.control.deliveries()) == heard


def test_a_conversation_that_cannot_be_seen_fires_nothing(
    box: Sandbox, missive: MissiveClient, receiver: Receiver
) -> None:
    key = box.control.receive_mail()["conversation_id"]
    missive.subscribe(receiver.url, "incoming_email")
    box.control.set_conversation_access(key, accessible=False)

    box.control.receive_mail(key)

    assert box.control.deliveries() == []
