"""Only the vendor's clock judges the vendor's rows, and no row dated ahead of it is believed (G2)."""

import re
from datetime import UTC, datetime, timedelta

import pytest

from twm_pipeline.errors import PACKAGE_DIR
from twm_pipeline.sandbox import Sandbox, SandboxOptions
from twm_pipeline_tests.clocks import set_clock_back
from twm_pipeline_tests.faults.world import SECOND_LOOK_SECONDS, World, is_living, settings_for

YEAR_2099 = 4_087_497_600
YEAR = timedelta(days=365)
OUR_CLOCK = re.compile(r"datetime\.now|utcnow|date\.today|time\.time\(")
NOT_ABOUT_ROWS = {
    "sync/reparse.py": "asks no vendor: the rows' own versions count",
    "sync/publish_files.py": "how long an address is still good for",
    "sync/attachment_look.py": "how long an address is still good for",
}


def test_nothing_that_reads_or_stores_rows_looks_at_our_clock():
    modules = [path for name in ("sync", "sources", "mirror") for path in (PACKAGE_DIR / name).rglob("*.py")]
    looking = {str(path.relative_to(PACKAGE_DIR)) for path in modules if OUR_CLOCK.search(path.read_text())}

    assert looking == NOT_ABOUT_ROWS.keys()


@pytest.mark.parametrize("ahead", [YEAR, -YEAR, timedelta(hours=2), -timedelta(hours=2)], ids=str)
def test_the_vendors_clock_may_be_anywhere_else_than_ours(engine, database, tmp_path, ahead):
    anchor = datetime.now(UTC) + ahead - timedelta(minutes=1)
    with Sandbox(SandboxOptions(tasks=40, conversations=8, anchor=anchor)) as box:
        box.world.clock.offset = ahead.total_seconds()
        world = World(control=box.control, engine=engine, settings=settings_for(box, database, tmp_path))
        world.sync()
        world.control.random_changes(30, 1)
        gone = world.ids("conversation", lambda row: row["visible"] and not row["trashed"])[0]
        world.control.delete_conversation(gone)
        world.sync()
        world.assert_checkpoints_are_honest()
        world.reconcile()
        believed = world.scalar("SELECT deleted FROM missive.conversations WHERE id = :id", id=gone)
        world.settle()

        assert believed is False
        world.assert_true()


def test_a_vendors_clock_that_jumps_ages_later_loses_nothing(world):
    world.sync()
    for seconds in (SECOND_LOOK_SECONDS, YEAR.total_seconds(), 20 * YEAR.total_seconds()):
        world.control.random_changes(10, int(seconds))
        world.control.advance(seconds)
        world.sync()
    world.settle()

    world.assert_true()


def test_a_vendors_clock_that_was_ahead_and_is_right_again_stops_no_poll_after_a_reconcile(
    engine, database, tmp_path
):
    with Sandbox(SandboxOptions(tasks=40, conversations=8)) as box:
        world = World(control=box.control, engine=engine, settings=settings_for(box, database, tmp_path))
        world.sync()
        quiet = world.ids("task", is_living)[0]
        box.world.clock.offset = YEAR.total_seconds()
        world.control.create_task("dated a year ahead")
        world.control.receive_mail()
        world.sync()
        box.world.clock.offset = 0.0

        notes = [note for report in world.reconcile() for note in report.notes]
        world.control.edit_task(quiet, name="edited by the right clock")
        world.sync()

        assert world.scalar("SELECT title FROM teamwork.tasks WHERE id = :id", id=quiet).startswith("edited")
        assert world.scalar("SELECT max(last_event_time) < now() + interval '1 hour' FROM twm.checkpoints")
        assert sum("was set back behind the checkpoints of" in note for note in notes) == 2


@pytest.mark.parametrize("by", [YEAR, timedelta(hours=2), -YEAR], ids=str)
def test_postgresqls_clock_may_jump_between_two_passes(world, by):
    world.sync()
    world.reconcile()
    world.control.random_changes(30, 5)

    set_clock_back(world.engine, by)

    world.sync()
    world.settle()
    world.assert_true()


@pytest.mark.parametrize("source", ["teamwork", "missive"])
def test_rows_from_the_future_are_stored_and_hold_up_nothing(make_world, source):
    world = make_world(tasks=120, conversations=70)
    tasks = world.ids("task", lambda row: row["visible"] and not row["deleted"])[:3]
    conversations = world.ids("conversation", lambda row: row["visible"] and not row["trashed"])[:60]
    for key in tasks:
        world.control.redate_task(key, YEAR_2099)
    for number, key in enumerate(conversations):
        world.control.redate_conversation(key, YEAR_2099 + number)

    world.sync(source)
    world.control.random_changes(30, 3, source)
    world.sync(source)
    head = world.scalar("SELECT max(last_event_time) < now() + interval '1 day' FROM twm.checkpoints")
    world.settle(source)

    assert head is True
    world.assert_true(source)


def test_a_task_from_the_future_is_not_frozen(world):
    task_id = world.ids("task", lambda row: row["visible"] and not row["deleted"])[0]
    world.control.redate_task(task_id, YEAR_2099)
    world.sync("teamwork")

    world.control.edit_task(task_id, name="corrected")
    world.sync("teamwork")

    assert world.scalar("SELECT title FROM teamwork.tasks WHERE id = :id", id=task_id) == "corrected"
