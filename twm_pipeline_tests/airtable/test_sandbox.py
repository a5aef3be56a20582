"""Set-up and calls on the sandbox's Airtable: an old base, users at work, outages, limits."""

from __future__ import annotations

from datetime import date
from http import HTTPStatus
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import requests
from pydantic import SecretStr

from twm_pipeline.airtable.cells import MOST_UNITS, is_empty, to_cells
from twm_pipeline.airtable.client import AirtableClient
from twm_pipeline.airtable.fields import Key, Layout, TableSpec, specs
from twm_pipeline.airtable.setup import check_access, set_up
from twm_pipeline.budget import Budget
from twm_pipeline.errors import (
    AccessError,
    AuthenticationError,
    ConfigError,
    NotFoundError,
    QuotaExhaustedError,
    RequestRefusedError,
    SchemaChangedError,
)
from twm_pipeline.settings import load_settings
from twm_pipeline_tests.airtable.conftest import Start, World

BERLIN = ZoneInfo("Europe/Berlin")
SPECS = specs(load_settings(), {"tasks": {"Urgent": "Urgent"}, "emails": {"Urgent": "Urgent"}})
TASKS: dict[Key, TableSpec] = {"tasks": SPECS["tasks"]}
OWN = ("My notes", "Handled by", "Score", "Shown as")
HALF = 5


def tasks_of(world: World) -> Layout:
    return set_up(world.client, TASKS, {})["tasks"]


def task_cells(layout: Layout, number: object, **row):
    cells = to_cells(SPECS["tasks"], {"task_id": number, **row}, timezone=BERLIN)
    return layout.by_id(cells)


def ten(layout: Layout, title: str = "made"):
    return [task_cells(layout, n, title=f"{title} {n}") for n in range(10)]


def upsert(world: World, layout: Layout, rows):
    return world.client.upsert(layout.table_id, layout.fields["id"], rows)


def test_a_base_is_set_up_from_nothing_with_one_call_when_all_is_there(world):
    layouts = set_up(world.client, SPECS, {})
    before = world.tables()
    calls = world.budget.usage.requests

    assert set_up(world.client, SPECS, layouts) == layouts
    assert world.budget.usage.requests == calls + 1 == 4
    assert world.tables() == before
    assert [field["name"] for field in before["Tasks"]] == [it.name for it in SPECS["tasks"].fields]


def test_an_old_base_is_adopted_without_a_doubled_column_or_record(world):
    counts = world.control.airtable_prepare_old_base(categories=["Urgent"])
    fields, records = world.tables(), world.records("Tasks")

    layouts = set_up(world.client, SPECS, {})
    layout = layouts["tasks"]
    old = [cells["id"] for cells in records.values() if "id" in cells]
    found = []
    for place in range(0, len(old), 10):
        rows = [task_cells(layout, key, title="published") for key in old[place : place + 10]]
        found += upsert(world, layout, rows)

    assert [made for _, made in found] == [False] * len(old)
    assert len(world.records("Tasks")) == counts["Tasks"]
    for name in ("Tasks", "Emails"):
        names = [field["name"].lower() for field in world.tables()[name]]
        assert len(set(names)) == len(names)
        assert world.tables()[name][: len(fields[name])] == fields[name]
    own = {key: [cells.get(name) for name in OWN[:3]] for key, cells in records.items()}
    after = world.records("Tasks")
    assert {key: [cells.get(name) for name in OWN[:3]] for key, cells in after.items()} == own
    assert any(any(cells) for cells in own.values())


def test_a_zone_that_airtable_has_no_name_for_is_shown_in_utc(world):
    layouts = set_up(world.client, specs(load_settings(timezone="CET"), {}), {})

    cells = to_cells(SPECS["tasks"], {"task_id": 1, "due_at": date(2026, 3, 1)}, timezone=ZoneInfo("CET"))
    upsert(world, layouts["tasks"], [layouts["tasks"].by_id({k: cells[k] for k in ("id", "dueDate")})])
    [record] = world.control.truth("airtable_record")
    assert record["cells"]["dueDate"] == "2026-02-28T23:00:00.000Z"


def test_the_free_plan_gets_its_only_colour(world):
    world.control.airtable_set_plan("free")

    set_up(world.client, SPECS, {})

    colors = {
        it["name"]: it["options"]["color"] for it in world.tables()["Emails"] if it["type"] == "checkbox"
    }
    assert set(colors.values()) == {"greenBright"}


