"""Writing rows: the newest observation wins, and what is equal is not written."""

import json
import random
import threading
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from twm_pipeline.mirror.tables import COMMENTS, CONVERSATIONS, EMAILS, TABLES, TASKS, Table
from twm_pipeline.mirror.tombstones import mark_inaccessible, mark_missing, tombstone
from twm_pipeline.mirror.upserts import Counts, Observed, insert_unknown, upsert
from twm_pipeline.records import Task
from twm_pipeline_tests.factories import (
    MORNING,
    make_comment,
    make_company,
    make_conversation,
    make_email,
    make_missive_team,
    make_missive_user,
    make_person,
    make_project,
    make_shared_label,
    make_tag,
    make_task,
    make_task_comment,
    make_tasklist,
    make_team,
    make_time_entry,
    seen,
)
from twm_pipeline_tests.mirror.locks import wait_for_a_lock

HOUR = timedelta(hours=1)
RECORDS = {
    "teamwork.tasks": make_task,
    "teamwork.projects": make_project,
    "teamwork.tasklists": make_tasklist,
    "teamwork.people": make_person,
    "teamwork.tags": make_tag,
    "teamwork.companies": make_company,
    "teamwork.teams": make_team,
    "missive.conversations": make_conversation,
    "missive.emails": make_email,
    "missive.comments": make_comment,
    "teamwork.time_entries": make_time_entry,
    "teamwork.task_comments": make_task_comment,
    "missive.shared_labels": make_shared_label,
    "missive.users": make_missive_user,
    "missive.teams": make_missive_team,
}


def row_of(connection: Connection, table: Table, row_id: Any = 1) -> Any:
    return connection.execute(
        text(f"SELECT *, xmin::text FROM {table.name} WHERE id = :id"), {"id": row_id}
    ).one_or_none()


def title_of(item: Observed) -> str | None:
    assert isinstance(item.record, Task)
    return item.record.title


def is_newer(one: Observed, other: Observed) -> bool:
    """Say whether *one* replaces *other*, in the words of DESIGN D4."""
    by_order = (
        one.record.version_at is None
        or other.record.version_at is None
        or one.record.deleted
        or other.record.deleted
    )
    if by_order:
        return one.seq > other.seq
    return (one.record.version_at, one.seq) > (other.record.version_at, other.seq)


def winner_of(observed: list[Observed]) -> Observed | None:
    """Return the observation that is newer than each of the others, if there is one."""
    return next((x for x in observed if all(x is y or is_newer(x, y) for y in observed)), None)


@st.composite
def observations(draw: st.DrawFn) -> list[Observed]:
    seqs = draw(st.lists(st.integers(1, 50), min_size=1, max_size=7, unique=True))
    found = []
    for seq in seqs:
        version = draw(st.none() | st.integers(0, 3))
        deleted = draw(st.booleans())
        title = draw(st.sampled_from("ABC"))
        record = make_task(
            title=title,
            version_at=None if version is None else MORNING + version * HOUR,
            deleted=deleted,
            content_hash=f"{title}{version}{deleted}".encode().ljust(16),
        )
        found.append(seen(record, seq))
    return found


@st.composite
def histories(draw: st.DrawFn) -> list[Observed]:
    """Requests of several processes at once: each saw the row at some instant while it was under way."""
    states = [("A", 0, False)]
    for _ in range(draw(st.integers(0, 5))):
        _, version, _ = states[-1]
        states.append(
            (draw(st.sampled_from("ABC")), version + draw(st.integers(0, 1)), draw(st.booleans())),
        )
    found = []
    began = 0
    for seq in range(1, draw(st.integers(1, 6)) + 1):
        began = draw(st.integers(began, len(states) - 1))
        title, version, deleted = states[draw(st.integers(began, len(states) - 1))]
        found.append((seq, title, version, deleted))
    found.append((len(found) + 1, *states[-1]))
    versioned = draw(st.booleans())
    return [
        seen(
            make_task(
                title=title,
                version_at=MORNING + version * HOUR if versioned else None,
                deleted=deleted,
                content_hash=f"{title}{version}{deleted}".encode().ljust(16),
            ),
            seq,
        )
        for seq, title, version, deleted in found
    ]


