"""Publishing: rows of the people's views become records of a base, only those that differ (DESIGN D2, G4).

Of each row the mirror keeps which record shows it and a digest of what was sent. The change log says which
rows to compare, everything is compared when it was not fed, and a comparison asks Airtable nothing. What was
sent is noted in the transaction that removes the log's entries, so a process that dies sends the same again:
an update or an upsert, which change nothing then.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from twm_pipeline.airtable.fields import ATTACHMENTS, KEYS, Key, Layout, TableSpec, specs
from twm_pipeline.airtable.setup import set_up
from twm_pipeline.errors import AccessError, ConfigError, QuotaExhaustedError, RequestRefusedError, TwmError
from twm_pipeline.mirror.published import (
    add_calls,
    forget_cells,
    forget_files,
    forget_records,
    load_layout,
    load_publication,
    month_of_calls,
    note_exhausted,
    note_set_up,
    save_layout,
)
from twm_pipeline.mirror.views import category_columns
from twm_pipeline.sync.outages import outages_in_words
from twm_pipeline.sync.publish_view import ViewPublisher

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

    from twm_pipeline.airtable.client import AirtableClient
    from twm_pipeline.settings import Settings

logger = logging.getLogger(__name__)

WARNING_SHARE = 0.8
"""Of the month's calls, from which on reports tell of them."""


