"""From an accepted delivery to its place on disk: one thread writes, for everybody who waits.

While a round is written and synced, the next deliveries gather; they share the next round. So the disk is
asked once for many of them when there are many, and at once when there is one.
"""

from __future__ import annotations

import asyncio
import contextlib
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
        self.failing: set[Source] = set()
        """Sources whose last deliveries could not be stored."""

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
            for source in SOURCES:
                waiting = [item for item in batch if item.envelope.source == source]
                if waiting:
                    self._put(source, waiting)

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

    def _put(self, source: Source, waiting: Sequence[_Waiting]) -> None:
        """Store deliveries of one source, then tell those who wait for it."""
        began = time.monotonic()
        envelopes = [item.envelope for item in waiting]
        try:
            self._spools[source].put(envelopes)
        except Exception as error:  # noqa: BLE001 - whatever it is, the vendor has to come again
            # The text of an error that we do not know may hold the body.
            reason = error if isinstance(error, RetriableError) else place_of(error)
            logger.error("Put off %d deliveries of %s: %s", len(waiting), source, reason)  # noqa: TRY400 - without a traceback
            self.failing.add(source)
            self._tell(waiting, kept=False)
        else:
            self.failing.discard(source)
            self._tell(waiting, kept=True)
            _log(source, envelopes, seconds=time.monotonic() - began)

    def _tell(self, waiting: Sequence[_Waiting], *, kept: bool) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waited so long
                self._loop.call_soon_threadsafe(_answer, waiting, kept)


def _answer(waiting: Sequence[_Waiting], kept: bool) -> None:
    for item in waiting:
        if not item.result.done():
            item.result.set_result(kept)


def _log(source: Source, envelopes: Sequence[Envelope], *, seconds: float) -> None:
    if logger.isEnabledFor(logging.INFO):
        named = [f"{item.hint.event or 'unnamed'} {item.hint.object_id or '-'}" for item in envelopes]
        logger.info(
            "Accepted %d of %s in %.1f ms: %s",
            len(envelopes),
            source,
            1000 * seconds,
            ", ".join(named),
            extra={"source": source},
        )
