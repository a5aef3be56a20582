"""Each setting that narrows what is shown, set, moved both ways, taken back: hidden is not deleted (D3)."""

from __future__ import annotations

import pytest

from twm_pipeline.records import Source
from twm_pipeline.sync.reconcile import ReconcileOptions
from twm_pipeline.sync.window import run_reconcile

PROJECT = "SELECT l.project_id FROM teamwork.tasklists l JOIN teamwork.tasks t ON t.tasklist_id = l.id"
QUANTILE = "SELECT percentile_disc({}) WITHIN GROUP (ORDER BY {}) FROM {} WHERE NOT deleted"


def quantile(account, share, column, table):
    return account.scalar(QUANTILE.format(share, column, table))


def values_of(account, name):
    """Return three values of a setting: wide, narrow, wide again but not as wide as without it."""
    match name:
        case "teamwork_process_after":
            early, late = (quantile(account, at, "created_at", "teamwork.tasks") for at in (0.3, 0.7))
            return [late, early, late]
        case "missive_process_after":
            early, late = (quantile(account, at, "delivered_at", "missive.emails") for at in (0.3, 0.7))
            return [late, early, late]
        case "teamwork_excluded_projects":
            one, two = [
                row[0] for row in account.query(f"{PROJECT} GROUP BY 1 ORDER BY count(*) DESC LIMIT 2")
            ]
            return [(one,), (one, two), (two,)]
        case "teamwork_excluded_companies":
            companies = account.query("SELECT DISTINCT company_id FROM teamwork.projects LIMIT 1")
            return [(companies[0][0],), (companies[0][0], 1), (1,)]
    return [False, True, False]


HIDDEN = {
    "teamwork_process_after": "t.created_at < :value",
    "teamwork_excluded_projects": "coalesce(l.project_id = ANY(:value), true)",
    "teamwork_excluded_companies": "coalesce(p.company_id = ANY(:value), true)",
    "include_completed_tasks_on_initial_sync": "NOT :value AND t.completed_at < s.first_import_at",
    "missive_process_after": "coalesce(e.delivered_at, e.created_at) < :value",
}
TASKS = """
    SELECT t.id FROM teamwork.tasks t LEFT JOIN teamwork.tasklists l ON l.id = t.tasklist_id
    LEFT JOIN teamwork.projects p ON p.id = l.project_id
    JOIN twm.sources s ON s.source = 'teamwork' WHERE NOT coalesce({}, false)
"""
EMAILS = "SELECT e.id FROM missive.emails e WHERE NOT coalesce({}, false)"


@pytest.mark.parametrize("name", HIDDEN)
def test_a_setting_hides_and_shows_as_it_moves_and_deletes_nothing(account, name):
    source: Source = "missive" if name.startswith("missive") else "teamwork"
    view, key, expected = (
        ("public.emails", "email_id", EMAILS) if source == "missive" else ("public.tasks", "task_id", TASKS)
    )
    account.sync(source)
    everything = {row[0] for row in account.query(f"SELECT {key} FROM {view}")}
    shown, wanted = [], []

    for value in values_of(account, name):
        seen = account.change(**{name: value})
        seen.sync(source)
        run_reconcile(seen.engine, seen.settings, source, options=ReconcileOptions())
        shown.append({row[0] for row in account.query(f"SELECT {key} FROM {view}")})
        wanted.append({row[0] for row in account.query(expected.format(HIDDEN[name]), value=_bound(value))})
    account.sync(source)

    assert shown == wanted
    assert everything > min(shown, key=len)
    assert {row[0] for row in account.query(f"SELECT {key} FROM {view}")} == everything
    table = "missive.emails" if source == "missive" else "teamwork.tasks"
    assert (
        account.scalar(f"SELECT count(*) FROM {table} WHERE missing_since IS NOT NULL OR inaccessible") == 0
    )


def _bound(value):
    return list(value) if isinstance(value, tuple) else value


def test_a_sweep_does_not_look_singly_at_what_a_start_date_leaves_out_of_the_lists(account):
    account.sync("missive")
    late = quantile(account, 0.9, "last_activity_at", "missive.conversations")
    narrow = account.change(missive_process_after=late, reconcile_days=0, reconcile_conversations=5)
    narrow.sync("missive")
    account.control.reset_counters()

    run_reconcile(narrow.engine, narrow.settings, "missive", options=ReconcileOptions())

    single = [row for row in account.control.requests("missive") if row["path"].count("/") == 2]
    assert len(single) <= 5
    assert account.scalar("SELECT count(*) FROM missive.conversations WHERE missing_since IS NOT NULL") == 0


def test_a_task_hidden_by_a_start_date_is_still_deleted_when_it_is(account):
    account.sync("teamwork")
    late = quantile(account, 0.7, "created_at", "teamwork.tasks")
    hidden = account.scalar(
        "SELECT min(id) FROM teamwork.tasks WHERE NOT deleted AND created_at < :at", at=late
    )
    narrow = account.change(teamwork_process_after=late)
    narrow.sync("teamwork")

    account.control.delete_task(hidden)
    narrow.sync("teamwork")

    assert account.scalar("SELECT deleted AND out_of_scope FROM teamwork.tasks WHERE id = :id", id=hidden)
