"""The window that publishes: it wakes when a row of the views changes, and sends what differs (DESIGN D2)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError

from twm_pipeline.airtable.client import AirtableClient, budget_plan
from twm_pipeline.airtable.fields import KEYS, Key
from twm_pipeline.airtable.setup import Access, check_access
from twm_pipeline.budget import Budget
from twm_pipeline.errors import AccessError, ConfigError, SchemaChangedError, TwmError, WindowClosedError
from twm_pipeline.logs import about
from twm_pipeline.mirror.changelog import CHANNEL
from twm_pipeline.mirror.published import note_publishing
from twm_pipeline.sources.missive import MissiveSource
from twm_pipeline.sync.accounts import configured_sources
from twm_pipeline.sync.engine import open_pass
from twm_pipeline.sync.listening import Listener, listening
from twm_pipeline.sync.publish import Publisher, PublishReport
from twm_pipeline.sync.publish_check import How, ask_for_check, check_base, wanted_checks
from twm_pipeline.sync.publish_files import FilePublisher
from twm_pipeline.sync.window import LONGEST_SLEEP_SECONDS
from twm_pipeline.sync.window_lock import WindowLock, window_lock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

    from twm_pipeline.settings import Settings

logger = logging.getLogger(__name__)

CALLS_AT_ONCE = 3
"""Calls under way together: with half a second for each the budget is still used up."""


@dataclass(kw_only=True)
class PublishWindow:
    """One run's period of publishing.

    Args:
        engine: The mirror.
        settings: The deployment's settings; Airtable is configured in them.
        seconds: How long it lasts; 0: until everything that differs is published, once.
        views: Only these.
        resume: Ask Airtable again after its monthly quota was used up.
        check: Ask for a look whether the base still holds what was published: at a sample, or at the whole.
        on_report: Told after every look.
        on_commit: Told after every commit, with the view.
        should_stop: Raises `WindowClosedError` when somebody wants the window to end.
        wait: Waits so many seconds; replaced by what also looks for a cancellation.
    """

    engine: Engine
    settings: Settings
    seconds: float = 0.0
    views: tuple[Key, ...] = KEYS
    resume: bool = False
    check: How | None = None
    on_report: Callable[[dict[Key, PublishReport]], None] = lambda _: None
    on_commit: Callable[[Key, PublishReport], None] = lambda _key, _report: None
    should_stop: Callable[[], None] = lambda: None
    wait: Callable[[float], None] = time.sleep
    _deadline: float | None = field(default=None, init=False)

    def run(self) -> bool:
        """Publish; return False when another process does already, which then also does what was asked for.

        Raises:
            TwmError: What stopped it; an outage only if it lasted to the end of the window.
        """
        self._deadline = time.monotonic() + self.seconds if self.seconds > 0 else None
        if self.check is not None:
            ask_for_check(self.engine, self._base, self.views, how=self.check)
        while not (ran := self._run_alone()) and self.check is not None and self._wanted():
            self.should_stop()
            self.wait(LONGEST_SLEEP_SECONDS)
        return ran

    def _run_alone(self) -> bool:
        """Publish unless another process does."""
        with about(source="airtable"), window_lock(self.engine, "airtable") as lock:
            if lock is None:
                return False
            with ExitStack() as stack:
                news = stack.enter_context(listening(self.engine, CHANNEL))
                stop = partial(self._require_time, lock)
                clients = [self._client(stack, stop) for _ in range(1 + CALLS_AT_ONCE)]
                listener = Listener(
                    name="airtable",
                    deadline=self._deadline,
                    lock=lock,
                    news=news,
                    should_stop=self.should_stop,
                    wait=self.wait,
                )
                listener.run(partial(self._publish, clients, stop))
            return True

    @property
    def _base(self) -> str:
        return str(self.settings.airtable_base_id)

    def _wanted(self) -> dict[Key, str]:
        return wanted_checks(self.engine, self._base, self.views)

    def _require_time(self, lock: WindowLock) -> None:
        """Pass while nobody wants the window to end, it has time, and nobody else can have its lock.

        Raises:
            WindowClosedError: If it has to end.
        """
        self.should_stop()
        lock.verify()
        if self._is_over():
            msg = "The window is over; the next one goes on."
            raise WindowClosedError(msg)

    def _is_over(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    def _client(self, stack: ExitStack, stop: Callable[[], None]) -> AirtableClient:
        """Return a client with a connection to the budget of its own, until *stack* is closed."""
        budget = stack.enter_context(Budget(self.engine, budget_plan(self.settings), should_stop=stop))
        return AirtableClient(self.settings, budget)

    def _publish(self, clients: Sequence[AirtableClient], stop: Callable[[], None]) -> None:
        publisher = Publisher(
            engine=self.engine,
            settings=self.settings,
            client=clients[0],
            helpers=clients[1:],
            should_stop=stop,
            on_commit=self.on_commit,
            views=self.views,
            resume=self.resume,
        )
        self.resume = False
        try:
            with self._noting():
                publisher.run()
                if wanted := self._wanted():
                    self._look(publisher, wanted)
                if "emails" in self.views:
                    self._publish_files(publisher)
        except WindowClosedError:
            if not self._is_over():
                raise
        finally:
            self.on_report(publisher.reports)

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """Remember for status why what is done inside failed, or that it works."""
        try:
            yield
        except WindowClosedError:
            raise
        except TwmError as error:
            self._note(str(error))
            raise
        self._note(None)

    def _note(self, error: str | None) -> None:
        try:
            with self.engine.begin() as connection:
                note_publishing(connection, self._base, error=error)
        except DBAPIError:
            logger.warning("how publishing ended could not be noted: PostgreSQL does not answer")

    def _look(self, publisher: Publisher, wanted: dict[Key, str]) -> None:
        """Look at the base, and write again what is gone or differs."""
        with publisher.counting():
            found = check_base(publisher, wanted)
        for view, report in found.items():
            publisher.reports[view].problems += report.problems
        publisher.run()

    def _publish_files(self, publisher: Publisher) -> None:
        """Send the files of e-mails; where their field or table is gone, make it first."""
        with publisher.counting():
            try:
                publisher.reports["emails"].files += self._files(publisher).run()
            except (SchemaChangedError, AccessError, ConfigError):
                publisher.set_up_again()
                publisher.run()
                publisher.reports["emails"].files += self._files(publisher).run()

    def _files(self, publisher: Publisher) -> FilePublisher:
        """Return what sends files; only a window asks the vendor for fresh addresses of old ones."""
        asks = self.seconds > 0 and "missive" in configured_sources(self.settings)
        return FilePublisher(publisher=publisher, renew=self._renew if asks else None)

    def _renew(self, message_ids: Sequence[str]) -> dict[str, list[Any]]:
        """Return the attachments of e-mails as they are now, read with what the budget leaves to history."""
        with open_pass(
            self.engine, self.settings, "missive", owns_checkpoints=False, should_stop=self.should_stop
        ) as work:
            messages = MissiveSource(work.session).fetch_messages(list(message_ids), fresh=False)
            return {str(row["id"]): row.get("attachments") or [] for row, _ in messages}


def examine_base(engine: Engine, settings: Settings) -> Access:
    """Return what stands in the way of publishing, asking Airtable three times and writing nothing.

    Raises:
        AuthenticationError: The token is not accepted.
        RetriableError: Airtable or PostgreSQL does not answer.
    """
    with Budget(engine, budget_plan(settings)) as budget:
        client = AirtableClient(settings, budget)
        publisher = Publisher(engine=engine, settings=settings, client=client)
        try:
            return check_access(client, publisher.wanted(), publisher.known())
        finally:
            publisher.note_calls(KEYS[0])
