"""Conversations in the mirror: what of them has been read, merges, and their children."""

from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Connection, Engine, text

from twm_pipeline.mirror import conversations as store
from twm_pipeline.mirror.set_aside import SetAside, set_aside
from twm_pipeline.mirror.tables import COMMENTS, CONVERSATIONS, EMAILS
from twm_pipeline.mirror.tombstones import mark_missing, tombstone
from twm_pipeline.mirror.upserts import upsert
from twm_pipeline_tests.factories import MORNING, make_comment, make_conversation, make_email, seen

LATER = MORNING + timedelta(hours=1)


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    """Give a connection that sees conversations a and b, each with a message and a comment, by request 10."""
    with engine.connect() as connection:
        for name in "ab":
            upsert(connection, CONVERSATIONS, [seen(make_conversation(id=name), 10)])
            email = make_email(id=f"m{name}", conversation_id=name, stub_hash=b"stub")
            upsert(connection, EMAILS, [seen(email, 10)])
            upsert(connection, COMMENTS, [seen(make_comment(id=f"k{name}", conversation_id=name), 10)])
        yield connection


def conversation(connection: Connection, name: str):
    return connection.execute(
        text(
            "SELECT deleted, deleted_at, deleted_evidence, merged_into, observed_seq, children_read_at"
            " FROM missive.conversations WHERE id = :id"
        ),
        {"id": name},
    ).one()


def parents(connection: Connection) -> dict[str, str]:
    rows = connection.execute(
        text(
            "SELECT id, conversation_id FROM missive.emails"
            " UNION ALL SELECT id, conversation_id FROM missive.comments"
        )
    )
    return {row.id: row.conversation_id for row in rows}


def aliases(connection: Connection) -> dict[str, str]:
    rows = connection.execute(text("SELECT old_id, new_id FROM missive.conversation_aliases"))
    return {row.old_id: row.new_id for row in rows}


def test_what_has_been_read_is_remembered(connection):
    def read_at() -> dict[str, datetime | None]:
        return {key: state.read_at for key, state in store.read_state(connection, ["a", "b", "x"]).items()}

    assert set(read_at().values()) <= {None}

    store.note_children_read(connection, {"a": MORNING, "unknown": MORNING})

    assert read_at()["a"] == MORNING
    assert set(read_at()) <= {"a", "b"}


def test_noting_the_same_again_writes_nothing(connection):
    def version():
        return connection.scalar(text("SELECT ctid::text FROM missive.conversations WHERE id = 'a'"))

    store.note_children_read(connection, {"a": MORNING})
    before = version()

    store.note_children_read(connection, {"a": MORNING})

    assert version() == before


def test_known_messages_come_with_their_digest(connection):
    upsert(connection, EMAILS, [seen(make_email(id="m2", conversation_id="a"), 11)])
    tombstone(connection, EMAILS, ["mb"], seq=11, at=MORNING, evidence="event")

    assert set(store.known_messages(connection, ["a", "b"])) == {("a", "ma", b"stub"), ("a", "m2", None)}
    assert store.known_messages(connection, []) == []
    assert store.known_comments(connection, ["b", "unknown"]) == [("b", "kb")]


def test_rows_are_found_by_their_parents_and_parents_by_their_rows(connection):
    upsert(connection, EMAILS, [seen(make_email(id="lost", conversation_id=None), 11)])

    assert store.conversations_of(connection, ["ma", "lost", "unknown"]) == {"ma": "a"}
    assert store.conversations_of(connection, ["kb"], table=COMMENTS) == {"kb": "b"}


def test_a_set_aside_message_names_its_conversation(connection):
    raw = {"id": "x", "conversation": {"id": "c9"}}
    problems = [
        SetAside(stream="emails", object_id="x", reason="r", raw=raw),
        SetAside(stream="emails", object_id="y", reason="r", raw=None),
        SetAside(stream="emails", object_id="z", reason="r", raw=["odd"]),
    ]
    set_aside(connection, "missive", problems)

    assert store.parents_of_set_aside(connection, ["x", "y", "z"]) == ["c9"]


def test_missing_rows_stay_missing_until_they_are_seen(connection):
    mark_missing(connection, EMAILS, ["ma", "mb"], seq=11, at=MORNING)

    upsert(connection, EMAILS, [seen(make_email(id="ma", conversation_id="a"), 12)])

    assert store.still_missing(connection, EMAILS, ["ma", "mb", "unknown"]) == ["mb"]


def test_a_conversation_of_a_second_is_found_while_it_lives(connection):
    assert store.one_of_second(connection, MORNING) in ("a", "b")
    assert store.one_of_second(connection, LATER) is None

    store.merge(connection, "a", "b", seq=11, at=LATER)
    mark_missing(connection, CONVERSATIONS, ["b"], seq=11, at=LATER)

    assert store.one_of_second(connection, MORNING) is None


