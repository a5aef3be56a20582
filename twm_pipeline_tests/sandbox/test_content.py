"""Generated content is repeatable; real content is mapped as docs/sandbox.md says."""

from __future__ import annotations

import gzip
import html
import json
import os
import time
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from twm_pipeline.sandbox import Sandbox, SandboxOptions
from twm_pipeline_tests.sandbox.clients import FULL, MissiveClient, TeamworkClient
from twm_pipeline_tests.sandbox.conftest import ANCHOR, Start

ROOT = Path(__file__).resolve().parent.parent.parent
DATA = Path(os.environ.get("TWM_SHARED_DATA", ROOT.parent / "shared" / "data"))
NAMESPACE = uuid.UUID("b2f8f0a4-6c1d-5b3e-9a57-3d1f0c6e8a21")

needs_data = pytest.mark.skipif(
    not (DATA / "tasks.jsonl.gz").is_file(),
    reason="no real content beside the checkout: set TWM_SHARED_DATA to its folder",
)


def test_equal_seeds_and_anchors_give_equal_bytes(start: Start) -> None:
    first, second, other = start(seed=3), start(seed=3), start(seed=4)

    bodies = []
    for box in (first, second, other):
        with TeamworkClient(box) as teamwork:
            bodies.append(teamwork.get("/projects/api/v3/tasks.json", **FULL, include="users,tags").content)
    truths = [[json.dumps(row) for row in box.truth()] for box in (first, second, other)]

    assert bodies[0] == bodies[1] != bodies[2]
    assert truths[0] == truths[1] != truths[2]


@pytest.mark.parametrize(("tasks", "conversations"), [(0, 0), (1, 1), (7, 12)])
def test_small_accounts_work(start: Start, tasks: int, conversations: int) -> None:
    box = start(tasks=tasks, conversations=conversations)

    rows = list(box.truth())

    assert sum(row["kind"] == "task" for row in rows) == tasks
    assert sum(row["kind"] == "conversation" for row in rows) == conversations
    box.control.random_changes(20, seed=1)


def test_nothing_generated_lies_after_the_anchor(box: Sandbox) -> None:
    end = ANCHOR.timestamp()

    for row in box.truth():
        times = [row.get(name) for name in ("created_at", "updated_at", "last_activity_at", "delivered_at")]
        assert all(value is None or value <= end for value in times), row["kind"]


def test_a_parent_lies_in_the_list_of_its_sub_task(box: Sandbox) -> None:
    tasks = {row["id"]: row for row in box.truth() if row["kind"] == "task"}

    children = [row for row in tasks.values() if row["parent_id"]]

    assert children
    assert all(tasks[row["parent_id"]]["list_id"] == row["list_id"] for row in children)


def make_id(name: str) -> str:
    return str(uuid.uuid5(NAMESPACE, name))


