"""Answers of a real server on the loopback, from orderly to hostile, and what the caller learns of them."""

import contextlib
import dataclasses
import gzip
import json
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from requests.auth import HTTPBasicAuth

from twm_pipeline import http
from twm_pipeline.budget import Permit
from twm_pipeline.errors import (
    AccessError,
    AuthenticationError,
    ConfigError,
    DatabaseUnavailableError,
    NotFoundError,
    RateLimitedError,
    RequestRefusedError,
    UnansweredError,
    WindowClosedError,
)
from twm_pipeline.http import ATTEMPTS, LONGEST_PAUSE_SECONDS, VendorSession, decode

SECRET = "s3cret-t0ken"
CLOCK = datetime(2025, 3, 4, 12, 0, tzinfo=UTC)
DATE = {"Date": format_datetime(CLOCK, usegmt=True)}
OK = b'{"ok": true}'
REFUSED = b'{"errors": [{"title": "unexpected error", "detail": "401: Not authorized"}]}'


CHUNKED: dict[str, str | None] = {"Transfer-Encoding": "chunked", "Content-Length": None}


@dataclass
class Answer:
    """What the server sends: a status line, headers and a body, cut off or held back if so told."""

    status: int = 200
    body: bytes = OK
    headers: dict[str, Any] = field(default_factory=dict)
    missing_bytes: int = 0
    reset: bool = False
    stall: bool = False
    trickle: bool = False


class Vendor:
    """A server that answers from a list; its last answer is repeated."""

    def __init__(self) -> None:
        self.answers: list[Answer] = [Answer()]
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.released = threading.Event()
        vendor = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                vendor.requests.append((self.path, dict(self.headers.items())))
                answer = vendor.answers.pop(0) if len(vendor.answers) > 1 else vendor.answers[0]
                vendor.send(self, answer)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def send(self, handler: BaseHTTPRequestHandler, answer: Answer) -> None:
        handler.close_connection = True
        if answer.reset:
            linger_not = b"\x01\x00\x00\x00\x00\x00\x00\x00"
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_not)
            handler.connection.close()
            return
        handler.send_response_only(answer.status)
        length = str(len(answer.body) + answer.missing_bytes)
        for name, value in {**DATE, "Content-Length": length, **answer.headers}.items():
            if value is not None:
                handler.send_header(name, value)
        handler.end_headers()
        if answer.stall:
            handler.wfile.flush()
            self.released.wait(30)
        elif answer.trickle:
            for byte in answer.body:
                if self.released.wait(0.01):
                    return
                handler.wfile.write(bytes([byte]))
                handler.wfile.flush()
        else:
            handler.wfile.write(answer.body)

    def close(self) -> None:
        self.released.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@dataclass
class FakeBudget:
    """Gives leave at once and remembers what it was told."""

    seq: int = 0
    unfinished: set[int] = field(default_factory=set)
    fresh: list[bool] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    observed: list[dict[str, Any]] = field(default_factory=list)

    def draw(self, *, fresh: bool) -> Permit:
        self.seq += 1
        self.fresh.append(fresh)
        self.unfinished.add(self.seq)
        return Permit(seq=self.seq, slot=0)

    def finish(self, permit: Permit) -> None:
        self.unfinished.remove(permit.seq)

    def pause(self, seconds: float, *, reason: str) -> None:
        assert reason == "Teamwork answered 429"
        self.pauses.append(seconds)

    def observe(self, **said: Any) -> None:
        self.observed.append(said)


@dataclass
class Caller:
    session: VendorSession
    budget: FakeBudget
    slept: list[float]


@pytest.fixture
def vendor() -> Iterator[Vendor]:
    vendor = Vendor()
    yield vendor
    vendor.close()


@pytest.fixture
def caller(vendor: Vendor) -> Iterator[Caller]:
    with open_caller(vendor.url) as caller:
        yield caller


@contextmanager
def open_caller(url: str, **settings: Any) -> Iterator[Caller]:
    budget, slept = FakeBudget(), list[float]()
    session = VendorSession(
        name="Teamwork",
        base_url=url,
        auth=HTTPBasicAuth(SECRET, "x"),
        budget=budget,  # type: ignore[arg-type]  # a fake of the same shape
        sleep=slept.append,
        **settings,
    )
    yield Caller(session, budget, slept)
    session._session.close()
    assert not budget.unfinished