def split(data: st.DataObject, items: list[Observed]) -> list[list[Observed]]:
    """Cut *items* into batches."""
    batches: list[list[Observed]] = [[]]
    for item in items:
        batches[-1].append(item)
        if data.draw(st.booleans(), label="new batch"):
            batches.append([])
    return batches


def end_in(connection: Connection, batches: list[list[Observed]], *, older_seq: int | None) -> Any:
    connection.execute(text("TRUNCATE teamwork.tasks"))
    for batch in batches:
        upsert(connection, TASKS, batch, older_seq=older_seq)
    row = row_of(connection, TASKS)
    connection.rollback()
    return row


PROPERTY = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=80
)


@PROPERTY
@given(observed=observations(), data=st.data())
def test_any_order_ends_in_the_newest_observation(connection, observed, data):
    newest = winner_of(observed)
    assume(newest is not None)
    order = data.draw(st.permutations(observed + data.draw(st.lists(st.sampled_from(observed), max_size=4))))

    row = end_in(connection, split(data, order), older_seq=0)

    assert newest is not None
    assert bytes(row.content_hash) == newest.record.content_hash
    assert (row.title, row.version_at, row.deleted) == (
        title_of(newest),
        newest.record.version_at,
        newest.record.deleted,
    )
    assert row.observed_seq == newest.seq


@PROPERTY
@given(observed=histories(), data=st.data())
def test_overlapping_requests_end_in_what_the_last_one_saw(connection, observed, data):
    order = data.draw(st.permutations(observed))

    row = end_in(connection, split(data, order), older_seq=0)

    last = observed[-1]
    assert (row.title, row.deleted) == (title_of(last), last.record.deleted)


@PROPERTY
@given(observed=observations(), data=st.data())
def test_storing_everything_again_changes_nothing(connection, observed, data):
    connection.execute(text("TRUNCATE teamwork.tasks"))
    for item in data.draw(st.permutations(observed)):
        upsert(connection, TASKS, [item])
    before = row_of(connection, TASKS)
    latest = max(observed, key=lambda item: item.seq).seq
    stored = make_task(
        title=before.title,
        version_at=before.version_at,
        deleted=before.deleted,
        content_hash=bytes(before.content_hash),
    )

    counts = upsert(connection, TASKS, [seen(stored, latest + 1)])
    after = row_of(connection, TASKS)
    connection.rollback()

    assert (counts.written, counts.unchanged, counts.stale) == (0, 1, 0)
    assert after == before


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_stream_is_stored_and_an_equal_row_is_not_written(connection, table):
    record = RECORDS[table.name]()

    first = upsert(connection, table, [seen(record, 1)])
    before = row_of(connection, table, record.id)
    connection.commit()
    second = upsert(connection, table, [seen(record, 2)])
    after = row_of(connection, table, record.id)

    assert (first.written, first.written_ids) == (1, (record.id,))
    assert (second.written, second.unchanged, second.written_ids) == (0, 1, ())
    assert after.xmin == before.xmin
    assert after.observed_seq == 1


def test_nothing_is_stored_without_rows(connection):
    assert upsert(connection, TASKS, []) == Counts()
    assert insert_unknown(connection, TASKS, []) == Counts()


