"""Figures of windows over the mirror: told while they run, and however they end."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from twm_pipeline.defs.interrupts import StopRequest
from twm_pipeline.defs.ledger import BUSY_SECONDS
from twm_pipeline.defs.report_ledger import ReportLedger, run_window
from twm_pipeline.errors import WindowClosedError
from twm_pipeline.sync.publish import PublishReport
from twm_pipeline.sync.publishing import PublishWindow


class Told:
    """A ledger of one table on a clock set by hand, and the records made that it has logged."""

    def __init__(self) -> None:
        self.now = 0.0
        self.logged: list[int] = []
        self.ledger: ReportLedger[str, PublishReport] = ReportLedger(
            ("tasks",),
            make=PublishReport,
            changed=lambda report: report.created > 0,
            log=lambda _, report: self.logged.append(report.created),
            clock=lambda: self.now,
        )


class Window(PublishWindow):
    """A window in which only *happens* happens."""

    def __init__(self, happens: Callable[[Window], None], *, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.happens = happens

    def run(self) -> bool:
        """Let it happen."""
        self.happens(self)
        return True


@pytest.fixture
def told():
    return Told()


def test_figures_of_a_ledger_add_up(told):
    for second in range(1, 13):
        told.now = float(second)
        report = PublishReport(created=1)
        told.ledger.note_commit("tasks", report)
        told.ledger.note_reports({"tasks": report})
    last = told.ledger.close()["tasks"].created

    assert len(told.logged) == 2
    assert sum(told.logged) + last == 12


def test_a_window_that_waits_logs_what_became_due_meanwhile(told):
    def wait(window: Window) -> None:
        told.ledger.note_commit("tasks", PublishReport(created=3))
        assert told.logged == []
        told.now = BUSY_SECONDS
        window.wait(0.0)

    assert run_window(Window(wait), told.ledger, StopRequest())
    assert told.logged == [3]


def test_a_cancelled_window_ends_well_and_tells_what_it_did(told):
    stop = StopRequest()

    def be_cancelled(window: Window) -> None:
        told.ledger.note_commit("tasks", PublishReport(created=3))
        stop.request()
        window.should_stop()

    assert run_window(Window(be_cancelled, seconds=60), told.ledger, stop)
    assert told.logged == [3]


@pytest.mark.parametrize("error", [KeyboardInterrupt, WindowClosedError])
def test_work_that_is_broken_off_tells_what_it_did(told, error):
    def be_broken_off(_: Window) -> None:
        told.ledger.note_commit("tasks", PublishReport(created=3))
        raise error

    with pytest.raises(error):
        run_window(Window(be_broken_off), told.ledger, StopRequest())

    assert told.logged == [3]
