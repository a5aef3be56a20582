"""What the mirror knows about itself: checkpoints, the account, counters, progress."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from twm_pipeline.errors import AccountChangedError
from twm_pipeline.mirror.checkpoints import (
    Account,
    Checkpoint,
    add_counter,
    from_iso,
    load_account,
    load_checkpoint,
    note_outcome,
    note_progress,
    save_account,
    save_checkpoint,
    to_iso,
)
from twm_pipeline_tests.factories import MORNING

HOUR = timedelta(hours=1)
ACCOUNT = Account(
    account="https://site.example.com",
    owner_id="301",
    credentials_digest=b"digest",
    first_import_at=MORNING,
    link_base="https://site.example.com",
    scope={"excluded_projects": [1]},
)


def save(connection: Connection, time: datetime | None, *, may_step_back: bool = False, **values) -> None:
    save_checkpoint(
        connection,
        "teamwork",
        "tasks",
        checkpoint=Checkpoint(last_event_time=time, **values),
        may_step_back=may_step_back,
    )


def time_of(connection: Connection) -> datetime | None:
    checkpoint = load_checkpoint(connection, "teamwork", "tasks")
    assert checkpoint is not None
    return checkpoint.last_event_time


def test_before_its_first_commit_a_feed_has_no_checkpoint(connection):
    assert load_checkpoint(connection, "teamwork", "tasks") is None


def test_a_checkpoint_comes_back_as_it_was_saved(connection):
    cursor = {"head": "2025", "gaps": [{"until": 5, "down_to": None}], "quote": 'it\'s "x"'}

    save(connection, MORNING, last_cursor=cursor, scope="abc")

    assert load_checkpoint(connection, "teamwork", "tasks") == Checkpoint(
        last_event_time=MORNING, last_cursor=cursor, scope="abc"
    )


@pytest.mark.parametrize("earlier", [MORNING - HOUR, None], ids=["earlier", "none"])
def test_a_checkpoint_only_moves_forward(connection, earlier):
    save(connection, MORNING, last_cursor={"page": 1})

    save(connection, earlier, last_cursor={"page": 2}, scope="new")

    assert load_checkpoint(connection, "teamwork", "tasks") == Checkpoint(
        last_event_time=MORNING, last_cursor={"page": 2}, scope="new"
    )


def test_a_checkpoint_moves_forward(connection):
    save(connection, None)
    save(connection, MORNING)
    save(connection, MORNING + HOUR)

    assert time_of(connection) == MORNING + HOUR


@pytest.mark.parametrize("earlier", [MORNING - HOUR, None], ids=["earlier", "none"])
def test_a_widened_scope_may_step_back(connection, earlier):
    save(connection, MORNING)

    save(connection, earlier, may_step_back=True)

    assert time_of(connection) == earlier


def test_feeds_of_a_stream_do_not_know_each_other(connection):
    for feed, hours in (("all", 1), ("trashed", 2)):
        checkpoint = Checkpoint(last_event_time=MORNING + hours * HOUR)
        save_checkpoint(connection, "missive", "conversations", feed, checkpoint=checkpoint)

    found = load_checkpoint(connection, "missive", "conversations", "all")

    assert found is not None
    assert found.last_event_time == MORNING + HOUR
    assert load_checkpoint(connection, "missive", "conversations") is None


def test_a_checkpoint_is_taken_back_with_its_rows(connection):
    save(connection, MORNING)

    connection.rollback()

    assert load_checkpoint(connection, "teamwork", "tasks") is None


def test_an_account_comes_back_as_it_was_saved(connection):
    assert load_account(connection, "teamwork") is None

    save_account(connection, "teamwork", ACCOUNT)

    found = load_account(connection, "teamwork")
    assert found is not None
    assert replace(found, credentials_digest=bytes(found.credentials_digest)) == ACCOUNT


def test_new_credentials_of_the_same_account_keep_the_time_of_the_first_import(connection):
    save_account(connection, "teamwork", ACCOUNT)

    save_account(
        connection,
        "teamwork",
        replace(ACCOUNT, credentials_digest=b"other", owner_id="302", first_import_at=MORNING + HOUR),
    )

    found = load_account(connection, "teamwork")
    assert found is not None
    assert (found.owner_id, bytes(found.credentials_digest)) == ("302", b"other")
    assert found.first_import_at == MORNING


def test_another_account_is_refused_with_words(connection):
    save_account(connection, "teamwork", ACCOUNT)

    with pytest.raises(AccountChangedError, match="Put the old credentials back, or use an empty") as caught:
        save_account(connection, "teamwork", replace(ACCOUNT, account="https://other.example.com"))

    assert "holds the rows of https://site.example.com" in str(caught.value)
    assert "belong to https://other.example.com" in str(caught.value)
    assert "digest" not in str(caught.value)


def test_the_other_vendor_has_an_account_of_its_own(connection):
    save_account(connection, "teamwork", ACCOUNT)
    save_account(connection, "missive", replace(ACCOUNT, account="owner"))

    assert load_account(connection, "missive") is not None


def test_a_success_forgets_the_last_error(connection):
    save_account(connection, "teamwork", ACCOUNT)
    note_outcome(connection, "teamwork", error="x" * 2000)
    error = connection.scalar(text("SELECT last_error FROM twm.sources"))

    note_outcome(connection, "teamwork", error=None)

    assert error == "x" * 500
    row = connection.execute(text("SELECT last_success_at, last_error, last_error_at FROM twm.sources")).one()
    assert row.last_success_at is not None
    assert (row.last_error, row.last_error_at) == (None, None)


def test_counters_add_up(connection):
    for amount in (3, 0, 4):
        add_counter(connection, "missive", "characters_cleaned", amount)

    assert connection.execute(text("SELECT name, value FROM twm.counters")).all() == [
        ("characters_cleaned", 7)
    ]


def test_progress_is_overwritten(connection):
    note_progress(connection, "teamwork", "tasks", phase="history", done=5)
    note_progress(connection, "teamwork", "tasks", phase="history", done=9, total=20)

    assert connection.execute(text("SELECT phase, done, total FROM twm.progress")).all() == [
        ("history", 9, 20)
    ]


@given(st.datetimes(timezones=st.just(UTC) | st.just(timezone(timedelta(hours=9)))) | st.none())
def test_an_instant_survives_a_cursor(moment):
    if moment is not None and not datetime(2, 1, 1, tzinfo=UTC) < moment < datetime(9998, 1, 1, tzinfo=UTC):
        moment = None

    assert from_iso(to_iso(moment)) == moment
