"""Looking at the base: what is gone or was changed there is written again."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

import pytest

from twm_pipeline.airtable.fields import KEYS, Key
from twm_pipeline.errors import WindowClosedError
from twm_pipeline.mirror.published import load_publication
from twm_pipeline.sync.publish_check import How
from twm_pipeline.sync.publishing import PublishWindow
from twm_pipeline.sync.window_lock import WINDOW_LOCK
from twm_pipeline_tests.databases import HELD_HERE
from twm_pipeline_tests.sync.bases import Base, refuse_one


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
