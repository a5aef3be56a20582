"""Teamwork's listings as pages: what is asked for, and which answers are not believed."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any, cast

import pytest

from twm_pipeline.errors import NotFoundError, PagingError
from twm_pipeline.http import VendorSession
from twm_pipeline.settings import load_settings
from twm_pipeline.sources.teamwork import TeamworkSource, auth, budget_plan, to_param
from twm_pipeline_tests.sources.fakes import NOW, FakeSession, sample


def source(*answers: Any) -> tuple[TeamworkSource, FakeSession]:
    session = FakeSession(*answers)
    return TeamworkSource(cast(VendorSession, session)), session


def listing(*ids: int, has_more: bool, key: str = "tasks") -> dict[str, Any]:
    return {key: [{"id": i} for i in ids], "meta": {"page": {"hasMore": has_more}}}


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2025, 3, 4, 9, 15, 7, 999_999, tzinfo=UTC),
        datetime(2025, 3, 4, 10, 15, 7, tzinfo=timezone(timedelta(hours=1))),
    ],
)
def test_an_instant_is_sent_in_utc_with_whole_seconds(moment):
    assert to_param(moment) == "2025-03-04T09:15:07Z"


def test_a_page_knows_its_rows_and_whether_more_follow():
    teamwork, session = source(sample("teamwork", "tasks.list.short-page-but-more"))

    page = teamwork.fetch_tasks(updated_after=NOW)

    assert ([row["id"] for row in page.rows], page.has_more) == ([1000001], True)
    assert set(page.included) >= {"projects", "tasklists", "users"}
    path, params = session.asked[0]
    assert path == "/projects/api/v3/tasks.json"
    assert params["updatedAfter"] == "2025-03-04T12:00:00Z"
    assert (params["includeCompletedTasks"], params["showCompletedLists"]) == ("true", "true")
    assert (params["orderBy"], params["orderMode"]) == ("updatedat", "asc")
    assert "showDeleted" not in params


def test_deleted_tasks_are_a_query_of_their_own():
    teamwork, session = source(listing(has_more=False))

    teamwork.fetch_deleted_tasks(deleted_after=NOW)

    _, params = session.asked[0]
    assert (params["deletedOnly"], params["showDeleted"]) == ("true", "true")
    assert params["deletedAfter"] == "2025-03-04T12:00:00Z"
    assert "updatedAfter" not in params


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        "tasks",
        {},
        {"tasks": None},
        {"tasks": {}},
        {"tasks": ["x"]},
        {"STATUS": "OK"},
        {"tasks": [], "meta": []},
        {"tasks": [], "meta": {"page": []}},
    ],
    ids=str,
)
def test_a_page_of_another_shape_is_not_taken_for_an_empty_one(answer):
    teamwork, _ = source(answer)

    with pytest.raises(PagingError, match=r"^Teamwork"):
        teamwork.fetch_tasks()


@pytest.mark.parametrize("included", [None, [], {}, {"users": None}, {"users": []}], ids=str)
def test_side_loads_may_be_missing(included):
    teamwork, _ = source(listing(1, has_more=False) | {"included": included})

    assert teamwork.fetch_tasks().included.get("users", {}) == {}


def test_tasks_by_id_must_be_among_those_asked_for():
    teamwork, _ = source(listing(1, 3, has_more=False))

    with pytest.raises(PagingError, match="other tasks than were asked for"):
        teamwork.fetch_tasks_by_id([1, 2])


def test_ids_written_as_text_are_the_ones_asked_for():
    row = {"id": "1"}
    teamwork, _ = source({**listing(has_more=False), "tasks": [row]}, {"task": row}, {"project": row})

    assert teamwork.fetch_tasks_by_id([1]).rows == [row]
    assert teamwork.fetch_task(1).rows == [row]
    assert teamwork.fetch_one("projects", 1)[0] == row


@pytest.mark.parametrize("answer", [{"task": {"id": 2}}, {"task": None}, {}, [], None], ids=str)
def test_another_task_than_asked_for_is_refused(answer):
    teamwork, _ = source(answer)

    with pytest.raises(PagingError, match="is not this task"):
        teamwork.fetch_task(1)


@pytest.mark.parametrize("answer", [{"project": {"id": 2}}, {"project": None}, {}, [], None], ids=str)
def test_another_row_than_asked_for_is_refused(answer):
    teamwork, _ = source(answer)

    with pytest.raises(PagingError, match="is not this row"):
        teamwork.fetch_one("projects", 1)


def test_a_single_task_comes_with_its_side_loads():
    teamwork, _ = source(sample("teamwork", "task.get"))

    page = teamwork.fetch_task(1000002)

    assert [row["id"] for row in page.rows] == [1000002]
    assert "tasklists" in page.included


def test_an_unknown_task_is_not_found():
    teamwork, _ = source(NotFoundError("404"))

    with pytest.raises(NotFoundError):
        teamwork.fetch_task(1)


def test_a_directory_is_read_to_the_vendors_last_page():
    teamwork, session = source(
        listing(1, 2, has_more=True, key="people"),
        listing(has_more=True, key="people"),
        listing(3, has_more=False, key="people"),
    )

    pages = list(teamwork.fetch_directory("people"))

    assert [[row["id"] for row in page.rows] for page in pages] == [[1, 2], [], [3]]
    assert [params["page"] for _, params in session.asked] == ["1", "2", "3"]
    assert all(params["showDeleted"] == "true" for _, params in session.asked)


def test_a_directory_that_repeats_its_page_is_not_believed():
    teamwork, _ = source(*[listing(1, 2, has_more=True, key="tags")] * 2)

    with pytest.raises(PagingError, match="page 2 repeats page 1"):
        list(teamwork.fetch_directory("tags"))


def test_teams_end_where_a_page_brings_nothing_new():
    full = {"teams": [{"id": str(i)} for i in range(1, 251)]}
    teamwork, session = source(full, full)

    pages = list(teamwork.fetch_directory("teams"))

    assert [len(page.rows) for page in pages] == [250]
    assert len(session.asked) == 2


def test_a_site_without_teams_has_been_asked_for_them():
    teamwork, session = source({"STATUS": "OK", "teams": []})

    pages = list(teamwork.fetch_directory("teams"))

    assert [page.rows for page in pages] == [[]]
    assert len(session.asked) == 1


def test_restored_and_deleted_tasks_are_found_in_the_activity_feed():
    def activity(number: int, kind: str, at: str, type: str = "task") -> dict[str, Any]:
        return {"id": number, "activityType": kind, "dateTime": at, "item": {"id": number, "type": type}}

    feed = {
        "activities": [
            activity(1, "undeleted", "2025-03-04T10:00:00Z"),
            activity(2, "deleted", "2025-03-04T11:00:00Z"),
            activity(3, "undeleted", "2025-03-04T09:00:00Z", type="tasklist"),
            activity(1, "undeleted", "2025-03-04T10:30:00Z"),
            activity(4, "undeleted", "2099-01-01T00:00:00Z"),
            activity(5, "deleted", "2025-03-04T10:00:00Z", type="task_comment"),
            activity(6, "undeleted", "2025-03-04T10:00:00Z", type="timelogs"),
        ],
        "meta": {"page": {"hasMore": False}},
    }
    teamwork, _ = source(feed)

    found = teamwork.fetch_activity(since=NOW)

    assert found.restored == {"tasks": [1, 4], "time_entries": [6]}
    assert found.deleted == {"tasks": [2], "task_comments": [5]}
    assert found.newest == datetime(2025, 3, 4, 11, tzinfo=UTC)


def test_one_malformed_activity_does_not_hide_the_others():
    feed = {
        "activities": [
            {"activityType": "undeleted", "dateTime": "not a time", "item": {"id": 1}},
            {"activityType": "undeleted", "dateTime": "2025-03-04T10:00:00Z", "item": "task"},
            {"activityType": "undeleted", "dateTime": "2025-03-04T10:00:00Z", "item": {"id": "x"}},
            {"activityType": "undeleted", "dateTime": "2025-03-04T10:00:00Z", "item": {"id": 2}},
        ],
        "meta": {"page": {"hasMore": False}},
    }
    teamwork, _ = source(feed)

    found = teamwork.fetch_activity(since=NOW)

    assert found.restored == {"tasks": [2]}


def test_the_recorded_activity_feed_is_understood():
    teamwork, _ = source(sample("teamwork", "latestactivity.list"))

    found = teamwork.fetch_activity(since=NOW)

    assert (found.restored, found.newest) == ({}, datetime(2025, 3, 4, 10, 5, tzinfo=UTC))
    assert found.deleted == {"tasks": [1000004]}


@pytest.mark.parametrize(("asked", "requests", "adapts"), [(None, 150, True), (40, 40, False)])
def test_the_budget_follows_the_settings(asked, requests, adapts):
    settings = load_settings(teamwork_base_url="https://site.example.com", teamwork_requests_per_minute=asked)

    plan = budget_plan(settings)

    assert [(limit.requests, limit.seconds) for limit in plan.limits] == [(requests, 60)]
    assert plan.adapts is adapts
    assert "site.example.com" in plan.account


def test_the_key_is_the_user_name():
    credentials = auth(load_settings(teamwork_api_key="tkn"))

    assert (credentials.username, credentials.password) == ("tkn", "x")
