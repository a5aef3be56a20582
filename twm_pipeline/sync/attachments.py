"""The window that downloads files of messages: it wakes when a row with files not known is stored."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from twm_pipeline.attachments import Store, open_store
from twm_pipeline.errors import RecordError, StoreUnavailableError
from twm_pipeline.logs import about
from twm_pipeline.mirror.attachments import CHANNEL, find_stored, retry_failed
from twm_pipeline.sync.attachment_look import AttachmentReport, Look
from twm_pipeline.sync.listening import Listener, listening
from twm_pipeline.sync.window_lock import WindowLock, window_lock

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from twm_pipeline.settings import Settings

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class AttachmentWindow:
    """One run's period of downloading.

    Args:
        engine: The mirror.
        settings: The deployment's settings.
        seconds: How long it lasts; 0: until nothing is due, once.
        retry: Fetch those that failed again first.
        on_report: Told after every file, with the figures of its look so far, and when the look has ended.
        should_stop: Raises `WindowClosedError` when somebody wants the window to end.
        wait: Waits so many seconds; replaced by what also looks for a cancellation.
    """

    engine: Engine
    settings: Settings
    seconds: float = 0.0
    retry: bool = False
    on_report: Callable[[AttachmentReport, bool], None] = lambda _report, _ended: None
    should_stop: Callable[[], None] = lambda: None
    wait: Callable[[float], None] = time.sleep

    def run(self) -> bool:
        """Download; return False when another process does already.

        Raises:
            TwmError: What stopped it; an outage only if it lasted to the end of the window.
        """
        deadline = time.monotonic() + self.seconds if self.seconds > 0 else None
        with about(source="attachments"), window_lock(self.engine, "attachments") as lock:
            if lock is None:
                return False
            store = _swept_store(self.settings)
            if self.retry:
                with self.engine.begin() as connection:
                    retry_failed(connection)
            with listening(self.engine, CHANNEL) as news:
                Listener(
                    name="attachments",
                    deadline=deadline,
                    lock=lock,
                    news=news,
                    should_stop=self.should_stop,
                    wait=self.wait,
                ).run(partial(self._look, store, lock, deadline))
            return True

    def _look(self, store: Store, lock: WindowLock, deadline: float | None) -> None:
        """Download what is due."""

        def should_stop() -> None:
            self.should_stop()
            lock.verify()

        Look(
            engine=self.engine,
            settings=self.settings,
            store=store,
            deadline=deadline,
            on_report=self.on_report,
            should_stop=should_stop,
        ).run()


def _swept_store(settings: Settings) -> Store:
    """Return where files go, without those on their way that a killed process left."""
    store = open_store(settings)
    if swept := store.sweep():
        logger.info("attachments: %d files on their way were left behind; they are fetched again", swept)
    return store


def stored_copy(
    engine: Engine, settings: Settings, *, email_id: str, attachment_id: str, most_bytes: int
) -> bytes | None:
    """Return an e-mail's file from the store, or None if the store does not give it back whole.

    Args:
        engine: The mirror.
        settings: The deployment's.
        email_id: The message.
        attachment_id: Its file.
        most_bytes: A larger one is not wanted.
    """
    with engine.connect() as connection:
        found = find_stored(connection, email_id=email_id, attachment_id=attachment_id)
    if found is None:
        return None
    place, path, size = found
    if size > most_bytes:
        return None
    store = open_store(settings, place)
    try:
        return store.read(path) if store.size(path) == size else None
    except (StoreUnavailableError, RecordError) as error:
        logger.warning("attachments: %s is not given back: %s", attachment_id, error)
        return None
