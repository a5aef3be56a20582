"""Teamwork's JSON as records: every column, what is left out of a hash, and what is refused."""

import copy
import json
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twm_pipeline.errors import RecordError
from twm_pipeline.records import Company, Person, Project, Tag, Task, TaskComment, Tasklist, Team, TimeEntry
from twm_pipeline.sources.teamwork_rows import (
    INCLUDED,
    PARSERS,
    parse_person,
    parse_project,
    parse_task,
    parse_task_comment,
    parse_team,
    parse_time_entry,
)
from twm_pipeline_tests.sources.fakes import NOW, sample
from twm_pipeline_tests.sources.teamwork_samples import LISTS, listed, rows, task

RECORDS = {
    "tasks": Task,
    "projects": Project,
    "tasklists": Tasklist,
    "people": Person,
    "tags": Tag,
    "companies": Company,
    "teams": Team,
    "time_entries": TimeEntry,
    "task_comments": TaskComment,
}
VOLATILE = ("avatarUrl", "lastWorkedOn", "lastLogin", "sequence")


@pytest.mark.parametrize(("name", "stream"), LISTS.items(), ids=LISTS)
def test_every_row_of_a_sample_becomes_a_record(name, stream):
    for row in listed(name):
        record = PARSERS[stream](row, date=NOW)

        assert type(record) is RECORDS[stream]
        assert record.id == int(row["id"])
        assert json.loads(record.raw) == row


@pytest.mark.parametrize("name", ["tasks.list.page1", "tasks.list.page2.last", "task.get"])
def test_every_side_loaded_row_becomes_a_record(name):
    included = sample("teamwork", name)["included"]

    records = [
        PARSERS[INCLUDED[key]](row, date=NOW) for key, found in included.items() for row in found.values()
    ]

    assert {type(record) for record in records} >= {Project, Tasklist, Person}


def test_a_task_is_read_field_by_field():
    record = parse_task(task(1000001), date=NOW)

    assert (record.title, record.description, record.description_type) == (
        "Prepare foundation drawings",
        "<p>Sheets 1–4</p>",
        "HTML",
    )
    assert (record.status, record.priority, record.progress) == ("new", "high", 40)
    assert record.is_private is False
    assert (record.tasklist_id, record.parent_task_id) == (701001, None)
    assert (record.assignee_ids, record.assignee_types, record.tag_ids) == ([301], ["users"], [901])
    assert (record.start_date, record.due_date) == (date(2025, 3, 1), date(2025, 3, 21))
    assert (record.estimate_minutes, record.accumulated_estimate_minutes) == (480, 600)
    assert record.created_at == datetime(2025, 2, 3, 8, tzinfo=UTC)
    assert record.updated_at == record.version_at == datetime(2025, 3, 4, 9, 15, tzinfo=UTC)
    assert (record.created_by_id, record.updated_by_id, record.completed_by_id) == (301, 301, None)
    assert (record.completed_at, record.deleted, record.deleted_at) == (None, False, None)


def test_a_time_entry_is_read_field_by_field():
    entry = rows("time.list")[800001] | {"tags": [{"id": 7, "type": "tags"}], "updatedBy": 301}

    record = parse_time_entry(entry, date=NOW)

    assert (record.description, record.minutes, record.billable) == ("Load table", 90, True)
    assert (record.person_id, record.logged_by_id, record.updated_by_id) == (302, 302, 301)
    assert (record.task_id, record.project_id, record.tag_ids) == (1000002, 501001, [7])
    assert record.logged_at == datetime(2025, 3, 3, 23, 30, tzinfo=UTC)
    assert record.created_at == datetime(2025, 3, 4, 7, tzinfo=UTC)
    assert record.updated_at == record.version_at == datetime(2025, 3, 4, 7, 5, tzinfo=UTC)
    assert (record.deleted, record.deleted_at) == (False, None)


