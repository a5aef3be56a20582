"""Shared labels, users and teams are read completely, and go only when two readings lack them."""

from __future__ import annotations

import pytest

from twm_pipeline_tests.faults.world import dsn_of
from twm_pipeline_tests.sync.accounts import Account
from twm_pipeline_tests.truth.compare_truth import differences

BEAT_SECONDS = 7200
DIRECTORIES = frozenset({"shared_labels", "users", "teams"})


def read_again(account: Account) -> None:
    account.control.advance(BEAT_SECONDS)
    account.sync("missive", streams=DIRECTORIES, directories=True)


def labels(account: Account) -> dict[str, bool]:
    return {row.id: row.deleted for row in account.query("SELECT id, deleted FROM missive.shared_labels")}


def test_labels_come_with_the_labels_they_lie_in(account):
    outer = account.control.create_label("Projects")
    inner = account.control.create_label("Berlin, East", parent=outer)

    account.sync("missive")

    found = account.query(
        "SELECT parent_id, full_name FROM missive.shared_labels WHERE id = ANY(:ids) ORDER BY name",
        ids=[outer, inner],
    )
    assert [tuple(row) for row in found] == [(outer, "Projects/Berlin, East"), (None, "Projects")]
    assert differences(account.control.truth(), dsn_of(account.engine.url), sources=["missive"]) == []


def test_a_pass_before_the_beat_does_not_ask_for_them(account):
    account.sync("missive")
    account.control.reset_counters()

    account.sync("missive")

    asked = {request["path"].rsplit("/", 1)[-1] for request in account.control.requests("missive")}
    assert asked.isdisjoint(DIRECTORIES)


def test_names_that_changed_arrive_with_the_next_beat(account):
    account.sync("missive")
    user = next(row["id"] for row in account.control.truth("user"))
    label = next(row["id"] for row in account.control.truth("label"))
    account.control.rename_user(user, "Anna Berg")
    account.control.rename_label(label, "Offers")

    account.control.advance(BEAT_SECONDS)
    account.sync("missive")

    assert account.scalar("SELECT name FROM missive.users WHERE id = :id", id=user) == "Anna Berg"
    assert account.scalar("SELECT name FROM missive.shared_labels WHERE id = :id", id=label) == "Offers"


def test_a_label_is_gone_when_two_readings_lack_it_and_back_when_it_is_seen(account):
    label = account.control.create_label("Short-lived")
    account.sync("missive")
    account.control.delete_label(label)

    read_again(account)
    after_one = labels(account)[label]
    read_again(account)
    after_two = labels(account)[label]

    assert (after_one, after_two) == (False, True)


@pytest.mark.parametrize("kind", ["empty_page", "malformed_row"])
def test_a_spoiled_answer_takes_no_label_away(account, kind):
    account.sync("missive")
    before = labels(account)

    for _ in range(2):
        account.control.add_fault("missive", kind, path="shared_labels", count=1)
        read_again(account)

    assert labels(account) == before


def test_many_labels_that_vanish_at_once_wait_for_a_word(account):
    made = [account.control.create_label(f"Label {number}") for number in range(30)]
    account.sync("missive")
    for label in made:
        account.control.delete_label(label)

    read_again(account)
    account.control.advance(BEAT_SECONDS)
    report = account.sync("missive", streams=DIRECTORIES, directories=True)

    assert [text.split(":")[0] for text in report.held_deletions] == ["missive/shared_labels"]
    assert not any(labels(account)[label] for label in made)


def test_a_list_of_several_pages_is_read_until_two_reads_agree(account):
    for number in range(205):
        account.control.create_label(f"Label {number}")

    account.sync("missive")

    assert set(labels(account)) == {row["id"] for row in account.control.truth("label")}


def test_a_token_that_may_not_read_labels_reads_everything_else(account):
    account.control.add_fault("missive", "403", path="shared_labels")

    report = account.sync("missive")

    assert any("403" in problem for problem in report.problems)
    assert account.scalar("SELECT count(*) FROM missive.users") > 0
