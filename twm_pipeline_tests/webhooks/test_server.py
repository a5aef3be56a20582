"""What senders do that no vendor should: slow, many, endless, malformed."""

from __future__ import annotations

import shutil
import socket
import threading
from contextlib import ExitStack, suppress
from dataclasses import replace

import pytest

from twm_pipeline.errors import ConfigError
from twm_pipeline.webhooks import server as server_module
from twm_pipeline.webhooks.server import listen
from twm_pipeline_tests.webhooks.deliveries import Delivery, task_delivery
from twm_pipeline_tests.webhooks.running import (
    nothing_is_kept,
    receiver_settings,
    receiver_thread,
    request_bytes,
)

VALID = request_bytes(task_delivery(1))
HEAD, _, BODY = VALID.partition(b"\r\n\r\n")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Run a receiver that has little patience and looks often."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server_module, "REQUEST_SECONDS", 0.8)
        patch.setattr(server_module, "LINGER_SECONDS", 0.3)
        patch.setattr(server_module, "TICKS_PER_SWEEP", 1)
        with receiver_thread(receiver_settings(tmp_path_factory.mktemp("receiver"))) as running:
            yield running


@pytest.fixture
def receiver(shared):
    shutil.rmtree(shared.settings.spool_folder, ignore_errors=True)
    return shared


def trickle(connection, data, stop):
    """Send a byte now and then, as long as somebody takes it."""
    for place in range(len(data)):
        if stop.wait(0.02):
            return
        connection.send(data[place : place + 1])


@pytest.mark.parametrize(
    ("at_once", "slowly"),
    [
        (b"", HEAD[:200]),
        (b"POST ", b"/" * 200),
        (HEAD + b"\r\nX-Slow: ", b"x" * 200),
        (HEAD + b"\r\n\r\n", BODY[:200]),
        (
            HEAD.replace(b"Content-Length: ", b"Transfer-Encoding: chunked\r\nX: ") + b"\r\n\r\n",
            b"1\r\nx\r\n" * 40,
        ),
    ],
    ids=["head", "target", "header", "body", "chunks"],
)
def test_a_request_that_trickles_in_is_not_waited_for(receiver, at_once, slowly):
    stop = threading.Event()
    with receiver.connect() as connection:
        connection.send(at_once)
        sender = threading.Thread(target=trickle, args=(connection, slowly, stop))
        sender.start()
        answer = connection.answer()
        stop.set()
        sender.join()

        assert answer.status == 408
        assert connection.is_closed()
    assert nothing_is_kept(receiver.settings)


@pytest.mark.parametrize("sent", [b"", b"\r\n\r\n"], ids=["nothing", "empty lines"])
def test_a_connection_without_a_request_is_closed(receiver, sent):
    with receiver.connect() as connection:
        connection.send(sent)

        assert connection.is_closed()


def test_empty_lines_do_not_keep_an_idle_connection(receiver):
    with receiver.connect() as connection:
        assert connection.ask(VALID).status == 200
        connection.send(b"\r\n")

        assert connection.is_closed()


def test_who_reads_no_answers_is_cut_off(receiver, monkeypatch):
    gone = threading.Event()
    lose = server_module.GuardedProtocol.connection_lost

    def note(self, error):
        gone.set()
        lose(self, error)

    monkeypatch.setattr(server_module.GuardedProtocol, "connection_lost", note)
    with receiver.connect() as connection:
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.socket.settimeout(0.2)
        ask_until(gone, connection)

        assert gone.wait(60)


def ask_until(gone, connection):
    """Send requests until the server has closed; the system need not tell the sender."""
    with suppress(BrokenPipeError, ConnectionResetError):
        while not gone.is_set():
            with suppress(TimeoutError):
                connection.socket.sendall(b"GET /health HTTP/1.1\r\n\r\n" * 1000)


