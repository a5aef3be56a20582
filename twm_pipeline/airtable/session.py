"""The session under pyairtable: leave from the budget, bounded repeats, errors by what the caller does next.

pyairtable goes on building requests and reading answers; whatever is not a complete answer is raised here,
before it sees it.
"""

from __future__ import annotations

import io
import logging
import random
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import orjson
import requests
import urllib3
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_random_exponential

from twm_pipeline.airtable.refusals import QUOTA, Asked, Refusal, to_error
from twm_pipeline.errors import (
    AuthenticationError,
    ConfigError,
    RateLimitedError,
    RequestRefusedError,
    RetriableError,
    TwmError,
    UnansweredError,
)
from twm_pipeline.http import (
    ANSWER_SECONDS,
    ATTEMPTS,
    LONGEST_PAUSE_SECONDS,
    USER_AGENT,
    BearerAuth,
    date_of,
    decode,
    is_loopback,
    read_body,
    retry_after,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from requests.auth import AuthBase

    from twm_pipeline.budget import Budget

logger = logging.getLogger(__name__)

PENALTY_SECONDS = 30.0
"""After a 429 Airtable refuses everything for this long (Web API, "Rate limits")."""
JITTER_SECONDS = 2.0
SETTLE_SECONDS = 2.0
"""Least wait before a write is repeated: the first may be under way, and two upserts at once double a key."""

_BACKOFF = wait_random_exponential(multiplier=0.5, max=30)
_REPEATABLE = frozenset({"GET", "PATCH", "DELETE"})
_LISTING = "/listRecords"


@dataclass
class Pace:
    """What surrounds the requests of a client.

    Args:
        budget: The base's budget, entered.
        time_scale: How much faster than documented waits are.
        before_attempt: Called before every attempt; raises when none may be made.
        sleep: Replaced by tests.
        fresh: Whether what follows serves fresh changes (see `Budget.draw`).
        names: Names of tables and fields, the only quotations that errors repeat.
    """

    budget: Budget
    time_scale: float = 1.0
    before_attempt: Callable[[], None] = lambda: None
    sleep: Callable[[float], None] = time.sleep
    fresh: bool = True
    names: set[str] = field(default_factory=set)


class AirtableSession(requests.Session):
    """Sends one request at a time.

    Args:
        url: The API's address.
        token: The personal access token.
        pace: See `Pace`.
    """

    def __init__(self, url: str, *, token: str, pace: Pace) -> None:
        super().__init__()
        self.pace = pace
        self.headers.update({"User-Agent": USER_AGENT, "Accept": "application/json"})
        # Not as a header only: an entry in the user's netrc would replace it.
        self.auth: AuthBase = BearerAuth(token)
        self.trust_env = not is_loopback(url)

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """Return the request with its JSON in UTF-8: a third of what requests' own escapes would take."""
        if request.json is not None:
            request.data, request.json = orjson.dumps(request.json), None
            request.headers = {**request.headers, "Content-Type": "application/json"}
        return super().prepare_request(request)

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:  # noqa: ANN401 - as in requests
        """Return a complete answer in Airtable's JSON.

        Reads, updates, upserts and deletions are repeated after an outage; what makes something new only
        after a 429, which made nothing.

        Raises:
            TwmError: See `refusals.to_error`; `RateLimitedError` and `UnansweredError` after bounded tries.
        """
        method, path = request.method or "", urlsplit(request.url or "").path
        repeatable = method in _REPEATABLE or path.endswith(_LISTING)
        retried = (RateLimitedError, UnansweredError) if repeatable else RateLimitedError
        words = f"Airtable {method} {path}"
        for attempt in Retrying(
            stop=stop_after_attempt(ATTEMPTS),
            wait=lambda state: self._wait(state, writes=method != "GET"),
            sleep=self.pace.sleep,
            retry=retry_if_exception_type(retried),
            before_sleep=_note_retry,
            reraise=True,
        ):
            with attempt:
                return self._attempt(request, words, kwargs)
        raise AssertionError  # tenacity either returns or raises

    def _wait(self, state: RetryCallState, *, writes: bool) -> float:
        """Return seconds before the next attempt; after a 429 it is the budget that waits."""
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, RateLimitedError):
            return 0.0
        backoff = (_BACKOFF(state) + (SETTLE_SECONDS if writes else 0.0)) / self.pace.time_scale
        asked = error.retry_after if isinstance(error, RetriableError) else None
        return min(max(backoff, asked or 0.0), LONGEST_PAUSE_SECONDS)

    def _attempt(
        self, request: requests.PreparedRequest, words: str, kwargs: dict[str, Any]
    ) -> requests.Response:
        self.pace.before_attempt()
        budget = self.pace.budget
        permit = budget.draw(fresh=self.pace.fresh)
        started = time.monotonic()
        try:
            response, body = self._exchange(request, words, kwargs)
        finally:
            budget.finish(permit)
        milliseconds = (time.monotonic() - started) * 1000
        logger.debug("%s: %d, %d bytes, %.0f ms", words, response.status_code, len(body), milliseconds)
        return self._read(request, words, response, body)

    def _exchange(
        self, request: requests.PreparedRequest, words: str, kwargs: dict[str, Any]
    ) -> tuple[requests.Response, bytes]:
        deadline = time.monotonic() + ANSWER_SECONDS
        try:
            with super().send(request, **{**kwargs, "stream": True, "allow_redirects": False}) as response:
                return response, read_body(response, deadline=deadline, what=words)
        except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
            # ValueError: a redirect to what is no address. The library's text may repeat the query.
            msg = f"{words}: no complete answer ({type(error).__name__})"
            raise UnansweredError(msg) from error

    def _read(
        self, request: requests.PreparedRequest, words: str, response: requests.Response, body: bytes
    ) -> requests.Response:
        if response.status_code != HTTPStatus.OK:
            raise self._error_of(request, words, response, body)
        try:
            decode(body)
        except ValueError as error:
            msg = f"{words}: the answer is not complete JSON ({len(body)} bytes)"
            raise UnansweredError(msg) from error
        response.raw = io.BytesIO(body)
        response.encoding = "utf-8"  # JSON's; else requests would guess from the whole body
        return response

    def _error_of(
        self, request: requests.PreparedRequest, words: str, response: requests.Response, body: bytes
    ) -> TwmError:
        status, refusal = response.status_code, Refusal.of(body)
        asked_to_wait = retry_after(response, date_of(response))
        if status == HTTPStatus.TOO_MANY_REQUESTS and (refusal is None or refusal.type != QUOTA):
            return self._throttled(words, asked_to_wait)
        if status < HTTPStatus.BAD_REQUEST:
            return ConfigError(f"{words}: {status}: not an answer of the API. Check AIRTABLE_ENDPOINT_URL")
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            kind = f" {refusal.type}" if refusal else ""
            return UnansweredError(f"{words}: {status}{kind}", retry_after=asked_to_wait)
        if refusal is None:
            return _error_without_words(f"{words}: {status}", status, asked_to_wait)
        parts = urlsplit(request.url or "")
        asked = Asked.of(words=words, path=parts.path, query=parts.query, body=request.body)
        return to_error(status, refusal, asked, names=self.pace.names)

    def _throttled(self, words: str, asked: float | None) -> RateLimitedError:
        """Keep the whole base silent: until the penalty is over every further request would be refused."""
        jitter = random.uniform(0, JITTER_SECONDS)  # noqa: S311 - spreads processes, hides nothing
        seconds = asked if asked is not None else (PENALTY_SECONDS + jitter) / self.pace.time_scale
        msg = f"{words}: 429, the base is left alone for {seconds:.1f} s"
        self.pace.budget.pause(min(seconds, LONGEST_PAUSE_SECONDS), reason="Airtable answered 429")
        return RateLimitedError(msg, retry_after=seconds)


def _error_without_words(words: str, status: int, asked_to_wait: float | None) -> TwmError:
    """Return the error of a refusal that is not in Airtable's form: others stand before it."""
    if status == HTTPStatus.UNAUTHORIZED:
        return AuthenticationError(f"{words}. Check AIRTABLE_ENDPOINT_URL and AIRTABLE_API_KEY")
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:  # Airtable itself has no words for it
        return RequestRefusedError(f"{words}, the request is too large")
    return UnansweredError(f"{words}, but not in Airtable's form", retry_after=asked_to_wait)


def _note_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    logger.warning("attempt %d failed: %s", state.attempt_number, error)