def read(name: str) -> list[dict[str, Any]]:
    with gzip.open(DATA / name, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def loaded() -> Any:
    began = time.monotonic()
    with Sandbox(SandboxOptions(data_dir=DATA)) as box:
        assert time.monotonic() - began < 15
        yield box


@needs_data
def test_every_task_of_the_files_is_served(loaded: Sandbox) -> None:
    files = read("tasks.jsonl.gz")
    served: dict[int, dict[str, Any]] = {}
    with TeamworkClient(loaded) as teamwork:
        for page in range(1, 100):
            answer = teamwork.v3(
                "tasks.json", **(FULL | {"page": page}), include="tasklists,projects,tags,users"
            )
            included = answer["included"]
            for row in answer["tasks"]:
                served[row["id"]] = row | {"names": names_of(row, included)}
            if not answer["meta"]["page"]["hasMore"]:
                break

    assert len(served) == len(files)
    ids = {row["id"]: 1_000_001 + line for line, row in enumerate(files)}
    for line, source in enumerate(files):
        row = served[1_000_001 + line]
        assert (row["name"], row["description"]) == (source["title"], source["description"])
        assert row["names"] == {
            "project": source["project"],
            "tasklist": source["tasklist"] or "General tasks",
            "tags": list(dict.fromkeys(source["tags"])),
            "assignees": [name.strip() for name in source["assignees"]],
        }
        assert row["parentTaskId"] == ids.get(source["parent"], 0)
        assert row["createdAt"] == source["created_at"]
        assert row["updatedAt"] == (source["updated_at"] or source["created_at"])
        assert row["completedAt"] == source["completed_at"] or source["completed_at"] is None
        assert (row["dueDate"] or "")[:10] == (source["due_at"] or "")[:10]


def names_of(row: dict[str, Any], included: dict[str, Any]) -> dict[str, Any]:
    task_list = included["tasklists"][str(row["tasklistId"])]
    people = [included["users"][str(key)] for key in row["assigneeUserIds"]]
    return {
        "project": included["projects"][str(task_list["projectId"])]["name"],
        "tasklist": task_list["name"],
        "tags": [included["tags"][str(key)]["name"] for key in row["tagIds"]],
        "assignees": [f"{person['firstName']} {person['lastName']}".strip() for person in people],
    }


@needs_data
def test_every_message_of_the_files_is_served(loaded: Sandbox) -> None:
    files = read("emails.jsonl.gz")
    with MissiveClient(loaded) as missive:
        conversations = missive.walk("all")
        sample = range(0, len(files), 40)
        served = {
            line: missive.json(f"/messages/{make_id(f'message/{line}')}")["messages"] for line in sample
        }

    times: dict[str, list[int]] = {}
    for line, source in enumerate(files):
        at = 1_600_000_000 + line if source["date"] is None else source["date"]
        times.setdefault(make_id(f"conversation/{source['thread_key']}"), []).append(at)
    assert set(conversations) == set(times)
    assert all(row["last_activity_at"] == max(times[key]) for key, row in conversations.items())
    for line, row in served.items():
        source = files[line]
        body = source["body_html"]
        if body is None and source["body_text"] is not None:
            body = f"<pre>{html.escape(source['body_text'], quote=False)}</pre>"
        assert (row["subject"], row["body"]) == (source["subject"], body)
        assert row["conversation"]["id"] == make_id(f"conversation/{source['thread_key']}")
        assert [item["filename"] for item in row["attachments"]] == [
            item["filename"] for item in source["attachments"]
        ]
        assert set(source["labels"]) <= {item["name"] for item in row["conversation"]["shared_labels"]}


@needs_data
def test_the_comments_of_tasks_are_comments_of_both_vendors(loaded: Sandbox) -> None:
    tasks = [(line, row) for line, row in enumerate(read("tasks.jsonl.gz")) if row["comments"]]
    threads = list(dict.fromkeys(row["thread_key"] for row in read("emails.jsonl.gz")))

    with TeamworkClient(loaded) as teamwork, MissiveClient(loaded) as missive:
        # More tasks have comments than there are threads: the last case begins with the first thread again.
        for k in (0, 17, 500, len(threads) + 1):
            line, task = tasks[k]
            thread = threads[k % len(threads)]
            every = missive.children(make_id(f"conversation/{thread}"), "comments")
            own = {make_id(f"comment/{line}/{n}") for n in range(len(task["comments"]))}
            notes = [note for note in every if note["id"] in own]
            rows = teamwork.v3(f"tasks/{1_000_001 + line}/comments.json", pageSize=500)["comments"]
            expected = {make_id(f"comment/{line}/{n}"): row for n, row in enumerate(task["comments"])}

            assert [row["body"] for row in rows] == [row["body"] for row in task["comments"]]
            assert {row["id"]: row["body"] for row in notes} == {
                key: row["body"] for key, row in expected.items()
            }
            assert {row["created_at"] for row in notes} == {
                int(datetime.fromisoformat(row["created_at"]).timestamp()) for row in task["comments"]
            }
