"""Missive's lists as pages: what is asked for, and which answers are not believed."""

from typing import Any, cast

import pytest

from twm_pipeline.errors import NotFoundError, PagingError, RequestRefusedError
from twm_pipeline.http import VendorSession
from twm_pipeline.settings import load_settings
from twm_pipeline.sources.missive import MissiveSource, budget_plan
from twm_pipeline.sources.missive_rows import parse_conversation
from twm_pipeline_tests.sources.fakes import FakeSession, sample
from twm_pipeline_tests.sources.missive_samples import ANNA, OFFER, conversation, messages


def source(*answers: Any) -> tuple[MissiveSource, FakeSession]:
    session = FakeSession(*answers)
    return MissiveSource(cast(VendorSession, session)), session


def test_a_merged_conversation_answers_with_the_id_of_the_survivor():
    missive, _ = source(sample("missive", "conversation.get.merged-other-id"))

    row, _ = missive.fetch_conversation(OFFER)

    assert parse_conversation(row, owner_id=ANNA).id == "f9718b52-2dab-44e9-a58c-65f0702e47bd" != OFFER


def test_a_mailbox_page_asks_for_its_mailbox_alone():
    missive, session = source(sample("missive", "conversations.list.page1"))

    page = missive.fetch_conversations("closed", until=1741076100, fresh=False)

    assert session.asked == [
        ("/conversations", {"closed": "true", "limit": "50", "until": "1741076100"}),
    ]
    assert session.fresh == [False]
    assert (len(page.rows), page.limit) == (3, 50)


@pytest.mark.parametrize(
    "answer",
    [None, [], {}, {"conversations": None}, {"conversations": {}}, {"conversations": [1]}, {"error": {}}],
    ids=str,
)
def test_a_page_of_another_shape_is_not_taken_for_an_empty_one(answer):
    missive, _ = source(answer, answer)

    with pytest.raises(PagingError, match="no list 'conversations'"):
        missive.fetch_conversations("all")
    with pytest.raises(PagingError, match="no list 'conversations'"):
        missive.fetch_conversation(OFFER)


@pytest.mark.parametrize("count", [0, 2])
def test_one_conversation_is_exactly_one(count):
    missive, _ = source({"conversations": [conversation()] * count})

    with pytest.raises(PagingError, match="is not one conversation"):
        missive.fetch_conversation(OFFER)


@pytest.mark.parametrize("kind", ["messages", "comments"])
def test_children_are_paged_ten_at_a_time(kind):
    missive, session = source({kind: []})

    page = missive.fetch_children(OFFER, kind)

    assert session.asked == [(f"/conversations/{OFFER}/{kind}", {"limit": "10"})]
    assert page.limit == 10


def test_one_message_comes_as_an_object_and_several_as_an_array():
    missive, session = source(sample("missive", "message.get"), sample("missive", "messages.get.multi"))
    ids = [row["id"] for row in messages("messages.get.multi")]

    one = list(missive.fetch_messages(ids[:1]))
    several = list(missive.fetch_messages(ids))

    assert [row["id"] for row, _ in one] == ids[:1]
    assert [row["id"] for row, _ in several] == ids
    assert [path for path, _ in session.asked] == [f"/messages/{ids[0]}", f"/messages/{','.join(ids)}"]


def test_messages_are_read_ten_a_call():
    ids = [str(number) for number in range(23)]
    missive, _ = source(
        *[{"messages": [{"id": i} for i in ids[start : start + 10]]} for start in range(0, 23, 10)]
    )

    found = [row["id"] for row, _ in missive.fetch_messages(ids)]

    assert found == ids


def test_a_message_that_is_gone_does_not_hide_the_others():
    missive, session = source(
        NotFoundError("404"),
        {"messages": {"id": "a"}},
        NotFoundError("404"),
    )

    found = [row["id"] for row, _ in missive.fetch_messages(["a", "gone"])]

    assert found == ["a"]
    assert [path for path, _ in session.asked] == ["/messages/a,gone", "/messages/a", "/messages/gone"]


def test_one_refused_message_is_an_error():
    missive, _ = source(RequestRefusedError("400"))

    with pytest.raises(RequestRefusedError):
        list(missive.fetch_messages(["a"]))


@pytest.mark.parametrize(
    "answer", [{"messages": {"id": "b"}}, {"messages": [{"id": "b"}]}, {"messages": [{}]}], ids=str
)
def test_messages_that_were_not_asked_for_are_refused(answer):
    missive, _ = source(answer)

    with pytest.raises(PagingError, match="other messages than were asked for"):
        list(missive.fetch_messages(["a"]))


def test_a_message_whose_id_is_no_text_is_refused():
    missive, _ = source({"messages": [{"id": {"x": 1}}]})

    with pytest.raises(PagingError, match="other messages than were asked for"):
        list(missive.fetch_messages(["a"]))


@pytest.mark.parametrize("answer", [{"messages": None}, {}, [], None], ids=str)
def test_messages_of_another_shape_are_refused(answer):
    missive, _ = source(answer)

    with pytest.raises(PagingError, match="no list 'messages'"):
        list(missive.fetch_messages(["a", "b"]))


def test_the_owner_is_the_user_marked_as_me():
    missive, _ = source(sample("missive", "users.list"))

    owner, _ = missive.fetch_owner_id()

    assert owner == ANNA


def test_the_owner_is_found_on_a_later_page():
    others = {"users": [{"id": str(number), "me": False} for number in range(200)]}
    missive, session = source(others, sample("missive", "users.list"))

    owner, _ = missive.fetch_owner_id()

    assert owner == ANNA
    assert [params["offset"] for _, params in session.asked] == ["0", "200"]


def test_without_an_owner_nothing_is_concluded():
    missive, _ = source({"users": [{"id": "x", "me": False}]})

    with pytest.raises(PagingError, match="no row is marked as the token's owner"):
        missive.fetch_owner_id()


def test_the_budget_holds_all_three_limits():
    plan = budget_plan(load_settings())

    assert [(limit.requests, limit.seconds) for limit in plan.limits] == [(300, 60), (900, 900)]
    assert (plan.concurrency, plan.adapts) == (5, False)
