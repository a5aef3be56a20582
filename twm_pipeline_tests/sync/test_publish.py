"""Publishing: what differs is sent and nothing else, whatever people do to the base meanwhile."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from twm_pipeline.airtable.cells import Cells, digest
from twm_pipeline.airtable.client import AirtableClient, budget_plan
from twm_pipeline.airtable.fields import KEYS, Key
from twm_pipeline.budget import Budget
from twm_pipeline.errors import (
    AccessError,
    ConfigError,
    QuotaExhaustedError,
    RequestRefusedError,
    WindowClosedError,
)
from twm_pipeline.mirror.changelog import count_changes, follow_changes
from twm_pipeline.mirror.published import Published, load_publication
from twm_pipeline.sandbox import SandboxControl
from twm_pipeline.settings import environment_of
from twm_pipeline.sync.publish import Publisher
from twm_pipeline.sync.publish_check import How
from twm_pipeline.sync.publish_plan import Plan, plan_publish
from twm_pipeline.sync.publishing import CALLS_AT_ONCE, PublishWindow
from twm_pipeline.sync.window import WINDOW_LOCK
from twm_pipeline_tests.databases import HELD_HERE
from twm_pipeline_tests.publishing import (
    Reports,
    airtable_settings,
    base_differences,
    categories_are,
    kinds,
    publish,
)
from twm_pipeline_tests.sync.conftest import Account, Open

# -- the plan --------------------------------------------------------------------------------------------

IDS = st.sampled_from("abcdef")
CELLS: st.SearchStrategy[Cells] = st.fixed_dictionaries(
    {"fld1": st.sampled_from(["x", "y", None]), "fld2": st.booleans()}
)
ROWS = st.dictionaries(IDS, CELLS)


@st.composite
def publications(draw: st.DrawFn) -> dict[str, Published]:
    """Return what may be known: a record or none, the digest of some cells or none."""
    return {
        row_id: Published(
            row_id=row_id,
            record_id=draw(st.sampled_from([None, f"rec{row_id}"])),
            cells_hash=draw(st.none() | CELLS.map(digest)),
        )
        for row_id in draw(st.sets(IDS))
    }


def applied(plan: Plan, known: dict[str, Published]) -> dict[str, Published]:
    """Return what is known when everything planned was done."""
    after = {row_id: item for row_id, item in known.items() if item not in plan.removals}
    for write in plan.writes:
        record_id = write.record_id or f"new{write.row_id}"
        after[write.row_id] = Published(row_id=write.row_id, record_id=record_id, cells_hash=write.cells_hash)
    return after


@given(ids=st.lists(IDS), rows=ROWS, known=publications())
def test_what_was_sent_is_not_sent_again(ids, rows, known):
    once = plan_publish(ids, rows, known)

    again = plan_publish(ids, rows, applied(once, known))

    assert not again.writes
    assert not again.removals
    assert set(again.unchanged) == set(ids)


@given(ids=st.lists(IDS), rows=ROWS, known=publications())
def test_every_row_is_written_removed_or_left_alone(ids, rows, known):
    plan = plan_publish(ids, rows, known)

    written = [write.row_id for write in plan.writes]
    removed = [item.row_id for item in plan.removals]
    assert sorted([*written, *removed, *plan.unchanged]) == sorted(set(ids))
    assert all(row_id in rows for row_id in written)
    assert all(row_id in known and row_id not in rows for row_id in removed)


@given(ids=st.lists(IDS), rows=ROWS, known=publications())
def test_only_what_differs_is_written_and_to_the_record_that_shows_it(ids, rows, known):
    for write in plan_publish(ids, rows, known).writes:
        before = known.get(write.row_id)
        assert write.cells == rows[write.row_id]
        assert write.record_id == (before.record_id if before else None)
        assert before is None or before.record_id is None or before.cells_hash != digest(write.cells)


# -- a base ----------------------------------------------------------------------------------------------


@dataclass
class Base:
    """A mirror of the sandbox's accounts that is published to its Airtable."""

    account: Account
    seen: int = 0

    @property
    def control(self) -> SandboxControl:
        return self.account.control

    def publish(self, **options: Any) -> Reports:
        return publish(self.account.engine, self.account.settings, **options)

    def tasks(self, **options: Any) -> Any:
        """Publish the tasks and return their figures."""
        return self.publish(views=("tasks",), **options)["tasks"]

    def sync(self) -> None:
        """Read both vendors, names included."""
        self.account.sync("teamwork", directories=True)
        self.account.sync("missive")

    def requests(self) -> list[dict[str, Any]]:
        """Return Airtable's requests since the last time."""
        rows = self.control.requests("airtable", since=self.seen)
        self.seen += len(rows)
        return rows

    def records(self, table: str = "Tasks") -> dict[str, dict[str, Any]]:
        """Return the cells of a table's records by their ids."""
        return {
            row["id"]: row["cells"] for row in self.control.truth("airtable_record") if row["table"] == table
        }

    def tables(self) -> dict[str, list[str]]:
        """Return the names of the fields of every table."""
        return {
            row["name"]: [field["name"] for field in row["fields"]]
            for row in self.control.truth("airtable_table")
        }

    def record_of(self, task_id: int) -> str:
        """Return the one record of a task."""
        [found] = [key for key, cells in self.records().items() if cells.get("id") == str(task_id)]
        return found

    def cells_of(self, task_id: int) -> dict[str, Any]:
        return self.records()[self.record_of(task_id)]

    def task_ids(self, condition: str = "true") -> list[int]:
        return [
            row.task_id
            for row in self.account.query(
                f"SELECT task_id FROM public.tasks WHERE {condition} ORDER BY task_id"
            )
        ]

    def set_aside(self) -> dict[str, str]:
        rows = self.account.query("SELECT object_id, reason FROM twm.set_aside WHERE source = 'airtable'")
        return {row.object_id: row.reason for row in rows}

    def waits(self) -> int:
        """Return how many changes wait to be published."""
        with self.account.engine.connect() as connection:
            return sum(count_changes(connection, view) for view in ("tasks", "emails"))

    def execute(self, statement: str, **values: Any) -> None:
        with self.account.engine.begin() as connection:
            connection.execute(text(statement), values)

    def edit(self, task_id: int, **fields: Any) -> None:
        """Change a task at the vendor and read it."""
        self.control.edit_task(task_id, **fields)
        self.account.sync("teamwork")

    def differences(self, **options: Any) -> list[str]:
        return base_differences(self.account.engine, self.control, **options)


