"""The mirror is right under every answer to every question that the vendors' documentation leaves open.

All answers in a few worlds in every run; each by itself with TWM_WHOLE_DATA=1.
"""

import os

import pytest

from twm_pipeline.sandbox import ALL_ANSWERS

ABOUT_DELIVERIES = ("hook", "event", "deletion_id", "fires")
"""Words in the names of switches that change nothing of what is read."""
OTHERS = [
    (name, value)
    for name, values in ALL_ANSWERS.items()
    for value in values[1:]
    if not name.startswith("airtable.") and not any(word in name for word in ABOUT_DELIVERIES)
]
WORLDS = [
    {name: values[min(place, len(values) - 1)] for name, values in ALL_ANSWERS.items()}
    for place in range(1, max(len(ALL_ANSWERS[name]) for name, _ in OTHERS))
]
"""Together they give every answer that is not a default."""


def live_through(world, *sources):
    """Import, then edits of every kind, some of which nobody is told of."""
    world.sync(*sources)
    before = world.versions()
    world.sync(*sources)
    world.reconcile(*sources)
    assert world.versions() == before, "a second reading wrote something"
    world.control.random_changes(60, 1, sources[0] if len(sources) == 1 else None)
    world.sync(*sources)
    world.settle(*sources)


@pytest.mark.skipif("TWM_WHOLE_DATA" not in os.environ, reason="takes minutes; TWM_WHOLE_DATA=1 runs it")
@pytest.mark.parametrize(("name", "value"), OTHERS, ids=str)
def test_each_answer_by_itself(make_world, name, value):
    source = name.partition(".")[0]
    world = make_world(tasks=60, conversations=12, answers={name: value})

    live_through(world, source)

    world.assert_true(source)


@pytest.mark.parametrize("answers", WORLDS, ids=range(len(WORLDS)))
@pytest.mark.parametrize("source", ["teamwork", "missive"])
def test_all_other_answers_at_once(make_world, source, answers):
    world = make_world(tasks=120, conversations=30, answers=answers)

    live_through(world, source)

    world.assert_true(source)
