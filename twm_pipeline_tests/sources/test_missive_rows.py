"""Missive's JSON as records: every column, what is left out of a hash, and what is refused."""

import copy
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twm_pipeline.errors import RecordError
from twm_pipeline.sources.missive_rows import (
    activity_of,
    child_time,
    parse_comment,
    parse_conversation,
    parse_message,
    stub_digest,
)
from twm_pipeline_tests.sources.fakes import NOW, sample
from twm_pipeline_tests.sources.missive_samples import ANNA, OFFER, conversation, messages

BEN = "2e23e36c-8ef9-4656-afd1-71aacb874e43"
CONVERSATION_SAMPLES = [
    "conversations.list.page1",
    "conversations.list.page2.inclusive-overlap",
    "conversations.list.same-timestamp-last-page",
    "conversations.list.trashed",
    "conversations.list.empty",
    "conversation.get",
    "conversation.get.merged-other-id",
]
MESSAGE_SAMPLES = ["message.get", "message.get.sms", "messages.get.multi", "conversation.messages.list"]


def message(name: str = "message.get") -> dict[str, Any]:
    return messages(name)[0]


def comment(place: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = sample("missive", "conversation.comments.list")["comments"][place]
    return found


def parse(row: dict[str, Any]) -> Any:
    return parse_message(row, conversation_id=None, date=NOW)


@pytest.mark.parametrize("name", CONVERSATION_SAMPLES)
def test_every_conversation_of_a_sample_becomes_a_record(name):
    for row in sample("missive", name)["conversations"]:
        record = parse_conversation(row, owner_id=ANNA)

        assert record.id == row["id"]
        assert record.version_at is None
        assert json.loads(record.raw) == row


@pytest.mark.parametrize("name", MESSAGE_SAMPLES)
def test_every_message_of_a_sample_becomes_a_record(name):
    for row in messages(name):
        record = parse_message(row, conversation_id=OFFER, date=NOW)

        assert record.id == row["id"]
        assert record.version_at == datetime.fromtimestamp(row["updated_at"], UTC)
        assert record.body_html == row.get("body")


def test_every_comment_of_a_sample_becomes_a_record():
    for row in sample("missive", "conversation.comments.list")["comments"]:
        record = parse_comment(row, conversation_id=OFFER)

        assert (record.id, record.conversation_id, record.body) == (row["id"], OFFER, row["body"])
        assert json.loads(record.raw) == row


def test_a_conversation_is_read_field_by_field():
    record = parse_conversation(conversation("conversations.list.page1"), owner_id=ANNA)

    assert (record.subject, record.latest_message_subject) == ("Offer 2025-118: delivery date?",) * 2
    assert (record.organization_name, record.team_name) == ("Harbour Example GmbH", "Support")
    assert (record.assignee_ids, record.assignee_names) == ([ANNA], ["Anna Linde"])
    assert (record.messages_count, record.drafts_count, record.attachments_count) == (3, 0, 2)
    assert record.web_url == f"https://mail.missiveapp.com/#inbox/conversations/{OFFER}"
    assert record.app_url == f"missive://mail.missiveapp.com/#inbox/conversations/{OFFER}"
    assert record.created_at == datetime(2025, 3, 1, 9, 15, tzinfo=UTC)
    assert record.last_activity_at == datetime(2025, 3, 4, 9, 15, tzinfo=UTC)
    assert (record.closed, record.archived, record.trashed, record.junked) == (False,) * 4
    assert (record.deleted, record.deleted_at) == (False, None)


def test_labels_with_commas_stay_whole():
    record = parse_conversation(conversation(), owner_id=ANNA)

    assert record.label_names == ["Orders", "Berlin, East"]
    assert len(record.label_ids) == 2


def test_a_guest_sees_little_and_that_is_enough():
    row = conversation("conversations.list.page2.inclusive-overlap", place=2)

    record = parse_conversation(row, owner_id=ANNA)

    assert set(row) == {"id", "last_activity_at"}
    assert record.last_activity_at == datetime.fromtimestamp(row["last_activity_at"], UTC)
    assert (record.subject, record.closed, record.trashed, record.messages_count) == (None,) * 4
    assert (record.label_names, record.assignee_ids, record.deleted) == ([], [], False)


def test_trash_is_the_owners_own():
    row = conversation("conversations.list.trashed")

    assert parse_conversation(row, owner_id=ANNA).deleted
    assert not parse_conversation(row, owner_id=BEN).deleted


def test_trash_of_another_user_is_no_deletion():
    row = conversation()
    row["users"][1]["trashed"] = True

    record = parse_conversation(row, owner_id=ANNA)

    assert row["users"][1]["id"] == BEN
    assert (record.deleted, record.trashed) == (False, False)


def test_the_same_conversation_seen_by_another_owner_is_another_row():
    row = conversation()

    hashes = {parse_conversation(row, owner_id=owner).content_hash for owner in (ANNA, BEN)}

    assert len(hashes) == 2


def test_an_email_is_read_field_by_field():
    record = parse(message())

    assert (record.id, record.conversation_id) == ("cddfb39d-cdc6-4bbb-a850-4288405a3734", OFFER)
    assert (record.type, record.subject) == ("email", "Offer 2025-118: delivery date?")
    assert record.email_message_id == "<m1.20250304@customer.example.com>"
    assert (record.in_reply_to, record.references) == ([], ["<m1.20250304@customer.example.com>"])
    assert (record.from_address, record.from_name) == ("clara.vogt@customer.example.com", "Clara Vogt")
    assert (record.to_addresses, record.to_names) == (["support@harbour.example.com"], ["Harbour Support"])
    assert (record.cc_addresses, record.bcc_addresses, record.reply_to_addresses) == ([], [], [])
    assert (record.author_id, record.author_name) == (None, None)
    assert record.body_text == "Hello Anna,\ncould you tell us when offer 2025-118 can be delivered?"
    assert record.delivered_at == datetime.fromtimestamp(1741072500, UTC)
    assert record.updated_at == record.version_at == datetime.fromtimestamp(1741072510, UTC)


def test_an_outgoing_email_has_an_author():
    record = parse(messages("messages.get.multi")[1])

    assert (record.author_id, record.author_name) == (ANNA, "Anna Linde")
    assert record.in_reply_to == ["<m1.20250304@customer.example.com>"]


def test_an_sms_has_numbers_for_addresses_and_a_plain_body():
    record = parse(message("message.get.sms") | {"body": "5 <6> 4 &amp; more"})

    assert (record.type, record.subject) == ("sms", None)
    assert (record.from_address, record.from_name) == ("+49305550100", None)
    assert record.to_addresses == ["+4930555019"]
    assert record.body_text == record.body_html == "5 <6> 4 &amp; more"


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ({"address": " Clara.Vogt@Example.COM "}, "clara.vogt@example.com"),
        ({"phone_number": "+49305550100", "id": "x"}, "+49305550100"),
        ({"username": "clara", "id": "x"}, "clara"),
        ({"id": "x"}, "x"),
        ({}, ""),
    ],
)
def test_an_address_is_whatever_the_channel_has(field, expected):
    record = parse(message() | {"from_field": field, "cc_fields": [field]})

    assert record.from_address == (expected or None)
    assert record.cc_addresses == [expected]