def test_a_merge_moves_the_children_and_leaves_an_alias(connection):
    store.merge(connection, "a", "b", seq=11, at=LATER)

    assert aliases(connection) == {"a": "b"}
    assert conversation(connection, "a")[:5] == (True, LATER, "merged", "b", 11)
    assert not conversation(connection, "b").deleted
    assert set(parents(connection).values()) == {"b"}


def test_a_second_merge_takes_along_what_was_merged_before(connection):
    upsert(connection, CONVERSATIONS, [seen(make_conversation(id="c"), 10)])
    store.merge(connection, "a", "b", seq=11, at=LATER)

    store.merge(connection, "b", "c", seq=12, at=LATER)

    assert aliases(connection) == {"a": "c", "b": "c"}
    assert conversation(connection, "a").merged_into == "c"
    assert set(parents(connection).values()) == {"c"}


def test_a_survivor_that_is_merged_into_what_it_survived_is_no_alias_of_itself(connection):
    store.merge(connection, "a", "b", seq=11, at=LATER)

    store.merge(connection, "b", "a", seq=12, at=LATER)

    assert aliases(connection) == {"b": "a"}
    assert conversation(connection, "a").merged_into != "a"


def test_a_merge_of_an_unknown_conversation_leaves_an_alias_only(connection):
    store.merge(connection, "unknown", "b", seq=11, at=LATER)

    assert aliases(connection) == {"unknown": "b"}
    assert parents(connection) == {"ma": "a", "ka": "a", "mb": "b", "kb": "b"}


def test_an_older_merge_changes_nothing(connection):
    store.merge(connection, "a", "b", seq=12, at=LATER)

    store.merge(connection, "a", "elsewhere", seq=11, at=LATER)

    assert aliases(connection) == {"a": "b"}
    assert conversation(connection, "a").merged_into == "b"
    assert set(parents(connection).values()) == {"b"}


def test_a_row_newer_than_the_merge_stays_where_it_was_seen(connection):
    upsert(connection, EMAILS, [seen(make_email(id="ma", conversation_id="a", subject="new"), 20)])

    store.merge(connection, "a", "b", seq=11, at=LATER)

    assert parents(connection) == {"ma": "a", "ka": "b", "mb": "b", "kb": "b"}


def test_a_stale_page_does_not_move_a_message_back(connection):
    store.merge(connection, "a", "b", seq=15, at=LATER)

    counts = upsert(connection, EMAILS, [seen(make_email(id="ma", conversation_id="a", subject="stale"), 14)])

    assert counts.stale == 1
    assert parents(connection)["ma"] == "b"


def test_the_same_merge_again_writes_nothing(connection):
    def versions():
        return connection.execute(
            text(
                "SELECT id, ctid::text FROM missive.conversations UNION ALL"
                " SELECT id, ctid::text FROM missive.emails ORDER BY 1"
            )
        ).all()

    store.merge(connection, "a", "b", seq=11, at=LATER)
    before = versions()

    store.merge(connection, "a", "b", seq=12, at=LATER)

    assert versions() == before


def test_a_conversation_seen_under_its_own_id_is_no_longer_merged(connection):
    store.merge(connection, "a", "b", seq=11, at=LATER)

    upsert(connection, CONVERSATIONS, [seen(make_conversation(id="a"), 12)])
    store.unmerge(connection, ["a", "b"])

    assert aliases(connection) == {}
    assert conversation(connection, "a")[:4] == (False, None, None, None)


def test_children_go_with_a_conversation_that_is_gone_for_good(connection):
    store.note_children_read(connection, {"a": MORNING})
    tombstone(connection, CONVERSATIONS, ["a"], seq=12, at=LATER, evidence="absence")

    store.bury_children(connection, ["a"], seq=12, at=LATER)

    gone = connection.execute(
        text("SELECT id, deleted_at, deleted_evidence FROM missive.emails WHERE deleted")
    ).all()
    assert gone == [("ma", LATER, "parent")]
    assert store.known_comments(connection, ["a", "b"]) == [("b", "kb")]
    assert conversation(connection, "a").children_read_at is None


def test_a_child_seen_after_its_conversation_went_stays(connection):
    upsert(connection, EMAILS, [seen(make_email(id="ma", conversation_id="a", subject="new"), 20)])

    store.bury_children(connection, ["a"], seq=12, at=LATER)

    assert store.known_messages(connection, ["a"]) == [("a", "ma", b"stub")]


def test_a_buried_child_that_is_seen_again_lives(connection):
    store.bury_children(connection, ["a"], seq=12, at=LATER)

    upsert(connection, EMAILS, [seen(make_email(id="ma", conversation_id="a", stub_hash=b"stub"), 13)])

    assert store.known_messages(connection, ["a"]) == [("a", "ma", b"stub")]
