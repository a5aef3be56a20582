"""What people do to a base: records and fields that go, change, or were there before; their categories."""

from __future__ import annotations

from typing import Any

import pytest

from twm_pipeline.errors import AccessError, ConfigError
from twm_pipeline_tests.publishing import categories_are, kinds
from twm_pipeline_tests.sync.bases import Base


def test_a_deleted_record_comes_back_when_its_row_changes(base):
    task_id = base.task_ids()[0]
    base.control.airtable_delete("Tasks", base.record_of(task_id))

    base.edit(task_id, name="Order steel")
    base.publish()

    assert not base.differences()


def test_many_deleted_records_come_back_in_few_calls(base):
    changed = base.task_ids("NOT deleted")[:20]
    base.control.airtable_delete("Tasks", *(base.record_of(item) for item in changed[::2]))
    for item in changed:
        base.control.edit_task(item, name="Order steel")
    base.account.sync("teamwork")

    report = base.tasks()

    assert len(base.requests()) <= 8
    assert (report.created, report.updated) == (10, 10)
    assert not base.differences()


@pytest.mark.parametrize("way", ["404", "403", "422_model"])
@pytest.mark.parametrize("changed", [1, 10])
def test_deleted_records_come_back_however_airtable_says_that_they_are_gone(base, way, changed):
    base.control.set_answer("airtable.missing_in_batch", way)
    rows = base.task_ids("NOT deleted")[:changed]
    base.control.airtable_delete("Tasks", base.record_of(rows[0]), *map(base.record_of, rows[4:5]))
    for item in rows:
        base.control.edit_task(item, name="Order steel")
    base.account.sync("teamwork")

    base.publish()

    assert not base.differences()
    assert not base.set_aside()


def test_a_deleted_record_does_not_change_how_the_others_of_its_batch_are_known(base):
    deleted, renamed, doubled = base.task_ids("NOT deleted")[:3]
    known = base.record_of(renamed)
    base.control.airtable_delete("Tasks", base.record_of(deleted))
    base.control.airtable_edit("Tasks", known, {"id": "something else"})
    copy = base.control.airtable_duplicate("Tasks", base.record_of(doubled))
    for item in (deleted, renamed, doubled):
        base.control.edit_task(item, name="Order steel")
    base.account.sync("teamwork")

    base.publish()

    assert base.record_of(renamed) == known
    assert not base.set_aside()
    base.control.airtable_delete("Tasks", copy)
    assert not base.differences()


def test_what_users_add_is_theirs(base):
    base.control.airtable_add_field("Tasks", "My notes", "multilineText")
    task_id = base.task_ids()[0]
    record = base.record_of(task_id)
    base.control.airtable_edit("Tasks", record, {"My notes": "call Nora"})

    base.edit(task_id, name="Order steel")
    base.publish()

    assert base.records()[record]["My notes"] == "call Nora"


def test_a_duplicate_of_a_known_record_is_left_alone(base):
    task_id = base.task_ids()[0]
    record = base.record_of(task_id)
    copy = base.control.airtable_duplicate("Tasks", record)
    before = base.records()[copy]

    base.edit(task_id, name="Order steel")
    base.publish()

    assert base.records()[record]["name"] == "Order steel"
    assert base.records()[copy] == before
    assert not base.set_aside()


def test_a_key_that_two_records_have_is_reported_and_others_land(fresh):
    fresh.publish()
    first, *others = fresh.task_ids()
    record = fresh.record_of(first)
    fresh.control.airtable_duplicate("Tasks", record)
    fresh.execute("DELETE FROM twm.published")  # as in a new deployment that meets an old base
    fresh.execute("UPDATE twm.publications SET compared_at = NULL")

    report = fresh.tasks()

    assert report.set_aside == 1
    assert "More than one record matches" in fresh.set_aside()[str(first)]
    assert report.updated == len(others)

    fresh.control.airtable_delete("Tasks", record)
    fresh.edit(first, name="Order steel")
    fresh.publish()

    assert not fresh.set_aside()
    assert not fresh.differences()


def test_a_key_that_a_user_gave_to_the_record_of_another_row_doubles_nothing(base):
    moved, target = base.task_ids()[:2]
    base.control.airtable_delete("Tasks", base.record_of(target))
    base.control.airtable_edit("Tasks", base.record_of(moved), {"id": str(target)})

    base.edit(target, name="Order steel")
    base.publish()
    base.publish()

    assert not base.differences()
    assert not base.set_aside()


def test_renamed_fields_and_tables_are_followed(base):
    base.control.airtable_rename_table("Tasks", "Things to do")
    base.control.airtable_rename_field("Things to do", "name", "What")
    base.control.airtable_rename_field("Things to do", "id", "Number")
    task_id = base.task_ids()[0]

    base.edit(task_id, name="Order steel")
    base.publish()
    categories_are(base.account.engine, {"Urgent": ("none such",)})  # the schema is read again
    base.publish()

    assert set(base.tables()) == {"Things to do", "Emails"}
    [cells] = [cells for cells in base.records("Things to do").values() if cells["Number"] == str(task_id)]
    assert cells["What"] == "Order steel"
    assert "name" not in base.tables()["Things to do"]


def test_a_deleted_field_is_made_again_and_filled(base):
    base.control.airtable_delete_field("Tasks", "projectName")
    base.control.airtable_delete_field("Emails", "Subject")

    base.edit(base.task_ids()[0], name="Order steel")
    base.publish()
    base.publish()

    assert not base.differences()
    assert base.waits() == 0
    base.requests()
    base.tasks()
    assert base.requests() == []


