"""What every pass shares: the vendor's session, batches stored with their checkpoints, and the report.

A pass reads what changed, stores it batch by batch, and moves a checkpoint only in the transaction of the
rows it speaks of. `sync/teamwork.py` and `sync/missive.py` know in which order.
"""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError

from twm_pipeline.budget import Budget, Usage
from twm_pipeline.errors import PagingError, RecordError, RequestRefusedError, UnansweredError
from twm_pipeline.http import Traffic, VendorSession
from twm_pipeline.mirror.checkpoints import add_counter, note_progress
from twm_pipeline.mirror.refused_rows import store_halving
from twm_pipeline.mirror.set_aside import SetAside, resolve_set_aside, set_aside
from twm_pipeline.mirror.tombstones import MISSING_WAIT, long_missing, read_absences
from twm_pipeline.mirror.upserts import Counts, Observed, insert_unknown, upsert
from twm_pipeline.records import WITHOUT_ID, Source, digest
from twm_pipeline.sources import missive as missive_api
from twm_pipeline.sources import teamwork as teamwork_api
from twm_pipeline.sync.outages import outages_in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Sequence
    from datetime import date, datetime

    from sqlalchemy import Connection, Engine

    from twm_pipeline.http import Reply
    from twm_pipeline.mirror.tables import Table
    from twm_pipeline.records import Json, Record
    from twm_pipeline.settings import Settings

logger = logging.getLogger(__name__)