def test_whatever_users_rename_is_followed(world):
    layout = tasks_of(world)
    world.control.airtable_rename_table("Tasks", "Aufgaben")
    world.control.airtable_rename_field("Aufgaben", "name", "Titel")

    again = set_up(world.client, TASKS, {"tasks": layout})["tasks"]
    upsert(world, again, [task_cells(again, 1, title="renamed")])

    assert again == layout
    assert world.tables().keys() == {"Aufgaben"}
    assert [cells["Titel"] for cells in world.records("Aufgaben").values()] == ["renamed"]


def test_a_field_of_another_type_stops_set_up_until_it_is_renamed(world):
    layout = tasks_of(world)
    world.control.airtable_retype_field(
        "Tasks", "status", "singleSelect", options={"choices": [{"name": "new"}]}
    )

    with pytest.raises(ConfigError, match="field 'status': its type is singleSelect, expected is"):
        set_up(world.client, TASKS, {"tasks": layout})
    world.control.airtable_rename_field("Tasks", "status", "Ampel")
    again = set_up(world.client, TASKS, {"tasks": layout})["tasks"]

    assert again.fields["status"] != layout.fields["status"]
    assert [it["type"] for it in world.tables()["Tasks"] if it["name"] == "Ampel"] == ["singleSelect"]


def test_a_deleted_field_is_noticed_and_made_again(world):
    layout = tasks_of(world)
    world.control.airtable_delete_field("Tasks", "priority")

    with pytest.raises(SchemaChangedError):
        upsert(world, layout, [task_cells(layout, 1, priority="high")])
    again = set_up(world.client, TASKS, {"tasks": layout})["tasks"]
    upsert(world, again, [task_cells(again, 1, priority="high")])

    assert [cells["priority"] for cells in world.records("Tasks").values()] == ["high"]


def test_what_another_process_made_meanwhile_is_not_made_twice(world, engine, monkeypatch):
    with Budget(engine, world.budget.plan) as budget:
        other = AirtableClient(world.settings, budget)
        look = other.schema
        first: dict[Key, Layout] = {}

        def look_too_early():
            seen = look()
            if not first:
                first.update(set_up(world.client, SPECS, {}))
            return seen

        monkeypatch.setattr(other, "schema", look_too_early)

        assert set_up(other, SPECS, {}) == first
    assert world.tables().keys() == {"Tasks", "Emails"}


def test_every_cell_reads_back_as_it_was_sent(start: Start):
    world = start(answers={"airtable.single_line_newlines": "refused", "airtable.largest_body": 1_000_000})
    layout = tasks_of(world)
    rows: list[dict[str, Any]] = [
        {"title": "two\r\nlines\tand\x00more", "description": "a\r\nb\x07\x9b\u2028c", "tags": ["x", "y"]},
        {"title": "\N{GRINNING FACE}" * MOST_UNITS, "description": "ü" * (MOST_UNITS + 1)},
        {"title": "half \ud83d", "progress": 0, "due_at": None, "deleted": True},
    ]
    cells = [to_cells(SPECS["tasks"], {"task_id": n, **row}, timezone=BERLIN) for n, row in enumerate(rows)]

    for row in cells:
        upsert(world, layout, [layout.by_id(row)])

    stored = {row["id"]: row for row in world.records("Tasks").values()}
    for row in cells:
        assert stored[row["id"]] == {name: value for name, value in row.items() if not is_empty(value)}


def test_a_cell_is_emptied_by_none_and_others_stay(world):
    layout = tasks_of(world)
    [(record, _)] = upsert(world, layout, [task_cells(layout, 1, title="a", priority="high", deleted=True)])

    world.client.update(layout.table_id, [(record, task_cells(layout, 1, title="a"))])

    assert world.records("Tasks")[record] == {"id": "1", "name": "a"}


@pytest.mark.parametrize("done", ["all", "half", "nothing"])
@pytest.mark.parametrize("fault", ["500", "503", "html_502", "reset", "reset_midway", "truncated"])
def test_an_upsert_repeated_after_an_outage_doubles_nothing(start: Start, fault, done):
    world = start(answers={"airtable.done_before_5xx": done})
    layout = tasks_of(world)
    world.control.add_fault("airtable", fault, count=2, path=layout.table_id)

    found = upsert(world, layout, ten(layout))

    assert [cells["name"] for cells in world.records("Tasks").values()] == [f"made {n}" for n in range(10)]
    assert [record for record, _ in found] == list(world.records("Tasks"))