def base_of(account: Account) -> Base:
    """Return an account that is read and followed, its base untouched."""
    base = Base(account.change(**airtable_settings(account.box.describe())))
    with account.engine.begin() as connection:
        follow_changes(connection, wanted=True)
    base.sync()
    return base


@pytest.fixture
def make_base(open_account: Open) -> Callable[..., Base]:
    return lambda **options: base_of(open_account(**{"tasks": 40, "conversations": 8, **options}))


@pytest.fixture
def fresh(make_base: Callable[..., Base]) -> Base:
    """Return a mirror whose base is empty."""
    return make_base()


@pytest.fixture
def base(fresh: Base) -> Base:
    """Return a mirror that is published."""
    fresh.publish()
    fresh.requests()
    return fresh


# -- from nothing ----------------------------------------------------------------------------------------


def test_an_empty_base_is_set_up_and_filled(fresh):
    reports = fresh.publish()

    assert not fresh.differences()
    assert fresh.waits() == 0
    for report in reports.values():
        assert report.created > 0
        assert (report.updated, report.removed, report.set_aside) == (0, 0, 0)


def test_a_row_that_waited_is_compared_once_by_the_first_publication(fresh):
    assert fresh.waits() >= len(fresh.task_ids())

    report = fresh.tasks()

    assert report.compared == len(fresh.task_ids()) == report.created


def test_ten_records_travel_in_a_call(fresh):
    report = fresh.tasks()

    made = kinds(fresh.requests())
    assert made == {"GET meta": 1, "POST meta": 2, "PATCH records": 4}
    assert (report.created, report.calls) == (len(fresh.task_ids()), 7)


