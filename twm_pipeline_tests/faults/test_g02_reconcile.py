"""What no poll can see is in the mirror after a reconcile, whatever interrupted that one before (G2, G9)."""

import re

import pytest

from twm_pipeline.errors import RetriableError, WindowClosedError
from twm_pipeline.mirror.sweeps import open_sweep
from twm_pipeline.sync.reconcile import ReconcileOptions
from twm_pipeline.sync.window import run_reconcile
from twm_pipeline_tests.faults import worker
from twm_pipeline_tests.faults.world import SECOND_LOOK_SECONDS, wait_for_requests

FEW = {"reconcile_days": 7, "reconcile_conversations": 6}
NOTHING_IN_FULL = {"reconcile_days": 0, "reconcile_conversations": 0}
LISTS = re.compile(r"/conversations/([^/]+)/(messages|comments)$")


def readable(row):
    return row["visible"] and not (row["guest"] or row["trashed"])


def with_comments(row):
    return readable(row) and row["comment_ids"]


def read_in_full(world):
    """Return the conversations whose messages or comments were asked for since the counters were reset."""
    return {match[1] for row in world.control.requests("missive") if (match := LISTS.search(row["path"]))}


def sweep(world, source, *, should_stop=lambda: None, **options):
    """Sweep one source; return rows gone and the report."""
    return run_reconcile(
        world.engine,
        world.settings,
        source,
        options=ReconcileOptions(**options),
        should_stop=should_stop,
    )


def stopping_at(commits):
    """Return what ends a sweep as a cancelled run or one past its longest time does."""
    left = iter(range(commits))

    def should_stop():
        if next(left, None) is None:
            raise WindowClosedError("enough")

    return should_stop


def edit_all_comments(world):
    """Edit a comment of every conversation that has one: nothing but reading it again shows that."""
    rows = [row for row in world.control.truth("conversation") if with_comments(row)]
    for row in rows:
        world.control.edit_comment(row["id"], row["comment_ids"][0], "edited long after")
    return len(rows)


def edited(world):
    return world.scalar("SELECT count(*) FROM missive.comments WHERE body = 'edited long after'")


