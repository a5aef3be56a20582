"""Records set aside: why, and when they are tried again."""

from sqlalchemy import Connection, text

from twm_pipeline.mirror.set_aside import (
    SetAside,
    due_set_aside,
    resolve_set_aside,
    set_aside,
    waiting_set_aside,
)


def wait_minutes(connection: Connection) -> float:
    return float(
        connection.execute(
            text("SELECT extract(epoch FROM next_attempt_at - now()) / 60 FROM twm.set_aside")
        ).scalar_one()
    )


def test_each_attempt_of_a_set_aside_record_waits_twice_as_long_up_to_a_day(connection):
    waits = []
    for _ in range(14):
        set_aside(connection, "teamwork", [SetAside(stream="tasks", object_id="1", reason="x")])
        waits.append(round(wait_minutes(connection)))

    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1440, 1440, 1440]


def test_after_very_many_attempts_the_wait_is_still_a_day(connection):
    problem = SetAside(stream="tasks", object_id="1", reason="x")
    set_aside(connection, "teamwork", [problem])
    connection.execute(text("UPDATE twm.set_aside SET attempts = 2000000"))

    set_aside(connection, "teamwork", [problem])

    assert wait_minutes(connection) == 1440


def test_a_set_aside_record_keeps_its_last_reason_and_row(connection):
    first = SetAside(stream="tasks", object_id="1", reason="dueDate", raw={"id": 1})
    second = SetAside(stream="tasks", object_id="1", reason="y" * 2000, raw={"id": 1, "name": "x"})

    counts = [set_aside(connection, "teamwork", [problem]) for problem in (first, second)]

    row = connection.execute(text("SELECT reason, raw, attempts FROM twm.set_aside")).one()
    assert counts == [1, 1]
    assert row == ("y" * 500, {"id": 1, "name": "x"}, 2)


def test_a_set_aside_record_is_due_when_its_time_has_come(connection):
    problems = [SetAside(stream="tasks", object_id=name, reason="x") for name in ("1", "2", "3")]
    set_aside(connection, "teamwork", problems)
    connection.execute(
        text(
            "UPDATE twm.set_aside SET next_attempt_at = now() - CAST(object_id AS int) * interval '1 minute'"
            " WHERE object_id <> '3'"
        )
    )

    assert due_set_aside(connection, "teamwork", "tasks") == ["2", "1"]
    assert due_set_aside(connection, "teamwork", "tasks", limit=1) == ["2"]
    assert due_set_aside(connection, "teamwork", "people") == []
    assert waiting_set_aside(connection, "teamwork", "tasks", ["1", "2", "3", "4"]) == {"3"}


def test_a_stored_record_is_no_longer_set_aside(connection):
    problems = [SetAside(stream="tasks", object_id=name, reason="x") for name in ("1", "2")]
    set_aside(connection, "teamwork", [*problems, SetAside(stream="tags", object_id="1", reason="x")])

    resolve_set_aside(connection, "teamwork", "tasks", [1])

    left = connection.execute(text("SELECT stream, object_id FROM twm.set_aside ORDER BY 1")).all()
    assert left == [("tags", "1"), ("tasks", "2")]
