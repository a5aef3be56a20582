"""A pass reads what changed, stores it with its checkpoint, and asks for no more than it needs."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from twm_pipeline.errors import AccessError, AccountChangedError, AuthenticationError
from twm_pipeline.mirror.set_aside import SetAside, set_aside
from twm_pipeline.sources.missive import MissiveSource
from twm_pipeline.sync.plan import Frontier
from twm_pipeline.sync.reconcile import ReconcileOptions
from twm_pipeline.sync.window import run_reconcile

CHECKPOINTS = """
    SELECT source, stream, feed, last_event_time, last_cursor FROM twm.checkpoints
    WHERE stream IN ('tasks', 'conversations') ORDER BY 1, 2, 3
"""


def versions(account):
    """Return every row's physical version: it changes when a row is written, for whatever reason."""
    tables = [
        row.name
        for row in account.query(
            "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables"
            " WHERE schemaname IN ('teamwork', 'missive')"
        )
    ]
    return {name: account.query(f"SELECT id, xmin::text FROM {name} ORDER BY id")
            for name in tables if not name.endswith("aliases")}  # fmt: skip


@pytest.mark.parametrize("source", ["teamwork", "missive"])
def test_a_second_pass_writes_nothing_and_asks_little(account, source):
    account.sync(source)
    before = versions(account)
    account.control.reset_counters()

    report = account.sync(source)

    assert versions(account) == before
    assert sum(figures.written for figures in report.streams.values()) == 0
    assert account.requests(source) == (5 if source == "teamwork" else 4)
    assert report.complete


def test_tasks_cost_no_more_than_four_requests_a_thousand_and_a_constant(open_account):
    account = open_account(tasks=2000, conversations=1)

    account.sync("teamwork")

    task_pages = [
        request for request in account.control.requests("teamwork") if "tasks.json" in request["path"]
    ]
    living = account.scalar("SELECT count(*) FROM teamwork.tasks WHERE NOT deleted")
    assert len(task_pages) <= living / 250 + 5


def test_progress_is_shown_only_while_a_pass_runs(account):
    account.sync("teamwork")

    assert account.scalar("SELECT count(*) FROM twm.progress") == 0


def test_the_head_follows_fresh_changes_before_the_history_is_read(account):
    account.sync("teamwork", history=False)
    assert account.scalar("SELECT last_cursor -> 'history' IS NOT NULL FROM twm.checkpoints"
                          " WHERE stream = 'tasks' AND feed = ''")  # fmt: skip
    task = account.control.create_task("fresh")

    account.sync("teamwork", history=False)

    assert account.scalar("SELECT title FROM teamwork.tasks WHERE id = :id", id=task) == "fresh"
    account.sync("teamwork")
    assert account.scalar("SELECT jsonb_typeof(last_cursor -> 'history') FROM twm.checkpoints"
                          " WHERE stream = 'tasks' AND feed = ''") == "null"  # fmt: skip


def test_of_a_changed_conversation_only_what_is_new_is_read(account):
    account.sync("missive")
    conversation = account.scalar(
        "SELECT conversation_id FROM missive.emails GROUP BY 1 ORDER BY count(*) DESC LIMIT 1"
    )
    account.control.receive_mail(conversation)
    account.control.reset_counters()

    report = account.sync("missive")

    assert report.of("emails").fetched == 1
    # Four mailboxes, one page of messages, one of comments, one body.
    assert account.requests("missive") == 7


def test_a_pass_over_chosen_ids_reads_nothing_else(account):
    account.sync("teamwork")
    task, other = (row.id for row in account.query(
        "SELECT t.id FROM teamwork.tasks t WHERE NOT deleted ORDER BY id LIMIT 2"
    ))  # fmt: skip
    account.control.edit_task(task, name="changed")
    account.control.edit_task(other, name="changed too")

    account.sync("teamwork", ids=(str(task),))

    titles = {row.id: row.title for row in account.query("SELECT id, title FROM teamwork.tasks")}
    assert titles[task] == "changed"
    assert titles[other] != "changed too"


