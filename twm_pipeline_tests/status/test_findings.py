"""What needs attention, and what does not."""

from __future__ import annotations

from datetime import timedelta

import pytest

from twm_pipeline.status.findings import find
from twm_pipeline_tests.status.pages import NOW, make_airtable, make_attachments, make_figures

SPOOL = make_figures()["sources"][0]["spool"]
HOOK = {"event": "TASK.CREATED", "status": "active", "checked_at": NOW, "attempts": 0, "problem": None}
PARKED = {"count": 2, "records": []}
REFUSAL = {"stream": "people", "feed": "", "reason": "403", "since": NOW, "is_lost": True}
BUDGET = {"account": "teamwork x", "paused_until": NOW, "paused_reason": "429", "windows": []}

CASES = {
    "PostgreSQL is away": ({"problem": "It does not answer."}, [("DatabaseDown", "bad", "Mirror")]),
    "the receiver is gone": (
        {"receiver": make_figures()["receiver"] | {"health": None}},
        [("ReceiverDown", "bad", "Receiver")],
    ),
    "the receiver is gone and nobody could reach it": (
        {"receiver": make_figures()["receiver"] | {"health": None, "expected": False}},
        [],
    ),
    "the receiver's disk fails": (
        {"receiver": make_figures()["receiver"] | {"health": "failing"}},
        [("ReceiverFailing", "bad", "Receiver")],
    ),
    "there is no receiver": ({"receiver": None}, []),
    "the disk is full": (
        {"disk": {"free_bytes": 10, "reserve_bytes": 11}},
        [("DiskFull", "bad", "Disk")],
    ),
    "the disk is not known": ({"disk": {"free_bytes": None, "reserve_bytes": 11}}, []),
    "a little behind": ({"teamwork": {"lag_seconds": 600.0}}, []),
    "behind": ({"teamwork": {"lag_seconds": 601.0}}, [("SourceLate", "warn", "Teamwork")]),
    "far behind": ({"missive": {"lag_seconds": 3601.0}}, [("SourceLate", "bad", "Missive")]),
    "read for the first time": (
        {"missive": {"lag_seconds": None, "last_success_at": None}},
        [("SourceUnread", "warn", "Missive")],
    ),
    "never read": (
        {"missive": {"lag_seconds": None, "last_success_at": None, "account": None}},
        [("SourceUnread", "warn", "Missive")],
    ),
    "never read, and switched off": (
        {"missive": {"lag_seconds": None, "account": None, "configured": False}},
        [],
    ),
    "history is still to be read": (
        {"missive": {"checkpoints": [{"more_to_read": False}, {"more_to_read": True}]}},
        [("HistoryPending", "note", "Missive")],
    ),
    "PostgreSQL is away and nothing is known": (
        {"problem": "It does not answer.", "missive": {"account": None}},
        [("DatabaseDown", "bad", "Mirror")],
    ),
    "behind, but switched off": ({"missive": {"lag_seconds": 9e9, "configured": False}}, []),
    "failed after the last success": (
        {"teamwork": {"last_error": "502", "last_error_at": NOW + timedelta(seconds=1)}},
        [("SourceFailing", "warn", "Teamwork")],
    ),
    "failed before the last success": (
        {"teamwork": {"last_error": "502", "last_error_at": NOW - timedelta(seconds=1)}},
        [],
    ),
    "failed and never succeeded": (
        {"teamwork": {"last_error": "401", "last_error_at": NOW, "last_success_at": None}},
        [("SourceFailing", "warn", "Teamwork")],
    ),
    "a stream that was read is refused": (
        {"teamwork": {"refusals": [REFUSAL]}},
        [("StreamRefused", "warn", "Teamwork")],
    ),
    "a stream that never was readable": (
        {"teamwork": {"refusals": [REFUSAL | {"is_lost": False}]}},
        [("StreamRefused", "note", "Teamwork")],
    ),
    "deletions wait for a person": (
        {"teamwork": {"held_deletions": ["teamwork/tasks: 21 of 100 rows are gone"]}},
        [("DeletionsHeld", "warn", "Teamwork")],
    ),
    "a field that the vendor did not send before": (
        {"missive": {"new_fields": [{"stream": "emails", "count": 1, "text": "colour (string, new)"}]}},
        [("FieldsNew", "note", "Missive")],
    ),
    "set aside": ({"teamwork": {"set_aside": PARKED}}, [("RecordsSetAside", "note", "Teamwork")]),
    "paused": ({"teamwork": {"budgets": [BUDGET]}}, [("VendorPause", "note", "Teamwork")]),
    "a hook is paused": (
        {"teamwork": {"hooks": [HOOK, HOOK | {"status": "paused"}]}},
        [("HooksNotActive", "warn", "Teamwork")],
    ),
    "hooks are active": ({"teamwork": {"hooks": [HOOK]}}, []),
    "deliveries wait a moment": ({"missive": {"spool": SPOOL | {"waiting": 9, "oldest_seconds": 300}}}, []),
    "deliveries wait long": (
        {"missive": {"spool": SPOOL | {"waiting": 9, "oldest_seconds": 301}}},
        [("DeliveriesLate", "warn", "Missive")],
    ),
    "deliveries are dead": (
        {"missive": {"spool": SPOOL | {"dead": 1}}},
        [("DeliveriesDead", "note", "Missive")],
    ),
    "the spool cannot be read": (
        {"missive": {"spool": SPOOL | {"problem": "It cannot be listed."}}},
        [("SpoolUnreadable", "bad", "Missive")],
    ),
    "files that are not to be had": (
        {"attachments": make_attachments(failed=2)},
        [("AttachmentsFailed", "note", "Attachments")],
    ),
    "the quota is used up": (
        {"airtable": make_airtable(stopped="Used up.", calls=1001)},
        [("AirtableQuotaUsedUp", "bad", "Airtable")],
    ),
    "the quota is low": ({"airtable": make_airtable(calls=801)}, [("AirtableQuotaLow", "warn", "Airtable")]),
    "the quota is not known": ({"airtable": make_airtable(calls=10**6, monthly_calls=None)}, []),
    "publishing fails": (
        {"airtable": make_airtable(last_error="403", last_error_at=NOW)},
        [("AirtableFailing", "warn", "Airtable")],
    ),
    "rows that Airtable refuses": (
        {"airtable": make_airtable(set_aside=PARKED)},
        [("RecordsSetAside", "note", "Airtable")],
    ),
    "not compared for long": (
        {"airtable": make_airtable(views=[{"view": "tasks", "compared_at": NOW - timedelta(days=3)}])},
        [("AirtableNotCompared", "warn", "Airtable")],
    ),
}


@pytest.mark.parametrize(("changes", "expected"), CASES.values(), ids=CASES)
def test_what_needs_attention(changes, expected):
    found = find(make_figures(**changes))

    assert [(item.name, item.level, item.subject) for item in found] == expected


def test_the_worst_comes_first():
    figures = make_figures(
        missive={"set_aside": PARKED, "lag_seconds": 700.0}, teamwork={"lag_seconds": 7000.0}
    )

    assert [item.level for item in find(figures)] == ["bad", "warn", "note"]


def test_one_and_many_are_told_apart():
    one = find(make_figures(teamwork={"set_aside": {"count": 1, "records": []}}))
    many = find(make_figures(teamwork={"set_aside": {"count": 1200, "records": []}}))

    assert one[0].text.startswith("1 record is set aside")
    assert many[0].text.startswith("1,200 records are set aside")
