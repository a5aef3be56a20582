"""Downloads files of messages that are due: several at once, each noted at its row.

A file is written beside and shown under its name when it is complete; only then its row says so. A process
that is killed loses the files in its hands and nothing else. What concerns one file is noted at its row and
tried again later, while the others go on. An outage, of the store, of the vendor or of its storage, ends the
look and counts nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from twm_pipeline.attachments import Store, plan_path
from twm_pipeline.db import translate_errors
from twm_pipeline.downloads import Downloads, Fetched
from twm_pipeline.errors import (
    FileTooLargeError,
    LinkRefusedError,
    PermanentError,
    RecordError,
    RetriableError,
    TwmError,
    UnansweredError,
    WindowClosedError,
)
from twm_pipeline.mirror.attachments import (
    FIRST_WAIT,
    FileRow,
    Key,
    due_files,
    note_failed,
    note_skipped,
    note_stored,
    postpone_hidden,
    put_off,
    reconsider_skipped,
    settle_path,
)
from twm_pipeline.sources.missive import MissiveSource
from twm_pipeline.sources.missive_rows import expiry_of
from twm_pipeline.sync.accounts import configured_sources
from twm_pipeline.sync.attachment_links import fresh_urls
from twm_pipeline.sync.attachment_rules import Rule
from twm_pipeline.sync.engine import open_pass

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from twm_pipeline.settings import Settings

logger = logging.getLogger(__name__)
ROWS_AT_ONCE = 100
FILES_AT_ONCE = 4
RENEWED_AT_ONCE = 10
"""As many messages as one request reads: fresh addresses are used up before more are asked for."""
LONG_ENOUGH = timedelta(minutes=1)
"""An address that lives shorter is renewed before it is used."""
OUTAGE_FILES = 3
"""So many files in a row without an answer are no fault of theirs."""
AGREEING_TRIES = 2
"""Fetched so often before with the same outcome, a file of another size than announced is what there is."""
FINISH_SECONDS = 200.0
"""How much longer than the window a file may take that was begun in it; below the margin of a run."""
NO_TOKEN_WAIT = timedelta(hours=1)
LOOK_AGAIN_SECONDS = 0.5


@dataclass(slots=True, kw_only=True)
class AttachmentReport:
    """What became of files in one look: how many, bytes of the stored ones, requests for fresh addresses."""

    stored: int = 0
    skipped: int = 0
    failed: int = 0
    bytes: int = 0
    requests: int = 0


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What came of a transfer; where it is not *as_announced*, nothing was put into the store."""

    fetched: Fetched
    as_announced: bool = True
    remark: str | None = None


