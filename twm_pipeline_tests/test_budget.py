"""One budget for all threads, processes and machines that talk to a vendor account."""

import json
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta

import pytest
from sqlalchemy import URL, Engine, text

from twm_pipeline.budget import HISTORY_SHARE, LEASE_LOCK, MARGIN_SECONDS, Budget, Limit, Plan
from twm_pipeline.db import open_engine
from twm_pipeline.errors import DatabaseUnavailableError, WindowClosedError
from twm_pipeline_tests.clocks import set_clock_back

NEVER_REACHED = Plan(account="vendor", limits=(Limit(1000, 60),))


class WaitedError(Exception):
    """Raised instead of sleeping."""


def refuse_to_wait(seconds: float) -> None:
    raise WaitedError(seconds)


def plan(*limits: tuple[int, float], concurrency: int = 0, adapts: bool = False) -> Plan:
    return Plan(
        account="vendor",
        limits=tuple(Limit(*limit) for limit in limits) or NEVER_REACHED.limits,
        concurrency=concurrency,
        adapts=adapts,
    )


@pytest.fixture
def open_budget(engine: Engine) -> Iterator[Callable[..., Budget]]:
    """Open budgets that refuse to wait and end with the test."""
    with ExitStack() as stack:

        def begin(of: Plan = NEVER_REACHED, **settings) -> Budget:
            return stack.enter_context(Budget(engine, of, **{"sleep": refuse_to_wait, **settings}))

        yield begin


def spend(budget: Budget, count: int, *, fresh: bool = True) -> list[int]:
    numbers = []
    for _ in range(count):
        permit = budget.draw(fresh=fresh)
        budget.finish(permit)
        numbers.append(permit.seq)
    return numbers


def leases(engine: Engine) -> list[tuple[int, int | None]]:
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT id, oldest_seq FROM twm.leases ORDER BY id")).all()
    return [(row.id, row.oldest_seq) for row in rows]


def terminate_sessions(engine: Engine) -> None:
    """End every other session of the database, as a crash of the server would."""
    with engine.connect() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )


def worst_window(moments: list[float], seconds: float) -> int:
    """Return the largest number of *moments* within any window of *seconds*."""
    return max(sum(1 for other in moments if 0 <= other - start < seconds) for start in moments)


def test_numbers_of_observation_rise(open_budget):
    one, other = open_budget(), open_budget()

    numbers = [*spend(one, 2), *spend(other, 2), *spend(one, 1)]

    assert numbers == sorted(set(numbers))
    assert (one.usage.requests, other.usage.requests) == (3, 2)


def test_a_full_window_makes_the_next_request_wait_as_long_as_needed(open_budget):
    budget = open_budget(plan((5, 60), (8, 900)))
    spend(budget, 5)

    with pytest.raises(WaitedError) as caught:
        budget.draw(fresh=True)

    assert caught.value.args[0] == 2.0  # a long wait is asked about again now and then
    assert 59 < budget._ask(fresh=True).wait_seconds <= 60 + MARGIN_SECONDS


def test_the_longer_of_two_waits_counts(open_budget):
    budget = open_budget(plan((5, 60), (5, 900)))
    spend(budget, 5)

    answer = budget._ask(fresh=True)

    assert 899 < answer.wait_seconds <= 900 + MARGIN_SECONDS
    assert answer.reason.startswith("5 requests in 900")


def test_a_request_counts_from_its_answer(engine, open_budget):
    budget = open_budget(plan((1, 60)))
    permit = budget.draw(fresh=True)
    with engine.begin() as connection:
        connection.execute(text("UPDATE twm.budget_requests SET sent_at = sent_at - interval '59 seconds'"))

    budget.finish(permit)

    assert budget._ask(fresh=True).wait_seconds > 59


def test_requests_leave_the_window_with_time(engine, open_budget):
    budget = open_budget(plan((2, 60)))
    spend(budget, 2)
    with engine.begin() as connection:
        connection.execute(text("UPDATE twm.budget_requests SET sent_at = sent_at - interval '61 seconds'"))

    assert len(spend(budget, 2)) == 2


def test_accounts_do_not_know_each_other(engine, open_budget):
    spend(open_budget(plan((1, 60))), 1)

    other = open_budget(Plan(account="other", limits=(Limit(1, 60),)))

    assert len(spend(other, 1)) == 1