@pytest.mark.parametrize("way", ["403", "404"])
@pytest.mark.parametrize("changed", [1, 2])
def test_a_deleted_table_is_made_again_and_filled(base, way, changed):
    base.control.set_answer("airtable.missing_table", way)
    base.control.airtable_delete_table("Tasks")

    for item in base.task_ids("NOT deleted")[:changed]:
        base.control.edit_task(item, name="Order steel")
    base.account.sync("teamwork")
    report = base.tasks()

    assert not base.differences()
    assert report.created == len(base.task_ids())


def test_a_table_that_is_gone_when_its_turn_is_over_is_filled_by_the_same_run(base):
    base.control.airtable_delete_table("Tasks")
    base.control.airtable_delete_field("Emails", "Subject")
    base.control.receive_mail(subject="Steel")
    base.account.sync("missive")

    base.publish()

    assert not base.differences()


def test_a_table_that_may_not_be_written_is_not_made_anew(base):
    base.control.airtable_set_role("read")
    base.edit(base.task_ids()[0], name="Order steel")

    with pytest.raises(AccessError):
        base.publish()

    assert base.waits() > 0
    base.control.airtable_set_role("create")
    base.publish()
    assert not base.differences()


def test_a_table_that_stops_does_not_stop_the_other(base):
    base.control.airtable_lock_field("Tasks", "name")
    base.edit(base.task_ids()[0], name="Order steel")
    base.control.receive_mail(subject="Steel")
    base.account.sync("missive")

    with pytest.raises(AccessError):
        base.publish()

    assert not [item for item in base.differences() if item.startswith("emails")]


def test_a_field_of_another_type_is_named_with_the_ways_out(base):
    base.control.airtable_retype_field("Tasks", "projectName", "singleSelect", {"choices": [{"name": "x"}]})
    categories_are(base.account.engine, {"Urgent": ("none such",)})

    with pytest.raises(ConfigError, match=r"'projectName': its type is singleSelect.*rename that field"):
        base.publish()


# -- categories ------------------------------------------------------------------------------------------


def labelled(base: Base, pattern: str) -> set[str]:
    """Return the records that show a category."""
    return {key for key, cells in base.records().items() if pattern in cells}


def test_a_category_becomes_a_field_and_the_rows_in_it_are_sent(base):
    first, second, *_ = (
        row.tag
        for row in base.account.query(
            "SELECT t AS tag FROM public.tasks, unnest(tags) AS t GROUP BY t ORDER BY count(*) DESC, t"
        )
    )

    categories_are(base.account.engine, {"Urgent": (first,)})
    added = base.tasks()
    categories_are(base.account.engine, {"Urgent": (second,)})
    before = {item: base.cells_of(item).get("Urgent") for item in base.task_ids()}
    base.requests()
    changed = base.tasks()
    calls = kinds(base.requests())

    after = {item: base.cells_of(item).get("Urgent") for item in base.task_ids()}
    assert added.updated == len([value for value in before.values() if value])
    assert changed.updated == len([item for item in after if after[item] != before[item]]) > 0
    assert calls.keys() == {"PATCH records"}
    assert not base.differences(categories=["Urgent"])


def test_a_category_that_is_no_more_is_emptied_and_its_field_stays(base):
    tag = base.account.scalar("SELECT tags[1] FROM public.tasks WHERE cardinality(tags) > 0 LIMIT 1")
    categories_are(base.account.engine, {"Urgent": (tag,)})
    base.publish()
    shown = labelled(base, "Urgent")

    categories_are(base.account.engine, {})
    report = base.tasks()

    assert report.updated == len(shown) > 0
    assert not labelled(base, "Urgent")
    assert "Urgent" in base.tables()["Tasks"]
    assert base.tasks().calls == 0


# -- bases that were there before ------------------------------------------------------------------------


def test_an_old_base_is_adopted_as_it_is(fresh):
    fresh.control.airtable_prepare_old_base(categories=["Urgent"])
    categories_are(fresh.account.engine, {"Urgent": ("none such",)})
    before = {table: fresh.records(table) for table in ("Tasks", "Emails", "Contacts")}
    fields = fresh.tables()

    fresh.publish()

    after = {table: fresh.records(table) for table in before}
    own = ("My notes", "Handled by", "Score")

    def own_cells(records: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        return {key: {name: cells.get(name) for name in own} for key, cells in records.items()}

    assert after["Contacts"] == before["Contacts"]
    assert fresh.tables()["Tasks"][: len(fields["Tasks"])] == fields["Tasks"]
    assert fresh.tables()["Emails"][: len(fields["Emails"])] == fields["Emails"]
    for table, names in fresh.tables().items():
        assert len({name.lower() for name in names}) == len(names), table
    for table in ("Tasks", "Emails"):
        assert before[table].keys() <= after[table].keys()
        kept = {key: after[table][key] for key in before[table]}
        assert own_cells(kept) == own_cells(before[table])
    assert not fresh.differences(strangers=True)
    assert not fresh.set_aside()


def test_adopting_a_complete_old_base_makes_no_record_twice(make_base):
    base = make_base()
    base.control.airtable_prepare_old_base()
    base.publish()
    rows = base.account.scalar("SELECT count(*) FROM public.tasks")

    keys = [cells.get("id") for cells in base.records().values()]

    assert len(set(keys)) == len(keys) > rows
