"""Teamwork's documented quirks, and both answers to its open questions."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from twm_pipeline.sandbox import Sandbox
from twm_pipeline_tests.sandbox.clients import FULL, V3, TeamworkClient
from twm_pipeline_tests.sandbox.conftest import Start

SORTED = {"orderBy": "updatedat", "orderMode": "asc"}


def truth_of(box: Sandbox, kind: str = "task") -> dict[Any, dict[str, Any]]:
    return {row["id"]: row for row in box.control.truth(kind)}


def iso(instant: float) -> str:
    return datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_all_flags_show_every_living_visible_task(box: Sandbox, teamwork: TeamworkClient) -> None:
    expected = {key for key, row in truth_of(box).items() if row["visible"] and not row["deleted"]}

    assert teamwork.ids(**FULL) == expected


def test_the_defaults_hide_most_of_it(box: Sandbox, teamwork: TeamworkClient) -> None:
    shown = [truth_of(box)[key] for key in teamwork.ids()]

    assert len(shown) < len(teamwork.ids(**FULL)) / 2
    for flag in ("deleted", "list_completed", "list_deleted", "project_archived"):
        assert not any(row[flag] for row in shown)
    assert not any(row["status"] == "completed" for row in shown)


@pytest.mark.parametrize(
    ("flag", "field"),
    [
        ("includeCompletedTasks", "completed_at"),
        ("showCompletedLists", "list_completed"),
        ("includeArchivedProjects", "project_archived"),
        ("includeTasksFromDeletedLists", "list_deleted"),
        ("getSubTasks", "parent_id"),
    ],
)
def test_each_flag_adds_what_it_names(start: Start, flag: str, field: str) -> None:
    box = start(tasks=600, answers={"teamwork.sub_tasks_by_default": False})
    truth = truth_of(box)

    with TeamworkClient(box) as teamwork:
        everything, without = teamwork.ids(**FULL), teamwork.ids(**(FULL | {flag: "false"}))

    assert everything - without
    assert all(truth[key][field] for key in everything - without if flag != "includeCompletedTasks")
    assert not any(truth[key][field] for key in without)


def test_completed_lists_stay_hidden_without_completed_tasks(teamwork: TeamworkClient) -> None:
    assert teamwork.ids(showCompletedLists="true") == teamwork.ids()


def test_unknown_parameters_are_ignored_silently(teamwork: TeamworkClient) -> None:
    params = {"includeArchivedTasks": "true", "per_page": 1, "page[size]": 1, "updated_after": "x"}

    assert teamwork.ids(**params) == teamwork.ids()


def test_a_repeated_parameter_counts_once(teamwork: TeamworkClient) -> None:
    answer = teamwork.v3("tasks.json", include=["projects", "tasklists"])

    assert list(answer["included"]) == ["projects"]


def test_the_default_order_is_by_due_date(teamwork: TeamworkClient) -> None:
    dates = [row["dueDate"] or "9999" for row in teamwork.tasks(**FULL)]

    assert dates == sorted(dates)


def test_a_sub_task_may_come_before_its_parent(teamwork: TeamworkClient) -> None:
    rows = teamwork.tasks(**FULL)
    places = {row["id"]: place for place, row in enumerate(rows)}

    assert any(places[row["id"]] < places.get(row["parentTaskId"], -1) for row in rows)


@pytest.mark.parametrize("order", ["updatedat", "createdat", "id"])
@pytest.mark.parametrize("mode", ["asc", "desc"])
def test_lists_are_ordered_as_asked(teamwork: TeamworkClient, order: str, mode: str) -> None:
    key = {"updatedat": "updatedAt", "createdat": "createdAt", "id": "id"}[order]

    values = [row[key] for row in teamwork.tasks(**FULL, orderBy=order, orderMode=mode)]

    assert values == sorted(values, reverse=mode == "desc")


def test_many_rows_share_one_updated_at(teamwork: TeamworkClient) -> None:
    dates = [row["updatedAt"] for row in teamwork.tasks(**FULL)]

    assert max(dates.count(value) for value in set(dates)) > 10


@pytest.mark.parametrize("inclusive", [True, False])
def test_updated_after_is_inclusive_or_not(box: Sandbox, teamwork: TeamworkClient, inclusive: bool) -> None:
    box.control.set_answer("teamwork.updated_after_inclusive", inclusive)
    middle = teamwork.tasks(**FULL, **SORTED)[50]

    found = teamwork.tasks(**FULL, **SORTED, updatedAfter=middle["updatedAt"])

    assert (middle["id"] in {row["id"] for row in found}) is inclusive
    assert all(row["updatedAt"] >= middle["updatedAt"] for row in found)


@pytest.mark.parametrize(
    ("parameter", "field"),
    [("createdBefore", "createdAt"), ("completedAfter", "completedAt"), ("dueBefore", "dueDate")],
)
def test_date_filters_narrow_by_their_field(teamwork: TeamworkClient, parameter: str, field: str) -> None:
    bound = "2025-06-01"

    found = teamwork.tasks(**FULL, **{parameter: bound})

    assert found
    assert all((row[field][:10] <= bound) == parameter.endswith("Before") for row in found)


@pytest.mark.parametrize(
    "value", ["2026-01-01T00:00:00+01:00", "2026-01-01T00:00:00.5Z", "2026-13-01", "01.02.2026", "20260101"]
)
def test_odd_dates_are_refused(teamwork: TeamworkClient, value: str) -> None:
    assert teamwork.status("tasks.json", updatedAfter=value) == 422


def test_ids_ask_for_several_tasks_at_once(teamwork: TeamworkClient) -> None:
    wanted = sorted(teamwork.ids(**FULL))[3:9]

    assert teamwork.ids(**FULL, ids=",".join(map(str, wanted))) == set(wanted)


def test_selections_narrow_the_list(box: Sandbox, teamwork: TeamworkClient) -> None:
    truth = truth_of(box)
    some = next(row for row in truth.values() if row["visible"] and row["tag_ids"] and row["project_id"])
    person = next(
        key
        for row in truth.values()
        if row["visible"]
        for kind, key in row["assignees"] or ()
        if kind == "users"
    )
    living = {key for key, row in truth.items() if row["visible"] and not row["deleted"]}

    by_tag = teamwork.ids(**FULL, tagIds=some["tag_ids"][0])
    by_project = teamwork.ids(**FULL, projectIds=some["project_id"])
    by_list = teamwork.ids(**FULL, tasklistIds=some["list_id"])
    by_person = teamwork.ids(**FULL, responsiblePartyIds=person)

    assert by_tag == {key for key in living if some["tag_ids"][0] in (truth[key]["tag_ids"] or ())}
    assert by_project == {key for key in living if truth[key]["project_id"] == some["project_id"]}
    assert by_list == {key for key in living if truth[key]["list_id"] == some["list_id"]}
    assert by_person == {key for key in living if ["users", person] in (truth[key]["assignees"] or ())}
    assert teamwork.status("tasks.json", ids="x") == 422


def test_scoped_lists_hold_only_their_scope(box: Sandbox, teamwork: TeamworkClient) -> None:
    row = next(
        row for row in truth_of(box).values() if row["visible"] and not row["list_deleted"] and row["list_id"]
    )

    in_list = teamwork.v3(f"tasklists/{row['list_id']}/tasks.json", **FULL)["tasks"]
    in_project = teamwork.v3(f"projects/{row['project_id']}/tasks.json", **FULL)["tasks"]

    assert {item["tasklistId"] for item in in_list} == {row["list_id"]}
    assert {item["id"] for item in in_list} <= {item["id"] for item in in_project}
    assert teamwork.status("projects/1/tasks.json") == 404


def test_sparse_fields_hold_only_what_was_asked(teamwork: TeamworkClient) -> None:
    rows = teamwork.tasks(**{"fields[tasks]": "id,updatedAt"})

    assert {tuple(sorted(row)) for row in rows} == {("id", "updatedAt")}


def test_a_walk_by_page_numbers_sees_every_row_once(teamwork: TeamworkClient) -> None:
    seen: list[int] = []
    for page in range(1, 100):
        answer = teamwork.v3("tasks.json", **(FULL | SORTED | {"page": page, "pageSize": 7}))
        seen += [row["id"] for row in answer["tasks"]]
        meta = answer["meta"]["page"]
        assert (meta["pageOffset"], meta["pageSize"]) == (page - 1, 7)
        assert meta["count"] == page * 7 + 1 if meta["hasMore"] else meta["count"] == len(seen)
        if not meta["hasMore"]:
            break

    assert len(seen) == len(set(seen))
    assert set(seen) == teamwork.ids(**FULL)


def test_a_row_touched_while_paging_makes_page_numbers_lose_another(
    box: Sandbox, teamwork: TeamworkClient
) -> None:
    params = FULL | SORTED | {"pageSize": 10}
    first = [row["id"] for row in teamwork.v3("tasks.json", **params)["tasks"]]
    expected_next = teamwork.v3("tasks.json", **params, page=2)["tasks"][0]["id"]

    box.control.edit_task(first[0], name="touched")
    second = [row["id"] for row in teamwork.v3("tasks.json", **params, page=2)["tasks"]]

    assert expected_next not in second


@pytest.mark.parametrize("size", [100, 50])
def test_the_server_may_cap_the_page_size(start: Start, size: int) -> None:
    box = start(answers={"teamwork.max_page_size": size})

    with TeamworkClient(box) as teamwork:
        answer = teamwork.v3("tasks.json", **FULL)

    assert len(answer["tasks"]) == size
    assert answer["meta"]["page"]["hasMore"] is True


def test_rows_filtered_after_paging_leave_short_pages_with_more(start: Start) -> None:
    box = start(answers={"teamwork.filter_after_paging": True})

    with TeamworkClient(box) as teamwork:
        pages = [teamwork.v3("tasks.json", **(FULL | {"pageSize": 20, "page": page})) for page in range(1, 8)]

    assert any(len(page["tasks"]) < 20 and page["meta"]["page"]["hasMore"] for page in pages)


def test_a_query_pages_no_further_than_its_cap(start: Start) -> None:
    box = start(answers={"teamwork.record_cap": 40})

    with TeamworkClient(box) as teamwork:
        last = teamwork.v3("tasks.json", **(FULL | {"pageSize": 20, "page": 2}))
        beyond = teamwork.v3("tasks.json", **(FULL | {"pageSize": 20, "page": 3}))
        box.control.set_answer("teamwork.beyond_cap", "422")
        refused = teamwork.status("tasks.json", **(FULL | {"pageSize": 20, "page": 3}))

    assert last["meta"]["page"]["hasMore"] is False
    assert beyond["tasks"] == []
    assert refused == 422


def test_the_page_description_may_have_other_names(start: Start) -> None:
    box = start(answers={"teamwork.page_meta": "offset"})

    with TeamworkClient(box) as teamwork:
        meta = teamwork.v3("tags.json", skipCounts="true")["meta"]["page"]

    assert meta == {"offset": 0, "size": 50, "count": 0, "hasMore": True}


def test_side_loads_are_maps_keyed_by_the_id_as_a_string(teamwork: TeamworkClient) -> None:
    include = "projects,tasklists,users,tags,teams,companies,parentTasks"

    answer = teamwork.v3("tasks.json", **FULL, include=include)

    assert set(answer["included"]) == {
        "projects",
        "tasklists",
        "users",
        "tags",
        "teams",
        "companies",
        "tasks",
    }
    for table in answer["included"].values():
        assert all(key == str(row["id"]) for key, row in table.items())
    lists = answer["included"]["tasklists"]
    assert all(str(row["tasklistId"]) in lists for row in answer["tasks"] if row["tasklistId"])
    assert not any("project" in name.lower() for row in answer["tasks"] for name in row)


def test_an_empty_side_load_is_missing_null_or_a_map(teamwork: TeamworkClient) -> None:
    seen = set()
    for count in (1, 2, 3):
        included = teamwork.v3("tasks.json", pageSize=count, include="milestones")["included"]
        seen.add(repr(included.get("milestones", "missing")))

    assert seen == {"{}", "None", "'missing'"}


def test_people_the_key_cannot_see_are_missing_from_side_loads(
    box: Sandbox, teamwork: TeamworkClient
) -> None:
    hidden = {key for key, row in truth_of(box, "person").items() if not row["visible"]}

    answer = teamwork.v3("tasks.json", **FULL, include="users")
    people = teamwork.v3("people.json", showDeleted="true")["people"]

    assigned = {
        item["id"] for row in answer["tasks"] for item in row["assignees"] or () if item["type"] == "users"
    }
    assert assigned & hidden
    assert not {int(key) for key in answer["included"]["users"]} & hidden
    assert not {row["id"] for row in people} & hidden
    assert teamwork.status(f"people/{min(hidden)}.json") == 404


def test_rows_are_as_uneven_as_documented(teamwork: TeamworkClient) -> None:
    rows = teamwork.tasks(**FULL)

    assert any(row["assignees"] is None for row in rows)
    assert any(row["assignees"] == [] for row in rows)
    assert any(row["tags"] is None for row in rows)
    assert any(row["tags"] == [] for row in rows)
    kinds = {item["type"] for row in rows for item in row["assignees"] or ()}
    assert kinds == {"users", "teams", "companies"}
    assert {len(row["dueDate"]) for row in rows if row["dueDate"]} == {10, 20}
    assert any(row["dueDate"] is None for row in rows)
    assert any(row["tasklist"] is None for row in rows)
    assert any(row["isPrivate"] for row in rows)
    assert any("\0" in row["description"] for row in rows)
    assert max(len(row["description"]) for row in rows) > 190_000


def test_private_tasks_of_others_are_invisible(box: Sandbox, teamwork: TeamworkClient) -> None:
    hidden = [row["id"] for row in truth_of(box).values() if row["hidden"]]

    assert hidden
    assert not teamwork.ids(**FULL, showDeleted="true") & set(hidden)
    assert teamwork.status(f"tasks/{hidden[0]}.json") == 404


@pytest.mark.parametrize("answer", ["add", "replace"])
def test_show_deleted_adds_or_replaces(box: Sandbox, teamwork: TeamworkClient, answer: str) -> None:
    box.control.set_answer("teamwork.show_deleted", answer)
    rows = teamwork.tasks(**FULL, showDeleted="true")
    deleted = [row for row in rows if row["status"] == "deleted"]

    assert deleted
    assert all(row["deletedAt"] for row in deleted)
    assert (len(deleted) == len(rows)) is (answer == "replace")
    assert {row["id"] for row in deleted} == teamwork.ids(**FULL, deletedOnly="true")


@pytest.mark.parametrize("needed", [True, False])
def test_deleted_after_may_need_show_deleted(box: Sandbox, teamwork: TeamworkClient, needed: bool) -> None:
    box.control.set_answer("teamwork.deleted_after_needs_show_deleted", needed)
    box.control.delete_task(1_000_001)
    since = iso(time.time() - 60)

    alone = teamwork.ids(**FULL, deletedOnly="true", deletedAfter=since)
    both = teamwork.ids(**FULL, deletedOnly="true", showDeleted="true", deletedAfter=since)

    assert alone == (set() if needed else {1_000_001})
    assert both == {1_000_001}


@pytest.mark.parametrize(("answer", "status"), [("404", 404), ("row", 200)])
def test_a_deleted_task_read_alone_is_gone_or_a_row(
    box: Sandbox, teamwork: TeamworkClient, answer: str, status: int
) -> None:
    box.control.set_answer("teamwork.deleted_get", answer)
    box.control.delete_task(1_000_001)

    assert teamwork.status("tasks/1000001.json") == status


BUMPS = {
    "delete": lambda control: control.delete_task(1_000_002),
    "restore": lambda control: control.restore_task(1_000_002),
    "tag": lambda control: control.tag_task(1_000_002, 900_001),
    "comment": lambda control: control.comment_task(1_000_002, "hi"),
    "move": lambda control: control.move_task(1_000_002, 700_002),
    "archive": lambda control: control.archive_project(500_001),
}


@pytest.mark.parametrize("bumps", [True, False])
@pytest.mark.parametrize("change", list(BUMPS))
def test_a_change_moves_updated_at_as_the_answer_says(start: Start, change: str, bumps: bool) -> None:
    box = start(answers={f"teamwork.{change}_bumps_updated_at": bumps})
    box.control.move_task(1_000_002, 700_001)
    if change == "restore":
        box.control.delete_task(1_000_002)
    box.control.advance(100)
    before = truth_of(box)[1_000_002]["updated_at"]

    BUMPS[change](box.control)

    assert (truth_of(box)[1_000_002]["updated_at"] > before) is bumps


@pytest.mark.parametrize("answer", ["kept", "deleted"])
def test_the_tasks_of_a_deleted_list_vanish_without_an_event(
    box: Sandbox, teamwork: TeamworkClient, answer: str
) -> None:
    box.control.set_answer("teamwork.deleted_list_tasks", answer)
    task_id = box.control.create_task("in the list", list_id=700_001)
    box.control.delete_tasklist(700_001)

    activities = teamwork.v3("latestactivity.json", itemIds=task_id)["activities"]
    shown = teamwork.ids(**FULL, showDeleted="true")

    assert [row["activityType"] for row in activities] == ["new"]
    assert task_id not in teamwork.ids()
    assert task_id in shown
    assert teamwork.status(f"tasks/{task_id}.json") == 404
    assert teamwork.status("tasklists/700001.json") == 404
    assert (task_id in teamwork.ids(**FULL, deletedOnly="true")) is (answer == "deleted")


def test_a_lost_project_takes_its_rows_along_and_returns_them(box: Sandbox, teamwork: TeamworkClient) -> None:
    before = teamwork.ids(**FULL)
    inside = {key for key, row in truth_of(box).items() if row["project_id"] == 500_001} & before

    box.control.set_project_access(500_001, accessible=False)
    without = teamwork.ids(**FULL)
    status = teamwork.status(f"tasks/{min(inside)}.json"), teamwork.status("projects/500001.json")
    box.control.set_project_access(500_001, accessible=True)

    assert before - without == inside
    assert status == (404, 404)
    assert teamwork.ids(**FULL) == before


def test_a_deleted_project_takes_its_rows_along(box: Sandbox, teamwork: TeamworkClient) -> None:
    box.control.delete_project(500_001)

    assert not teamwork.v3("tasks.json", **FULL, projectIds=500_001)["tasks"]
    assert teamwork.status("projects/500001.json") == 404


def test_projects_hide_archived_ones_and_write_go_zero_dates(teamwork: TeamworkClient) -> None:
    default = teamwork.v3("projects.json")["projects"]
    archived = teamwork.v3("projects.json", onlyArchivedProjects="true")["projects"]
    everything = teamwork.v3("projects.json", includeArchivedProjects="true")["projects"]

    assert {row["archivedAt"] for row in default} == {"0001-01-01T00:00:00Z"}
    assert archived
    assert len(default) + len(archived) == len(everything)


def test_task_lists_hide_completed_ones(teamwork: TeamworkClient) -> None:
    default = teamwork.v3("tasklists.json")["tasklists"]
    everything = teamwork.v3("tasklists.json", showCompleted="true")["tasklists"]
    of_one = teamwork.v3("projects/500001/tasklists.json", showCompleted="true")["tasklists"]

    assert {row["status"] for row in default} == {"active"}
    assert {row["status"] for row in everything} == {"active", "completed"}
    assert {row["projectId"] for row in of_one} == {500_001}
    assert teamwork.v3("tasklists/700001.json")["tasklist"]["id"] == 700_001


def test_people_hide_deleted_ones(teamwork: TeamworkClient) -> None:
    default = teamwork.v3("people.json")["people"]
    everything = teamwork.v3("people.json", showDeleted="true")["people"]
    chosen = teamwork.v3("people.json", showDeleted="true", ids="300009")["people"]

    assert not any(row["deleted"] for row in default)
    assert any(row["deleted"] for row in everything)
    assert [row["id"] for row in chosen] == [300_009]


def test_directories_are_paged_like_everything_else(teamwork: TeamworkClient) -> None:
    first = teamwork.v3("tags.json")
    second = teamwork.v3("tags.json", page=2)
    found = teamwork.v3("tags.json", searchTerm="WARTET")["tags"]

    assert (len(first["tags"]), first["meta"]["page"]["hasMore"]) == (50, True)
    assert (len(second["tags"]), second["meta"]["page"]["hasMore"]) == (14, False)
    assert all("wartet" in row["name"] for row in found)


def test_version_1_teams_tell_their_pages_in_headers(teamwork: TeamworkClient) -> None:
    response = teamwork.get("/teams.json", pageSize=1)

    assert {name: response.headers[name] for name in ("X-Page", "X-Pages", "X-Records")} == {
        "X-Page": "1",
        "X-Pages": "2",
        "X-Records": "2",
    }
    assert response.json()["teams"][0]["id"] == "400001"
    assert teamwork.get("/nothing.json").json() == {"STATUS": "Error", "MESSAGE": "Invalid request"}


def test_time_entries_filter_by_work_date_and_hide_deleted_ones(teamwork: TeamworkClient) -> None:
    everything = teamwork.v3("time.json", showDeleted="true")["timelogs"]
    living = teamwork.v3("time.json")["timelogs"]
    day = living[0]["timeLogged"][:10]
    of_day = teamwork.v3("time.json", startDate=day, endDate=day)["timelogs"]

    assert any(row["deleted"] for row in everything)
    assert not any(row["deleted"] for row in living)
    assert any(row["task"] is None for row in living)
    assert {row["timeLogged"][:10] for row in of_day} == {day}
    assert teamwork.v3(f"tasks/{living[-1]['taskId'] or 1}/time.json")["timelogs"] is not None


def test_comments_have_their_own_dates_and_filters(box: Sandbox, teamwork: TeamworkClient) -> None:
    comment_id = box.control.comment_task(1_000_001, "first")
    since = iso(time.time() - 60)
    box.control.edit_task_comment(comment_id, "second")

    of_task = teamwork.v3("tasks/1000001/comments.json", orderBy="date", orderMode="desc")["comments"]
    recent = teamwork.v3("comments.json", updatedAfter=since, pageSize=500)["comments"]
    box.control.delete_task_comment(comment_id)
    gone = teamwork.v3("comments.json", updatedAfter=since)["comments"]
    shown = teamwork.v3("comments.json", updatedAfter=since, showDeleted="true")["comments"]

    assert (of_task[0]["body"], recent[0]["id"]) == ("second", comment_id)
    assert of_task[0]["dateLastEdited"] is not None
    assert gone == []
    assert shown[0]["deleted"] is True


@pytest.mark.parametrize("order", ["newest_first", "oldest_first"])
def test_the_activity_feed_tells_deletions_and_restorations(
    box: Sandbox, teamwork: TeamworkClient, order: str
) -> None:
    box.control.set_answer("teamwork.activity_order", order)
    since = iso(time.time() - 60)
    box.control.delete_task(1_000_001)
    box.control.restore_task(1_000_001)

    rows = teamwork.v3("latestactivity.json", startDate=since, activityTypes="task")["activities"]

    kinds = [row["activityType"] for row in rows]
    assert kinds == (["undeleted", "deleted"] if order == "newest_first" else ["deleted", "undeleted"])
    assert {row["item"]["id"] for row in rows} == {1_000_001}


def test_ties_may_be_ordered_the_other_way(start: Start) -> None:
    box = start(answers={"teamwork.tie_order": "id_desc"})
    ids = box.control.bulk_edit(5)

    with TeamworkClient(box) as teamwork:
        rows = teamwork.tasks(**FULL, **SORTED)[-5:]

    visible = [key for key in sorted(ids, reverse=True) if key in {row["id"] for row in rows}]
    assert [row["id"] for row in rows][-len(visible) :] == visible


@pytest.mark.parametrize("scheme", ["basic", "bearer"])
def test_the_key_works_as_basic_user_and_as_bearer(
    box: Sandbox, teamwork: TeamworkClient, scheme: str
) -> None:
    teamwork.session.auth = None
    if scheme == "bearer":
        teamwork.session.headers["Authorization"] = f"Bearer {box.teamwork_key}"
    else:
        teamwork.session.auth = (box.teamwork_key, "")

    assert teamwork.status("me.json") == 200


def test_unknown_paths_are_not_found(teamwork: TeamworkClient) -> None:
    assert teamwork.status("nothing.json") == 404
    assert teamwork.get(f"{V3}/projects/1/tasklists.json").status_code == 404
