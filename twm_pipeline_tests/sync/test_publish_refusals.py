"""What Airtable refuses: single cells, whole calls, more calls than it allows."""

from __future__ import annotations

import pytest

from twm_pipeline.errors import QuotaExhaustedError, RequestRefusedError
from twm_pipeline.sync.publishing import CALLS_AT_ONCE
from twm_pipeline_tests.publishing import kinds
from twm_pipeline_tests.sync.bases import refuse_one


def test_a_refused_cell_holds_up_only_its_row(picky):
    bad = refuse_one(picky)

    report = picky.tasks()

    assert (report.updated, report.set_aside) == (9, 1)
    assert list(picky.set_aside()) == [str(bad)]
    assert "INVALID_MULTIPLE_CHOICE_OPTIONS" in picky.set_aside()[str(bad)]
    assert "low" not in picky.set_aside()[str(bad)]
    assert len(picky.requests()) <= 9
    assert {item.rpartition(" ")[0] for item in picky.differences()} <= {f"tasks {bad}:"}
    assert picky.waits() == 0


def test_a_row_refused_by_a_field_that_got_another_type_names_it_with_the_ways_out(picky):
    bad = refuse_one(picky)

    picky.tasks()

    assert "'priority': its type is singleSelect" in picky.set_aside()[str(bad)]
    assert "rename that field" in picky.set_aside()[str(bad)]


def test_a_field_that_got_another_type_and_was_then_renamed_is_made_beside_it(picky):
    bad = refuse_one(picky)
    picky.tasks()

    picky.control.airtable_rename_field("Tasks", "priority", "How urgent")
    picky.execute("UPDATE twm.set_aside SET next_attempt_at = now()")
    picky.tasks()

    assert picky.cells_of(bad)["priority"] == "low"
    assert not picky.set_aside()
    assert all(item.endswith("How urgent is filled") for item in picky.differences())


def test_airtables_words_about_a_field_are_passed_on_by_every_process(base):
    base.control.airtable_retype_field("Tasks", "progress", "formula", {})
    base.edit(base.task_ids("NOT deleted")[0], name="Order steel")

    base.tasks()

    [reason] = base.set_aside().values()
    assert 'Field "progress"' in reason


@pytest.mark.parametrize("body", ["json", "html", "empty"])
def test_a_call_that_is_too_large_travels_in_parts(base, body):
    base.control.set_answer("airtable.too_large", body)
    base.control.set_answer("airtable.largest_body", 40_000)
    for item in base.task_ids("NOT deleted")[:10]:
        base.control.edit_task(item, description="steel " * 2_000)
    base.account.sync("teamwork")

    report = base.tasks()

    assert (report.updated, report.set_aside) == (10, 0)
    assert not base.differences()


def test_a_refused_row_is_left_alone_until_it_is_due(picky):
    refuse_one(picky)
    picky.tasks()
    picky.requests()

    assert picky.tasks().set_aside == 0
    assert picky.requests() == []

    picky.execute("UPDATE twm.set_aside SET next_attempt_at = now()")
    assert picky.tasks().set_aside == 1
    assert kinds(picky.requests()) == {"PATCH records": 1, "GET meta": 1}
    assert picky.account.scalar("SELECT attempts FROM twm.set_aside") == 2


def test_a_due_row_lands_when_the_field_takes_it(picky):
    refuse_one(picky)
    picky.tasks()
    picky.control.airtable_retype_field("Tasks", "priority", "singleLineText")

    picky.execute("UPDATE twm.set_aside SET next_attempt_at = now()")
    picky.tasks()

    assert not picky.set_aside()
    assert not picky.differences()


def test_a_refused_row_is_tried_again_when_it_changes(picky):
    bad = refuse_one(picky)
    picky.tasks()

    picky.edit(bad, priority="high")
    picky.tasks()

    assert not picky.set_aside()
    assert not picky.differences()


def test_a_row_that_needs_nothing_any_more_is_not_set_aside_any_more(base):
    shown, hidden = base.task_ids()[:2]
    base.execute("UPDATE teamwork.tasks SET out_of_scope = true WHERE id = :id", id=hidden)
    base.tasks()
    for item in (shown, hidden):
        base.execute(
            "INSERT INTO twm.set_aside (source, stream, object_id, reason)"
            " VALUES ('airtable', 'tasks', :id, 'refused')",
            id=str(item),
        )

    base.tasks()

    assert not base.set_aside()


def test_a_refused_row_that_is_hidden_is_not_set_aside_any_more(picky):
    bad = refuse_one(picky)
    picky.tasks()

    picky.execute("UPDATE teamwork.tasks SET out_of_scope = true WHERE id = :id", id=bad)
    picky.tasks()

    assert not picky.set_aside()
    assert not picky.differences()


