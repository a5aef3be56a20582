"""One bad record never holds up the others: set aside with its reason, counted, shown, tried again (G7).

What becomes of deliveries about such an object is in `sync/test_drain.py`, of rows that Airtable refuses in
`sync/test_publish_refusals.py`.
"""

from __future__ import annotations

import pytest
from sqlalchemy import text

from twm_pipeline.mirror.set_aside import hurry_set_aside
from twm_pipeline.sync.engine import PassOptions
from twm_pipeline_tests.faults.world import is_plain

TASKS = r"/tasks\.json"
BAD_ROWS = {
    "a task": ("teamwork", TASKS),
    "a project": ("teamwork", r"/projects\.json"),
    "a task list": ("teamwork", r"/tasklists\.json"),
    "a person": ("teamwork", r"/people\.json"),
    "a conversation": ("missive", r"/conversations$"),
    "a message": ("missive", r"/messages/"),
    "a comment": ("missive", r"/comments"),
}


def set_aside(world):
    """Return what is set aside: source, stream, id, reason."""
    with world.engine.connect() as connection:
        query = text("SELECT source, stream, object_id, reason FROM twm.set_aside")
        return [tuple(row) for row in connection.execute(query)]


def hurry(world):
    """Let what is set aside be tried again now, as `twm queue retry` does."""
    with world.engine.begin() as connection:
        for source, stream, object_id, _ in set_aside(world):
            hurry_set_aside(connection, source, stream, object_id)


