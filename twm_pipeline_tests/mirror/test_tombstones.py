"""Rows that are gone: missing, inaccessible, deleted; each by evidence newer than what is stored."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import Connection, Engine, text

from twm_pipeline.mirror.status import read_held_deletions
from twm_pipeline.mirror.tables import EMAILS, TASKS
from twm_pipeline.mirror.tombstones import (
    Absences,
    count_rows,
    long_missing,
    mark_inaccessible,
    mark_missing,
    read_absences,
    tombstone,
)
from twm_pipeline.mirror.upserts import upsert
from twm_pipeline_tests.factories import MORNING, make_email, make_task, seen

LATER = MORNING + timedelta(minutes=10)


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    """Give a connection that sees tasks 1 to 4, observed by request 10."""
    with engine.connect() as connection:
        upsert(connection, TASKS, [seen(make_task(id=number), 10) for number in range(1, 5)])
        yield connection


def state(connection: Connection, number: int = 1):
    return connection.execute(
        text(
            "SELECT deleted, deleted_at, deleted_evidence, missing_since, inaccessible, observed_seq"
            " FROM teamwork.tasks WHERE id = :id"
        ),
        {"id": number},
    ).one()


def test_a_tombstone_says_when_and_why(connection):
    count = tombstone(connection, TASKS, [1, 2], seq=11, at=MORNING, evidence="absence")

    assert count == 2
    assert state(connection) == (True, MORNING, "absence", None, False, 11)
    assert count_rows(connection, TASKS) == 2


@pytest.mark.parametrize("seq", [9, 10])
def test_older_evidence_changes_nothing(connection, seq):
    assert tombstone(connection, TASKS, [1], seq=seq, at=MORNING, evidence="event") == 0
    assert mark_inaccessible(connection, TASKS, [1], seq=seq) == 0
    mark_missing(connection, TASKS, [1], seq=seq, at=MORNING)

    assert state(connection) == (False, None, None, None, False, 10)


def test_a_second_tombstone_keeps_the_first_time_and_evidence(connection):
    tombstone(connection, TASKS, [1], seq=11, at=MORNING, evidence="event")

    count = tombstone(connection, TASKS, [1], seq=12, at=LATER, evidence="absence")

    assert count == 0
    assert state(connection)[:3] == (True, MORNING, "event")


def test_a_look_between_two_deletions_does_not_lift_the_later_one(connection):
    """Request 12 saw the task restored, request 13 gone again; the answer of 12 comes last."""
    tombstone(connection, TASKS, [1], seq=11, at=MORNING, evidence="event")
    tombstone(connection, TASKS, [1], seq=13, at=LATER, evidence="event")

    upsert(connection, TASKS, [seen(make_task(title="restored"), 12)])

    assert state(connection).deleted


def test_a_tombstone_ends_being_missing_or_inaccessible(connection):
    mark_missing(connection, TASKS, [1], seq=11, at=MORNING)
    mark_inaccessible(connection, TASKS, [2], seq=11)

    tombstone(connection, TASKS, [1, 2], seq=12, at=LATER, evidence="absence")

    assert [state(connection, number)[3:5] for number in (1, 2)] == [(None, False)] * 2


def test_missing_counts_from_the_first_time(connection):
    mark_missing(connection, TASKS, [1, 2], seq=11, at=MORNING)
    mark_missing(connection, TASKS, [1], seq=12, at=LATER)

    assert state(connection).missing_since == MORNING
    assert sorted(long_missing(connection, TASKS, before=MORNING)) == [1, 2]
    assert long_missing(connection, TASKS, before=MORNING - timedelta(seconds=1)) == []


def test_a_deleted_row_is_neither_missing_nor_inaccessible(connection):
    tombstone(connection, TASKS, [1], seq=11, at=MORNING, evidence="event")

    mark_missing(connection, TASKS, [1], seq=12, at=LATER)

    assert mark_inaccessible(connection, TASKS, [1], seq=12) == 0
    assert state(connection)[3:5] == (None, False)


def test_an_inaccessible_row_is_marked_once(connection):
    mark_missing(connection, TASKS, [1], seq=11, at=MORNING)

    counts = [mark_inaccessible(connection, TASKS, [1], seq=seq) for seq in (12, 13)]

    assert counts == [1, 0]
    assert state(connection)[3:5] == (None, True)


def test_only_absence_is_counted_against_the_limit_and_only_for_a_day(connection):
    tombstone(connection, TASKS, [1, 2], seq=11, at=MORNING, evidence="absence")
    tombstone(connection, TASKS, [3], seq=11, at=MORNING, evidence="event")
    connection.execute(text("UPDATE teamwork.tasks SET synced_at = now() - interval '25 hours' WHERE id = 2"))

    assert read_absences(connection, TASKS).recent == 1


def test_nothing_is_marked_without_ids(connection):
    assert tombstone(connection, TASKS, [], seq=99, at=MORNING, evidence="absence") == 0
    assert mark_inaccessible(connection, TASKS, [], seq=99) == 0
    mark_missing(connection, TASKS, [], seq=99, at=MORNING)

    assert count_rows(connection, TASKS) == 4


def test_ids_may_be_texts(connection):
    upsert(connection, EMAILS, [seen(make_email(id="it's"), 1)])

    assert tombstone(connection, EMAILS, ["it's", "unknown"], seq=2, at=MORNING, evidence="absence") == 1


@pytest.mark.parametrize(
    ("wanted", "recent", "living", "held"),
    [
        (20, 0, 0, False),
        (0, 20, 100, False),
        (50, 0, 1000, False),
        (25, 25, 1000, False),
        (21, 0, 100, True),
        (1, 20, 100, True),
        (51, 0, 1000, True),
    ],
    ids=str,
)
def test_few_deletions_are_believed_and_many_are_held(wanted, recent, living, held):
    absences = Absences(table=TASKS, wanted=wanted, recent=recent, living=living)

    assert absences.are_held is held
    assert "twm reconcile teamwork --confirm-deletions" in absences.describe()


def test_rows_that_stay_missing_in_numbers_are_shown_as_held(connection):
    upsert(connection, TASKS, [seen(make_task(id=number), 1) for number in range(5, 31)])
    now = connection.scalar(text("SELECT now()"))

    mark_missing(connection, TASKS, list(range(1, 22)), seq=11, at=now - timedelta(minutes=16))
    mark_missing(connection, TASKS, list(range(22, 31)), seq=11, at=now)

    (held,) = read_held_deletions(connection, "teamwork")
    assert (held.table, held.wanted) == (TASKS, 21)
    connection.execute(text("UPDATE teamwork.tasks SET missing_since = NULL WHERE id = 1"))
    assert read_held_deletions(connection, "teamwork") == []
