"""Whatever happens in whatever order, a clean pass and a reconcile bring the truth (G2, G3, G4, G6, G9).

Hypothesis makes up histories: what people do, how deliveries travel, what the vendors answer, which processes
die, when PostgreSQL drops everybody. A short one in every run; many long ones with TWM_WHOLE_STORM=1, and
of those that end in an untruth the shortest.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from twm_pipeline.db import open_engine
from twm_pipeline.errors import TwmError
from twm_pipeline.records import SOURCES
from twm_pipeline.sandbox import FAULT_KINDS, Sandbox, SandboxError, SandboxOptions
from twm_pipeline.sync.engine import PassOptions
from twm_pipeline_tests.faults.hooked import deliver, drain, hooked, waiting
from twm_pipeline_tests.faults.mortal import Nursery
from twm_pipeline_tests.faults.test_g03_kills import Reaper
from twm_pipeline_tests.faults.test_g03_postgresql import drop_connections
from twm_pipeline_tests.faults.wire import Wire
from twm_pipeline_tests.faults.world import World, dsn_secret, settings_for

WHOLE = "TWM_WHOLE_STORM" in os.environ
EXAMPLES, STEPS = (300, 40) if WHOLE else (1, 7)
HOURS = 3600
MOVES = tuple(f"teamwork.{kind}_bumps_updated_at" for kind in ("delete", "restore", "tag", "move"))
PLACES = st.integers(0, 1 << 20)
sources = st.sampled_from(SOURCES)

MakeWorld = Callable[[ExitStack], World]


class Histories(RuleBasedStateMachine):
    """One deployment from its first import on."""

    make: MakeWorld
    nursery: Nursery

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.world = self.stack.enter_context(hooked(self.make(self.stack)))
        self.control = self.world.control
        self.faulty = False

    def teardown(self) -> None:
        with self.stack:
            self.everything_settles()

    # -- the world ---------------------------------------------------------------------------------------

    @rule(count=st.integers(1, 25), seed=PLACES)
    def people_work(self, count: int, seed: int) -> None:
        self.control.random_changes(count, seed)

    @rule(place=PLACES, accessible=st.booleans())
    def somebody_shares_or_hides(self, place: int, accessible: bool) -> None:
        threads = self.world.ids("conversation")
        projects = self.world.ids("project", lambda row: row["deleted_at"] is None)
        self.control.set_conversation_access(threads[place % len(threads)], accessible=accessible)
        self.control.set_project_access(projects[place % len(projects)], accessible=accessible)

    @rule(kind=st.sampled_from(["conversation", "message", "tasklist", "tag", "person"]), place=PLACES)
    def something_is_deleted_without_a_word(self, kind: str, place: int) -> None:
        if ids := self.world.ids(kind):
            with contextlib.suppress(SandboxError):  # it is deleted already, or the key's own
                getattr(self.control, f"delete_{kind}")(ids[place % len(ids)])

    @rule(seconds=st.sampled_from([1, 60, 700, HOURS, 30 * 24 * HOURS]))
    def time_passes(self, seconds: int) -> None:
        self.control.advance(seconds)

    @rule(name=st.sampled_from(MOVES), value=st.booleans())
    def the_vendor_changes_its_ways(self, name: str, value: bool) -> None:
        self.control.set_answer(name, value)

    # -- what breaks -------------------------------------------------------------------------------------

    @rule(source=sources, kind=st.sampled_from([*FAULT_KINDS]), share=st.sampled_from([0.1, 0.5]))
    def the_vendor_answers_wrongly(self, source: str, kind: str, share: float) -> None:
        self.control.add_fault(source, kind, count=10, probability=share, seconds=0.6, retry_after="seconds")
        self.faulty = True

    @precondition(lambda self: self.faulty)
    @rule()
    def the_vendor_recovers(self) -> None:
        self.control.clear_faults()
        self.faulty = False

    @rule(share=st.sampled_from([0.0, 0.3, 1.0]), double=st.sampled_from([0.0, 0.5]))
    def the_weather_changes(self, share: float, double: float) -> None:
        self.control.set_deliveries(drop=share, double=double, reorder=0.3, seed=1)

    @rule()
    def postgresql_drops_everybody(self) -> None:
        drop_connections(self.world)

    # -- what the product does ---------------------------------------------------------------------------

    @rule(source=sources)
    def a_pass_runs(self, source: Any) -> None:
        with contextlib.suppress(TwmError):
            self.world.sync(source)

    @rule(source=sources, full=st.booleans())
    def everything_is_read_again(self, source: Any, full: bool) -> None:
        with contextlib.suppress(TwmError):
            self.world.sync(source, options=PassOptions(full=full, secondary=not full))

    @rule(source=sources)
    def a_reconcile_runs(self, source: Any) -> None:
        with contextlib.suppress(TwmError):
            self.world.reconcile(source)

    @rule(source=sources, statement=st.integers(0, 60))
    def a_pass_is_killed(self, source: Any, statement: int) -> None:
        reaper = Reaper(self.nursery, at=statement)
        wire = Wire(self.world.engine.url, before=reaper.before, after=reaper.after)
        with wire.open() as url:
            settings = self.world.settings.model_copy(update={"pg_dsn": dsn_secret(url)})
            self.nursery.start(settings, source)
            self.nursery.ended()

    @rule(source=sources)
    def deliveries_are_applied(self, source: Any) -> None:
        deliver(self.world)
        with contextlib.suppress(TwmError):
            drain(self.world, source)

    # -- what has to be true -----------------------------------------------------------------------------

    @invariant()
    def checkpoints_are_honest(self) -> None:
        if not self.faulty:  # what is set aside counts as stored
            self.world.assert_checkpoints_are_honest()

    @rule()
    def everything_settles(self) -> None:
        self.the_vendor_recovers()
        deliver(self.world)
        self.world.settle()
        self.world.assert_true()
        assert waiting(self.world) == 0
        before = self.world.versions()
        self.world.sync()
        assert self.world.versions() == before


@pytest.fixture
def make(server, template_database, tmp_path) -> MakeWorld:
    """Return what makes a small world of its own, which ends with the stack."""

    def make(stack: ExitStack) -> World:
        name = f"history_{uuid.uuid4().hex}"
        with server.connect() as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template_database}".encode())
        stack.callback(drop, name)
        engine = open_engine(server.url(name))
        stack.callback(engine.dispose)
        box = stack.enter_context(Sandbox(SandboxOptions(tasks=30, conversations=8)))
        settings = settings_for(box, server.url(name), tmp_path / name)
        return World(control=box.control, engine=engine, settings=settings)

    def drop(name: str) -> None:
        with server.connect() as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

    return make


@pytest.mark.timeout(0 if WHOLE else 300)
def test_every_history_ends_in_the_truth(make, nursery):
    machine = type("OneWorld", (Histories,), {"make": staticmethod(make), "nursery": nursery})
    phases = [*hypothesis.Phase] if WHOLE else [hypothesis.Phase.generate]

    run_state_machine_as_test(
        machine,
        settings=hypothesis.settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            phases=phases,
            suppress_health_check=[*hypothesis.HealthCheck],
        ),
    )
