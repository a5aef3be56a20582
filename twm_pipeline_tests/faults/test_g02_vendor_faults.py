"""Whatever a vendor answers in between: a clean pass and a reconcile bring the truth (G2, G3, G7)."""

from contextlib import suppress

import pytest

from twm_pipeline.errors import TwmError
from twm_pipeline.mirror.set_aside import SetAside, hurry_set_aside, set_aside
from twm_pipeline.sandbox import FAULT_KINDS

SOURCES = ("teamwork", "missive")
FAULTS = [
    (source, kind)
    for source in SOURCES
    for kind in FAULT_KINDS
    if (source, kind) != ("missive", "missing_included")  # Missive side-loads nothing
]
FEW = {"429": 3, "stall": 3}
"""How often those show that cost real time."""
SHARE = 0.25


def add_fault(world, source, kind):
    world.control.add_fault(
        source,
        kind,
        count=FEW.get(kind),
        probability=1.0 if kind in FEW else SHARE,
        after=3 if kind in FEW else 0,
        retry_after="seconds",
        seconds=1.0,
    )


@pytest.mark.parametrize(("source", "kind"), FAULTS)
def test_a_fault_during_import_and_edits_leaves_no_trace(make_world, source, kind):
    world = make_world(tasks=40, conversations=12)
    add_fault(world, source, kind)

    world.insist(source)
    world.control.random_changes(40, 1, source)
    world.insist(source)
    world.settle(source)

    assert world.control.status()["vendors"][source]["faults"] > 0
    world.assert_true(source)


@pytest.mark.parametrize(("source", "kind"), FAULTS)
def test_nothing_known_is_lost_or_called_deleted_by_a_fault(make_world, source, kind):
    world = make_world(tasks=40, conversations=12)
    world.sync(source)
    tables = ("teamwork.tasks", "teamwork.projects") if source == "teamwork" else ("missive.emails",)
    query = " + ".join(
        f"(SELECT count(*) FROM {name} WHERE NOT deleted AND NOT inaccessible)" for name in tables
    )
    living = world.scalar(f"SELECT {query}")
    add_fault(world, source, kind)

    for _ in range(2):
        world.insist(source)
        world.control.advance(601)

    assert world.scalar(f"SELECT {query}") == living


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("kind", ["500", "html_404", "empty_page", "truncated", "repeated_page"])
def test_a_fault_during_a_reconcile_calls_nothing_deleted(make_world, source, kind):
    world = make_world(tasks=40, conversations=12)
    world.sync(source)
    add_fault(world, source, kind)

    for _ in range(3):
        with suppress(TwmError):  # whatever stopped it must not have done harm
            world.reconcile(source)
        world.control.advance(601)

    tables = ("teamwork.tasks",) if source == "teamwork" else ("missive.emails", "missive.comments")
    for table in tables:
        assert world.scalar(f"SELECT count(*) FROM {table} WHERE deleted_evidence = 'absence'") == 0
    world.settle(source)
    world.assert_true(source)


@pytest.mark.parametrize("seed", range(4))
def test_a_shorter_list_of_messages_than_the_conversation_says_is_not_believed_at_once(make_world, seed):
    world = make_world(tasks=1, conversations=25, seed=seed)
    world.control.add_fault(
        "missive", "repeated_page", count=None, probability=0.3, path="/conversations/.*/messages"
    )

    world.insist("missive")
    world.control.clear_faults()
    world.sync("missive")

    missing = [line for line in world.differences("missive") if line.startswith("message ")]
    assert missing == []


def test_a_body_spoiled_when_it_is_read_once_more_does_not_stay(world):
    """After a merge the list is the same and the bodies are read again: one of them is wrong then."""
    world.sync("missive")
    gone, kept = world.ids("conversation", lambda row: row["visible"] and len(row["message_ids"]) > 1)[:2]
    world.control.merge(gone, kept)
    world.control.advance(5)
    world.control.add_fault("missive", "future_row", path="/messages/")
    world.sync("missive")

    world.settle("missive")

    assert world.control.status()["vendors"]["missive"]["faults"] == 1
    world.assert_true("missive")


def test_a_message_set_aside_too_late_is_not_set_aside_for_ever(world):
    """One reader stored it, and another one, whose answer was spoiled, was slower."""
    world.sync("missive")
    (message_id,) = next(
        row["message_ids"]
        for row in world.control.truth("conversation")
        if len(row["message_ids"]) == 1 and row["visible"] and not row["guest"]
    )
    problem = SetAside(stream="emails", object_id=message_id, reason="delivered_at: expected a number")
    with world.engine.begin() as connection:
        set_aside(connection, "missive", [problem])
        hurry_set_aside(connection, "missive", "emails", message_id)

    world.sync("missive")

    world.assert_true("missive")