def test_all_kinds_of_values_come_back_as_they_were(connection):
    nasty = 'tab\t newline\n return\r backslash\\N \\. quote\' "double" % é 客 👋🏽 \x01\x1f\x7f \u2028'
    record = make_email(
        subject=nasty,
        body_html=nasty * 1000,
        to_addresses=[nasty, "", "a,b", "{}", '"', "NULL"],
        to_names=["", "NULL", "\\", nasty, "x", "y"],
        attachments=json.dumps([{"filename": nasty, "n": 1.5, "none": None}]),
        raw=json.dumps({"text": nasty, "nested": [{"a": [True, None]}]}),
        delivered_at=datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC),
        created_at=datetime(1, 1, 2, tzinfo=UTC),
        stub_hash=b"\x00\\\xff\n",
    )

    upsert(connection, EMAILS, [seen(record, 1)])
    row = row_of(connection, EMAILS, "m1")

    for name in ("subject", "body_html", "to_addresses", "to_names", "delivered_at", "created_at"):
        assert getattr(row, name) == getattr(record, name)
    assert row.attachments == json.loads(record.attachments)
    assert row.raw == json.loads(record.raw)
    assert bytes(row.stub_hash) == record.stub_hash
    assert bytes(row.content_hash) == record.content_hash


@PROPERTY
@given(
    st.lists(
        st.text(st.sampled_from("{},\\\"' NUL\t\n") | st.characters(exclude_characters="\0", codec="utf-8"))
    )
)
def test_any_list_of_texts_comes_back(connection, words):
    upsert(connection, EMAILS, [seen(make_email(to_names=words), 1)])

    row = row_of(connection, EMAILS, "m1")
    connection.rollback()

    assert row.to_names == words


def test_dates_numbers_and_lists_of_a_task_come_back(connection):
    record = make_task(
        id=2**63 - 1,
        due_date=date(2025, 3, 14),
        assignee_ids=[3, 1, 2**62],
        assignee_types=["users", "teams", "companies"],
        progress=40,
        is_private=True,
    )

    upsert(connection, TASKS, [seen(record, 1)])
    row = row_of(connection, TASKS, record.id)

    for name in ("due_date", "assignee_ids", "assignee_types", "progress", "is_private", "tag_ids"):
        assert getattr(row, name) == getattr(record, name)


def test_relations_are_replaced_as_sets_the_empty_one_too(connection):
    upsert(
        connection, TASKS, [seen(make_task(tag_ids=[1, 2], assignee_ids=[5], assignee_types=["users"]), 1)]
    )

    upsert(connection, TASKS, [seen(make_task(), 2)])

    row = row_of(connection, TASKS)
    assert (row.tag_ids, row.assignee_ids, row.assignee_types) == ([], [], [])


def test_an_older_version_does_not_replace_a_newer_one(connection):
    upsert(connection, TASKS, [seen(make_task(title="new", version_at=MORNING + HOUR), 1)])

    counts = upsert(connection, TASKS, [seen(make_task(title="old", version_at=MORNING), 2)])

    assert (counts.written, counts.stale) == (0, 1)
    assert row_of(connection, TASKS).title == "new"


def test_without_versions_the_order_of_observation_decides(connection):
    upsert(connection, COMMENTS, [seen(make_comment(body="second"), 2)])

    counts = upsert(connection, COMMENTS, [seen(make_comment(body="first"), 1)])

    assert counts.stale == 1
    assert row_of(connection, COMMENTS, "k1").body == "second"


def test_a_row_dated_in_the_future_is_not_frozen(connection):
    unbelieved = make_task(title="2099", version_at=None, updated_at=MORNING + 600_000 * HOUR)
    upsert(connection, TASKS, [seen(unbelieved, 1)])

    upsert(connection, TASKS, [seen(make_task(title="today", version_at=MORNING), 2)])

    assert row_of(connection, TASKS).title == "today"


def test_a_late_answer_does_not_bring_back_what_changed_since(connection):
    first, second = make_conversation(subject="A"), make_conversation(subject="B")
    upsert(connection, CONVERSATIONS, [seen(first, 1)])

    # Request 2 saw B and is still under way; request 3 saw A again.
    upsert(connection, CONVERSATIONS, [seen(first, 3)], older_seq=2)
    late = upsert(connection, CONVERSATIONS, [seen(second, 2)])

    assert late.stale == 1
    row = row_of(connection, CONVERSATIONS, "c1")
    assert (row.subject, row.observed_seq) == ("A", 3)