def test_a_table_made_in_spite_of_an_outage_is_adopted(start: Start):
    world = start(answers={"airtable.done_before_5xx": "all"})
    world.control.add_fault("airtable", "503", path="tables$", after=1)

    layouts = set_up(world.client, SPECS, {})

    assert world.tables().keys() == {"Tasks", "Emails"}
    assert layouts.keys() == SPECS.keys()


def test_within_the_budget_nothing_is_refused_and_every_call_is_counted(world):
    layout = tasks_of(world)

    for n in range(30):
        upsert(world, layout, [task_cells(layout, n % 3, title=f"{n}")])

    assert world.control.violations("airtable") == 0
    assert world.budget.usage.throttled == 0
    assert world.budget.usage.requests == world.control.request_count("airtable") == 32


def test_a_refused_rate_silences_the_base_for_the_penalty(start: Start):
    world = start(budgets=20.0, time_scale=20.0)
    layout = tasks_of(world)
    url = f"{world.box.airtable_url}/v0/meta/whoami"
    with requests.Session() as somebody:  # another tool that uses the same base
        somebody.headers["Authorization"] = f"Bearer {world.box.airtable_token}"
        while somebody.get(url, timeout=10).status_code == HTTPStatus.OK:
            pass

    found = upsert(world, layout, ten(layout))

    assert len(found) == len(world.records("Tasks")) == 10
    assert world.budget.usage.throttled == 1


def test_a_used_up_month_stops_records_and_not_the_schema(world):
    layout = tasks_of(world)
    world.control.airtable_set_quota(1)
    upsert(world, layout, [task_cells(layout, 1)])

    for _ in range(2):
        with pytest.raises(QuotaExhaustedError):
            upsert(world, layout, [task_cells(layout, 2)])

    assert world.client.schema()
    assert len(world.records("Tasks")) == 1
    assert world.control.status()["vendors"]["airtable"]["over_quota"] == 2


def test_a_slowed_down_month_is_no_end(start: Start):
    world = start(answers={"airtable.quota_exhausted": "slow"})
    layout = tasks_of(world)
    world.control.airtable_set_quota(0)

    for n in range(6):
        upsert(world, layout, [task_cells(layout, n)])

    assert len(world.records("Tasks")) == 6


def test_a_listing_whose_iterator_expires_is_begun_again(world):
    layout = tasks_of(world)
    for place in range(12):
        upsert(world, layout, [task_cells(layout, 10 * place + n) for n in range(10)])

    seen = []
    for number, page in enumerate(world.client.list_records(layout.table_id, fields=[layout.fields["id"]])):
        seen += [record.cells[layout.fields["id"]] for record in page]
        if number == 0:
            world.control.airtable_expire_iterators()

    assert len(seen) == 220
    assert sorted(set(seen), key=int) == [str(n) for n in range(120)]


@pytest.mark.parametrize("answer", ["422", "404"])
@pytest.mark.parametrize("word", ["MODEL_ID_NOT_FOUND", "NOT_FOUND"])
def test_a_record_the_user_deleted_is_told_and_the_rest_unchanged(start: Start, answer, word):
    world = start(answers={"airtable.missing_in_batch": answer, "airtable.missing_record": word})
    layout = tasks_of(world)
    found = [record for record, _ in upsert(world, layout, ten(layout))]
    world.control.airtable_delete("Tasks", found[3])

    with pytest.raises(NotFoundError):
        world.client.update(layout.table_id, list(zip(found, ten(layout, "changed"), strict=True)))
    with pytest.raises(NotFoundError):
        world.client.delete(layout.table_id, found[:4])
    with pytest.raises(NotFoundError):
        world.client.upload_attachment(found[3], "fld1", filename="a", media_type="a/b", content=b"a")

    assert {cells["name"].split()[0] for cells in world.records("Tasks").values()} == {"made"}
    here = world.client.get_records(layout.table_id, found, fields=[layout.fields["id"]])
    assert sorted(record.id for record in here) == sorted({*found} - {found[3]})
    assert [made for _, made in upsert(world, layout, ten(layout))] == [n == 3 for n in range(10)]


@pytest.mark.parametrize("word", ["INVALID_REQUEST_UNKNOWN", "INVALID_RECORDS"])
def test_a_key_that_a_user_doubled_is_refused(start: Start, word):
    world = start(answers={"airtable.several_matches": word})
    layout = tasks_of(world)
    [(record, _)] = upsert(world, layout, [task_cells(layout, 'o\'clock "7"')])
    world.control.airtable_duplicate("Tasks", record)

    with pytest.raises(RequestRefusedError, match=word):
        upsert(world, layout, [task_cells(layout, 'o\'clock "7"')])


