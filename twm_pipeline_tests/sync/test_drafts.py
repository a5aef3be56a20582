"""Drafts are messages that are not sent yet: they come, change, are sent under this id or another, or go."""

from __future__ import annotations

import time
from typing import Any

import pytest

from twm_pipeline.sandbox.options import Clock
from twm_pipeline_tests.faults.world import dsn_of
from twm_pipeline_tests.sync.accounts import Account
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


@pytest.mark.parametrize("bodies", ["alone", "listed"])
def test_a_draft_that_changes_within_the_second_of_its_reading_is_read_again(synced, monkeypatch, bodies):
    synced.control.set_answer("missive.draft_bodies", bodies)
    instant = time.time()
    monkeypatch.setattr(Clock, "time", lambda self: instant + self.offset)
    draft = synced.control.write_draft(synced.scalar(SETTLED))
    synced.sync("missive")
    synced.control.edit_draft(draft, "<p>Better</p>")  # moves no time of its row

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


@pytest.mark.parametrize(("undated", "inclusive"), [("by_creation", False), ("first", True), ("last", False)])
def test_more_drafts_than_a_page_holds_come_wherever_undated_ones_stand(synced, undated, inclusive):
    synced.control.set_answer("missive.undated_drafts", undated)
    synced.control.set_answer("missive.until_inclusive", inclusive)
    conversation = synced.scalar(SETTLED)
    now = synced.control.advance(0)
    for number in range(13):
        synced.control.write_draft(conversation, delivered_at=now - 60 * number if number % 2 else None)
        synced.control.advance(1)
    synced.control.reply(conversation)

    synced.sync("missive")

    assert set_aside(synced) == []
    assert_true(synced)


@pytest.mark.parametrize("kind", ["500", "404", "422", "403", "no_list"])
def test_mail_comes_though_the_drafts_cannot_be_read(account, kind):
    """At the first import and later; the drafts are tried again by themselves, and those known stay."""
    conversation = next(row["id"] for row in account.control.truth("conversation") if not row["guest"])
    path = f"/conversations/{conversation}/drafts"
    account.control.write_draft(conversation)
    account.control.add_fault("missive", kind, path=path, count=None)

    account.sync("missive")
    account.control.reply(conversation)
    account.sync("missive")

    assert messages_lacking(account, conversation) == set()
    assert set_aside(account) == [("emails", f"drafts-of-{conversation}", 1)]
    account.control.clear_faults()
    try_again_now(account)
    account.sync("missive")
    assert set_aside(account) == []
    assert_true(account)


@pytest.mark.parametrize("kind", ["404", "no_list"])
def test_known_drafts_stay_while_their_list_cannot_be_read(synced, kind):
    conversation = synced.scalar(SETTLED)
    draft = synced.control.write_draft(conversation)
    synced.sync("missive")
    synced.control.add_fault("missive", kind, path=f"/conversations/{conversation}/drafts", count=None)

    for attempt in (1, 2):
        synced.control.advance(BEAT_SECONDS)
        synced.sync("missive")
        assert set_aside(synced) == [("emails", f"drafts-of-{conversation}", attempt)]
        try_again_now(synced)

    assert synced.scalar("SELECT missing_since FROM missive.emails WHERE id = :id", id=draft) is None
    synced.control.clear_faults()
    settle(synced)
    assert set_aside(synced) == []
    assert_true(synced)


def test_drafts_that_are_set_aside_are_not_asked_for_before_their_time(synced):
    conversation = synced.scalar(SETTLED)
    synced.control.write_draft(conversation)
    synced.control.add_fault("missive", "422", path=f"/conversations/{conversation}/drafts", count=None)
    synced.sync("missive")

    synced.control.reply(conversation)
    synced.control.advance(BEAT_SECONDS)
    synced.sync("missive")

    assert set_aside(synced) == [("emails", f"drafts-of-{conversation}", 1)]
    assert messages_lacking(synced, conversation) == set()


def test_drafts_of_a_conversation_that_is_gone_are_not_tried_for_ever(synced):
    conversation = synced.scalar(SETTLED)
    synced.control.write_draft(conversation)
    synced.control.add_fault("missive", "422", path=f"/conversations/{conversation}/drafts", count=None)
    synced.sync("missive")
    synced.control.delete_conversation(conversation)
    try_again_now(synced)

    synced.sync("missive")

    assert set_aside(synced) == []


def test_a_list_that_may_have_left_drafts_out_takes_none_away(synced):
    """Undated drafts that fill every page hide the others, which are not gone for that."""
    conversation = synced.scalar(SETTLED)
    for _ in range(12):
        synced.control.write_draft(conversation)
    synced.sync("missive")
    synced.control.set_answer("missive.undated_drafts", "first")

    settle(synced)

    assert set_aside(synced) == []
    assert_true(synced)


def test_drafts_that_no_page_shows_are_said_until_a_page_does(synced):
    synced.control.set_answer("missive.undated_drafts", "first")
    conversation = synced.scalar(SETTLED)
    for _ in range(12):
        synced.control.write_draft(conversation)
    key = f"some-drafts-of-{conversation}"

    synced.sync("missive")

    assert set_aside(synced) == [("emails", key, 1)]
    assert "2 drafts are on no page" in synced.scalar("SELECT reason FROM twm.set_aside")
    synced.control.advance(BEAT_SECONDS)
    synced.sync("missive")
    assert set_aside(synced) == [("emails", key, 2)]  # so the next look is later than the one before
    known = synced.query(
        "SELECT id FROM missive.emails WHERE draft AND conversation_id = :id", id=conversation
    )
    assert len(known) == 10
    for row in known[:2]:
        synced.control.send_draft(row.id)
    settle(synced)
    assert set_aside(synced) == []
    assert_true(synced)


def set_aside(account: Account) -> list[tuple[str, str, int]]:
    return [tuple(row) for row in account.query("SELECT stream, object_id, attempts FROM twm.set_aside")]


def try_again_now(account: Account) -> None:
    with account.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE twm.set_aside SET next_attempt_at = now()")


def messages_lacking(account: Account, conversation: str) -> set[str]:
    """Return messages of a conversation that the mirror lacks, drafts aside."""
    there = next(row for row in account.control.truth("conversation") if row["id"] == conversation)
    stored = account.query("SELECT id FROM missive.emails WHERE conversation_id = :id", id=conversation)
    return set(there["message_ids"]) - {row.id for row in stored}
