"""Publishing: rows of the people's views become records of a base, only those that differ (DESIGN D2, G4).

Of each row the mirror keeps which record shows it and a digest of what was sent. The change log says which
rows to compare, everything is compared when it was not fed, and a comparison asks Airtable nothing. What was
sent is noted in the transaction that removes the log's entries, so a process that dies sends the same again:
an update or an upsert, which change nothing then.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeVar
from zoneinfo import ZoneInfo

from sqlalchemy.exc import OperationalError

from twm_pipeline.airtable.cells import Cells, digest, to_cells
from twm_pipeline.airtable.fields import KEYS, Key, Layout, TableSpec, specs
from twm_pipeline.airtable.setup import set_up
from twm_pipeline.errors import (
    AccessError,
    ConfigError,
    DatabaseUnavailableError,
    NotFoundError,
    QuotaExhaustedError,
    RequestRefusedError,
    SchemaChangedError,
    TwmError,
)
from twm_pipeline.mirror.changelog import read_changes, remove_changes
from twm_pipeline.mirror.checkpoints import (
    Origin,
    SetAside,
    due_set_aside,
    resolve_set_aside,
    set_aside,
    waiting_set_aside,
)
from twm_pipeline.mirror.published import (
    Published,
    add_calls,
    forget_cells,
    forget_published,
    forget_records,
    load_layout,
    load_publication,
    load_published,
    month_of_calls,
    next_ids,
    note_compared,
    note_exhausted,
    note_set_up,
    rows_of_view,
    save_layout,
    save_published,
)
from twm_pipeline.mirror.views import category_columns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

    from twm_pipeline.airtable.client import AirtableClient
    from twm_pipeline.settings import Settings

logger = logging.getLogger(__name__)

T = TypeVar("T")
Made = list[tuple[str, bool]]
"""What a call did: for each row its record, and whether that was made."""

SOURCE: Origin = "airtable"
RECORDS_PER_CALL = 10
ROWS_AT_ONCE = 500
WARNING_SHARE = 0.8
"""Of the month's calls, from which on reports tell of them."""
MOST_REFUSED = 30
"""Refused records of a run, more than land, after which no more are tried: each costs several calls."""


@dataclass(slots=True, kw_only=True)
class PublishReport:
    """Figures of one view."""

    compared: int = 0
    unchanged: int = 0
    created: int = 0
    updated: int = 0
    removed: int = 0
    set_aside: int = 0
    files: int = 0
    calls: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    @property
    def written(self) -> int:
        """How many records were made, changed or removed."""
        return self.created + self.updated + self.removed


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One record to write.

    Args:
        row_id: The key of its row.
        record_id: The record; None: the one with this key, made if there is none.
        cells: Every cell by its field's name; None empties it.
        cells_hash: Digest of *cells*.
    """

    row_id: str
    record_id: str | None
    cells: Cells
    cells_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to send about some rows: nothing, for most of them."""

    writes: tuple[Write, ...] = ()
    removals: tuple[Published, ...] = ()
    unchanged: tuple[str, ...] = ()


def plan_publish(ids: Sequence[str], cells: Mapping[str, Cells], known: Mapping[str, Published]) -> Plan:
    """Return what differs between the rows *ids* and what was published of them.

    Args:
        ids: Keys of the rows to compare.
        cells: Cells of those that the view shows.
        known: What was published of them.
    """
    writes: list[Write] = []
    removals: list[Published] = []
    unchanged: list[str] = []
    for row_id in dict.fromkeys(ids):
        before = known.get(row_id)
        if row_id not in cells:
            (removals.append(before) if before else unchanged.append(row_id))
            continue
        cells_hash = digest(cells[row_id])
        if before is not None and before.record_id is not None and before.cells_hash == cells_hash:
            unchanged.append(row_id)
            continue
        writes.append(
            Write(
                row_id=row_id,
                record_id=before.record_id if before else None,
                cells=cells[row_id],
                cells_hash=cells_hash,
            )
        )
    return Plan(writes=tuple(writes), removals=tuple(removals), unchanged=tuple(unchanged))


