"""Publishing one view: which rows to compare, the calls that send what differs, and what they come to."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeVar
from zoneinfo import ZoneInfo

from twm_pipeline.airtable.cells import to_cells
from twm_pipeline.errors import (
    AccessError,
    ConfigError,
    NotFoundError,
    RequestRefusedError,
    SchemaChangedError,
    TwmError,
)
from twm_pipeline.mirror.changelog import changes_of, newest_change, read_changes, remove_changes
from twm_pipeline.mirror.published import (
    Published,
    forget_published,
    load_publication,
    load_published,
    next_ids,
    note_compared,
    rows_of_view,
    save_published,
)
from twm_pipeline.mirror.set_aside import (
    SetAside,
    count_set_aside,
    due_set_aside,
    resolve_set_aside,
    set_aside,
    waiting_set_aside,
)
from twm_pipeline.records import Origin
from twm_pipeline.sync.publish_plan import Write, plan_publish

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from twm_pipeline.airtable.client import AirtableClient
    from twm_pipeline.airtable.fields import Layout, TableSpec
    from twm_pipeline.sync.publish import Publisher

logger = logging.getLogger(__name__)

T = TypeVar("T")
Made = list[tuple[str, bool]]
"""What a call did: for each row its record, and whether that was made."""

SOURCE: Origin = "airtable"
RECORDS_PER_CALL = 10
ROWS_AT_ONCE = 500
MOST_REFUSED = 30
"""Refused records, one after the other or more than land, after which no more are tried: each costs several
calls, and where a base is full every one is refused."""


@dataclass(kw_only=True)
class ViewPublisher:
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
        self._in_a_row = 0
        with self._reading() as connection:
            self._patience = max(MOST_REFUSED - count_set_aside(connection, SOURCE, self.view), 1)

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
        """Compare all rows, with the changes that come meanwhile before each part of them.

        Each row answers the entries of the log that name it, so none is compared twice for what waited.
        """
        layout, after = self.layout, None
        rest: list[str] = []
        with self._reading() as connection:
            newest = newest_change(connection)
        while True:
            self._follow_log(after=newest)
            with self._reading() as connection:
                ids = next_ids(connection, self.view, after=after, limit=ROWS_AT_ONCE)
                entries = changes_of(connection, self.view, [*rest, *ids])
            rest = self._publish([*rest, *ids], entries, more=bool(ids))
            if not ids:
                break
            after = ids[-1]
        if self.layout == layout:
            with self._commit() as connection:
                note_compared(connection, self.base, self.view)

    def _follow_log(self, *, after: int = 0) -> None:
        """Compare the rows that the change log names in entries *after* one, until it names no more."""
        while True:
            self.publisher.should_stop()
            with self._reading() as connection:
                entries = read_changes(connection, self.view, limit=ROWS_AT_ONCE, after=after)
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
        if done:
            with self._commit() as connection:
                resolve_set_aside(connection, SOURCE, self.view, plan.unchanged)
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

        if len(batches) <= 1 or helpers.empty():
            for batch in batches:
                self._send(batch, entries)
            return
        under_way: deque[tuple[Sequence[Write], Callable[[], Made]]] = deque()
        with ThreadPoolExecutor(helpers.qsize()) as threads:
            try:
                for batch in batches:
                    if len(under_way) == len(self.publisher.helpers):
                        self._settle(*under_way.popleft(), entries)
                    under_way.append((batch, threads.submit(call, batch).result))
                while under_way:
                    self._settle(*under_way.popleft(), entries)
            except TwmError:
                for sent in under_way:  # what was sent is noted, whatever keeps the rest from being sent
                    with suppress(TwmError):
                        self._settle(*sent, entries)
                raise

    def _send(self, writes: Sequence[Write], entries: Mapping[str, Sequence[int]]) -> None:
        """Write up to ten records, all of them known or none; one that is refused is found alone."""
        self._settle(writes, lambda: self._call(self.client, writes), entries)

    def _settle(
        self, writes: Sequence[Write], call: Callable[[], Made], entries: Mapping[str, Sequence[int]]
    ) -> None:
        """Note what a call did, or find out what is wrong with it."""
        try:
            made = self._on_schema(call, again=lambda: self._call(self.client, writes))
        except (NotFoundError, AccessError) as error:
            if writes[0].record_id is not None:
                self._send_apart(writes, error, entries)
            elif isinstance(error, NotFoundError):
                self._divide(writes, error, entries)
            else:
                raise
            return
        except RequestRefusedError as error:
            self._divide(writes, error, entries)
            return
        self._in_a_row = 0
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

        Raises:
            AccessError: All of them are there, so it is not about a record that is gone.
        """
        is_gone = len(writes) == 1 and isinstance(error, NotFoundError)
        there = set() if is_gone else self._there(writes)
        kept = [write for write in writes if write.record_id in there]
        gone = [replace(write, record_id=None) for write in writes if write.record_id not in there]
        if not gone:
            if isinstance(error, AccessError):
                raise error
            self._divide(writes, error, entries)
            return
        for part in (kept, gone):
            if part:
                self._send(part, entries)

    def _there(self, writes: Sequence[Write]) -> set[str | None]:
        """Return those of the records that exist."""
        ids = [str(write.record_id) for write in writes]

        def look() -> set[str | None]:
            layout = self.layout
            key = layout.fields[self.spec.key_field.name]
            return {found.id for found in self.client.get_records(layout.table_id, ids, fields=[key])}

        return self._on_schema(look)

    def _divide(
        self, writes: Sequence[Write], error: Exception, entries: Mapping[str, Sequence[int]]
    ) -> None:
        """Write both halves of a refused batch, or set its only record aside."""
        layout = self.layout
        if isinstance(error, RequestRefusedError):
            self.publisher.look_into_refusal()
        if self.layout != layout:
            self._send(writes, entries)
            return
        if len(writes) == 1:
            self._refused(writes[0], error, entries)
            return
        middle = len(writes) // 2
        self._send(writes[:middle], entries)
        self._send(writes[middle:], entries)

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
        trouble = self.publisher.look_into_refusal() if isinstance(error, RequestRefusedError) else ""
        reason = f"{error}. {trouble}" if trouble else str(error)
        problem = SetAside(stream=self.view, object_id=write.row_id, reason=reason)
        logger.warning(
            "airtable %s: record of %s is set aside: %s",
            self.view,
            write.row_id,
            reason,
            extra={"object": f"{self.view}/{write.row_id}"},
        )
        with self._commit() as connection:
            self.report.set_aside += set_aside(connection, SOURCE, [problem])
            parked = Published(row_id=write.row_id, record_id=write.record_id, cells_hash=None)
            save_published(connection, self.base, self.view, [parked])
            remove_changes(connection, _entries_of([write.row_id], entries))
        self._in_a_row += 1
        landed = self.report.created + self.report.updated
        if self._in_a_row >= self._patience or self.report.set_aside >= max(MOST_REFUSED, landed):
            msg = f"Airtable refuses record after record of {self.view}, the last one with: {reason}"
            raise RequestRefusedError(msg)

    def _remove(self, removals: Sequence[Published], entries: Mapping[str, Sequence[int]]) -> None:
        """Remove records of rows that the view shows no longer."""
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


def _tens(items: Sequence[T]) -> list[Sequence[T]]:
    return [items[start : start + RECORDS_PER_CALL] for start in range(0, len(items), RECORDS_PER_CALL)]


def _entries_of(row_ids: Sequence[str], entries: Mapping[str, Sequence[int]]) -> list[int]:
    return [entry for row_id in row_ids for entry in entries.get(row_id, ())]
