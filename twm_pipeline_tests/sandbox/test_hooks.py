"""Managing hooks at both vendors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import requests

from twm_pipeline.sandbox import Sandbox, SandboxError
from twm_pipeline_tests.sandbox.clients import MissiveClient, TeamworkClient
from twm_pipeline_tests.sandbox.receivers import Receiver

SAMPLES = Path(__file__).parent.parent / "samples"
URL = "https://sync.example.com/hooks/teamwork/task-created"


def load(name: str) -> Any:
    return json.loads((SAMPLES / name).read_text(encoding="utf-8"))


def webhook(**fields: Any) -> dict[str, Any]:
    return {"webhook": {"event": "TASK.CREATED", "url": URL, **fields}}


def hooks(client: TeamworkClient, path: str = "/webhooks.json", **params: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = client.json(path, **params)["webhooks"]
    return rows


def create(client: TeamworkClient, path: str = "/webhooks.json", **fields: Any) -> str:
    answer = client.send("POST", path, webhook(**fields))
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


@pytest.mark.parametrize("prefix", ["", "/projects/api/v1"])
def test_a_webhook_is_created_and_listed_as_in_the_samples(teamwork: TeamworkClient, prefix: str) -> None:
    request = load("teamwork/webhooks.create.request.json")

    created = teamwork.send("POST", f"{prefix}/webhooks.json", request)
    listed = teamwork.json(f"{prefix}/webhooks.json")

    assert created.status_code == 201
    assert created.json() == load("teamwork/webhooks.create.response.json")
    sample = load("teamwork/webhooks.list.json")
    assert listed == {"STATUS": "OK", "webhooks": sample["webhooks"][:1]}


def test_what_a_creation_leaves_out_takes_the_documented_defaults(
    box: Sandbox, teamwork: TeamworkClient
) -> None:
    create(teamwork)

    [hook] = box.control.hooks("teamwork")
    assert (hook["secret"], hook["version"]) == (None, "2")
    assert hook["content_type"] == "application/x-www-form-urlencoded"


def test_a_webhook_is_changed_paused_resumed_and_deleted(box: Sandbox, teamwork: TeamworkClient) -> None:
    key = create(teamwork)
    path = f"/webhooks/{key}"

    changed = teamwork.send("PUT", f"{path}.json", {"webhook": {"url": f"{URL}2", "token": "t"}})
    teamwork.send("PUT", f"{path}/pause.json")
    paused = hooks(teamwork)
    teamwork.send("PUT", f"{path}/resume.json")
    resumed = hooks(teamwork)
    secret = box.control.hooks()[0]["secret"]
    deleted = teamwork.send("DELETE", f"{path}.json")

    assert (changed.status_code, deleted.status_code, secret) == (200, 200, "t")
    assert paused == [{"id": key, "event": "TASK.CREATED", "url": f"{URL}2", "status": "PAUSED"}]
    assert resumed[0]["status"] == "ACTIVE"
    assert hooks(teamwork) == []
    assert teamwork.send("DELETE", f"{path}.json").status_code == 404


def test_webhooks_of_a_project_are_listed_with_it_alone(teamwork: TeamworkClient) -> None:
    key = create(teamwork, "/projects/500001/webhooks.json")

    assert hooks(teamwork) == []
    assert [row["id"] for row in hooks(teamwork, "/projects/500001/webhooks.json")] == [key]
    assert teamwork.get("/projects/1/webhooks.json").status_code == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (webhook(event="TASK.NONSENSE"), 422),
        (webhook(url="nonsense"), 422),
        (webhook(url=""), 422),
        (webhook(version="3"), 422),
        (webhook(contentType="text/xml"), 422),
        ({"webhook": []}, 422),
        ([], 422),
    ],
    ids=["event", "url", "no url", "version", "content type", "no object", "a list"],
)
def test_a_wrong_webhook_is_refused_in_the_shape_of_version_1(
    teamwork: TeamworkClient, body: Any, status: int
) -> None:
    answer = teamwork.send("POST", "/webhooks.json", body)

    assert answer.status_code == status
    assert (set(answer.json()), answer.json()["STATUS"]) == ({"STATUS", "MESSAGE"}, "Error")
    assert hooks(teamwork) == []


def test_events_that_only_a_site_has_are_refused_for_a_project(teamwork: TeamworkClient) -> None:
    body = webhook(event="USER.CREATED")

    assert teamwork.send("POST", "/projects/500001/webhooks.json", body).status_code == 422
    assert teamwork.send("POST", "/webhooks.json", body).status_code == 201


def test_a_second_hook_for_one_event_and_url_is_refused_unless_told_otherwise(
    box: Sandbox, teamwork: TeamworkClient
) -> None:
    create(teamwork)
    other = create(teamwork, event="TASK.UPDATED")

    refused = teamwork.send("POST", "/projects/500001/webhooks.json", webhook(event="task.created"))
    moved = teamwork.send("PUT", f"/webhooks/{other}.json", webhook())
    box.control.set_answer("teamwork.webhook_doubles", "accepted")
    accepted = teamwork.send("POST", "/webhooks.json", webhook())

    assert [answer.status_code for answer in (refused, moved, accepted)] == [422, 422, 201]


@pytest.mark.parametrize(
    ("case", "kept"), [("upper", "TASK.DELETED"), ("as_given", "task.deleted"), ("strict", None)]
)
def test_the_case_of_event_names(box: Sandbox, teamwork: TeamworkClient, case: str, kept: str | None) -> None:
    box.control.set_answer("teamwork.webhook_event_case", case)

    answer = teamwork.send("POST", "/webhooks.json", webhook(event="task.deleted"))

    assert answer.status_code == (201 if kept else 422)
    assert [row["event"] for row in hooks(teamwork)] == ([kept] if kept else [])


def test_the_list_may_be_paged(box: Sandbox, teamwork: TeamworkClient) -> None:
    keys = [create(teamwork, url=f"{URL}/{number}") for number in range(5)]
    assert "X-Pages" not in teamwork.get("/webhooks.json").headers
    box.control.set_answer("teamwork.webhook_page_size", 2)

    pages = [hooks(teamwork, page=number) for number in (1, 2, 3, 4)]

    assert [[row["id"] for row in page] for page in pages] == [keys[:2], keys[2:4], keys[4:], []]
    headers = teamwork.get("/webhooks.json").headers
    assert (headers["X-Page"], headers["X-Pages"], headers["X-Records"]) == ("1", "3", "5")


@pytest.mark.parametrize("status", [403, 422])
def test_webhooks_may_have_to_be_enabled_first(box: Sandbox, teamwork: TeamworkClient, status: int) -> None:
    box.control.set_answer("teamwork.webhooks_before_enabling", str(status))

    before = teamwork.send("POST", "/webhooks.json", webhook())
    teamwork.send("PUT", "/webhooks/enable.json")
    after = teamwork.send("POST", "/webhooks.json", webhook())

    assert (before.status_code, after.status_code) == (status, 201)


def test_webhooks_may_need_an_administrator(box: Sandbox, teamwork: TeamworkClient) -> None:
    box.control.set_answer("teamwork.webhooks_allowed", False)

    answers = [teamwork.get("/webhooks.json"), teamwork.send("PUT", "/webhooks/enable.json")]

    assert [answer.status_code for answer in answers] == [403, 403]
    assert answers[0].json()["STATUS"] == "Error"


def test_hook_requests_count_into_the_budget(box: Sandbox, teamwork: TeamworkClient) -> None:
    box.control.set_answer("teamwork.requests_per_minute", 1)
    box.control.set_budgets("on")

    create(teamwork)

    assert teamwork.get("/webhooks.json").status_code == 429
    assert box.control.status()["vendors"]["teamwork"]["endpoints"]["POST /webhooks.json"] == 1


def test_a_created_webhook_stays_though_its_answer_was_lost(box: Sandbox, teamwork: TeamworkClient) -> None:
    box.control.add_fault("teamwork", "reset_midway", path="webhooks")

    with pytest.raises(requests.RequestException):
        teamwork.send("POST", "/webhooks.json", webhook())

    assert len(hooks(teamwork)) == 1


def test_a_stalled_creation_still_has_its_body(box: Sandbox, teamwork: TeamworkClient) -> None:
    box.control.add_fault("teamwork", "stall", seconds=0.05)

    assert create(teamwork)


# Missive.


def hook(**fields: Any) -> dict[str, Any]:
    return {"hooks": {"type": "incoming_email", "url": "https://sync.example.com/h", **fields}}


def test_a_missive_hook_is_created_and_deleted(box: Sandbox, missive: MissiveClient) -> None:
    created = missive.send("POST", "/hooks", load("missive/hooks.create.request.json"))
    key = created.json()["hooks"]["id"]
    kept = box.control.hooks("missive")
    deleted = [missive.send("DELETE", f"/hooks/{key}").status_code for _ in range(2)]

    assert (created.status_code, set(created.json()["hooks"])) == (201, {"id"})
    assert (kept[0]["id"], set(kept[0]["filters"]), kept[0]["secret"]) == (key, {"organization"}, None)
    assert deleted == [200, 404]
    assert missive.get("/hooks").status_code == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (hook(type="label_change"), 422),
        (hook(url="nonsense"), 422),
        (hook(nonsense="s"), 400),
        ({}, 400),
    ],
    ids=["a type of rules", "url", "unknown parameter", "nothing"],
)
@pytest.mark.parametrize("shape", ["error", "errors", "message"])
def test_a_wrong_missive_hook_is_refused(
    box: Sandbox, missive: MissiveClient, body: Any, status: int, shape: str
) -> None:
    box.control.set_answer("missive.error_shape", shape)

    answer = missive.send("POST", "/hooks", body)

    assert (answer.status_code, list(answer.json())) == (status, [shape])


def test_a_creation_needs_the_content_type_of_json(missive: MissiveClient) -> None:
    answer = missive.session.post(f"{missive.base_url}/hooks", data=json.dumps(hook()), timeout=5)

    assert answer.status_code == 400


@pytest.mark.parametrize(("status", "created"), [(200, 201), (204, 201), (302, 422), (401, 422)])
def test_a_creation_may_be_validated(
    box: Sandbox, missive: MissiveClient, receiver: Receiver, status: int, created: int
) -> None:
    box.control.set_answer("missive.hook_validation", True)
    receiver.statuses(status)

    answer = missive.send("POST", "/hooks", hook(url=f"{receiver.url}/x"))

    assert answer.status_code == created
    assert [got.path for got in receiver.received] == ["/x"]
    assert len(box.control.hooks()) == (created == 201)


@pytest.mark.parametrize(("form", "body"), [("empty", b""), ("empty_object", b"{}"), ("rule", None)])
def test_a_rule_is_saved_when_its_address_answers(
    box: Sandbox, receiver: Receiver, form: str, body: bytes | None
) -> None:
    box.control.set_answer("missive.validation_body", form)

    rule = box.control.create_rule("label_change", receiver.url, "s")

    [got] = receiver.received
    assert "conversation" not in json.loads(got.body or b"{}")
    assert body is None or got.body == body
    assert got.headers["x-hook-signature"].startswith("sha256=")
    assert [row["id"] for row in box.control.hooks()] == [rule]
    box.control.delete_rule(rule)
    assert box.control.hooks() == []


def test_a_rule_is_refused_when_its_address_does_not_answer(box: Sandbox, receiver: Receiver) -> None:
    receiver.statuses(404)

    for kind, url in (
        ("label_change", receiver.url),
        ("label_change", "http://127.0.0.1:1"),
        ("label_change", "https://sync.example.com/h"),
        ("nonsense", receiver.url),
    ):
        with pytest.raises(SandboxError, match="create_rule"):
            box.control.create_rule(kind, url)

    assert box.control.hooks() == []


def test_the_api_does_not_delete_rules(box: Sandbox, missive: MissiveClient, receiver: Receiver) -> None:
    rule = box.control.create_rule("outgoing_email", receiver.url)

    assert missive.send("DELETE", f"/hooks/{rule}").status_code == 404


def test_a_public_address_is_reached_by_a_tunnel(box: Sandbox, receiver: Receiver) -> None:
    box.control.set_tunnel("https://sync.example.com", receiver.url)

    box.control.create_rule("new_comment", "https://sync.example.com/hooks/missive?a=b")

    assert [got.path for got in receiver.received] == ["/hooks/missive?a=b"]
    with pytest.raises(SandboxError, match="loopback"):
        box.control.set_tunnel("https://sync.example.com", "https://example.com")
