"""The plan against a vendor in memory: from any state to the wanted one, without a moment in between."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twm_pipeline.mirror.hooks import ASKED, REFUSED, KnownHook
from twm_pipeline.sources.teamwork_hooks import ListedHook
from twm_pipeline.webhooks.plan import Action, Plan, Survey, WantedHook, plan_hooks, plan_removal

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
EVENTS = ("TASK.CREATED", "TASK.DELETED", "PROJECT.COPIED")
SECRET = "s3cret"
RIGHT, OTHER = b"right", b"other"
BASES = ("https://sync.example.com", "https://sync.example.com:443/", "https://old.example.com")


def url_of(event: str, base: str = BASES[0]) -> str:
    return f"{base.rstrip('/')}/hooks/teamwork/{event.lower().replace('.', '-')}"


def wanted_for(*events: str) -> list[WantedHook]:
    return [WantedHook(event=event, url=url_of(event), secret=SECRET, proof=RIGHT) for event in events]


def known(hook_id: str, event: str, base: str = BASES[0], **fields) -> KnownHook:
    values = {"proof": RIGHT, "status": "active", "checked_at": NOW, **fields}
    return KnownHook(hook_id=hook_id, event=event, url=url_of(event, base), **values)


def listed(hook_id: str, event: str, base: str = BASES[0], status: str = "ACTIVE") -> ListedHook:
    return ListedHook(hook_id=hook_id, event=event, url=url_of(event, base), status=status)


@dataclass
class World:
    """A vendor and a table, changed by actions as the real ones are."""

    wanted: list[WantedHook]
    table: dict[str, KnownHook]
    vendor: dict[str, ListedHook]
    ids: itertools.count[int] = field(default_factory=lambda: itertools.count(900))
    has_list: bool = True

    def plan(self, *, patient: bool = False, now: datetime = NOW) -> Plan:
        rows = list(self.vendor.values()) if self.has_list else None
        survey = Survey(wanted=self.wanted, known=list(self.table.values()), listed=rows)
        return plan_hooks(survey, now=now, patient=patient)

    def do(self, action: Action) -> None:
        match action.verb:
            case "create":
                assert action.wanted is not None
                hook_id = str(next(self.ids))
                self.vendor[hook_id] = ListedHook(hook_id=hook_id, event=action.event, url=action.wanted.url)
                self.table.pop(f"open {action.event}", None)
                self._store(hook_id, action.event, action.wanted.url, RIGHT)
            case "resume":
                hook = self.vendor[action.hook_id]
                self.vendor[hook.hook_id] = ListedHook(hook_id=hook.hook_id, event=hook.event, url=hook.url)
            case "delete":
                self.vendor.pop(action.hook_id, None)
                self.table.pop(action.hook_id, None)
            case "adopt":
                self._store(action.hook_id, action.event, action.url, action.proof)
            case "forget":
                self.table.pop(action.hook_id, None)

    def _store(self, hook_id: str, event: str, url: str, proof: bytes | None) -> None:
        self.table[hook_id] = KnownHook(
            hook_id=hook_id, event=event, url=url, proof=proof, status="active", checked_at=NOW
        )

    def events(self, *, besides: Collection[str]) -> set[str]:
        return {hook.event for hook in self.vendor.values() if hook.hook_id not in besides}


ids = st.sampled_from([str(number) for number in range(1, 9)])
hooks = st.builds(
    listed,
    ids,
    st.sampled_from(EVENTS),
    st.sampled_from(BASES),
    st.sampled_from(["ACTIVE", "INACTIVE", "PAUSED"]),
)
foreign_hooks = st.builds(
    lambda number, event: ListedHook(hook_id=str(number), event=event, url="https://hooks.example.org/x"),
    st.integers(100, 110),
    st.sampled_from(EVENTS),
)
rows = st.builds(
    lambda hook_id, event, base, proof: known(hook_id, event, base, proof=proof),
    ids,
    st.sampled_from(EVENTS),
    st.sampled_from(BASES),
    st.sampled_from([RIGHT, OTHER, None]),
)
open_rows = st.builds(
    lambda event, base, proof, status, attempts: known(
        f"open {event}", event, base, proof=proof, status=status, attempts=attempts
    ),
    st.sampled_from(EVENTS),
    st.sampled_from(BASES),
    st.sampled_from([RIGHT, OTHER]),
    st.sampled_from([ASKED, REFUSED]),
    st.integers(1, 40),
)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    at_vendor = draw(st.lists(st.one_of(hooks, foreign_hooks), max_size=10, unique_by=lambda h: h.hook_id))
    # Rows of hooks that exist, and rows of hooks that somebody deleted or changed since.
    stored = [known(h.hook_id, h.event, proof=draw(st.sampled_from([RIGHT, OTHER, None]))) for h in at_vendor]
    table = draw(st.lists(st.one_of(rows, open_rows, st.sampled_from(stored or [known("1", EVENTS[0])]))))
    return World(
        wanted=wanted_for(*draw(st.sampled_from([EVENTS, EVENTS[:2]]))),
        table={row.hook_id: row for row in table},
        vendor={hook.hook_id: hook for hook in at_vendor},
        has_list=draw(st.booleans()),
    )


@given(worlds())
def test_any_state_becomes_the_wanted_one_and_stays(world):
    if not world.has_list:  # what is stored is all that is known
        stored = [row for row in world.table.values() if not row.is_open]
        world.vendor = {r.hook_id: ListedHook(hook_id=r.hook_id, event=r.event, url=r.url) for r in stored}
    foreign = {hook.hook_id: hook for hook in world.plan().foreign}
    wanted = {hook.event for hook in world.wanted}
    served = world.events(besides=foreign) & wanted

    for action in world.plan().actions:
        world.do(action)
        assert served <= world.events(besides=foreign)

    assert world.plan().actions == []
    assert {key: world.vendor[key] for key in foreign} == foreign
    ours = [hook for hook in world.vendor.values() if hook.hook_id not in foreign]
    assert sorted(hook.event for hook in ours) == sorted(wanted)
    assert {hook.status for hook in ours} <= {"ACTIVE"}
    assert {row.proof for row in world.table.values()} <= {RIGHT}
    assert world.table.keys() == {hook.hook_id for hook in ours}


@given(worlds(), st.data())
def test_a_run_that_ends_anywhere_is_finished_by_the_next_one(world, data):
    world.has_list = True
    foreign = {hook.hook_id for hook in world.plan().foreign}
    actions = world.plan().actions
    for action in actions[: data.draw(st.integers(0, len(actions)))]:
        world.do(action)

    for action in world.plan().actions:
        world.do(action)

    assert world.plan().actions == []
    assert {hook.hook_id for hook in world.plan().foreign} == foreign


@given(worlds())
def test_removal_leaves_nothing_but_what_is_foreign(world):
    world.has_list = True
    survey = Survey(wanted=world.wanted, known=list(world.table.values()), listed=list(world.vendor.values()))
    plan = plan_removal(survey)

    for action in plan.actions:
        world.do(action)

    assert list(world.vendor.values()) == plan.foreign
    assert world.table == {}


def verbs(plan: Plan) -> list[str]:
    return [f"{action.verb} {action.hook_id}".strip() for action in plan.actions]


def world_of(vendor: list[ListedHook], table: list[KnownHook], **fields) -> World:
    return World(
        wanted=wanted_for("TASK.CREATED"),
        table={row.hook_id: row for row in table},
        vendor={hook.hook_id: hook for hook in vendor},
        **fields,
    )


TASK = "TASK.CREATED"


@pytest.mark.parametrize(
    ("vendor", "table", "expected", "why"),
    [
        ([], [], ["create"], "was missing"),
        ([listed("1", TASK)], [known("1", TASK)], [], ""),
        ([listed("1", TASK, status="INACTIVE")], [known("1", TASK)], ["resume 1"], "was switched off"),
        ([], [known("1", TASK)], ["forget 1", "create"], "was missing"),
        (
            [listed("1", TASK, BASES[2])],
            [known("1", TASK, BASES[2])],
            ["create", "delete 1"],
            "had another address",
        ),
        (
            [listed("1", TASK)],
            [known("1", TASK, proof=OTHER)],
            ["create", "delete 1"],
            "had another token",
        ),
        ([listed("1", TASK)], [], ["adopt 1", "create", "delete 1"], "had a token that is not known"),
        (
            [listed("1", TASK)],
            [known("open TASK.CREATED", TASK, status=ASKED)],
            ["adopt 1", "forget open TASK.CREATED"],
            "",
        ),
        (
            [listed("2", TASK), listed("1", TASK)],
            [known("1", TASK), known("2", TASK)],
            ["delete 2"],
            "was a double",
        ),
        (
            [listed("1", TASK, status="INACTIVE"), listed("2", TASK)],
            [known("1", TASK), known("2", TASK)],
            ["delete 1"],
            "was a double",
        ),
        ([listed("1", TASK, BASES[2])], [], ["create"], "was missing"),
        ([listed("1", TASK, BASES[1])], [known("1", TASK)], [], ""),
    ],
    ids=[
        *(
            "missing",
            "right",
            "switched off",
            "deleted by somebody",
            "moved",
            "another token",
            "unknown token",
        ),
        *("unanswered creation", "double", "double of an inactive one", "foreign", "another spelling"),
    ],
)
def test_each_fault_has_its_repair(vendor, table, expected, why):
    plan = world_of(vendor, table).plan()

    assert verbs(plan) == expected
    assert all(action.why == why for action in plan.actions if action.verb not in ("adopt", "forget"))


def test_a_hook_that_somebody_turned_elsewhere_is_not_ours_any_more():
    world = world_of(
        [ListedHook(hook_id="1", event=TASK, url="https://x.example.org/in")], [known("1", TASK)]
    )

    assert verbs(world.plan()) == ["forget 1", "create"]
    assert [hook.hook_id for hook in world.plan().foreign] == ["1"]


@pytest.mark.parametrize(
    ("status", "has_list", "waits"),
    [(REFUSED, True, True), (REFUSED, False, True), (ASKED, False, True), (ASKED, True, False)],
)
def test_a_creation_that_failed_waits_unless_somebody_asks_for_it(status, has_list, waits):
    world = world_of([], [known("open TASK.CREATED", TASK, status=status, attempts=1)], has_list=has_list)

    plan = world.plan(patient=True, now=NOW + timedelta(minutes=59))

    assert (plan.actions == []) is waits
    assert bool(plan.put_off) is waits
    assert verbs(world.plan(patient=True, now=NOW + timedelta(minutes=61))) == ["create"]
    assert verbs(world.plan(patient=False)) == ["create"]


def test_waits_grow_to_a_day():
    world = world_of([], [known("open TASK.CREATED", TASK, status=REFUSED, attempts=30)])

    assert world.plan(patient=True, now=NOW + timedelta(hours=23)).put_off
    assert not world.plan(patient=True, now=NOW + timedelta(hours=25)).put_off


def test_a_creation_of_before_the_clock_was_set_back_is_tried_again():
    world = world_of([], [known("open TASK.CREATED", TASK, status=REFUSED, attempts=1)])

    assert not world.plan(patient=True, now=NOW - timedelta(days=30)).put_off


def test_while_a_creation_waits_the_old_hook_stays():
    table = [known("1", TASK, BASES[2]), known("open TASK.CREATED", TASK, status=REFUSED, attempts=1)]
    world = world_of([listed("1", TASK, BASES[2])], table)

    assert world.plan(patient=True).actions == []


def test_a_repr_shows_no_secret():
    assert SECRET not in repr(WantedHook(event=TASK, url="https://x", secret=SECRET, proof=b""))