def test_history_leaves_a_share_to_fresh_changes(open_budget):
    budget = open_budget(plan((10, 60)))

    spend(budget, 8, fresh=False)

    assert HISTORY_SHARE == 0.8
    with pytest.raises(WaitedError):
        budget.draw(fresh=False)
    spend(budget, 2, fresh=True)
    with pytest.raises(WaitedError):
        budget.draw(fresh=True)


def test_even_the_smallest_budget_lets_history_go_on(open_budget):
    assert len(spend(open_budget(plan((1, 60))), 1, fresh=False)) == 1


def test_a_pause_holds_for_every_process(open_budget, caplog):
    caplog.set_level(logging.INFO)
    one, other = open_budget(), open_budget()

    one.pause(30, reason="Vendor answered 429")
    one.pause(5, reason="Vendor answered 429")

    answer = other._ask(fresh=True)
    assert 29 < answer.wait_seconds <= 30
    with pytest.raises(WaitedError):
        other.draw(fresh=True)
    assert "Vendor answered 429" in caplog.text
    assert (one.usage.throttled, other.usage.throttled) == (2, 0)


def test_a_pause_ends(open_budget):
    budget = open_budget()
    budget.pause(-1, reason="over")

    assert len(spend(budget, 1)) == 1


YEAR = timedelta(days=365)


def test_a_clock_that_was_set_back_holds_up_no_request_for_longer_than_the_window(engine, open_budget):
    budget = open_budget(plan((5, 60)))
    spend(budget, 5)

    set_clock_back(engine, YEAR)

    waits = [budget._ask(fresh=True).wait_seconds for _ in range(2)]
    assert 58 < waits[1] <= waits[0] <= 60 + MARGIN_SECONDS
    with engine.begin() as connection:
        connection.execute(text("UPDATE twm.budget_requests SET sent_at = sent_at - interval '61 seconds'"))
    assert len(spend(budget, 5)) == 5


def test_requests_of_before_and_after_the_clock_was_set_back_share_the_budget(engine, open_budget):
    budget = open_budget(plan((5, 60)))
    spend(budget, 3)

    set_clock_back(engine, YEAR)

    spend(budget, 2)
    with pytest.raises(WaitedError):
        budget.draw(fresh=True)


def test_a_pause_of_before_the_clock_was_set_back_is_over(engine, open_budget):
    budget = open_budget()
    budget.pause(900, reason="the vendor answered 429")
    with pytest.raises(WaitedError):
        budget.draw(fresh=True)

    set_clock_back(engine, YEAR)

    spend(budget, 1)
    budget.pause(60, reason="the vendor answered 429")
    assert 59 < budget._ask(fresh=True).wait_seconds <= 60


def test_only_so_many_requests_are_under_way_at_once(open_budget):
    of = plan(concurrency=2)
    budgets = [open_budget(of) for _ in range(3)]
    permits = [budget.draw(fresh=True) for budget in budgets[:2]]

    with pytest.raises(WaitedError):
        budgets[2].draw(fresh=True)
    assert budgets[2]._ask(fresh=True).reason == "2 requests are under way"
    budgets[0].finish(permits[0])

    assert budgets[2].draw(fresh=True).slot == permits[0].slot
    assert {permit.slot for permit in permits} == {1, 2}


def test_an_ended_budget_gives_back_what_it_held(engine, open_budget):
    with Budget(engine, plan(concurrency=1)) as budget:
        budget.draw(fresh=True)

    assert open_budget(plan(concurrency=1)).draw(fresh=True).slot == 1
    assert len(leases(engine)) == 1


def test_the_end_of_the_window_ends_the_wait(open_budget):
    def stop() -> None:
        msg = "over"
        raise WindowClosedError(msg)

    budget = open_budget(plan((1, 60)), should_stop=stop)
    spend(budget, 1)

    with pytest.raises(WindowClosedError, match="over"):
        budget.draw(fresh=True)


def test_waiting_is_added_up(engine, open_budget):
    def forget(_: float) -> None:
        with engine.begin() as connection:
            connection.execute(text("DELETE FROM twm.budget_requests"))

    budget = open_budget(plan((1, 60)), sleep=forget)
    spend(budget, 1)

    spend(budget, 1)

    assert budget.usage.waited_seconds == pytest.approx(2)


