"""`twm queue`: what an operator sees of deliveries and set-aside records, and what becomes of them."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from twm_pipeline.cli.app import app
from twm_pipeline.cli.output import FAILED, MISUSED, OK, TO_BE_CHANGED
from twm_pipeline.cli.sandbox import folder, sandbox_settings
from twm_pipeline.mirror.set_aside import SetAside, set_aside
from twm_pipeline.records import Hint
from twm_pipeline.settings import load_settings
from twm_pipeline.spool import Spool
from twm_pipeline_tests.commands import Answer, Twm, run_plainly
from twm_pipeline_tests.factories import make_envelope
from twm_pipeline_tests.spools import fail, put, take

PARKED = "set-aside:missive/emails/m/1"
HOUR = timedelta(hours=1)


@pytest.fixture
def queue(own_databases: None) -> Twm:
    """Return what runs a command of `twm queue`."""
    return partial(run_plainly, "queue")


@pytest.fixture
def spool() -> Spool:
    return Spool(load_settings().spool_folder, "teamwork")


@pytest.fixture
def parked(engine: Engine) -> Engine:
    """Set a record aside whose id holds what separates the words of its name here."""
    raw = {"subject": "private matter"}
    problem = SetAside(stream="emails", object_id="m/1", reason="body: expected a text", raw=raw)
    with engine.begin() as connection:
        set_aside(connection, "missive", [problem])
    return engine


def put_dead(spool: Spool, **values: Any) -> str:
    """Store a delivery, let it fail for good, and return its id."""
    spool.put([make_envelope(**values)])
    entry = take(spool)
    fail(spool, entry, most_attempts=1)
    return entry.name.split(".")[1]


def sources(answer: Answer) -> dict[str, Any]:
    return {item["source"]: item for item in answer.json["sources"]}


def test_an_empty_queue_says_so(queue):
    answer = queue("list")

    assert answer.code == OK
    assert "TEAMWORK  nothing waits" in answer.out
    assert "MISSIVE  nothing waits" in answer.out


def test_the_list_counts_every_place_and_shows_what_is_faulty(queue, spool):
    hint = Hint(event="TASK.DELETED", stream="tasks", object_id="4711")
    dead = put_dead(spool, hint=hint, received_at=datetime.now(UTC) - 3 * HOUR)
    put(spool, b"retried")
    fail(spool, take(spool))
    spool.put([make_envelope(received_at=datetime.now(UTC) - 5 * HOUR)])
    put(spool, b"private matter")

    found, shown = sources(queue("list", "--json"))["teamwork"], queue("list").out

    assert {place: item["count"] for place, item in found["places"].items()} == {
        "new": 2,
        "cur": 0,
        "retry": 1,
        "dead": 1,
    }
    assert found["places"]["dead"]["oldest_seconds"] == pytest.approx(3 * 3600, abs=120)
    [first] = [item for item in found["entries"] if item["place"] == "dead"]
    assert (first["id"], first["event"], first["stream"], first["object_id"], first["attempts"]) == (
        dead,
        "TASK.DELETED",
        "tasks",
        "4711",
        1,
    )
    for word in (dead, "TASK.DELETED", "4711", "title: expected a text", "given up", "3 h"):
        assert word in shown
    assert "private matter" not in shown


def test_a_long_list_is_cut_and_says_so(queue, spool):
    for _ in range(4):
        put_dead(spool)

    assert len(sources(queue("list", "--limit", "3", "--json"))["teamwork"]["entries"]) == 3
    assert "… and 1 more" in queue("list", "--limit", "3").out


def test_the_list_shows_records_set_aside(queue, parked):
    found, shown = sources(queue("list", "--json"))["missive"]["set_aside"], queue("list").out

    assert (found["count"], found["records"][0]["id"]) == (1, PARKED)
    assert PARKED in shown
    assert "body: expected a text" in shown
    assert "private matter" not in shown


def test_rows_that_airtable_refused_are_listed_shown_and_tried_again(queue, engine):
    refused = SetAside(stream="tasks", object_id="17", reason='Field "Due" cannot accept the provided value')
    with engine.begin() as connection:
        set_aside(connection, "airtable", [refused])
    name = "set-aside:airtable/tasks/17"

    [record] = queue("list", "--json").json["airtable"]["set_aside"]["records"]

    assert (record["id"], record["reason"]) == (name, refused.reason)
    assert name in queue("list").out
    assert refused.reason in queue("show", name).out
    assert queue("retry", name).code == OK


def test_deliveries_are_shown_although_the_database_does_not_answer(queue, spool, monkeypatch):
    dead = put_dead(spool)
    monkeypatch.setenv("PG_DSN", "postgresql://somebody:secret@127.0.0.1:1/nowhere")

    answer = queue("list")

    assert answer.code == FAILED
    assert dead in answer.out
    assert "Records set aside are not shown" in answer.err
    assert "PostgreSQL does not answer" in answer.err
    assert "secret" not in answer.err
    assert not queue("list", "--json").json["database_answered"]


def test_a_delivery_needs_no_database(queue, spool, monkeypatch):
    dead = put_dead(spool)
    monkeypatch.setenv("PG_DSN", "postgresql://127.0.0.1:1/nowhere")

    assert queue("show", dead).code == OK
    assert queue("retry", dead).code == OK
    assert queue("discard", dead, "--yes").code == OK
    assert queue("show", PARKED).code == FAILED


@pytest.mark.parametrize("words", ["beginning", "id", "name"])
def test_a_delivery_is_shown_by_any_of_its_names(queue, spool, words):
    id_ = put_dead(spool, headers={"content-type": "application/json"}, body=b'{"title": "private matter"}')
    [listed] = spool.entries()
    word = {"beginning": id_[:4], "id": id_, "name": listed.name}[words]

    answer = queue("show", word, "--json")

    told = answer.json
    assert (told["id"], told["source"], told["place"], told["event"]) == (
        id_,
        "teamwork",
        "dead",
        "TASK.UPDATED",
    )
    assert (told["reason"], told["headers"], told["bytes"]) == (
        "title: expected a text",
        {"content-type": "application/json"},
        27,
    )
    assert Path(told["file"]).exists()
    assert "private matter" not in answer.out + queue("show", word).out


def test_a_record_leads_to_the_vendor(queue, parked):
    problem = SetAside(stream="conversations", object_id="c 1", reason="`id` is no id")
    with parked.begin() as connection:
        set_aside(connection, "missive", [problem])
        connection.execute(
            text("INSERT INTO twm.sources (source, account, first_import_at) VALUES ('missive', 'a', now())")
        )

    conversation = queue("show", "set-aside:missive/conversations/c 1").out
    email = queue("show", PARKED, "--json").json

    assert "link: https://mail.missiveapp.com/#inbox/conversations/c%201" in conversation
    assert email["link"] is None


def test_the_content_is_shown_only_where_it_is_asked_for(queue, spool, parked):
    id_ = put_dead(spool, body=b'{"title": "private matter"}')

    assert "body" not in queue("show", id_, "--json").json
    assert queue("show", id_, "--body", "--json").json["body"] == '{"title": "private matter"}'
    assert "raw" not in queue("show", PARKED, "--json").json
    assert queue("show", PARKED, "--body", "--json").json["raw"] == {"subject": "private matter"}
    assert "private matter" in queue("show", PARKED, "--body").out


def test_a_body_cannot_steer_the_terminal(queue, spool):
    id_ = put_dead(spool, body=b"\x1b]0;pwned\x07[red]\xff\nsecond line")

    shown = CliRunner().invoke(app, ["queue", "show", id_, "--body"]).stdout

    assert "body: \\x1b]0;pwned\\x07[red]\\xff\nsecond line" in shown


def test_a_broken_delivery_is_shown_as_far_as_it_can_be(queue, spool):
    [name] = put(spool, b"one")
    (spool.folder / "new" / name).write_bytes(b"half a he")
    assert spool.claim(limit=1) == []

    told = queue("show", name.split(".")[1], "--body", "--json").json

    assert (told["place"], told["event"], told["body"]) == ("dead", None, None)
    assert told["reason"] == "the first line is no JSON object"


@pytest.mark.parametrize("command", ["show", "retry", "discard"])
@pytest.mark.parametrize(
    ("id_", "told"),
    [
        ("0123", "There is no delivery '0123'"),
        ("", "There is no delivery ''"),
        ("../../etc/passwd", "There is no delivery"),
        ("set-aside:missive/emails/unknown", "There is no record 'set-aside:missive/emails/unknown'"),
        ("set-aside:gmail/emails/1", "There is no record"),
        ("set-aside:", "There is no record 'set-aside:'"),
    ],
)
def test_an_unknown_id_is_told(queue, command, id_, told):
    answer = queue(command, id_, *(["--yes"] if command == "discard" else []))

    assert answer.code == FAILED
    assert told in answer.err


def test_the_beginning_of_two_ids_names_none(queue, spool, monkeypatch):
    ids = iter(["aaaa000000000000", "aaaa111111111111"])
    monkeypatch.setattr("secrets.token_hex", lambda _: next(ids))
    put(spool, b"1", b"2")

    answer = queue("show", "aaaa")

    assert answer.code == FAILED
    assert "'aaaa' is the beginning of 2 ids, aaaa000000000000 and aaaa111111111111 among them" in answer.err
    assert queue("show", "aaaa1").code == OK


def test_an_unknown_id_among_others_stops_all_of_them(queue, spool):
    dead = put_dead(spool)

    assert queue("retry", dead, "unknown").code == FAILED
    assert spool.waiting().dead == 1


def test_a_retried_delivery_begins_anew(queue, spool):
    dead = put_dead(spool)
    put(spool, b"waiting")
    fail(spool, take(spool))
    [waiting] = spool.entries("retry")

    answer = queue("retry", dead, waiting.id, "--json")

    assert answer.json == [{"id": dead, "done": True}, {"id": waiting.id, "done": True}]
    assert {entry.attempts for entry in spool.claim(limit=9)} == {0}


def test_all_that_were_given_up_are_retried_at_once(queue, spool):
    for _ in range(3):
        put_dead(spool)
    put(spool, b"waiting")
    fail(spool, take(spool))

    answer = queue("retry", "--all-dead")

    assert (answer.code, answer.out) == (OK, "3 items will be tried again.\n")
    assert (spool.waiting().new, spool.waiting().later, spool.waiting().dead) == (3, 1, 0)


def test_a_delivery_that_is_new_anyway_is_not_retried(queue, spool):
    put(spool, b"one")
    [listed] = spool.entries()

    answer = queue("retry", listed.id)

    assert answer.code == FAILED
    assert "neither given up nor waiting" in answer.err


def test_all_that_were_given_up_are_discarded_at_once(queue, spool):
    put_dead(spool)
    put_dead(spool)
    spool.put([make_envelope()])

    answer = queue("discard", "--all-dead", "--yes")

    assert answer.code == OK
    assert [item.place for item in spool.entries()] == ["new"]


@pytest.mark.parametrize("command", ["retry", "discard"])
@pytest.mark.parametrize("words", [(), ("0123", "--all-dead")], ids=["nothing", "both"])
def test_it_must_be_said_what_is_meant(queue, command, words):
    answer = queue(command, *words)

    assert answer.code == MISUSED
    assert "--all-dead" in answer.err


def test_a_record_set_aside_is_tried_again_at_the_next_pass(queue, parked):
    answer = queue("retry", PARKED)

    assert (answer.code, answer.out) == (OK, "1 item will be tried again.\n")
    with parked.connect() as connection:
        assert connection.scalar(text("SELECT next_attempt_at <= now() FROM twm.set_aside"))


def test_discarded_items_are_gone(queue, spool, parked):
    dead = put_dead(spool)

    answer = queue("discard", dead, PARKED, "--yes", "--json")

    assert answer.json == [{"id": dead, "done": True}, {"id": PARKED, "done": True}]
    assert spool.entries() == []
    with parked.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM twm.set_aside")) == 0


def test_nothing_is_discarded_without_a_terminal_to_ask_at(queue, spool):
    dead = put_dead(spool)

    answer = queue("discard", dead)

    assert answer.code == MISUSED
    assert "without a terminal" in answer.err
    assert spool.waiting().dead == 1


@pytest.mark.parametrize(("word", "code", "left"), [("y", OK, 0), ("n", FAILED, 1), ("", FAILED, 1)])
def test_somebody_at_a_terminal_is_asked(spool, word, code, left):
    dead = put_dead(spool)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "twm_pipeline.cli", "queue", "discard", dead],
        env={**os.environ, "NO_COLOR": "1"},
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.write(ours, f"{word}\n".encode())

    _, asked = process.communicate(timeout=60)

    os.close(ours)
    os.close(theirs)
    assert f"{dead} dead teamwork TASK.UPDATED tasks 1" in asked
    assert "Discard 1 item for good?" in asked
    assert (process.returncode, spool.waiting().dead) == (code, left)


def test_a_wrong_address_of_the_database_is_a_setting_to_be_changed(queue, spool, monkeypatch):
    dead = put_dead(spool)
    monkeypatch.setenv("PG_DSN", "postgresql://[")

    answer = queue("list")

    assert answer.code == TO_BE_CHANGED
    assert dead in answer.out


def test_the_queue_of_the_sandbox_is_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv("SPOOL_DIR", str(tmp_path / "elsewhere"))
    settings = load_settings()

    simulated = sandbox_settings(
        settings, {"port": 4711, "receiver_port": 4712, "status_port": 4713, "anchor": ""}
    )

    assert simulated.spool_folder == folder(settings) / "spool"


def test_the_sandbox_that_was_never_started_has_no_queue(queue):
    assert "there is no sandbox yet" in queue("list", "--sandbox").err


@pytest.mark.parametrize("command", ["list", "show", "retry", "discard"])
def test_every_command_can_answer_in_json(queue, command):
    told = queue(command, "--help")

    assert told.code == OK
    assert "--json" in told.out
