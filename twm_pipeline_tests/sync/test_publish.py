"""Publishing: what differs is sent, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from twm_pipeline.airtable.client import AirtableClient, budget_plan
from twm_pipeline.budget import Budget
from twm_pipeline.errors import WindowClosedError
from twm_pipeline.settings import environment_of
from twm_pipeline.sync.publish import Publisher
from twm_pipeline.sync.publishing import CALLS_AT_ONCE
from twm_pipeline.sync.window_lock import WINDOW_LOCK
from twm_pipeline_tests.databases import HELD_HERE
from twm_pipeline_tests.publishing import kinds


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
    monkeypatch.setattr("twm_pipeline.sync.window_lock.LOCK_CHECK_SECONDS", 0)
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