def test_a_complete_answer_is_handed_over_with_its_place_and_clock(vendor, caller):
    vendor.answers = [Answer(body='{"name": "Größe 客"}'.encode())]

    reply = caller.session.get("/tasks.json", {"page": "1", "q": "a b&c"}, fresh=False)

    assert (reply.data, reply.seq, reply.date, reply.cleaned) == ({"name": "Größe 客"}, 1, CLOCK, 0)
    assert vendor.requests[0][0] == "/tasks.json?page=1&q=a+b%26c"
    assert caller.budget.fresh == [False]
    assert (caller.session.traffic.attempts, caller.session.traffic.retries) == (1, 0)
    assert caller.session.last_seq == 1


def test_a_compressed_answer_is_read(vendor, caller):
    vendor.answers = [Answer(body=gzip.compress(OK), headers={"Content-Encoding": "gzip"})]

    assert caller.session.get("/").data == {"ok": True}


def test_an_answer_in_chunks_is_read(vendor, caller):
    vendor.answers = [Answer(body=b'6\r\n{"ok":\r\n6\r\n true}\r\n0\r\n\r\n', headers=CHUNKED)]

    assert caller.session.get("/").data == {"ok": True}


def test_an_answer_larger_than_one_read_is_complete(vendor, caller):
    vendor.answers = [Answer(body=json.dumps({"text": "x" * 3_000_000}).encode())]

    assert len(caller.session.get("/").data["text"]) == 3_000_000
    assert caller.session.traffic.received_bytes > 3_000_000


def test_without_a_date_our_own_clock_stands_in(vendor, caller):
    vendor.answers = [Answer(headers={"Date": "yesterday"})]

    assert abs(caller.session.get("/").date - datetime.now(UTC)) < timedelta(minutes=1)


def test_the_request_says_who_asks_and_what_it_takes(vendor, caller):
    caller.session.get("/")

    _, headers = vendor.requests[0]
    assert headers["User-Agent"].startswith("twm-pipeline ")
    assert headers["Accept"] == "application/json"
    assert headers["Authorization"].startswith("Basic ")