@pytest.mark.parametrize(("source", "path"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_row_that_cannot_be_used_is_set_aside_and_comes_when_it_can(world, source, path):
    if path == TASKS:  # the first pass reads the newest ones twice
        world.sync(source)
        world.control.create_task("Order steel")
    world.control.add_fault(source, "malformed_row", path=path)

    world.sync(source)

    [(_, _, _, reason)] = set_aside(world)
    counted = sum(figures.set_aside for report in world.reports for figures in report.streams.values())
    assert "expected" in reason
    assert counted == 1
    hurry(world)
    world.sync(source)
    world.reconcile(source)
    assert set_aside(world) == []
    world.assert_true(source)


CHECK = "ALTER TABLE {table} ADD CONSTRAINT users_own CHECK ({column} <> {value})"
NO_CHECK = "ALTER TABLE {table} DROP CONSTRAINT users_own"
TRIGGER = (
    "CREATE FUNCTION users_own() RETURNS trigger LANGUAGE plpgsql AS"
    " $$ BEGIN IF NEW.{column} = {value} THEN {raise_it}; END IF; RETURN NEW; END $$;"
    "CREATE TRIGGER users_own BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION users_own()"
)
NO_TRIGGER = "DROP TRIGGER users_own ON {table}"
RAISE = "RAISE EXCEPTION 'no % please', NEW.id USING CONSTRAINT = 'person' || NEW.id"
RAISE_OWN = "RAISE 'no % please', NEW.id USING ERRCODE = 'MY001', DETAIL = NEW.raw::text"
RAISE_RANGE = "RAISE numeric_value_out_of_range"
REFUSALS = {
    "a task by a constraint": ("teamwork.tasks", CHECK, "CheckViolation (constraint users_own)"),
    "a task by a trigger": ("teamwork.tasks", TRIGGER, "RaiseException (function users_own)"),
    "a person": ("teamwork.people", TRIGGER, "RaiseException (function users_own)"),
    "a time entry": ("teamwork.time_entries", CHECK, "CheckViolation (constraint users_own)"),
    "a conversation": ("missive.conversations", CHECK, "CheckViolation (constraint users_own)"),
    "a message by a constraint": ("missive.emails", CHECK, "CheckViolation (constraint users_own)"),
    "a message by a value": ("missive.emails", TRIGGER, "NumericValueOutOfRange (function users_own)"),
    "a comment": ("missive.comments", TRIGGER, "DatabaseError (function users_own)"),
    "a user": ("missive.users", CHECK, "CheckViolation (constraint users_own)"),
}
RAISES = {"a message by a value": RAISE_RANGE, "a comment": RAISE_OWN}


@pytest.mark.parametrize("what", REFUSALS)
def test_a_row_that_postgresql_refuses_is_set_aside_and_the_rest_of_its_batch_is_stored(make_world, what):
    world = make_world()
    table, refusal, words = REFUSALS[what]
    source = table.partition(".")[0]
    world.sync(source)
    bad = world.scalar(f"SELECT id::text FROM {table} WHERE NOT deleted ORDER BY id OFFSET 1 LIMIT 1")
    rows = world.scalar(f"SELECT count(*) FROM {table}")
    world.empty(source)
    change(world, refusal, table=table, column="id", value=f"'{bad}'", raise_it=RAISES.get(what, RAISE))

    world.sync(source)

    assert set_aside(world) == [
        (source, table.partition(".")[2], bad, f"PostgreSQL refuses the row: {words}")
    ]
    assert world.scalar(f"SELECT count(*) FROM {table}") == rows - 1
    assert world.reports[-1].complete
    change(world, NO_CHECK if refusal is CHECK else NO_TRIGGER, table=table)
    hurry(world)
    world.sync(source, options=PassOptions(directories=True))
    assert set_aside(world) == []
    world.assert_true(source)


def test_a_stored_row_that_no_longer_fits_holds_up_nothing_when_something_comes_to_it(world):
    world.sync("missive")
    own = world.ids("conversation", is_plain)[0]
    change(world, f"{CHECK} NOT VALID", table="missive.conversations", column="id", value=f"'{own}'")
    world.control.receive_mail(conversation_id=own)

    world.sync("missive")

    assert [row[2] for row in set_aside(world)] == [own]
    change(world, NO_CHECK, table="missive.conversations")
    hurry(world)
    world.sync("missive")
    world.assert_true("missive")


def test_a_stored_row_that_no_longer_fits_keeps_no_other_from_being_deleted(world, caplog):
    world.sync()
    tag, other = sorted(world.column("SELECT id FROM teamwork.tags WHERE NOT deleted"))[:2]
    mail, another = sorted(world.column("SELECT id FROM missive.emails WHERE NOT deleted AND NOT draft"))[:2]
    change(world, f"{CHECK} NOT VALID", table="teamwork.tags", column="id", value=tag)
    change(world, f"{CHECK} NOT VALID", table="missive.emails", column="id", value=f"'{mail}'")
    for key in (tag, other):
        world.control.delete_tag(key)
    for key in (mail, another):
        world.control.delete_message(key)

    world.settle()

    assert world.column("SELECT id FROM teamwork.tags WHERE deleted") >= {other}
    assert world.column("SELECT id FROM missive.emails WHERE deleted") >= {another}
    assert world.column("SELECT id FROM teamwork.tags WHERE NOT deleted") >= {tag}
    assert f"teamwork.tags {tag} stays as it is" in caplog.text
    assert f"missive.emails {mail} stays as it is" in caplog.text


def test_a_row_that_a_foreign_key_refuses_comes_when_what_it_names_is_there(world):
    world.sync("teamwork")
    world.empty("teamwork")
    change(
        world,
        "ALTER TABLE teamwork.tasks ADD CONSTRAINT users_own FOREIGN KEY (tasklist_id) REFERENCES {table}",
        table="teamwork.tasklists",
    )

    for _ in range(3):
        world.sync("teamwork", options=PassOptions(directories=True))
        hurry(world)

    assert set_aside(world) == []
    world.assert_true("teamwork")


def change(world, statement, **values):
    """Do what the owner of the database does to its tables."""
    with world.engine.begin() as connection:
        connection.exec_driver_sql(statement.format(**values).replace("%", "%%"))
