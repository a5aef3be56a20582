"""What the vendor refuses is left out, said and noted; the rest of the pass goes on (DESIGN D6)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVar

from twm_pipeline.errors import AccessError, NotFoundError, RequestRefusedError, TwmError
from twm_pipeline.mirror.refusals import note_refusal, read_refusals, resolve_refusal, stopped_streams

if TYPE_CHECKING:
    from collections.abc import Callable

    from twm_pipeline.sync.engine import Pass

logger = logging.getLogger(__name__)

T = TypeVar("T")

REFUSALS: tuple[type[TwmError], ...] = (AccessError, NotFoundError, RequestRefusedError)
"""How a vendor answers for what a plan or a role leaves out."""


def read_unless_refused(  # noqa: PLR0913 - two words name a feed, one what its lack means
    work: Pass,
    stream: str,
    feed: str = "",
    *,
    read: Callable[[], T],
    what: str | None = None,
    refusals: tuple[type[TwmError], ...] = REFUSALS,
) -> T | None:
    """Read a feed, or note that it is refused and return None; what could be read is refused no longer.

    Args:
        work: The pass.
        stream: The stream.
        feed: The mailbox or feed; empty for the stream itself.
        read: Reads it.
        what: What that means, for people; the stream's name if left out.
        refusals: Errors by which it is refused; others pass.
    """
    result: T | None = None
    try:
        result = read()
    except refusals as error:
        work.report.problems.append(f"{what or stream}: {error}")
        logger.warning("%s %s is left out: %s", work.source, what or stream, error)
        with work.commit() as connection:
            note_refusal(connection, work.source, stream, feed, reason=str(error))
        recall_refusals(work).add((stream, feed))
    else:
        if (stream, feed) in recall_refusals(work):
            with work.commit() as connection:
                resolve_refusal(connection, work.source, stream, feed)
            recall_refusals(work).remove((stream, feed))
    work.report.stopped = stopped_streams(recall_refusals(work))
    return result


def recall_refusals(work: Pass) -> set[tuple[str, str]]:
    """Return what is refused, by stream and feed: as noted before this pass, and by it."""
    if work.refused is None:
        with work.read() as connection:
            known = read_refusals(connection, work.source)
        work.refused = {(item["stream"], item["feed"]) for item in known}
        work.report.stopped = stopped_streams(work.refused)
    return work.refused
