"""One way to ask a vendor: budget, timeouts, bounded retries, and errors by what the caller does next.

Every attempt asks the budget for leave and draws its place in the order of observation before it is sent.
What is not a complete answer in the vendor's own JSON is never taken for one: an HTML page, a cut-off body, a
broken connection are tried again and then raised.
"""

from __future__ import annotations

import json
import logging
import re
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import orjson
import requests
import urllib3
from requests.auth import AuthBase
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    retry_if_not_exception_type,
    stop_after_attempt,
)
from tenacity.wait import wait_random_exponential

from twm_pipeline.errors import (
    AccessError,
    AuthenticationError,
    ConfigError,
    DatabaseUnavailableError,
    NotFoundError,
    RateLimitedError,
    RequestRefusedError,
    RetriableError,
    TwmError,
    UnansweredError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tenacity.retry import retry_base

    from twm_pipeline.budget import Budget, Permit

logger = logging.getLogger(__name__)

USER_AGENT = "twm-pipeline (mirrors an account of its operator; reads only what changed)"
ATTEMPTS = 5
SHOWN_PATH = 120
"""Characters of a path in a message: one that lists ids is longer than anybody reads."""
CONNECT_SECONDS = 10.0
READ_SECONDS = 65.0
ANSWER_SECONDS = 300.0
LONGEST_PAUSE_SECONDS = 900.0
DEFAULT_PAUSE_SECONDS = 60.0
EPOCH_FROM = 1_000_000_000
CHUNK_BYTES = 1 << 18

_BACKOFF = wait_random_exponential(multiplier=0.5, max=30)

MOST_WORDS = 200
LONGEST_WORDS = 2000
HIDDEN = "…"
ADDRESS = re.compile(r"[^\s\"'<>(),;]+@[^\s\"'<>(),;]+")
_QUOTATIONS = (
    re.compile(r'".*"', re.DOTALL),
    re.compile(r"(?<!\w)'.*'(?!\w)", re.DOTALL),
    re.compile(r"`.*`", re.DOTALL),
)
_NAME = re.compile(r"[a-zA-Z_][\w.\[\]]{0,40}", re.ASCII)
_TOKEN = re.compile(r"[\w-]{24,}")

_NUL_OR_SURROGATE = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A complete answer.

    Args:
        data: The decoded JSON, free of NUL characters and lone surrogates (PostgreSQL stores neither).
        seq: The attempt's place in the order of observation.
        date: The vendor's own clock, UTC, from the `Date` header.
        cleaned: How many characters were taken out or replaced.
    """

    data: Any
    seq: int
    date: datetime
    cleaned: int = 0


@dataclass(frozen=True, slots=True)
class _Request:
    """What is asked of a vendor; *body* is sent as JSON."""

    method: str
    path: str
    params: Mapping[str, str]
    body: Any = None


class BearerAuth(AuthBase):
    """Puts the token on a request."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, r: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the header."""
        r.headers["Authorization"] = f"Bearer {self._token}"
        return r


@dataclass(slots=True)
class Traffic:
    """What a session did: attempts sent, attempts that had to be repeated, bytes received."""

    attempts: int = 0
    retries: int = 0
    received_bytes: int = 0


@dataclass
class VendorSession:
    """Asks one vendor account, one request at a time.

    Args:
        name: The vendor's name in messages.
        base_url: Everything before the path.
        auth: Puts the credentials on a request.
        budget: The account's budget, entered.
        time_scale: How much faster than documented waits without a vendor's own figure are.
        read_seconds: How long the vendor may be silent.
        attempts: How often a request is tried.
        is_patient: Whether no request serves fresh changes, whatever its caller says (see `Budget.draw`).
        should_stop: Called between attempts; raises when the window is over.
        sleep: Replaced by tests.
    """

    name: str
    base_url: str
    auth: AuthBase
    budget: Budget
    time_scale: float = 1.0
    read_seconds: float = READ_SECONDS
    attempts: int = ATTEMPTS
    is_patient: bool = False
    should_stop: Callable[[], None] = lambda: None
    sleep: Callable[[float], None] = time.sleep
    traffic: Traffic = field(default_factory=Traffic)
    last_seq: int = 0
    last_date: datetime | None = None
    _session: requests.Session = field(default_factory=requests.Session)

    def __post_init__(self) -> None:
        self._session.headers.update({"User-Agent": USER_AGENT, "Accept": "application/json"})
        self._session.auth = self.auth
        # A company's proxy and certificates come from the environment; neither has any business on loopback.
        # A netrc entry replaces nothing: the session has credentials of its own.
        self._session.trust_env = not is_loopback(self.base_url)

    def get(self, path: str, params: Mapping[str, str] | None = None, *, fresh: bool = True) -> Reply:
        """Return the complete answer to ``GET path``.

        Args:
            path: Below the base address.
            params: Query parameters.
            fresh: Whether the request serves fresh changes (see `Budget.draw`).

        Raises:
            AuthenticationError: 401.
            AccessError: 403.
            NotFoundError: 404 in the vendor's own shape.
            RequestRefusedError: Another 4xx.
            RateLimitedError: 429 again and again.
            UnansweredError: No complete answer after the bounded number of tries.
            DatabaseUnavailableError: The budget cannot be asked; nothing was sent.
        """
        repeatable = retry_if_exception_type(RetriableError) & retry_if_not_exception_type(
            DatabaseUnavailableError
        )
        return self._retrying(_Request("GET", path, params or {}), fresh=fresh, retry=repeatable)

    def send(self, method: Literal["POST", "PUT", "DELETE"], path: str, *, body: Any = None) -> Reply:  # noqa: ANN401 - any JSON value
        """Change something at the vendor and return its answer; `data` is None where it has no body.

        Only a 429 is tried again: whether another failure came before or after the change is not known.

        Args:
            method: The HTTP method.
            path: Below the base address.
            body: Sent as JSON unless None.

        Raises:
            UnansweredError: No complete answer; the change may have been made.
            TwmError: As `get`.
        """
        return self._retrying(
            _Request(method, path, {}, body), fresh=True, retry=retry_if_exception_type(RateLimitedError)
        )

    def _retrying(self, request: _Request, *, fresh: bool, retry: retry_base) -> Reply:
        for attempt in Retrying(
            stop=stop_after_attempt(self.attempts),
            wait=self._wait,
            sleep=self._pause,
            retry=retry,
            before_sleep=self._note_retry,
            reraise=True,
        ):
            with attempt:
                return self._attempt(request, fresh=fresh)
        raise AssertionError  # tenacity either returns or raises

    def _wait(self, state: RetryCallState) -> float:
        """Return seconds before the next attempt; after a 429 it is the budget that waits."""
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, RateLimitedError):
            return 0.0
        backoff = _BACKOFF(state) / self.time_scale
        asked = error.retry_after if isinstance(error, RetriableError) else None
        return min(max(backoff, asked or 0.0), LONGEST_PAUSE_SECONDS)

    def _pause(self, seconds: float) -> None:
        self.should_stop()
        self.sleep(seconds)

    def _note_retry(self, state: RetryCallState) -> None:
        self.traffic.retries += 1
        error = state.outcome.exception() if state.outcome else None
        logger.warning("%s: attempt %d failed: %s", self.name, state.attempt_number, error)

    def _attempt(self, request: _Request, *, fresh: bool) -> Reply:
        permit = self.budget.draw(fresh=fresh and not self.is_patient)
        self.traffic.attempts += 1
        self.last_seq = permit.seq
        started = time.monotonic()
        try:
            response, body = self._exchange(request)
        finally:
            self.budget.finish(permit)
        logger.debug(
            "%s: %d, %d bytes, %.0f ms",
            self._words(request),
            response.status_code,
            len(body),
            (time.monotonic() - started) * 1000,
        )
        return self._read(request, response, body, permit)

    def _words(self, request: _Request) -> str:
        path = request.path
        shown = path if len(path) <= SHOWN_PATH else f"{path[:SHOWN_PATH]}…"
        return f"{self.name} {request.method} {shown}"

    def _exchange(self, request: _Request) -> tuple[requests.Response, bytes]:
        deadline = time.monotonic() + ANSWER_SECONDS
        try:
            with self._session.request(
                request.method,
                self.base_url + request.path,
                params=request.params,
                json=request.body,
                timeout=(CONNECT_SECONDS, self.read_seconds),
                allow_redirects=False,
                stream=True,
            ) as response:
                body = read_body(response, deadline=deadline, what=self._words(request))
                self.traffic.received_bytes += len(body)
                return response, body
        except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
            # ValueError: a redirect to what is no address. The library's text may repeat the address with
            # its query; the class says enough.
            where = f"from {self.base_url} ({type(error).__name__})"
            msg = f"{self._words(request)}: no complete answer {where}"
            raise UnansweredError(msg) from error

    def _read(self, request: _Request, response: requests.Response, body: bytes, permit: Permit) -> Reply:
        self.last_date = date = date_of(response)
        rates = _RateHeaders.of(response, date)
        self.budget.observe(limit=rates.limit, remaining=rates.remaining, reset_seconds=rates.reset_seconds)
        status = response.status_code
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            raise self._throttled(request, rates)
        if request.method != "GET" and status in _CHANGED and not body.strip():
            return Reply(data=None, seq=permit.seq, date=date)
        if status == HTTPStatus.OK or (request.method != "GET" and status in _CHANGED):
            try:
                data, cleaned = decode(body)
            except ValueError as error:
                msg = f"{self._words(request)}: the answer is not complete JSON ({len(body)} bytes)"
                raise UnansweredError(msg) from error
            return Reply(data=data, seq=permit.seq, date=date, cleaned=cleaned)
        raise self._error_of(request, response, body)

    def _throttled(self, request: _Request, rates: _RateHeaders) -> RateLimitedError:
        seconds = rates.retry_seconds
        if seconds is None:
            seconds = DEFAULT_PAUSE_SECONDS / self.time_scale
        msg = f"{self._words(request)}: 429, asked to wait {seconds:.1f} s"
        self.budget.pause(min(seconds, LONGEST_PAUSE_SECONDS), reason=f"{self.name} answered 429")
        return RateLimitedError(msg, retry_after=seconds)

    def _error_of(self, request: _Request, response: requests.Response, body: bytes) -> Exception:
        status = response.status_code
        words = _vendor_words(body)
        what = f"{self._words(request)}: {status}" + (f" {words!r}" if words else "")
        if status == HTTPStatus.UNAUTHORIZED:
            return AuthenticationError(f"{what}. Check the address ({self.base_url}) and the key.")
        if status < HTTPStatus.BAD_REQUEST:
            return ConfigError(f"{what}: not an answer of the API. Check the address ({self.base_url}).")
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or words is None:
            return UnansweredError(what, retry_after=retry_after(response, date_of(response)))
        return _REFUSALS.get(status, RequestRefusedError)(what)


