"""Commands for now and then: `twm categorize`, `twm reparse`, `twm attachments`."""

from __future__ import annotations

import click
from sqlalchemy import text

from twm_pipeline.cli.output import MISUSED, OK, TO_BE_CHANGED
from twm_pipeline_tests.commands import read_everything


def test_categorize_says_that_there_is_no_file(twm, monkeypatch, tmp_path):
    monkeypatch.setenv("LABEL_CATEGORIES_FILE", str(tmp_path / "none.json"))

    assert "There is no file" in twm("categorize").out


def test_categorize_applies_the_file_and_says_whether_anything_changed(twm, monkeypatch, tmp_path, engine):
    file = tmp_path / "categories.json"
    file.write_text('{"Urgent": ["urgent*"]}')
    monkeypatch.setenv("LABEL_CATEGORIES_FILE", str(file))

    first, second = twm("categorize", "--json").json, twm("categorize", "--json").json

    assert (first["changed"], second["changed"]) == (True, False)
    with engine.connect() as connection:
        columns = connection.execute(text("SELECT * FROM public.emails LIMIT 0")).keys()
    assert "Urgent" in list(columns)


def test_categorize_names_the_mistake_in_the_file(twm, monkeypatch, tmp_path):
    file = tmp_path / "categories.json"
    file.write_text("{")
    monkeypatch.setenv("LABEL_CATEGORIES_FILE", str(file))

    answer = twm("categorize")

    assert answer.code == TO_BE_CHANGED
    assert str(file) in answer.err


def test_reparse_rewrites_nothing_the_second_time(twm, box, engine):
    read_everything(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE teamwork.tasks SET title = NULL"))

    [first] = twm("reparse", "teamwork.tasks", "--json").json
    [second] = twm("reparse", "teamwork.tasks", "--json").json

    assert first["rewritten"] == first["read"] > 0
    assert second["rewritten"] == 0


def test_reparse_of_an_unknown_table_lists_the_known_ones(twm):
    answer = twm("reparse", "tasks")

    assert answer.code == MISUSED
    assert "teamwork.tasks" in click.unstyle(answer.err).replace("\n", "")


def test_attachments_are_downloaded_listed_and_counted(twm, box, monkeypatch):
    monkeypatch.setenv("ATTACHMENTS_RESERVE_MEGABYTES", "0")
    made = box.control.receive_mail(
        attachments=[{"filename": "a\x1b[2J.pdf", "media_type": "application", "sub_type": "pdf", "size": 9}]
    )
    [mail] = [row for row in box.control.truth("message") if row["id"] == made["message_id"]]
    file_id = mail["attachments"][0]["id"]
    box.control.set_file_fault("gone", file_id)
    assert twm("sync", "missive").code == OK

    answer = twm("attachments", "download", "--json")

    figures = answer.json["reports"][0]["streams"]["attachments"]
    listed = twm("attachments", "list", "--json").json
    assert answer.code == OK
    assert figures["failed"] == listed["counts"]["failed"] == 1
    assert figures["stored"] == listed["counts"]["stored"] > 0
    assert "answers 404" in twm("attachments", "list").out
    assert "\x1b" not in twm("attachments", "list").out
    assert "1 failed (twm attachments list)" in twm("status").out

    box.control.set_file_fault(None, file_id)
    assert "1 files stored" in twm("attachments", "retry").out
    assert twm("attachments", "list", "--json").json["failed"] == []


def test_attachments_that_are_switched_off_are_a_setting_to_be_changed(twm, box, monkeypatch):
    monkeypatch.setenv("ATTACHMENTS_DOWNLOAD", "false")

    assert twm("attachments", "download").code == TO_BE_CHANGED
    findings = {item["name"]: item["verdict"] for item in twm("doctor", "--json").json["findings"]}
    assert findings["attachments"] == "off"
