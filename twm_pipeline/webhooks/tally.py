"""How many deliveries were accepted and refused, for whoever shows it: the status page, Prometheus.

The figures go to a file, replaced as a whole every few seconds. Memory-mapped counters, as metrics libraries
share them between processes, would kill the receiver on a full disk; an address of its own to ask would be
one more thing that the world can reach.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from twm_pipeline.records import Json, Source

if TYPE_CHECKING:
    from pathlib import Path

    from twm_pipeline.settings import Settings

logger = logging.getLogger(__name__)

FILE_NAME = "receiver.json"
SAVE_SECONDS = 2.0
STOP_SECONDS = 1.0


class Tally:
    """Counts since the receiver started; a thread of its own writes them, for a disk may hang.

    Args:
        file: Where they are written.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._accepted: Counter[Source] = Counter()
        self._refused: Counter[tuple[int, str]] = Counter()
        self._started_at = datetime.now(UTC)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="tally", daemon=True)

    def accept(self, source: Source) -> None:
        """Count a delivery that is durable."""
        self._accepted[source] += 1

    def refuse(self, status: int, reason: str) -> None:
        """Count a request that was answered *status*; *reason* is one of a few fixed texts."""
        self._refused[status, reason] += 1

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """Write the last figures; a disk that hangs is not waited for long."""
        self._over.set()
        self._thread.join(STOP_SECONDS)

    def figures(self) -> Json:
        """Return the counts."""
        return {
            "started_at": self._started_at.isoformat(),
            "accepted": dict(self._accepted),
            "refused": [
                {"status": status, "reason": reason, "count": count}
                for (status, reason), count in dict(self._refused).items()
            ],
        }

    def _work(self) -> None:
        written = None
        is_over = False
        while not is_over:
            if (figures := self.figures()) != written and self._save(figures):
                written = figures
            is_over = self._over.wait(SAVE_SECONDS)
        self._save(self.figures())

    def _save(self, figures: Json) -> bool:
        draft = self.file.with_name(f"{self.file.name}.{os.getpid()}")
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps(figures))
            draft.replace(self.file)
        except OSError as error:
            logger.debug("the receiver's counts were not written: %s", error.strerror)
            with suppress(OSError):
                draft.unlink()
            return False
        return True


def tally_file(settings: Settings) -> Path:
    """Return where the receiver's counts are."""
    return settings.twm_data_dir / FILE_NAME


def read_tally(settings: Settings) -> Json | None:
    """Return what the receiver counted since it started; None before its first start."""
    try:
        return dict(json.loads(tally_file(settings).read_bytes()))
    except (OSError, ValueError):
        return None
