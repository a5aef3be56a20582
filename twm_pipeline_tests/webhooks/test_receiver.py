"""Real requests to the real application and a real spool."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import requests

from twm_pipeline.errors import ConfigError
from twm_pipeline.webhooks import current
from twm_pipeline.webhooks import receiver as receiver_module
from twm_pipeline.webhooks.refusals import Refusals
from twm_pipeline.webhooks.secrets import HookSecrets, file_of
from twm_pipeline.webhooks.server import build_server
from twm_pipeline.webhooks.tally import Tally
from twm_pipeline_tests.webhooks.deliveries import MISSIVE_SECRET, Delivery, load_samples, task_delivery
from twm_pipeline_tests.webhooks.running import (
    all_kept,
    nothing_is_kept,
    receiver_settings,
    receiver_thread,
    request_bytes,
)

SAMPLES = load_samples()
SIGNED = [sample for sample in SAMPLES if sample.signature_header in sample.headers]
[UNSIGNED] = [sample for sample in SAMPLES if sample not in SIGNED]
FROM_A_RULE = next(sample for sample in SIGNED if sample.source == "missive")
UNKNOWN_TOKEN = "0" * 64


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with receiver_thread(receiver_settings(tmp_path_factory.mktemp("receiver"))) as running:
        yield running


@pytest.fixture
def receiver(shared):
    """Return a receiver with an empty spool; to start one for every test would take minutes."""
    shutil.rmtree(shared.settings.spool_folder, ignore_errors=True)
    return shared


@pytest.fixture
def settings(receiver):
    return receiver.settings


@pytest.fixture
def own_receiver(tmp_path):
    """Return a receiver for a test that breaks something."""
    with receiver_thread(receiver_settings(tmp_path)) as running:
        yield running


@pytest.fixture
def secrets(settings):
    return HookSecrets.load(settings)


def by_name(sample):
    return sample.name


@pytest.mark.parametrize("sample", SIGNED, ids=by_name)
def test_every_signed_sample_is_accepted_and_kept_as_it_came(receiver, sample):
    answer = requests.post(receiver.url + sample.path, sample.body, headers=sample.headers, timeout=10)

    [envelope] = all_kept(receiver.settings)
    assert answer.status_code == 200
    assert envelope.body == sample.body
    assert envelope.source == sample.source
    assert envelope.hint.event
    assert envelope.headers["content-type"] == sample.headers["Content-Type"]


@pytest.mark.parametrize("sample", SIGNED, ids=by_name)
def test_every_signed_sample_is_refused_with_one_byte_changed(receiver, sample):
    body = bytearray(sample.body)
    body[len(body) // 2] ^= 1

    assert receiver.send(replace(sample, body=bytes(body))).status == 401
    assert nothing_is_kept(receiver.settings)


@pytest.mark.parametrize("sample", SAMPLES, ids=by_name)
def test_no_sample_is_accepted_without_a_signature(receiver, sample):
    assert receiver.send(sample.without(sample.signature_header)).status == 401
    assert nothing_is_kept(receiver.settings)


@pytest.mark.parametrize("path", ["/webhook/{source}", "/hooks/{source}"])
@pytest.mark.parametrize("sample", SIGNED[:2] + SIGNED[-2:], ids=by_name)
def test_paths_without_an_event_and_those_of_the_old_system_are_served(receiver, sample, path):
    assert receiver.send(replace(sample, path=path.format(source=sample.source))).status == 200
    assert len(all_kept(receiver.settings)) == 1


@pytest.mark.parametrize(
    "header", [None, "sha256=" + "0" * 64, "", "é"], ids=["none", "wrong", "empty", "odd"]
)
def test_a_secret_path_authenticates_whatever_the_signature(receiver, secrets, header):
    path = f"/hooks/missive/{secrets.path_for('new_comment')}"
    headers = UNSIGNED.headers | ({} if header is None else {"X-Hook-Signature": header})

    assert receiver.send(replace(UNSIGNED, path=path, headers=headers)).status == 200
    assert len(receiver.kept("missive")) == 1


def test_the_secret_path_tells_the_event_where_the_body_does_not(receiver, secrets):
    path = f"/hooks/missive/{secrets.path_for('new_comment')}"

    receiver.send(Delivery("missive", path, b'{"conversation": {"id": "a"}}'))

    assert [envelope.hint.event for envelope in receiver.kept("missive")] == ["new_comment"]


@pytest.mark.parametrize("token", [UNKNOWN_TOKEN, "new_comment", "%00", "%C3%A9"])
def test_an_unknown_path_needs_a_signature(receiver, token):
    path = f"/hooks/missive/{token}"

    assert receiver.send(replace(UNSIGNED, path=path)).status == 401
    assert receiver.send(replace(FROM_A_RULE, path=path)).status == 200


def test_a_path_made_by_another_process_counts_at_once(receiver, settings):
    path = HookSecrets.load(settings).path_for("a new kind")

    assert receiver.send(replace(UNSIGNED, path=f"/hooks/missive/{path}")).status == 200


def test_a_damaged_file_of_secrets_leaves_the_last_good_ones(own_receiver, caplog, monkeypatch):
    monkeypatch.setattr(current, "TRUSTED_SECONDS", 0)
    file_of(own_receiver.settings).write_text("{")

    assert own_receiver.send(SIGNED[0]).status == 200
    assert "is damaged" in caplog.text


def test_unsigned_deliveries_can_be_allowed_but_never_wrong_ones(tmp_path):
    with receiver_thread(receiver_settings(tmp_path, allow_unsigned_webhooks=True)) as receiver:
        sample = SIGNED[0]
        unsigned = receiver.send(sample.without(sample.signature_header))
        wrong = receiver.send(replace(sample, headers=sample.headers | {sample.signature_header: "0" * 64}))
        empty = receiver.send(replace(sample, headers=sample.headers | {sample.signature_header: ""}))
        unknown = receiver.send(replace(UNSIGNED, path=f"/hooks/missive/{UNKNOWN_TOKEN}"))

    assert [answer.status for answer in (unsigned, wrong, empty, unknown)] == [200, 401, 401, 401]


@pytest.mark.parametrize("body", [b"", b"{}"])
@pytest.mark.parametrize(
    ("source", "path"), [("teamwork", "/hooks/teamwork/task-created"), ("missive", "/hooks/missive")]
)
def test_a_validation_ping_is_answered_and_not_kept(receiver, source, path, body):
    assert receiver.send(Delivery(source, path, body).signed()).status == 200
    assert nothing_is_kept(receiver.settings)


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("application/json", b"{", 400),
        ("application/json", b"[]", 400),
        ("text/plain", b"{}", 415),
        ("application/xml", b"<a/>", 415),
        ("application/x-www-form-urlencoded", b"nothing", 400),
    ],
)
def test_what_cannot_be_read_is_refused(receiver, content_type, body, status):
    delivery = Delivery("teamwork", "/hooks/teamwork", body, {"Content-Type": content_type}).signed()

    assert receiver.send(delivery).status == status
    assert nothing_is_kept(receiver.settings)


def test_the_signature_is_looked_at_before_the_content(receiver):
    delivery = Delivery("teamwork", "/hooks/teamwork", b"<a/>", {"Content-Type": "text/plain"})

    assert receiver.send(delivery).status == 401


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_hooks_are_posted_only(receiver, method):
    sample = SIGNED[0]

    answer = requests.request(
        method, receiver.url + sample.path, data=sample.body, headers=sample.headers, timeout=10
    )

    assert answer.status_code == 405
    assert nothing_is_kept(receiver.settings)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/hooks",
        "/hooks/",
        "/hooks/teamwork/",
        "/hooks/missive/",
        "/hooks/teamwork/a/b",
        "/hooks/missive/../teamwork/x",
        "//hooks/teamwork",
        "/HOOKS/teamwork",
        "/hooks/airtable",
        "/webhook/teamwork/task-created",
        "/docs",
    ],
)
def test_other_paths_do_not_exist(receiver, path):
    assert receiver.send(replace(task_delivery(1), path=path)).status == 404


def test_the_path_is_no_part_of_what_is_kept(receiver, settings, secrets):
    path = secrets.path_for("incoming_email")
    headers = UNSIGNED.headers | {
        "X-Hook-Signature": "sha256=00",
        "Cookie": "c",
        "User-Agent": "u" * 999,
        "X-Other": "o",
    }

    receiver.send(replace(UNSIGNED, path=f"/hooks/missive/{path}", headers=headers))

    [envelope] = receiver.kept("missive")
    [file] = (settings.spool_folder / "missive" / "new").iterdir()
    assert envelope.headers == {"content-type": "application/json", "user-agent": "u" * 200}
    assert path.encode() not in file.read_bytes()


@pytest.mark.parametrize("length", [True, False], ids=["content-length", "chunked"])
def test_the_body_has_a_bound(receiver, length):
    exact = task_body_of(receiver_module.MOST_BODY_BYTES)
    larger = exact + b" "

    statuses = []
    for body in (exact, larger):
        delivery = Delivery(
            "teamwork", "/hooks/teamwork/task-updated", body, {"Content-Type": "application/json"}
        )
        pieces = body if length else iter([body[:1_000_000], body[1_000_000:]])
        answer = requests.post(
            receiver.url + delivery.path, pieces, headers=delivery.signed().headers, timeout=10
        )
        statuses.append(answer.status_code)

    assert statuses == [200, 413]
    assert len(receiver.kept()) == 1


def task_body_of(size: int) -> bytes:
    frame = b'{"task": {"id": 7, "name": ""}}'
    return frame.replace(b'""', b'"' + b"x" * (size - len(frame)) + b'"')


def test_a_body_that_is_announced_too_large_is_not_waited_for(receiver):
    head = request_bytes(replace(task_delivery(1), body=b"")).replace(
        b"Content-Length: 0", b"Content-Length: 99999999"
    )

    with receiver.connect() as connection:
        assert connection.ask(head).status == 413


def test_too_many_bodies_at_once_put_large_ones_off(receiver, monkeypatch):
    monkeypatch.setattr(receiver_module, "MOST_BODIES_BYTES", 100)
    large = replace(task_delivery(1), body=task_body_of(receiver_module.SMALL_BODY_BYTES + 1)).signed()

    answer = receiver.send(large)

    assert answer.status == 503
    assert answer.headers["retry-after"] == "60"
    assert nothing_is_kept(receiver.settings)
    assert receiver.send(task_delivery(2)).status == 200


def test_without_room_everything_is_put_off(tmp_path):
    with receiver_thread(receiver_settings(tmp_path, spool_reserve_megabytes=10**9)) as receiver:
        answer = receiver.send(task_delivery(1))
        ping = receiver.send(replace(task_delivery(1), body=b"{}").signed())
        health = requests.get(receiver.url + "/health", timeout=10)

    assert answer.status == 503
    assert int(answer.headers["retry-after"]) > 0
    assert ping.status == 200
    assert (health.status_code, health.json()) == (503, {"status": "full"})
    assert nothing_is_kept(receiver.settings)


def test_a_disk_that_fails_is_put_off_and_said(receiver, caplog):
    receiver.send(task_delivery(1))
    folder = receiver.settings.spool_folder / "teamwork" / "tmp"
    folder.rmdir()
    folder.write_bytes(b"")

    answer = receiver.send(task_delivery(2))

    assert answer.status == 503
    assert "Put off 1 deliveries of teamwork" in caplog.text
    assert len(receiver.kept()) == 1
    health = requests.get(receiver.url + "/health", timeout=10)
    assert (health.status_code, health.json()) == (503, {"status": "failing"})
    folder.unlink()
    assert receiver.send(task_delivery(3)).status == 200
    assert requests.get(receiver.url + "/health", timeout=10).status_code == 200


def test_a_defect_is_put_off_and_told_without_the_delivery(receiver, monkeypatch, caplog):
    def fail(*_: object) -> None:
        raise ValueError("body of the delivery")

    monkeypatch.setattr(os, "fsync", fail)

    assert receiver.send(task_delivery(1)).status == 503
    assert "Put off 1 deliveries of teamwork" in caplog.text
    assert "body of the delivery" not in caplog.text
    assert "Traceback" not in caplog.text
    assert nothing_is_kept(receiver.settings)
    monkeypatch.undo()
    assert receiver.send(task_delivery(1)).status == 200


def test_health_says_ok_and_nothing_else(receiver):
    answer = requests.get(receiver.url + "/health", timeout=10)

    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert "server" not in answer.headers


def test_the_log_names_event_and_object_and_no_secret(own_receiver, caplog):
    caplog.set_level(logging.DEBUG)
    path = HookSecrets.load(own_receiver.settings).path_for("incoming_email")

    own_receiver.send(task_delivery(4711))
    own_receiver.send(replace(UNSIGNED, path=f"/hooks/missive/{path}"))
    own_receiver.send(replace(UNSIGNED, path=f"/hooks/missive/{UNKNOWN_TOKEN}"))

    assert "TASK.UPDATED 4711" in caplog.text
    assert "Refused with 401: missive: the path is unknown" in caplog.text
    for secret in (path, UNKNOWN_TOKEN, MISSIVE_SECRET, "Anna", "harbour.example.com"):
        assert secret not in caplog.text


def test_a_flood_of_refusals_is_no_flood_of_lines(tmp_path, caplog):
    now = [0.0]
    refusals = Refusals(Tally(tmp_path / "receiver.json"), clock=lambda: now[0])

    for _ in range(1000):
        refusals.note(401, "wrong")
    refusals.note(400, "odd")
    now[0] = 61.0
    refusals.note(401, "wrong")

    assert [record.getMessage() for record in caplog.records] == [
        "Refused with 401: wrong (1 since the last such line)",
        "Refused with 400: odd (1 since the last such line)",
        "Refused with 401: wrong (1000 since the last such line)",
    ]


def test_without_webhooks_there_is_no_receiver(tmp_path):
    with pytest.raises(ConfigError, match="DISABLE_WEBHOOKS"):
        build_server(receiver_settings(tmp_path, disable_webhooks=True))


def test_vendors_without_credentials_are_received_too(receiver):
    assert receiver.settings.teamwork_api_key is None
    assert receiver.send(task_delivery(1)).status == 200


def test_deliveries_keep_their_order(receiver):
    for number in range(1, 20):
        receiver.send(task_delivery(number))

    assert [envelope.hint.object_id for envelope in receiver.kept()] == [str(n) for n in range(1, 20)]


def test_it_is_light():
    heavy = (
        "dagster",
        "sqlalchemy",
        "pandas",
        "psycopg",
        "alembic",
        "requests",
        "rich",
        "typer",
        "pyairtable",
    )
    program = f"import sys, twm_pipeline.webhooks.__main__; print([m for m in {heavy} if m in sys.modules])"

    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert found.stdout == "[]\n"
