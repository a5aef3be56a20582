"""Missive's documented quirks, and both answers to its open questions."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import pytest
import requests

from twm_pipeline.sandbox import Sandbox
from twm_pipeline_tests.sandbox.clients import MissiveClient
from twm_pipeline_tests.sandbox.conftest import Start

UNKNOWN = "00000000-0000-4000-8000-000000000000"


def newest(missive: MissiveClient) -> dict[str, Any]:
    """Return the newest conversation that is no guest's."""
    return next(row for row in missive.conversations() if "users" in row)


def test_a_list_needs_a_mailbox(missive: MissiveClient) -> None:
    for params in ({}, {"limit": 5}, {"all": "false"}):
        assert missive.get("/conversations", **params).status_code == 400


def test_unknown_parameters_are_refused(missive: MissiveClient) -> None:
    answer = missive.get("/conversations", all="true", offset=3, foo=1)

    assert answer.status_code == 400
    assert answer.json() == {"error": {"message": "Unpermitted parameters: offset, foo"}}


def test_conversations_come_newest_first_and_ties_stay_together(missive: MissiveClient) -> None:
    pages = [missive.conversations(limit=15)]
    pages.append(missive.conversations(limit=15, until=pages[0][-1]["last_activity_at"]))

    times = [row["last_activity_at"] for row in pages[0]]
    assert times == sorted(times, reverse=True)
    assert max(len(page) for page in pages) > 50
    boundary = pages[0][-1]["last_activity_at"]
    assert sum(row["last_activity_at"] == boundary for row in pages[0]) == sum(
        row["last_activity_at"] == boundary for row in missive.walk("all").values()
    )


@pytest.mark.parametrize("inclusive", [True, False])
def test_until_is_inclusive_or_not(box: Sandbox, missive: MissiveClient, inclusive: bool) -> None:
    box.control.set_answer("missive.until_inclusive", inclusive)
    boundary = missive.conversations(limit=3)[-1]

    following = missive.conversations(limit=3, until=boundary["last_activity_at"])

    assert (boundary["id"] in {row["id"] for row in following}) is inclusive


def test_a_walk_finds_every_conversation(box: Sandbox, missive: MissiveClient) -> None:
    truth = [row for row in box.control.truth("conversation") if row["visible"]]

    assert set(missive.walk("all")) == {
        row["id"] for row in truth if not row["trashed"] and not row["junked"]
    }
    assert set(missive.walk("trashed")) == {row["id"] for row in truth if row["trashed"]}
    assert set(missive.walk("junked")) == {row["id"] for row in truth if row["junked"]}
    closed = {row["id"] for row in truth if row["closed"] and not row["trashed"] and not row["junked"]}
    assert set(missive.walk("closed")) == closed


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("flag", ["trashed", "junked", "closed"])
def test_all_holds_what_the_answer_says(box: Sandbox, missive: MissiveClient, flag: str, kept: bool) -> None:
    key = box.control.receive_mail()["conversation_id"]
    box.control.set_flag(key, flag)

    box.control.set_answer(f"missive.all_includes_{flag}", kept)

    assert (key in missive.walk("all")) is kept


@pytest.mark.parametrize("mailbox", ["inbox", "assigned", "snoozed", "flagged", "drafts"])
def test_the_other_mailboxes_hold_something(missive: MissiveClient, mailbox: str) -> None:
    assert 0 < len(missive.walk(mailbox)) < len(missive.walk("all"))


def test_mailboxes_by_id(missive: MissiveClient) -> None:
    [team] = missive.json("/teams")["teams"]
    label = missive.json("/shared_labels")["shared_labels"][0]

    of_label = missive.json("/conversations", shared_label=label["id"], limit=50)["conversations"]
    of_team = {
        name: missive.json("/conversations", **{name: team["id"]}, limit=50)["conversations"]
        for name in ("team_inbox", "team_closed", "team_all")
    }

    assert all(label["id"] in {item["id"] for item in row["shared_labels"]} for row in of_label)
    assert all(row["team"]["id"] == team["id"] for rows in of_team.values() for row in rows)
    assert all(row["users"][0]["closed"] for row in of_team["team_closed"])
    assert missive.json("/conversations", shared_label=UNKNOWN) == {"conversations": []}


def test_conversations_filter_by_address_and_domain(missive: MissiveClient) -> None:
    by_email = missive.conversations(email="person3@customer.example.com")
    by_domain = missive.conversations(domain="customer.example.com")

    assert 0 < len(by_email) < len(by_domain)
    assert missive.conversations(email="nobody@example.com") == []
    assert missive.conversations(organization=UNKNOWN) == []