def test_a_read_since_a_date_does_not_touch_the_checkpoints(account):
    account.sync("teamwork")
    account.sync("missive")
    before = account.query(CHECKPOINTS)

    account.sync("teamwork", since=date(2020, 1, 1))
    account.sync("missive", since=date(2020, 1, 1))

    assert account.query(CHECKPOINTS) == before


def test_only_the_chosen_streams_are_read(account):
    account.sync("teamwork", streams=frozenset({"people"}))

    assert account.scalar("SELECT count(*) FROM teamwork.people") > 0
    assert account.scalar("SELECT count(*) FROM teamwork.tasks") == 0


def test_a_pass_over_comments_alone_leaves_the_messages_due(account):
    account.sync("missive", streams=frozenset({"comments"}))

    assert account.scalar("SELECT count(*) FROM missive.comments") > 0
    assert account.scalar("SELECT count(*) FROM missive.emails") == 0
    account.sync("missive")
    assert account.scalar("SELECT count(*) FROM missive.emails") > 0


def test_a_start_date_hides_older_tasks_and_an_earlier_one_brings_them(account):
    account.sync("teamwork")
    middle = account.scalar("SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY created_at)"
                            " FROM teamwork.tasks WHERE NOT deleted")  # fmt: skip
    with account.engine.begin() as connection:
        connection.exec_driver_sql("TRUNCATE teamwork.tasks, twm.checkpoints")
    narrow = account.change(teamwork_process_after=middle)

    narrow.sync("teamwork")
    shown = account.scalar("SELECT count(*) FROM public.tasks WHERE NOT deleted")
    assert account.scalar("SELECT min(created_at) FROM public.tasks WHERE NOT deleted") >= middle
    account.sync("teamwork")

    assert account.scalar("SELECT count(*) FROM public.tasks WHERE NOT deleted") > shown
    assert account.scalar("SELECT min(created_at) FROM public.tasks WHERE NOT deleted") < middle
    narrow.sync("teamwork")
    assert account.scalar("SELECT count(*) FROM public.tasks WHERE NOT deleted") == shown


def test_a_start_date_hides_older_messages_and_an_earlier_one_brings_them(account):
    account.sync("missive")
    everything = account.scalar("SELECT count(*) FROM public.emails")
    middle = account.scalar("SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY delivered_at)"
                            " FROM missive.emails")  # fmt: skip
    with account.engine.begin() as connection:
        connection.exec_driver_sql("TRUNCATE missive.emails, missive.conversations, twm.checkpoints")
    narrow = account.change(missive_process_after=middle)

    narrow.sync("missive")
    assert 0 < account.scalar("SELECT count(*) FROM public.emails") < everything
    account.sync("missive")

    assert account.scalar("SELECT count(*) FROM public.emails") == everything


def test_an_excluded_project_is_hidden_and_comes_back(account):
    account.sync("teamwork")
    project = account.scalar("SELECT project_id FROM public.tasks WHERE NOT deleted GROUP BY 1"
                             " ORDER BY count(*) DESC LIMIT 1")  # fmt: skip
    shown = account.scalar("SELECT count(*) FROM public.tasks")

    account.change(teamwork_excluded_projects=(project,)).sync("teamwork")
    assert account.scalar("SELECT count(*) FROM public.tasks WHERE project_id = :p", p=project) == 0
    account.sync("teamwork")

    assert account.scalar("SELECT count(*) FROM public.tasks") == shown


def test_old_completed_tasks_can_be_hidden_but_those_completed_later_are_shown(account):
    quiet = account.change(include_completed_tasks_on_initial_sync=False)
    quiet.sync("teamwork")
    assert account.scalar("SELECT count(*) FROM public.tasks WHERE completed_at IS NOT NULL") == 0
    task = account.scalar("SELECT task_id FROM public.tasks WHERE status = 'new' LIMIT 1")
    account.control.advance(60)
    account.control.complete_task(task)

    quiet.sync("teamwork")

    assert account.scalar("SELECT status FROM public.tasks WHERE task_id = :id", id=task) == "completed"


def test_other_credentials_of_the_same_account_are_taken_over_and_another_site_is_refused(account):
    account.sync("teamwork")
    moved = account.change(
        teamwork_base_url=account.settings.teamwork_base_url.replace("127.0.0.1", "localhost")
    )

    with pytest.raises(AccountChangedError, match="empty database"):
        moved.sync("teamwork")


