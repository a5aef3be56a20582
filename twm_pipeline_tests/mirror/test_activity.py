"""How many rows were written when."""

from __future__ import annotations

from sqlalchemy import Connection, text

from twm_pipeline.mirror.activity import CHART_HOURS, fold_activity, read_hours, read_written
from twm_pipeline.mirror.tables import EMAILS, TASKS
from twm_pipeline.mirror.tombstones import mark_inaccessible, tombstone
from twm_pipeline.mirror.upserts import insert_unknown, upsert
from twm_pipeline_tests.factories import MORNING, make_email, make_task, seen


def wrote(connection: Connection, rows: int, *, hours_ago: float, stream: str = "tasks") -> None:
    connection.execute(
        text(
            "INSERT INTO twm.activity (source, stream, rows, at)"
            " VALUES ('teamwork', :stream, :rows, now() - make_interval(secs => :seconds))"
        ),
        {"stream": stream, "rows": rows, "seconds": 3600 * hours_ago},
    )


def test_whatever_is_written_is_counted_once(connection):
    upsert(connection, TASKS, [seen(make_task(id=number), 10) for number in (1, 2, 3)])
    upsert(connection, TASKS, [seen(make_task(id=number), 11) for number in (1, 2, 3)])
    insert_unknown(connection, TASKS, [seen(make_task(id=number), 11) for number in (3, 4)])
    tombstone(connection, TASKS, [1, 9], seq=12, at=MORNING, evidence="event")
    mark_inaccessible(connection, TASKS, [2], seq=12)
    upsert(connection, EMAILS, [seen(make_email(id="m1"), 13)])

    assert read_written(connection) == {"teamwork": {"tasks": 6}, "missive": {"emails": 1}}
    assert read_hours(connection, "teamwork") == [0] * (CHART_HOURS - 1) + [6]


def test_the_hours_are_in_order_and_older_ones_are_left_out(connection):
    wrote(connection, 5, hours_ago=0)
    wrote(connection, 3, hours_ago=1)
    wrote(connection, 2, hours_ago=1, stream="people")
    wrote(connection, 7, hours_ago=CHART_HOURS - 1)
    wrote(connection, 100, hours_ago=CHART_HOURS + 1)

    hours = read_hours(connection, "teamwork")

    assert hours == [7, *[0] * (CHART_HOURS - 3), 5, 5]


def test_old_batches_of_an_hour_become_one_row_and_no_sum_changes(connection):
    for stream, hours_ago in (("tasks", 1), ("tasks", 80), ("tasks", 80), ("people", 80), ("tasks", 90)):
        wrote(connection, 4, hours_ago=hours_ago, stream=stream)
    before = read_written(connection)

    fold_activity(connection)
    fold_activity(connection)

    kept = connection.execute(
        text("SELECT stream, rows, folded FROM twm.activity ORDER BY at DESC, stream")
    ).all()
    assert read_written(connection) == before == {"teamwork": {"tasks": 16, "people": 4}}
    assert [tuple(row) for row in kept] == [
        ("tasks", 4, False),
        ("people", 4, True),
        ("tasks", 8, True),
        ("tasks", 4, True),
    ]