@pytest.mark.parametrize(("answer", "status"), [("cap", 200), ("400", 400)])
def test_a_limit_beyond_the_maximum(box: Sandbox, missive: MissiveClient, answer: str, status: int) -> None:
    box.control.set_answer("missive.limit_over_max", answer)

    assert missive.get("/users", limit=201).status_code == status
    assert missive.get("/conversations", all="true", limit=51).status_code == status


def test_a_single_conversation_is_an_array_of_one(missive: MissiveClient) -> None:
    row = newest(missive)

    assert missive.json(f"/conversations/{row['id']}") == {"conversations": [row]}
    assert missive.get(f"/conversations/{row['id']},{row['id']}").status_code == 400
    assert missive.get(f"/conversations/{UNKNOWN}").status_code == 404


def test_a_guest_sees_two_fields(box: Sandbox, missive: MissiveClient) -> None:
    guests = [row for row in missive.walk("all").values() if len(row) == 2]

    assert guests
    assert set(guests[0]) == {"id", "last_activity_at"}
    assert missive.children(guests[0]["id"], "messages") == []
    box.control.set_answer("missive.guest_children", "404")
    assert missive.get(f"/conversations/{guests[0]['id']}/messages").status_code == 404


def test_messages_come_ten_at_a_time_without_bodies_or_drafts(box: Sandbox, missive: MissiveClient) -> None:
    longest = max(box.control.truth("conversation"), key=lambda row: len(row["message_ids"]))
    page = missive.json(f"/conversations/{longest['id']}/messages")["messages"]

    assert len(page) == 10
    assert all(row["delivered_at"] >= after["delivered_at"] for row, after in pairwise(page))
    assert not any("body" in row or "conversation" in row for row in page)
    assert {row["id"] for row in missive.children(longest["id"], "messages")} == set(longest["message_ids"])
    tied = next(row for row in box.control.truth("conversation") if len(row["message_ids"]) == 14)
    assert len(missive.json(f"/conversations/{tied['id']}/messages")["messages"]) == 14


def test_drafts_are_apart(box: Sandbox, missive: MissiveClient) -> None:
    row = next(row for row in box.control.truth("conversation") if row["draft_ids"])

    drafts = missive.json(f"/conversations/{row['id']}/drafts")["drafts"]

    assert [item["id"] for item in drafts] == row["draft_ids"]
    assert drafts[0]["delivered_at"] is None
    assert not set(row["draft_ids"]) & {item["id"] for item in missive.children(row["id"], "messages")}


def test_comments_come_ten_at_a_time(box: Sandbox, missive: MissiveClient) -> None:
    longest = max(box.control.truth("conversation"), key=lambda row: len(row["comment_ids"]))

    assert len(missive.json(f"/conversations/{longest['id']}/comments")["comments"]) == 10
    assert {row["id"] for row in missive.children(longest["id"], "comments")} == set(longest["comment_ids"])


def test_one_message_is_an_object_and_several_are_an_array(box: Sandbox, missive: MissiveClient) -> None:
    ids = next(
        row["message_ids"] for row in box.control.truth("conversation") if len(row["message_ids"]) == 3
    )

    one = missive.json(f"/messages/{ids[0]}")["messages"]
    several = missive.json(f"/messages/{','.join(ids)}")["messages"]

    assert one["id"] == ids[0]
    assert [row["id"] for row in several] == ids
    assert "body" in several[0]
    assert several[0]["conversation"]["id"] == one["conversation"]["id"]


def test_open_answers_of_the_multi_read(box: Sandbox, missive: MissiveClient) -> None:
    ids = [row["id"] for row in box.control.truth("message") if not row["draft"]][:12]
    with_gone = f"{ids[0]},{UNKNOWN}"

    assert [row["id"] for row in missive.json(f"/messages/{with_gone}")["messages"]] == [ids[0]]
    box.control.set_answer("missive.single_in_multi", "object")
    assert missive.json(f"/messages/{with_gone}")["messages"]["id"] == ids[0]
    box.control.set_answer("missive.missing_in_multi", "404")
    assert missive.get(f"/messages/{with_gone}").status_code == 404
    assert missive.get(f"/messages/{','.join(ids)}").status_code == 400
    box.control.set_answer("missive.too_many_ids", "truncate")
    assert len(missive.json(f"/messages/{','.join(ids)}")["messages"]) == 10
    assert missive.get("/messages/nonsense").status_code == 400