HASTE: dict[str, Any] = {"read_seconds": 10.0, "attempts": 3}
"""How long and how often a single object is asked for while other deliveries wait behind it."""
RECORD_FAULTS = (PagingError, UnansweredError, RequestRefusedError)
"""Failures that may be one object's own; whether they are, another request of the same vendor shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PassOptions:
    """What one pass is asked for.

    Args:
        streams: Only these streams; empty: all.
        since: Read again everything that changed since, whatever the checkpoint says.
        until: With *since*: only what changed before.
        ids: Read exactly these objects (tasks or conversations) and nothing else.
        full: Read everything again from the beginning.
        history: Whether to go on with history that is still to read.
        directories: Whether to read the directories; None: when they are due.
        secondary: Whether to read the secondary mailboxes and feeds, whose changes are rarer.
    """

    streams: frozenset[str] = frozenset()
    since: date | datetime | None = None
    until: date | datetime | None = None
    ids: tuple[str, ...] = ()
    full: bool = False
    history: bool = True
    directories: bool | None = None
    secondary: bool = True

    def wants(self, stream: str) -> bool:
        """Return whether *stream* is selected."""
        return not self.streams or stream in self.streams

    @property
    def moves_checkpoints(self) -> bool:
        """Whether this is an ordinary pass and not a re-read on demand."""
        return self.since is None and not self.ids and not self.full


@dataclass(slots=True, kw_only=True)
class StreamReport:
    """Figures of one stream in one pass.

    Args:
        absent: Of a complete sweep: living rows that no list shows; each is looked at by itself.
        deliveries: Webhook deliveries about it that were applied; a delivery that is tried again counts then.
    """

    fetched: int = 0
    written: int = 0
    unchanged: int = 0
    stale: int = 0
    deleted: int = 0
    set_aside: int = 0
    absent: int = 0
    deliveries: int = 0
    checkpoint_before: datetime | None = None
    checkpoint_after: datetime | None = None
    lag_seconds: float | None = None


@dataclass(slots=True, kw_only=True)
class PassReport:
    """Figures of a pass over one source.

    Args:
        source: The vendor.
        complete: Whether no history and no gap is left to read.
        closed: Why the pass ended before its end (the window was over, its lock gone); what is stored stays.
        problems: What was left out, in words; everything else went on.
        notes: What else people want to know of it, in words.
        held_deletions: Tombstones that wait for a confirmation (`MassDeletionError`).
        stopped: Streams that are not read completely because the vendor refuses something of them.
    """

    source: Source
    streams: dict[str, StreamReport] = field(default_factory=dict)
    requests: int = 0
    retries: int = 0
    throttled: int = 0
    waited_seconds: float = 0.0
    seconds: float = 0.0
    complete: bool = True
    closed: str | None = None
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    held_deletions: list[str] = field(default_factory=list)
    stopped: set[str] = field(default_factory=set)

    def of(self, stream: str) -> StreamReport:
        """Return the figures of *stream*, zeros at first."""
        return self.streams.setdefault(stream, StreamReport())

    def as_dict(self) -> Json:
        """Return the report as JSON-ready values."""
        result = asdict(self) | {"stopped": sorted(self.stopped)}
        for figures in result["streams"].values():
            for key in ("checkpoint_before", "checkpoint_after"):
                figures[key] = figures[key].isoformat() if figures[key] else None
        return result


@dataclass(kw_only=True)
class Pass:
    """One run of work over one source: everything that its steps need.

    Args:
        engine: The mirror.
        settings: The deployment's settings.
        source: The vendor.
        session: Asks the vendor within its budget.
        owns_checkpoints: Whether the holder of the window's lock does this; only it moves checkpoints.
        should_stop: Raises `WindowClosedError` when the time is over.
        slice_is_over: Whether history has to make way for fresh changes now.
        on_commit: Told after each commit.
        is_dry: Whether every transaction is rolled back: the figures are those of a real pass, nothing stays.
    """

    engine: Engine
    settings: Settings
    source: Source
    session: VendorSession
    owns_checkpoints: bool = True
    should_stop: Callable[[], None] = lambda: None
    slice_is_over: Callable[[], bool] = lambda: False
    on_commit: Callable[[PassReport], None] = lambda _: None
    is_dry: bool = False
    report: PassReport = field(init=False)
    started: float = field(default_factory=time.monotonic)
    vendor_now: datetime | None = None
    vendor_began: datetime | None = None
    refused: set[tuple[str, str]] | None = None

    def __post_init__(self) -> None:
        self.report = PassReport(source=self.source)

    def begin_report(self) -> None:
        """Begin a new report: what a session that stays open does is told piece by piece."""
        self.report = PassReport(source=self.source)
        self.session.traffic = Traffic()
        self.session.budget.usage = Usage()
        self.started = time.monotonic()

    @contextmanager
    def commit(self) -> Iterator[Connection]:
        """Give a transaction; when it ends well, rows, checkpoint and the end of the requests are one commit.

        Raises:
            DatabaseUnavailableError: If PostgreSQL went away; nothing of the batch is stored.
            CollisionError: If another process wrote the same rows in another order; nothing is stored.
        """
        with outages_in_words("the batch is not stored"), self.engine.begin() as connection:
            yield from self._transact(connection)
        self.count_traffic()
        self.on_commit(self.report)
        self.should_stop()

    def _transact(self, connection: Connection) -> Iterator[Connection]:
        """Give the transaction; of a dry run nothing stays but the end of the requests."""
        if self.is_dry:
            with connection.begin_nested() as savepoint:
                yield connection
                savepoint.rollback()
        else:
            yield connection
        self.session.budget.settle(connection)

    def count_traffic(self) -> None:
        """Bring the report's requests, answers 429 and times up to date."""
        usage = self.session.budget.usage
        self.report.requests = self.session.traffic.attempts
        self.report.retries = self.session.traffic.retries
        self.report.throttled = usage.throttled
        self.report.waited_seconds = round(usage.waited_seconds, 3)
        self.report.seconds = round(time.monotonic() - self.started, 3)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection for reading.

        Raises:
            DatabaseUnavailableError: If PostgreSQL does not answer.
        """
        with outages_in_words("nothing is read"), self.engine.connect() as connection:
            yield connection

    def note_reply(self, reply: Reply) -> None:
        """Remember the vendor's clock; it is the only one that judges the vendor's rows."""
        self.vendor_began = self.vendor_began or reply.date
        if self.vendor_now is None or reply.date > self.vendor_now:
            self.vendor_now = reply.date

    def note_lag(self, stream: str, checkpoint: datetime | None) -> None:
        """Note how many seconds the mirror may be behind: since this pass began, or behind its checkpoint."""
        behind = self.vendor_began if self.report.complete else checkpoint
        if self.vendor_now is not None and behind is not None:
            self.report.of(stream).lag_seconds = (self.vendor_now - behind).total_seconds()

    def parse(
        self,
        stream: str,
        rows: Iterable[Json],
        reply: Reply,
        parser: Callable[[Json], Record],
    ) -> tuple[list[Observed], list[SetAside]]:
        """Return the records of *rows* and those rows that cannot be used, with reasons."""
        self.note_reply(reply)
        observed: list[Observed] = []
        problems: list[SetAside] = []
        for row in rows:
            self.report.of(stream).fetched += 1
            try:
                observed.append(Observed(record=parser(row), seq=reply.seq))
            except RecordError as error:
                problems.append(unusable_row(stream, row, str(error)))
        return observed, problems

    def park(self, connection: Connection, problems: Iterable[SetAside]) -> None:
        """Set records aside in the caller's transaction, and count them."""
        for problem in problems:
            self.report.of(problem.stream).set_aside += set_aside(connection, self.source, [problem])

    def store(  # noqa: PLR0913 - everything that one transaction stores of one stream
        self,
        connection: Connection,
        table: Table,
        observed: Iterable[Observed],
        problems: Iterable[SetAside] = (),
        *,
        cleaned: int = 0,
        unresolved: Container[str] = (),
    ) -> Counts:
        """Store rows and set-aside records in the caller's transaction, and count them.

        A row that PostgreSQL refuses is found by halving the batch and set aside; the others are stored.

        Args:
            connection: The transaction.
            table: Of the stream.
            observed: Rows.
            problems: Rows that cannot be used.
            cleaned: Characters that were taken out of them.
            unresolved: Ids that stay set aside: more than their row is missing.
        """
        items = list(observed)
        older = self.session.budget.oldest_other_seq(connection)
        refused: list[SetAside] = []
        counts = store_halving(
            connection,
            table,
            items,
            store=lambda some: upsert(connection, table, some, older_seq=older),
            refused=refused,
        )
        counts.refused_ids = frozenset(item.object_id for item in refused)
        figures = self.report.of(table.stream)
        figures.written += counts.written
        figures.unchanged += counts.unchanged
        figures.stale += counts.stale
        self.park(connection, [*problems, *refused])
        ids = {str(item.record.id) for item in items} - counts.refused_ids
        resolve_set_aside(
            connection, self.source, table.stream, [key for key in ids if key not in unresolved]
        )
        add_counter(connection, self.source, "characters_cleaned", cleaned)
        return counts

    def store_unknown(self, connection: Connection, table: Table, observed: Sequence[Observed]) -> int:
        """Store rows that are not known yet, but those that PostgreSQL refuses; return how many were new."""
        counts = store_halving(
            connection,
            table,
            observed,
            store=lambda some: insert_unknown(connection, table, some),
            refused=[],  # the directory that they are of sets them aside
        )
        return counts.written

    def progress(self, stream: str, *, phase: str, done: int, total: int | None = None) -> None:
        """Show people who wait what this pass is doing; never in the way of the work."""
        try:
            with self.engine.begin() as connection:
                note_progress(connection, self.source, stream, phase=phase, done=done, total=total)
        except DBAPIError as error:
            logger.debug("progress could not be shown: %s", type(error).__name__)

    def require_vendor_now(self) -> datetime:
        """Return the vendor's clock as of the newest answer.

        Raises:
            PagingError: If nothing has been read yet.
        """
        now = self.vendor_now or self.session.last_date  # the latter also where all that came was a 404
        if now is None:
            msg = f"{self.source}: nothing has been read yet"
            raise PagingError(msg)
        return now

    def long_missing(self, table: Table) -> tuple[list[Any], int]:
        """Return rows missing for ten minutes or more, and the number of the evidence to come.

        The number lies below those of the looks to come: what another process sees alive meanwhile is newer.
        """
        if self.vendor_now is None:
            return [], 0
        with self.read() as connection:
            ids = long_missing(connection, table, before=self.vendor_now - MISSING_WAIT)
        return ids, self.session.last_seq + 1

    def may_bury(self, table: Table, *, wanted: int, confirmed: bool) -> bool:
        """Return whether absence may take away *wanted* rows (DESIGN D5); where not, the report says so."""
        if not wanted:
            return True
        with self.read() as connection:
            absences = read_absences(connection, table, wanted=wanted)
        if confirmed or not absences.are_held:
            return True
        logger.error("%s", absences.describe())
        self.report.held_deletions.append(absences.describe())
        return False


