"""Two processes that do the same work at once end in the same state as one (G6)."""

import pytest

from twm_pipeline_tests.faults import worker


@pytest.mark.parametrize("source", ["teamwork", "missive"])
def test_two_processes_that_import_the_same_end_as_one(make_world, source):
    world = make_world(tasks=600, conversations=60, answers={"teamwork.max_page_size": 50})

    both = [worker.start(world.settings, source) for _ in range(2)]
    for process in both:
        worker.finish(process)
    world.sync(source)

    world.assert_true(source)


def test_two_processes_that_follow_edits_end_as_one(make_world):
    world = make_world(tasks=200, conversations=40)
    world.sync()

    for seed in range(2):
        both = [worker.start(world.settings, "teamwork", "missive") for _ in range(2)]
        world.control.random_changes(40, seed)
        for process in both:
            worker.finish(process)
    world.settle()

    world.assert_true()