class CallLimitError(QuotaExhaustedError):
    """We make no further call this month, without having asked Airtable."""


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
    answers_429: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    @property
    def written(self) -> int:
        """How many records were made, changed or removed."""
        return self.created + self.updated + self.removed


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
    _trouble: str | None = field(default=None, init=False)
    _calls: int = field(default=0, init=False)
    _throttled: int = field(default=0, init=False)
    _calls_of_month: int = field(default=0, init=False)
    _turn: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        self.base = str(self.settings.airtable_base_id)
        self.reports = {view: PublishReport() for view in self.views}
        self._throttled = self._count_throttled()
        for client in (self.client, *self.helpers):
            client.pace.before_attempt = self._begin_call
            client.pace.names = self.client.pace.names  # what one learns of the schema all may say

    def run(self) -> dict[Key, PublishReport]:
        """Publish everything that differs, and return the figures of each view.

        Raises:
            QuotaExhaustedError: The month's calls are used up; publishing stops until somebody asks.
            TwmError: What else stopped it, or one of the views; what is committed stays.
        """
        self._require_quota()
        with self.counting():
            self._publish()
        return self.reports

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count the calls made inside, and remember it when Airtable says that the month's are used up."""
        try:
            yield
        except CallLimitError:
            raise
        except QuotaExhaustedError:
            with self.commit() as connection:
                note_exhausted(connection, self.base, exhausted=True)
            raise
        finally:
            self.note_calls(self.views[-1])
            self._warn_of_limit()

    def _publish(self) -> None:
        """Publish each view; what Airtable forbids in one table does not stop the other."""
        self.prepare()
        while True:
            layouts, failures = self.layouts, list[TwmError]()
            for view in self.views:
                try:
                    ViewPublisher(publisher=self, spec=self._specs[view]).run()
                except (AccessError, RequestRefusedError) as error:
                    logger.warning("airtable %s: %s", view, error)
                    failures.append(error)
            if failures:
                raise failures[0]
            if self.layouts == layouts:
                return  # else a table was made anew when its view had had its turn

    def prepare(self) -> dict[Key, TableSpec]:
        """Set up the base where it has to be, and return its tables."""
        self._specs = self.wanted()
        for spec in self._specs.values():
            self.client.pace.names.update([spec.name, *(item.name for item in spec.fields)])
        self.layouts = self._ensure_set_up(self._specs)
        return self._specs

    # -- calls -----------------------------------------------------------------------------------------------

    def _begin_call(self) -> None:
        """Count a call that is about to be made, by whichever of the clients.

        Raises:
            WindowClosedError: The time is over.
            CallLimitError: `AIRTABLE_MONTHLY_CALLS` leaves no more.
        """
        self.should_stop()
        limit = self.settings.airtable_monthly_calls
        with self._turn:
            if limit is not None and self._calls_of_month + self._calls >= limit:
                raise CallLimitError(_limit_reached(limit))
            self._calls += 1

    def _warn_of_limit(self) -> None:
        """Say it with the figures of a run that made calls when not many are left of the month."""
        limit, report = self.settings.airtable_monthly_calls, self.reports[self.views[0]]
        used = self._calls_of_month
        if limit and used >= limit * WARNING_SHARE and any(it.calls for it in self.reports.values()):
            share = f"{used:,} of {limit:,}"
            report.problems = [f"{share} calls of this month (AIRTABLE_MONTHLY_CALLS) are used up"]

    def _require_quota(self) -> None:
        with self.reading() as connection:
            self._calls_of_month, exhausted = month_of_calls(connection, self.base)
            reason = why_stopped(connection, self.settings, resume=self.resume)
        if reason is not None:
            raise CallLimitError(reason)
        if exhausted:
            with self.commit() as connection:
                note_exhausted(connection, self.base, exhausted=False)

    def _count_throttled(self) -> int:
        return sum(client.pace.budget.usage.throttled for client in (self.client, *self.helpers))

    def note_calls(self, view: Key) -> None:
        """Add the calls made since the last time to the report of *view* and to those of the month."""
        if self._calls:
            with self.commit() as connection:
                self.add_calls(connection, view)

    def add_calls(self, connection: Connection, view: Key) -> None:
        """Do as `note_calls` in a transaction of the caller's."""
        calls = self._calls
        if calls:
            month = add_calls(connection, self.base, calls)
            with self._turn:
                self._calls, self._calls_of_month = self._calls - calls, month
            self.reports[view].calls += calls
            throttled = self._count_throttled()
            self.reports[view].answers_429 += throttled - self._throttled
            self._throttled = throttled

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

    def look_into_refusal(self) -> str:
        """Set up again, once: a field may have got another type meanwhile; return what stands in the way."""
        if self._trouble is None:
            self._trouble = ""
            try:
                self.set_up_again()
            except AccessError as error:
                logger.warning("airtable: the types of the fields are not looked at: %s", error)
            except (ConfigError, RequestRefusedError) as error:
                self._trouble = " ".join(str(error).split())
        return self._trouble

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
        made = set_up(self.client, wanted, layouts)
        with self.commit() as connection:
            for key, layout in made.items():
                save_layout(connection, self.base, key, table_id=layout.table_id, fields=layout.fields)
                if states[key].spec_hash != hashes[key] or layouts.get(key) != layout:
                    note_set_up(connection, self.base, key, spec_hash=hashes[key])
                if key in layouts and layouts[key].table_id != layout.table_id:
                    forget_records(connection, self.base, key)
                elif key in layouts:
                    self._forget_remade(connection, key, layouts[key], layout)
        return made

    def _forget_remade(self, connection: Connection, key: Key, before: Layout, after: Layout) -> None:
        """Forget what the records hold in fields that are other ones than before, and empty."""
        known = before.fields
        remade = {name for name, field_id in after.fields.items() if known.get(name, field_id) != field_id}
        if ATTACHMENTS in remade:
            forget_files(connection, self.base)
        if remade - {ATTACHMENTS}:
            forget_cells(connection, self.base, key)

    @contextmanager
    def commit(self) -> Iterator[Connection]:
        """Give a transaction.

        Raises:
            DatabaseUnavailableError: If PostgreSQL went away; nothing of it is stored.
        """
        with outages_in_words("nothing of it is noted"), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a connection for reading; see `commit`."""
        with outages_in_words("nothing is read"), self.engine.connect() as connection:
            yield connection


def why_stopped(connection: Connection, settings: Settings, *, resume: bool = False) -> str | None:
    """Return why no call is made any more this month, in words for everybody, or None.

    Args:
        connection: For reading.
        settings: The deployment's settings.
        resume: Whether what Airtable said of its quota does not count.
    """
    calls, exhausted = month_of_calls(connection, str(settings.airtable_base_id))
    limit = settings.airtable_monthly_calls
    if limit is not None and calls >= limit:
        return _limit_reached(limit)
    if exhausted and not resume:
        return (
            f"Airtable's monthly quota is used up ({calls:,} calls of ours this month). Nothing is"
            " published until the month ends, or until somebody asks for it: twm sync airtable"
        )
    return None


def _limit_reached(limit: int) -> str:
    return (
        f"The {limit:,} calls a month of AIRTABLE_MONTHLY_CALLS are used up. Nothing is published until the"
        " month ends, or until the setting is raised"
    )


def _spec_hash(spec: TableSpec) -> bytes:
    words = [spec.name, *(f"{item.name}\x1f{item.type}\x1f{item.retired}" for item in spec.fields)]
    return hashlib.blake2b("\x1e".join(words).encode(), digest_size=16).digest()
