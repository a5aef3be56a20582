"""Whatever happens to a spool, in whatever order: nothing is lost, doubled or changed (G6, D7)."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from twm_pipeline.records import Hint
from twm_pipeline.spool import PLACES, Entry, Spool
from twm_pipeline.spool.entries import LONGEST_WAIT_SECONDS
from twm_pipeline_tests.factories import MORNING, make_envelope
from twm_pipeline_tests.spools import MOST_ATTEMPTS, Clock, fail, take


def _moment(microseconds: int) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=microseconds)


@given(
    envelope=st.builds(
        make_envelope,
        hint=st.builds(
            Hint,
            event=st.text(),
            stream=st.none() | st.sampled_from(["tasks", "projects"]),
            object_id=st.none() | st.text(),
        ),
        received_at=st.integers(0, 7_000_000_000_000_000).map(_moment),
        headers=st.dictionaries(st.text(), st.text()),
        body=st.binary(),
    )
)
@settings(max_examples=50)
def test_any_envelope_comes_back_whole(envelope):
    folder = Path(tempfile.mkdtemp())
    try:
        spool = Spool(folder, "teamwork")
        spool.put([envelope])

        assert take(spool).envelope == envelope
    finally:
        shutil.rmtree(folder)


@dataclass
class Known:
    """What the test knows of an entry."""

    body: bytes
    received_at: datetime
    attempts: int = 0
    place: str = "new"
    due: float = 0.0
    entry: Entry | None = field(default=None, repr=False)


class Deliveries(RuleBasedStateMachine):
    """Puts, claims, failures, crashes and clocks that jump; after each step the disk is what it should be."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.clock = Clock()
        self.received = 0
        self.known: dict[str, Known] = {}

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @initialize()
    def open(self) -> None:
        self.spool = Spool(self.folder, "teamwork", clock=self.clock)

    @rule(bodies=st.lists(st.binary(max_size=20), max_size=4))
    def put(self, bodies):
        envelopes = []
        for body in bodies:
            self.received += 1
            moment = MORNING + timedelta(seconds=self.received)
            envelopes.append(make_envelope(received_at=moment, body=body))
        for name, envelope in zip(self.spool.put(envelopes), envelopes, strict=True):
            self.known[name.split(".")[1]] = Known(envelope.body, envelope.received_at)

    @rule(limit=st.integers(0, 4), retries=st.booleans())
    def claim(self, limit, retries):
        fresh = sorted((k.received_at, i) for i, k in self.known.items() if k.place == "new")
        now = self.clock.now
        due = sorted(
            (k.due, k.received_at, i)
            for i, k in self.known.items()
            if k.place == "retry" and (k.due <= now or k.due > now + LONGEST_WAIT_SECONDS)
        )
        expected = [item[-1] for item in (fresh + due if retries else fresh)][:limit]

        entries = self.spool.claim(limit=limit, retries=retries)

        assert [entry.name.split(".")[1] for entry in entries] == expected
        for entry in entries:
            known = self.known[entry.name.split(".")[1]]
            assert (entry.envelope.body, entry.attempts) == (known.body, known.attempts)
            known.place, known.entry = "cur", entry

    def pick(self, data: st.DataObject, *where: str) -> tuple[str, Known]:
        found: list[tuple[str, Known]] = [(i, k) for i, k in self.known.items() if k.place in where]
        return data.draw(st.sampled_from(found))

    def held(self, known: Known) -> Entry:
        assert known.entry is not None
        return known.entry

    def holds(self) -> bool:
        return any(k.place == "cur" for k in self.known.values())

    @precondition(holds)
    @rule(data=st.data())
    def done(self, data):
        key, known = self.pick(data, "cur")
        self.spool.done(self.held(known))
        del self.known[key]

    @precondition(holds)
    @rule(data=st.data())
    def release(self, data):
        _, known = self.pick(data, "cur")
        self.spool.release(self.held(known))
        known.place = "new"

    @precondition(holds)
    @rule(data=st.data(), wait=st.sampled_from([1.0, 60.0, 80_000.0]))
    def fail(self, data, wait):
        _, known = self.pick(data, "cur")
        dead = fail(self.spool, self.held(known), first_wait_seconds=wait)
        known.attempts += 1
        known.place = "dead" if dead else "retry"
        known.due = (
            int((self.clock.now + min(wait * 2 ** (known.attempts - 1), LONGEST_WAIT_SECONDS)) * 1000) / 1000
        )
        assert dead == (known.attempts >= MOST_ATTEMPTS)

    @rule()
    def die_and_begin_again(self):
        self.open()
        held = [k for k in self.known.values() if k.place == "cur"]
        assert self.spool.take_back() == len(held)
        for known in held:
            known.place = "new"

    @rule(seconds=st.sampled_from([1.0, 61.0, 3600.0, 100_000.0, -61.0, -100_000.0]))
    def move_the_clock(self, seconds):
        self.clock.now += seconds

    @rule()
    def sweep(self):
        assert self.spool.sweep() == 0

    @precondition(lambda self: any(k.place in ("retry", "dead") for k in self.known.values()))
    @rule(data=st.data())
    def retry(self, data):
        key, known = self.pick(data, "retry", "dead")
        assert self.spool.retry(next(item.name for item in self.spool.entries() if item.id == key))
        known.place, known.attempts = "new", 0

    @precondition(lambda self: bool(self.known))
    @rule(data=st.data())
    def discard(self, data):
        key, _ = self.pick(data, *PLACES)
        assert self.spool.discard(next(item.name for item in self.spool.entries() if item.id == key))
        del self.known[key]

    @invariant()
    def every_entry_is_in_exactly_one_place_with_what_was_put(self):
        if not hasattr(self, "spool"):
            return
        listed = self.spool.entries()
        assert sorted((item.id, item.place, item.attempts) for item in listed) == sorted(
            (key, known.place, known.attempts) for key, known in self.known.items()
        )
        for item in listed:
            found = self.spool.read(item.name)
            assert found is not None
            assert found.body == self.known[item.id].body
            assert (self.spool.reason(item.name) is not None) == (item.place in ("retry", "dead"))

    @invariant()
    def waiting_counts_what_lies_there(self):
        if not hasattr(self, "spool"):
            return
        waiting = self.spool.waiting()
        lying = [known.place for known in self.known.values()]
        assert (waiting.new, waiting.held, waiting.due + waiting.later, waiting.dead) == tuple(
            lying.count(place) for place in PLACES
        )


TestDeliveries = Deliveries.TestCase
TestDeliveries.settings = settings(stateful_step_count=40)