def test_a_time_entry_may_lie_on_no_task_and_says_itself_when_it_was_deleted():
    alone = parse_time_entry(rows("time.list")[800002], date=NOW)
    gone = parse_time_entry(rows("time.list")[800003], date=NOW)

    assert (alone.task_id, alone.project_id) == (None, 501001)
    assert (gone.deleted, gone.deleted_at) == (True, datetime(2025, 3, 4, 9, tzinfo=UTC))


def test_a_comment_is_read_under_its_own_names_of_dates():
    row = rows("comments.list")[600001] | {"lastEditedBy": 302, "dateLastEdited": "2025-03-04T09:20:00Z"}

    record = parse_task_comment(row, date=NOW)

    assert (record.body, record.body_html) == (row["body"], row["htmlBody"])
    assert (record.object_type, record.object_id, record.task_id) == ("tasks", 1000002, 1000002)
    assert (record.project_id, record.author_id, record.updated_by_id) == (501001, 301, 302)
    assert record.created_at == datetime(2025, 3, 4, 9, 16, tzinfo=UTC)
    assert record.updated_at == record.version_at == datetime(2025, 3, 4, 9, 20, tzinfo=UTC)


def test_a_comment_on_something_else_is_on_no_task():
    row = rows("comments.list")[600001] | {"object": {"id": 5, "type": "milestones"}}

    record = parse_task_comment(row, date=NOW)

    assert (record.object_type, record.object_id, record.task_id) == ("milestones", 5, None)


def test_people_teams_and_companies_are_assignees_alike():
    record = parse_task(task(1000002), date=NOW)

    assert list(zip(record.assignee_ids, record.assignee_types, strict=True)) == [
        (302, "users"),
        (401, "teams"),
        (202, "companies"),
    ]


def test_null_tags_and_assignees_are_none_at_all():
    record = parse_task(task(1000003) | {"tags": None, "tagIds": None}, date=NOW)

    assert (record.tag_ids, record.assignee_ids, record.assignee_types) == ([], [], [])


def test_an_assignee_the_key_cannot_see_keeps_the_bare_id():
    row = task(1000001) | {"assignees": None, "assigneeUserIds": [999]}

    record = parse_task(row, date=NOW)

    assert (record.assignee_ids, record.assignee_types) == ([999], ["users"])


def test_repeated_tags_and_assignees_count_once():
    row = task(1000001) | {"tags": [{"id": 1}, {"id": 2}, {"id": 1}], "assigneeUserIds": [301, 301]}

    record = parse_task(row, date=NOW)

    assert (record.tag_ids, record.assignee_ids) == ([1, 2], [301])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2025-03-14", date(2025, 3, 14)),
        ("2025-03-14T00:00:00Z", date(2025, 3, 14)),
        ("2025-03-14T23:00:00-08:00", date(2025, 3, 14)),
        ("2025-03-14T00:30:00+14:00", date(2025, 3, 14)),
        ("0001-01-01T00:00:00Z", None),
        ("", None),
        (None, None),
    ],
)
def test_a_due_date_stays_the_day_it_names(value, expected):
    record = parse_task(task(1000001) | {"startDate": value, "dueDate": value}, date=NOW)

    assert (record.start_date, record.due_date) == (expected, expected)


def test_a_task_in_the_deleted_feed_is_deleted():
    record = parse_task(task(1000004), date=NOW)

    assert record.deleted
    assert record.deleted_at == datetime(2025, 3, 4, 10, 5, tzinfo=UTC)


def test_a_task_is_deleted_by_its_status_alone():
    assert parse_task(task(1000001) | {"status": "deleted"}, date=NOW).deleted


def test_a_completed_task_is_not_deleted():
    record = parse_task(task(1000003), date=NOW)

    assert not record.deleted
    assert (record.status, record.completed_by_id) == ("completed", 302)
    assert record.completed_at == datetime(2025, 3, 4, 10, tzinfo=UTC)


def test_the_zero_date_of_a_project_is_no_archiving():
    projects = rows("projects.list")

    assert parse_project(projects[501001], date=NOW).archived_at is None
    assert parse_project(projects[501002], date=NOW).archived_at == datetime(2025, 1, 15, 12, tzinfo=UTC)
    assert not parse_project(projects[501002], date=NOW).deleted


