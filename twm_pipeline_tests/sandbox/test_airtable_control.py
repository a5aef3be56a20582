"""The sandbox's Airtable, control plane: users' edits, the old base, the truth, equal sandboxes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from twm_pipeline.sandbox import SandboxError
from twm_pipeline_tests.sandbox.airtable_clients import AirtableClient
from twm_pipeline_tests.sandbox.conftest import Start

OLD = {
    "Emails": {
        "singleLineText": "Email ID, Thread ID, Subject, From, From Name",
        "multilineText": "To, To Names, Cc, Cc Names, Bcc, Bcc Names, In Reply To, Body Text, Body HTML,"
        " Labels Text, Source Links",
        "dateTime": "Sent At, Received At, Deleted At",
        "checkbox": "Draft, Deleted",
        "multipleAttachments": "Attachments",
    },
    "Tasks": {
        "singleLineText": "id, name, status, priority, projectId, projectName, tasklistId, tasklistName,"
        " parentTask, updatedById, updatedBy, createdById, createdBy",
        "multilineText": "description, tagIds, tags, assigneeUserIds, assignees, attachments",
        "number": "progress, estimateMinutes, accumulatedEstimatedMinutes",
        "dateTime": "startDate, dueDate, updatedAt, createdAt, dateUpdated, deletedAt",
    },
}


def test_users_edit_add_duplicate_and_delete_rows(airtable: AirtableClient) -> None:
    control = airtable.box.control
    row = airtable.table().create({"Key": "k", "Notes": "n"})["id"]

    control.airtable_edit("Things", row, {"Notes": None, "Status": "theirs", "Count": "7"})
    own = control.airtable_create("Things", {"Key": "own"})
    twin = control.airtable_duplicate("Things", row)
    control.airtable_delete("Things", own)

    cells = {"Key": "k", "Status": "theirs", "Count": 7}
    assert airtable.records() == {row: cells, twin: cells}
    with pytest.raises(SandboxError, match="INVALID_VALUE_FOR_COLUMN"):
        control.airtable_edit("Things", row, {"Count": "many"})
    with pytest.raises(SandboxError, match="KeyError"):
        control.airtable_delete("Things", own)
    with pytest.raises(SandboxError, match="no table"):
        control.airtable_create("Nothing", {})


def test_users_change_fields_and_tables(airtable: AirtableClient) -> None:
    control = airtable.box.control
    table = airtable.table()
    table.batch_create([{"Key": "1", "Notes": "x"}, {"Key": "one"}])

    control.airtable_add_field("Things", "Own", "number", {"precision": 0})
    control.airtable_rename_field("Things", "Notes", "Remarks")
    control.airtable_retype_field("Things", "Key", "number", {"precision": 0})
    control.airtable_delete_field("Things", "Rich")
    control.airtable_rename_table("Things", "Dinge")
    control.airtable_add_table("Extra", [{"name": "Name", "type": "singleLineText"}])

    tables = {row["name"]: row["fields"] for row in control.truth("airtable_table")}
    types = {item["name"]: item["type"] for item in tables["Dinge"]}
    assert (types["Own"], types["Remarks"], types["Key"]) == ("number", "multilineText", "number")
    assert "Rich" not in types
    assert list(airtable.records("Dinge").values()) == [{"Key": 1, "Remarks": "x"}, {}]
    control.airtable_delete_table("Extra")
    assert [row["name"] for row in control.truth("airtable_table")] == ["Dinge"]
    with pytest.raises(SandboxError, match="primary"):
        control.airtable_delete_field("Dinge", "Key")
    with pytest.raises(SandboxError, match="DUPLICATE"):
        control.airtable_rename_field("Dinge", "Own", "rEMARKS")
    with pytest.raises(SandboxError, match="no field"):
        control.airtable_rename_field("Dinge", "Nope", "x")


def test_a_deleted_table_takes_its_links_along(airtable: AirtableClient) -> None:
    table = airtable.table()
    link = {"name": "Things", "type": "multipleRecordLinks", "options": {"linkedTableId": table.id}}
    airtable.base.create_table("Others", [{"name": "Name", "type": "singleLineText"}, link])

    airtable.box.control.airtable_delete_table("Things")

    [others] = airtable.box.control.truth("airtable_table")
    assert [item["name"] for item in others["fields"]] == ["Name"]


@pytest.mark.parametrize("tables", [False, True])
def test_a_base_is_wiped_with_its_tables_or_without(airtable: AirtableClient, tables: bool) -> None:
    airtable.table().batch_create([{"Key": "a"}, {"Key": "b"}])

    assert airtable.box.control.airtable_wipe(tables=tables) == 2

    assert airtable.records() == {}
    assert len(airtable.base.tables(force=True)) == (0 if tables else 1)
    assert airtable.table().create({"Key": "a"})["fields"] == {"Key": "a"}


def names_by_type(fields: list[dict[str, Any]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for item in fields:
        found.setdefault(item["type"], set()).add(item["name"])
    return found


@pytest.mark.parametrize("plan", ["team", "free"])
def test_the_old_base_has_every_column_it_had(airtable: AirtableClient, plan: str) -> None:
    airtable.box.control.airtable_set_plan(plan)

    airtable.box.control.airtable_prepare_old_base(time_zone="Europe/Paris", categories=["Customer"])

    tables = {row["name"]: row["fields"] for row in airtable.box.control.truth("airtable_table")}
    assert list(tables) == ["Emails", "Tasks", "Contacts"]
    for name, columns in OLD.items():
        found = names_by_type(tables[name])
        for kind, listed in columns.items():
            assert set(listed.split(", ")) <= found[kind]
        assert "Customer" in found["multilineText"]
        assert {"My notes", "Handled by", "Score", "Shown as"} <= set().union(*found.values())
        assert all(
            item["options"]["timeZone"] == "Europe/Paris"
            for item in tables[name]
            if item["type"] == "dateTime"
        )
    colours = {
        item["name"]: item["options"]["color"] for item in tables["Emails"] if item["type"] == "checkbox"
    }
    assert colours == {"Draft": "greenBright" if plan == "free" else "yellowBright", "Deleted": "greenBright"}
    assert (tables["Emails"][0]["name"], tables["Tasks"][0]["name"]) == ("Email ID", "id")


def test_the_old_base_has_rows_of_both_vendors_and_of_its_users(airtable: AirtableClient) -> None:
    counts = airtable.box.control.airtable_prepare_old_base()
    truth = list(airtable.box.control.truth())

    tasks = {row.get("id"): row for row in airtable.records("Tasks").values()}
    assert counts == {"Tasks": len(airtable.records("Tasks")), "Emails": len(airtable.records("Emails"))}
    living = {str(row["id"]) for row in truth if row["kind"] == "task" and not row["deleted"]}
    assert set(tasks) == living | {"4711", None}
    messages = {row["id"] for row in truth if row["kind"] == "message" and not row["draft"]}
    assert messages < {row.get("Email ID") for row in airtable.records("Emails").values()}
    assert any("Score" in row for row in tasks.values())
    assert all(row["Shown as"].startswith("# ") for row in tasks.values())
    row = airtable.base.table("Tasks").all(formula="{id}='4711'")[0]
    assert row["fields"]["name"] == "Of a site long gone"


def test_the_old_base_may_have_few_rows(airtable: AirtableClient) -> None:
    assert airtable.box.control.airtable_prepare_old_base(rows=1) == {"Emails": 1, "Tasks": 1}


def test_the_truth_knows_what_files_are_in_a_cell(airtable: AirtableClient) -> None:
    row = airtable.table().create({"Files": [{"url": "https://example.com/a.pdf", "filename": "a.pdf"}]})
    airtable.box.control.airtable_wait_for_attachments()
    sent = {"contentType": "text/plain", "filename": "b.txt", "file": "eA=="}
    airtable.upload(row["id"], "Files", sent)

    [stored] = airtable.records()[row["id"]]["Files"]

    assert (stored["filename"], stored["size"], stored["state"]) == ("b.txt", 1, "stored")
    assert re.fullmatch("[0-9a-f]{64}", stored["sha256"])


def test_equal_seeds_give_equal_ids(start: Start) -> None:
    tables = []
    for seed in (7, 7, 8):
        with AirtableClient(start(tasks=1, conversations=1, seed=seed)) as client:
            row = client.table().create({"Key": "k"})["id"]
            tables.append((client.table().id, row))

    assert tables[0] == tables[1] != tables[2]


def test_a_wrong_word_is_refused(airtable: AirtableClient) -> None:
    control = airtable.box.control
    for call in (
        lambda: control.airtable_set_scopes("data:all"),
        lambda: control.airtable_set_role("boss"),
        lambda: control.airtable_set_plan("gold"),
        lambda: control.airtable_prepare_old_base(time_zone="Mars"),
    ):
        with pytest.raises(SandboxError):
            call()


def test_the_base_is_empty_at_the_start(airtable: AirtableClient) -> None:
    assert airtable.base.tables() == []
    assert not list(airtable.box.control.truth("airtable_table"))


def test_the_page_about_the_sandbox_names_every_switch_and_action(airtable: AirtableClient) -> None:
    page = (Path(__file__).parents[2] / "docs" / "sandbox.md").read_text(encoding="utf-8")

    for name in (*airtable.box.world.answers, *airtable.box.world.control.actions):
        if name.startswith("airtable"):
            assert f"`{name.removeprefix('airtable_')}" in page or f"`{name}" in page, name