def unusable_row(stream: str, row: Json, reason: str) -> SetAside:
    """Return *row* as a record to set aside; one without an id is known by its digest."""
    object_id = row.get("id")
    if not isinstance(object_id, (str, int)):
        object_id = WITHOUT_ID + digest(row).hex()
    return SetAside(stream=stream, object_id=str(object_id), reason=reason, raw=row)


@contextmanager
def open_pass(  # noqa: PLR0913 - a pass is composed here and nowhere else
    engine: Engine,
    settings: Settings,
    source: Source,
    *,
    owns_checkpoints: bool = True,
    should_stop: Callable[[], None] = lambda: None,
    slice_is_over: Callable[[], bool] = lambda: False,
    on_commit: Callable[[PassReport], None] = lambda _: None,
    is_hasty: bool = False,
    is_patient: bool = False,
    is_dry: bool = False,
) -> Iterator[Pass]:
    """Give a pass with an open budget and session; its report is complete when the block ends.

    Args:
        engine: The mirror.
        settings: The deployment's settings.
        source: The vendor.
        owns_checkpoints: See `Pass`, as the others.
        should_stop: See `Pass`.
        slice_is_over: See `Pass`.
        on_commit: See `Pass`.
        is_hasty: Give a request up early: something else waits behind it, and it is asked again later.
        is_patient: Take of the request budget only what history may take.
        is_dry: See `Pass`.
    """
    api = teamwork_api if source == "teamwork" else missive_api
    started = time.monotonic()
    with Budget(engine, api.budget_plan(settings), should_stop=should_stop) as budget:
        session = VendorSession(
            name=source.capitalize(),
            base_url=api.base_url(settings),
            auth=api.auth(settings),
            budget=budget,
            time_scale=settings.budget_time_scale,
            should_stop=should_stop,
            is_patient=is_patient,
            **(HASTE if is_hasty else {}),
        )
        work = Pass(
            engine=engine,
            settings=settings,
            source=source,
            session=session,
            owns_checkpoints=owns_checkpoints,
            should_stop=should_stop,
            slice_is_over=slice_is_over,
            on_commit=on_commit,
            is_dry=is_dry,
            started=started,
        )
        try:
            yield work
        finally:
            work.count_traffic()
