"""The insights' tables, computed by hand from a few rows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime

import pytest
from sqlalchemy import Engine, text

from twm_pipeline.insights.daily import daily_activity
from twm_pipeline.insights.flow import task_flow
from twm_pipeline.insights.responses import response_times
from twm_pipeline.insights.result import Insight
from twm_pipeline.mirror.insights import list_plots, load_plot
from twm_pipeline.mirror.schema import categorize
from twm_pipeline.mirror.tables import CONVERSATIONS, EMAILS, PEOPLE, PROJECTS, TAGS, TASKLISTS, TASKS, Table
from twm_pipeline.mirror.tombstones import mark_inaccessible, tombstone
from twm_pipeline.mirror.upserts import upsert
from twm_pipeline.records import Record
from twm_pipeline.settings import Settings
from twm_pipeline.status.plots import PLOTS
from twm_pipeline_tests.factories import (
    make_conversation,
    make_email,
    make_person,
    make_project,
    make_tag,
    make_task,
    make_tasklist,
    seen,
)

SEQ = 100
DAY = "2025-06-11"
NOON = datetime(2025, 6, 11, 10, 0, tzinfo=UTC)  # in Berlin; a Wednesday

Store = Callable[..., None]


@pytest.fixture
def store(engine: Engine) -> Store:
    numbers = iter(range(SEQ, 10_000))

    def put(table: Table, *records: Record) -> None:
        seq = next(numbers)
        with engine.begin() as connection:
            upsert(connection, table, [seen(record, seq) for record in records])

    return put


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def rows(engine: Engine, query: str) -> list[tuple[object, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def activity(engine: Engine, dimension: str) -> dict[tuple[object, ...], tuple[object, ...]]:
    found = rows(
        engine,
        "SELECT day::text, key, name, tasks_created, tasks_completed, tasks_reopened, mails_in, mails_out"
        f" FROM insights.daily_activity WHERE dimension = '{dimension}' ORDER BY 1, 2",
    )
    return {row[:3]: row[3:] for row in found}


def test_a_day_is_one_of_the_time_zone(engine, settings, store):
    late = utc("2025-06-10 22:30")  # half past midnight in Berlin, the 11th
    winter = utc("2025-01-10 23:30")
    store(TASKS, make_task(id=1, created_at=late), make_task(id=2, created_at=winter))

    daily_activity(engine, settings)

    assert activity(engine, "all") == {
        ("2025-01-11", "", None): (1, 0, 0, 0, 0),
        ("2025-06-11", "", None): (1, 0, 0, 0, 0),
    }


def test_tasks_count_for_their_project_and_for_who_did_it(engine, settings, store):
    store(PROJECTS, make_project())
    store(TASKLISTS, make_tasklist())
    store(PEOPLE, make_person(), make_person(id=302, first_name="Bo", last_name="Lind"))
    store(
        TASKS,
        make_task(id=1, created_at=NOON, created_by_id=301, completed_at=NOON, completed_by_id=302),
        make_task(id=2, created_at=NOON, created_by_id=301),
        make_task(id=3, created_at=NOON, created_by_id=999, tasklist_id=None),
    )

    daily_activity(engine, settings)

    assert activity(engine, "all") == {("2025-06-11", "", None): (3, 1, 0, 0, 0)}
    assert activity(engine, "project") == {("2025-06-11", "501", "Quay"): (2, 1, 0, 0, 0)}
    assert activity(engine, "person") == {
        ("2025-06-11", "301", "Mara Holt"): (2, 0, 0, 0, 0),
        ("2025-06-11", "302", "Bo Lind"): (0, 1, 0, 0, 0),
        ("2025-06-11", "999", None): (1, 0, 0, 0, 0),
    }


def test_mails_count_by_direction_and_category(engine, settings, store):
    with engine.begin():
        categorize(engine, {'Customer\'s: "A"': ("Customer*",)})
    store(TAGS, make_tag(name="Customer B"))
    store(CONVERSATIONS, make_conversation(label_names=["Customer A", "Other"], label_ids=["l1", "l2"]))
    store(
        EMAILS,
        make_email(id="m1", delivered_at=NOON),
        make_email(id="m2", delivered_at=NOON, author_id="u1", author_name="Mara"),
        make_email(id="m3", delivered_at=NOON, conversation_id="c9"),
        make_email(id="m4", delivered_at=None),
    )
    store(TASKS, make_task(id=1, created_at=NOON, tag_ids=[901]))

    daily_activity(engine, settings)

    assert activity(engine, "all") == {("2025-06-11", "", None): (1, 0, 0, 2, 1)}
    category = 'Customer\'s: "A"'
    assert activity(engine, "category") == {("2025-06-11", category, category): (1, 0, 0, 1, 1)}
    assert activity(engine, "person") == {("2025-06-11", "u1", "Mara"): (0, 0, 0, 0, 1)}


def test_a_reopening_counts_on_the_day_the_mirror_saw_it(engine, settings, store):
    store(TASKS, make_task(status="completed", completed_at=NOON, updated_at=NOON))
    reopened = utc("2025-06-12 10:00")
    store(TASKS, make_task(status="reopened", updated_at=reopened))
    store(TASKS, make_task(status="reopened", title="renamed", updated_at=utc("2025-06-13 10:00")))
    store(TASKS, make_task(status="completed", updated_at=utc("2025-06-14 10:00"), completed_at=NOON))
    store(TASKS, make_task(status="reopened", updated_at=utc("2025-06-15 10:00")))

    daily_activity(engine, settings)

    counts = {day: figures[2] for (day, _, _), figures in activity(engine, "all").items()}
    assert counts == {"2025-06-12": 1, "2025-06-15": 1}


def test_what_people_do_not_see_counts_nowhere(engine, settings, store):
    store(TASKS, *(make_task(id=number, created_at=NOON, due_date=date(2025, 1, 1)) for number in (1, 2, 3)))
    store(CONVERSATIONS, make_conversation())
    store(EMAILS, make_email(id="m1", delivered_at=NOON))
    with engine.begin() as connection:
        tombstone(connection, TASKS, [1], seq=5000, at=NOON, evidence="feed")
        mark_inaccessible(connection, TASKS, [2], seq=5000)
        connection.execute(text("UPDATE teamwork.tasks SET out_of_scope = true WHERE id = 3"))
        tombstone(connection, CONVERSATIONS, ["c1"], seq=5000, at=NOON, evidence="404")

    computed = [compute(engine, settings) for compute in (daily_activity, response_times, task_flow)]

    assert [insight.rows for insight in computed] == [0, 0, 0]


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        # (id, sent, by us): asked on Wednesday at 16:00 in Berlin, answered on Thursday at 10:00
        ([("a", "2025-06-11 14:00", False), ("b", "2025-06-12 08:00", True)], ("b", 18.0, 2.0)),
        # The second reply does not count, nor what came before the question.
        (
            [
                ("z", "2025-06-10 08:00", True),
                ("a", "2025-06-11 08:00", False),
                ("b", "2025-06-11 08:30", True),
                ("c", "2025-06-11 09:00", True),
            ],
            ("b", 0.5, 0.5),
        ),
        # Asked twice: who waits, waits from the first time on.
        (
            [
                ("a", "2025-06-11 08:00", False),
                ("b", "2025-06-11 09:00", False),
                ("c", "2025-06-11 10:00", True),
            ],
            ("c", 2.0, 2.0),
        ),
        ([("a", "2025-06-11 08:00", False)], (None, None, None)),
    ],
)
def test_the_first_reply_is_measured_from_the_first_question(engine, settings, store, messages, expected):
    store(CONVERSATIONS, make_conversation())
    store(
        EMAILS,
        *(
            make_email(id=key, delivered_at=utc(sent), author_id="u1" if ours else None, author_name=key)
            for key, sent, ours in messages
        ),
    )

    response_times(engine, settings)

    [(by, seconds, business)] = rows(
        engine, "SELECT replied_by, seconds / 3600, business_seconds / 3600 FROM insights.response_times"
    )
    assert (by, seconds, business) == (expected[0], *map(approximately, expected[1:]))


def approximately(value: float | None) -> object:
    return value if value is None else pytest.approx(value)


def test_a_thread_that_only_we_write_in_waits_for_nothing(engine, settings, store):
    store(CONVERSATIONS, make_conversation())
    store(EMAILS, make_email(author_id="u1"))

    assert response_times(engine, settings).rows == 0


def test_ages_cycles_and_what_is_overdue(engine, settings, store):
    created = utc("2025-06-01 10:00")
    due = date(2025, 6, 10)
    store(
        TASKS,
        make_task(id=1, created_at=created, due_date=due),
        make_task(id=2, created_at=created, due_date=due, completed_at=utc("2025-06-10 21:30")),
        make_task(id=3, created_at=created, due_date=due, completed_at=utc("2025-06-10 22:30")),
        make_task(id=4, created_at=created, due_date=date(2025, 6, 11)),
        make_task(id=5, created_at=None, due_date=None),
    )

    insight = task_flow(engine, settings, now=NOON)

    found = rows(
        engine,
        "SELECT task_id, age_days, cycle_days, overdue, overdue_days FROM insights.task_flow ORDER BY 1",
    )
    assert found == [
        (1, 10.0, None, True, 1),
        (2, None, pytest.approx(9.479, abs=1e-3), False, None),  # half past eleven at night in Berlin
        (3, None, pytest.approx(9.521, abs=1e-3), True, 1),  # half past midnight: a day late
        (4, 10.0, None, False, None),  # due today
        (5, None, None, False, None),
    ]
    assert insight.figures == {"open": 3, "overdue": 1, "median_cycle_days": 9.5}


def test_computing_again_writes_nothing_and_a_change_only_its_row(engine, settings, store):
    store(TASKS, *(make_task(id=number, created_at=NOON) for number in (1, 2, 3)))
    store(CONVERSATIONS, make_conversation())
    store(EMAILS, make_email(id="m1", delivered_at=NOON))

    def compute() -> list[Insight]:
        return [
            daily_activity(engine, settings),
            response_times(engine, settings),
            task_flow(engine, settings, now=NOON),
        ]

    first, again = compute(), compute()
    store(TASKS, make_task(id=2, created_at=NOON, title="x", status="completed", completed_at=NOON))
    changed = compute()
    with engine.begin() as connection:
        tombstone(connection, TASKS, [1], seq=9000, at=NOON, evidence="feed")
    fewer = compute()

    assert [insight.written for insight in first] == [1, 1, 3]
    assert [insight.written for insight in again] == [0, 0, 0]
    assert [insight.written for insight in changed] == [1, 0, 1]
    assert [insight.written for insight in fewer] == [1, 0, 1]
    assert fewer[2].rows == 2


def test_there_is_a_small_picture_of_each_also_where_there_is_nothing(engine, settings):
    for compute in (daily_activity, response_times, task_flow):
        assert len(compute(engine, settings).png) < 60_000

    with engine.connect() as connection:
        names = [plot["name"] for plot in list_plots(connection)]
        pictures = [load_plot(connection, name) or b"" for name in names]
    assert names == sorted(PLOTS)
    assert all(png.startswith(b"\x89PNG") for png in pictures)


def test_whoever_reads_sees_the_old_table_until_the_new_one_is_whole(engine, settings: Settings, store):
    store(TASKS, make_task(id=1, created_at=NOON))
    task_flow(engine, settings, now=NOON)

    with engine.begin() as reader:
        reader.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        before = reader.execute(text("SELECT count(*) FROM insights.task_flow")).scalar()
        store(TASKS, make_task(id=2, created_at=NOON))
        task_flow(engine, settings, now=NOON)
        assert reader.execute(text("SELECT count(*) FROM insights.task_flow")).scalar() == before == 1