def test_names_stand_at_the_place_of_their_address():
    people = [
        {"address": "a@x.org"},
        {"address": "b@x.org", "name": "B"},
        {"address": "c@x.org", "name": None},
    ]

    record = parse(message() | {"to_fields": people})

    assert record.to_addresses == ["a@x.org", "b@x.org", "c@x.org"]
    assert record.to_names == ["", "B", ""]


def test_attachments_are_kept_without_their_signed_address():
    attachments = json.loads(parse(message()).attachments)

    assert [item["filename"] for item in attachments] == ["offer-2025-118.pdf", "logo.png", None]
    assert all("url" not in item for item in attachments)
    assert attachments[0] | {"id": ""} == {
        "id": "",
        "filename": "offer-2025-118.pdf",
        "extension": "pdf",
        "media_type": "application",
        "sub_type": "pdf",
        "size": 183204,
        "width": None,
        "height": None,
    }


def test_the_raw_message_keeps_the_signed_address_for_the_download():
    raw = json.loads(parse(message()).raw)

    assert raw["attachments"][0]["url"].startswith("https://attachments.example.com/")


def test_a_message_without_attachments_key_has_none():
    row = message()
    del row["attachments"]

    assert json.loads(parse(row).attachments) == []


def test_two_reads_with_other_signed_addresses_are_equal():
    row, again = message(), message()
    for item in again["attachments"]:
        item["url"] = item["url"].replace("Expires=1741083300", "Expires=1999999999")
    again["author"] = None

    assert parse(row).content_hash == parse(again).content_hash
    assert stub_digest(row) == stub_digest(again)
    assert parse(row).attachments == parse(again).attachments


def test_two_reads_of_a_comment_with_other_signed_addresses_are_equal():
    row, again = comment(), comment()
    again["attachment"]["url"] += "&again=1"
    again["author"]["avatar_url"] = "https://files.example.com/new.png"

    first, second = (parse_comment(item, conversation_id=OFFER) for item in (row, again))

    assert first.content_hash == second.content_hash
    assert first.attachment is not None
    assert "url" not in json.loads(first.attachment)


def test_a_message_does_not_change_with_its_conversations_counters():
    row, again = message(), message()
    again["conversation"] |= {"messages_count": 99, "last_activity_at": 1, "subject": "other", "users": []}

    assert parse(row).content_hash == parse(again).content_hash
    assert stub_digest(row) == stub_digest(again)


def test_a_message_that_moved_to_another_conversation_changed():
    row, again = message(), message()
    again["conversation"]["id"] = "elsewhere"

    assert parse(row).content_hash != parse(again).content_hash
    assert parse(again).conversation_id == "elsewhere"


def test_avatars_do_not_change_a_conversation():
    row, again = conversation(), conversation()
    for item in (*again["users"], *again["assignees"]):
        item["avatar_url"] = "https://files.example.com/new.png"

    first, second = (parse_conversation(item, owner_id=ANNA) for item in (row, again))

    assert first.content_hash == second.content_hash