def test_an_equal_row_older_than_the_request_under_way_is_left_alone(connection):
    record = make_conversation()
    upsert(connection, CONVERSATIONS, [seen(record, 1)])
    connection.commit()
    before = row_of(connection, CONVERSATIONS, "c1")

    counts = upsert(connection, CONVERSATIONS, [seen(record, 2)], older_seq=5)

    assert (counts.written, counts.unchanged) == (0, 1)
    assert row_of(connection, CONVERSATIONS, "c1") == before


def test_an_equal_row_that_changed_meanwhile_is_written_back(engine):
    """While one process finds A equal, another stores the older B: A is the newer observation."""
    before, after = make_conversation(subject="A"), make_conversation(subject="B")
    with engine.begin() as connection:
        upsert(connection, CONVERSATIONS, [seen(before, 1)])
    counts: list[Counts] = []

    def confirm() -> None:
        with engine.begin() as connection:
            counts.append(upsert(connection, CONVERSATIONS, [seen(before, 3)], older_seq=2))

    with engine.begin() as connection:
        upsert(connection, CONVERSATIONS, [seen(after, 2)])
        thread = threading.Thread(target=confirm)
        thread.start()
        wait_for_a_lock(engine)
    thread.join(10)

    with engine.connect() as connection:
        row = row_of(connection, CONVERSATIONS, "c1")
    assert (row.subject, row.observed_seq) == ("A", 3)
    assert len(counts) == 1


def test_a_tombstone_is_not_lifted_by_a_stale_page(connection):
    upsert(connection, TASKS, [seen(make_task(version_at=MORNING), 1)])
    tombstone(connection, TASKS, [1], seq=5, at=MORNING, evidence="event")

    counts = upsert(connection, TASKS, [seen(make_task(title="stale", version_at=MORNING + HOUR), 4)])

    assert counts.stale == 1
    assert row_of(connection, TASKS).deleted


def test_a_tombstone_is_lifted_by_a_newer_look_even_at_an_equal_row(connection):
    record = make_task(version_at=MORNING)
    upsert(connection, TASKS, [seen(record, 1)])
    tombstone(connection, TASKS, [1], seq=5, at=MORNING, evidence="event")

    counts = upsert(connection, TASKS, [seen(record, 6)])

    row = row_of(connection, TASKS)
    assert counts.written == 1
    assert (row.deleted, row.deleted_at, row.deleted_evidence) == (False, None, None)


def test_the_vendors_own_deletion_says_when(connection):
    upsert(connection, TASKS, [seen(make_task(), 1)])

    upsert(connection, TASKS, [seen(make_task(deleted=True, deleted_at=MORNING), 2)])

    row = row_of(connection, TASKS)
    assert (row.deleted, row.deleted_at, row.deleted_evidence) == (True, MORNING, "vendor")


def test_a_deletion_without_a_time_keeps_the_one_that_is_known(connection):
    upsert(connection, CONVERSATIONS, [seen(make_conversation(deleted=True), 1)])
    upsert(connection, CONVERSATIONS, [seen(make_conversation(deleted=True, subject="x"), 2)])
    first = row_of(connection, CONVERSATIONS, "c1").deleted_at
    connection.commit()

    upsert(connection, CONVERSATIONS, [seen(make_conversation(deleted=True, subject="y"), 3)])

    assert first is not None
    assert row_of(connection, CONVERSATIONS, "c1").deleted_at == first


def test_a_look_at_a_living_row_ends_its_being_missing_or_inaccessible(connection):
    one, two = make_task(id=1), make_task(id=2)
    upsert(connection, TASKS, [seen(one, 1), seen(two, 1)])
    mark_missing(connection, TASKS, [1], seq=2, at=MORNING)
    mark_inaccessible(connection, TASKS, [2], seq=2)

    counts = upsert(connection, TASKS, [seen(one, 3), seen(two, 3)])

    assert counts.written == 2
    rows = [row_of(connection, TASKS, number) for number in (1, 2)]
    assert [(row.missing_since, row.inaccessible) for row in rows] == [(None, False)] * 2


