"""Windows over the mirror: run to their end, and which figures the next materialization shows, and when."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from twm_pipeline.defs.ledger import BUSY_SECONDS, QUIET_SECONDS
from twm_pipeline.errors import WindowClosedError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from twm_pipeline.defs.interrupts import StopRequest
    from twm_pipeline.sync.attachments import AttachmentWindow
    from twm_pipeline.sync.publishing import PublishWindow

K = TypeVar("K", bound=Hashable)
R = TypeVar("R", bound="DataclassInstance")


@dataclass
class ReportLedger(Generic[K, R]):
    """Sums up the figures of looks and says when a materialization is due (see `ledger.Ledger`).

    Args:
        views: What has figures of its own: an asset each.
        make: The kind of report, a dataclass of numbers; what is no number is left out.
        changed: Whether figures are worth telling soon.
        log: Writes the materialization of a view.
        clock: Replaced by tests.
    """

    views: Iterable[K]
    make: Callable[[], R]
    changed: Callable[[R], bool]
    log: Callable[[K, R], None]
    clock: Callable[[], float] = time.monotonic
    _finished: dict[K, R] = field(default_factory=dict)
    _current: dict[K, R] = field(default_factory=dict)
    _logged: dict[K, R] = field(default_factory=dict)
    _logged_at: dict[K, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for view in self.views:
            self._finished[view], self._logged[view] = self.make(), self.make()
            self._logged_at[view] = self.clock()

    def note_commit(self, view: K, report: R) -> None:
        """Take over the figures of a look that goes on, and log what is due."""
        self._current[view] = report
        self.log_due()

    def note_reports(self, reports: dict[K, R]) -> None:
        """Add the figures of a look that has ended, and log what is due."""
        for view, report in reports.items():
            self._finished[view] = _combined(self._finished[view], report)
            self._current.pop(view, None)
        self.log_due()

    def log_due(self) -> None:
        """Log the tables whose time has come: every few seconds while records change, else once a minute."""
        for view, at in self._logged_at.items():
            changed = self.changed(self._pending(view))
            if self.clock() - at >= (BUSY_SECONDS if changed else QUIET_SECONDS):
                self.log(view, self._close(view))

    def log_changes(self) -> None:
        """Log at once whatever has changed and is not logged yet."""
        for view in self._logged_at:
            if self.changed(self._pending(view)):
                self.log(view, self._close(view))

    def close(self) -> dict[K, R]:
        """Return the last interval of every table."""
        return {view: self._close(view) for view in self._logged_at}

    def _total(self, view: K) -> R:
        return _combined(self._finished[view], self._current.get(view, self.make()))

    def _pending(self, view: K) -> R:
        return _combined(self._total(view), self._logged[view], sign=-1)

    def _close(self, view: K) -> R:
        pending = self._pending(view)
        self._logged[view], self._logged_at[view] = self._total(view), self.clock()
        return pending


def run_window(
    window: AttachmentWindow | PublishWindow, ledger: ReportLedger[Any, Any], stop: StopRequest
) -> bool:
    """Run *window* to its end, and log what is due while it waits; return False where it was not needed.

    Raises:
        WindowClosedError: If it was to do its work once and could not end it.
        KeyboardInterrupt: If a cancelled run had to be broken off; what changed is logged.
    """

    def wait(seconds: float) -> None:
        stop.sleep(seconds)
        ledger.log_due()

    window.should_stop, window.wait = stop.check, wait
    try:
        return window.run()
    except WindowClosedError:
        ledger.log_changes()
        if not stop.requested or window.seconds == 0:
            raise
        return True
    except KeyboardInterrupt:
        ledger.log_changes()
        raise


def _combined(one: R, other: R, *, sign: int = 1) -> R:
    """Return the figures of *one* plus (or minus) those of *other*."""
    mine, others = numbers_of(one), numbers_of(other)
    changes: dict[str, Any] = {name: mine[name] + sign * others[name] for name in mine}
    return replace(one, **changes)


def numbers_of(report: DataclassInstance) -> dict[str, int | float]:
    """Return those fields of a report that are numbers."""
    values = {item.name: getattr(report, item.name) for item in fields(report)}
    return {name: value for name, value in values.items() if isinstance(value, int | float)}
