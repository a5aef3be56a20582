"""Which figures an asset's next materialization shows, and when it is due (DESIGN D2).

A window commits many times a minute; each of its assets is logged at most every few seconds while rows
change, and once a minute while nothing does, so that its age says when it was last verified. Figures are
those of the interval since the materialization before: summed over time, they add up. A stream of which the
vendor refuses something is not logged until it can be read: it grows stale, which is what it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields

from twm_pipeline.sync.engine import PassReport, StreamReport

BUSY_SECONDS = 5.0
QUIET_SECONDS = 60.0
TOLERANCE_SECONDS = 2.0
"""A poll a moment before the minute is over counts as the minute's."""


@dataclass(slots=True, kw_only=True)
class Interval:
    """What happened to a stream since its last materialization.

    The requests and seconds are those of the whole source: one request may serve several streams.
    """

    fetched: int = 0
    written: int = 0
    unchanged: int = 0
    stale: int = 0
    deleted: int = 0
    set_aside: int = 0
    deliveries: int = 0
    requests: int = 0
    retries: int = 0
    throttled: int = 0
    waited_seconds: float = 0.0
    seconds: float = 0.0

    @property
    def changed(self) -> bool:
        """Whether rows of the stream were stored, marked or set aside."""
        return bool(self.written or self.deleted or self.set_aside)

    def add(self, later: Interval, *, minus: Interval) -> None:
        """Add what *later* has more than *minus*."""
        for item in fields(self):
            name = item.name
            setattr(self, name, getattr(self, name) + getattr(later, name) - getattr(minus, name))


@dataclass(slots=True)
class _Account:
    """The books of one stream."""

    logged_at: float
    pending: Interval = field(default_factory=Interval)
    booked: Interval = field(default_factory=Interval)
    verified: bool = False
    stopped: bool = False


class Ledger:
    """Sums up the reports of passes and says which materializations are due.

    Args:
        streams: The selected streams.
        log: Writes the materialization of a stream.
        clock: Replaced by tests.
    """

    def __init__(
        self,
        streams: Iterable[str],
        *,
        log: Callable[[str, Interval], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._clock = clock
        self._accounts = {stream: _Account(clock()) for stream in streams}
        self._report: PassReport | None = None

    def note_commit(self, report: PassReport) -> None:
        """Take over the figures of a pass that has just committed, and log what is due."""
        self._take(report)
        self.log_due()

    def note_report(self, report: PassReport) -> None:
        """Take over the figures of a pass that has ended, and log what is due."""
        self._take(report)
        for account in self._accounts.values():
            account.verified = account.verified or report.closed is None
        self.log_due()

    def note_deliveries(self, report: PassReport) -> None:
        """Add the figures of deliveries that were applied beside the passes, and log what is due."""
        for stream, account in self._accounts.items():
            seen = _figures(report, report.streams.get(stream, StreamReport()))
            account.pending.add(seen, minus=Interval())
        self.log_due()

    def log_due(self) -> None:
        """Log the streams whose time has come."""
        for stream, account in self._accounts.items():
            if self._is_due(account):
                self._log(stream, self._close(account))

    def log_changes(self) -> None:
        """Log at once whatever has changed and is not logged yet."""
        for stream, account in self._accounts.items():
            if account.pending.changed and not account.stopped:
                self._log(stream, self._close(account))

    def close(self) -> dict[str, Interval]:
        """Return the last interval of every stream but those of which the vendor refuses something."""
        return {
            stream: self._close(account) for stream, account in self._accounts.items() if not account.stopped
        }

    def _is_due(self, account: _Account) -> bool:
        if account.stopped:
            return False
        age = self._clock() - account.logged_at
        if account.pending.changed:
            return age >= BUSY_SECONDS
        return account.verified and age >= QUIET_SECONDS - TOLERANCE_SECONDS

    def _close(self, account: _Account) -> Interval:
        interval, account.pending = account.pending, Interval()
        account.logged_at, account.verified = self._clock(), False
        return interval

    def _take(self, report: PassReport) -> None:
        """Book what *report*, which grows during its pass, has more than when it was seen last."""
        new = report is not self._report
        self._report = report
        for stream, account in self._accounts.items():
            booked = Interval() if new else account.booked
            seen = _figures(report, report.streams.get(stream, StreamReport()))
            account.pending.add(seen, minus=booked)
            account.booked = seen
            account.stopped = stream in report.stopped


def _figures(report: PassReport, stream: StreamReport) -> Interval:
    return Interval(
        fetched=stream.fetched,
        written=stream.written,
        unchanged=stream.unchanged,
        stale=stream.stale,
        deleted=stream.deleted,
        set_aside=stream.set_aside,
        deliveries=stream.deliveries,
        requests=report.requests,
        retries=report.retries,
        throttled=report.throttled,
        waited_seconds=report.waited_seconds,
        seconds=report.seconds,
    )
