"""Deliveries beside the polls of a window: applied as they come, given back, tried again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from twm_pipeline.errors import WindowClosedError
from twm_pipeline.records import Hint, Source
from twm_pipeline.sync.drain import spool_of
from twm_pipeline.sync.engine import PassOptions
from twm_pipeline.sync.window import Window
from twm_pipeline_tests.sync.accounts import Account
from twm_pipeline_tests.sync.deliveries import deliver, drain, mail_event, nothing_waits, row, task_event

TURN_SECONDS = 0.01
PATIENCE_SECONDS = 30.0


class Listening:
    """A window in a thread, ended by the test."""

    def __init__(self, account: Account, source: Source, *, seconds: float = 600.0) -> None:
        self.ending = threading.Event()
        self.error: BaseException | None = None
        self.window = Window(account.engine, account.settings, source, seconds)
        self.window.should_stop = self._stop
        self.window.sleep = self._sleep
        self.thread = threading.Thread(target=self._run)

    def _sleep(self, seconds: float) -> None:
        self.ending.wait(min(seconds, 0.05))

    def _stop(self) -> None:
        if self.ending.is_set():
            raise WindowClosedError("ended by the test")

    def _run(self) -> None:
        try:
            self.window.run(PassOptions())
        except WindowClosedError:
            pass
        except BaseException as error:  # noqa: BLE001 - shown to the test
            self.error = error


@contextmanager
def listening(account: Account, source: Source) -> Iterator[Listening]:
    made = Listening(account, source)
    made.thread.start()
    try:
        yield made
    finally:
        made.ending.set()
        made.thread.join(PATIENCE_SECONDS)
        assert not made.thread.is_alive()
        if made.error is not None:
            raise made.error


def wait_until(test: Any) -> None:
    never = threading.Event()
    for _ in range(int(PATIENCE_SECONDS / TURN_SECONDS)):
        if test():
            return
        never.wait(TURN_SECONDS)
    raise AssertionError("it did not happen")


def test_an_open_window_applies_a_delivery_without_waiting_for_a_poll(synced: Account) -> None:
    slow = synced.change(periodic_backfill_interval=3600)
    with listening(slow, "teamwork"):
        task_id = synced.control.create_task("Order steel")
        deliver(slow, "teamwork", task_event(task_id))

        wait_until(lambda: synced.query("SELECT 1 FROM teamwork.tasks WHERE id = :id", id=task_id))
        wait_until(lambda: nothing_waits(slow, "teamwork"))


def test_an_event_that_comes_while_its_object_is_read_is_not_swallowed(synced: Account) -> None:
    slow = synced.change(periodic_backfill_interval=3600)
    task_id = synced.control.create_task("First")
    with listening(slow, "teamwork"):
        synced.control.set_latency(0.3, "teamwork")
        deliver(slow, "teamwork", task_event(task_id))
        wait_until(lambda: spool_of(slow.settings, "teamwork").waiting().held)
        synced.control.edit_task(task_id, name="Second")
        deliver(slow, "teamwork", task_event(task_id))

        wait_until(lambda: nothing_waits(slow, "teamwork"))

    assert row(synced, task_id).title == "Second"


def test_history_does_not_hold_up_a_delivery(open_account: Any) -> None:
    account = open_account(tasks=2000).change(periodic_backfill_interval=3600)
    task_id = account.control.create_task("Old", hidden=True)
    account.control.set_latency(0.5, "teamwork")
    with listening(account, "teamwork"):
        wait_until(lambda: account.query("SELECT 1 FROM teamwork.tasks LIMIT 1"))
        account.control.edit_task(task_id, hidden=False)
        deliver(account, "teamwork", task_event(task_id))

        wait_until(lambda: account.query("SELECT 1 FROM teamwork.tasks WHERE id = :id", id=task_id))

        assert account.query("SELECT 1 FROM twm.checkpoints WHERE last_cursor -> 'history' <> 'null'")


def test_a_delivery_without_an_object_makes_an_open_window_poll(synced: Account, monkeypatch: Any) -> None:
    monkeypatch.setattr("twm_pipeline.sync.window.ASKED_POLL_SECONDS", 0)
    slow = synced.change(periodic_backfill_interval=3600)
    with listening(slow, "teamwork"):
        wait_until(lambda: synced.requests("teamwork") >= 3)
        task_id = synced.control.create_task("Order steel")
        deliver(slow, "teamwork", Hint(event="PROJECT.COPIED"))

        wait_until(lambda: synced.query("SELECT 1 FROM teamwork.tasks WHERE id = :id", id=task_id))


def test_a_window_that_is_ended_in_the_middle_gives_back_what_it_had_claimed(synced: Account) -> None:
    slow = synced.change(periodic_backfill_interval=3600)
    task_id = synced.control.create_task("Order steel")
    with listening(slow, "teamwork") as window:
        synced.control.set_latency(0.5, "teamwork")
        deliver(slow, "teamwork", task_event(task_id))
        wait_until(lambda: spool_of(slow.settings, "teamwork").waiting().held)
        window.ending.set()
    synced.control.set_latency(0, "teamwork")

    assert spool_of(slow.settings, "teamwork").waiting().held == 0
    drain(slow, "teamwork")
    assert row(synced, task_id).title == "Order steel"


def test_a_window_survives_an_outage_of_the_drain(synced: Account, monkeypatch: Any) -> None:
    monkeypatch.setattr("twm_pipeline.sync.outages.PAUSE_AFTER_OUTAGE_SECONDS", 0.05)
    slow = synced.change(periodic_backfill_interval=3600)
    with listening(slow, "teamwork"):
        wait_until(lambda: synced.requests("teamwork") >= 3)
        synced.control.add_fault("teamwork", "503", count=12)
        task_id = synced.control.create_task("Order steel")
        deliver(slow, "teamwork", task_event(task_id))

        wait_until(lambda: nothing_waits(slow, "teamwork"))
    assert row(synced, task_id).title == "Order steel"


def collide_once(account: Account) -> None:
    """Have PostgreSQL end the first transaction that writes a task, as it does in a deadlock."""
    with account.engine.begin() as connection:
        connection.exec_driver_sql("CREATE SEQUENCE collisions")  # a rollback does not count it back
        connection.exec_driver_sql(
            "CREATE FUNCTION collide() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " IF nextval('collisions') = 1 THEN RAISE EXCEPTION 'deadlock' USING ERRCODE = '40P01'; END IF;"
            " RETURN NEW; END $$"
        )
        connection.exec_driver_sql(
            "CREATE TRIGGER collide BEFORE INSERT ON teamwork.tasks FOR EACH ROW EXECUTE FUNCTION collide()"
        )


def test_a_deadlock_is_no_outage_and_is_tried_again_at_once(
    synced: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twm_pipeline.sync.outages.PAUSE_AFTER_OUTAGE_SECONDS", 3600)
    slow = synced.change(periodic_backfill_interval=3600)
    with listening(slow, "teamwork"):
        wait_until(lambda: synced.requests("teamwork") >= 3)
        collide_once(synced)
        task_id = synced.control.create_task("Order steel")
        deliver(slow, "teamwork", task_event(task_id))

        wait_until(lambda: nothing_waits(slow, "teamwork"))
    assert row(synced, task_id).title == "Order steel"


def test_a_pass_that_meets_a_deadlock_goes_on(synced: Account) -> None:
    collide_once(synced)
    task_id = synced.control.create_task("Order steel")

    Window(synced.engine, synced.settings, "teamwork", 0).run(PassOptions())

    assert row(synced, task_id).title == "Order steel"


def test_one_pass_drains_before_it_polls(synced: Account) -> None:
    deliver(synced, "missive", mail_event(synced.control.receive_mail()["conversation_id"], "label_change"))

    Window(synced.engine, synced.settings, "missive", 0).run(PassOptions())

    assert nothing_waits(synced, "missive")
    first = synced.control.requests("missive")[0]["path"]
    assert first.startswith("/conversations/")


def test_a_pass_over_a_selection_touches_no_delivery(synced: Account) -> None:
    deliver(synced, "missive", mail_event("gone"))

    Window(synced.engine, synced.settings, "missive", 0).run(PassOptions(streams=frozenset({"emails"})))

    assert spool_of(synced.settings, "missive").waiting().new == 1


def test_secondary_feeds_are_read_on_a_slower_beat_than_a_quick_poll(synced: Account) -> None:
    quick = synced.change(periodic_backfill_interval=0.1, budget_time_scale=1.0)
    with listening(quick, "missive"):
        wait_until(lambda: synced.requests("missive") >= 12)

    seen = [entry["query"] for entry in synced.control.requests("missive")]
    assert sum("closed=true" in query for query in seen) == 1
    assert sum("all=true" in query for query in seen) >= 8
