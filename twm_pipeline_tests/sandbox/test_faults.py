"""Every fault that can be injected, seen from the client."""

from __future__ import annotations

import json
import time
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
import requests

from twm_pipeline.sandbox import FAULT_KINDS, Sandbox, SandboxError
from twm_pipeline_tests.sandbox.clients import FULL, V3, MissiveClient, TeamworkClient

TASKS = f"{V3}/tasks.json"
SORTED: dict[str, Any] = FULL | {"orderBy": "updatedat", "pageSize": 20}


def test_a_fault_shows_as_often_as_told(box: Sandbox, teamwork: TeamworkClient) -> None:
    box.control.add_fault("teamwork", "503", count=2, after=1, path="tasks")

    statuses = [teamwork.status(path) for path in ("tasks.json", "me.json", *["tasks.json"] * 3)]

    assert statuses == [200, 200, 503, 503, 200]
    [fault] = box.control.status()["faults"]
    assert (fault["seen"], fault["fired"]) == (4, 2)
    assert box.control.status()["vendors"]["teamwork"]["faults"] == 2
    assert box.control.violations() == 0


def test_a_fault_may_show_by_chance(box: Sandbox, teamwork: TeamworkClient) -> None:
    box.control.add_fault("teamwork", "500", count=None, probability=0.5)

    statuses = [teamwork.status("me.json") for _ in range(60)]

    assert 15 < statuses.count(500) < 45
    box.control.clear_faults("missive")
    assert len(box.control.status()["faults"]) == 1
    box.control.clear_faults()
    assert teamwork.status("me.json") == 200


def test_a_fault_of_one_vendor_spares_the_other(box: Sandbox, missive: MissiveClient) -> None:
    box.control.add_fault("teamwork", "500", count=None)

    assert missive.get("/users").status_code == 200


@pytest.mark.parametrize(
    ("kind", "status"),
    [("500", 500), ("502", 502), ("503", 503), ("html_200", 200), ("html_404", 404), ("html_502", 502)],
)
def test_a_replaced_answer(box: Sandbox, missive: MissiveClient, kind: str, status: int) -> None:
    box.control.add_fault("missive", kind)

    answer = missive.get("/users")

    assert answer.status_code == status
    assert answer.headers["Content-Type"].startswith("text/html") is kind.startswith("html")


@pytest.mark.parametrize("form", ["seconds", "date", "none"])
def test_an_injected_429_says_when_to_return(box: Sandbox, teamwork: TeamworkClient, form: str) -> None:
    box.control.add_fault("teamwork", "429", retry_after=form, seconds=7)

    headers = teamwork.get(TASKS).headers

    if form == "date":
        waited = parsedate_to_datetime(headers["Retry-After"]) - parsedate_to_datetime(headers["Date"])
        assert 6 <= waited.total_seconds() <= 8
    else:
        assert headers.get("Retry-After") == (None if form == "none" else "7")


def test_a_reset_before_the_answer(box: Sandbox, teamwork: TeamworkClient) -> None:
    box.control.add_fault("teamwork", "reset")

    with pytest.raises(requests.ConnectionError):
        teamwork.get(TASKS)

    assert teamwork.status("me.json") == 200


def test_a_reset_in_the_middle_of_the_body(box: Sandbox, teamwork: TeamworkClient) -> None:
    box.control.add_fault("teamwork", "reset_midway")

    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        teamwork.get(TASKS, **FULL)

    assert [row["fault"] for row in box.control.requests("teamwork")] == ["reset_midway"]


def test_a_stall_lasts_until_the_client_gives_up(box: Sandbox, teamwork: TeamworkClient) -> None:
    box.control.add_fault("teamwork", "stall", seconds=0.3)
    box.control.add_fault("teamwork", "stall", seconds=30)
    began = time.monotonic()

    first = teamwork.status("me.json")
    waited = time.monotonic() - began
    with pytest.raises(requests.Timeout):
        teamwork.get(TASKS, timeout=0.2)

    assert first == 200
    assert 0.3 <= waited < 3
    assert time.monotonic() - began < 10


def test_truncated_json_is_a_whole_answer_with_half_a_document(
    box: Sandbox, teamwork: TeamworkClient
) -> None:
    box.control.add_fault("teamwork", "truncated")

    answer = teamwork.get(TASKS, **FULL)

    assert answer.status_code == 200
    assert int(answer.headers["Content-Length"]) == len(answer.content)
    with pytest.raises(json.JSONDecodeError):
        json.loads(answer.content)


def test_a_repeated_page_holds_the_rows_of_the_one_before(box: Sandbox, teamwork: TeamworkClient) -> None:
    first = teamwork.json(TASKS, **SORTED)
    box.control.add_fault("teamwork", "repeated_page")

    second = teamwork.json(TASKS, **SORTED, page=2)

    assert second["tasks"] == first["tasks"]
    assert second["meta"]["page"]["pageOffset"] == 1


@pytest.mark.parametrize(("value", "included"), [("empty", {}), ("null", None)])
def test_side_loads_may_be_missing(
    box: Sandbox, teamwork: TeamworkClient, value: str, included: object
) -> None:
    box.control.add_fault("teamwork", "missing_included", value=value)

    assert teamwork.json(TASKS, include="projects,tasklists")["included"] == included


def test_a_row_may_be_dated_in_the_future(
    box: Sandbox, teamwork: TeamworkClient, missive: MissiveClient
) -> None:
    for vendor in ("teamwork", "missive"):
        box.control.add_fault(vendor, "future_row")

    assert teamwork.json(TASKS, **SORTED)["tasks"][-1]["updatedAt"].startswith("2099")
    assert missive.conversations()[0]["last_activity_at"] > 4_000_000_000
    assert not teamwork.json(TASKS, **SORTED)["tasks"][-1]["updatedAt"].startswith("2099")


def test_a_page_may_be_empty_by_error(box: Sandbox, teamwork: TeamworkClient, missive: MissiveClient) -> None:
    for vendor in ("teamwork", "missive"):
        box.control.add_fault(vendor, "empty_page")

    page = teamwork.json(TASKS)

    assert (page["tasks"], page["meta"]["page"]["hasMore"]) == ([], False)
    assert missive.conversations() == []
    assert missive.conversations()


def test_one_row_may_be_malformed(box: Sandbox, teamwork: TeamworkClient) -> None:
    box.control.add_fault("teamwork", "malformed_row")
    box.control.add_fault("teamwork", "malformed_row", value="tags")

    by_default, by_choice = teamwork.tasks(), teamwork.tasks()

    assert sum(isinstance(row["updatedAt"], dict) for row in by_default) == 1
    assert sum(isinstance(row["tags"], dict) for row in by_choice) == 1


def test_a_fault_of_lists_waits_for_a_list(box: Sandbox, teamwork: TeamworkClient) -> None:
    box.control.add_fault("teamwork", "empty_page")

    assert teamwork.v3("me.json")["person"]["id"]
    assert teamwork.tasks() == []


def test_a_fault_that_does_not_exist_is_refused(box: Sandbox) -> None:
    with pytest.raises(SandboxError, match="unknown fault"):
        box.control.add_fault("teamwork", "earthquake")
    with pytest.raises(SandboxError, match="unknown vendor"):
        box.control.add_fault("nobody", FAULT_KINDS[0])
