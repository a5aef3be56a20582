"""`twm status`, `twm check` and `twm doctor`: how the deployment stands, and what to do about it."""

from __future__ import annotations

import re

import click
from sqlalchemy import text

from twm_pipeline.cli.output import FAILED, OK, TO_BE_CHANGED
from twm_pipeline.mirror.published import add_calls, note_exhausted
from twm_pipeline.sandbox import MISSIVE_TOKEN, TEAMWORK_KEY
from twm_pipeline_tests.commands import read_everything


def test_status_of_an_empty_mirror_says_what_to_do(twm):
    answer = twm("status")

    assert answer.code == OK
    assert "Nothing is configured" in answer.out


def test_status_shows_rows_checkpoints_budgets_and_what_is_set_aside(twm, box, engine):
    read_everything(engine)
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO twm.set_aside (source, stream, object_id, reason)"
                " VALUES ('missive', 'emails', 'broken-one', 'body: expected a text')"
            )
        )

    teamwork, missive = twm("status", "--json").json["sources"]
    shown = twm("status").out

    rows = {table["stream"]: table["living"] for table in teamwork["tables"]}
    with engine.connect() as connection:
        assert rows["tasks"] == connection.scalar(text("SELECT count(*) FROM public.tasks WHERE NOT deleted"))
    assert teamwork["account"] == box.teamwork_url
    assert teamwork["lag_seconds"] < 60
    assert teamwork["last_error"] is None
    assert not any(item["more_to_read"] for item in teamwork["checkpoints"])
    assert teamwork["budgets"][0]["requests"] == box.control.request_count("teamwork")
    assert missive["set_aside"]["count"] == 1
    assert missive["set_aside"]["records"][0]["reason"] == "body: expected a text"
    assert "broken-one" in shown
    assert "complete 0 s ago" in shown or "complete 1 s ago" in shown


def test_status_shows_how_to_connect_without_the_password(twm, database):
    answer, shown = twm("status"), twm("status", "--json").json["database"]

    assert f"-p {database.port} -U {database.username} -d {database.database}" in answer.out
    assert (shown["port"], shown["database"], shown["password_in"]) == (
        database.port,
        database.database,
        "PG_DSN",
    )
    assert database.password not in answer.out


def test_status_tells_of_the_last_error(twm, box, engine):
    read_everything(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE twm.sources SET last_error = 'Teamwork: 502', last_error_at = now()"))

    assert "Teamwork: 502" in twm("status").err


def test_a_field_that_the_vendor_did_not_send_before_is_told_by_status_and_doctor(twm, box, engine):
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO twm.vendor_fields (source, stream, field, kind, is_baseline)"
                " VALUES ('missive', 'emails', 'mood', 'string', false)"
            )
        )

    findings = {item["name"]: item for item in twm("doctor", "--json").json["findings"]}

    assert findings["fields"]["verdict"] == "warning"
    assert (
        "emails: 1 fields that Missive did not send before: mood (string, new)" in findings["fields"]["text"]
    )
    assert "Missive: emails: 1 fields that Missive did not send before" in twm("status").err


def test_status_of_a_sandbox_that_was_never_started(twm):
    assert "there is no sandbox yet" in click.unstyle(twm("status", "--sandbox").err)


def test_doctor_finds_a_sound_deployment_sound(twm, box):
    answer = twm("doctor", "--json")

    findings = {item["name"]: item["verdict"] for item in answer.json["findings"]}
    assert answer.code == OK
    assert findings == {
        "database": "ok",
        "role": "ok",
        "tables": "ok",
        "teamwork": "ok",
        "missive": "ok",
        "fields": "ok",
        "airtable": "off",
        "categories": "off",
        "attachments": "ok",
        "room": "ok",
        "dagster": "ok",
    }
    assert box.control.request_count() <= 5


def test_doctor_shows_which_secrets_are_set_and_none_of_them(twm, box):
    answer = twm("doctor")

    assert "TEAMWORK_API_KEY" in answer.out
    assert "set (not shown)" in answer.out
    assert TEAMWORK_KEY not in answer.out
    assert MISSIVE_TOKEN not in answer.out