def test_a_netrc_entry_does_not_replace_the_credentials(vendor, caller, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login other password other\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    caller.session._session.trust_env = True  # as it is for every host that is not this machine

    caller.session.get("/")

    assert vendor.requests[0][1]["Authorization"] == "Basic czNjcmV0LXQwa2VuOng="


@pytest.mark.parametrize(
    ("url", "proxied"),
    [
        ("https://example.teamwork.com", True),
        ("http://127.0.0.1:8000/teamwork", False),
        ("http://[::1]:8000", False),
        ("http://localhost:8000", False),
    ],
    ids=["a vendor", "IPv4", "IPv6", "by name"],
)
def test_a_proxy_of_the_environment_is_used_but_not_for_loopback(url, proxied, caller):
    session = dataclasses.replace(caller.session, base_url=url, _session=requests.Session())

    assert session._session.trust_env is proxied


FINAL = {
    "401": (Answer(401, REFUSED), AuthenticationError, "401 '401: Not authorized'. Check the address"),
    "401 without a word": (Answer(401, b""), AuthenticationError, "401. Check the address"),
    "401 as a page": (Answer(401, b"<html>login</html>"), AuthenticationError, "Check the address"),
    "403": (Answer(403, b'{"error": {"message": "no plan"}}'), AccessError, "403 'no plan'"),
    "404": (Answer(404, b'{"errors": [{"title": "Not found"}]}'), NotFoundError, "404 'Not found'"),
    "404 of v1": (Answer(404, b'{"STATUS": "Error", "MESSAGE": "gone"}'), NotFoundError, "404 'gone'"),
    "404 with an empty list": (Answer(404, b'{"errors": []}'), NotFoundError, "404"),
    "400": (Answer(400, b'{"message": "bad id"}'), RequestRefusedError, "400 'bad id'"),
    "422": (Answer(422, b'{"errors": "words"}'), RequestRefusedError, "422 'words'"),
    "302": (Answer(302, b"", {"Location": "https://example.com/login"}), ConfigError, "302: not an answer"),
    "308 without a place": (Answer(308, b""), ConfigError, "308: not an answer"),
    "204": (Answer(204, b""), ConfigError, "204: not an answer"),
}


@pytest.mark.parametrize(("answer", "error", "words"), FINAL.values(), ids=FINAL)
def test_a_refusal_is_asked_once_and_told_in_words(vendor, caller, answer, error, words):
    vendor.answers = [answer]

    with pytest.raises(error) as caught:
        caller.session.get("/tasks.json")

    assert type(caught.value) is error
    assert words in str(caught.value)
    assert len(vendor.requests) == 1
    assert caller.slept == []


BROKEN = {
    "500": Answer(500, b'{"error": {"message": "oops"}}'),
    "502 as a page": Answer(502, b"<html>Bad Gateway</html>"),
    "503": Answer(503, b""),
    "a page with 200": Answer(200, b"<html>Please log in</html>"),
    "nothing with 200": Answer(200, b""),
    "a page with 404": Answer(404, b"<html>Not Found</html>"),
    "a page with 403": Answer(403, b"<html>blocked</html>"),
    "a bare list with 404": Answer(404, b"[]"),
    "cut off": Answer(200, b'{"tasks": [{"id": 1}', missing_bytes=10),
    "cut off but whole by chance": Answer(200, b"[]", missing_bytes=10),
    "half of the JSON": Answer(200, b'{"tasks": [{"id": 1}'),
    "reset": Answer(reset=True),
    "cut off between chunks": Answer(200, b"5\r\n[1234\r\n", CHUNKED),
    "cut off within a chunk": Answer(200, b"5\r\n[12", CHUNKED),
    "a redirect to nowhere": Answer(301, b"", {"Location": "http://[bad"}),
    "broken compression": Answer(200, OK, {"Content-Encoding": "gzip"}),
    "nested beyond reason": Answer(200, b"[" * 100_000 + b"]" * 100_000),
    "numbers beyond reason": Answer(200, b'{"\\u0000": ' + b"9" * 5000 + b"}"),
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
def test_an_incomplete_answer_is_asked_again_and_then_reported(vendor, caller, answer):
    vendor.answers = [answer]

    with pytest.raises(UnansweredError, match=r"^Teamwork GET /tasks\.json: ") as caught:
        caller.session.get("/tasks.json", {"q": SECRET})

    assert SECRET not in str(caught.value)
    assert len(vendor.requests) == ATTEMPTS == caller.session.traffic.attempts
    assert caller.session.traffic.retries == ATTEMPTS - 1
    assert len(caller.slept) == ATTEMPTS - 1
    assert all(0 <= seconds <= 30 for seconds in caller.slept)


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
def test_an_incomplete_answer_is_made_good_by_a_complete_one(vendor, caller, answer):
    vendor.answers = [answer, Answer()]

    reply = caller.session.get("/")

    assert (reply.data, reply.seq) == ({"ok": True}, 2)


def test_a_server_that_stalls_is_given_up(vendor):
    vendor.answers = [Answer(stall=True)]

    with (
        open_caller(vendor.url, read_seconds=0.05) as caller,
        pytest.raises(UnansweredError, match="no complete answer"),
    ):
        caller.session.get("/")

    assert len(vendor.requests) == ATTEMPTS


def test_a_server_that_trickles_is_given_up(vendor, caller, monkeypatch):
    monkeypatch.setattr(http, "ANSWER_SECONDS", 0.1)
    vendor.answers = [Answer(body=b" " * 1000 + OK, trickle=True)]

    with pytest.raises(UnansweredError, match="took longer than"):
        caller.session.get("/")


def test_a_server_that_is_not_there_is_reported():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        with open_caller(url) as caller, pytest.raises(UnansweredError, match="ConnectionError"):
            caller.session.get("/")


def test_every_attempt_draws_a_number_of_its_own(vendor, caller):
    vendor.answers = [Answer(500), Answer(reset=True), Answer(429), Answer(200, b"<html>"), Answer()]

    first = caller.session.get("/")
    second = caller.session.get("/")

    assert (first.seq, second.seq) == (5, 6)
    assert caller.budget.seq == len(vendor.requests) == caller.session.last_seq == 6


RATE_LIMITS = {
    "seconds": ({"Retry-After": "7"}, 7),
    "fractions": ({"Retry-After": "0.5"}, 0.5),
    "at once": ({"Retry-After": "0"}, 0),
    "in the past": ({"Retry-After": "-5"}, 0),
    "an HTTP date": ({"Retry-After": format_datetime(CLOCK + timedelta(seconds=20), usegmt=True)}, 21),
    "an HTTP date in the past": ({"Retry-After": format_datetime(CLOCK - timedelta(1), usegmt=True)}, 0),
    "far too long": ({"Retry-After": "86400"}, LONGEST_PAUSE_SECONDS),
    "nonsense": ({"Retry-After": "soon"}, 60),
    "nothing": ({}, 60),
    "reset in seconds": ({"X-Rate-Limit-Reset": "38"}, 38),
    "reset as epoch": ({"X-RateLimit-Reset": str(int(CLOCK.timestamp()) + 38)}, 39),
    "reset as epoch in the past": ({"X-RateLimit-Reset": str(int(CLOCK.timestamp()) - 38)}, 0),
    "both": ({"Retry-After": "7", "X-Rate-Limit-Reset": "38"}, 7),
    "no number": ({"X-Rate-Limit-Reset": "nan"}, 60),
    "infinite": ({"Retry-After": "inf"}, 60),
}


@pytest.mark.parametrize(("headers", "seconds"), RATE_LIMITS.values(), ids=RATE_LIMITS)
def test_after_429_the_whole_account_waits_as_asked(vendor, caller, headers, seconds):
    vendor.answers = [Answer(429, b"", headers), Answer()]

    caller.session.get("/")

    assert caller.budget.pauses == [pytest.approx(seconds)]
    assert caller.slept == [0]


def test_429_again_and_again_ends(vendor, caller):
    vendor.answers = [Answer(429, b"", {"Retry-After": "7"})]

    with pytest.raises(RateLimitedError, match=r"429, asked to wait 7\.0 s") as caught:
        caller.session.get("/")

    assert caught.value.retry_after == 7
    assert len(vendor.requests) == ATTEMPTS == len(caller.budget.pauses)


def test_a_faster_clock_waits_less_where_the_vendor_names_no_time(vendor):
    vendor.answers = [Answer(429), Answer()]

    with open_caller(vendor.url, time_scale=60) as caller:
        caller.session.get("/")

    assert caller.budget.pauses == [1]


def test_an_outage_with_a_time_waits_that_long(vendor, caller):
    vendor.answers = [Answer(503, b"", {"Retry-After": "120"}), Answer()]

    caller.session.get("/")

    assert caller.slept == [120]


@pytest.mark.parametrize("spelling", ["X-Rate-Limit-", "X-RateLimit-", "x-ratelimit-"])
def test_the_budget_learns_what_the_headers_say_in_either_spelling(vendor, caller, spelling):
    said = {"Limit": "150", "Remaining": "141", "Reset": "38"}
    vendor.answers = [Answer(headers={spelling + word: value for word, value in said.items()})]

    caller.session.get("/")

    assert caller.budget.observed == [{"limit": 150, "remaining": 141, "reset_seconds": 38}]


@pytest.mark.parametrize("value", ["", "many", "nan", "1e999"])
def test_headers_that_say_nothing_are_left_alone(vendor, caller, value):
    vendor.answers = [Answer(headers={f"X-Rate-Limit-{w}": value for w in ("Limit", "Remaining", "Reset")})]

    caller.session.get("/")

    assert caller.budget.observed == [{"limit": None, "remaining": None, "reset_seconds": None}]


def test_the_end_of_the_window_ends_the_tries(vendor):
    def stop() -> None:
        msg = "over"
        raise WindowClosedError(msg)

    vendor.answers = [Answer(500)]

    with open_caller(vendor.url, should_stop=stop) as caller, pytest.raises(WindowClosedError, match="over"):
        caller.session.get("/")

    assert len(vendor.requests) == 1


def test_without_leave_nothing_is_sent(vendor, caller, monkeypatch):
    def refuse(*, fresh: bool) -> Permit:
        msg = "The mirror's PostgreSQL does not answer"
        raise DatabaseUnavailableError(msg)

    monkeypatch.setattr(caller.budget, "draw", refuse)

    with pytest.raises(DatabaseUnavailableError):
        caller.session.get("/")

    assert (vendor.requests, caller.slept) == ([], [])


def test_secrets_and_bodies_reach_neither_errors_nor_logs(vendor, caller, caplog):
    caplog.set_level(logging.DEBUG)
    body = b'{"body": "private words", "broken": '
    vendor.answers = [Answer(200, body), Answer(500, body), Answer(429), Answer(reset=True), Answer(401)]

    with pytest.raises(AuthenticationError) as caught:
        caller.session.get("/tasks.json")
    caller.session._session.auth = None
    logging.getLogger("test").info("done", exc_info=caught.value)

    shown = caplog.text + str(caught.value)
    assert "attempt 1 failed" in shown
    for hidden in (SECRET, "czNjcmV0", "private words", "Authorization"):
        assert hidden not in shown


def test_a_long_refusal_is_cut_short(vendor, caller):
    vendor.answers = [Answer(422, json.dumps({"message": "x" * 100_000}).encode())]

    with pytest.raises(RequestRefusedError) as caught:
        caller.session.get("/")

    assert len(str(caught.value)) < 300


CLEANED = {
    "nothing to clean": (rb'{"a": "b\n\u00e9"}', {"a": "b\né"}, 0),
    "an escaped NUL": (rb'{"a": "x\u0000y\u0000"}', {"a": "xy"}, 2),
    "a raw NUL": (b'{"a": "x\x00y"}', {"a": "xy"}, 1),
    "NUL in a key": (rb'{"a\u0000": 1}', {"a": 1}, 1),
    "half a character": (rb'{"a": "x\ud800y\uDFFF"}', {"a": "x�y�"}, 2),
    "a whole character in two halves": (rb'{"a": "\ud83d\ude00"}', {"a": "😀"}, 0),
    "a spelled-out escape": (rb'{"a": "\\u0000 \\ud800"}', {"a": r"\u0000 \ud800"}, 0),
    "raw control characters": (b'{"a": "x\ty\nz\x01"}', {"a": "x\ty\nz\x01"}, 0),
    "invalid UTF-8": (b'{"a": "x\xffy"}', {"a": "x�y"}, 0),
    "deep inside": (rb'[{"a": [{"b": "\u0000"}]}]', [{"a": [{"b": ""}]}], 1),
}


@pytest.mark.parametrize(("body", "expected", "count"), CLEANED.values(), ids=CLEANED)
def test_what_postgresql_cannot_store_is_taken_out_and_counted(vendor, caller, body, expected, count):
    vendor.answers = [Answer(body=body)]

    reply = caller.session.get("/")

    assert (reply.data, reply.cleaned) == (expected, count)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
    elif isinstance(value, dict):
        yield from _strings([*value, *value.values()])


TEXTS = st.text(st.sampled_from("a\\u0d8\x00\n\"'") | st.characters(), max_size=6)
VALUES = st.recursive(
    TEXTS | st.integers(-(2**63), 2**63) | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


@given(VALUES, st.booleans())
def test_whatever_was_sent_can_be_stored(value, escaped):
    body = json.dumps(value, ensure_ascii=escaped).encode("utf-8", errors="surrogatepass")

    data, _ = decode(body)

    for found in _strings(data):
        found.encode()
        assert "\x00" not in found


@given(st.binary(max_size=50))
def test_any_bytes_are_json_or_not(body):
    with contextlib.suppress(ValueError):
        decode(body)


WORDS = {
    "names": ('The parameter "page_size" is not allowed', 'The parameter "page_size" is not allowed'),
    "a quotation": ('Cannot read message "Dear Mr Smith, it\'s late"', 'Cannot read message "…"'),
    "quotations inside": ('Subject "He said "hello" to me" is too long', 'Subject "…" is too long'),
    "single quotes": ("You don't see 'Dear Mr Smith'", "You don't see '…'"),
    "an address": ("no user jo.smith+x@example.org (owner)", "no user … (owner)"),
    "a token": ("key missive_pat-0123456789abcdefghij is revoked", "key … is revoked"),
    "a secret path": (
        f"https://x.example/hooks/missive/{'ab' * 32} times out",
        "https://x.example/hooks/missive/… times out",
    ),
    "a row in place of words": ({"subject": "Dear Mr Smith"}, ""),
    "rows in place of words": ([["Dear Mr Smith"]], ""),
}


@pytest.mark.parametrize(("said", "told"), WORDS.values(), ids=WORDS)
def test_of_a_vendors_words_only_those_about_the_request_are_repeated(vendor, caller, said, told):
    vendor.answers = [Answer(422, json.dumps({"error": said}).encode())]

    with pytest.raises(RequestRefusedError) as caught:
        caller.session.get("/x")

    assert str(caught.value).removeprefix("Teamwork GET /x: 422").strip() == (repr(told) if told else "")


def test_a_vendors_words_begin_no_line_and_steer_no_terminal(vendor, caller):
    vendor.answers = [Answer(403, json.dumps({"message": "no\nCRITICAL \x1b[2Jyes"}).encode())]

    with pytest.raises(AccessError) as caught:
        caller.session.get("/")

    assert str(caught.value).isprintable()