def test_the_key_of_another_person_of_the_same_site_is_taken_and_said(account):
    account.sync("teamwork")
    with account.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE twm.sources SET owner_id = '1', credentials_digest = ''")

    report = account.sync("teamwork")

    assert ["(before: 1)" in problem for problem in report.problems] == [True]
    assert account.sync("teamwork").problems == []


def test_a_wrong_key_stops_the_source_and_says_what_to_check(account):
    from pydantic import SecretStr  # noqa: PLC0415

    wrong = account.change(teamwork_api_key=SecretStr("wrong-key-123"))

    with pytest.raises(AuthenticationError, match="Check the address") as caught:
        wrong.sync("teamwork")
    assert "wrong-key-123" not in str(caught.value)


def test_a_deleted_and_a_restored_task_are_seen_by_the_next_pass(account):
    account.sync("teamwork")
    task = account.scalar("SELECT id FROM teamwork.tasks WHERE NOT deleted LIMIT 1")

    account.control.delete_task(task)
    account.sync("teamwork")
    assert account.scalar("SELECT deleted FROM teamwork.tasks WHERE id = :id", id=task)
    account.control.advance(5)
    account.control.restore_task(task)
    account.sync("teamwork")

    assert not account.scalar("SELECT deleted FROM teamwork.tasks WHERE id = :id", id=task)


def test_a_list_that_may_not_be_read_is_set_aside_and_read_once_it_may(account, monkeypatch):
    def refuse(self, conversation_id, kind, **rest):
        if kind == "comments":
            msg = "Missive GET /conversations/…/comments: 403"
            raise AccessError(msg)
        return allowed(self, conversation_id, kind, **rest)

    allowed = MissiveSource.fetch_children
    with monkeypatch.context() as patch:
        patch.setattr(MissiveSource, "fetch_children", refuse)
        account.sync("missive")
    waiting = account.scalar("SELECT count(*) FROM twm.set_aside WHERE stream = 'comments'")
    read = [account.scalar(f"SELECT count(*) FROM missive.{table}") for table in ("emails", "comments")]
    with account.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE twm.set_aside SET next_attempt_at = now()")
    account.sync("missive")

    assert waiting > 0
    assert read[0] > 0
    assert read[1] == 0
    assert account.scalar("SELECT count(*) FROM missive.comments") > 0
    assert account.scalar("SELECT count(*) FROM twm.set_aside") == 0


def test_one_message_that_may_not_be_read_does_not_hold_up_the_others(account, monkeypatch):
    forbidden: list[str] = []

    def refuse(self, ids, **rest):
        forbidden.extend(ids[:1] if not forbidden else [])
        if forbidden[0] in ids:
            msg = "Missive GET /messages/…: 403"
            raise AccessError(msg)
        return allowed(self, ids, **rest)

    allowed = MissiveSource.fetch_messages
    monkeypatch.setattr(MissiveSource, "fetch_messages", refuse)

    report = account.sync("missive")

    assert report.complete
    assert account.scalar("SELECT array_agg(object_id) FROM twm.set_aside") == forbidden
    assert account.scalar("SELECT count(*) FROM missive.emails") > 0


def test_a_conversation_that_may_not_be_read_again_is_set_aside_and_not_deleted(account, monkeypatch):
    def refuse(self, conversation_id, **rest):
        msg = "Missive GET /conversations/…: 403"
        raise AccessError(msg)

    account.sync("missive")
    conversation = account.scalar("SELECT id FROM missive.conversations WHERE NOT deleted LIMIT 1")
    monkeypatch.setattr(MissiveSource, "fetch_conversation", refuse)

    account.sync("missive", ids=(conversation,))

    assert account.scalar("SELECT object_id FROM twm.set_aside") == conversation
    assert account.query(
        "SELECT deleted, missing_since FROM missive.conversations WHERE id = :id", id=conversation
    ) == [(False, None)]