def test_many_pipelined_heads_are_not_one_large_one(receiver):
    request = b"GET /health HTTP/1.1\r\nX-Long: " + b"x" * 1000 + b"\r\n\r\n"
    with receiver.connect() as connection:
        connection.send(request * 50)

        assert [connection.answer().status for _ in range(50)] == [200] * 50


def test_pipelined_requests_are_not_queued_without_end(receiver):
    with receiver.connect() as connection:
        connection.send(b"GET /health HTTP/1.1\r\n\r\n" * 2000)
        answers = list(iter(lambda: 0 if connection.is_closed() else connection.answer().status, 0))

    assert 100 <= len(answers) < 200
    assert set(answers) == {200}


@pytest.mark.parametrize(
    "flood",
    [
        HEAD + b"\r\nX-Flood: " + b"x" * 20_000 + b"\r\n\r\n" + BODY,
        HEAD + b"".join(b"\r\nX-%d: x" % n for n in range(3000)) + b"\r\n\r\n" + BODY,
        b"POST /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n",
        HEAD + b"\r\nX-Endless: " + b"x" * 2_000_000,
        b"POST /" + b"x" * 2_000_000,
        HEAD + b"\r\n" + b"x" * 2_000_000,
    ],
    ids=["one header", "many headers", "target", "endless header", "endless target", "endless name"],
)
def test_the_head_has_a_bound(receiver, flood):
    with receiver.connect() as connection:
        sender = threading.Thread(target=connection.send, args=(flood,))
        sender.start()
        assert connection.answer().status == 431
        assert connection.is_closed()
        sender.join()
    assert nothing_is_kept(receiver.settings)


def test_a_large_head_within_the_bound_is_read(receiver):
    delivery = replace(task_delivery(1), headers=task_delivery(1).headers | {"X-Large": "x" * 15_000})

    assert receiver.send(delivery).status == 200


def test_headers_behind_a_chunked_body_count_too(receiver):
    head = HEAD.replace(b"Content-Length: ", b"Transfer-Encoding: chunked\r\nX: ")
    trailers = b"".join(b"X-%d: x\r\n" % n for n in range(3000))

    with receiver.connect() as connection:
        connection.send(head + b"\r\n\r\n0\r\n" + trailers + b"\r\n")

        assert connection.answer().status == 431


def test_more_requests_than_are_taken_at_once_are_put_off(receiver, monkeypatch):
    monkeypatch.setattr(server_module, "MOST_CONNECTIONS", 2)
    with receiver.connect() as first, receiver.connect() as second, receiver.connect() as third:
        for connection in (first, second):
            connection.send(VALID[:-1])
        answer = third.ask(VALID)
        assert (answer.status, answer.headers.get("retry-after")) == (503, "60")

        first.send(VALID[-1:])
        assert first.answer().status == 200
        assert third.ask(VALID).status == 200


def test_connections_that_say_nothing_shut_no_sender_out(receiver, monkeypatch):
    monkeypatch.setattr(server_module, "MOST_CONNECTIONS", 2)
    with ExitStack() as stack:
        silent = [stack.enter_context(receiver.connect()) for _ in range(6)]
        for connection in silent:
            connection.send(b"POST /hooks/teamwork HTTP/1.1\r\n")
        with receiver.connect() as sender:
            assert sender.ask(VALID).status == 200


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST http://[ HTTP/1.1\r\n\r\n",
        b"POST /\xff HTTP/1.1\r\n\r\n",
        b"CONNECT receiver:80 HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /hooks/teamwork HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /hooks/teamwork HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nX-Projects-Signature: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /hooks/teamwork HTTP/1.1\r\nX\x00: 1\r\n\r\n",
    ],
    ids=range(10),
)
def test_what_is_no_http_is_refused(receiver, data, caplog):
    with receiver.connect() as connection:
        assert connection.ask(data).status == 400
        assert connection.is_closed()
    assert "Traceback" not in caplog.text