@dataclass(kw_only=True)
class Look:
    """Downloads what is due, some files at once.

    Args:
        engine: The mirror.
        settings: The deployment's settings.
        store: Where files go.
        deadline: After it no file is begun; those under way have `FINISH_SECONDS` more.
        on_report: See `AttachmentWindow`.
        should_stop: See `AttachmentWindow`.
    """

    engine: Engine
    settings: Settings
    store: Store
    deadline: float | None
    on_report: Callable[[AttachmentReport, bool], None]
    should_stop: Callable[[], None]
    report: AttachmentReport = field(default_factory=AttachmentReport, init=False)

    def __post_init__(self) -> None:
        self.downloads = Downloads.of(self.settings)
        self.rule = Rule.of(self.settings)
        self._ready: deque[FileRow] = deque()
        self._stale: deque[FileRow] = deque()
        self._under_way: dict[Future[_Outcome], FileRow] = {}
        self._silent: list[tuple[FileRow, UnansweredError]] = []
        self._renewed: set[Key] = set()
        self._outage: TwmError | None = None
        self._ending = threading.Event()

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with translate_errors(self.engine.url), self.engine.begin() as connection:
            yield connection

    def run(self) -> None:
        """Download until nothing is due, or the deadline has come.

        Raises:
            RetriableError: An outage: of the store, of the vendor's storage, of the vendor, of PostgreSQL.
            WindowClosedError: If `should_stop` ended it.
        """
        with self._transaction() as connection:
            reconsider_skipped(connection, rule=self.rule.words)
            postpone_hidden(connection)
        try:
            with ThreadPoolExecutor(FILES_AT_ONCE, "attachments") as pool:
                try:
                    self._work(pool)
                finally:
                    self._ending.set()
        finally:
            self.on_report(self.report, True)

    def _work(self, pool: ThreadPoolExecutor) -> None:
        while self._outage is None and not self._is_over():
            self._fill(pool)
            if not self._under_way:
                break
            self._settle_some()
        while self._under_way:  # what was begun may end
            if self._is_over(by=FINISH_SECONDS):
                self._ending.set()
            self._settle_some()
        if self._outage is not None:
            self._put_off(self._silent)
            raise self._outage
        self._blame_silent()

    def _is_over(self, *, by: float = 0.0) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline + by

    def _fill(self, pool: ThreadPoolExecutor) -> None:
        """Begin as many files as may be under way, those first whose address is good."""
        while len(self._under_way) < FILES_AT_ONCE:
            if not self._has_one_ready():
                return
            row = self._ready.popleft()
            self._under_way[pool.submit(self._transfer, row)] = row

    def _has_one_ready(self) -> bool:
        """Return whether a file can be begun, after looking for one with a good address."""
        while not self._ready and self._outage is None:
            if self._stale:
                self._try_to_renew()
            elif not self._take():
                break
        return bool(self._ready)

    def _take(self) -> bool:
        """Find what is due and settle where it goes; return whether anything is."""
        self.should_stop()
        held = [row.key for row in (*self._under_way.values(), *(row for row, _ in self._silent))]
        with self._transaction() as connection:
            rows = due_files(connection, without=held, limit=ROWS_AT_ONCE)
            for row in rows:
                if (reason := self.rule.leaves_out(row)) is not None:
                    note_skipped(connection, row, reason=reason, rule=self.rule.words)
                    self.report.skipped += 1
                    continue
                ready = self._with_path(connection, row)
                (self._ready if _lives(ready) else self._stale).append(ready)
        return bool(rows)

    def _with_path(self, connection: Connection, row: FileRow) -> FileRow:
        """Return *row* with the path that it keeps, also if its subject changes before it is stored."""
        if row.path is not None and row.store == self.store.place:
            return row
        path = plan_path(
            key="/".join(row.key),
            conversation=row.conversation_id or row.owner_id,
            at=row.sent_at,
            subject=row.subject,
            filename=row.filename,
            extension=row.extension,
        )
        settle_path(connection, row, store=self.store.place, path=path)
        return replace(row, store=self.store.place, path=path)

    def _try_to_renew(self) -> None:
        """Get fresh addresses for some files; what was begun may end where the vendor does not answer."""
        rows = [self._stale.popleft() for _ in range(min(RENEWED_AT_ONCE, len(self._stale)))]
        if "missive" not in configured_sources(self.settings):
            with self._transaction() as connection:
                for row in rows:
                    put_off(connection, row, reason="MISSIVE_API_TOKEN is not set", wait=NO_TOKEN_WAIT)
            return
        try:
            urls = self._fresh_urls(rows)
        except (RetriableError, PermanentError) as error:
            self._outage = error
            return
        for row in rows:
            self._renewed.add(row.key)
            if row.key in urls:
                self._ready.append(replace(row, url=urls[row.key]))
            else:
                self._failed(row, "its message cannot be read any more, so it has no address")

    def _fresh_urls(self, rows: Sequence[FileRow]) -> dict[Key, str]:
        """Return addresses as they are now, read with what the vendor's budget leaves to history."""
        with open_pass(
            self.engine, self.settings, "missive", owns_checkpoints=False, should_stop=self.should_stop
        ) as work:
            try:
                return fresh_urls(MissiveSource(work.session), rows)
            finally:
                self.report.requests += work.session.traffic.attempts

    def _transfer(self, row: FileRow) -> _Outcome:
        """Bring one file into the store; this runs in a thread of its own."""
        size = row.announced_size
        with self.store.part(size=size or 0) as file:
            fetched = self.downloads.fetch(
                str(row.url), file.write, most_bytes=self.rule.most_bytes, should_stop=self._check_ending
            )
            remark = None
            if size is not None and size != fetched.size:
                remark = f"{fetched.size:,} bytes instead of the {size:,} that were announced"
                again = row.tries >= AGREEING_TRIES and row.sha256 == fetched.sha256
                if not (again and fetched.size):
                    return _Outcome(fetched, as_announced=False, remark=remark)
            self.store.put(file, str(row.path))
        return _Outcome(fetched, remark=remark)

    def _check_ending(self) -> None:
        if self._ending.is_set():
            msg = "The window is over."
            raise WindowClosedError(msg)

    def _settle_some(self) -> None:
        done, _ = wait(self._under_way, timeout=LOOK_AGAIN_SECONDS, return_when=FIRST_COMPLETED)
        for future in done:
            self._settle(self._under_way.pop(future), future)
        if done:
            self.on_report(self.report, False)
        self.should_stop()

    def _settle(self, row: FileRow, future: Future[_Outcome]) -> None:
        """Note what became of a file, or that it concerns more than this file."""
        try:
            outcome = future.result()
        except UnansweredError as error:
            self._silent.append((row, error))
            if len(self._silent) >= OUTAGE_FILES:
                self._outage = error
            return
        except RetriableError as error:
            self._outage = error
            self._put_off([(row, error)])
            return
        except WindowClosedError:
            self._failed(row, "it took longer than the window")
            return
        except RecordError as error:
            self._note_refused(row, error)
        else:
            self._note_arrived(row, outcome)
        self._blame_silent()  # the storage answers, so it was those files

    def _blame_silent(self) -> None:
        for row, error in self._silent:
            self._failed(row, str(error))
        self._silent.clear()

    def _put_off(self, rows: Iterable[tuple[FileRow, RetriableError]]) -> None:
        """Let others be first when an outage is over, in case that these files were the reason."""
        with self._transaction() as connection:
            for row, error in rows:
                put_off(connection, row, reason=str(error), wait=FIRST_WAIT)

    def _note_refused(self, row: FileRow, error: RecordError) -> None:
        if isinstance(error, FileTooLargeError):
            with self._transaction() as connection:
                note_skipped(connection, row, reason=str(error), rule=self.rule.words)
            self.report.skipped += 1
        elif isinstance(error, LinkRefusedError) and row.key not in self._renewed:
            self._stale.append(row)
        else:
            self._failed(row, str(error))

    def _note_arrived(self, row: FileRow, outcome: _Outcome) -> None:
        fetched = outcome.fetched
        if not outcome.as_announced:
            self._failed(row, str(outcome.remark), sha256=fetched.sha256)
            return
        with self._transaction() as connection:
            note_stored(connection, row, size=fetched.size, sha256=fetched.sha256, reason=outcome.remark)
        self.report.stored += 1
        self.report.bytes += fetched.size

    def _failed(self, row: FileRow, reason: str, *, sha256: str | None = None) -> None:
        logger.warning("attachments: %s of %s was not stored: %s", row.id, row.owner_id, reason)
        with self._transaction() as connection:
            note_failed(connection, row, reason=reason, sha256=sha256)
        self.report.failed += 1


def _lives(row: FileRow) -> bool:
    """Return whether the address of a file is worth a try: what failed before gets a fresh one."""
    if row.url is None or row.tries:
        return False
    expiry = expiry_of(row.url)
    return expiry is None or expiry > datetime.now(UTC) + LONG_ENOUGH
