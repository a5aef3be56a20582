"""Budgets are enforced as documented, counted, and told in the documented headers."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime

import pytest

from twm_pipeline.sandbox import Sandbox
from twm_pipeline.sandbox.budgets import Budget, Window
from twm_pipeline_tests.sandbox.clients import V3, MissiveClient, TeamworkClient
from twm_pipeline_tests.sandbox.conftest import Start


def make_budget(limit: int, *, sliding: bool, scale: float = 1.0) -> Budget:
    budget = Budget([Window(lambda: limit, 60.0)], concurrency=None, sliding=lambda: sliding)
    budget.set_scale(scale)
    return budget


def test_a_sliding_window_never_lets_more_than_its_limit_through() -> None:
    budget = make_budget(3, sliding=True)

    verdicts = [budget.admit(now).allowed for now in (0, 20, 40, 59, 60, 61, 80)]

    assert verdicts == [True, True, True, False, True, False, True]


def test_a_fixed_window_starts_anew_on_the_minute() -> None:
    budget = make_budget(3, sliding=False)

    verdicts = [budget.admit(now).allowed for now in (57, 58, 59, 59.5, 60.5, 61, 62, 63)]

    assert verdicts == [True, True, True, False, True, True, True, False]


def test_a_verdict_tells_what_is_left_and_when() -> None:
    budget = make_budget(2, sliding=True)

    first, second, third = budget.admit(100), budget.admit(110), budget.admit(120)

    assert (first.remaining, second.remaining, third.remaining) == (1, 0, 0)
    assert third.allowed is False
    assert third.reset_seconds == pytest.approx(40)


def test_a_time_scale_shortens_the_window() -> None:
    budget = make_budget(1, sliding=True, scale=60.0)

    assert [budget.admit(now).allowed for now in (0, 0.9, 1.01)] == [True, False, True]


def test_teamwork_answers_the_151st_request_of_a_minute_with_429(start: Start) -> None:
    box = start(budgets="on")

    with TeamworkClient(box) as teamwork:
        answers = [teamwork.get(f"{V3}/me.json") for _ in range(152)]

    assert [answer.status_code for answer in answers] == [200] * 150 + [429] * 2
    assert answers[0].headers["X-Rate-Limit-Limit"] == "150"
    assert answers[9].headers["X-Rate-Limit-Remaining"] == "140"
    assert 50 <= int(answers[-1].headers["X-Rate-Limit-Reset"]) <= 60
    assert "Retry-After" not in answers[-1].headers
    assert box.control.violations() == box.control.violations("teamwork") == 2


def test_missive_tells_its_budget_with_the_429_only(start: Start) -> None:
    box = start(budgets="on")

    with MissiveClient(box) as missive:
        answers = [missive.get("/users") for _ in range(301)]

    assert [answer.status_code for answer in answers] == [200] * 300 + [429]
    assert "X-RateLimit-Limit" not in answers[0].headers
    assert answers[-1].headers["X-RateLimit-Remaining"] == "0"
    assert 50 <= int(answers[-1].headers["Retry-After"]) <= 60
    assert int(answers[-1].headers["X-RateLimit-Reset"]) > 1_700_000_000
    assert box.control.violations("missive") == 1


def test_missive_allows_900_requests_in_15_minutes(start: Start) -> None:
    budget = start(budgets="on").world.missive.budget

    def ask(now: float) -> bool:
        verdict = budget.admit(now)
        if verdict.allowed:
            budget.release()
        return verdict.allowed

    within_a_minute = [ask(number * 0.15) for number in range(301)]
    budget.set_scale(1.0)
    within_15_minutes = [ask(1000 + number * 0.9) for number in range(990)]

    assert within_a_minute.index(False) == 300
    assert within_15_minutes.index(False) == 900


def test_missive_refuses_the_sixth_request_at_once(start: Start) -> None:
    box = start(budgets="on", latency_seconds=0.3)

    def ask(_: int) -> int:
        with MissiveClient(box) as missive:
            return missive.get("/users").status_code

    with ThreadPoolExecutor(7) as pool:
        statuses = sorted(pool.map(ask, range(7)))

    assert statuses == [200] * 5 + [429] * 2
    violations = [row["violation"] for row in box.control.requests("missive") if row["violation"]]
    assert violations == ["concurrency"] * 2


def test_five_at_once_over_kept_connections_break_nothing(start: Start) -> None:
    box = start(budgets=600.0)
    box.control.set_budgets(600.0, "missive")

    def ask(_: int) -> None:
        with MissiveClient(box) as missive:
            for _ in range(30):
                missive.get("/organizations")

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(ask, range(5)))

    log = box.control.requests("missive")
    assert len(log) == 150
    assert not [row for row in log if row["violation"] == "concurrency"]


def test_switched_off_budgets_refuse_nothing(box: Sandbox, teamwork: TeamworkClient) -> None:
    assert {teamwork.status("me.json") for _ in range(160)} == {200}


@pytest.mark.parametrize(
    ("spelling", "expected"),
    [("X-Rate-Limit", "X-Rate-Limit-Reset"), ("x-ratelimit", "x-ratelimit-reset"), ("none", None)],
)
def test_teamwork_spells_its_headers_as_the_answer_says(
    box: Sandbox, teamwork: TeamworkClient, spelling: str, expected: str | None
) -> None:
    box.control.set_answer("teamwork.rate_header", spelling)
    box.control.set_answer("teamwork.rate_reset", "epoch")

    headers = teamwork.get(f"{V3}/me.json").headers

    found = [name for name in headers if name.lower().endswith("-reset")]
    assert [name.lower() for name in found] == ([expected.lower()] if expected else [])
    assert all(int(headers[name]) > 1_000_000_000 for name in found)


@pytest.mark.parametrize("form", ["seconds", "date", "none"])
def test_retry_after_has_the_form_the_answer_says(start: Start, form: str) -> None:
    box = start(budgets="on", answers={"teamwork.retry_after": form, "teamwork.requests_per_minute": 1})

    with TeamworkClient(box) as teamwork:
        teamwork.get(f"{V3}/me.json")
        headers = teamwork.get(f"{V3}/me.json").headers

    if form == "none":
        assert "Retry-After" not in headers
    elif form == "seconds":
        assert 50 <= int(headers["Retry-After"]) <= 60
    else:
        waited = parsedate_to_datetime(headers["Retry-After"]) - parsedate_to_datetime(headers["Date"])
        assert 50 <= waited.total_seconds() <= 61


def test_missive_may_tell_its_budget_always(box: Sandbox, missive: MissiveClient) -> None:
    box.control.set_answer("missive.rate_headers_on_200", True)

    assert missive.get("/users").headers["X-RateLimit-Limit"] == "300"


def test_waiting_as_told_is_enough(start: Start) -> None:
    box = start(budgets=60.0, answers={"teamwork.requests_per_minute": 5})

    with TeamworkClient(box) as teamwork:
        statuses = [teamwork.status("me.json") for _ in range(6)]
        time.sleep(1.0)
        statuses.append(teamwork.status("me.json"))

    assert statuses == [200] * 5 + [429, 200]
