"""From an accepted delivery to its place on disk: one thread writes, for everybody who waits.

While a round is written and synced, the next deliveries gather; they share the next round. So the disk is
asked once for many of them when there are many, and at once when there is one.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from twm_pipeline.errors import RetriableError, place_of
from twm_pipeline.records import SOURCES, Source

if TYPE_CHECKING:
    from twm_pipeline.spool import Envelope, Spool

logger = logging.getLogger(__name__)

STOP_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A delivery whose sender waits; the result is whether it is durable."""

    envelope: Envelope
    result: asyncio.Future[bool]


class Intake:
    """Takes deliveries from the event loop, stores them, and says so there.

    Args:
        spools: Where the deliveries of each source go.
    """

    def __init__(self, spools: Mapping[Source, Spool]) -> None:
        self._spools = spools
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="intake", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begin to write; called on the event loop that is to be told."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """Write what was taken so far, then end; a disk that hangs is waited for `STOP_SECONDS`."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join, STOP_SECONDS)

    async def store(self, envelope: Envelope) -> bool:
        """Return True once *envelope* survives a power cut, False if it was not kept."""
        result: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._queue.put(_Waiting(envelope, result))
        return await result

    def _work(self) -> None:
        more = True
        while more:
            batch, more = self._next_round()
            results: list[tuple[_Waiting, bool]] = []
            for source in SOURCES:
                waiting = [item for item in batch if item.envelope.source == source]
                if waiting:
                    kept = self._put(source, [item.envelope for item in waiting])
                    results += [(item, kept) for item in waiting]
            if self._loop is not None and results:
                self._loop.call_soon_threadsafe(_tell, results)

    def _next_round(self) -> tuple[list[_Waiting], bool]:
        """Wait for a delivery, then return all that wait, and whether more may come."""
        batch: list[_Waiting] = []
        item = self._queue.get()
        try:
            while item is not None:
                batch.append(item)
                item = self._queue.get_nowait()
        except Empty:
            return batch, True
        return batch, False

    def _put(self, source: Source, envelopes: Sequence[Envelope]) -> bool:
        began = time.monotonic()
        try:
            self._spools[source].put(envelopes)
        except RetriableError as error:
            logger.error("Put off %d deliveries of %s: %s", len(envelopes), source, error)  # noqa: TRY400 - its text says all
            return False
        except Exception as error:  # noqa: BLE001 - whatever it is, the vendor has to come again
            logger.error("Put off %d deliveries of %s: %s", len(envelopes), source, place_of(error))  # noqa: TRY400 - a text may hold the body
            return False
        _log(source, envelopes, seconds=time.monotonic() - began)
        return True


def _tell(results: Sequence[tuple[_Waiting, bool]]) -> None:
    for item, kept in results:
        if not item.result.done():
            item.result.set_result(kept)


def _log(source: Source, envelopes: Sequence[Envelope], *, seconds: float) -> None:
    if logger.isEnabledFor(logging.INFO):
        named = [f"{item.hint.event or 'unnamed'} {item.hint.object_id or '-'}" for item in envelopes]
        logger.info(
            "Accepted %d of %s in %.1f ms: %s", len(envelopes), source, 1000 * seconds, ", ".join(named)
        )
