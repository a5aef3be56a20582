"""The sandbox's answers have the shapes of the recorded samples."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from twm_pipeline.sandbox import Sandbox
from twm_pipeline_tests.sandbox.clients import FULL, V3, MissiveClient, TeamworkClient

SAMPLES = Path(__file__).parent.parent / "samples"
Shape = dict[str, set[str]]

# What the few rows of the samples happen not to show, though the fact sheets say it can be.
ALSO = (
    (r"tasks\[\]\.(updatedBy|createdBy|tasklist)", "null"),
    (r"comments\[\]\.(project|postedBy|author)", "null"),
    (r"comments\[\]\.(lastEditedBy|deletedBy)", "number"),
    (r"comments\[\]\.(dateLastEdited|dateDeleted)", "string"),
    (r"tags\.\*\.project|comments\[\]\.task|comments\[\]\.attachment", "object"),
    (r"attachment\.(filename|extension)|task\.completed_at", "null"),
    (r"attachment\.(width|height)|task\.completed_at", "number"),
    (r"messages(\[\])?\.(from_field|email_message_id|body|subject)", "null"),
    (r"messages(\[\])?\.conversation\.(team|subject)", "null"),
)
# Senders and recipients of other channels have other keys; a list without side-loads may lack the map.
OPTIONAL = re.compile(r"(from_field|to_fields\[\]|authors\[\])\.\w+$|^included(\.\w+)?$")


def load(name: str) -> Any:
    return json.loads((SAMPLES / name).read_text(encoding="utf-8"))


def kind_of(value: Any) -> str:
    kinds = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
    return kinds.get(type(value), "number")


def collect(value: Any, path: str, types: Shape, keys: dict[str, list[set[str]]]) -> None:
    """Note the types and keys seen at every path; ids as keys count as one path."""
    types.setdefault(path, set()).add(kind_of(value))
    if isinstance(value, list):
        for item in value:
            collect(item, f"{path}[]", types, keys)
    elif isinstance(value, dict):
        names = {re.sub(r"^\d+$", "*", key) for key in value}
        keys.setdefault(path, []).append(names)
        for key, item in value.items():
            name = re.sub(r"^\d+$", "*", key)
            collect(item, f"{path}.{name}" if path else name, types, keys)


def shape(*values: Any) -> tuple[Shape, dict[str, list[set[str]]]]:
    types: Shape = {}
    keys: dict[str, list[set[str]]] = {}
    for value in values:
        collect(value, "", types, keys)
    return types, keys


def differences(samples: list[Any], answer: Any) -> list[str]:
    """Return where an answer has other keys or types than all samples together."""
    types, keys = shape(*samples)
    answered_types, answered_keys = shape(answer)
    found = []
    for path, seen in answered_types.items():
        if path not in types:
            continue  # Reported as a key, or an empty list in the sample.
        extra = seen - types[path] - {kind for pattern, kind in ALSO if re.search(f"({pattern})$", path)}
        if extra:
            found.append(f"{path}: {sorted(extra)} where samples have {sorted(types[path])}")
    for path, rows in answered_keys.items():
        if path not in keys or "*" in set.union(*keys[path]):
            continue
        known, required = set.union(*keys[path]), set.intersection(*keys[path])
        for row in rows:
            wrong = (row - known) | (required - row)
            wrong = {key for key in wrong if not OPTIONAL.search(f"{path}.{key}" if path else key)}
            if wrong and not (path == "" and wrong == {"included"}):
                found.append(f"{path}: keys {sorted(wrong)}")
    return sorted(set(found))


TEAMWORK = {
    "tasks.json": (["tasks.list.page1.json", "tasks.list.page2.last.json", "tasks.list.empty.json"], "tasks"),
    "projects.json": (["projects.list.json"], "projects"),
    "tasklists.json": (["tasklists.list.json"], "tasklists"),
    "people.json": (["people.list.json"], "people"),
    "tags.json": (["tags.list.json"], "tags"),
    "companies.json": (["companies.list.json"], "companies"),
    "comments.json": (["comments.list.json"], "comments"),
    "time.json": (["time.list.json"], "timelogs"),
    "latestactivity.json": (["latestactivity.list.json"], "activities"),
}


@pytest.mark.parametrize(
    ("path", "samples", "name"), [(k, *v) for k, v in TEAMWORK.items()], ids=list(TEAMWORK)
)
def test_a_teamwork_list_has_the_shape_of_its_samples(teamwork: TeamworkClient, path, samples, name) -> None:
    params = FULL | {"showDeleted": "true", "showCompleted": "true"}

    answer = teamwork.v3(path, **params, include="projects,tasklists,users,companies,teams,tags")

    assert answer[name]
    assert differences([load(f"teamwork/{item}") for item in samples], answer) == []


def test_a_single_task_has_the_shape_of_its_sample(teamwork: TeamworkClient) -> None:
    sample = load("teamwork/task.get.json")
    lists = [load("teamwork/tasks.list.page1.json"), load("teamwork/tasks.list.page2.last.json")]
    rows = [row for item in lists for row in item["tasks"]]

    answer = teamwork.v3("tasks/1000002.json", include="projects,tasklists,users,companies,teams,tags")

    assert differences([sample, *({"task": row, "included": {}} for row in rows)], answer) == []


def test_me_and_version_1_teams_have_the_shape_of_their_samples(teamwork: TeamworkClient) -> None:
    assert differences([load("teamwork/me.get.json")], teamwork.v3("me.json")) == []
    assert differences([load("teamwork/teams.v1.list.json")], teamwork.json("/teams.json")) == []


@pytest.mark.parametrize(
    ("path", "params", "sample", "status"),
    [
        ("tasks/1.json", {}, "error.404.assumed", 404),
        ("tasks.json", {"updatedAfter": "nonsense"}, "error.422.assumed", 422),
    ],
    ids=["404", "422"],
)
def test_a_teamwork_error_equals_its_sample(teamwork: TeamworkClient, path, params, sample, status) -> None:
    response = teamwork.get(f"{V3}/{path}", **params)

    assert response.status_code == status
    assert response.json() == load(f"teamwork/{sample}.json")


def test_a_wrong_key_is_answered_like_the_samples_without_budget_headers(
    box: Sandbox, teamwork: TeamworkClient, missive: MissiveClient
) -> None:
    teamwork.session.auth = ("wrong", "x")
    missive.session.headers["Authorization"] = "Bearer wrong"

    refused = teamwork.get(f"{V3}/tasks.json"), missive.get("/users")

    assert [response.status_code for response in refused] == [401, 401]
    assert refused[0].json() == load("teamwork/error.401.json")
    assert refused[1].json() == load("missive/error.401.json")
    assert not [name for response in refused for name in response.headers if "rate" in name.lower()]
    assert all("Date" in response.headers for response in refused)


def test_a_429_equals_the_samples(box: Sandbox, teamwork: TeamworkClient, missive: MissiveClient) -> None:
    for vendor in ("teamwork", "missive"):
        box.control.add_fault(vendor, "429")

    answers = {"teamwork": teamwork.get(f"{V3}/me.json"), "missive": missive.get("/users")}

    for vendor, answer in answers.items():
        assert answer.status_code == 429
        assert answer.json() == load(f"{vendor}/error.429.assumed.json")
        headers = load(f"{vendor}/error.429.assumed.headers.json")["headers"]
        assert set(headers) <= {name.title().replace("Ratelimit", "RateLimit") for name in answer.headers}


@pytest.mark.parametrize("mailbox", ["all", "trashed", "inbox", "closed"])
def test_a_mailbox_has_the_shape_of_its_samples(missive: MissiveClient, mailbox: str) -> None:
    names = ["page1", "page2.inclusive-overlap", "trashed", "same-timestamp-last-page"]
    samples = [load(f"missive/conversations.list.{name}.json") for name in names]
    samples.append(load("missive/conversation.get.json"))

    answer = missive.json("/conversations", **{mailbox: "true"}, limit=50)

    assert answer["conversations"]
    assert differences(samples, answer) == []


def test_messages_have_the_shape_of_their_samples(missive: MissiveClient) -> None:
    full = [load("missive/message.get.json"), load("missive/message.get.sms.json")]
    several = [load("missive/messages.get.multi.json"), {"messages": [item["messages"] for item in full]}]
    full += [{"messages": item} for item in several[0]["messages"]]
    stubs = [load("missive/conversation.messages.list.json")]
    stubs.append({"messages": [without_body(item["messages"]) for item in full]})

    for row in missive.conversations()[:40]:
        listed = missive.json(f"/conversations/{row['id']}/messages")
        assert differences(stubs, listed) == []
        ids = [item["id"] for item in listed["messages"]]
        if ids:
            assert differences(full, missive.json(f"/messages/{ids[0]}")) == []
        if len(ids) > 1:
            assert differences(several, missive.json(f"/messages/{','.join(ids[:10])}")) == []


def without_body(message: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in message.items() if key not in ("body", "conversation")}


@pytest.mark.parametrize("name", ["users", "teams", "organizations", "shared_labels"])
def test_a_missive_directory_has_the_shape_of_its_sample(missive: MissiveClient, name: str) -> None:
    assert differences([load(f"missive/{name}.list.json")], missive.json(f"/{name}")) == []


def test_comments_and_posts_have_the_shape_of_their_samples(missive: MissiveClient) -> None:
    for row in missive.conversations():
        comments = missive.json(f"/conversations/{row['id']}/comments")
        assert differences([load("missive/conversation.comments.list.json")], comments) == []
        posts = missive.json(f"/conversations/{row['id']}/posts")
        assert differences([load("missive/conversation.posts.list.json")], posts) == []


@pytest.mark.parametrize(
    ("path", "params", "status", "sample"),
    [
        ("/conversations", {}, 400, "error.400.no-mailbox"),
        ("/conversations/00000000-0000-4000-8000-000000000000", {}, 404, "error.404.assumed"),
    ],
    ids=["no mailbox", "404"],
)
def test_a_missive_error_equals_its_sample(missive: MissiveClient, path, params, status, sample) -> None:
    response = missive.get(path, **params)

    assert response.status_code == status
    assert response.json() == load(f"missive/{sample}.json")