def test_when_nearly_everything_is_refused_publishing_stops_and_says_so(make_base):
    base = make_base(tasks=200)
    base.publish()
    base.control.airtable_retype_field("Tasks", "name", "singleSelect", {"choices": [{"name": "x"}]})
    base.control.bulk_edit(200, priority="high")
    for item in base.task_ids():
        base.control.edit_task(item, name=f"Task {item}")
    base.account.sync("teamwork")
    base.requests()

    with pytest.raises(RequestRefusedError, match="INVALID_MULTIPLE_CHOICE_OPTIONS"):
        base.publish()

    assert len(base.requests()) < 100
    assert base.waits() > 0


def test_a_base_that_is_full_costs_few_calls(make_base):
    base = make_base(tasks=250, conversations=3)
    base.control.set_answer("airtable.records_per_base", 100)
    with pytest.raises(RequestRefusedError, match="RECORD_LIMIT_EXCEEDED"):
        base.tasks()
    first = len(base.requests())

    with pytest.raises(RequestRefusedError, match="RECORD_LIMIT_EXCEEDED"):
        base.tasks()

    assert first < 100
    assert len(base.requests()) < 20
    base.control.set_answer("airtable.records_per_base", 0)
    base.execute("UPDATE twm.set_aside SET next_attempt_at = now()")
    base.tasks()
    assert not base.set_aside()
    assert len(base.records()) == len(base.task_ids())


def test_after_a_429_the_base_is_silent_until_the_penalty_is_over(make_base):
    scale = 60.0
    base = make_base(tasks=100)
    base.account = base.account.change(budget_time_scale=scale)
    base.control.set_budgets(scale, "airtable")
    base.control.add_fault("airtable", "429", path="tbl", after=3, retry_after="none")
    base.requests()

    base.publish()

    asked = base.requests()
    refused = [row for row in asked if row["status"] == 429]
    assert len(refused) == 1
    after = [row["at"] - refused[0]["at"] for row in asked[asked.index(refused[0]) + 1 :]]
    early = [seconds for seconds in after if seconds < 30 / scale]
    assert len(early) < CALLS_AT_ONCE  # those that were under way when it was refused
    assert len(after) > CALLS_AT_ONCE
    assert base.control.violations("airtable") == 0
    assert not base.differences()


def test_an_exhausted_quota_stops_publishing_and_nothing_else(fresh):
    fresh.control.airtable_set_quota(5)

    with pytest.raises(QuotaExhaustedError):
        fresh.publish()
    fresh.requests()
    with pytest.raises(QuotaExhaustedError, match="quota is used up"):
        fresh.publish()

    assert fresh.requests() == []
    fresh.edit(fresh.task_ids()[0], name="Order steel")
    assert fresh.account.scalar("SELECT count(*) FROM public.tasks WHERE title = 'Order steel'") == 1


def test_a_quota_that_ends_while_the_base_is_looked_at_is_remembered_too(base):
    base.control.airtable_set_quota(0)

    with pytest.raises(QuotaExhaustedError):
        base.publish(check="sample")
    refused = len(base.requests())
    with pytest.raises(QuotaExhaustedError, match="quota is used up"):
        base.publish()

    assert refused == 1
    assert base.requests() == []


def test_publishing_goes_on_when_somebody_asks_for_it(fresh):
    fresh.control.airtable_set_quota(5)
    with pytest.raises(QuotaExhaustedError):
        fresh.publish()

    fresh.control.airtable_set_quota(None)
    fresh.publish(resume=True)

    assert not fresh.differences()
    fresh.publish()


def test_four_fifths_of_the_months_calls_are_a_warning(fresh):
    fresh.account = fresh.account.change(airtable_monthly_calls=10_000)
    quiet = fresh.publish()
    used = fresh.account.scalar("SELECT calls FROM twm.monthly_calls")

    fresh.account = fresh.account.change(airtable_monthly_calls=used + 3)
    fresh.edit(fresh.task_ids()[0], name="Order steel")
    loud = fresh.publish()
    silent = fresh.publish()

    assert not [report.problems for report in (*quiet.values(), *silent.values()) if report.problems]
    [problem] = [problem for report in loud.values() for problem in report.problems]
    assert "AIRTABLE_MONTHLY_CALLS" in problem


def test_the_months_last_call_is_not_exceeded(fresh):
    unlimited = fresh.account
    fresh.account = unlimited.change(airtable_monthly_calls=6)

    with pytest.raises(QuotaExhaustedError, match="AIRTABLE_MONTHLY_CALLS"):
        fresh.publish()
    with pytest.raises(QuotaExhaustedError, match="AIRTABLE_MONTHLY_CALLS"):
        fresh.publish()

    assert len(fresh.requests()) == 6
    fresh.account = unlimited
    fresh.publish()
    assert not fresh.differences()
