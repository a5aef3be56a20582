"""Every file of a message is noted in the transaction of its row, and what became of it is kept."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from twm_pipeline.mirror.attachments import (
    CHANNEL,
    LONGEST_WAIT,
    MOST_TRIES,
    FileRow,
    count_due,
    due_files,
    find_stored,
    note_failed,
    note_skipped,
    note_stored,
    postpone_hidden,
    read_attachments,
    reconsider_skipped,
    retry_failed,
    settle_path,
)
from twm_pipeline.mirror.tables import COMMENTS, CONVERSATIONS, EMAILS
from twm_pipeline.mirror.upserts import upsert
from twm_pipeline.records import Record
from twm_pipeline.sync.listening import listening
from twm_pipeline_tests.factories import MORNING, make_comment, make_conversation, make_email, seen

PLAN = {
    "id": "f1",
    "filename": "plan.pdf",
    "extension": "pdf",
    "media_type": "application",
    "sub_type": "pdf",
}
URL = "https://files.example.com/f1?Expires=1"


@pytest.fixture
def connection(engine: Engine) -> Any:
    with engine.begin() as connection:
        yield connection


def store(connection: Connection, record: Record, *, seq: int = 1) -> None:
    kinds = {"Email": EMAILS, "Comment": COMMENTS, "Conversation": CONVERSATIONS}
    upsert(connection, kinds[type(record).__name__], [seen(record, seq)])


def email(*files: Any, **values: Any) -> Any:
    raw = [{**item, "url": URL} if isinstance(item, dict) else item for item in files]
    return make_email(
        attachments=json.dumps(files),
        raw=json.dumps({"id": values.get("id", "m1"), "attachments": raw}),
        **values,
    )


def due(connection: Connection) -> list[FileRow]:
    return due_files(connection, limit=100)


def shown(connection: Connection) -> dict[str, Any]:
    return dict(connection.execute(text("SELECT * FROM missive.attachments")).mappings().one())


def test_a_file_of_an_email_is_due_as_soon_as_its_row_is_stored(connection: Connection) -> None:
    store(connection, make_conversation(subject="The bridge"))
    store(connection, email({**PLAN, "size": 2000.0}, body_html='<img data-missive-attachment-id="f1">'))

    [row] = due(connection)

    assert row == FileRow(
        owner="emails",
        owner_id="m1",
        id="f1",
        conversation_id="c1",
        subject="The bridge",
        filename="plan.pdf",
        extension="pdf",
        media_type="application/pdf",
        announced_size=2000,
        inline=True,
        sent_at=MORNING,
        url=URL,
    )
    assert count_due(connection) == 1


def test_the_file_of_a_comment_is_due_too(connection: Connection) -> None:
    raw = json.dumps({"id": "k1", "attachment": {**PLAN, "url": URL}})
    store(connection, make_comment(attachment=json.dumps(PLAN), raw=raw, created_at=MORNING))

    [row] = due(connection)

    assert (row.key, row.url, row.sent_at) == (("comments", "k1", "f1"), URL, MORNING)


def test_a_file_that_comes_later_is_noted_and_one_that_was_known_is_not_noted_again(
    connection: Connection,
) -> None:
    store(connection, email(PLAN))
    settle_path(connection, due(connection)[0], store="/files", path="a/b")
    note_stored(connection, due(connection)[0], size=1, sha256="00")

    store(connection, email(PLAN, {**PLAN, "id": "f2"}), seq=2)

    assert [row.id for row in due(connection)] == ["f2"]
    assert find_stored(connection, email_id="m1", attachment_id="f1") == ("/files", "a/b", 1)
    assert find_stored(connection, email_id="m1", attachment_id="f2") is None


NONSENSE: tuple[list[Any], ...] = (
    [None],
    ["f1"],
    [[]],
    [{}],
    [{"id": None}],
    [{"id": ""}],
    [{"id": "x" * 5000}],
    [7],
)


@pytest.mark.parametrize("files", NONSENSE, ids=[repr(item)[:20] for item in NONSENSE])
def test_a_list_of_nonsense_holds_up_no_message(connection: Connection, files: list[Any]) -> None:
    store(connection, email(*files, PLAN))

    assert [row.id for row in due(connection)] == ["f1"]


@pytest.mark.parametrize("size", ["12", None, {}, True, -1, 1e300, 12.7])
def test_a_size_that_is_none_is_not_announced(connection: Connection, size: Any) -> None:
    store(connection, email({**PLAN, "size": size}))

    [row] = due(connection)
    assert row.announced_size == (12 if size == 12.7 else None)


def test_what_listens_is_told(engine: Engine) -> None:
    with listening(engine, CHANNEL) as news:
        with engine.begin() as connection:
            store(connection, email(id="m2"))
        assert not news(0)
        with engine.begin() as connection:
            store(connection, email(PLAN))
        assert news(30)


def test_a_file_that_fails_is_tried_after_growing_waits_and_then_only_when_asked(
    connection: Connection,
) -> None:
    store(connection, email(PLAN))
    [row] = due(connection)
    waits = []
    for _ in range(MOST_TRIES):
        note_failed(connection, row, reason="the storage answers 403")
        state = shown(connection)
        now = connection.scalar(text("SELECT now()"))
        waits.append(state["next_try_at"] - now if state["next_try_at"] else None)
        connection.execute(text("UPDATE twm.attachments SET next_try_at = now()"))
        [row] = due(connection)

    assert waits[:3] == [timedelta(minutes=1), timedelta(minutes=2), timedelta(minutes=4)]
    assert waits[-2:] == [timedelta(minutes=1) * 2 ** (MOST_TRIES - 2), None]
    assert max(filter(None, waits)) <= LONGEST_WAIT
    assert read_attachments(connection)["failed"] == 1

    assert retry_failed(connection) == 1
    assert due(connection)[0].tries == 0


def test_files_of_a_deleted_message_do_not_count_as_waiting(connection: Connection) -> None:
    store(connection, email(PLAN))
    before = read_attachments(connection)
    connection.execute(text("UPDATE missive.emails SET deleted = true"))
    after = read_attachments(connection)

    assert (before["pending"], before["hidden"]) == (1, 0)
    assert (after["pending"], after["hidden"]) == (0, 1)


def test_what_a_rule_left_out_is_looked_at_again_by_another_rule(connection: Connection) -> None:
    store(connection, email(PLAN))
    note_skipped(connection, due(connection)[0], reason="application/pdf", rule="no pdf")

    reconsider_skipped(connection, rule="no pdf")
    assert due(connection) == []
    reconsider_skipped(connection, rule="")
    assert len(due(connection)) == 1


def test_a_deleted_message_keeps_its_file_and_the_row_says_so(connection: Connection) -> None:
    store(connection, make_conversation())
    store(connection, email(PLAN))
    row = due(connection)[0]
    settle_path(connection, row, store="/files", path="2025/03/plan.pdf")
    note_stored(connection, row, size=9, sha256="00")
    assert not shown(connection)["deleted"]

    connection.execute(text("UPDATE missive.conversations SET deleted = true"))

    state = shown(connection)
    assert (state["deleted"], state["state"], state["path"]) == (True, "stored", "2025/03/plan.pdf")


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE missive.emails SET deleted = true",
        "UPDATE missive.emails SET out_of_scope = true",
        "UPDATE missive.emails SET attachments = '[]'",
        "DELETE FROM missive.emails",
    ],
)
def test_files_of_hidden_messages_are_not_fetched_and_not_met_at_every_look(
    connection: Connection, change: str
) -> None:
    store(connection, email(PLAN))
    connection.execute(text(change))

    assert due(connection) == []
    assert count_due(connection) == 0
    postpone_hidden(connection)
    assert shown(connection)["next_try_at"] > connection.scalar(text("SELECT now() + interval '1 hour'"))


@pytest.mark.parametrize(
    ("hide", "show"),
    [
        ("UPDATE missive.emails SET deleted = true", "UPDATE missive.emails SET deleted = false"),
        ("UPDATE missive.emails SET out_of_scope = true", "UPDATE missive.emails SET out_of_scope = false"),
        ("UPDATE missive.emails SET attachments = '[]'", "UPDATE missive.emails SET attachments = '[{F1}]'"),
        (
            "UPDATE missive.conversations SET deleted = true",
            "UPDATE missive.conversations SET deleted = false",
        ),
        (
            "UPDATE missive.conversations SET deleted = true",
            "UPDATE missive.emails SET conversation_id = 'c2'",
        ),
    ],
    ids=["deleted", "out of scope", "without it", "in the trash", "moved out of the trash"],
)
def test_a_file_is_due_at_once_when_its_message_is_back(engine: Engine, hide: str, show: str) -> None:
    with engine.begin() as connection:
        store(connection, make_conversation())
        store(connection, email(PLAN))
        connection.execute(text(hide))
    with engine.begin() as connection:
        postpone_hidden(connection)

    with listening(engine, CHANNEL) as news, engine.begin() as connection:
        connection.exec_driver_sql(show.replace("{F1}", json.dumps(PLAN)))
        connection.commit()
        assert news(30)
    with engine.connect() as connection:
        assert [row.id for row in due(connection)] == ["f1"]


def test_a_comments_file_is_due_at_once_when_its_conversation_is_back(engine: Engine) -> None:
    with engine.begin() as connection:
        store(connection, make_conversation())
        store(connection, make_comment(attachment=json.dumps(PLAN), raw=json.dumps({"attachment": PLAN})))
        connection.execute(text("UPDATE missive.comments SET deleted = true"))
    with engine.begin() as connection:
        postpone_hidden(connection)

    with engine.begin() as connection:
        connection.execute(text("UPDATE missive.comments SET deleted = false"))

    with engine.connect() as connection:
        assert [row.id for row in due(connection)] == ["f1"]


def test_a_file_that_was_given_up_stays_so_when_its_message_is_back(engine: Engine) -> None:
    with engine.begin() as connection:
        store(connection, email(PLAN))
        for _ in range(MOST_TRIES):
            connection.execute(text("UPDATE twm.attachments SET next_try_at = now()"))
            note_failed(connection, due(connection)[0], reason="404")
        connection.execute(text("UPDATE missive.emails SET deleted = true"))

    with engine.begin() as connection:
        connection.execute(text("UPDATE missive.emails SET deleted = false"))

    with engine.connect() as connection:
        assert due(connection) == []