def test_quiet_conversations_are_read_in_full_by_turns_until_all_have_been(make_world):
    world = make_world(tasks=1, conversations=30, overrides=FEW)
    world.sync("missive")
    count = edit_all_comments(world)
    found, asked = [], []

    for _ in range(30 // FEW["reconcile_conversations"] + 1):
        world.control.reset_counters()
        (report,) = world.reconcile("missive")
        asked.append(len(read_in_full(world)))
        found.append(edited(world))

    recent = world.scalar(
        "SELECT count(*) FROM missive.conversations WHERE last_activity_at > now() - interval '7 days'"
    )
    assert max(asked) <= FEW["reconcile_conversations"] + recent
    assert found[0] < count
    assert found[-1] == count
    assert f"{FEW['reconcile_conversations']} by turns, all of them within" in " ".join(report.notes)
    world.assert_true("missive")


def test_a_full_sweep_reads_every_conversation_in_full(make_world):
    world = make_world(tasks=1, conversations=20, overrides=NOTHING_IN_FULL)
    world.sync("missive")
    count = edit_all_comments(world)

    world.reconcile("missive")
    before = edited(world)
    sweep(world, "missive", full=True)

    assert (before, edited(world)) == (0, count)
    world.assert_true("missive")


def test_a_list_shows_labels_state_and_vanished_messages_of_quiet_conversations_at_no_further_cost(
    make_world,
):
    world = make_world(tasks=1, conversations=20, overrides=NOTHING_IN_FULL)
    world.sync("missive")
    quiet = [row for row in world.control.truth("conversation") if readable(row)][-6:]
    label = world.ids("label")[0]
    world.control.label(quiet[0]["id"], label)
    world.control.close_conversation(quiet[1]["id"])
    world.control.trash(quiet[2]["id"])
    shrunk = next(row for row in quiet[3:] if row["message_ids"])
    world.control.delete_message(shrunk["message_ids"][0])
    world.control.reset_counters()

    world.reconcile("missive")

    assert read_in_full(world) == {shrunk["id"]}
    world.settle("missive")
    world.assert_true("missive")


def test_a_conversation_dated_in_the_future_is_read_in_full_by_every_sweep(make_world):
    world = make_world(tasks=1, conversations=12, overrides={"reconcile_conversations": 0})
    key = next(row for row in world.control.truth("conversation") if with_comments(row))["id"]
    world.control.redate_conversation(key, 4_000_000_000)
    world.sync("missive")
    edit_all_comments(world)
    world.control.receive_mail(key)

    world.reconcile("missive")

    stored = world.scalar("SELECT count(*) FROM missive.emails WHERE conversation_id = :key", key=key)
    row = next(row for row in world.control.truth("conversation") if row["id"] == key)
    assert stored == len(row["message_ids"])
    assert world.scalar(
        "SELECT count(*) FROM missive.comments WHERE conversation_id = :key AND body = 'edited long after'",
        key=key,
    )


@pytest.mark.parametrize(("source", "commits"), [("missive", (2, 3)), ("teamwork", (2, 3))], ids=str)
def test_an_interrupted_sweep_goes_on_where_it_was(make_world, source, commits):
    world = make_world(
        tasks=220,
        conversations=60,
        answers={"teamwork.max_page_size": 50},
        overrides={"reconcile_days": 400, "reconcile_conversations": 0},
    )
    world.sync(source)
    world.control.random_changes(20, 3, source)
    world.control.reset_counters()
    sweep(world, source, dry_run=True)
    whole = len(world.control.requests(source))

    world.control.reset_counters()
    for number in commits:
        with pytest.raises(WindowClosedError):
            sweep(world, source, should_stop=stopping_at(number))
    asked = len(world.control.requests(source))
    world.control.reset_counters()
    _, report = sweep(world, source)
    rest = len(world.control.requests(source))

    assert "interrupted sweep" in report.notes[0]
    assert rest < whole
    assert asked + rest < whole + 60
    world.settle(source)
    world.assert_true(source)


@pytest.mark.parametrize("source", ["teamwork", "missive"])
def test_a_sweep_killed_in_the_middle_again_and_again_ends_in_the_truth(make_world, source):
    world = make_world(
        tasks=300,
        conversations=60,
        budgets=300.0,
        answers={"teamwork.max_page_size": 50},
        overrides={"budget_time_scale": 300.0},
    )
    world.sync(source)
    world.control.random_changes(30, 7, source)

    for count in (2, 5, 9):
        asked = world.control.request_count()
        process = worker.start(world.settings, f"reconcile:{source}")
        wait_for_requests(world.control, asked + count)
        process.kill()
        process.communicate()
    world.settle(source)

    world.assert_true(source)


def test_an_interrupted_sweep_is_begun_anew_a_day_later(make_world):
    world = make_world(tasks=1, conversations=20)
    world.sync("missive")
    with pytest.raises(WindowClosedError):
        sweep(world, "missive", should_stop=stopping_at(3))
    with world.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE twm.sweeps SET moved_at = now() - interval '21 hours'")

    _, report = sweep(world, "missive")

    assert not [note for note in report.notes if "interrupted" in note]


def test_one_sweep_of_a_source_at_a_time(world):
    with (
        open_sweep(world.engine, "teamwork", place={}),
        pytest.raises(RetriableError, match="another complete sweep is under way"),
    ):
        sweep(world, "teamwork")

    sweep(world, "teamwork")


def change_teamwork(world):
    world.control.random_changes(40, 6, "teamwork")


def change_missive(world):
    """Change what lists and comments show, and let two conversations vanish that were missed before."""
    rows = [row for row in world.control.truth("conversation") if with_comments(row)]
    world.control.label(rows[0]["id"], world.ids("label")[0])
    world.control.trash(rows[1]["id"])
    world.control.edit_comment(rows[2]["id"], rows[2]["comment_ids"][0], "edited long after")
    world.control.receive_mail(rows[3]["id"])
    world.control.receive_mail()


@pytest.mark.parametrize(("source", "change"), [("teamwork", change_teamwork), ("missive", change_missive)])
def test_a_dry_run_tells_what_the_real_one_does_and_keeps_nothing(make_world, source, change):
    world = make_world(tasks=150, conversations=30)
    world.sync(source)
    world.control.random_changes(40, 5, source)
    for key in world.ids("conversation", readable)[:2]:
        world.control.delete_conversation(key)
    world.reconcile(source)
    world.control.advance(SECOND_LOOK_SECONDS)
    change(world)
    before = everything(world)

    told, dry = sweep(world, source, dry_run=True)
    after = everything(world)
    done, real = sweep(world, source)

    assert after == before
    assert told == done
    assert figures(dry, source) == figures(real, source)


def figures(report, source):
    """Return what was found; a dry run of Missive looks at the rows of a merge once more, and counts them."""
    return {
        name: (item.written if source == "teamwork" else None, item.absent, item.deleted)
        for name, item in report.streams.items()
    }


def test_a_dry_run_shows_held_deletions(make_world):
    world = make_world(tasks=1, conversations=120)
    world.sync("missive")
    for key in world.ids("conversation", readable)[:40]:
        world.control.delete_conversation(key)
    world.reconcile("missive")
    world.control.advance(SECOND_LOOK_SECONDS)

    _, report = sweep(world, "missive", dry_run=True)

    (held,) = report.held_deletions
    assert "twm reconcile missive --confirm-deletions" in held


def everything(world):
    """Return place and writer of every row, of the pipeline's own tables too, but not of what only counts."""
    own = {}
    with world.engine.connect() as connection:
        for table in ("checkpoints", "sources", "set_aside", "sweeps", "sweep_seen", "second_looks"):
            rows = connection.exec_driver_sql(f"SELECT ctid::text, xmin::text FROM twm.{table} ORDER BY 1")
            own[table] = [tuple(row) for row in rows]
    return own | world.versions()


@pytest.mark.parametrize("change", ["lose", "delete"])
def test_a_project_is_deleted_only_where_the_site_says_so(world, change):
    world.sync("teamwork")
    key = world.ids("project", lambda row: row["accessible"] and row["deleted_at"] is None)[-1]
    if change == "lose":
        world.control.set_project_access(key, accessible=False)
    else:
        world.control.delete_project(key)

    world.settle("teamwork")

    tasks = "SELECT DISTINCT deleted, inaccessible FROM public.tasks WHERE project_id = :key AND NOT deleted"
    shown = "SELECT deleted, inaccessible FROM teamwork.projects WHERE id = :key"
    with world.engine.connect() as connection:
        project = connection.exec_driver_sql(shown.replace(":key", str(key))).one()
        left = [tuple(row) for row in connection.exec_driver_sql(tasks.replace(":key", str(key)))]
    assert tuple(project) == ((False, True) if change == "lose" else (True, False))
    assert left == ([(False, True)] if change == "lose" else [])
    world.assert_true("teamwork")


def test_comments_are_deleted_while_their_conversation_is_in_the_trash(world):
    world.sync("missive")
    row = next(row for row in world.control.truth("conversation") if with_comments(row))
    living = "SELECT count(*) FROM missive.comments WHERE conversation_id = :key AND NOT deleted"

    world.control.trash(row["id"])
    world.sync("missive")
    in_trash = world.scalar(living, key=row["id"])
    before = world.versions()
    sweep(world, "missive", full=True)
    again = world.versions()
    world.control.untrash(row["id"])
    world.sync("missive")

    assert in_trash == 0
    assert again == before
    assert world.scalar(living, key=row["id"]) == len(row["comment_ids"])
    world.assert_true("missive")


def test_a_conversation_merged_twice_brings_everything_to_the_last_survivor(world):
    world.control.set_answer("missive.merge_bumps_activity", value=False)
    world.sync("missive")
    first, second, third = [row for row in world.control.truth("conversation") if with_comments(row)][:3]
    world.control.merge(first["id"], second["id"])
    world.reconcile("missive")

    world.control.merge(second["id"], third["id"])
    world.settle("missive")

    with world.engine.connect() as connection:
        aliases = dict(
            connection.exec_driver_sql("SELECT old_id, new_id FROM missive.conversation_aliases").all()
        )
    assert (aliases[first["id"]], aliases[second["id"]]) == (third["id"], third["id"])
    world.assert_true("missive")


def test_a_deletion_that_the_feed_of_deleted_tasks_leaves_out_is_told_by_the_activity(world):
    world.sync("teamwork")
    key = world.ids("task", lambda row: row["visible"] and not row["deleted"])[0]
    world.control.delete_task(key)
    world.control.add_fault("teamwork", "empty_page", path=r"/tasks\.json", count=2)

    world.sync("teamwork")

    assert world.scalar("SELECT deleted FROM teamwork.tasks WHERE id = :key", key=key)
