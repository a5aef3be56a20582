"""What a vendor begins to send, or sends otherwise than before, is told once and lost never."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import Engine, text

from twm_pipeline.mirror.drift import fields_of, find_fields, note_fields
from twm_pipeline.mirror.set_aside import SetAside, set_aside
from twm_pipeline.mirror.tables import TASKS
from twm_pipeline.mirror.upserts import upsert
from twm_pipeline_tests.factories import make_task, seen


def receive(engine: Engine, *rows: dict[str, Any], seq: int = 1) -> None:
    """Store tasks as the vendor sent them, and look at their fields."""
    with engine.begin() as connection:
        tasks = [make_task(id=row["id"], title=json.dumps(row), raw=json.dumps(row)) for row in rows]
        upsert(connection, TASKS, [seen(task, seq) for task in tasks])
    note_fields(engine, TASKS)


def told(engine: Engine) -> str:
    with engine.connect() as connection:
        found = find_fields(connection, TASKS)
    return found.text if found.verdict == "warning" else ""


@pytest.mark.parametrize(
    ("row", "fields"),
    [
        ({"id": 1, "done": True}, {("id", "number"), ("done", "boolean")}),
        ({"at": None, "tags": []}, {("tags", "list")}),
        ({"tags": [{"id": 1}]}, {("tags", "list"), ("tags[]", "object"), ("tags[].id", "number")}),
        ({"by": {"name": "x"}}, {("by", "object"), ("by.name", "string")}),
        ({"users": {"4711": 1, "12": 2}}, {("users", "object"), ("users.*", "number")}),
        ({"seen": {"mara@example.com": True}}, {("seen", "object"), ("seen.*", "boolean")}),
    ],
)
def test_fields_are_places_with_kinds_and_keys_that_are_values_are_none(row, fields):
    assert fields_of(row) == fields


def test_what_the_first_look_finds_is_the_baseline(engine):
    receive(engine, {"id": 1, "name": "a"})

    assert told(engine) == ""


def test_a_field_that_was_never_sent_is_told(engine):
    receive(engine, {"id": 1, "name": "a"})
    receive(engine, {"id": 2, "name": "b", "colour": "red"})

    assert "colour (string, new)" in told(engine)


def test_a_field_with_another_kind_is_told_with_the_one_before(engine):
    receive(engine, {"id": 1, "estimate": 5})
    receive(engine, {"id": 2, "estimate": "5m"})

    assert "estimate (string, before: number)" in told(engine)


def test_a_field_that_is_empty_now_and_then_is_no_news(engine):
    receive(engine, {"id": 1, "due": "2025-01-01", "tags": [{"id": 1}]})
    receive(engine, {"id": 2, "due": None, "tags": []})

    assert told(engine) == ""


def test_news_is_told_for_a_week_and_known_from_then_on(engine):
    receive(engine, {"id": 1})
    receive(engine, {"id": 2, "colour": "red"})
    with engine.begin() as connection:
        connection.execute(text("UPDATE twm.vendor_fields SET first_seen_at = now() - interval '8 days'"))

    receive(engine, {"id": 3, "colour": "blue"})

    assert told(engine) == ""


def test_a_record_that_no_parser_could_use_is_looked_at_too(engine):
    receive(engine, {"id": 1, "name": "a"})
    with engine.begin() as connection:
        problem = SetAside(stream="tasks", object_id="2", reason="no use", raw={"id": 2, "name": ["b"]})
        set_aside(connection, "teamwork", [problem])

    note_fields(engine, TASKS)

    assert "name (list, before: string)" in told(engine)


def test_rows_are_looked_at_once(engine):
    receive(engine, {"id": 1, "name": "a"})
    with engine.begin() as connection:
        connection.execute(text("UPDATE teamwork.tasks SET synced_at = now() - interval '1 hour'"))

    assert note_fields(engine, TASKS) == 0


def test_no_value_of_a_row_is_kept(engine):
    receive(engine, {"id": 1, "name": "secret words", "by": {"mara@example.com": "secret words"}})

    with engine.connect() as connection:
        stored = str(connection.execute(text("SELECT * FROM twm.vendor_fields")).all())

    assert "secret" not in stored
    assert "example.com" not in stored
