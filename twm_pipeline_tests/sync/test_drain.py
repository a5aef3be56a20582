"""What the spool says has changed is read again: coalesced, in order of urgency, and never lost."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr

from twm_pipeline.errors import AuthenticationError, UnansweredError
from twm_pipeline.records import Hint
from twm_pipeline.sources.teamwork_rows import parse_task
from twm_pipeline.spool import Spool
from twm_pipeline.sync.drain import spool_of
from twm_pipeline_tests.sync.accounts import Account
from twm_pipeline_tests.sync.deliveries import deliver, drain, mail_event, nothing_waits, row, task_event

SETTLED = (
    "SELECT id FROM missive.conversations WHERE NOT deleted AND children_read_at = last_activity_at LIMIT 1"
)


# -- Teamwork ------------------------------------------------------------------------------------------------


def test_a_changed_task_is_read_by_one_request(synced: Account) -> None:
    task_id = synced.control.create_task("Order steel")
    deliver(synced, "teamwork", task_event(task_id, "TASK.CREATED"))

    drain(synced, "teamwork")

    assert row(synced, task_id).title == "Order steel"
    assert synced.requests("teamwork") == 1
    assert nothing_waits(synced, "teamwork")


def test_many_deliveries_about_one_task_are_one_request(synced: Account) -> None:
    task_id = synced.control.create_task("Order steel")
    deliver(synced, "teamwork", *(task_event(task_id) for _ in range(20)))

    [report] = drain(synced, "teamwork").reports()

    assert synced.requests("teamwork") == 1
    assert report.of("tasks").deliveries == 20
    assert nothing_waits(synced, "teamwork")


def test_many_tasks_are_read_a_hundred_a_call(synced: Account) -> None:
    ids = [synced.control.create_task(f"Task {number}") for number in range(120)]
    deliver(synced, "teamwork", *map(task_event, ids))

    drain(synced, "teamwork")

    assert synced.scalar("SELECT count(*) FROM teamwork.tasks WHERE id = ANY(:ids)", ids=ids) == 120
    assert synced.requests("teamwork") == 2


@pytest.mark.parametrize("answer", ["404", "row"])
def test_a_deleted_task_is_a_tombstone_at_once(synced: Account, answer: str) -> None:
    synced.control.set_answer("teamwork.deleted_get", answer)
    task_id = synced.control.create_task("Order steel")
    synced.sync("teamwork")
    synced.control.delete_task(task_id)
    deliver(synced, "teamwork", task_event(task_id, "TASK.DELETED"))

    drain(synced, "teamwork")

    assert row(synced, task_id).deleted
    assert row(synced, task_id).deleted_at is not None


def test_a_late_delivery_of_a_deletion_leaves_a_restored_task_alive(synced: Account) -> None:
    task_id = synced.control.create_task("Order steel")
    synced.control.delete_task(task_id)
    synced.control.restore_task(task_id)
    deliver(synced, "teamwork", task_event(task_id, "TASK.DELETED"))

    drain(synced, "teamwork")

    assert not row(synced, task_id).deleted


def test_a_restored_task_comes_back_to_life(synced: Account) -> None:
    task_id = synced.control.create_task("Order steel")
    synced.control.delete_task(task_id)
    deliver(synced, "teamwork", task_event(task_id, "TASK.DELETED"))
    drain(synced, "teamwork")
    synced.control.restore_task(task_id)
    deliver(synced, "teamwork", task_event(task_id))

    drain(synced, "teamwork")

    assert not row(synced, task_id).deleted


def test_a_bare_404_is_no_deletion_until_it_is_one_ten_minutes_later(synced: Account) -> None:
    task_id = synced.control.create_task("Order steel")
    synced.sync("teamwork")
    synced.control.delete_task(task_id)
    deliver(synced, "teamwork", task_event(task_id, "TASK.UPDATED"))

    drain(synced, "teamwork")

    assert not row(synced, task_id).deleted
    assert row(synced, task_id).missing_since is not None
    assert nothing_waits(synced, "teamwork")


def test_an_unknown_task_that_answers_404_is_looked_at_once_more(synced: Account) -> None:
    synced.control.add_fault("teamwork", "html_404", count=0)
    hidden = synced.control.create_task("Order steel", hidden=True)
    deliver(synced, "teamwork", task_event(hidden, "TASK.CREATED"))
    drain(synced, "teamwork")
    assert synced.query("SELECT * FROM teamwork.tasks WHERE id = :id", id=hidden) == []
    synced.control.edit_task(hidden, hidden=False)
    synced.control.redate_task(hidden, updated_at=1)

    synced.control.advance(601)
    synced.sync("teamwork")

    assert row(synced, hidden).title == "Order steel"
    assert synced.scalar("SELECT count(*) FROM twm.second_looks") == 0


def test_a_renamed_list_is_read_by_itself(synced: Account) -> None:
    list_id = synced.scalar("SELECT min(id) FROM teamwork.tasklists WHERE NOT deleted")
    synced.control.rename_tasklist(list_id, "Welding")
    deliver(
        synced,
        "teamwork",
        Hint(event="TASKLIST.UPDATED", stream="tasklists", object_id=str(list_id)),
    )

    made = drain(synced, "teamwork")

    assert synced.scalar("SELECT name FROM teamwork.tasklists WHERE id = :id", id=list_id) == "Welding"
    assert synced.requests("teamwork") == 1
    assert not made.poll_wanted.is_set()


def test_a_deleted_list_takes_a_look_at_its_tasks(synced: Account) -> None:
    synced.control.set_answer("teamwork.deleted_list_tasks", "deleted")
    list_id = synced.scalar(
        "SELECT tasklist_id FROM teamwork.tasks WHERE NOT deleted GROUP BY 1 ORDER BY count(*) DESC LIMIT 1"
    )
    synced.control.delete_tasklist(list_id)
    deliver(
        synced,
        "teamwork",
        Hint(event="TASKLIST.DELETED", stream="tasklists", object_id=str(list_id)),
    )

    made = drain(synced, "teamwork")

    assert synced.scalar("SELECT deleted FROM teamwork.tasklists WHERE id = :id", id=list_id)
    assert not synced.scalar(
        "SELECT count(*) FROM teamwork.tasks"
        " WHERE tasklist_id = :id AND NOT deleted AND missing_since IS NULL",
        id=list_id,
    )
    assert made.poll_wanted.is_set()


def test_a_delivery_without_an_object_asks_for_a_poll(synced: Account) -> None:
    deliver(synced, "teamwork", Hint(event="PROJECT.COPIED"))

    made = drain(synced, "teamwork")

    assert made.poll_wanted.is_set()
    assert nothing_waits(synced, "teamwork")


# -- Missive -------------------------------------------------------------------------------------------------


def test_a_new_mail_is_read_with_its_body(synced: Account) -> None:
    ids = synced.control.receive_mail(subject="Offer", body="<p>Two tons</p>")
    deliver(synced, "missive", mail_event(ids["conversation_id"]))

    drain(synced, "missive")

    text = synced.scalar("SELECT body_text FROM missive.emails WHERE id = :id", id=ids["message_id"])
    assert text.strip() == "Two tons"
    assert synced.requests("missive") == 4
    assert nothing_waits(synced, "missive")


def test_a_comment_that_moves_no_activity_is_read(synced: Account) -> None:
    synced.control.set_answer("missive.comment_bumps_activity", False)
    conversation_id = synced.scalar(SETTLED)
    comment_id = synced.control.comment(conversation_id, "Who calls them?")
    deliver(synced, "missive", mail_event(conversation_id, "new_comment"))

    drain(synced, "missive")

    assert (
        synced.scalar("SELECT body FROM missive.comments WHERE id = :id", id=comment_id) == "Who calls them?"
    )


def test_a_label_change_is_one_request(synced: Account) -> None:
    conversation_id = synced.scalar(SETTLED)
    label_id = synced.control.create_label("Urgent")
    synced.control.label(conversation_id, label_id)
    deliver(synced, "missive", mail_event(conversation_id, "label_change"))

    drain(synced, "missive")

    names = synced.scalar("SELECT label_names FROM missive.conversations WHERE id = :id", id=conversation_id)
    assert "Urgent" in names
    assert synced.requests("missive") == 1


def test_bodies_of_several_conversations_share_a_request(synced: Account) -> None:
    made = [synced.control.receive_mail(subject=f"Offer {number}") for number in range(10)]
    deliver(synced, "missive", *(mail_event(ids["conversation_id"]) for ids in made))

    drain(synced, "missive")

    assert synced.requests("missive") == 3 * 10 + 1


def test_a_delivery_about_a_merged_conversation_moves_its_messages(synced: Account) -> None:
    first, second = (synced.control.receive_mail(subject=name)["conversation_id"] for name in ("A", "B"))
    deliver(synced, "missive", mail_event(first), mail_event(second))
    drain(synced, "missive")
    synced.control.merge(first, second)
    deliver(synced, "missive", mail_event(first), mail_event(second))

    drain(synced, "missive")

    assert synced.scalar("SELECT merged_into FROM missive.conversations WHERE id = :id", id=first) == second
    assert synced.scalar("SELECT count(*) FROM missive.emails WHERE conversation_id = :id", id=second) == 2


def test_a_vanished_conversation_is_no_fault(synced: Account) -> None:
    deliver(synced, "missive", mail_event("00000000-0000-0000-0000-000000000000"))

    drain(synced, "missive")

    assert nothing_waits(synced, "missive")
    assert synced.scalar("SELECT count(*) FROM twm.second_looks") == 1


# -- faults --------------------------------------------------------------------------------------------------


def test_an_object_at_fault_counts_an_attempt_and_holds_up_no_other(synced: Account) -> None:
    bad, good = synced.control.create_task("Bad"), synced.control.create_task("Good")
    deliver(synced, "teamwork", task_event(bad), task_event(good))
    synced.control.add_fault("teamwork", "500", count=None, path=rf"ids=.*{bad}|tasks/{bad}\.json")
    synced.control.add_fault("teamwork", "500", count=5, path=r"/tasks\.json")

    drain(synced, "teamwork")

    assert row(synced, good).title == "Good"
    [entry] = spool_of(synced.settings, "teamwork").entries("retry")
    assert entry.attempts == 1
    assert synced.query("SELECT object_id FROM twm.set_aside") == [(str(bad),)]


def test_an_object_at_fault_again_and_again_is_dead_with_the_reason(synced: Account) -> None:
    impatient = synced.change(max_queue_attempts=1)
    bad = synced.control.create_task("Bad")
    deliver(impatient, "teamwork", task_event(bad))
    synced.control.add_fault("teamwork", "500", count=None, path=rf"tasks/{bad}\.json")

    drain(impatient, "teamwork")

    spool = spool_of(impatient.settings, "teamwork")
    [entry] = spool.entries("dead")
    assert "500" in str(spool.reason(entry.name))


def test_a_malformed_row_counts_an_attempt(synced: Account) -> None:
    ids = [synced.control.create_task(name) for name in ("Good", "Bad")]
    deliver(synced, "teamwork", *map(task_event, ids))
    synced.control.add_fault("teamwork", "malformed_row", path=r"/tasks\.json")

    drain(synced, "teamwork")

    assert spool_of(synced.settings, "teamwork").waiting().later == 1


def test_a_later_try_that_works_leaves_nothing_behind(synced: Account) -> None:
    quick = synced.change(spool_retry_seconds=0.001)
    ids = [synced.control.create_task(f"Order {number}") for number in range(2)]
    deliver(quick, "teamwork", *map(task_event, ids))
    synced.control.add_fault("teamwork", "malformed_row", path=r"/tasks\.json")

    drain(quick, "teamwork")
    drain(quick, "teamwork")

    assert [row(synced, task_id).title for task_id in ids] == ["Order 0", "Order 1"]
    assert nothing_waits(quick, "teamwork")
    assert synced.scalar("SELECT count(*) FROM twm.set_aside") == 0


def test_an_outage_counts_nothing_and_keeps_everything(synced: Account) -> None:
    task_id = synced.control.create_task("Order steel")
    names = deliver(synced, "teamwork", task_event(task_id), task_event(task_id))
    synced.control.add_fault("teamwork", "503", count=None)

    with pytest.raises(UnansweredError):
        drain(synced, "teamwork")

    assert [entry.name for entry in spool_of(synced.settings, "teamwork").entries("new")] == names


def test_refused_credentials_stop_the_source_and_keep_everything(synced: Account) -> None:
    deliver(synced, "teamwork", task_event(synced.control.create_task("Order steel")))
    wrong = synced.change(teamwork_api_key=SecretStr("wrong"))

    with pytest.raises(AuthenticationError):
        drain(wrong, "teamwork")

    assert spool_of(synced.settings, "teamwork").waiting().new == 1


def test_what_a_dead_process_had_claimed_is_taken_back(synced: Account) -> None:
    task_id = synced.control.create_task("Order steel")
    deliver(synced, "teamwork", task_event(task_id))
    spool_of(synced.settings, "teamwork").claim(limit=10)

    drain(synced, "teamwork")

    assert row(synced, task_id).title == "Order steel"
    assert nothing_waits(synced, "teamwork")


def test_the_spool_of_one_source_is_not_the_other_s(synced: Account) -> None:
    deliver(synced, "missive", mail_event("gone"))

    assert isinstance(spool_of(synced.settings, "teamwork"), Spool)
    assert spool_of(synced.settings, "teamwork").waiting().count == 0


def test_a_defect_that_one_object_meets_holds_up_no_other_and_tells_nothing_of_it(
    synced: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = synced.control.create_task("Secret name"), synced.control.create_task("Good")

    def stumble(row: dict[str, Any], *, date: Any) -> Any:
        if row["id"] == bad:
            raise KeyError(row["name"])
        return parse(row, date=date)

    parse = parse_task
    monkeypatch.setattr("twm_pipeline.sync.teamwork.parse_task", stumble)
    deliver(synced, "teamwork", task_event(bad), task_event(good))

    drain(synced, "teamwork")

    assert row(synced, good).title == "Good"
    spool = spool_of(synced.settings, "teamwork")
    [entry] = spool.entries("retry")
    assert "KeyError in " in str(spool.reason(entry.name))
    assert "Secret" not in str(spool.reason(entry.name))
