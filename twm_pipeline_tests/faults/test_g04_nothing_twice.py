"""What is done twice changes nothing the second time: no row is rewritten, no Airtable call made (G4)."""

from __future__ import annotations

from twm_pipeline.mirror.changelog import follow_changes
from twm_pipeline.sync.engine import PassOptions
from twm_pipeline.sync.window import prepare
from twm_pipeline_tests.faults.hooked import deliver, drain, hooked, spools
from twm_pipeline_tests.faults.world import World
from twm_pipeline_tests.publishing import airtable_at, airtable_settings, publish

SECONDS_LATER = 10
"""What was read in the very second of its last activity is read once more."""


def read_everything_again(world):
    world.sync(options=PassOptions(full=True))


def read_chosen_objects_again(world):
    world.sync("teamwork", options=PassOptions(ids=tuple(map(str, world.ids("task")[:5]))))
    world.sync("missive", options=PassOptions(ids=tuple(world.ids("conversation")[:5])))


def set_up_again(world):
    prepare(world.engine, world.settings)


def test_work_that_is_done_again_rewrites_no_row(make_world):
    world = make_world(tasks=40, conversations=10)
    world.sync()
    world.control.random_changes(30, 1)
    world.settle()
    before = world.versions()

    for work in (World.sync, read_everything_again, read_chosen_objects_again, World.reconcile, set_up_again):
        work(world)
        assert world.versions() == before, work.__name__


def test_deliveries_that_come_again_rewrite_no_row(world):
    world.sync()
    with hooked(world) as told:
        told.control.random_changes(30, 2)
        deliver(told)
        batches = {
            spool: [spool.read(entry.name) for entry in spool.entries("new")] for spool in spools(told)
        }
        drain(told)
        told.control.advance(SECONDS_LATER)
        told.sync()
        before = told.versions()

        for spool, batch in batches.items():
            spool.put([envelope for envelope in batch if envelope is not None])
        drain(told)

    assert any(batches.values())
    assert told.versions() == before


def test_publishing_again_makes_no_call_that_writes(world):
    world.sync()
    world.settings = world.settings.model_copy(update=airtable_settings(airtable_at(world.control.url)))
    with world.engine.begin() as connection:
        follow_changes(connection, wanted=True)
    publish(world.engine, world.settings)
    world.control.wait_for_deliveries()
    world.control.reset_counters()

    world.sync()
    world.reconcile()
    publish(world.engine, world.settings)
    publish(world.engine, world.settings, check="whole")

    written = [row for row in world.control.requests("airtable") if row["method"] != "GET"]
    assert written == []