OBSERVED = {
    "a lower limit": ({"limit": 40}, True, 40),
    "a lower limit than was set": ({"limit": 40}, False, 40),
    "a higher limit": ({"limit": 300}, True, 300),
    "a higher limit than was set": ({"limit": 300}, False, 150),
    "no limit": ({"limit": None}, True, 150),
    "a limit of nothing": ({"limit": 0}, True, 150),
}


@pytest.mark.parametrize(("said", "adapts", "expected"), OBSERVED.values(), ids=OBSERVED)
def test_the_vendors_own_limit_is_taken_over(open_budget, said, adapts, expected):
    budget = open_budget(plan((150, 60), (450, 900), adapts=adapts))

    budget.observe(remaining=None, reset_seconds=None, **said)

    assert [limit.requests for limit in budget.plan.limits] == [expected, 450]


def test_a_used_up_budget_is_left_alone_until_it_is_reset(open_budget):
    budget = open_budget(plan((150, 60)))

    budget.observe(limit=150, remaining=0, reset_seconds=38)

    answer = budget._ask(fresh=True)
    assert 37 < answer.wait_seconds <= 38
    assert answer.reason == "the vendor's headers say that the budget is used"


def test_a_nearly_used_up_budget_is_left_to_fresh_changes(open_budget):
    budget = open_budget(plan((150, 60)))

    budget.observe(limit=150, remaining=20, reset_seconds=3800)

    assert 59 < budget._ask(fresh=False).wait_seconds <= 60
    assert len(spend(budget, 1, fresh=True)) == 1


def test_threads_together_never_exceed_a_sliding_window(engine):
    of = plan((4, 0.25), (9, 0.8))
    moments: list[float] = []

    def work() -> None:
        with Budget(engine, of) as budget:
            for _ in range(7):
                permit = budget.draw(fresh=True)
                moments.append(time.monotonic())
                budget.finish(permit)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert len(moments) == 28
    assert worst_window(moments, 0.25) <= 4
    assert worst_window(moments, 0.8) <= 9


CHILD = """
import json, sys, time
from sqlalchemy import make_url
from twm_pipeline.budget import Budget, Limit, Plan
from twm_pipeline.db import open_engine
order = json.loads(sys.argv[1])
limits = tuple(Limit(*limit) for limit in order["limits"])
plan = Plan(account="vendor", limits=limits, concurrency=order["slots"])
with Budget(open_engine(make_url(order["url"])), plan) as budget:
    moments = []
    for _ in range(order["count"]):
        permit = budget.draw(fresh=True)
        moments.append(time.monotonic())
        if order["hold"]:
            print(permit.seq, flush=True)
            sys.stdin.read()
        budget.finish(permit)
print(json.dumps(moments), flush=True)
"""


def start_child(database: URL, *, count: int, limits=((1000, 60.0),), slots: int = 0, hold: bool = False):
    order = {
        "url": database.render_as_string(hide_password=False),
        "limits": limits,
        "count": count,
        "slots": slots,
        "hold": hold,
    }
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, json.dumps(order)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_processes_together_never_exceed_a_sliding_window(database):
    children = [start_child(database, count=8, limits=((4, 0.3),), slots=2) for _ in range(2)]

    moments = []
    for child in children:
        out, _ = child.communicate(timeout=60)
        moments += json.loads(out)

    assert len(moments) == 16
    assert worst_window(moments, 0.3) <= 4


def test_a_process_that_is_killed_holds_nothing(database, engine, open_budget):
    child = start_child(database, count=1, slots=1, hold=True)
    assert child.stdout is not None
    seq = int(child.stdout.readline())
    deadline = time.monotonic() + 30

    def wait(_: float) -> None:
        assert time.monotonic() < deadline
        if child.poll() is None:
            waited.append(True)
            child.send_signal(signal.SIGKILL)
            child.communicate()

    waited: list[bool] = []
    budget = open_budget(plan(concurrency=1), sleep=wait)
    with engine.connect() as connection:
        assert budget.oldest_other_seq(connection) == seq
    permit = budget.draw(fresh=True)

    assert waited == [True]
    assert (permit.slot, permit.seq) == (1, seq + 1)
    with engine.connect() as connection:
        assert budget.oldest_other_seq(connection) is None
    assert len(leases(engine)) == 1