def test_task_lists_of_a_project_that_cannot_be_read_any_more_are_inaccessible_and_not_deleted(account):
    account.sync("teamwork")
    project, lists = account.query(
        "SELECT project_id, count(*) FROM teamwork.tasklists WHERE NOT deleted"
        " GROUP BY 1 ORDER BY 2 DESC LIMIT 1"
    )[0]
    account.control.set_project_access(project, accessible=False)

    for _ in range(2):
        run_reconcile(account.engine, account.settings, "teamwork", options=ReconcileOptions())
        account.control.advance(601)

    rows = account.query(
        "SELECT deleted, inaccessible FROM teamwork.tasklists WHERE project_id = :id", id=project
    )
    assert rows == [(False, True)] * lists


def test_a_record_that_cannot_be_used_is_set_aside_and_stored_once_it_can(account):
    account.sync("teamwork")
    task = account.scalar("SELECT id FROM teamwork.tasks WHERE NOT deleted LIMIT 1")
    account.control.edit_task(task, name="new title")
    account.control.add_fault("teamwork", "malformed_row", count=1, path="tasks.json")

    account.sync("teamwork")
    parked = account.query("SELECT stream, reason, raw FROM twm.set_aside")
    with account.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE twm.set_aside SET next_attempt_at = now()")
    account.sync("teamwork")

    assert len(parked) == 1
    assert "expected" in parked[0].reason
    assert account.scalar("SELECT count(*) FROM twm.set_aside") == 0
    assert account.scalar("SELECT title FROM teamwork.tasks WHERE id = :id", id=task) == "new title"


def test_one_conversation_that_the_vendor_cannot_answer_does_not_hold_up_the_others(account):
    victim = next(iter(account.control.truth("conversation")))["id"]
    account.control.add_fault("missive", "503", count=1000, path=f"/conversations/{victim}/")

    account.sync("missive")

    rows = account.query("SELECT stream, object_id FROM twm.set_aside")
    assert [(row.stream, row.object_id) for row in rows] == [("conversations", victim)]
    assert account.scalar("SELECT count(DISTINCT conversation_id) FROM missive.emails") > 30
    account.control.clear_faults("missive")
    with account.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE twm.set_aside SET next_attempt_at = now()")
    account.sync("missive")
    assert account.scalar("SELECT count(*) FROM twm.set_aside") == 0
    assert account.scalar("SELECT count(*) FROM missive.emails WHERE conversation_id = :id", id=victim) > 0


def test_checkpoints_say_below_which_instant_nothing_is_missing(account):
    account.sync("missive")

    for row in account.query("SELECT feed, last_event_time, last_cursor FROM twm.checkpoints"
                             " WHERE stream = 'conversations'"):  # fmt: skip
        frontier = Frontier.from_cursor(row.last_cursor)
        assert frontier.gaps == ()
        assert frontier.head is not None
        assert row.last_event_time == datetime.fromtimestamp(frontier.head, UTC)
        assert row.last_event_time <= datetime.now(UTC) + timedelta(seconds=1)


def test_a_conversation_whose_messages_cannot_be_read_stays_set_aside_though_its_row_is_seen_again(account):
    victim = next(iter(account.control.truth("conversation")))["id"]
    account.sync("missive")
    account.control.add_fault("missive", "503", count=1000, path=f"/conversations/{victim}/")
    account.control.receive_mail(conversation_id=victim)
    account.sync("missive")
    attempts = account.scalar("SELECT attempts FROM twm.set_aside WHERE object_id = :id", id=victim)

    account.sync("missive")  # the row is on the first page and may not be tried again yet

    again = account.scalar("SELECT attempts FROM twm.set_aside WHERE object_id = :id", id=victim)
    assert (attempts, again) == (1, 1)


@pytest.mark.parametrize("source", ["teamwork", "missive"])
def test_a_set_aside_object_that_is_gone_by_its_next_try_is_not_tried_for_ever(account, source):
    stream, object_id = {
        "teamwork": ("tasks", "987654321"),
        "missive": ("conversations", "00000000-0000-0000-0000-000000000000"),
    }[source]
    account.sync(source)
    with account.engine.begin() as connection:
        set_aside(connection, source, [SetAside(stream=stream, object_id=object_id, reason="broken")])
        connection.exec_driver_sql("UPDATE twm.set_aside SET next_attempt_at = now()")

    account.sync(source)

    assert account.scalar("SELECT count(*) FROM twm.set_aside") == 0
