"""The change log names every row of the views that shows something else than before."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine, text

from twm_pipeline.mirror.changelog import count_changes, follow_changes, read_changes, remove_changes
from twm_pipeline.sync.reconcile import ReconcileOptions
from twm_pipeline.sync.window import run_reconcile
from twm_pipeline_tests.sync.accounts import Account
from twm_pipeline_tests.sync.conftest import open_account  # noqa: F401 - a fixture

VIEWS = {"tasks": "task_id", "emails": "email_id"}


def shown(engine: Engine) -> dict[tuple[str, str], dict[str, Any]]:
    """Return every row of both views, without the time at which it was stored."""
    found = {}
    with engine.connect() as connection:
        for view, key in VIEWS.items():
            for row in connection.execute(text(f"SELECT * FROM public.{view}")).mappings():
                found[view, str(row[key])] = {name: row[name] for name in row if name != "synced_at"}
    return found


def logged(engine: Engine) -> set[tuple[str, str]]:
    with engine.connect() as connection:
        return {(view, row) for view in VIEWS for row in read_changes(connection, view, limit=100_000)}


def begin(engine: Engine) -> None:
    """Follow changes from now on, with an empty log."""
    with engine.begin() as connection:
        follow_changes(connection, wanted=True)
        connection.execute(text("DELETE FROM twm.change_log"))


def sync(account: Account) -> None:
    account.sync("teamwork", directories=True)
    account.sync("missive")


@pytest.fixture
def account(open_account: Any) -> Account:  # noqa: F811 - the fixture imported above
    opened: Account = open_account(tasks=60, conversations=30)
    sync(opened)
    begin(opened.engine)
    return opened


def test_a_quiet_pass_logs_nothing(account: Account) -> None:
    sync(account)

    assert logged(account.engine) == set()


@pytest.mark.parametrize("seed", range(4))
def test_whatever_shows_something_else_after_random_changes_is_logged(account: Account, seed: int) -> None:
    before = shown(account.engine)
    account.control.random_changes(count=60, seed=seed)
    account.control.rename_project(account.scalar("SELECT min(id) FROM teamwork.projects"), "Renamed")
    account.control.rename_person(account.scalar("SELECT min(id) FROM teamwork.people"), "Some", "Body")
    account.control.rename_tag(account.scalar("SELECT min(id) FROM teamwork.tags"), "renamed")
    account.control.rename_tasklist(account.scalar("SELECT min(id) FROM teamwork.tasklists"), "Renamed")
    account.control.rename_label(account.ids_of("label")[0], "renamed")

    sync(account)
    for source in ("teamwork", "missive"):
        run_reconcile(account.engine, account.settings, source, options=ReconcileOptions())

    after = shown(account.engine)
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    assert changed
    assert changed <= logged(account.engine)


def test_entries_that_come_while_others_are_handled_stay(account: Account) -> None:
    task_id = account.control.create_task("Order steel")
    account.sync("teamwork")
    with account.engine.begin() as connection:
        entries = read_changes(connection, "tasks", limit=100)
    account.control.edit_task(task_id, name="Order more steel")
    account.sync("teamwork")

    with account.engine.begin() as connection:
        remove_changes(connection, entries[str(task_id)])

    assert ("tasks", str(task_id)) in logged(account.engine)


def test_a_transaction_that_commits_late_is_not_passed_over(account: Account) -> None:
    statement = text("INSERT INTO twm.change_log (view, row_id) VALUES ('tasks', :row)")
    with account.engine.begin() as late:
        late.execute(statement, {"row": "1"})
        with account.engine.begin() as early:
            early.execute(statement, {"row": "2"})
        with account.engine.begin() as connection:
            entries = read_changes(connection, "tasks", limit=100)
            remove_changes(connection, [item for items in entries.values() for item in items])

    assert logged(account.engine) == {("tasks", "1")}


def test_without_anybody_who_publishes_nothing_is_logged(account: Account) -> None:
    with account.engine.begin() as connection:
        assert follow_changes(connection, wanted=False)
        assert not follow_changes(connection, wanted=False)

    account.control.create_task("Order steel")
    sync(account)

    with account.engine.connect() as connection:
        assert count_changes(connection, "tasks") == 0
