"""PostgreSQL's clock may be set back or forward: no moment stored before that delays anything for as long."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from twm_pipeline.mirror.attachments import due_files, note_failed
from twm_pipeline.mirror.drift import find_fields, note_fields
from twm_pipeline.mirror.published import (
    Published,
    load_publication,
    note_compared,
    note_set_up,
    save_published,
)
from twm_pipeline.mirror.published_files import note_failed as note_files_failed
from twm_pipeline.mirror.published_files import note_sent, pending_files, sent_files
from twm_pipeline.mirror.set_aside import SetAside, due_set_aside, set_aside, waiting_set_aside
from twm_pipeline.mirror.status import read_progress
from twm_pipeline.mirror.sweeps import open_sweep
from twm_pipeline.mirror.tables import EMAILS, TASKS
from twm_pipeline.mirror.tombstones import read_absences, tombstone
from twm_pipeline.mirror.upserts import upsert
from twm_pipeline_tests.clocks import set_clock_back
from twm_pipeline_tests.factories import MORNING, make_email, make_task, seen

YEAR = timedelta(days=365)
JUMPS = pytest.mark.parametrize("by", [YEAR, -YEAR], ids=["back", "forward"])
BASE = "appBase"
FIVE_MINUTES = timedelta(minutes=5)


@pytest.fixture
def files(engine: Engine) -> Engine:
    """Return a mirror with one published e-mail that has one file."""
    with engine.begin() as connection:
        upsert(connection, EMAILS, [seen(make_email(attachments=json.dumps([{"id": "f1"}])), 1)])
        row = Published(row_id="m1", record_id="rec1", cells_hash=b"x")
        save_published(connection, BASE, "emails", [row])
    return engine


def pending(engine: Engine) -> list[Any]:
    with engine.connect() as connection:
        return list(pending_files(connection, BASE, without=(), most_tries=10, limit=9))


@JUMPS
def test_a_record_that_is_set_aside_is_due(engine, by):
    with engine.begin() as connection:
        set_aside(connection, "teamwork", [SetAside(stream="tasks", object_id="7", reason="bad")])
    with engine.connect() as connection:
        assert due_set_aside(connection, "teamwork", "tasks") == []

    set_clock_back(engine, by)

    with engine.connect() as connection:
        assert due_set_aside(connection, "teamwork", "tasks") == ["7"]
        assert waiting_set_aside(connection, "teamwork", "tasks", ["7"]) == set()


@JUMPS
def test_a_file_that_waits_is_due(files, by):
    with files.begin() as connection:
        note_failed(connection, due_files(connection, limit=9)[0], reason="bad")
    with files.connect() as connection:
        assert due_files(connection, limit=9) == []

    set_clock_back(files, by)

    with files.connect() as connection:
        assert [row.id for row in due_files(connection, limit=9)] == ["f1"]


@JUMPS
def test_a_published_file_that_waits_is_due(files, by):
    with files.begin() as connection:
        for _ in range(2):
            note_files_failed(connection, BASE, ["m1"])
    assert pending(files) == []

    set_clock_back(files, by)

    assert [row.row_id for row in pending(files)] == ["m1"]


@JUMPS
def test_a_file_given_by_its_address_is_looked_for(files, by):
    with files.begin() as connection:
        note_sent(connection, BASE, pending(files)[0], by_address=True)
    with files.connect() as connection:
        assert sent_files(connection, BASE, older_than=FIVE_MINUTES, limit=9) == {}

    set_clock_back(files, by)

    with files.connect() as connection:
        assert sent_files(connection, BASE, older_than=FIVE_MINUTES, limit=9) == {"rec1": ("m1", 1)}


@JUMPS
def test_everything_is_compared_with_what_was_published(engine, by):
    with engine.begin() as connection:
        note_set_up(connection, BASE, "tasks", spec_hash=b"x")
        note_compared(connection, BASE, "tasks")
    with engine.connect() as connection:
        assert load_publication(connection, BASE, "tasks").is_compared

    set_clock_back(engine, by)

    with engine.connect() as connection:
        assert not load_publication(connection, BASE, "tasks").is_compared


@JUMPS
def test_a_sweep_begins_anew(engine, by):
    with open_sweep(engine, "teamwork", place={"step": "tasks"}) as sweep:
        sweep.save()
    with open_sweep(engine, "teamwork", place={}) as sweep:
        assert sweep.continued

    set_clock_back(engine, by)

    with open_sweep(engine, "teamwork", place={}) as sweep:
        assert not sweep.continued


@JUMPS
def test_what_was_buried_before_counts_no_longer_against_deletions(engine, by):
    with engine.begin() as connection:
        upsert(connection, TASKS, [seen(make_task(id=1), 1)])
        tombstone(connection, TASKS, [1], seq=2, at=MORNING, evidence="absence")
    with engine.connect() as connection:
        assert read_absences(connection, TASKS).recent == 1

    set_clock_back(engine, by)

    with engine.connect() as connection:
        assert read_absences(connection, TASKS).recent == 0


def test_fields_that_are_new_are_seen_after_the_clock_was_set_back(engine):
    def receive(key: int, **row: Any) -> None:
        with engine.begin() as connection:
            task = make_task(id=key, title=str(row), raw=json.dumps(row))
            upsert(connection, TASKS, [seen(task, key)])
        note_fields(engine, TASKS)

    receive(1, id=1)
    set_clock_back(engine, YEAR)

    receive(2, id=2, colour="red")

    with engine.connect() as connection:
        assert "colour" in find_fields(connection, TASKS).text


def test_what_nobody_does_any_more_is_not_shown_as_under_way(engine):
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO twm.progress VALUES ('teamwork', 'tasks', 'history')"))
    with engine.connect() as connection:
        assert read_progress(connection, "teamwork")

    set_clock_back(engine, YEAR)

    with engine.connect() as connection:
        assert read_progress(connection, "teamwork") == []
