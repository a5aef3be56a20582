"""Deletions arrive with evidence, and only with evidence (G9, DESIGN D5)."""

import pytest

from twm_pipeline_tests.faults.world import SECOND_LOOK_SECONDS, World


def alive(row):
    return not row["deleted"] and row["visible"]


def readable(row):
    return row["visible"] and not row["trashed"] and not row["guest"]


def vanish_conversation(world: World) -> None:
    for key in world.ids("conversation", readable)[:2]:
        world.control.delete_conversation(key)


def lose_conversation(world: World) -> None:
    world.control.set_conversation_access(world.ids("conversation", readable)[0], accessible=False)


def vanish_message(world: World) -> None:
    several = world.ids("conversation", lambda row: readable(row) and len(row["message_ids"]) > 1)
    inside = next(row for row in world.control.truth("conversation") if row["id"] == several[0])
    world.control.delete_message(inside["message_ids"][0])


def vanish_comment(world: World) -> None:
    row = next(row for row in world.control.truth("conversation") if readable(row) and row["comment_ids"])
    world.control.delete_comment(row["id"], row["comment_ids"][0])


def merge_unnoticed(world: World) -> None:
    world.control.set_answer("missive.merge_bumps_activity", value=False)
    gone, kept = world.ids("conversation", readable)[:2]
    world.control.merge(gone, kept)


def merge_with_a_message_that_vanished(world: World) -> None:
    """The survivor's list is read in the same sweep that moves the messages to it."""
    world.control.set_answer("missive.merge_bumps_activity", value=False)
    rows = [row for row in world.control.truth("conversation") if readable(row)]
    gone = next(row for row in rows if len(row["message_ids"]) > 1)
    kept = next(row for row in rows if row["id"] != gone["id"])
    world.control.delete_message(gone["message_ids"][0])
    world.control.merge(gone["id"], kept["id"])


def delete_list(world: World) -> None:
    world.control.delete_tasklist(world.ids("tasklist", lambda row: row["deleted_at"] is None)[0])


def delete_list_with_tasks(world: World) -> None:
    world.control.set_answer("teamwork.deleted_list_tasks", "deleted")
    world.control.set_answer("teamwork.delete_bumps_updated_at", value=False)
    delete_list(world)


def delete_tag(world: World) -> None:
    world.control.delete_tag(world.ids("tag")[0])


def delete_person(world: World) -> None:
    world.control.delete_person(world.ids("person", lambda row: row["visible"] and not row["admin"])[0])


def delete_project(world: World) -> None:
    world.control.delete_project(world.ids("project", lambda row: row["accessible"])[-1])


def lose_project(world: World) -> None:
    key = world.ids("project", lambda row: row["accessible"] and row["deleted_at"] is None)[-1]
    world.control.set_project_access(key, accessible=False)


UNSEEN = [
    vanish_conversation,
    lose_conversation,
    vanish_message,
    vanish_comment,
    merge_unnoticed,
    merge_with_a_message_that_vanished,
    delete_list,
    delete_list_with_tasks,
    delete_tag,
    delete_person,
    delete_project,
    lose_project,
]


@pytest.mark.parametrize("change", UNSEEN, ids=lambda change: change.__name__)
def test_what_disappears_without_a_sign_is_found_by_a_reconcile_and_written_once(world, change):
    world.sync()
    change(world)

    world.settle()
    before = world.versions()
    world.sync()
    world.reconcile()

    world.assert_true()
    assert world.versions() == before


def test_a_comment_that_vanished_in_the_trash_does_not_come_back_with_its_conversation(world):
    row = next(row for row in world.control.truth("conversation") if readable(row) and row["comment_ids"])
    world.sync("missive")
    world.control.trash(row["id"])
    world.sync("missive")
    world.control.delete_comment(row["id"], row["comment_ids"][0])
    world.control.untrash(row["id"])

    world.reconcile("missive")
    world.control.advance(SECOND_LOOK_SECONDS)
    world.reconcile("missive")

    world.assert_true("missive")


def test_a_project_that_comes_back_brings_its_tasks_back(world):
    world.sync()
    lose_project(world)
    world.settle()
    hidden = world.scalar("SELECT count(*) FROM teamwork.tasks WHERE inaccessible")

    for key in world.ids("project", lambda row: not row["accessible"]):
        world.control.set_project_access(key, accessible=True)
    world.settle()

    assert hidden > 0
    world.assert_true()


