"""The window that publishes: it wakes when a row of the views changes, and sends what differs (DESIGN D2)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from twm_pipeline.airtable.client import AirtableClient, budget_plan
from twm_pipeline.airtable.fields import KEYS, Key
from twm_pipeline.airtable.setup import Access, check_access
from twm_pipeline.budget import Budget
from twm_pipeline.logs import about
from twm_pipeline.mirror.changelog import CHANNEL
from twm_pipeline.sources.missive import MissiveSource
from twm_pipeline.sync.engine import configured_sources, open_pass
from twm_pipeline.sync.listening import Listener, listening
from twm_pipeline.sync.publish import Publisher, PublishReport
from twm_pipeline.sync.publish_check import CheckReport, check_base
from twm_pipeline.sync.publish_files import FilePublisher
from twm_pipeline.sync.window import window_lock

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from twm_pipeline.settings import Settings

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
        check: Look once whether the base still holds what was published: at a sample, or at all of it.
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
    check: Literal["sample", "whole"] | None = None
    on_report: Callable[[dict[Key, PublishReport]], None] = lambda _: None
    on_commit: Callable[[Key, PublishReport], None] = lambda _key, _report: None
    should_stop: Callable[[], None] = lambda: None
    wait: Callable[[float], None] = time.sleep
    checked: dict[Key, CheckReport] = field(default_factory=dict, init=False)

    def run(self) -> bool:
        """Publish; return False when another process does already.

        Raises:
            TwmError: What stopped it; an outage only if it lasted to the end of the window.
        """
        deadline = time.monotonic() + self.seconds if self.seconds > 0 else None
        with about(source="airtable"), window_lock(self.engine, "airtable") as lock:
            if lock is None:
                return False
            with ExitStack() as stack:
                news = stack.enter_context(listening(self.engine, CHANNEL))
                clients = [self._client(stack) for _ in range(1 + CALLS_AT_ONCE)]
                listener = Listener(
                    name="airtable",
                    deadline=deadline,
                    lock=lock,
                    news=news,
                    should_stop=self.should_stop,
                    wait=self.wait,
                )
                listener.run(lambda: self._publish(clients))
            return True

    def _client(self, stack: ExitStack) -> AirtableClient:
        """Return a client with a connection to the budget of its own, until *stack* is closed."""
        plan = budget_plan(self.settings)
        budget = stack.enter_context(Budget(self.engine, plan, should_stop=self.should_stop))
        return AirtableClient(self.settings, budget, should_stop=self.should_stop)

    def _publish(self, clients: Sequence[AirtableClient]) -> None:
        publisher = Publisher(
            engine=self.engine,
            settings=self.settings,
            client=clients[0],
            helpers=clients[1:],
            should_stop=self.should_stop,
            on_commit=self.on_commit,
            views=self.views,
            resume=self.resume,
        )
        self.resume = False
        try:
            publisher.run()
            if self.check is not None:
                self._check(publisher, whole=self.check == "whole")
            if "emails" in self.views:
                self._publish_files(publisher)
        finally:
            self.on_report(publisher.reports)

    def _check(self, publisher: Publisher, *, whole: bool) -> None:
        """Look at the base once a window, and write again what is gone or differs."""
        self.checked = check_base(publisher, whole=whole)
        self.check = None
        for view, found in self.checked.items():
            publisher.reports[view].problems += found.problems
        publisher.run()

    def _publish_files(self, publisher: Publisher) -> None:
        """Send the files of e-mails; only a window asks the vendor for fresh addresses of old ones."""
        layout = publisher.known()["emails"]
        field = publisher.wanted()["emails"].attachments_field
        if field is None:
            return
        asks = self.seconds > 0 and "missive" in configured_sources(self.settings)
        files = FilePublisher(
            publisher=publisher,
            table_id=layout.table_id,
            field_id=layout.fields[field.name],
            renew=self._renew if asks else None,
        )
        publisher.reports["emails"].files += files.run()
        publisher.note_calls("emails")

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
