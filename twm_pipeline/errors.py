"""Every error the product raises on purpose, one class per reaction of the caller."""

from __future__ import annotations

import traceback
from pathlib import Path

PACKAGE_DIR = Path(__file__).resolve().parent


class TwmError(Exception):
    """The base of all errors of this package; its text is meant to be read by an operator."""


class ConfigError(TwmError):
    """The deployment has to be changed: a setting, a credential, a permission."""


class RetriableError(TwmError):
    """The same work may succeed later: an outage, a rate limit, an answer that cannot be trusted.

    Args:
        message: What was tried and what came back.
        retry_after: Seconds to wait before the next try, when the other side said so.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DatabaseUnavailableError(RetriableError):
    """PostgreSQL does not answer; without it no vendor request is made (DESIGN D6)."""


class SpoolError(RetriableError):
    """The spool's disk or folder does not do what it was asked; nothing of the request is kept."""


class SpoolFullError(SpoolError):
    """There is no room for a delivery, or only the reserve."""


class CollisionError(RetriableError):
    """Two transactions waited for each other and PostgreSQL ended this one; it may be tried again at once."""


class RateLimitedError(RetriableError):
    """The vendor went on answering 429 after the bounded number of tries."""


class UnansweredError(RetriableError):
    """No complete answer after the bounded number of tries: 5xx, a broken connection, cut-off JSON."""


class PagingError(RetriableError):
    """A listing contradicts itself (repeated page, wrong order), so nothing may be concluded from it."""


class SchemaChangedError(RetriableError):
    """A table or field is not what set-up found any more: set up again, then go on."""


class PermanentError(TwmError):
    """Trying again does not help; somebody has to look."""


class AuthenticationError(PermanentError):
    """The vendor refuses the credentials (401): the whole source stops."""


class AccessError(PermanentError):
    """The vendor forbids one resource (403): one stream stops, the others go on."""


class RequestRefusedError(PermanentError):
    """The vendor calls our request malformed (400, 422): a defect of ours or a changed API."""


class QuotaExhaustedError(PermanentError):
    """The account's calls of the month are used up: nothing is sent until somebody says so."""


class AccountChangedError(PermanentError):
    """The credentials belong to another account than the rows already stored."""


class MassDeletionError(PermanentError):
    """More rows would become tombstones by absence than DESIGN D5 allows without confirmation."""


class NotFoundError(TwmError):
    """The vendor answers 404 in its own JSON shape: unknown, invisible or deleted."""


class RecordError(TwmError):
    """One record cannot be used; it is set aside with this reason and the others go on."""


class LinkRefusedError(RecordError):
    """The storage of a file refuses its address: it has expired, or the file is gone."""


class UnsafeAddressError(RecordError):
    """The address of a file leads into a private network; nothing was asked there."""


class FileTooLargeError(RecordError):
    """A file is larger than is wanted."""


class StoreUnavailableError(RetriableError):
    """The attachment store does not take files: it cannot be reached, is full, or refuses us."""


class DeliveryError(TwmError):
    """A delivery is refused: it is answered with *status* and nothing of it is kept.

    Args:
        message: Why, in words that hold nothing of the delivery itself.
        status: The HTTP status of the answer.
    """

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class WindowClosedError(TwmError):
    """The time or the lock of this window is over; what is committed stays, the rest is done later."""


def place_of(error: BaseException) -> str:
    """Return class and place of *error* for a line that must not hold its text.

    What a library says may hold a value of a row, that is a message's body or an address. The place is the
    last line of this package that the error passed through.
    """
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(PACKAGE_DIR)]
    where = f"{Path(own[-1].filename).relative_to(PACKAGE_DIR)}:{own[-1].lineno}" if own else "unknown"
    return f"{type(error).__name__} in {where}"


def trace_of(error: BaseException) -> str:
    """Return the traceback of *error* and of its causes, without the texts of libraries (see `place_of`)."""
    parts = []
    link: BaseException | None = error
    while link is not None:
        text = f": {link}" if isinstance(link, TwmError) else ""
        parts.append("".join([*traceback.format_tb(link.__traceback__), f"{type(link).__name__}{text}"]))
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return "\nwhich came of:\n".join(parts)
