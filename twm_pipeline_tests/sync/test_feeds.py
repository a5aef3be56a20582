"""Time entries and comments of tasks arrive, change, go and return, whatever the site does with its lists."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twm_pipeline.errors import PagingError
from twm_pipeline.http import Reply
from twm_pipeline.records import Hint
from twm_pipeline.sources.teamwork import Page
from twm_pipeline.sync.engine import PassOptions
from twm_pipeline.sync.reconcile import ReconcileOptions
from twm_pipeline.sync.teamwork_feeds import walk_until_two_agree
from twm_pipeline.sync.window import run_pass, run_reconcile
from twm_pipeline_tests.faults.world import dsn_of
from twm_pipeline_tests.sync.accounts import Account
from twm_pipeline_tests.sync.deliveries import deliver, drain
from twm_pipeline_tests.truth.compare_truth import differences

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FEEDS = ("time.json", "comments.json")


def assert_true(account: Account) -> None:
    assert differences(account.control.truth(), dsn_of(account.engine.url), sources=["teamwork"]) == []


def requests_of(account: Account, path: str) -> int:
    return sum(path in request["path"] for request in account.control.requests("teamwork"))


def row(account: Account, table: str, key: int) -> Any:
    return account.query(f"SELECT * FROM teamwork.{table} WHERE id = :id", id=key)[0]


def living(account: Account, kind: str) -> list[dict[str, Any]]:
    """Return what the key may see of a kind."""
    tasks = {item["id"]: item for item in account.control.truth("task")}
    return [
        item
        for item in account.control.truth(kind)
        if item["deleted_at"] is None
        and (task := tasks.get(item["task_id"]))
        and task["visible"]
        and not task["deleted"]
    ]


@pytest.mark.parametrize("order", ["asked", "id", "newest_first"])
@pytest.mark.parametrize("shown", ["add", "replace", "ignored"])
def test_they_are_true_under_every_order_and_meaning_of_show_deleted(account, order, shown):
    account.control.set_answer("teamwork.max_page_size", 50)
    account.control.set_answer("teamwork.feed_order", order)
    account.control.set_answer("teamwork.feed_show_deleted", shown)
    account.sync("teamwork")
    entry, comment = living(account, "timelog")[0], living(account, "task_comment")[0]
    account.control.edit_time(entry["id"], 7)
    account.control.edit_task_comment(comment["id"], "edited")
    account.control.delete_time(living(account, "timelog")[1]["id"])
    account.control.delete_task_comment(living(account, "task_comment")[1]["id"])
    account.control.log_time(comment["task_id"], 30)

    account.sync("teamwork")

    assert row(account, "time_entries", entry["id"]).minutes == 7
    assert row(account, "task_comments", comment["id"]).body == "edited"
    assert_true(account)


def test_a_site_that_keeps_the_order_asked_for_is_read_page_by_page_and_once(open_account):
    account = open_account(tasks=600)
    account.control.set_answer("teamwork.max_page_size", 50)
    counts = {}
    for order in ("asked", "id"):
        account.control.set_answer("teamwork.feed_order", order)
        account.control.reset_counters()
        account.sync("teamwork", streams=frozenset({"task_comments"}), directories=False, full=True)
        counts[order] = requests_of(account, "comments.json")
    pages = len(living(account, "task_comment")) // 50

    assert counts["asked"] < 2 * pages + 10  # the living alone, and with those that are deleted
    assert counts["id"] >= 4 * pages


def test_an_import_that_was_interrupted_goes_on_where_it_was(open_account):
    account = open_account(tasks=600)
    account.control.set_answer("teamwork.max_page_size", 50)

    def one_step() -> None:
        run_pass(
            account.engine,
            account.settings,
            "teamwork",
            options=PassOptions(streams=frozenset({"task_comments"})),
            slice_is_over=lambda: True,
        )

    reached = []
    for _ in range(3):
        one_step()
        reached.append(
            account.scalar("SELECT last_event_time FROM twm.checkpoints WHERE stream = 'task_comments'")
        )

    assert reached == sorted(set(reached))
    account.sync("teamwork")
    assert_true(account)


def test_what_neither_moves_its_date_nor_is_listed_as_deleted_is_told_by_the_activity(account):
    account.control.set_answer("teamwork.feed_show_deleted", "ignored")
    account.control.set_answer("teamwork.delete_bumps_updated_at", value=False)
    account.control.set_answer("teamwork.restore_bumps_updated_at", value=False)
    account.sync("teamwork")
    entry = living(account, "timelog")[0]["id"]

    account.control.delete_time(entry)
    account.sync("teamwork")
    deleted = row(account, "time_entries", entry)
    account.control.restore_time(entry)
    account.sync("teamwork")

    assert (deleted.deleted, deleted.deleted_evidence) == (True, "event")
    assert not row(account, "time_entries", entry).deleted


def test_an_activity_that_is_known_already_costs_no_request(account):
    account.sync("teamwork")
    account.control.delete_time(living(account, "timelog")[0]["id"])
    account.sync("teamwork")
    account.control.reset_counters()

    account.sync("teamwork")

    assert requests_of(account, "/time/") == 0


def test_a_delivery_about_one_of_them_reads_that_one_alone(account):
    account.sync("teamwork")
    entry, comment = living(account, "timelog")[0], living(account, "task_comment")[0]
    account.control.edit_time(entry["id"], 11)
    account.control.delete_task_comment(comment["id"])
    account.control.reset_counters()
    deliver(
        account,
        "teamwork",
        Hint(event="TIME.UPDATED", stream="time_entries", object_id=str(entry["id"])),
        Hint(event="COMMENT.DELETED", stream="task_comments", object_id=str(comment["id"])),
    )

    drain(account, "teamwork")

    assert row(account, "time_entries", entry["id"]).minutes == 11
    gone = row(account, "task_comments", comment["id"])
    assert (gone.deleted, gone.deleted_evidence) == (True, "event")
    assert account.requests("teamwork") == 2


def test_a_late_deletion_of_what_lives_again_is_not_believed(account):
    account.sync("teamwork")
    entry = living(account, "timelog")[0]["id"]
    deliver(account, "teamwork", Hint(event="TIME.DELETED", stream="time_entries", object_id=str(entry)))

    drain(account, "teamwork")

    assert not row(account, "time_entries", entry).deleted


def test_a_comment_goes_with_its_task_and_comes_back_with_it(account):
    account.sync("teamwork")
    comment = living(account, "task_comment")[0]

    account.control.delete_task(comment["task_id"])
    account.sync("teamwork")
    gone = row(account, "task_comments", comment["id"])
    account.control.restore_task(comment["task_id"])
    account.sync("teamwork")

    assert (gone.deleted, gone.deleted_evidence) == (True, "parent")
    assert not row(account, "task_comments", comment["id"]).deleted


def test_a_comment_deleted_by_itself_does_not_come_back_with_its_task(account):
    account.sync("teamwork")
    comment = living(account, "task_comment")[0]
    account.control.delete_task_comment(comment["id"])
    account.control.delete_task(comment["task_id"])
    account.sync("teamwork")

    account.control.restore_task(comment["task_id"])
    account.sync("teamwork")

    assert row(account, "task_comments", comment["id"]).deleted


def test_a_reconcile_finds_what_vanished_without_a_word(account):
    account.control.set_answer("teamwork.feed_show_deleted", "ignored")
    account.control.set_answer("teamwork.delete_bumps_updated_at", value=False)
    account.control.add_fault("teamwork", "403", path="latestactivity", count=None)
    account.sync("teamwork")
    entry = living(account, "timelog")[0]["id"]
    account.control.delete_time(entry)
    account.sync("teamwork")
    assert not row(account, "time_entries", entry).deleted

    for _ in range(2):
        run_reconcile(account.engine, account.settings, "teamwork", options=ReconcileOptions())
        account.control.advance(601)

    gone = row(account, "time_entries", entry)
    assert (gone.deleted, gone.deleted_evidence) == (True, "absence")
    assert_true(account)


def test_a_lost_project_makes_them_inaccessible_and_not_deleted(account):
    account.sync("teamwork")
    entry = living(account, "timelog")[0]
    account.control.set_project_access(entry["project_id"], accessible=False)

    for _ in range(2):
        run_reconcile(
            account.engine, account.settings, "teamwork", options=ReconcileOptions(confirm_deletions=True)
        )
        account.control.advance(601)

    lost = row(account, "time_entries", entry["id"])
    assert (lost.deleted, lost.inaccessible) == (False, True)


def hidden(account: Account, table: str) -> set[int]:
    return {item.id for item in account.query(f"SELECT id FROM teamwork.{table} WHERE out_of_scope")}


@pytest.mark.parametrize(("table", "kind"), [("time_entries", "timelog"), ("task_comments", "task_comment")])
def test_they_are_hidden_with_their_task_and_shown_with_it(account, table, kind):
    tasks = {item["id"]: item for item in account.control.truth("task")}
    entry = next(item for item in living(account, kind) if tasks[item["task_id"]]["project_id"])
    project = tasks[entry["task_id"]]["project_id"]
    inside = {item["id"] for item in living(account, kind) if tasks[item["task_id"]]["project_id"] == project}
    excluding = account.change(teamwork_excluded_projects=(project,))

    excluding.sync("teamwork")
    excluded = hidden(account, table)
    other = next(item["id"] for item in account.control.truth("tasklist")
                 if item["project_id"] != project and item["deleted_at"] is None
                 and item["project_id"] not in {500_005})  # fmt: skip
    account.control.move_task(entry["task_id"], other)
    excluding.sync("teamwork")
    after_the_move = hidden(account, table)
    account.sync("teamwork")

    assert inside <= excluded
    assert entry["id"] not in after_the_move
    assert hidden(account, table) == set()


@pytest.mark.parametrize("path", FEEDS)
@pytest.mark.parametrize("kind", ["empty_page", "malformed_row", "future_row", "500"])
def test_a_spoiled_page_loses_nothing(account, path, kind):
    account.control.add_fault("teamwork", kind, path=path, count=1)
    try:
        account.sync("teamwork")
    except PagingError:
        pytest.fail("a spoiled page of a feed must not end the pass")
    account.control.clear_faults()
    for entry in living(account, "timelog")[:3]:
        account.control.edit_time(entry["id"], 5)

    account.sync("teamwork")

    assert_true(account)


@pytest.mark.parametrize("path", FEEDS)
def test_a_key_that_may_not_read_them_reads_everything_else(account, path):
    account.control.add_fault("teamwork", "403", path=path)

    report = account.sync("teamwork")

    assert any("403" in problem for problem in report.problems)
    assert account.scalar("SELECT count(*) FROM teamwork.tasks") > 0


def page(*keys: int, has_more: bool = False) -> Page:
    rows = [{"id": key, "updatedAt": f"2025-01-01T00:00:{key:02}Z"} for key in keys]
    return Page(rows=rows, included={}, has_more=has_more, reply=Reply(data={}, seq=1, date=NOW))


@given(
    before=st.lists(st.integers(0, 59), unique=True, max_size=12),
    vanish=st.dictionaries(st.integers(1, 12), st.integers(0, 11), max_size=4),
    size=st.integers(1, 5),
)
def test_no_row_slips_between_the_pages_of_a_list_without_an_order(before, vanish, size):
    rows, asked = list(before), 0

    def fetch(number: int) -> Page:
        nonlocal asked
        asked += 1
        if asked in vanish and rows:  # everything behind it moves up, across the edge of a page
            rows.pop(vanish[asked] % len(rows))
        start = (number - 1) * size
        return page(*rows[start : start + size], has_more=start + size < len(rows))

    steps = list(walk_until_two_agree(fetch, fetch(1), head=None))

    seen = {item["id"] for step in steps for one in step.pages for item in one.rows}
    assert seen >= set(rows)


def test_a_list_that_changes_on_every_read_is_given_up_loudly():
    keys = iter(range(60))

    def fetch(_: int) -> Page:
        return page(next(keys))

    with pytest.raises(PagingError, match="changed during each"):
        list(walk_until_two_agree(fetch, fetch(1), head=None))


def test_a_page_with_nothing_new_is_believed_at_once():
    steps = walk_until_two_agree(
        lambda _: pytest.fail("asked again"), page(1, 2), head=NOW - timedelta(days=1)
    )

    assert [len(step.pages[0].rows) for step in steps] == [2]