def test_messages_are_found_by_their_message_id(box: Sandbox, missive: MissiveClient) -> None:
    row = next(row for row in box.control.truth("message") if row["email_message_id"])

    found = missive.json("/messages", email_message_id=row["email_message_id"])["messages"]

    assert [item["id"] for item in found] == [row["id"]]


def test_messages_are_as_uneven_as_documented(box: Sandbox, missive: MissiveClient) -> None:
    ids = [row["id"] for row in box.control.truth("message") if not row["draft"]]
    box.control.set_answer("missive.max_message_ids", 500)
    rows = missive.json(f"/messages/{','.join(ids[:100])}")["messages"]

    assert {row["type"] for row in rows} == {"email", "sms", "custom_text"}
    assert any(row["from_field"] is None for row in rows)
    assert any("phone_number" in (row["from_field"] or {}) for row in rows)
    assert any(row["author"] for row in rows)
    assert any(row["body"] is None for row in rows)
    assert any(len(row["body"] or "") > 190_000 for row in rows)
    assert any("\0" in (row["body"] or "") for row in rows)
    files = [item for row in rows for item in row["attachments"]]
    assert any(item["filename"] is None for item in files)
    assert any(item["size"] == 0 for item in files)


def test_label_names_may_hold_a_comma(missive: MissiveClient) -> None:
    rows = [
        row for row in missive.walk("all").values() if "Berlin, East" in row.get("shared_label_names", "")
    ]

    assert rows
    assert len(rows[0]["shared_label_names"].split(", ")) > len(rows[0]["shared_labels"])
    label = next(item for item in rows[0]["shared_labels"] if item["name"] == "Berlin, East")
    assert label["name_with_parent_names"] == "Projects/Berlin, East"


def test_trash_is_everybody_s_own_and_closing_is_common(box: Sandbox, missive: MissiveClient) -> None:
    key = box.control.receive_mail()["conversation_id"]
    _, other = missive.json("/users")["users"]

    box.control.trash(key, user_id=other["id"])
    box.control.close_conversation(key)

    states = {user["id"]: user for user in missive.conversation(key)["users"]}
    assert states[other["id"]]["trashed"] is True
    assert [user["trashed"] for user in states.values()].count(True) == 1
    assert all(user["closed"] for user in states.values())
    assert key not in missive.walk("trashed")


@pytest.mark.parametrize("survivor", ["old", "new"])
def test_a_merged_conversation_answers_under_its_old_id(
    box: Sandbox, missive: MissiveClient, survivor: str
) -> None:
    old, new = (box.control.receive_mail(subject=name) for name in ("old", "new"))
    gone, kept = (new, old) if survivor == "old" else (old, new)

    box.control.merge(gone["conversation_id"], kept["conversation_id"])

    answer = missive.conversation(gone["conversation_id"])
    assert answer["id"] == kept["conversation_id"]
    assert answer["messages_count"] == 2
    children = missive.children(gone["conversation_id"], "messages")
    assert {row["id"] for row in children} == {old["message_id"], new["message_id"]}
    assert gone["conversation_id"] not in missive.walk("all")
    assert (
        missive.json(f"/messages/{gone['message_id']}")["messages"]["conversation"]["id"]
        == kept["conversation_id"]
    )


@pytest.mark.parametrize("bumps", [True, False])
@pytest.mark.parametrize("change", ["label", "assign", "comment", "close", "trash", "merge"])
def test_a_change_moves_the_last_activity_as_the_answer_says(
    box: Sandbox, missive: MissiveClient, change: str, bumps: bool
) -> None:
    control = box.control
    control.set_answer(f"missive.{change}_bumps_activity", bumps)
    key, other = (control.receive_mail()["conversation_id"] for _ in range(2))
    label = missive.json("/shared_labels")["shared_labels"][0]["id"]
    user = missive.json("/users")["users"][0]["id"]
    before = missive.conversation(other)["last_activity_at"]
    control.advance(50)

    match change:
        case "label":
            control.label(key, label)
        case "assign":
            control.assign(key, [user])
        case "comment":
            control.comment(key, "hi")
        case "close":
            control.close_conversation(key)
        case "trash":
            control.trash(key)
        case "merge":
            control.merge(other, key)

    assert (missive.conversation(key)["last_activity_at"] > before) is bumps


