"""What is said to the vendors about hooks, and what of their answers is understood."""

from __future__ import annotations

from typing import Any, cast

import pytest

from twm_pipeline.errors import NotFoundError, PagingError, RequestRefusedError, UnansweredError
from twm_pipeline.http import VendorSession
from twm_pipeline.sources.missive_hooks import MissiveHooks
from twm_pipeline.sources.teamwork_hooks import EVENTS, TeamworkHooks
from twm_pipeline_tests.sources.fakes import FakeSession, sample

PATH = "ab12"


def teamwork(*answers: Any) -> tuple[TeamworkHooks, FakeSession]:
    session = FakeSession(*answers)
    return TeamworkHooks(cast("VendorSession", session)), session


def missive(*answers: Any) -> tuple[MissiveHooks, FakeSession]:
    session = FakeSession(*answers)
    return MissiveHooks(cast("VendorSession", session)), session


def test_every_event_that_changes_a_task_is_asked_for_once():
    assert len(EVENTS) == len(set(EVENTS)) == 30


def test_a_webhook_is_asked_for_as_documented():
    hooks, session = teamwork(sample("teamwork", "webhooks.create.response"))
    asked = sample("teamwork", "webhooks.create.request")

    made = hooks.create(
        event=asked["webhook"]["event"], url=asked["webhook"]["url"], secret=asked["webhook"]["token"]
    )

    assert made == "41001"
    assert session.sent == [("POST", "/webhooks.json", asked)]


@pytest.mark.parametrize(
    "answer",
    [
        {"id": "7", "STATUS": "OK"},
        {"id": 7},
        {"webhook": {"id": "7"}},
        {"webhook": {"id": 7}, "STATUS": "OK"},
    ],
    ids=["string", "number", "nested string", "nested number"],
)
def test_an_id_is_understood_wherever_it_is(answer):
    hooks, _ = teamwork(answer)

    assert hooks.create(event="TASK.CREATED", url="https://x.example.com", secret="") == "7"


@pytest.mark.parametrize(
    "answer",
    [None, {}, {"STATUS": "OK"}, [], {"id": ""}, {"id": None}, {"id": True}, {"id": "../7"}],
    ids=repr,
)
def test_an_answer_without_an_id_is_none(answer):
    hooks, _ = teamwork(answer)

    with pytest.raises(UnansweredError, match="names no id"):
        hooks.create(event="TASK.CREATED", url="https://x.example.com", secret="")


def test_listed_webhooks_are_understood_and_a_page_with_nothing_new_is_the_last():
    page = sample("teamwork", "webhooks.list")
    hooks, session = teamwork(page, page)

    found = hooks.fetch()

    assert [(hook.hook_id, hook.event, hook.is_active) for hook in found] == [
        ("41001", "TASK.CREATED", True),
        ("41002", "TASK.DELETED", False),
    ]
    assert [params["page"] for _, params in session.asked] == ["1", "2"]


def test_further_pages_are_read():
    rows = [
        {"id": number, "event": "task.created", "url": "https://x", "status": "active"} for number in range(5)
    ]
    hooks, _ = teamwork(*({"webhooks": part} for part in (rows[:2], rows[2:4], rows[4:], [])))

    found = hooks.fetch()

    assert [hook.hook_id for hook in found] == ["0", "1", "2", "3", "4"]
    assert {(hook.event, hook.is_active) for hook in found} == {("TASK.CREATED", True)}


def test_a_row_that_cannot_be_ours_does_not_hide_the_others():
    rows = [{"id": 1}, {"url": "https://x"}, "nonsense", None, {"id": 2, "url": "https://y"}]
    hooks, _ = teamwork({"webhooks": rows}, {"webhooks": []})

    assert [(hook.hook_id, hook.is_active) for hook in hooks.fetch()] == [("2", True)]


@pytest.mark.parametrize("answer", [{}, [], {"webhooks": None}, {"webhooks": {}}], ids=repr)
def test_what_is_no_list_is_not_taken_for_an_empty_one(answer):
    hooks, _ = teamwork(answer)

    with pytest.raises(PagingError):
        hooks.fetch()


def test_webhooks_are_enabled_resumed_and_removed_by_their_ids():
    hooks, session = teamwork(None, {"STATUS": "OK"}, None)

    hooks.enable()
    hooks.resume("7")
    hooks.delete("7")

    assert [(method, path) for method, path, _ in session.sent] == [
        ("PUT", "/webhooks/enable.json"),
        ("PUT", "/webhooks/7/resume.json"),
        ("DELETE", "/webhooks/7.json"),
    ]


def test_a_webhook_that_is_gone_already_is_removed():
    hooks, _ = teamwork(NotFoundError("gone"), {"webhooks": []})

    hooks.delete("8")


def test_a_webhook_that_is_said_to_be_gone_and_is_listed_is_not_forgotten():
    listed = {
        "webhooks": [{"id": "8", "event": "TASK.CREATED", "url": "https://x.example.com", "status": "ACTIVE"}]
    }
    hooks, _ = teamwork(NotFoundError("gone"), listed, listed)

    with pytest.raises(UnansweredError, match="the list still has webhook 8"):
        hooks.delete("8")


def test_a_hook_of_missive_is_asked_for_below_its_secret_path():
    answer = sample("missive", "hooks.create.response")
    hooks, session = missive(answer)

    made = hooks.create(event="incoming_email", url="https://x.example.com/hooks/missive", secret=PATH)

    assert made == answer["hooks"]["id"]
    body = {"hooks": {"type": "incoming_email", "url": "https://x.example.com/hooks/missive/ab12"}}
    assert session.sent == [("POST", "/hooks", body)]


@pytest.mark.parametrize(
    "answer",
    [None, {}, {"hooks": {}}, {"hooks": []}, {"hooks": {"id": ""}}, {"hooks": {"id": "a/b"}}],
    ids=repr,
)
def test_an_answer_of_missive_without_an_id_is_none(answer):
    hooks, _ = missive(answer)

    with pytest.raises(UnansweredError, match="names no id"):
        hooks.create(event="new_comment", url="https://x", secret="")


def test_what_missive_cannot_do_is_not_asked_for():
    hooks, session = missive(NotFoundError("gone"))

    hooks.enable()
    hooks.delete("7")

    assert hooks.fetch() is None  # type: ignore[func-returns-value]  # that is its answer
    assert session.sent == [("DELETE", "/hooks/7", None)]
    with pytest.raises(RequestRefusedError):
        hooks.resume("7")
