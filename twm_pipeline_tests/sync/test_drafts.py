"""Drafts are messages that are not sent yet: they come, change, are sent under this id or another, or go."""

from __future__ import annotations

from typing import Any

import pytest

from twm_pipeline_tests.faults.world import dsn_of
from twm_pipeline_tests.sync.conftest import Account
from twm_pipeline_tests.truth.compare_truth import differences

BEAT_SECONDS = 7200
SETTLED = """
    SELECT id FROM missive.conversations
    WHERE NOT deleted AND drafts_count = 0 AND messages_count > 0 LIMIT 1
"""


@pytest.fixture
def synced(account: Account) -> Account:
    account.sync("missive")
    return account


def assert_true(account: Account) -> None:
    assert differences(account.control.truth(), dsn_of(account.engine.url), sources=["missive"]) == []


def shown(account: Account, message: str) -> Any:
    return account.query("SELECT * FROM public.emails WHERE email_id = :id", id=message)[0]


def settle(account: Account) -> None:
    """Read twice with a beat between: what is absent both times is gone."""
    for _ in range(2):
        account.control.advance(BEAT_SECONDS)
        account.sync("missive")


@pytest.mark.parametrize("bodies", ["alone", "listed"])
@pytest.mark.parametrize("moves", [False, True])
def test_a_draft_is_shown_as_one_wherever_its_body_is(synced, bodies, moves):
    synced.control.set_answer("missive.draft_bodies", bodies)
    synced.control.set_answer("missive.draft_bumps_activity", moves)
    draft = synced.control.write_draft(synced.scalar(SETTLED), "<p>Not yet</p>")

    synced.sync("missive")

    row = shown(synced, draft)
    assert (row.draft, row.sent_at, row.received_at, row.deleted) == (True, None, None, False)
    assert row.body_text.strip() == "Not yet"
    assert_true(synced)


def test_a_draft_that_goes_on_being_written_is_read_with_the_next_beat(synced):
    draft = synced.control.write_draft(synced.scalar(SETTLED))
    synced.sync("missive")
    synced.control.edit_draft(draft, "<p>Better</p>")

    synced.control.advance(BEAT_SECONDS)
    synced.sync("missive")

    assert shown(synced, draft).body_text.strip() == "Better"


@pytest.mark.parametrize("keeps_id", [True, False])
def test_a_draft_that_is_sent_is_a_message_under_its_id_or_another(synced, keeps_id):
    synced.control.set_answer("missive.sent_draft_keeps_id", keeps_id)
    draft = synced.control.write_draft(synced.scalar(SETTLED), "<p>Now</p>")
    synced.sync("missive")
    message = synced.control.send_draft(draft)

    synced.sync("missive")
    sent = shown(synced, message)
    settle(synced)

    assert (message == draft) is keeps_id
    assert (sent.draft, sent.deleted, sent.sent_at is not None) == (False, False, True)
    assert shown(synced, draft).deleted is not keeps_id
    assert_true(synced)


def test_a_draft_that_is_thrown_away_is_gone_when_two_looks_lack_it(synced):
    draft = synced.control.write_draft(synced.scalar(SETTLED))
    synced.sync("missive")
    synced.control.discard_draft(draft)

    synced.sync("missive")
    at_first = shown(synced, draft).deleted
    settle(synced)

    assert (at_first, shown(synced, draft).deleted) == (False, True)
    assert_true(synced)


def test_drafts_do_not_count_as_messages_that_a_list_lacks(synced):
    conversation = synced.scalar(SETTLED)
    draft = synced.control.write_draft(conversation)
    synced.sync("missive")
    synced.control.reply(conversation)

    synced.sync("missive")

    assert synced.scalar("SELECT missing_since FROM missive.emails WHERE id = :id", id=draft) is None


def test_a_quiet_pass_asks_for_no_draft(synced):
    synced.control.write_draft(synced.scalar(SETTLED))
    synced.sync("missive")
    synced.control.reset_counters()

    synced.sync("missive")

    assert synced.requests("missive") == 4


def test_an_empty_answer_takes_no_draft_away(synced):
    draft = synced.control.write_draft(synced.scalar(SETTLED))
    synced.sync("missive")

    for _ in range(2):
        synced.control.add_fault("missive", "empty_page", path="/drafts", count=1)
        synced.control.advance(BEAT_SECONDS)
        synced.sync("missive")

    assert not shown(synced, draft).deleted
