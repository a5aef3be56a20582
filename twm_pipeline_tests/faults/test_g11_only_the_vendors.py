"""A delivery is accepted only with a valid signature, or on the unguessable path of a hook without one (G11).

What each sample of the vendors and each odd request is answered is in `webhooks/test_receiver.py`.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import replace

import pytest

from twm_pipeline.webhooks.secrets import HookSecrets
from twm_pipeline_tests.webhooks.deliveries import MISSIVE_SECRET, TEAMWORK_SECRET, Delivery, task_delivery
from twm_pipeline_tests.webhooks.running import receiver_settings, receiver_thread

BODY = b'{"conversation": {"id": "a"}, "rule": {"type": "new_comment"}}'
TASK = task_delivery(1)
MAIL = Delivery("missive", "/hooks/missive", BODY, {"Content-Type": "application/json"})


def signed(delivery: Delivery, digest: str, *, prefix: str = "") -> Delivery:
    return replace(delivery, headers=delivery.headers | {delivery.signature_header: prefix + digest})


def of(secret: str, body: bytes, kind: str = "sha256") -> str:
    return hmac.new(secret.encode(), body, kind).hexdigest()


FORGED = {
    "nothing": TASK.without("X-Projects-Signature"),
    "no signature of a rule": MAIL,
    "an empty signature": signed(MAIL, ""),
    "the signature of another body": signed(TASK, of(TEAMWORK_SECRET, b"{}")),
    "the other vendor's secret": signed(TASK, of(MISSIVE_SECRET, TASK.body)),
    "an empty secret": signed(TASK, of("", TASK.body)),
    "a hash without a secret": signed(TASK, hashlib.sha256(TASK.body).hexdigest()),
    "an older kind of hash": signed(MAIL, of(MISSIVE_SECRET, BODY, "sha1"), prefix="sha1="),
    "the beginning of the signature": signed(MAIL, of(MISSIVE_SECRET, BODY)[:32], prefix="sha256="),
    "another header": replace(TASK, headers={"X-Hook-Signature": of(TEAMWORK_SECRET, TASK.body)}),
    "the name of a hook as its path": replace(MAIL, path="/hooks/missive/new_comment"),
    "a guessed path": replace(MAIL, path=f"/hooks/missive/{secrets.token_hex(32)}"),
    "an empty path": replace(MAIL, path="/hooks/missive/"),
}


@pytest.fixture(scope="module")
def receiver(tmp_path_factory):
    with receiver_thread(receiver_settings(tmp_path_factory.mktemp("receiver"))) as running:
        HookSecrets.load(running.settings).path_for("new_comment")
        yield running


@pytest.mark.parametrize("delivery", FORGED.values(), ids=FORGED)
def test_what_nobody_but_the_vendor_could_not_have_sent_is_refused_and_not_kept(receiver, delivery):
    answer = receiver.send(delivery)

    assert answer.status in (401, 404)
    assert (receiver.kept("teamwork"), receiver.kept("missive")) == ([], [])


@pytest.mark.parametrize("end", [0, 1, 31, 32, 62, 63])
def test_a_path_that_differs_in_one_character_is_another_one(receiver, end):
    path = HookSecrets.load(receiver.settings).path_for("new_comment")
    other = path[:end] + ("0" if path[end] != "0" else "1") + path[end + 1 :]

    assert receiver.send(replace(MAIL, path=f"/hooks/missive/{other}")).status == 401
    assert receiver.kept("missive") == []


def test_paths_cannot_be_guessed_and_are_not_alike(receiver):
    known = HookSecrets.load(receiver.settings)

    paths = {known.path_for(f"kind {number}") for number in range(20)}

    assert len(paths) == 20
    assert {len(bytes.fromhex(path)) for path in paths} == {32}


def test_what_the_vendors_send_is_kept(tmp_path):
    with receiver_thread(receiver_settings(tmp_path)) as receiver:
        path = HookSecrets.load(receiver.settings).path_for("new_comment")
        answers = [
            receiver.send(TASK),
            receiver.send(signed(MAIL, of(MISSIVE_SECRET, BODY), prefix="sha256=")),
            receiver.send(replace(MAIL, path=f"/hooks/missive/{path}")),
        ]

    assert [answer.status for answer in answers] == [200, 200, 200]
    assert (len(receiver.kept("teamwork")), len(receiver.kept("missive"))) == (1, 2)
