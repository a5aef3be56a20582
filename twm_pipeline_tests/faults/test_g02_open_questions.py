"""The mirror is right under every answer to every question that the vendors' documentation leaves open (G2).

All answers in a few worlds in every run; each by itself with TWM_WHOLE_DATA=1. Publishing under them is in
`test_g04_publishing.py`.
"""

from __future__ import annotations

import os

import pytest

from twm_pipeline.sandbox import ALL_ANSWERS
from twm_pipeline_tests.faults.hooked import deliver, drain, hooked, waiting
from twm_pipeline_tests.faults.world import is_living

QUESTIONS = {
    "Teamwork: does showDeleted add or replace?": ("show_deleted", "feed_show_deleted"),
    "Teamwork: what moves updatedAt?": (
        "delete_bumps_updated_at",
        "restore_bumps_updated_at",
        "tag_bumps_updated_at",
        "comment_bumps_updated_at",
        "archive_bumps_updated_at",
        "move_bumps_updated_at",
    ),
    "Teamwork: is updatedAfter inclusive?": ("updated_after_inclusive",),
    "Teamwork: what does TASK.DELETED say?": ("deletion_id",),
    "Teamwork: how large is a page?": ("max_page_size", "filter_after_paging", "record_cap", "beyond_cap"),
    "Teamwork: what does the reset header mean?": ("rate_reset", "rate_header", "retry_after"),
    "Teamwork: is X-Projects-Event always sent?": ("event_header",),
    "Missive: is until inclusive?": ("until_inclusive",),
    "Missive: what does all=true hold?": (
        "all_includes_trashed",
        "all_includes_junked",
        "all_includes_closed",
    ),
    "Missive: where do drafts without a date stand?": ("undated_drafts",),
    "Missive: what moves last_activity_at?": (
        "label_bumps_activity",
        "assign_bumps_activity",
        "comment_bumps_activity",
        "close_bumps_activity",
        "trash_bumps_activity",
        "merge_bumps_activity",
    ),
    "Missive: how long does an attachment's address live?": ("attachment_seconds",),
    "Missive: how many messages a call, and what if one is gone?": (
        "max_message_ids",
        "too_many_ids",
        "missing_in_multi",
        "single_in_multi",
    ),
    "Missive: are hooks made by the API signed?": ("hook_signature",),
    "Missive: what do errors look like?": ("error_shape",),
    "Airtable: what are 100,000 characters?": ("text_unit",),
    "Airtable: what if several records match, or two of a call are equal?": ("several_matches", "equal_keys"),
    "Airtable: what comes after the month's quota?": ("quota_exhausted",),
    "Airtable: does a 429 say when to come again?": ("retry_after",),
    "Airtable: where do uploads go?": ("upload_host",),
    "Airtable: what was written when ten records are answered 5xx?": ("done_before_5xx",),
}
"""The open questions of the documentation, and the sandbox's switches that answer them.

Missive's retries have no switch: deliveries are dropped, repeated and late in `test_g02_deliveries.py`.
"""
ABOUT_DELIVERIES = ("hook", "event", "deletion_id", "fires")
"""Words in the names of switches that change nothing of what is read."""
REFUSED = {"teamwork.webhooks_allowed": True, "teamwork.webhooks_before_enabling": "open"}
"""Without these there is no delivery; what is done then is in `webhooks/test_registration.py`."""
OTHERS = [
    (name, value)
    for name, values in ALL_ANSWERS.items()
    for value in values[1:]
    if not name.startswith("airtable.") and not any(word in name for word in ABOUT_DELIVERIES)
]
WORLDS = [
    {name: values[min(place, len(values) - 1)] for name, values in ALL_ANSWERS.items()}
    for place in range(1, max(map(len, ALL_ANSWERS.values())))
]
"""Together they give every answer that is not a default."""


def test_every_question_has_its_switches():
    for question, names in QUESTIONS.items():
        vendor = question.partition(":")[0].lower()
        assert {f"{vendor}.{name}" for name in names} <= ALL_ANSWERS.keys(), question


def test_every_answer_is_given_in_some_world():
    given = {(name, value) for world in WORLDS for name, value in world.items()}

    assert given >= {(name, value) for name, values in ALL_ANSWERS.items() for value in values[1:]}


def live_through(world, *sources):
    """Import, then edits of every kind, some of which nobody is told of."""
    world.sync(*sources)
    before = world.versions()
    world.sync(*sources)
    world.reconcile(*sources)
    assert world.versions() == before, "a second reading wrote something"
    world.control.random_changes(60, 1, sources[0] if len(sources) == 1 else None)
    world.sync(*sources)
    world.settle(*sources)


@pytest.mark.skipif("TWM_WHOLE_DATA" not in os.environ, reason="takes minutes; TWM_WHOLE_DATA=1 runs it")
@pytest.mark.parametrize(("name", "value"), OTHERS, ids=str)
def test_each_answer_by_itself(make_world, name, value):
    source = name.partition(".")[0]
    world = make_world(tasks=60, conversations=12, answers={name: value})

    live_through(world, source)

    world.assert_true(source)


@pytest.mark.parametrize("answers", WORLDS, ids=range(len(WORLDS)))
@pytest.mark.parametrize("source", ["teamwork", "missive"])
def test_all_other_answers_at_once(make_world, source, answers):
    world = make_world(tasks=120, conversations=30, answers=answers)

    live_through(world, source)

    world.assert_true(source)


@pytest.mark.parametrize("answers", WORLDS, ids=range(len(WORLDS)))
def test_deliveries_are_understood_under_all_other_answers_at_once(make_world, answers):
    world = make_world(tasks=40, conversations=10, answers=answers | REFUSED)
    world.sync()

    with hooked(world) as told:
        told.control.delete_task(told.ids("task", is_living)[0])
        told.control.random_changes(30, 1)
        deliver(told)
        drain(told)
        statuses = {status for row in told.control.deliveries() for status in row["statuses"]}
        told.settle()

    assert statuses == {200}
    assert waiting(told) == 0
    told.assert_true()