def test_what_is_no_http_behind_a_request_is_refused_too(receiver):
    with receiver.connect() as connection:
        assert connection.ask(VALID).status == 200
        assert connection.ask(b"POST http://[ HTTP/1.1\r\n\r\n").status == 400


def test_requests_may_be_pipelined(receiver):
    with receiver.connect() as connection:
        connection.send(b"".join(request_bytes(task_delivery(number)) for number in range(1, 6)))

        assert [connection.answer().status for _ in range(5)] == [200] * 5
    assert [envelope.hint.object_id for envelope in receiver.kept()] == ["1", "2", "3", "4", "5"]


def test_nonsense_behind_a_delivery_is_not_its_answer(receiver):
    with receiver.connect() as connection:
        connection.send(VALID + VALID + b"nonsense\r\n\r\n")

        assert [connection.answer().status for _ in range(2)] == [200, 200]
        assert connection.is_closed()


def test_a_refused_request_does_not_disturb_the_next_one(receiver):
    refused = request_bytes(task_delivery(1).without("X-Projects-Signature"))

    with receiver.connect() as connection:
        statuses = [connection.ask(data).status for data in (refused, VALID, refused, VALID)]

    assert statuses == [401, 200, 401, 200]


def test_http_1_0_is_answered_and_closed(receiver):
    with receiver.connect() as connection:
        assert connection.ask(request_bytes(task_delivery(1), version="1.0")).status == 200
        assert connection.is_closed()


def test_chunks_are_put_together_before_the_signature_is_checked(receiver):
    delivery = task_delivery(1)
    head = (
        request_bytes(replace(delivery, body=b""), length=False)[:-2] + b"Transfer-Encoding: chunked\r\n\r\n"
    )
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in delivery.body) + b"0\r\n\r\n"

    with receiver.connect() as connection:
        assert connection.ask(head + chunks).status == 200
    assert [envelope.body for envelope in receiver.kept()] == [delivery.body]


def test_a_sender_that_asks_first_is_told_to_go_on(receiver):
    delivery = replace(task_delivery(1), headers=task_delivery(1).headers | {"Expect": "100-continue"})
    head, _, body = request_bytes(delivery).partition(b"\r\n\r\n")

    with receiver.connect() as connection:
        assert connection.ask(head + b"\r\n\r\n").status == 100
        assert connection.ask(body).status == 200


def test_a_sender_that_asks_first_is_told_when_it_need_not(receiver):
    unsigned = Delivery("teamwork", "/hooks/teamwork", b"", {"Expect": "100-continue"})
    head = request_bytes(unsigned).replace(b"Content-Length: 0", b"Content-Length: 5")

    with receiver.connect() as connection:
        assert connection.ask(head).status == 401


@pytest.mark.parametrize("protocol", ["websocket", "h2c"])
def test_no_other_protocol_is_spoken(receiver, protocol):
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": protocol,
        "Sec-WebSocket-Key": "x" * 24,
        "Sec-WebSocket-Version": "13",
    }
    delivery = task_delivery(1)

    with receiver.connect() as connection:
        assert (
            connection.ask(request_bytes(replace(delivery, headers=delivery.headers | upgrade))).status == 400
        )
        assert connection.is_closed()
    assert nothing_is_kept(receiver.settings)


def test_a_sender_that_leaves_early_breaks_nothing(receiver, caplog):
    for cut in (10, len(HEAD) + 10, len(VALID)):
        with receiver.connect() as connection:
            connection.send(VALID[:cut])

    assert receiver.send(task_delivery(2)).status == 200
    assert "Traceback" not in caplog.text
    assert receiver.kept()[-1].hint.object_id == "2"


def test_a_taken_port_is_said():
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            ConfigError, match=rf"cannot listen on port {port} of 127.0.0.1: Address already in use"
        ):
            listen("127.0.0.1", port)


def test_an_address_of_another_machine_is_said():
    with pytest.raises(ConfigError, match="APP_HOST"):
        listen("192.0.2.1", 0)