def test_doctor_names_a_refused_key(twm, box, monkeypatch):
    monkeypatch.setenv("TEAMWORK_API_KEY", "expired")

    answer = twm("doctor")

    assert answer.code == TO_BE_CHANGED
    assert "WRONG" in answer.out
    assert "Check the address" in answer.out
    assert "expired" not in answer.out


def test_doctor_goes_on_without_a_database(twm, monkeypatch):
    monkeypatch.setenv("PG_DSN", "postgresql://127.0.0.1:1/nowhere")

    findings = {item["name"]: item for item in twm("doctor", "--json").json["findings"]}

    assert findings["database"]["verdict"] == "wrong"
    assert findings["dagster"]["verdict"] == "ok"


def test_doctor_says_which_right_the_role_lacks(twm, database, engine, monkeypatch):
    with engine.begin() as connection:
        connection.execute(text("DROP ROLE IF EXISTS weak"))
        connection.execute(text("CREATE ROLE weak LOGIN PASSWORD 'pw'"))
    weak = database.set(username="weak", password="pw")  # noqa: S106 - a role of this test's own
    monkeypatch.setenv("PG_DSN", weak.render_as_string(hide_password=False))

    findings = {item["name"]: item for item in twm("doctor", "--json").json["findings"]}

    assert findings["role"]["verdict"] == "wrong"
    assert 'GRANT CREATE ON DATABASE "' in findings["role"]["text"]
    with engine.begin() as connection:
        connection.execute(text("DROP ROLE weak"))


def test_check_shows_what_is_not_in_order_and_everything_only_when_asked(twm, box, engine):
    read_everything(engine)
    sound = twm("check")
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO twm.set_aside (source, stream, object_id, reason)"
                " VALUES ('missive', 'emails', 'broken-one', 'body: expected a text')"
            )
        )
    warned, everything = twm("check", "--no-sample"), twm("check", "--no-sample", "--all")
    with engine.begin() as connection:
        connection.execute(text("UPDATE twm.sources SET last_success_at = now() - interval '2 hours'"))
    failed = twm("check", "--no-sample")

    assert (sound.code, warned.code, failed.code) == (OK, OK, FAILED)
    assert re.fullmatch(r"(\d+) of \1 checks of 17 assets are in order\.\n", sound.out)
    assert [line.split()[:3] for line in warned.out.splitlines()[2:3]] == [
        ["!", "missive/emails", "nothing_is_set_aside"]
    ]
    assert "keys_are_unique" not in warned.out
    assert "keys_are_unique" in everything.out
    assert failed.out.count("WRONG") == 2
    assert "source_is_read" in failed.out


def test_doctor_says_when_nothing_can_be_put_into_the_attachment_store(twm, box, monkeypatch, tmp_path):
    (tmp_path / "taken").write_text("a file")
    monkeypatch.setenv("ATTACHMENTS_URL", str(tmp_path / "taken"))

    findings = {item["name"]: item for item in twm("doctor", "--json").json["findings"]}

    assert findings["attachments"]["verdict"] == "wrong"
    assert str(tmp_path / "taken") in findings["attachments"]["text"]


def test_a_used_up_month_is_told_by_status_and_doctor_and_costs_no_call(twm, engine, publishing, monkeypatch):
    with engine.begin() as connection:
        note_exhausted(connection, publishing.airtable_base_id, exhausted=True)

    status, doctor = twm("status", "--json"), twm("doctor", "--json")
    told = twm("status").err
    monkeypatch.setenv("AIRTABLE_MONTHLY_CALLS", "1")
    with engine.begin() as connection:
        add_calls(connection, publishing.airtable_base_id, 1)
    limited = twm("status", "--json")

    assert "monthly quota is used up" in status.json["airtable"]["stopped"]
    assert "monthly quota is used up" in told
    assert "1 of 1 calls this month" in twm("status").out
    [finding] = [item for item in doctor.json["findings"] if item["name"] == "airtable"]
    assert (finding["verdict"], "monthly quota is used up" in finding["text"]) == ("wrong", True)
    assert "AIRTABLE_MONTHLY_CALLS" in limited.json["airtable"]["stopped"]
    assert publishing.control.request_count("airtable") == 0