def test_calls_that_take_long_are_made_at_once(make_base):
    base = make_base(tasks=130, conversations=3)
    base.control.set_latency(0.05, "airtable")

    base.publish(views=("tasks",))

    assert base.control.status()["vendors"]["airtable"]["peak_concurrency"] == CALLS_AT_ONCE
    base.publish()
    assert not base.differences()


def test_only_the_last_call_is_not_full(make_base):
    base = make_base(tasks=1300, conversations=3)
    rows = len(base.task_ids())

    base.publish(views=("tasks",))

    assert kinds(base.requests())["PATCH records"] == -(-rows // 10)


def test_a_second_run_makes_no_call(base):
    base.account = base.account.change(budget_time_scale=1)  # files are looked at five minutes later

    reports = base.publish()

    assert base.requests() == []
    assert sum(report.written + report.calls for report in reports.values()) == 0


def test_another_process_makes_no_call_either(base):
    code = (
        "from twm_pipeline.db import connect_database\n"
        "from twm_pipeline.settings import load_settings\n"
        "from twm_pipeline.sync.publishing import PublishWindow\n"
        "settings = load_settings()\n"
        "assert PublishWindow(engine=connect_database(settings), settings=settings).run()\n"
    )
    settings = base.account.change(budget_time_scale=1).settings
    subprocess.run([sys.executable, "-c", code], env=environment_of(settings), check=True)

    assert base.requests() == []


def test_calls_are_counted_once_whatever_the_number_of_looks(fresh):
    fresh.publish()
    fresh.publish()
    fresh.edit(fresh.task_ids()[0], name="Order steel")
    fresh.publish()

    counted = fresh.account.scalar("SELECT calls FROM twm.monthly_calls")
    assert counted == len(fresh.requests())


def test_calls_are_counted_once_by_a_window_that_looks_twice(base):
    settings, engine = base.account.settings, base.account.engine
    counted = base.account.scalar("SELECT calls FROM twm.monthly_calls")
    with Budget(engine, budget_plan(settings)) as budget:
        client = AirtableClient(settings, budget)
        for name in ("Order steel", "Order more steel"):
            base.edit(base.task_ids()[0], name=name)
            Publisher(engine=engine, settings=settings, client=client).run()

    assert base.account.scalar("SELECT calls FROM twm.monthly_calls") == counted + len(base.requests())


def test_once_a_day_everything_is_compared_and_only_what_differs_is_sent(base):
    task_id = base.task_ids()[0]
    base.execute("UPDATE twm.published SET cells_hash = NULL WHERE row_id = :id", id=str(task_id))
    assert base.tasks().compared == 0

    base.execute("UPDATE twm.publications SET compared_at = now() - interval '25 hours'")
    report = base.tasks()

    assert (report.compared, report.updated) == (len(base.task_ids()), 1)
    assert kinds(base.requests()) == {"PATCH records": 1}
    assert base.tasks().compared == 0


# -- what changed ----------------------------------------------------------------------------------------


def test_only_rows_that_differ_are_sent(base):
    for item in base.task_ids("NOT deleted")[:23]:
        base.control.edit_task(item, name="Order steel")
    base.account.sync("teamwork")

    report = base.tasks()

    assert kinds(base.requests()) == {"PATCH records": 3}
    assert (report.updated, report.created) == (23, 0)
    assert not base.differences()


def test_a_row_that_was_read_again_and_shows_the_same_is_not_sent(base):
    task_id = base.task_ids()[0]
    base.execute("INSERT INTO twm.change_log (view, row_id) VALUES ('tasks', :id)", id=str(task_id))

    report = base.tasks()

    assert (report.compared, report.unchanged) == (1, 1)
    assert base.requests() == []
    assert base.waits() == 0


def test_a_record_is_known_by_its_id_whatever_became_of_its_key(base):
    task_id = base.task_ids()[0]
    record = base.record_of(task_id)
    base.control.airtable_edit("Tasks", record, {"id": "something else"})

    base.edit(task_id, name="Order steel")
    base.publish()

    assert base.record_of(task_id) == record
    assert not base.differences()


def test_an_emptied_cell_becomes_empty(base):
    task_id = base.task_ids("description <> '' AND priority IS NOT NULL")[0]
    assert {"description", "priority"} <= base.cells_of(task_id).keys()

    base.edit(task_id, description="", priority=None)
    base.publish()

    assert not {"description", "priority"} & base.cells_of(task_id).keys()
    assert not base.differences()


def test_a_deleted_row_stays_and_says_so(base):
    task_id = base.task_ids("NOT deleted")[0]
    thread = base.account.scalar("SELECT min(thread_id) FROM public.emails WHERE NOT deleted")
    base.control.delete_task(task_id)
    base.control.trash(thread)

    base.sync()
    base.publish()

    cells = base.cells_of(task_id)
    assert cells["deleted"] is True
    assert cells["deletedAt"].endswith("Z")
    assert not base.differences()


def test_hidden_rows_go_and_records_of_the_users_stay(base):
    own = base.control.airtable_create("Tasks", {"name": "Somebody's own"})
    hidden = base.task_ids()[:12]
    base.execute("UPDATE teamwork.tasks SET out_of_scope = true WHERE id = ANY(:ids)", ids=hidden)

    report = base.tasks()

    records = base.records()
    assert kinds(base.requests()) == {"DELETE records": 2}
    assert report.removed == 12
    assert own in records
    assert not {cells.get("id") for cells in records.values()} & {str(item) for item in hidden}
    assert base.tasks().calls == 0


def test_rows_that_are_shown_again_come_back(base):
    hidden = base.task_ids()[:3]
    base.execute("UPDATE teamwork.tasks SET out_of_scope = true WHERE id = ANY(:ids)", ids=hidden)
    base.publish()

    base.execute("UPDATE teamwork.tasks SET out_of_scope = false WHERE id = ANY(:ids)", ids=hidden)
    base.publish()

    assert not base.differences()


def test_records_that_are_gone_already_are_as_good_as_removed(base):
    hidden = base.task_ids()[:3]
    base.control.airtable_delete("Tasks", base.record_of(hidden[1]))
    base.execute("UPDATE teamwork.tasks SET out_of_scope = true WHERE id = ANY(:ids)", ids=hidden)

    base.publish()

    assert not base.differences()
    assert base.waits() == 0


@pytest.mark.parametrize("table", ["projects", "people", "tags", "tasklists"])
def test_a_renamed_name_republishes_exactly_the_rows_that_show_it(base, table):
    def shown() -> dict[int, Any]:
        rows = base.account.query("SELECT * FROM public.tasks")
        return {row.task_id: {**row._mapping, "synced_at": None} for row in rows}

    before = shown()
    chosen = base.account.scalar(
        {
            "projects": "SELECT mode() WITHIN GROUP (ORDER BY project_id) FROM public.tasks",
            "people": "SELECT mode() WITHIN GROUP (ORDER BY p.id) FROM teamwork.people p"
            " JOIN public.tasks t ON p.id = t.created_by_id",
            "tags": "SELECT mode() WITHIN GROUP (ORDER BY t) FROM public.tasks, unnest(tag_ids) AS t",
            "tasklists": "SELECT mode() WITHIN GROUP (ORDER BY tasklist_id) FROM public.tasks",
        }[table]
    )
    rename: dict[str, Callable[[], None]] = {
        "projects": lambda: base.control.rename_project(chosen, "Renamed"),
        "people": lambda: base.control.rename_person(chosen, "Some", "Body"),
        "tags": lambda: base.control.rename_tag(chosen, "renamed"),
        "tasklists": lambda: base.control.rename_tasklist(chosen, "Renamed"),
    }
    rename[table]()

    base.sync()
    report = base.tasks()

    after = shown()
    changed = [key for key in after if after[key] != before[key]]
    assert 0 < report.updated == len(changed)
    assert not base.differences()


# -- what people do to the base --------------------------------------------------------------------------


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


def tagged(base: Base, *names: str) -> int:
    return len(base.task_ids(f"tags && ARRAY{list(names)!r}"))


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


# -- what Airtable refuses -------------------------------------------------------------------------------


@pytest.fixture
def picky(base: Base) -> Base:
    """Return a base whose field `priority` takes only what it holds already."""
    known = {cells["priority"] for cells in base.records().values() if "priority" in cells} - {"low"}
    for row in base.task_ids("priority = 'low'"):
        base.control.edit_task(row, priority=None)
    base.account.sync("teamwork")
    base.publish()
    choices = {"choices": [{"name": name} for name in sorted(known)]}
    base.control.airtable_retype_field("Tasks", "priority", "singleSelect", choices)
    base.requests()
    return base


def refuse_one(base: Base) -> int:
    """Change ten rows, one of them so that it is refused, and return that one."""
    bad, *good = base.task_ids("NOT deleted")[:10]
    for item in good:
        base.control.edit_task(item, name="Order steel")
    base.edit(bad, name="Order steel", priority="low")
    return bad


def test_a_refused_cell_holds_up_only_its_row(picky):
    bad = refuse_one(picky)

    report = picky.tasks()

    assert (report.updated, report.set_aside) == (9, 1)
    assert list(picky.set_aside()) == [str(bad)]
    assert "INVALID_MULTIPLE_CHOICE_OPTIONS" in picky.set_aside()[str(bad)]
    assert "low" not in picky.set_aside()[str(bad)]
    assert len(picky.requests()) <= 9
    assert {item.rpartition(" ")[0] for item in picky.differences()} <= {f"tasks {bad}:"}
    assert picky.waits() == 0


def test_a_row_refused_by_a_field_that_got_another_type_names_it_with_the_ways_out(picky):
    bad = refuse_one(picky)

    picky.tasks()

    assert "'priority': its type is singleSelect" in picky.set_aside()[str(bad)]
    assert "rename that field" in picky.set_aside()[str(bad)]


def test_a_field_that_got_another_type_and_was_then_renamed_is_made_beside_it(picky):
    bad = refuse_one(picky)
    picky.tasks()

    picky.control.airtable_rename_field("Tasks", "priority", "How urgent")
    picky.execute("UPDATE twm.set_aside SET next_attempt_at = now()")
    picky.tasks()

    assert picky.cells_of(bad)["priority"] == "low"
    assert not picky.set_aside()
    assert all(item.endswith("How urgent is filled") for item in picky.differences())


def test_airtables_words_about_a_field_are_passed_on_by_every_process(base):
    base.control.airtable_retype_field("Tasks", "progress", "formula", {})
    base.edit(base.task_ids("NOT deleted")[0], name="Order steel")

    base.tasks()

    [reason] = base.set_aside().values()
    assert 'Field "progress"' in reason


@pytest.mark.parametrize("body", ["json", "html", "empty"])
def test_a_call_that_is_too_large_travels_in_parts(base, body):
    base.control.set_answer("airtable.too_large", body)
    base.control.set_answer("airtable.largest_body", 40_000)
    for item in base.task_ids("NOT deleted")[:10]:
        base.control.edit_task(item, description="steel " * 2_000)
    base.account.sync("teamwork")

    report = base.tasks()

    assert (report.updated, report.set_aside) == (10, 0)
    assert not base.differences()


def test_a_refused_row_is_left_alone_until_it_is_due(picky):
    refuse_one(picky)
    picky.tasks()
    picky.requests()

    assert picky.tasks().set_aside == 0
    assert picky.requests() == []

    picky.execute("UPDATE twm.set_aside SET next_attempt_at = now()")
    assert picky.tasks().set_aside == 1
    assert kinds(picky.requests()) == {"PATCH records": 1, "GET meta": 1}
    assert picky.account.scalar("SELECT attempts FROM twm.set_aside") == 2


def test_a_due_row_lands_when_the_field_takes_it(picky):
    refuse_one(picky)
    picky.tasks()
    picky.control.airtable_retype_field("Tasks", "priority", "singleLineText")

    picky.execute("UPDATE twm.set_aside SET next_attempt_at = now()")
    picky.tasks()

    assert not picky.set_aside()
    assert not picky.differences()


def test_a_refused_row_is_tried_again_when_it_changes(picky):
    bad = refuse_one(picky)
    picky.tasks()

    picky.edit(bad, priority="high")
    picky.tasks()

    assert not picky.set_aside()
    assert not picky.differences()


def test_a_refused_row_that_is_hidden_is_not_set_aside_any_more(picky):
    bad = refuse_one(picky)
    picky.tasks()

    picky.execute("UPDATE teamwork.tasks SET out_of_scope = true WHERE id = :id", id=bad)
    picky.tasks()

    assert not picky.set_aside()
    assert not picky.differences()


def test_when_nearly_everything_is_refused_publishing_stops_and_says_so(make_base):
    base = make_base(tasks=200)
    base.publish()
    base.control.airtable_retype_field("Tasks", "name", "singleSelect", {"choices": [{"name": "x"}]})
    base.control.bulk_edit(200, priority="high")
    for item in base.task_ids():
        base.control.edit_task(item, name=f"Task {item}")
    base.account.sync("teamwork")
    base.requests()

    with pytest.raises(RequestRefusedError, match="INVALID_MULTIPLE_CHOICE_OPTIONS"):
        base.publish()

    assert len(base.requests()) < 100
    assert base.waits() > 0


# -- limits ----------------------------------------------------------------------------------------------


def test_after_a_429_the_base_is_silent_until_the_penalty_is_over(make_base):
    scale = 60.0
    base = make_base(tasks=100)
    base.account = base.account.change(budget_time_scale=scale)
    base.control.set_budgets(scale, "airtable")
    base.control.add_fault("airtable", "429", path="tbl", after=3, retry_after="none")
    base.requests()

    base.publish()

    asked = base.requests()
    refused = [row for row in asked if row["status"] == 429]
    assert len(refused) == 1
    after = asked[asked.index(refused[0]) + 1]
    assert after["at"] - refused[0]["at"] >= 30 / scale
    assert base.control.violations("airtable") == 0
    assert not base.differences()


def test_an_exhausted_quota_stops_publishing_and_nothing_else(fresh):
    fresh.control.airtable_set_quota(5)

    with pytest.raises(QuotaExhaustedError):
        fresh.publish()
    fresh.requests()
    with pytest.raises(QuotaExhaustedError, match="quota is used up"):
        fresh.publish()

    assert fresh.requests() == []
    fresh.edit(fresh.task_ids()[0], name="Order steel")
    assert fresh.account.scalar("SELECT count(*) FROM public.tasks WHERE title = 'Order steel'") == 1


def test_a_quota_that_ends_while_the_base_is_looked_at_is_remembered_too(base):
    base.control.airtable_set_quota(0)

    with pytest.raises(QuotaExhaustedError):
        base.publish(check="sample")
    refused = len(base.requests())
    with pytest.raises(QuotaExhaustedError, match="quota is used up"):
        base.publish()

    assert refused == 1
    assert base.requests() == []


def test_publishing_goes_on_when_somebody_asks_for_it(fresh):
    fresh.control.airtable_set_quota(5)
    with pytest.raises(QuotaExhaustedError):
        fresh.publish()

    fresh.control.airtable_set_quota(None)
    fresh.publish(resume=True)

    assert not fresh.differences()
    fresh.publish()


def test_four_fifths_of_the_months_calls_are_a_warning(fresh):
    fresh.account = fresh.account.change(airtable_monthly_calls=10_000)
    quiet = fresh.publish()
    used = fresh.account.scalar("SELECT calls FROM twm.monthly_calls")

    fresh.account = fresh.account.change(airtable_monthly_calls=used + 3)
    fresh.edit(fresh.task_ids()[0], name="Order steel")
    loud = fresh.publish()
    silent = fresh.publish()

    assert not [report.problems for report in (*quiet.values(), *silent.values()) if report.problems]
    [problem] = [problem for report in loud.values() for problem in report.problems]
    assert "AIRTABLE_MONTHLY_CALLS" in problem


def test_the_months_last_call_is_not_exceeded(fresh):
    unlimited = fresh.account
    fresh.account = unlimited.change(airtable_monthly_calls=6)

    with pytest.raises(QuotaExhaustedError, match="AIRTABLE_MONTHLY_CALLS"):
        fresh.publish()
    with pytest.raises(QuotaExhaustedError, match="AIRTABLE_MONTHLY_CALLS"):
        fresh.publish()

    assert len(fresh.requests()) == 6
    fresh.account = unlimited
    fresh.publish()
    assert not fresh.differences()


# -- windows ---------------------------------------------------------------------------------------------


def test_a_window_that_ends_in_the_middle_of_publishing_leaves_the_rest_to_the_next(make_base):
    base = make_base(tasks=300)
    base.control.set_latency(0.2, "airtable")

    base.publish(seconds=0.5)
    published = base.account.scalar("SELECT count(*) FROM twm.published")
    base.control.set_latency(0, "airtable")
    base.publish()

    assert published < base.account.scalar("SELECT count(*) FROM twm.published")
    assert not base.differences()


def test_a_publisher_that_has_lost_its_lock_makes_no_further_call(fresh, monkeypatch):
    monkeypatch.setattr("twm_pipeline.sync.window.LOCK_CHECK_SECONDS", 0)
    calls: list[int] = []

    def lose_the_lock(*_: object) -> None:
        if not calls:
            fresh.execute(
                f"SELECT pg_terminate_backend(pid) FROM pg_locks WHERE {HELD_HERE}"
                f" AND classid = {WINDOW_LOCK} AND objid = 3"
            )
            calls.append(len(fresh.requests()))

    with pytest.raises(WindowClosedError):
        fresh.publish(on_commit=lose_the_lock)

    assert len(fresh.requests()) <= CALLS_AT_ONCE


def test_a_look_that_is_asked_for_beside_an_open_window_is_taken_by_it(base):
    task_id = base.task_ids()[0]
    base.control.airtable_delete("Tasks", base.record_of(task_id))
    over = threading.Event()

    def until_over() -> None:
        if over.is_set():
            raise WindowClosedError("over")

    engine, settings = base.account.engine, base.account.settings
    window = PublishWindow(engine=engine, settings=settings, seconds=600, should_stop=until_over)

    def keep_open() -> None:
        with suppress(WindowClosedError):
            window.run()

    def wait(seconds: float) -> None:
        over.wait(seconds)

    holder = threading.Thread(target=keep_open)
    holder.start()
    while not base.account.scalar(
        f"SELECT count(*) FROM pg_locks WHERE {HELD_HERE} AND classid = {WINDOW_LOCK}"
    ):
        over.wait(0.02)
    ran = PublishWindow(engine=engine, settings=settings, check="sample", wait=wait).run()
    over.set()
    holder.join()

    assert not ran
    assert found_in(base, "tasks")["tasks"]["missing"] == 1
    base.publish()
    assert not base.differences()


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


# -- looking at the base ---------------------------------------------------------------------------------


def check(base: Base, how: How, *, views: tuple[Key, ...] = KEYS) -> dict[Key, dict[str, Any]]:
    """Publish, look at the base, write again what differs; return what was found."""
    engine, settings = base.account.engine, base.account.settings
    assert PublishWindow(engine=engine, settings=settings, check=how, views=views).run()
    return found_in(base, *views)


def found_in(base: Base, *views: Key) -> dict[Key, dict[str, Any]]:
    """Return what the last look at the base has found."""
    with base.account.engine.connect() as connection:
        name = str(base.account.settings.airtable_base_id)
        return {view: load_publication(connection, name, view).check_found or {} for view in views}


@pytest.mark.parametrize("tables", [False, True], ids=["rows", "tables"])
def test_a_wiped_base_is_refilled_without_a_vendor_call(base, tables):
    base.control.airtable_wipe(tables=tables)
    asked = [base.account.requests(source) for source in ("teamwork", "missive")]

    check(base, "sample")

    assert not base.differences()
    assert [base.account.requests(source) for source in ("teamwork", "missive")] == asked


def test_a_sample_of_a_base_that_is_as_it_should_be_costs_a_call_a_table(base):
    found = check(base, "sample", views=("tasks",))["tasks"]

    assert len(base.requests()) == 1
    assert (found["checked"], found["missing"], found["different"]) == (len(base.task_ids()), 0, 0)


def test_a_look_compares_everything_with_what_was_published_first(base):
    task_id = base.task_ids()[0]
    base.execute("UPDATE teamwork.tasks SET title = 'Order steel' WHERE id = :id", id=task_id)
    base.execute("TRUNCATE twm.change_log")
    assert base.tasks().compared == 0

    check(base, "sample")

    assert base.cells_of(task_id)["name"] == "Order steel"


def test_what_a_look_finds_is_kept_for_everybody(base):
    found = check(base, "whole")["tasks"]

    rows = len(base.task_ids())
    assert found == {
        "how": "whole",
        "rows": rows,
        "records": rows,
        "checked": rows,
        "missing": 0,
        "different": 0,
        "doubled": [],
        "remade": False,
    }


def test_samples_go_round(make_base):
    base = make_base(tasks=300, conversations=3)
    base.publish()
    counts = [check(base, "sample")["tasks"]["checked"] for _ in range(4)]

    assert counts == [100, 100, len(base.task_ids()) - 200, 100]


@pytest.mark.parametrize("how", ["sample", "whole"])
def test_deleted_and_changed_records_are_as_the_mirror_says_again(base, how):
    first, second, third, *_ = base.task_ids("priority IS NOT NULL")
    base.control.airtable_delete("Tasks", base.record_of(first))
    base.control.airtable_edit("Tasks", base.record_of(second), {"name": "My own name", "priority": None})
    base.control.airtable_edit("Tasks", base.record_of(third), {"id": "something else"})

    found = check(base, how)["tasks"]

    assert (found["missing"], found["different"]) == (1, 2)
    assert not base.differences()
    assert check(base, how)["tasks"]["different"] == 0


def test_a_deleted_record_deep_in_the_table_comes_back_by_a_whole_look(make_base):
    base = make_base(tasks=250, conversations=3)
    base.publish()
    base.control.airtable_delete("Tasks", base.record_of(base.task_ids()[-1]))

    assert check(base, "sample")["tasks"]["missing"] == 0
    assert check(base, "whole")["tasks"]["missing"] == 1
    assert not base.differences()


def test_doubled_records_are_told_of_and_left_to_people(base):
    task_id = base.task_ids()[3]
    copy = base.control.airtable_duplicate("Tasks", base.record_of(task_id))
    base.control.airtable_create("Tasks", {"name": "Somebody's own"})

    reports = base.publish(check="whole")

    assert found_in(base, "tasks")["tasks"]["doubled"] == [str(task_id)]
    [problem] = reports["tasks"].problems
    assert str(task_id) in problem
    assert copy in base.records()


def test_a_key_that_a_look_puts_right_is_not_told_of_as_doubled(base):
    first, second, *_ = base.task_ids()
    base.control.airtable_edit("Tasks", base.record_of(first), {"id": str(second)})

    found = check(base, "whole")["tasks"]

    assert (found["different"], found["doubled"]) == (1, [])
    assert not base.differences()


def test_a_look_leaves_alone_what_waits_to_be_sent(picky):
    bad = refuse_one(picky)

    found = check(picky, "whole")["tasks"]

    assert found["different"] == 0
    assert list(picky.set_aside()) == [str(bad)]


def test_a_look_changes_nothing_of_what_users_add(base):
    base.control.airtable_add_field("Tasks", "My notes", "multilineText")
    base.control.airtable_edit("Tasks", base.record_of(base.task_ids()[0]), {"My notes": "call Nora"})

    found = check(base, "whole")["tasks"]

    assert (found["missing"], found["different"]) == (0, 0)