@dataclass(kw_only=True)
class Publisher:
    """Publishes the views into the tables of a base.

    Args:
        engine: The mirror.
        settings: The deployment's settings.
        client: Asks Airtable within its budget.
        helpers: Clients for calls at once: Airtable takes longer for one than its budget makes us wait.
        should_stop: Raises `WindowClosedError` when the time is over.
        on_commit: Told after each commit, with the view.
        views: Only these.
        resume: Ask again although the month's calls were used up.
    """

    engine: Engine
    settings: Settings
    client: AirtableClient
    helpers: Sequence[AirtableClient] = ()
    should_stop: Callable[[], None] = lambda: None
    on_commit: Callable[[Key, PublishReport], None] = lambda _key, _report: None
    views: tuple[Key, ...] = KEYS
    resume: bool = False
    reports: dict[Key, PublishReport] = field(default_factory=dict)
    layouts: dict[Key, Layout] = field(default_factory=dict, init=False)
    _specs: dict[Key, TableSpec] = field(default_factory=dict, init=False)
    _calls_noted: int = field(default=0, init=False)
    _calls_of_month: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.base = str(self.settings.airtable_base_id)
        self.reports = {view: PublishReport() for view in self.views}
        self._calls_noted = self._calls_made

    def run(self) -> dict[Key, PublishReport]:
        """Publish everything that differs, and return the figures of each view.

        Raises:
            QuotaExhaustedError: The month's calls are used up; publishing stops until somebody asks.
            TwmError: What else stopped it, or one of the views; what is committed stays.
        """
        self._require_quota()
        try:
            self._publish()
        except QuotaExhaustedError:
            if self._calls_left != 0:
                with self.commit() as connection:
                    note_exhausted(connection, self.base, exhausted=True)
            raise
        finally:
            self.note_calls(self.views[-1])
            self._warn_of_limit()
        return self.reports

    def _publish(self) -> None:
        """Publish each view; what Airtable forbids in one table does not stop the other."""
        self.prepare()
        failures: list[TwmError] = []
        for view in self.views:
            try:
                _ViewPublisher(publisher=self, spec=self._specs[view]).run()
            except (AccessError, RequestRefusedError) as error:
                logger.warning("airtable %s: %s", view, error)
                failures.append(error)
        if failures:
            raise failures[0]

    def prepare(self) -> dict[Key, TableSpec]:
        """Set up the base where it has to be, and return its tables."""
        self._specs = self.wanted()
        self.layouts = self._ensure_set_up(self._specs)
        return self._specs

    # -- calls -----------------------------------------------------------------------------------------------

    @property
    def _calls_made(self) -> int:
        return sum(client.pace.budget.usage.requests for client in (self.client, *self.helpers))

    @property
    def _calls_left(self) -> int | None:
        """Calls that `AIRTABLE_MONTHLY_CALLS` leaves; None: it is not set."""
        limit = self.settings.airtable_monthly_calls
        made = self._calls_of_month + self._calls_made - self._calls_noted
        return None if limit is None else max(limit - made, 0)

    def require_calls(self, *, under_way: int = 0) -> None:
        """Pass while `AIRTABLE_MONTHLY_CALLS` leaves more than are *under_way*.

        Raises:
            QuotaExhaustedError: If it does not; a larger number, or the next month, lets publishing go on.
        """
        left = self._calls_left
        if left is not None and left <= under_way:
            msg = (
                f"The {self.settings.airtable_monthly_calls:,} calls a month of AIRTABLE_MONTHLY_CALLS are"
                " used up. Nothing is published until the month ends, or until the setting is raised"
            )
            raise QuotaExhaustedError(msg)

    def _warn_of_limit(self) -> None:
        """Say it with the figures of a run that made calls when not many are left of the month."""
        limit, report = self.settings.airtable_monthly_calls, self.reports[self.views[0]]
        used = self._calls_of_month
        if limit and used >= limit * WARNING_SHARE and any(it.calls for it in self.reports.values()):
            share = f"{used:,} of {limit:,}"
            report.problems.append(f"{share} calls of this month (AIRTABLE_MONTHLY_CALLS) are used up")

    def _require_quota(self) -> None:
        with self.reading() as connection:
            calls, exhausted = month_of_calls(connection, self.base)
        self._calls_of_month = calls
        self.require_calls()
        if exhausted and self.resume:
            with self.commit() as connection:
                note_exhausted(connection, self.base, exhausted=False)
        elif exhausted:
            msg = (
                f"Airtable's monthly quota is used up ({calls:,} calls of ours this month). Nothing is"
                " published until the month ends, or until somebody asks for it: twm sync airtable"
            )
            raise QuotaExhaustedError(msg)

    def note_calls(self, view: Key) -> None:
        """Add the calls made since the last time to the report of *view* and to those of the month."""
        if self._calls_made > self._calls_noted:
            with self.commit() as connection:
                self.add_calls(connection, view)

    def add_calls(self, connection: Connection, view: Key) -> None:
        """Do as `note_calls` in a transaction of the caller's."""
        calls = self._calls_made - self._calls_noted
        if calls:
            self._calls_of_month = add_calls(connection, self.base, calls)
            self._calls_noted += calls
            self.reports[view].calls += calls

    # -- tables and fields -----------------------------------------------------------------------------------

    def wanted(self) -> dict[Key, TableSpec]:
        """Return the tables as they are to be, a field for each category."""
        with self.reading() as connection:
            columns = category_columns(connection)
        return specs(self.settings, columns.living, retired=columns.retired)

    def known(self) -> dict[Key, Layout]:
        """Return where tables and fields were when the base was last set up."""
        with self.reading() as connection:
            known = {key: load_layout(connection, self.base, key) for key in KEYS}
        return {
            key: Layout(table_id=table_id, fields=fields)
            for key, (table_id, fields) in known.items()
            if table_id
        }

    def set_up_again(self) -> None:
        """Read the base's schema again: a field or table that was known may be gone."""
        self.layouts = self._ensure_set_up(self._specs, again=True)

    def _ensure_set_up(self, wanted: Mapping[Key, TableSpec], *, again: bool = False) -> dict[Key, Layout]:
        """Return where tables and fields are, asking Airtable only when other ones are wanted than before."""
        layouts = self.known()
        with self.reading() as connection:
            states = {key: load_publication(connection, self.base, key) for key in KEYS}
        hashes = {key: _spec_hash(spec) for key, spec in wanted.items()}
        if (
            not again
            and all(states[key].spec_hash == hashes[key] for key in KEYS)
            and len(layouts) == len(KEYS)
        ):
            return layouts
        self.require_calls()
        made = set_up(self.client, wanted, layouts)
        with self.commit() as connection:
            for key, layout in made.items():
                save_layout(connection, self.base, key, table_id=layout.table_id, fields=layout.fields)
                if states[key].spec_hash != hashes[key] or layouts.get(key) != layout:
                    note_set_up(connection, self.base, key, spec_hash=hashes[key])
                if key in layouts and layouts[key].table_id != layout.table_id:
                    forget_records(connection, self.base, key)
                elif key in layouts and _has_remade(layouts[key], layout):
                    forget_cells(connection, self.base, key)
        return made

    @contextmanager
    def commit(self) -> Iterator[Connection]:
        """Give a transaction.

        Raises:
            DatabaseUnavailableError: If PostgreSQL went away; nothing of it is stored.
        """
        with _translated(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a connection for reading; see `commit`."""
        with _translated(), self.engine.connect() as connection:
            yield connection


@dataclass(kw_only=True)
class _ViewPublisher:
    """Publishes one view.

    Args:
        publisher: The base's.
        spec: The table as it is to be.
    """

    publisher: Publisher
    spec: TableSpec

    def __post_init__(self) -> None:
        self.base = self.publisher.base
        self.view = self.spec.key
        self.client = self.publisher.client
        self.report = self.publisher.reports[self.view]
        self.zone = ZoneInfo(self.publisher.settings.timezone)
        self._reading = self.publisher.reading

    @property
    def layout(self) -> Layout:
        """Where the table is now; set-up may find it elsewhere while views are published."""
        return self.publisher.layouts[self.view]

    def run(self) -> None:
        """Publish everything that differs."""
        began = time.monotonic()
        try:
            while True:
                if not self._is_compared():
                    self._compare_everything()
                self._follow_log()
                self._retry()
                if self._is_compared():
                    break  # otherwise a field or the table was made anew meanwhile
        finally:
            self.publisher.note_calls(self.view)
            self.report.seconds += time.monotonic() - began

    # -- what to compare -------------------------------------------------------------------------------------

    def _is_compared(self) -> bool:
        with self._reading() as connection:
            return load_publication(connection, self.base, self.view).is_compared

    def _compare_everything(self) -> None:
        """Compare all rows, with the fresh changes before each part of them."""
        layout, after = self.layout, None
        rest: list[str] = []
        while True:
            self._follow_log()
            with self._reading() as connection:
                ids = next_ids(connection, self.view, after=after, limit=ROWS_AT_ONCE)
            rest = self._publish([*rest, *ids], {}, more=bool(ids))
            if not ids:
                break
            after = ids[-1]
        if self.layout == layout:
            with self._commit() as connection:
                note_compared(connection, self.base, self.view)

    def _follow_log(self) -> None:
        """Compare the rows that the change log names until it names no more."""
        while True:
            self.publisher.should_stop()
            with self._reading() as connection:
                entries = read_changes(connection, self.view, limit=ROWS_AT_ONCE)
            if not entries:
                return
            more = sum(map(len, entries.values())) == ROWS_AT_ONCE
            self._publish(list(entries), entries, more=more)

    def _retry(self) -> None:
        """Try records that were set aside again whose time has come."""
        with self._reading() as connection:
            due = due_set_aside(connection, SOURCE, self.view)
        if due:
            self._publish(due, {})

    def _publish(
        self, ids: Sequence[str], entries: Mapping[str, Sequence[int]], *, more: bool = False
    ) -> list[str]:
        """Compare rows and send what differs.

        Args:
            ids: Keys of the rows.
            entries: Of the log, removed with what answers them.
            more: Whether others follow, with which a call that is not full can wait.

        Returns:
            The rows that wait.
        """
        with self._reading() as connection:
            rows = rows_of_view(connection, self.view, ids)
            known = load_published(connection, self.base, self.view, ids)
            waiting = waiting_set_aside(connection, SOURCE, self.view, ids) - entries.keys()
        self.report.compared += len(ids)
        cells = {key: to_cells(self.spec, row, timezone=self.zone) for key, row in rows.items()}
        plan = plan_publish([item for item in ids if item not in waiting], cells, known)
        self.report.unchanged += len(plan.unchanged)
        done = [*plan.unchanged, *waiting]
        if any(entries.get(item) for item in done):
            with self._commit() as connection:
                remove_changes(connection, _entries_of(done, entries))
        updates = [write for write in plan.writes if write.record_id is not None]
        creations = [write for write in plan.writes if write.record_id is None]
        batches = [*_tens(updates), *_tens(creations)]
        full = [batch for batch in batches if len(batch) == RECORDS_PER_CALL]
        can_wait = more and bool(full)
        self._send_all(full if can_wait else batches, entries)
        for removals in _tens(plan.removals):
            self._remove(removals, entries)
        if not can_wait:
            return []
        rest = [write.row_id for batch in batches if len(batch) < RECORDS_PER_CALL for write in batch]
        self.report.compared -= len(rest)
        return rest

    # -- sending ---------------------------------------------------------------------------------------------

    def _send_all(self, batches: Sequence[Sequence[Write]], entries: Mapping[str, Sequence[int]]) -> None:
        """Write batches, as many at once as there are helpers."""
        helpers: SimpleQueue[AirtableClient] = SimpleQueue()
        for helper in self.publisher.helpers:
            helpers.put(helper)

        def call(batch: Sequence[Write]) -> Made:
            helper = helpers.get()
            try:
                return self._call(helper, batch)
            finally:
                helpers.put(helper)

        if len(batches) == 1 or helpers.empty():
            for batch in batches:
                self._send(batch, entries)
            return
        under_way: deque[tuple[Sequence[Write], Callable[[], Made]]] = deque()
        with ThreadPoolExecutor(helpers.qsize()) as threads:
            try:
                for batch in batches:
                    if len(under_way) == len(self.publisher.helpers):
                        self._settle(*under_way.popleft(), entries)
                    self._require_leave(under_way=len(under_way))
                    under_way.append((batch, threads.submit(call, batch).result))
            finally:  # what was sent is noted, whatever keeps the rest from being sent
                while under_way:
                    self._settle(*under_way.popleft(), entries)

    def _send(self, writes: Sequence[Write], entries: Mapping[str, Sequence[int]]) -> None:
        """Write up to ten records, all of them known or none; one that is refused is found alone."""
        self._require_leave()
        self._settle(writes, lambda: self._call(self.client, writes), entries)

    def _settle(
        self, writes: Sequence[Write], call: Callable[[], Made], entries: Mapping[str, Sequence[int]]
    ) -> None:
        """Note what a call did, or find out what is wrong with it."""
        try:
            made = self._on_schema(call, again=lambda: self._call(self.client, writes))
        except NotFoundError as error:
            if writes[0].record_id is None:
                self._divide(writes, error, entries)
            else:
                self._send_apart(writes, error, entries)
            return
        except RequestRefusedError as error:
            self._divide(writes, error, entries)
            return
        created = sum(is_new for _, is_new in made)
        self.report.created += created
        self.report.updated += len(made) - created
        stored = [
            Published(row_id=write.row_id, record_id=record, cells_hash=write.cells_hash)
            for write, (record, _) in zip(writes, made, strict=True)
        ]
        with self._commit() as connection:
            save_published(connection, self.base, self.view, stored)
            keys = [item.row_id for item in stored]
            resolve_set_aside(connection, SOURCE, self.view, keys)
            remove_changes(connection, _entries_of(keys, entries))

    def _send_apart(
        self, writes: Sequence[Write], error: Exception, entries: Mapping[str, Sequence[int]]
    ) -> None:
        """Write records one of which somebody removed: by their keys only those that are not there.

        By their keys all could be, but where a user changed a key the record would not be found.
        """
        there = self._there(writes) if len(writes) > 1 else set()
        kept = [write for write in writes if write.record_id in there]
        gone = [replace(write, record_id=None) for write in writes if write.record_id not in there]
        if not gone:
            self._divide(writes, error, entries)
            return
        for part in (kept, gone):
            if part:
                self._send(part, entries)

    def _there(self, writes: Sequence[Write]) -> set[str | None]:
        """Return those of the records that exist."""
        ids = [str(write.record_id) for write in writes]
        key = self.layout.fields[self.spec.key_field.name]
        return {found.id for found in self.client.get_records(self.layout.table_id, ids, fields=[key])}

    def _divide(
        self, writes: Sequence[Write], error: Exception, entries: Mapping[str, Sequence[int]]
    ) -> None:
        """Write both halves of a refused batch, or set its only record aside."""
        if len(writes) == 1:
            self._refused(writes[0], error, entries)
            return
        middle = len(writes) // 2
        self._send(writes[:middle], entries)
        self._send(writes[middle:], entries)

    def _require_leave(self, *, under_way: int = 0) -> None:
        """Pass while calls may be made, besides those that are under way.

        Raises:
            WindowClosedError: The time is over.
            QuotaExhaustedError: The month's calls are.
        """
        self.publisher.should_stop()
        self.publisher.require_calls(under_way=under_way)

    def _on_schema(self, call: Callable[[], T], *, again: Callable[[], T] | None = None) -> T:
        """Do *call*; where a field or the table is gone, make it and do it *again*.

        For a table that is gone Airtable answers as for one that may not be seen; set-up tells which.
        """
        try:
            return call()
        except (SchemaChangedError, AccessError, ConfigError):
            self.publisher.set_up_again()
            return (again or call)()

    def _call(self, client: AirtableClient, writes: Sequence[Write]) -> Made:
        """Send *writes*."""
        layout = self.layout
        payloads = [layout.by_id(write.cells) for write in writes]
        if writes[0].record_id is None:
            return client.upsert(layout.table_id, layout.fields[self.spec.key_field.name], payloads)
        records = [str(write.record_id) for write in writes]
        client.update(layout.table_id, list(zip(records, payloads, strict=True)))
        return [(record, False) for record in records]

    def _refused(self, write: Write, error: Exception, entries: Mapping[str, Sequence[int]]) -> None:
        """Set a record aside with Airtable's own words; its row is compared again later."""
        problem = SetAside(stream=self.view, object_id=write.row_id, reason=str(error))
        logger.warning("airtable %s: record of %s is set aside: %s", self.view, write.row_id, error)
        with self._commit() as connection:
            self.report.set_aside += set_aside(connection, SOURCE, [problem])
            parked = Published(row_id=write.row_id, record_id=write.record_id, cells_hash=None)
            save_published(connection, self.base, self.view, [parked])
            remove_changes(connection, _entries_of([write.row_id], entries))
        if self.report.set_aside >= max(MOST_REFUSED, self.report.created + self.report.updated):
            msg = f"Airtable refuses record after record of {self.view}, the last one with: {error}"
            raise RequestRefusedError(msg)

    def _remove(self, removals: Sequence[Published], entries: Mapping[str, Sequence[int]]) -> None:
        """Remove records of rows that the view shows no longer."""
        self._require_leave()
        known = [item.record_id for item in removals if item.record_id is not None]
        try:
            if known:
                self._on_schema(lambda: self.client.delete(self.layout.table_id, known))
        except NotFoundError:
            if len(removals) > 1:
                for item in removals:
                    self._remove([item], entries)
                return
        self.report.removed += len(known)
        keys = [item.row_id for item in removals]
        with self._commit() as connection:
            forget_published(connection, self.base, self.view, keys)
            resolve_set_aside(connection, SOURCE, self.view, keys)
            remove_changes(connection, _entries_of(keys, entries))

    @contextmanager
    def _commit(self) -> Iterator[Connection]:
        with self.publisher.commit() as connection:
            yield connection
            self.publisher.add_calls(connection, self.view)
        self.publisher.on_commit(self.view, self.report)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        msg = f"The mirror's PostgreSQL does not answer ({type(error.orig).__name__})."
        raise DatabaseUnavailableError(msg) from error


def _has_remade(before: Layout, after: Layout) -> bool:
    """Return whether a field is another one than before, and empty in every record."""
    return any(before.fields.get(name, field_id) != field_id for name, field_id in after.fields.items())


def _spec_hash(spec: TableSpec) -> bytes:
    words = [spec.name, *(f"{item.name}\x1f{item.type}\x1f{item.retired}" for item in spec.fields)]
    return hashlib.blake2b("\x1e".join(words).encode(), digest_size=16).digest()


def _tens(items: Sequence[T]) -> list[Sequence[T]]:
    return [items[start : start + RECORDS_PER_CALL] for start in range(0, len(items), RECORDS_PER_CALL)]


def _entries_of(row_ids: Sequence[str], entries: Mapping[str, Sequence[int]]) -> list[int]:
    return [entry for row_id in row_ids for entry in entries.get(row_id, ())]