def test_a_deleted_person_is_deleted():
    people = {number: parse_person(row, date=NOW) for number, row in rows("people.list").items()}

    assert [number for number, person in people.items() if person.deleted] == [303]
    assert (people[301].first_name, people[301].last_name, people[301].company_id) == ("Mara", "Holt", 201)


def test_ids_of_v1_are_numbers_too():
    record = parse_team(rows("teams.v1.list")[401], date=NOW)

    assert (record.id, record.name, record.member_ids) == (401, "Statics", [302])


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"tasklist": {"id": 7, "type": "tasklists"}}, 7),
        ({"tasklistId": 7}, 7),
        ({"tasklist": 7}, 7),
        ({"tasklist": None, "tasklistId": "7"}, 7),
        ({"tasklist": None, "tasklistId": 0}, None),
        ({}, None),
    ],
)
def test_a_relation_is_an_object_or_a_bare_id(row, expected):
    assert parse_task({"id": 1, **row}, date=NOW).tasklist_id == expected


def test_a_version_later_than_the_answer_is_not_believed():
    row = task(1000001) | {"updatedAt": "2099-01-01T00:00:00Z"}

    record = parse_task(row, date=NOW)

    assert record.version_at is None
    assert record.updated_at == datetime(2099, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dueDate", "s3cret"),
        ("updatedAt", {"s3cret": 1}),
        ("progress", "s3cret"),
        ("estimateMinutes", 2**40),
        ("name", ["s3cret"]),
        ("tags", "s3cret"),
        ("tags", [{"id": "s3cret"}]),
        ("assignees", {"s3cret": 1}),
        ("parentTaskId", "s3cret"),
        ("isPrivate", "s3cret"),
        ("id", "s3cret"),
    ],
)
def test_a_malformed_task_is_refused_by_its_key_without_its_value(key, value):
    with pytest.raises(RecordError, match=rf"^{key}: ") as caught:
        parse_task(task(1000001) | {"parentTask": None, key: value}, date=NOW)

    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("value", [None, 0, ""])
@pytest.mark.parametrize("stream", PARSERS)
def test_a_row_without_id_is_refused(stream, value):
    with pytest.raises(RecordError, match=r"^the row has no id$"):
        PARSERS[stream]({"id": value, "name": "x"}, date=NOW)


def test_a_number_beyond_json_is_refused():
    with pytest.raises(RecordError, match="cannot be stored as JSON"):
        parse_task(task(1000001) | {"customNumber": 2**70}, date=NOW)


def test_a_row_nested_beyond_reason_is_refused():
    row: dict[str, Any] = {"id": 1}
    inner = row
    for _ in range(500):
        inner["deeper"] = {}
        inner = inner["deeper"]

    with pytest.raises(RecordError, match="cannot be stored as JSON"):
        parse_task(row, date=NOW)


@pytest.mark.parametrize("key", VOLATILE)
def test_a_volatile_key_does_not_change_the_hash(key):
    before = parse_task(task(1000001) | {key: "one"}, date=NOW)
    after = parse_task(task(1000001) | {key: "two"}, date=NOW)

    assert before.content_hash == after.content_hash


@pytest.mark.parametrize("key", sorted(set(task(1000001)) - {*VOLATILE, "id"}))
def test_every_other_key_changes_the_hash(key):
    before = parse_task(task(1000001), date=NOW)
    changed = {**task(1000001)}
    del changed[key]

    assert parse_task(changed, date=NOW).content_hash != before.content_hash


@given(st.permutations(list(task(1000002).items())))
def test_the_order_of_keys_does_not_change_the_hash(items):
    assert parse_task(dict(items), date=NOW).content_hash == parse_task(task(1000002), date=NOW).content_hash


@pytest.mark.parametrize("stream", PARSERS)
def test_reading_a_row_does_not_change_it(stream):
    name = next(name for name, found in LISTS.items() if found == stream)
    row = listed(name)[0]
    before = copy.deepcopy(row)

    PARSERS[stream](row, date=NOW)

    assert row == before
