"""One window per source; it polls when due, survives outages, and ends when its time or its lock is gone."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from twm_pipeline.errors import RetriableError, WindowClosedError
from twm_pipeline.sync.engine import PassOptions, PassReport
from twm_pipeline.sync.window import Window
from twm_pipeline.sync.window_lock import WINDOW_LOCK, window_lock
from twm_pipeline_tests.databases import HELD_HERE
from twm_pipeline_tests.sync.accounts import Account


class Clock:
    """Sleeps at once and remembers how long; *then* is called with the number of the sleep."""

    def __init__(self, then=lambda _: None):
        self.slept: list[float] = []
        self.then = then

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.then(len(self.slept))


def window(account: Account, *, seconds: float = 0, **more) -> tuple[Window, list[PassReport]]:
    reports: list[PassReport] = []
    made = Window(account.engine, account.settings, "teamwork", seconds, on_report=reports.append, **more)
    return made, reports


def test_a_window_of_no_length_goes_on_until_everything_is_read(account):
    made, reports = window(account)

    assert made.run(PassOptions())

    assert reports[-1].complete
    assert account.scalar("SELECT count(*) FROM teamwork.tasks") > 0


def test_a_window_polls_until_its_time_is_over(account):
    quick = account.change(periodic_backfill_interval=0.2)
    made, reports = window(quick, seconds=3)

    made.run(PassOptions())

    assert len(reports) >= 2


def test_history_is_read_in_slices_with_a_poll_before_each(open_account):
    account = open_account(tasks=1500).change(periodic_backfill_interval=0.001)
    made, reports = window(account)

    made.run(PassOptions())

    assert len(reports) > 1
    assert [report.complete for report in reports] == [False] * (len(reports) - 1) + [True]


def test_a_second_window_does_not_start_beside_the_first(account):
    made, reports = window(account, seconds=5)

    with window_lock(account.engine, "teamwork") as lock:
        assert lock is not None
        assert made.run(PassOptions()) is False

    assert reports == []


def test_a_pass_on_demand_runs_beside_a_window_and_moves_no_checkpoint(account):
    made, reports = window(account)

    with window_lock(account.engine, "teamwork"):
        assert made.run(PassOptions(full=True))

    assert reports[0].of("tasks").written > 0
    assert account.scalar("SELECT count(*) FROM twm.checkpoints") == 0


def test_the_lock_is_free_after_an_error(account):
    with pytest.raises(ZeroDivisionError), window_lock(account.engine, "teamwork"):
        raise ZeroDivisionError

    with window_lock(account.engine, "teamwork") as lock:
        assert lock is not None


def test_a_window_whose_lock_is_gone_ends(account, monkeypatch):
    monkeypatch.setattr("twm_pipeline.sync.window_lock.LOCK_CHECK_SECONDS", 0)

    def cut(number: int) -> None:
        with account.engine.begin() as connection:
            connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_locks"
                    f" WHERE {HELD_HERE} AND classid = {WINDOW_LOCK}"
                )
            )

    clock = Clock(cut)
    made, _ = window(account, seconds=300, sleep=clock.sleep)

    with pytest.raises(WindowClosedError, match="lock is gone"):
        made.run(PassOptions())

    assert len(clock.slept) == 1


def test_an_outage_is_waited_out_within_the_window(account):
    account.control.add_fault("teamwork", "503", count=None, path="tasks.json")
    clock = Clock(lambda _: account.control.clear_faults("teamwork"))
    made, reports = window(account, seconds=3, sleep=clock.sleep)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("twm_pipeline.sync.outages.PAUSE_AFTER_OUTAGE_SECONDS", 0.1)
        made.run(PassOptions())

    assert reports[0].complete


def test_an_outage_until_the_end_of_the_window_is_its_result(account):
    account.control.add_fault("teamwork", "503", count=None, path="tasks.json")
    made, reports = window(account, seconds=1)

    with pytest.raises(RetriableError, match="503"):
        made.run(PassOptions())

    assert reports == []
    assert "503" in account.scalar("SELECT last_error FROM twm.sources WHERE source = 'teamwork'")
    assert account.scalar("SELECT count(*) FROM twm.set_aside") == 0


@pytest.mark.parametrize(("source", "documented_per_minute"), [("teamwork", 150), ("missive", 60)])
def test_polling_without_webhooks_takes_less_than_a_quarter_of_any_budget(
    account, source, documented_per_minute
):
    scale, minutes = 60, 5
    account.sync(source)
    account.control.reset_counters()
    hurried = account.change(
        disable_webhooks=True,
        budget_time_scale=scale,
        periodic_backfill_interval=5 / scale,
        directory_interval_seconds=900 / scale,
    )
    seconds = minutes * 60 / scale
    made = Window(hurried.engine, hurried.settings, source, seconds)

    made.run(PassOptions())

    assert 3 < account.requests(source) < minutes * documented_per_minute / 4


def test_polls_are_five_seconds_apart_where_no_webhook_can_arrive(settings):
    assert settings.poll_seconds == 5
    assert settings.model_copy(update={"public_url": "https://sync.example.com"}).poll_seconds == 60
    assert settings.model_copy(update={"disable_webhooks": True}).poll_seconds == 5
