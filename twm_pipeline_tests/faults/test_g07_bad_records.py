"""One bad record never holds up the others: set aside with its reason, counted, shown, tried again (G7).

What becomes of deliveries about such an object is in `sync/test_drain.py`, of rows that Airtable refuses in
`sync/test_publish.py`.
"""

from __future__ import annotations

import pytest
from sqlalchemy import text

from twm_pipeline.mirror.checkpoints import hurry_set_aside

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


@pytest.mark.parametrize(
    ("source", "table", "kind"),
    [("teamwork", "teamwork.tasks", "task"), ("missive", "missive.emails", "message")],
)
def test_a_row_that_postgresql_refuses_is_set_aside_and_the_rest_of_its_batch_is_stored(
    world, source, table, kind
):
    stored_as = {
        "task": lambda row: row["visible"] and not row["deleted"],
        "message": lambda row: not row["draft"],
    }
    bad = str(world.ids(kind, stored_as[kind])[3])
    with world.engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN IF NEW.id::text = '{bad}' THEN RAISE numeric_value_out_of_range; END IF;"
            " RETURN NEW; END $$"
        )
        connection.exec_driver_sql(
            f"CREATE TRIGGER refuse BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION refuse()"
        )

    world.sync(source)

    [(_, _, object_id, reason)] = set_aside(world)
    assert (object_id, reason) == (bad, "PostgreSQL refuses a value: NumericValueOutOfRange")
    lost = {line.split(":")[0] for line in world.differences(source) if "set aside" not in line}
    assert lost <= {f"{kind} {bad}", f"{kind} shown {bad}"}
    with world.engine.begin() as connection:
        connection.exec_driver_sql(f"DROP TRIGGER refuse ON {table}")
    hurry(world)
    world.sync(source)
    world.settle(source)
    world.assert_true(source)
