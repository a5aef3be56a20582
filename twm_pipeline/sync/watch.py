"""Waking up for new entries: file-system events where there are any, else the next look."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from watchdog.events import FileMovedEvent, FileSystemEventHandler
from watchdog.observers import Observer

if TYPE_CHECKING:
    import threading

    from watchdog.events import DirMovedEvent

logger = logging.getLogger(__name__)


class _Arrivals(FileSystemEventHandler):
    """Sets *news* when a file is moved into *folder*."""

    def __init__(self, folder: Path, news: threading.Event) -> None:
        self._folder = str(folder)
        self._news = news

    def on_moved(self, event: DirMovedEvent | FileMovedEvent) -> None:
        """See whether it moved there."""
        if str(event.dest_path).rpartition("/")[0] == self._folder:
            self._news.set()


@contextmanager
def watching(folder: Path, news: threading.Event) -> Iterator[None]:
    """Set *news* whenever an entry is moved into *folder* while the block runs.

    Its parent is watched with all its folders: the library holds back a move of which it sees only the origin
    for half a second, and everything behind it, and every claim would be one. Where the system cannot watch
    (no inotify left, a network file system), nothing is set and the caller's own looks have to do.
    """
    observer = Observer()
    observer.schedule(
        _Arrivals(folder, news), str(folder.parent), recursive=True, event_filter=[FileMovedEvent]
    )
    try:
        observer.start()
    except OSError as error:
        logger.warning("the spool cannot be watched (%s); it is looked at every second", error.strerror)
        yield
        return
    try:
        yield
    finally:
        observer.stop()
        observer.join()
