"""Every check of a source: quiet about a true copy, and each says what was broken."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from twm_pipeline.errors import AuthenticationError
from twm_pipeline.http import VendorSession
from twm_pipeline.mirror.findings import Finding
from twm_pipeline.mirror.hooks import REFUSED, note_asked, note_problem
from twm_pipeline.mirror.refusals import read_refusals
from twm_pipeline.records import SOURCES, Hint, Source
from twm_pipeline.sync.checks import MEANINGS, check_source, checks_of
from twm_pipeline.sync.checks_airtable import check_publishing
from twm_pipeline.sync.drain import spool_of
from twm_pipeline.sync.engine import PassOptions
from twm_pipeline.sync.sample import SAMPLED, sample_vendor
from twm_pipeline.sync.window import Window, prepare
from twm_pipeline_tests.factories import make_envelope
from twm_pipeline_tests.publishing import airtable_at, airtable_settings, publish
from twm_pipeline_tests.sync.accounts import Account, Open


@pytest.fixture
def account(open_account: Open) -> Account:
    return open_account(tasks=40, conversations=16)


def read(account: Account, *sources: Source) -> None:
    """Read sources as a window does, until nothing is left."""
    for source in sources or SOURCES:
        Window(account.engine, account.settings, source, 0).run(PassOptions())


def found(account: Account, source: Source, **options: Any) -> list[Finding]:
    return check_source(account.engine, account.settings, source, **options)


def wrong(findings: list[Finding]) -> dict[str, str]:
    """Return asset, check and verdict of what is not in order."""
    return {f"{'/'.join(item.asset)} {item.check}": item.verdict for item in findings if item.verdict != "ok"}


def execute(account: Account, statement: str, **values: Any) -> None:
    with account.engine.begin() as connection:
        connection.execute(text(statement), values)


@pytest.mark.parametrize("source", SOURCES)
def test_a_true_copy_is_in_order_and_every_check_answers(account, source):
    read(account)

    findings = found(account, source)

    assert wrong(findings) == {}, [item.text for item in findings]
    assert sorted((item.asset, item.check) for item in findings) == sorted(checks_of(source))


def test_every_check_says_what_it_means():
    named = {name for origin in (*SOURCES, "airtable") for _, name in checks_of(origin)}

    assert named == set(MEANINGS)
    assert all(len(meaning) > 60 for meaning in MEANINGS.values())


def test_before_the_first_pass_the_checks_say_that_nothing_was_read(account):
    assert wrong(found(account, "missive", asks_vendor=False)) == {
        "missive/api source_is_read": "warning",
        **{
            f"missive/{stream} checkpoint_is_current": "warning"
            for stream in ("conversations", "shared_labels", "teams", "users")
        },
    }


def test_without_a_sample_no_vendor_is_asked(account):
    read(account, "teamwork")
    before = account.requests("teamwork")

    found(account, "teamwork", asks_vendor=False)

    assert account.requests("teamwork") == before


def test_an_ended_source_is_told_first_as_late_and_then_as_standing_still(account):
    read(account, "teamwork")
    execute(account, "UPDATE twm.sources SET last_success_at = now() - interval '15 minutes'")
    late = wrong(found(account, "teamwork", asks_vendor=False))
    execute(account, "UPDATE twm.sources SET last_success_at = now() - interval '45 minutes'")
    still = wrong(found(account, "teamwork", asks_vendor=False))

    assert late == {"teamwork/api source_is_read": "warning"}
    assert still == {"teamwork/api source_is_read": "error"}


def test_refused_credentials_are_told_in_the_words_of_the_last_error(account):
    read(account, "teamwork")
    locked_out = account.change(teamwork_api_key=SecretStr("revoked"))
    with pytest.raises(AuthenticationError):
        locked_out.sync("teamwork")
    execute(account, "UPDATE twm.sources SET last_success_at = now() - interval '45 minutes'")

    [reading] = [
        item for item in found(account, "teamwork", asks_vendor=False) if item.check == "source_is_read"
    ]

    assert reading.verdict == "error"
    assert "401" in reading.text
    assert "revoked" not in reading.text


def test_a_delivery_that_was_given_up_is_told(account):
    read(account, "teamwork")
    spool = spool_of(account.settings, "teamwork")
    spool.put([make_envelope(hint=Hint(event="TASK.UPDATED", stream="tasks", object_id="1"))])
    [entry] = spool.claim(limit=1)
    spool.fail(entry, "no use", most_attempts=1, first_wait_seconds=1)

    assert wrong(found(account, "teamwork", asks_vendor=False)) == {
        "teamwork/api deliveries_are_applied": "warning"
    }


def test_hooks_that_the_vendor_refused_are_told_where_hooks_are_wanted(account):
    read(account, "teamwork")
    with account.engine.begin() as connection:
        note_asked(connection, "teamwork", event="TASK.CREATED", url="https://x/hooks", proof=b"x")
        note_problem(connection, "teamwork", event="TASK.CREATED", status=REFUSED, problem="not allowed")
    public = account.change(public_url="https://x")

    assert wrong(found(public, "teamwork", asks_vendor=False)) == {"teamwork/api hooks_work": "warning"}
    assert wrong(found(account, "teamwork", asks_vendor=False)) == {}


@pytest.mark.parametrize("source", SOURCES)
def test_a_sample_of_a_true_copy_differs_in_nothing_and_costs_a_handful_of_requests(account, source):
    read(account, source)
    before = account.requests(source)

    found = sample_vendor(account.engine, account.settings, source)

    assert found.verdict == "ok"
    assert int(found.figures["looked_at"]) > 0
    assert found.figures["differed"] == 0
    assert account.requests(source) - before == int(found.figures["requests"]) <= 30


def test_a_sample_finds_rows_that_are_not_the_vendors_and_repairs_them(account):
    read(account, "teamwork")
    execute(account, "UPDATE teamwork.tasks SET title = 'wrong', content_hash = 'x', observed_seq = 1")

    first = sample_vendor(account.engine, account.settings, "teamwork")
    second = sample_vendor(account.engine, account.settings, "teamwork")

    assert first.verdict == "error"
    assert int(first.figures["differed"]) > 5
    assert (second.verdict, second.figures["differed"]) == ("ok", 0)
    assert account.scalar("SELECT count(*) FROM teamwork.tasks WHERE title = 'wrong' AND NOT deleted") == 0


def test_a_sample_finds_messages_that_are_missing_below_a_conversation(account):
    read(account, "missive")
    execute(account, "DELETE FROM missive.emails")

    found = sample_vendor(account.engine, account.settings, "missive")

    assert found.verdict == "error", found.text
    assert account.scalar("SELECT count(*) FROM missive.emails") > 0


def test_samples_take_others_each_time_until_all_had_their_turn(account, monkeypatch):
    monkeypatch.setattr("twm_pipeline.sync.sample.SAMPLED", {"missive": (SAMPLED["missive"][0], 4)})
    read(account, "missive")
    living = account.scalar(
        "SELECT count(*) FROM missive.conversations WHERE NOT deleted AND NOT inaccessible"
        " AND last_activity_at < now() - interval '1 hour'"
    )
    seen = []
    for _ in range(-(-living // 4)):
        before = len(account.control.requests("missive"))
        sample_vendor(account.engine, account.settings, "missive")
        seen += [
            row["path"].rsplit("/", 1)[-1]
            for row in account.control.requests("missive")[before:]
            if row["path"].count("/") == 2
        ]

    assert len({item for item in seen if item in account.ids_of("conversation")}) == living


def test_a_change_of_this_minute_is_the_next_polls_and_no_difference(account):
    read(account, "teamwork")
    for task_id in account.ids_of("task"):
        account.control.edit_task(task_id, priority="high")

    found = sample_vendor(account.engine, account.settings, "teamwork")

    assert found.verdict == "ok", found.text
    assert found.figures["differed"] == 0


def test_a_sample_says_nothing_about_how_the_source_is_doing(account):
    read(account, "teamwork")
    execute(
        account, "UPDATE twm.sources SET last_success_at = now() - interval '45 minutes', last_error = 'x'"
    )

    sample_vendor(account.engine, account.settings, "teamwork")

    assert "error" in wrong(found(account, "teamwork")).values()


def test_a_vendor_that_does_not_answer_is_a_warning_and_no_failed_check_run(account, monkeypatch):
    read(account, "teamwork")
    hasty = partial(VendorSession, attempts=1)
    monkeypatch.setattr("twm_pipeline.sync.engine.VendorSession", hasty)
    account.control.add_fault("teamwork", "503")

    found = sample_vendor(account.engine, account.settings, "teamwork")

    assert found.verdict == "warning"
    assert "could not be read" in found.text


def test_a_new_field_is_told_after_the_window_that_read_everything_first(account):
    read(account, "teamwork")
    execute(
        account, "UPDATE teamwork.tasks SET raw = raw || '{\"mood\": 3}', synced_at = now() + interval '1 s'"
    )

    findings = found(account, "teamwork", asks_vendor=False)

    assert wrong(findings) == {"teamwork/tasks fields_are_known": "warning"}
    assert any("mood (number, new)" in item.text for item in findings)


def test_deletions_that_wait_for_a_confirmation_are_told_with_how_to_confirm(account):
    read(account, "teamwork")
    execute(account, "UPDATE teamwork.tasks SET missing_since = now() - interval '1 hour'")

    findings = found(account, "teamwork", asks_vendor=False)

    assert wrong(findings) == {"teamwork/api deletions_are_believed": "warning"}
    assert any("twm reconcile teamwork --confirm-deletions" in item.text for item in findings)


@pytest.fixture
def published(account: Account) -> Account:
    """Return an account that is published to Airtable."""
    account = account.change(**airtable_settings(airtable_at(account.box.url)))
    prepare(account.engine, account.settings)
    read(account)
    publish(account.engine, account.settings)
    return account


def published_wrong(account: Account) -> dict[str, str]:
    return wrong(check_publishing(account.engine, account.settings))


def test_a_published_mirror_is_in_order(published):
    findings = check_publishing(published.engine, published.settings)

    assert wrong(findings) == {}, [item.text for item in findings]
    assert sorted((item.asset, item.check) for item in findings) == sorted(checks_of("airtable"))


def test_rows_without_a_record_are_told(published):
    execute(published, "UPDATE twm.published SET record_id = NULL WHERE view = 'emails'")

    assert published_wrong(published) == {"airtable/emails records_equal_rows": "warning"}


@pytest.mark.parametrize(
    ("age", "verdict"), [("5 minutes", None), ("20 minutes", "warning"), ("2 hours", "error")]
)
def test_changes_that_wait_for_long_are_told(published, age, verdict):
    execute(
        published,
        "INSERT INTO twm.change_log (view, row_id, changed_at)"
        " SELECT 'tasks', min(task_id)::text, now() - CAST(:age AS interval) FROM public.tasks",
        age=age,
    )

    assert published_wrong(published).get("airtable/tasks records_equal_rows") == verdict


def note_look(account: Account, *, age: str, **figures: Any) -> None:
    execute(
        account,
        "UPDATE twm.publications SET checked_at = now() - CAST(:age AS interval),"
        " check_found = CAST(:found AS jsonb) WHERE view = 'tasks'",
        age=age,
        found=json.dumps({"missing": 0, "different": 0, "doubled": []} | figures),
    )


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({"missing": 3, "different": 1}, "3 records were gone and 1 showed something else"),
        ({"doubled": ["7", "8"]}, "2 keys have several records, such as 7, 8: delete all but one of each"),
    ],
    ids=["changed by hand", "doubled"],
)
def test_what_the_last_look_at_the_base_found_is_told(published, figures, words):
    note_look(published, age="1 hour", **figures)

    findings = check_publishing(published.engine, published.settings)

    assert wrong(findings) == {"airtable/tasks records_equal_rows": "warning"}
    assert any(words in item.text for item in findings)


@pytest.mark.parametrize(("age", "verdict"), [("47 hours", None), ("49 hours", "warning")])
def test_a_base_that_is_looked_at_no_longer_is_told(published, age, verdict):
    note_look(published, age=age)

    assert published_wrong(published).get("airtable/tasks records_equal_rows") == verdict


def test_a_base_that_was_never_looked_at_is_told_two_days_after_it_was_first_published(published):
    execute(
        published, "UPDATE twm.published SET published_at = now() - interval '49 hours' WHERE view = 'tasks'"
    )

    assert published_wrong(published) == {"airtable/tasks records_equal_rows": "warning"}


def test_a_used_up_quota_is_wrong(published):
    execute(published, "UPDATE twm.monthly_calls SET exhausted_at = now()")

    assert published_wrong(published) == {"airtable/tasks quota_is_left": "error"}


FEEDS_REFUSED = {
    "time entries": ("teamwork", "time.json", "time_entries", {"time_entries"}),
    "comments of tasks": ("teamwork", "comments.json", "task_comments", {"task_comments"}),
    "a directory": ("teamwork", "people.json", "people", {"people"}),
    "a directory of Missive": ("missive", "shared_labels", "shared_labels", {"shared_labels"}),
    "the mailboxes": (
        "missive",
        "/conversations",
        "conversations emails",
        {"conversations", "emails", "comments"},
    ),
}


@pytest.mark.parametrize(
    ("source", "path", "stream", "stopped"), FEEDS_REFUSED.values(), ids=FEEDS_REFUSED.keys()
)
def test_what_is_refused_is_told_and_not_verified_until_it_is_read_again(
    account, source, path, stream, stopped
):
    read(account)
    account.control.add_fault(source, "403", path=path, count=None)
    account.sync(source, directories=True)
    refused = account.sync(source, directories=True, secondary=False)  # does not ask for feeds
    told = found(account, source, asks_vendor=False)
    account.control.clear_faults()
    back = account.sync(source, directories=True)

    assert (refused.stopped, back.stopped) == (stopped, set())
    assert wrong(told) == {f"{source}/{name} stream_is_readable": "warning" for name in stream.split()}
    assert any("403" in item.text and "not read any more" in item.text for item in told)
    assert wrong(found(account, source, asks_vendor=False)) == {}


@pytest.mark.parametrize(
    ("source", "path", "stream", "stopped"), FEEDS_REFUSED.values(), ids=FEEDS_REFUSED.keys()
)
def test_a_sweep_notes_what_is_refused_and_lifts_it_as_a_pass_does(account, source, path, stream, stopped):
    read(account)
    account.control.add_fault(source, "403", path=path, count=None)
    refused = account.reconcile(source)
    told = found(account, source, asks_vendor=False)
    account.control.clear_faults()
    back = account.reconcile(source)

    assert (refused.stopped, back.stopped) == (stopped, set())
    assert wrong(told) == {f"{source}/{name} stream_is_readable": "warning" for name in stream.split()}
    assert wrong(found(account, source, asks_vendor=False)) == {}


def test_what_was_never_readable_is_told_as_something_else_than_what_was_lost(account):
    account.control.add_fault("teamwork", "403", path="time.json", count=None)
    account.sync("teamwork")
    with account.engine.connect() as connection:
        [never] = read_refusals(connection, "teamwork")
    account.control.clear_faults()
    account.sync("teamwork")
    account.control.add_fault("teamwork", "403", path="time.json", count=None)
    account.sync("teamwork")
    with account.engine.connect() as connection:
        [lost] = read_refusals(connection, "teamwork")

    assert (never["is_lost"], lost["is_lost"]) == (False, True)
    assert lost["since"] > never["since"]