def test_dead_leases_are_forgotten_and_living_ones_kept(engine, open_budget):
    living = open_budget()
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO twm.leases (account, oldest_seq) VALUES ('vendor', 1), ('x', 1)")
        )

    newcomer = open_budget()

    with engine.connect() as connection:
        left = connection.scalars(
            text("SELECT id FROM twm.leases WHERE account = 'vendor' ORDER BY id")
        ).all()
    assert left == [living._lease, newcomer._lease]


def test_a_lease_is_never_seen_before_it_is_locked(engine, open_budget):
    """Another process would take it for a dead one and remove it."""
    with engine.connect() as blocker:
        blocker.execute(text("SELECT pg_advisory_lock(:key, 1)"), {"key": LEASE_LOCK})
        thread = threading.Thread(target=open_budget)
        thread.start()
        for _ in range(10_000):
            waiting = blocker.scalar(
                text(
                    "SELECT count(*) FROM pg_stat_activity, pg_sleep(0.001)"
                    " WHERE datname = current_database() AND wait_event = 'advisory'"
                )
            )
            blocker.rollback()
            if waiting:
                break
        seen = leases(engine)
        blocker.execute(text("SELECT pg_advisory_unlock_all()"))
        blocker.rollback()
    thread.join(10)

    assert seen == []
    assert [number for number, _ in leases(engine)] == [1]


def test_the_oldest_request_of_others_is_known_until_it_is_settled(engine, open_budget):
    mine, other = open_budget(), open_budget()
    first, *_ = spend(other, 3)
    spend(mine, 1)

    with engine.connect() as connection:
        assert mine.oldest_other_seq(connection) == first
        with engine.begin() as storing:
            other.settle(storing)
            assert mine.oldest_other_seq(connection) == first
            connection.rollback()
        assert mine.oldest_other_seq(connection) is None


def test_a_batch_that_is_taken_back_leaves_its_requests_under_way(engine, open_budget):
    mine, other = open_budget(), open_budget()
    (seq,) = spend(other, 1)

    with engine.connect() as connection:
        other.settle(connection)
        connection.rollback()

        assert mine.oldest_other_seq(connection) == seq


def test_a_process_does_not_wait_for_itself(engine, open_budget):
    mine = open_budget()
    spend(mine, 1)

    with engine.connect() as connection:
        assert mine.oldest_other_seq(connection) is None


def test_the_next_request_after_settling_is_the_oldest_again(engine, open_budget):
    mine, other = open_budget(), open_budget()
    spend(other, 1)
    with engine.begin() as connection:
        other.settle(connection)

    (seq, *_) = spend(other, 2)

    with engine.connect() as connection:
        assert mine.oldest_other_seq(connection) == seq


def test_without_postgresql_there_is_no_budget():
    nowhere = open_engine(URL.create("postgresql+psycopg", host="127.0.0.1", port=1, database="x"))
    budget = Budget(nowhere, NEVER_REACHED)

    with pytest.raises(DatabaseUnavailableError, match="no vendor request is made without it"), budget:
        pytest.fail("entered")


def test_when_postgresql_goes_away_no_leave_is_given(engine, open_budget, caplog):
    with Budget(engine, NEVER_REACHED) as budget:
        permit = budget.draw(fresh=True)
        terminate_sessions(engine)

        with pytest.raises(DatabaseUnavailableError, match="no vendor request is made without it"):
            budget.draw(fresh=True)
        with pytest.raises(DatabaseUnavailableError):
            budget.finish(permit)
        with pytest.raises(DatabaseUnavailableError):
            budget.pause(1, reason="429")

    assert budget.usage.requests == 1
    assert "PostgreSQL has released what it held" in caplog.text


def test_after_postgresql_came_back_a_new_budget_works(engine, open_budget):
    with Budget(engine, NEVER_REACHED):
        terminate_sessions(engine)

    assert len(spend(open_budget(), 1)) == 1
    assert len(leases(engine)) == 1


def test_outside_of_its_block_a_budget_gives_no_leave(engine):
    with pytest.raises(RuntimeError, match="outside of its `with` block"):
        Budget(engine, NEVER_REACHED).draw(fresh=True)


def test_the_log_of_requests_does_not_grow_without_end(engine, open_budget):
    budget = open_budget()
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO twm.budget_requests SELECT -n, 'vendor', now() - interval '2 hours'"
                " FROM generate_series(1, 1000) AS n"
            )
        )
        connection.execute(text("SELECT setval('twm.observed_seq', 499)"))

    spend(budget, 1)

    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM twm.budget_requests")) == 1