@pytest.mark.parametrize("key", sorted(set(message()) - {"id", "conversation"}))
def test_every_other_key_changes_a_message(key):
    changed = message()
    del changed[key]

    assert parse(changed).content_hash != parse(message()).content_hash


@pytest.mark.parametrize("key", ["filename", "size", "media_type", "extension", "width"])
def test_every_other_key_of_an_attachment_changes_a_message(key):
    changed = message()
    changed["attachments"][0][key] = "other"

    assert parse(changed).content_hash != parse(message()).content_hash


@pytest.mark.parametrize("key", sorted(set(conversation()) - {"id", "users", "assignees"}))
def test_every_other_key_changes_a_conversation(key):
    changed = conversation()
    del changed[key]

    hashes = {parse_conversation(row, owner_id=ANNA).content_hash for row in (conversation(), changed)}

    assert len(hashes) == 2


@pytest.mark.parametrize("key", sorted(set(comment()) - {"id"}))
def test_every_key_changes_a_comment(key):
    changed = comment()
    del changed[key]

    hashes = {parse_comment(row, conversation_id=OFFER).content_hash for row in (comment(), changed)}

    assert len(hashes) == 2


@given(st.permutations(list(message().items())))
def test_the_order_of_keys_does_not_change_a_message(items):
    assert parse(dict(items)).content_hash == parse(message()).content_hash


def test_reading_a_row_does_not_change_it():
    rows = (conversation(), message(), comment())
    before = copy.deepcopy(rows)

    parse_conversation(rows[0], owner_id=ANNA)
    parse_message(rows[1], conversation_id=None, date=NOW)
    parse_comment(rows[2], conversation_id=OFFER)

    assert rows == before


def test_a_version_later_than_the_answer_is_not_believed():
    record = parse(message() | {"updated_at": 4_000_000_000})

    assert record.version_at is None
    assert record.updated_at == datetime.fromtimestamp(4_000_000_000, UTC)


def test_a_comment_keeps_its_mentions_attachment_and_task():
    record, plain = (parse_comment(comment(place), conversation_id=OFFER) for place in (0, 1))

    assert (record.author_id, record.author_name) == (BEN, "Ben Okoro")
    assert json.loads(record.attachment or "")["filename"] == "stock.xlsx"
    assert json.loads(record.task or "")["completed_at"] is None
    assert json.loads(plain.mentions) == [{"id": BEN, "index": 0, "length": 4}]
    assert (plain.attachment, plain.task) == (None, None)


MALFORMED_MESSAGES = [
    ("delivered_at", "s3cret"),
    ("updated_at", 10**15),
    ("created_at", True),
    ("from_field", ["s3cret"]),
    ("author", "s3cret"),
    ("to_fields", {"s3cret": 1}),
    ("in_reply_to", {"s3cret": 1}),
    ("body", {"s3cret": 1}),
    ("subject", ["s3cret"]),
    ("conversation", "s3cret"),
]


@pytest.mark.parametrize(("key", "value"), MALFORMED_MESSAGES)
def test_a_malformed_message_is_refused_by_its_key_without_its_value(key, value):
    with pytest.raises(RecordError, match=rf"^{key}: expected") as caught:
        parse(message() | {key: value})

    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("last_activity_at", "s3cret"),
        ("subject", {"s3cret": 1}),
        ("shared_labels", "s3cret"),
        ("users", {"s3cret": 1}),
        ("team", "s3cret"),
        ("messages_count", "s3cret"),
        ("assignees", "s3cret"),
    ],
)
def test_a_malformed_conversation_is_refused_by_its_key_without_its_value(key, value):
    with pytest.raises(RecordError, match=rf"^{key}: expected") as caught:
        parse_conversation(conversation() | {key: value}, owner_id=ANNA)

    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [("attachment", "s3cret"), ("task", ["s3cret"]), ("mentions", "s3cret"), ("author", "s3cret")],
)
def test_a_malformed_comment_is_refused_by_its_key_without_its_value(key, value):
    with pytest.raises(RecordError, match=rf"^{key}: expected") as caught:
        parse_comment(comment() | {key: value}, conversation_id=OFFER)

    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("value", [None, "", 5, {}], ids=str)
def test_a_row_without_id_is_refused(value):
    for call in (
        lambda: parse_conversation({"id": value}, owner_id=ANNA),
        lambda: parse({"id": value}),
        lambda: parse_comment({"id": value}, conversation_id=OFFER),
    ):
        with pytest.raises(RecordError, match=r"^the row has no id$"):
            call()


def test_a_walk_reads_times_without_failing():
    values: list[object] = [5, 5.9, None, "5", True, [], {}]

    assert [activity_of({"last_activity_at": value}) for value in values] == [
        5,
        5,
        None,
        None,
        None,
        None,
        None,
    ]
    assert child_time({"delivered_at": None, "created_at": 7}, "messages") == 7
    assert child_time({"created_at": 8, "delivered_at": 9}, "comments") == 8
    assert child_time({}, "messages") is None
