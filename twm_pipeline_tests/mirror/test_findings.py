"""What one look into the mirror tells: each mechanism is shown something wrong, and says it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from twm_pipeline.mirror.checkpoints import Checkpoint, save_checkpoint
from twm_pipeline.mirror.findings import Finding, find_checkpoint, find_keys, find_references, find_set_aside
from twm_pipeline.mirror.set_aside import SetAside, set_aside
from twm_pipeline.mirror.status import read_checkpoints
from twm_pipeline.mirror.tables import CONVERSATIONS, EMAILS, PROJECTS, TAGS, TASKLISTS, TASKS, Table
from twm_pipeline.mirror.upserts import upsert
from twm_pipeline.records import Record, Source
from twm_pipeline_tests.factories import (
    make_conversation,
    make_email,
    make_project,
    make_tag,
    make_task,
    make_tasklist,
    seen,
)


def store(engine: Engine, table: Table, *records: Record) -> None:
    with engine.begin() as connection:
        upsert(connection, table, [seen(record, 1) for record in records])


def execute(engine: Engine, statement: str, **values: Any) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement), values)


def keys(engine: Engine, table: Table) -> Finding:
    with engine.connect() as connection:
        return find_keys(connection, table)


def references(engine: Engine, table: Table, *, more_to_read: bool = False) -> Finding:
    with engine.connect() as connection:
        return find_references(connection, table, more_to_read=more_to_read)


def checkpoint_of(engine: Engine, table: Table, source: Source = "teamwork") -> Finding:
    with engine.connect() as connection:
        known = {
            item["stream"]: item
            for item in read_checkpoints(connection, source)
            if item["feed"] in ("", "all")
        }
        found = find_checkpoint(connection, table, known.get(table.stream), directory_seconds=900)
    assert found is not None
    return found


def read_up_to(engine: Engine, table: Table, moment: datetime | None, **cursor: Any) -> None:
    with engine.begin() as connection:
        save_checkpoint(
            connection,
            table.source,
            table.stream,
            "all" if table is CONVERSATIONS else "",
            checkpoint=Checkpoint(last_event_time=moment, last_cursor=cursor),
            may_step_back=True,
        )


def ago(**span: float) -> datetime:
    return datetime.now(UTC) - timedelta(**span)


def test_rows_with_a_key_each_are_in_order(engine):
    store(engine, TASKS, make_task(id=1), make_task(id=2))

    assert keys(engine, TASKS).verdict == "ok"
    assert keys(engine, TASKS).figures["rows"] == 2


def test_a_doubled_row_is_found_although_a_constraint_should_forbid_it(engine):
    store(engine, TAGS, make_tag(id=1))
    execute(engine, "ALTER TABLE teamwork.tags DROP CONSTRAINT tags_pkey")
    execute(engine, "INSERT INTO teamwork.tags SELECT * FROM teamwork.tags")

    found = keys(engine, TAGS)

    assert found.verdict == "error"
    assert found.figures["doubled"] == 1


def test_a_row_without_a_key_is_found(engine):
    store(engine, TAGS, make_tag(id=1))
    execute(engine, "ALTER TABLE teamwork.tags DROP CONSTRAINT tags_pkey")
    execute(engine, "ALTER TABLE teamwork.tags ALTER id DROP NOT NULL")
    execute(engine, "UPDATE teamwork.tags SET id = NULL")

    assert keys(engine, TAGS).verdict == "error"


def test_what_makes_a_view_show_a_row_twice_is_found(engine):
    store(engine, TASKS, make_task(id=1, tasklist_id=701))
    store(engine, TASKLISTS, make_tasklist(id=701))
    execute(engine, "ALTER TABLE teamwork.tasklists DROP CONSTRAINT tasklists_pkey")
    execute(engine, "INSERT INTO teamwork.tasklists SELECT * FROM teamwork.tasklists")

    assert keys(engine, TASKLISTS).verdict == "error"


def test_a_doubled_text_is_found_whatever_the_collation(engine):
    store(engine, EMAILS, make_email(id="m1"))
    execute(engine, "ALTER TABLE missive.emails DROP CONSTRAINT emails_pkey")
    execute(engine, "INSERT INTO missive.emails SELECT * FROM missive.emails")

    assert keys(engine, EMAILS).figures["doubled"] == 1


def test_a_few_rows_without_a_parent_are_normal_and_many_are_not(engine):
    store(engine, CONVERSATIONS, make_conversation(id="c1"))
    store(engine, EMAILS, *(make_email(id=f"m{number}") for number in range(200)))
    assert references(engine, EMAILS).verdict == "ok"

    execute(engine, "UPDATE missive.emails SET conversation_id = 'gone' WHERE id = 'm1'")
    assert references(engine, EMAILS).verdict == "ok"
    execute(engine, "UPDATE missive.emails SET conversation_id = 'gone' WHERE id LIKE 'm1_'")
    assert references(engine, EMAILS).verdict == "warning"
    execute(engine, "UPDATE missive.emails SET conversation_id = 'gone' WHERE id LIKE 'm1%'")
    found = references(engine, EMAILS)

    assert found.verdict == "error"
    assert found.figures == {"rows": 200, "without_conversations": 111}


def test_rows_that_nobody_sees_may_lack_their_parent(engine):
    store(engine, TASKS, *(make_task(id=number) for number in range(1, 4)))
    execute(engine, "UPDATE teamwork.tasks SET deleted = true WHERE id = 1")
    execute(engine, "UPDATE teamwork.tasks SET inaccessible = true WHERE id = 2")
    execute(engine, "UPDATE teamwork.tasks SET out_of_scope = true WHERE id = 3")

    assert references(engine, TASKS).verdict == "ok"


def test_while_history_is_read_parents_may_be_missing_and_the_text_says_so(engine):
    store(engine, TASKS, make_task(id=1))

    found = references(engine, TASKS, more_to_read=True)

    assert found.verdict == "ok"
    assert "history is still being read" in found.text
    assert references(engine, TASKS).verdict == "error"


def test_set_aside_records_are_told_with_their_reasons(engine):
    with engine.begin() as connection:
        problems = [SetAside(stream="tasks", object_id=str(n), reason="`id` is no number") for n in range(3)]
        set_aside(connection, "teamwork", problems)
        tasks = find_set_aside(connection, "teamwork", "tasks")
        tags = find_set_aside(connection, "teamwork", "tags")

    assert (tasks.verdict, tags.verdict) == ("warning", "ok")
    assert "3: `id` is no number" in tasks.text
    assert (sorted(tasks.objects), tags.objects) == (["0", "1", "2"], ())


def test_a_stream_that_was_never_read_says_so(engine):
    assert checkpoint_of(engine, TASKS).verdict == "warning"
    read_up_to(engine, TASKS, None, history={"page": 3})
    assert checkpoint_of(engine, TASKS).verdict == "ok"


def test_a_checkpoint_in_the_future_is_wrong(engine):
    read_up_to(engine, TASKS, ago(hours=-1))

    found = checkpoint_of(engine, TASKS)

    assert found.verdict == "error"
    assert "in the future" in found.text


def test_a_checkpoint_that_is_old_because_nothing_happens_is_in_order(engine):
    read_up_to(engine, TASKS, ago(days=3))
    store(engine, TASKS, make_task(id=1, updated_at=ago(days=4)))

    assert checkpoint_of(engine, TASKS).verdict == "ok"


@pytest.mark.parametrize(
    ("updated", "change", "verdict"),
    [
        pytest.param({"hours": 2}, None, "warning", id="stuck"),
        pytest.param({"minutes": 2}, None, "ok", id="the next poll's"),
        pytest.param({"hours": 2}, "deleted = true", "ok", id="deleted"),
        pytest.param({"hours": 2}, "out_of_scope = true", "ok", id="not listed"),
        pytest.param({"hours": 2}, "synced_at = now() - interval '1 day'", "ok", id="dated into the future"),
    ],
)
def test_changes_beyond_a_checkpoint_that_does_not_move_are_found(engine, updated, change, verdict):
    read_up_to(engine, TASKS, ago(days=3))
    store(engine, TASKS, make_task(id=1, updated_at=ago(**updated)))
    if change:
        execute(engine, f"UPDATE teamwork.tasks SET {change}")

    assert checkpoint_of(engine, TASKS).verdict == verdict


def test_conversations_outside_of_the_main_mailbox_say_nothing_about_its_checkpoint(engine):
    read_up_to(engine, CONVERSATIONS, ago(days=3))
    store(engine, CONVERSATIONS, make_conversation(id="c1", last_activity_at=ago(hours=2), junked=True))
    assert checkpoint_of(engine, CONVERSATIONS, "missive").verdict == "ok"

    store(engine, CONVERSATIONS, make_conversation(id="c2", last_activity_at=ago(hours=2)))

    assert checkpoint_of(engine, CONVERSATIONS, "missive").verdict == "warning"


@pytest.mark.parametrize(("minutes", "verdict"), [(20, "ok"), (60, "warning"), (600, "error")])
def test_a_directory_is_as_old_as_its_last_complete_read(engine, minutes, verdict):
    store(engine, TASKLISTS, make_tasklist())
    store(engine, TAGS, make_tag())
    read_up_to(engine, TAGS, ago(minutes=minutes))

    assert checkpoint_of(engine, TAGS).verdict == verdict


def test_projects_of_task_lists_are_looked_for(engine):
    store(engine, TASKLISTS, make_tasklist(id=701, project_id=501))
    assert references(engine, TASKLISTS).verdict == "error"

    store(engine, PROJECTS, make_project(id=501))

    assert references(engine, TASKLISTS).verdict == "ok"
