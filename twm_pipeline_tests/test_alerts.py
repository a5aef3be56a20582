"""What is told and when: once when it comes, once when it is over, whatever happens to the post."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from twm_pipeline.alerts import LEFT_OUT, MOST_LINES, AlertState, Trouble, follow, send
from twm_pipeline.errors import ConfigError, RetriableError
from twm_pipeline.settings import load_settings


class Receiver:
    """A receiver as Slack's: what was posted, and what it answers."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.status = 200
        self.headers: dict[str, str] = {}
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if receiver.status == 200:
                    receiver.texts.append(json.loads(body)["text"])
                self.send_response(receiver.status)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/services/T0/secret-part"

    @property
    def lines(self) -> list[str]:
        """Return what was told, without who tells it."""
        return [line for text in self.texts for line in text.splitlines()[1:]]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    thread = threading.Thread(target=found.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    found.server.shutdown()
    thread.join()
    found.server.server_close()


FAILS = Trouble(key="run teamwork_sync", text="teamwork_sync fails: 401")


def test_a_trouble_is_told_once_however_often_it_is_seen_and_once_when_it_is_over():
    state = AlertState()
    for minute in range(60):
        state = follow(state, [FAILS], now=60.0 * minute)
    state = follow(state, [], now=3600.0)

    assert state.outbox == ["PROBLEM teamwork_sync fails: 401", "OVER after 60 min: teamwork_sync fails: 401"]
    assert state.troubles == {}


def test_a_clock_that_was_set_back_keeps_no_trouble_from_being_told():
    stale = Trouble(key="stale", text="nothing was verified", patience_seconds=600)

    state = follow(follow(AlertState(), [stale], now=1e6), [stale], now=1e3)
    state = follow(state, [], now=2e3)

    assert state.outbox == ["PROBLEM nothing was verified", "OVER after 0 min: nothing was verified"]


def test_a_warning_that_becomes_an_error_is_told_again_and_not_the_other_way_round():
    warning = Trouble(key="check", text="late", level="warning")
    error = Trouble(key="check", text="stands still")
    state = AlertState()
    for trouble in (warning, error, warning, error):
        state = follow(state, [trouble], now=0)

    assert state.outbox == ["WARNING late", "PROBLEM stands still"]


def test_what_passes_before_its_patience_ends_is_never_told():
    stale = Trouble(key="stale", text="stale", patience_seconds=600)
    state = follow(AlertState(), [stale], now=0)
    state = follow(state, [stale], now=599)
    passed = follow(state, [], now=600)
    stayed = follow(state, [stale], now=600)

    assert passed.outbox == []
    assert stayed.outbox == ["PROBLEM stale"]


def test_what_cannot_be_told_apart_at_this_moment_stays_as_it_is():
    state = follow(AlertState(), [FAILS], now=0)

    state = follow(state, [], now=60, uncertain={FAILS.key, "another"})

    assert list(state.troubles) == [FAILS.key]
    assert state.outbox == ["PROBLEM teamwork_sync fails: 401"]


KEYS = st.sets(st.sampled_from("abc"))


@given(looks=st.lists(KEYS, max_size=12))
def test_problems_and_ends_take_turns_and_the_last_word_is_the_truth(looks):
    state = AlertState()
    for number, keys in enumerate(looks):
        troubles = [Trouble(key=key, text=key) for key in sorted(keys)]
        state = AlertState.from_text(follow(state, troubles, now=float(number)).to_text())

    for key in "abc":
        told = [line.startswith("PROBLEM") for line in state.outbox if line.endswith(key)]
        assert told == [number % 2 == 0 for number in range(len(told))]
        assert (told[-1:] == [True]) == (bool(looks) and key in looks[-1])


def test_of_many_lines_that_nobody_takes_the_oldest_go_and_that_is_said():
    state = AlertState()
    for number in range(MOST_LINES + 5):
        state = follow(state, [Trouble(key=str(number), text=str(number))], now=0)

    assert len(state.outbox) == MOST_LINES
    assert state.outbox[0] == LEFT_OUT
    assert state.outbox[-1].endswith(str(MOST_LINES + 3))


def test_lines_are_posted_together_as_slack_takes_them(receiver):
    send(SecretStr(receiver.url), ["PROBLEM <1 & 2>", "OVER"], sender="box")

    assert receiver.texts == ["twm_pipeline on box\nPROBLEM &lt;1 &amp; 2&gt;\nOVER"]


@pytest.mark.parametrize("status", [302, 404, 500])
def test_a_refused_post_raises_without_the_address(receiver, status, caplog):
    caplog.set_level(logging.DEBUG)
    receiver.status = status
    receiver.headers = {"Location": receiver.url}

    with pytest.raises(RetriableError, match=f"ALERT_WEBHOOK_URL answered {status}") as caught:
        send(SecretStr(receiver.url), ["x"], sender="box")

    assert "secret-part" not in str(caught.value)
    assert receiver.texts == []


def test_a_receiver_that_asks_for_a_pause_is_heard(receiver):
    receiver.status, receiver.headers = 429, {"Retry-After": "30"}

    with pytest.raises(RetriableError) as caught:
        send(SecretStr(receiver.url), ["x"], sender="box")

    assert caught.value.retry_after == 30


def test_an_unreachable_receiver_raises_without_the_address(receiver):
    url = receiver.url.replace(f":{receiver.server.server_port}/", ":1/")

    with pytest.raises(RetriableError) as caught:
        send(SecretStr(url), ["x"], sender="box")

    assert "secret-part" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_wrong_address_is_told_without_showing_it():
    with pytest.raises(ConfigError, match="ALERT_WEBHOOK_URL") as caught:
        load_settings(alert_webhook_url="hooks.slack.com/secret-part")

    assert "secret-part" not in str(caught.value)
