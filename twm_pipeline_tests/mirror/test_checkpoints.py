"""What the mirror knows about itself: checkpoints, the account, set-aside records, counters, progress."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, text

from twm_pipeline.errors import AccountChangedError
from twm_pipeline.mirror.checkpoints import (
    Account,
    Checkpoint,
    SetAside,
    add_counter,
    due_set_aside,
    from_iso,
    load_account,
    load_checkpoint,
    note_outcome,
    note_progress,
    resolve_set_aside,
    save_account,
    save_checkpoint,
    set_aside,
    to_iso,
    waiting_set_aside,
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


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        yield connection


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


def wait_minutes(connection: Connection) -> float:
    return float(
        connection.execute(
            text("SELECT extract(epoch FROM next_attempt_at - now()) / 60 FROM twm.set_aside")
        ).scalar_one()
    )


def test_each_attempt_of_a_set_aside_record_waits_twice_as_long_up_to_a_day(connection):
    waits = []
    for _ in range(14):
        set_aside(connection, "teamwork", [SetAside(stream="tasks", object_id="1", reason="x")])
        waits.append(round(wait_minutes(connection)))

    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1440, 1440, 1440]


def test_after_very_many_attempts_the_wait_is_still_a_day(connection):
    problem = SetAside(stream="tasks", object_id="1", reason="x")
    set_aside(connection, "teamwork", [problem])
    connection.execute(text("UPDATE twm.set_aside SET attempts = 2000000"))

    set_aside(connection, "teamwork", [problem])

    assert wait_minutes(connection) == 1440


def test_a_set_aside_record_keeps_its_last_reason_and_row(connection):
    first = SetAside(stream="tasks", object_id="1", reason="dueDate", raw={"id": 1})
    second = SetAside(stream="tasks", object_id="1", reason="y" * 2000, raw={"id": 1, "name": "x"})

    counts = [set_aside(connection, "teamwork", [problem]) for problem in (first, second)]

    row = connection.execute(text("SELECT reason, raw, attempts FROM twm.set_aside")).one()
    assert counts == [1, 1]
    assert row == ("y" * 500, {"id": 1, "name": "x"}, 2)


def test_a_set_aside_record_is_due_when_its_time_has_come(connection):
    problems = [SetAside(stream="tasks", object_id=name, reason="x") for name in ("1", "2", "3")]
    set_aside(connection, "teamwork", problems)
    connection.execute(
        text(
            "UPDATE twm.set_aside SET next_attempt_at = now() - CAST(object_id AS int) * interval '1 minute'"
            " WHERE object_id <> '3'"
        )
    )

    assert due_set_aside(connection, "teamwork", "tasks") == ["2", "1"]
    assert due_set_aside(connection, "teamwork", "tasks", limit=1) == ["2"]
    assert due_set_aside(connection, "teamwork", "people") == []
    assert waiting_set_aside(connection, "teamwork", "tasks", ["1", "2", "3", "4"]) == {"3"}


def test_a_stored_record_is_no_longer_set_aside(connection):
    problems = [SetAside(stream="tasks", object_id=name, reason="x") for name in ("1", "2")]
    set_aside(connection, "teamwork", [*problems, SetAside(stream="tags", object_id="1", reason="x")])

    resolve_set_aside(connection, "teamwork", "tasks", [1])

    left = connection.execute(text("SELECT stream, object_id FROM twm.set_aside ORDER BY 1")).all()
    assert left == [("tags", "1"), ("tasks", "2")]


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