def test_what_is_deleted_for_good_is_simply_gone(box: Sandbox, missive: MissiveClient) -> None:
    made = box.control.receive_mail()
    second = box.control.reply(made["conversation_id"])
    note = box.control.comment(made["conversation_id"], "note")

    box.control.delete_message(second["message_id"])
    box.control.delete_comment(made["conversation_id"], note)
    after = missive.conversation(made["conversation_id"])
    box.control.delete_conversation(made["conversation_id"])

    assert after["messages_count"] == 1
    assert missive.get(f"/messages/{second['message_id']}").status_code == 404
    assert missive.get(f"/messages/{made['message_id']}").status_code == 404
    assert missive.get(f"/conversations/{made['conversation_id']}").status_code == 404


def test_a_lost_conversation_is_not_found(box: Sandbox, missive: MissiveClient) -> None:
    made = box.control.receive_mail()

    box.control.set_conversation_access(made["conversation_id"], accessible=False)

    assert missive.get(f"/conversations/{made['conversation_id']}").status_code == 404
    assert missive.get(f"/messages/{made['message_id']}").status_code == 404
    assert made["conversation_id"] not in missive.walk("all")


def test_no_conversation_grows_beyond_400_messages(box: Sandbox, missive: MissiveClient) -> None:
    key = box.control.receive_mail()["conversation_id"]

    ids = {box.control.reply(key)["conversation_id"] for _ in range(401)}

    assert len(ids) == 3
    assert missive.conversation(key)["messages_count"] == 400


def test_a_second_merge_keeps_every_alias(box: Sandbox, missive: MissiveClient) -> None:
    first, second, third = (box.control.receive_mail()["conversation_id"] for _ in range(3))

    box.control.merge(first, second)
    box.control.merge(second, third)

    assert {missive.conversation(key)["id"] for key in (first, second, third)} == {third}


def test_directories_page_by_limit_and_offset(missive: MissiveClient) -> None:
    everything = missive.json("/shared_labels")["shared_labels"]
    page = missive.json("/shared_labels", limit=2, offset=1)["shared_labels"]

    assert page == everything[1:3]
    assert [user["me"] for user in missive.json("/users")["users"]] == [True, False]


@pytest.mark.parametrize("shape", ["error", "errors", "message"])
def test_errors_may_have_other_shapes(box: Sandbox, missive: MissiveClient, shape: str) -> None:
    box.control.set_answer("missive.error_shape", shape)

    assert list(missive.get(f"/conversations/{UNKNOWN}").json()) == [shape]


def attachment_of(box: Sandbox, missive: MissiveClient) -> tuple[str, dict[str, Any]]:
    fields = {"filename": "größer 図.pdf", "media_type": "application", "sub_type": "pdf", "size": 5000}
    key = box.control.receive_mail(attachments=[fields])["message_id"]
    return key, missive.json(f"/messages/{key}")["messages"]["attachments"][0]


def test_an_attachment_has_another_url_on_every_read(box: Sandbox, missive: MissiveClient) -> None:
    key, first = attachment_of(box, missive)
    second = missive.json(f"/messages/{key}")["messages"]["attachments"][0]

    answer = requests.get(first["url"], timeout=5)

    assert first["url"] != second["url"]
    assert first["id"] == second["id"]
    assert (answer.status_code, len(answer.content)) == (200, 5000)
    assert requests.get(second["url"], timeout=5).content == answer.content


def test_an_expired_or_forged_url_is_refused(box: Sandbox, missive: MissiveClient) -> None:
    _, item = attachment_of(box, missive)
    forged = item["url"].replace("Signature=", "Signature=0")

    assert requests.get(forged, timeout=5).status_code == 403
    box.control.advance(3601)
    assert requests.get(item["url"], timeout=5).status_code == 403


def test_a_token_sent_to_the_storage_is_refused_and_counted(box: Sandbox, missive: MissiveClient) -> None:
    _, item = attachment_of(box, missive)

    answer = missive.session.get(item["url"], timeout=5)

    assert answer.status_code == 400
    assert box.control.status()["files"]["leaked_tokens"] == 1


def test_how_long_an_attachment_lives_is_an_open_answer(start: Start) -> None:
    box = start(answers={"missive.attachment_seconds": 5}, anchor=None)
    with MissiveClient(box) as missive:
        _, item = attachment_of(box, missive)

    expires = int(item["url"].partition("Expires=")[2].partition("&")[0])

    assert 3 <= expires - time.time() <= 6