@pytest.mark.parametrize("shape", ["object", "type_only", "string"])
def test_one_bad_cell_refuses_the_batch_in_airtables_own_words(start: Start, shape):
    world = start(answers={"airtable.error_shape": shape})
    layout = tasks_of(world)
    world.client.schema()
    rows = ten(layout)
    rows[HALF][layout.fields["progress"]] = "a lot of it"

    with pytest.raises(RequestRefusedError, match="INVALID_VALUE_FOR_COLUMN") as caught:
        upsert(world, layout, rows)

    assert ('Field "progress" cannot accept' in str(caught.value)) == (shape == "object")
    assert world.records("Tasks") == {}


def test_a_locked_field_and_a_formula_are_told(world):
    layout = tasks_of(world)
    world.control.airtable_lock_field("Tasks", "status")
    with pytest.raises(AccessError, match="INVALID_PERMISSIONS"):
        upsert(world, layout, [task_cells(layout, 1, status="new")])
    world.control.airtable_lock_field("Tasks", "status", locked=False)
    world.control.airtable_retype_field("Tasks", "status", "formula")

    with pytest.raises(RequestRefusedError, match="computed"):
        upsert(world, layout, [task_cells(layout, 1, status="new")])
    with pytest.raises(ConfigError, match="its type is formula"):
        set_up(world.client, TASKS, {"tasks": layout})


def test_a_wiped_base_is_told_and_made_anew(world):
    layouts = set_up(world.client, SPECS, {})
    world.control.airtable_wipe(tables=True)

    with pytest.raises((AccessError, ConfigError)):
        upsert(world, layouts["tasks"], [task_cells(layouts["tasks"], 1)])

    assert set_up(world.client, SPECS, layouts)["tasks"].table_id != layouts["tasks"].table_id


SCOPES = ("data.records:read", "data.records:write", "schema.bases:read", "schema.bases:write")


@pytest.mark.parametrize("lacking", SCOPES)
def test_a_missing_scope_is_said_before_anything_is_written(world, lacking):
    world.control.airtable_set_scopes(*(scope for scope in SCOPES if scope != lacking))

    [problem] = check_access(world.client, SPECS, {}).problems

    assert f"the token lacks {lacking}:" in problem
    assert world.tables() == {}


@pytest.mark.parametrize("lacking", ["schema.bases:read", "schema.bases:write"])
def test_an_untold_scope_is_found_out_by_trying(start: Start, lacking):
    world = start(answers={"airtable.whoami_scopes": False})
    world.control.airtable_set_scopes(*(scope for scope in SCOPES if scope != lacking))

    with pytest.raises(AccessError, match="scopes"):
        set_up(world.client, SPECS, {})


@pytest.mark.parametrize(("role", "needed"), [("edit", "Creator"), ("comment", "Creator")])
def test_a_missing_role_is_said_before_anything_is_written(world, role, needed):
    world.control.airtable_set_role(role)

    [problem] = check_access(world.client, SPECS, {}).problems

    assert f"role {needed}" in problem


def test_a_base_out_of_reach_is_said(world):
    world.control.airtable_set_access(granted=False)

    [problem] = check_access(world.client, SPECS, {}).problems

    assert "AIRTABLE_BASE_ID" in problem


def test_access_says_what_would_be_made_on_an_old_base(world):
    world.control.airtable_prepare_old_base(categories=["Urgent"])

    access = check_access(world.client, SPECS, {})

    assert access.problems == ()
    assert "add field 'url' (url) to table 'Tasks'" in map(str, access.actions)
    assert len(access.actions) == 8


def test_a_wrong_token_stops_everything(world):
    settings = world.settings.model_copy(update={"airtable_api_key": SecretStr("pat")})

    with pytest.raises(AuthenticationError, match="AIRTABLE_API_KEY"):
        AirtableClient(settings, world.budget).schema()


def test_a_file_is_uploaded_and_listed(world):
    layout = set_up(world.client, SPECS, {})["emails"]
    [(record, _)] = world.client.upsert(
        layout.table_id, layout.fields["Email ID"], [{layout.fields["Email ID"]: "m1"}]
    )

    for name in ("a.txt", "b.txt"):
        held = world.client.upload_attachment(
            record, layout.fields["Attachments"], filename=name, media_type="text/plain", content=b"x"
        )

    files = world.records("Emails")[record]["Attachments"]
    assert [file["filename"] for file in files] == ["a.txt", "b.txt"]
    assert [file["id"] for file in files] == held