def test_a_task_deleted_while_it_could_not_be_seen_becomes_a_tombstone(world):
    world.sync()
    tasks = {row["id"]: row["project_id"] for row in world.control.truth("task")}
    before = world.ids("project", lambda row: not row["accessible"])
    lose_project(world)
    (lost,) = set(world.ids("project", lambda row: not row["accessible"])) - set(before)
    world.settle()
    task_id = next(key for key, project in tasks.items() if project == lost)

    world.control.delete_task(task_id)
    world.control.set_project_access(lost, accessible=True)
    world.settle()

    world.assert_true()


def test_tasks_known_as_inaccessible_cost_no_request_per_pass_and_few_per_reconcile(world):
    world.sync()
    lose_project(world)
    world.settle()
    world.reconcile("teamwork")
    world.control.advance(SECOND_LOOK_SECONDS)
    world.sync("teamwork")

    world.control.reset_counters()
    world.sync("teamwork")
    quiet = world.control.requests("teamwork")
    world.control.reset_counters()
    world.reconcile("teamwork")
    single = [row for row in world.control.requests("teamwork") if "/tasks/" in row["path"]]

    assert not [row for row in quiet if "/tasks/" in row["path"] or "ids=" in row["query"]]
    assert single == []


def test_a_bare_404_is_believed_only_after_ten_minutes(world):
    world.sync()
    key = world.ids("conversation", readable)[0]
    world.control.delete_conversation(key)

    world.reconcile("missive")
    world.reconcile("missive")
    at_once = world.scalar("SELECT deleted FROM missive.conversations WHERE id = :key", key=key)
    world.control.advance(SECOND_LOOK_SECONDS)
    world.sync("missive")

    assert at_once is False
    assert world.scalar("SELECT deleted FROM missive.conversations WHERE id = :key", key=key) is True


def test_tasks_of_projects_that_cannot_be_read_any_more_are_inaccessible_and_not_deleted(make_world):
    world = make_world(tasks=300)
    world.sync()
    living = world.scalar("SELECT count(*) FROM teamwork.tasks WHERE NOT deleted")
    for key in world.ids("project", lambda row: row["accessible"])[1:]:
        world.control.set_project_access(key, accessible=False)

    world.settle("teamwork")

    assert world.scalar("SELECT count(*) FROM teamwork.tasks WHERE NOT deleted") == living
    assert world.scalar("SELECT count(*) FROM teamwork.tasks WHERE inaccessible") > living // 2
    world.assert_true()


def test_a_lost_permission_is_not_taken_for_a_mass_deletion(make_world):
    world = make_world(conversations=120)
    world.sync()
    lost = world.ids("conversation", readable)[:60]
    for key in lost:
        world.control.set_conversation_access(key, accessible=False)

    world.reconcile("missive")
    world.control.advance(SECOND_LOOK_SECONDS)
    (report,) = world.reconcile("missive")
    for key in lost:
        world.control.set_conversation_access(key, accessible=True)
    world.settle("missive")

    assert any("--confirm-deletions" in line for line in report.held_deletions)
    assert world.scalar("SELECT count(*) FROM missive.emails WHERE deleted_evidence IS NOT NULL") == 0
    world.assert_true()


def test_a_mass_deletion_holds_back_nothing_but_itself_until_it_is_confirmed(make_world):
    world = make_world(conversations=120)
    world.sync()
    gone = world.ids("conversation", readable)[:40]
    for key in gone:
        world.control.delete_conversation(key)
    world.reconcile("missive")
    world.control.advance(SECOND_LOOK_SECONDS)

    world.control.receive_mail(subject="after the loss")
    world.sync("missive")
    (held,) = world.reconcile("missive")
    living = world.scalar(
        "SELECT count(*) FROM missive.conversations WHERE id = ANY(:ids) AND NOT deleted", ids=gone
    )
    arrived = world.scalar("SELECT count(*) FROM missive.emails WHERE subject = 'after the loss'")
    (confirmed,) = world.reconcile("missive", confirm=True)

    assert living == len(gone)
    assert arrived == 1
    assert held.held_deletions
    assert not confirmed.held_deletions
    world.assert_true()


def test_old_deletions_alone_hold_nothing_back(make_world):
    world = make_world(conversations=120)
    world.sync()
    for key in world.ids("conversation", readable)[:40]:
        world.control.delete_conversation(key)
    world.settle()
    world.reports.clear()

    world.sync()
    reports = world.reconcile()

    assert not [line for report in (*world.reports, *reports) for line in report.held_deletions]
