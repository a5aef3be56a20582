"""The sandbox's Airtable, limits: pace, penalty, quota, sizes; and faults."""

from __future__ import annotations

import threading
import time

import pytest
import requests

from twm_pipeline.sandbox.airtable_limits import PenaltyBudget
from twm_pipeline_tests.sandbox.airtable_clients import AirtableClient, refusal

RATE = (429, "RATE_LIMIT_REACHED")
MONTH = (429, "PUBLIC_API_BILLING_LIMIT_EXCEEDED")


def test_five_requests_a_second_are_let_through() -> None:
    budget = PenaltyBudget(lambda: 5)
    budget.set_scale(1)

    verdicts = [budget.admit(100 + number * 0.2).allowed for number in range(40)]

    assert all(verdicts)
    assert budget.share == pytest.approx(1.0)


def test_the_sixth_request_of_a_second_begins_30_seconds_of_silence() -> None:
    budget = PenaltyBudget(lambda: 5)
    budget.set_scale(1)

    burst = [budget.admit(100.0) for _ in range(6)]
    later = [budget.admit(at) for at in (101.5, 129.9, 130.1)]

    assert [verdict.allowed for verdict in burst] == [True] * 5 + [False]
    assert [verdict.violation for verdict in later] == ["penalty", "penalty", None]
    assert later[0].reset_seconds == pytest.approx(28.5)
    assert budget.penalties == 1


def test_a_time_scale_shortens_second_and_penalty() -> None:
    budget = PenaltyBudget(lambda: 5)
    budget.set_scale(60)

    verdicts = [budget.admit(at).allowed for at in [*[100.0] * 6, 100.4, 100.51]]

    assert verdicts == [True] * 5 + [False, False, True]


def test_everything_counts_and_is_silent_together(airtable: AirtableClient) -> None:
    table = airtable.table()
    row = table.create({"Key": "k"})["id"]
    airtable.box.control.reset_counters()
    airtable.box.control.set_budgets("on", vendor="airtable")

    ok = [
        airtable.get(airtable.path("Things", row)),
        airtable.get("/meta/whoami"),
        airtable.get("/meta/bases"),
    ]
    ok += [airtable.patch(airtable.path("Things", row), {"fields": {}}), airtable.upload(row, "Key", {})]
    late = [
        airtable.get("/meta/whoami"),
        airtable.upload(row, "Files", {}),
        airtable.get(airtable.path("Things")),
    ]

    assert [answer.status_code for answer in ok] == [200, 200, 200, 200, 422]
    assert [refusal(answer) for answer in late] == [RATE] * 3
    assert "Retry-After" not in late[0].headers
    status = airtable.box.control.status()["vendors"]["airtable"]
    assert (status["violations"], status["penalties"], status["requests"]) == (3, 1, 8)
    assert status["endpoints"]["PATCH /{id}/Things/{id}"] == 1
    assert airtable.box.control.violations("teamwork") == 0


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_429_may_say_when_to_come_back(airtable: AirtableClient, form: str) -> None:
    airtable.box.control.set_answer("airtable.retry_after", form)
    airtable.box.control.set_budgets("on", vendor="airtable")

    answers = [airtable.get("/meta/whoami") for _ in range(6)]

    said = answers[-1].headers["Retry-After"]
    assert said == "30" if form == "seconds" else said.endswith("GMT")


def test_the_month_ends_for_records_and_not_for_the_schema(airtable: AirtableClient) -> None:
    table = airtable.table()
    airtable.box.control.airtable_set_quota(2)

    made = table.create({"Key": "last"})
    answers = [airtable.get("/meta/whoami"), airtable.get(airtable.path("Things"))]
    answers += [
        airtable.post(airtable.path("Things"), {"fields": {}}),
        airtable.upload(made["id"], "Files", {}),
    ]
    schema = airtable.get(f"/meta/bases/{airtable.base_id}/tables")

    assert answers[0].ok
    assert [refusal(answer) for answer in answers[1:]] == [MONTH] * 3
    assert schema.ok
    status = airtable.box.control.status()["vendors"]["airtable"]
    assert (status["calls_left"], status["over_quota"], status["violations"]) == (0, 3, 0)
    airtable.box.control.airtable_set_quota(None)
    assert list(airtable.records()) == [made["id"]] == [row["id"] for row in table.all()]


def test_the_month_may_end_in_a_slow_down_instead(airtable: AirtableClient) -> None:
    airtable.box.control.set_answer("airtable.quota_exhausted", "slow")
    airtable.box.control.airtable_set_quota(0)
    airtable.box.control.set_budgets("on", vendor="airtable")

    statuses = [airtable.get("/meta/whoami").status_code for _ in range(3)]

    assert statuses == [200, 200, 429]


def test_a_base_holds_so_many_records(airtable: AirtableClient) -> None:
    table = airtable.table()
    airtable.box.control.set_answer("airtable.records_per_base", 12)
    table.batch_create([{"Key": str(number)} for number in range(10)])

    over = airtable.post(airtable.path("Things"), {"records": [{"fields": {}}] * 3})
    fits = airtable.post(airtable.path("Things"), {"records": [{"fields": {}}] * 2})

    assert refusal(over) == (422, "RECORD_LIMIT_EXCEEDED")
    assert fits.ok
    assert table.update(fits.json()["records"][0]["id"], {"Key": "still"})["fields"] == {"Key": "still"}