def read_body(response: requests.Response, *, deadline: float, what: str) -> bytes:
    """Return the whole body of a streamed answer.

    Args:
        response: Its body has not been read.
        deadline: On the clock of `time.monotonic`.
        what: The request in words.

    Raises:
        UnansweredError: If the body is not complete at *deadline*, however steadily it arrives.
    """
    chunks = []
    # read1 hands over what has arrived; iter_content would wait for a whole chunk, however slow.
    while chunk := response.raw.read1(CHUNK_BYTES, decode_content=True):
        chunks.append(chunk)
        if time.monotonic() > deadline:
            msg = f"{what}: the answer took longer than {ANSWER_SECONDS:.0f} s"
            raise UnansweredError(msg)
    return b"".join(chunks)


def is_loopback(url: str) -> bool:
    """Return whether *url* is on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


_CHANGED = frozenset((HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.ACCEPTED, HTTPStatus.NO_CONTENT))
"""What answers a change that was made."""

_REFUSALS: dict[int, type[TwmError]] = {
    HTTPStatus.FORBIDDEN: AccessError,
    HTTPStatus.NOT_FOUND: NotFoundError,
}


def decode(body: bytes) -> tuple[Any, int]:
    """Return the JSON of *body* without NUL and lone surrogates, and how many of them there were.

    Raises:
        ValueError: If *body* is not complete JSON.
    """
    suspicious = _NUL_OR_SURROGATE.search(body) is not None
    if not suspicious:
        try:
            return orjson.loads(body), 0
        except orjson.JSONDecodeError:
            pass  # control characters and invalid UTF-8 are forgiven below
    try:
        data = json.loads(body.decode("utf-8", errors="replace"), strict=False)
        if not suspicious and b"\x00" not in body:
            return data, 0
        count = [0]
        return _clean(data, count), count[0]
    except RecursionError as error:
        msg = "nested too deep"
        raise ValueError(msg) from error


def _clean(value: Any, count: list[int]) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, str):
        text = value.replace("\x00", "")
        count[0] += len(value) - len(text)
        text, replaced = _SURROGATE.subn("\N{REPLACEMENT CHARACTER}", text)
        count[0] += replaced
        return text
    if isinstance(value, list):
        return [_clean(item, count) for item in value]
    if isinstance(value, dict):
        return {_clean(key, count): _clean(item, count) for key, item in value.items()}
    return value


def _vendor_words(body: bytes) -> str | None:
    """Return the vendor's own words of an error, or None where the body is not in a vendor's form."""
    try:
        data, _ = decode(body)
    except ValueError:
        return None
    if not isinstance(data, dict):
        return None
    found = data.get("error", data.get("errors", data.get("message", data.get("MESSAGE"))))
    if found is None:
        return None
    if isinstance(found, list):
        found = found[0] if found else ""
    if isinstance(found, dict):
        found = found.get("message") or found.get("detail") or found.get("title") or ""
    if not isinstance(found, str):
        return ""
    # What is so long is no message, and the search for addresses would take its length squared.
    return without_content(found)[:MOST_WORDS] if len(found) <= LONGEST_WORDS else HIDDEN


def without_content(words: str) -> str:
    """Return *words* of a vendor without what may come from a record or a credential.

    Quotations that are no mere name, addresses, and whatever is as long as a token are hidden. A quotation
    may hold quotation marks itself: from the first to the last mark all is hidden.
    """
    for quotation in _QUOTATIONS:
        words = quotation.sub(_hide_quotation, words)
    return _TOKEN.sub(HIDDEN, ADDRESS.sub(HIDDEN, words))


def _hide_quotation(found: re.Match[str]) -> str:
    text = found[0]
    return text if _NAME.fullmatch(text[1:-1]) else f"{text[0]}{HIDDEN}{text[-1]}"


def date_of(response: requests.Response) -> datetime:
    """Return the vendor's clock; only an answer without a `Date` falls back to ours."""
    try:
        moment = parsedate_to_datetime(response.headers["Date"])
    except (KeyError, ValueError):
        return datetime.now(UTC)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def retry_after(response: requests.Response, date: datetime) -> float | None:
    """Return the seconds of `Retry-After`, which is a number or an HTTP date (RFC 9110, 10.2.3)."""
    value = response.headers.get("Retry-After", "").strip()
    if not value:
        return None
    number = _number(value)
    if number is not None:
        return max(number, 0.0)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    # HTTP dates have whole seconds on both sides: one more keeps the wait from being too short.
    return max((moment - date).total_seconds() + 1, 0.0)


def _number(value: str | None) -> float | None:
    try:
        number = float(value) if value else None
    except ValueError:
        return None
    return number if number is not None and abs(number) < float("inf") else None


@dataclass(frozen=True, slots=True)
class _RateHeaders:
    """What the headers say of the budget; either spelling, `Reset` in seconds to go or epoch seconds."""

    limit: int | None
    remaining: int | None
    reset_seconds: float | None
    retry_seconds: float | None

    @classmethod
    def of(cls, response: requests.Response, date: datetime) -> _RateHeaders:
        def read(word: str) -> float | None:
            headers = response.headers
            return _number(headers.get(f"X-Rate-Limit-{word}") or headers.get(f"X-RateLimit-{word}"))

        reset = read("Reset")
        if reset is not None and reset > EPOCH_FROM:
            reset = max(reset - date.timestamp() + 1, 0.0)
        limit, remaining = read("Limit"), read("Remaining")
        asked = retry_after(response, date)
        return cls(
            limit=int(limit) if limit is not None else None,
            remaining=int(remaining) if remaining is not None else None,
            reset_seconds=reset,
            retry_seconds=asked if asked is not None else reset,
        )