def test_a_stale_page_does_not_end_being_inaccessible(connection):
    upsert(connection, TASKS, [seen(make_task(), 1)])
    mark_inaccessible(connection, TASKS, [1], seq=5)

    upsert(connection, TASKS, [seen(make_task(title="stale", version_at=MORNING), 4)])

    assert row_of(connection, TASKS).inaccessible


def test_a_digest_that_is_not_known_keeps_the_stored_one(connection):
    upsert(connection, EMAILS, [seen(make_email(stub_hash=b"stub"), 1)])

    upsert(connection, EMAILS, [seen(make_email(subject="changed", stub_hash=None), 2)])

    row = row_of(connection, EMAILS, "m1")
    assert (row.subject, bytes(row.stub_hash)) == ("changed", b"stub")


def test_of_one_batch_the_deletion_seen_last_counts(connection):
    """The deleted feed was asked after the living list, whose row has the later version."""
    living = make_task(version_at=MORNING + HOUR)
    gone = make_task(version_at=MORNING, deleted=True)

    upsert(connection, TASKS, [seen(gone, 9), seen(living, 5)])

    assert row_of(connection, TASKS).deleted


def test_of_one_batch_an_unbelieved_version_seen_last_counts(connection):
    upsert(
        connection,
        TASKS,
        [
            seen(make_task(title="2099", version_at=None), 9),
            seen(make_task(title="old", version_at=MORNING), 5),
        ],
    )

    assert row_of(connection, TASKS).title == "2099"


def test_unknown_rows_are_stored_and_known_ones_left_alone(connection):
    upsert(connection, TASKS, [seen(make_task(id=1, title="full"), 1)])

    counts = insert_unknown(
        connection, TASKS, [seen(make_task(id=number, title="sparse"), 2) for number in (1, 2, 3)]
    )

    assert (counts.written, counts.unchanged) == (2, 1)
    titles = [row_of(connection, TASKS, number).title for number in (1, 2, 3)]
    assert titles == ["full", "sparse", "sparse"]


def test_nothing_stays_of_a_transaction_that_is_taken_back(connection):
    upsert(connection, TASKS, [seen(make_task(), 1)])

    connection.rollback()

    assert row_of(connection, TASKS) is None


def test_processes_that_store_the_same_rows_at_once_neither_block_nor_differ(engine):
    """Each batch holds known and new, equal and changed rows in an order of its own."""
    with engine.begin() as connection:
        upsert(connection, TASKS, [seen(make_task(id=number), 1) for number in range(1, 60, 2)])
    errors: list[BaseException] = []
    barrier = threading.Barrier(4)

    def store(worker: int) -> None:
        chance = random.Random(worker)
        try:
            for turn in range(12):
                batch = [
                    seen(
                        make_task(id=number, title=chance.choice(["Pour the floor", "other"])),
                        2 + 1000 * turn + number * 4 + worker,
                    )
                    for number in range(1 + 5 * turn, 60)
                ]
                chance.shuffle(batch)
                barrier.wait(30)
                with engine.begin() as connection:
                    upsert(connection, TASKS, batch, older_seq=1 if turn % 2 else None)
            with engine.begin() as connection:
                final = [
                    seen(make_task(id=number, title=f"by {worker}"), 90_000 + worker)
                    for number in range(1, 60)
                ]
                upsert(connection, TASKS, final)
        except BaseException as error:  # noqa: BLE001 - handed to the test
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=store, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert errors == []
    with engine.connect() as connection:
        titles = connection.execute(text("SELECT DISTINCT title, observed_seq FROM teamwork.tasks")).all()
    assert titles == [("by 3", 90_003)]