def test_the_plan_decides_how_many_where_no_number_is_given(airtable: AirtableClient) -> None:
    account = airtable.box.world.airtable.account
    found = []
    for plan in ("free", "team", "business"):
        airtable.box.control.airtable_set_plan(plan)
        found.append(account.most_records)

    assert found == [1_000, 50_000, 125_000]


def test_a_long_url_and_a_large_body_are_refused(airtable: AirtableClient) -> None:
    airtable.table()
    airtable.box.control.set_answer("airtable.largest_body", 1000)

    long = airtable.get(airtable.path("Things"), filterByFormula="1" * 16_000)
    large = airtable.post(airtable.path("Things"), {"fields": {"Notes": "x" * 1000}})

    assert refusal(long) == (414, "URI_TOO_LONG")
    assert refusal(large) == (413, "REQUEST_TOO_LARGE")
    assert airtable.records() == {}

    airtable.box.control.set_answer("airtable.too_large", "html")
    large = airtable.post(airtable.path("Things"), {"fields": {"Notes": "x" * 1000}})
    assert (large.status_code, large.headers["content-type"]) == (413, "text/html; charset=utf-8")


@pytest.mark.parametrize("form", ["object", "type_only", "string"])
def test_errors_come_in_every_shape(airtable: AirtableClient, form: str) -> None:
    airtable.box.control.set_answer("airtable.error_shape", form)

    error = airtable.get(airtable.path("Nope")).json()["error"]

    if form == "string":
        assert error == "INVALID_PERMISSIONS_OR_MODEL_NOT_FOUND"
    else:
        assert error["type"] == "INVALID_PERMISSIONS_OR_MODEL_NOT_FOUND"
        assert ("message" in error) == (form == "object")
    assert airtable.get("/nowhere").json() == {"error": "NOT_FOUND"}


@pytest.mark.parametrize("kind", ["AUTHENTICATION_REQUIRED", "UNAUTHORIZED"])
def test_a_wrong_token_is_401_and_costs_nothing(airtable: AirtableClient, kind: str) -> None:
    airtable.box.control.set_answer("airtable.unauthorized", kind)
    airtable.box.control.set_budgets("on", vendor="airtable")
    airtable.session.headers["Authorization"] = "Bearer patWrong"

    answers = [airtable.get("/meta/whoami") for _ in range(7)]

    assert {refusal(answer) for answer in answers} == {(401, kind)}


WRITE = {"records": [{"fields": {"Key": "a"}}, {"fields": {"Key": "b"}}]}


@pytest.mark.parametrize(
    ("kind", "error"), [("429", RATE), ("500", (500, "SERVER_ERROR")), ("503", (503, "RETRIABLE_ERROR"))]
)
def test_a_fault_is_worded_as_airtable_does_and_writes_nothing(
    airtable: AirtableClient, kind: str, error
) -> None:
    airtable.table()
    airtable.box.control.add_fault("airtable", kind, path="/Things$", seconds=7)

    answer = airtable.post(airtable.path("Things"), WRITE)

    assert refusal(answer) == error
    assert kind == "500" or answer.headers["Retry-After"] == "7"
    assert airtable.records() == {}
    assert airtable.post(airtable.path("Things"), WRITE).ok


@pytest.mark.parametrize(("share", "written"), [("nothing", 0), ("half", 1), ("all", 2)])
def test_a_5xx_may_come_after_the_write_or_in_the_middle_of_it(
    airtable: AirtableClient, share, written
) -> None:
    airtable.table()
    airtable.box.control.set_answer("airtable.done_before_5xx", share)
    airtable.box.control.add_fault("airtable", "502", path="/Things$")

    answer = airtable.post(airtable.path("Things"), WRITE)

    assert answer.status_code == 502
    assert len(airtable.records()) == written


@pytest.mark.parametrize("kind", ["html_200", "html_502"])
def test_a_page_for_people_may_answer(airtable: AirtableClient, kind: str) -> None:
    airtable.box.control.add_fault("airtable", kind)

    answer = airtable.get("/meta/whoami")

    assert answer.headers["Content-Type"].startswith("text/html")


@pytest.mark.parametrize(("kind", "written"), [("reset", 0), ("reset_midway", 2)])
def test_a_connection_breaks_before_the_write_or_after_it(
    airtable: AirtableClient, kind: str, written: int
) -> None:
    airtable.table()
    airtable.box.control.add_fault("airtable", kind, path="/Things$")

    with pytest.raises(requests.RequestException):
        airtable.base.table("Things").batch_create([{"Key": "a"}, {"Key": "b"}])

    assert len(airtable.records()) == written


def test_a_create_that_timed_out_may_have_succeeded(airtable: AirtableClient) -> None:
    airtable.table()
    airtable.box.control.add_fault("airtable", "stall", path="/Things$", seconds=30)
    url = f"{airtable.base_url}{airtable.path('Things')}"

    with pytest.raises(requests.ReadTimeout):
        airtable.session.post(url, json=WRITE, timeout=0.2)

    deadline = time.monotonic() + 10
    while len(airtable.records()) < 2 and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    assert len(airtable.records()) == 2


def test_a_truncated_answer_comes_after_the_write(airtable: AirtableClient) -> None:
    airtable.table()
    airtable.box.control.add_fault("airtable", "truncated", path="/Things$")

    answer = airtable.post(airtable.path("Things"), WRITE)

    with pytest.raises(requests.JSONDecodeError):
        answer.json()
    assert len(airtable.records()) == 2
