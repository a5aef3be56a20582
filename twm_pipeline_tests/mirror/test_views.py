"""The two views for people: names instead of ids, a column per category, and users' own views on top."""

from datetime import date

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from twm_pipeline.mirror.checkpoints import Account, save_account
from twm_pipeline.mirror.schema import READER_ROLE, categorize, migrate
from twm_pipeline.mirror.tables import (
    COMPANIES,
    CONVERSATIONS,
    EMAILS,
    PEOPLE,
    PROJECTS,
    TAGS,
    TASKLISTS,
    TASKS,
    TEAMS,
    Table,
)
from twm_pipeline.mirror.tombstones import mark_inaccessible, tombstone
from twm_pipeline.mirror.upserts import upsert
from twm_pipeline.records import Record
from twm_pipeline_tests.factories import (
    MORNING,
    make_company,
    make_conversation,
    make_email,
    make_person,
    make_project,
    make_tag,
    make_task,
    make_tasklist,
    make_team,
    seen,
)

EMAIL_COLUMNS = [
    "email_id",
    "thread_id",
    "subject",
    "from_address",
    "from_name",
    "to_addresses",
    "to_names",
    "cc_addresses",
    "cc_names",
    "bcc_addresses",
    "bcc_names",
    "in_reply_to",
    "body_text",
    "body_html",
    "sent_at",
    "received_at",
    "labels",
    "draft",
    "attachments",
    "source_links",
    "deleted",
    "deleted_at",
]
TASK_COLUMNS = [
    "task_id",
    "project_id",
    "project_name",
    "tasklist_id",
    "tasklist_name",
    "title",
    "description",
    "status",
    "priority",
    "progress",
    "tags",
    "tag_ids",
    "assignees",
    "assignee_ids",
    "parent_task_id",
    "start_at",
    "due_at",
    "estimate_minutes",
    "created_at",
    "created_by",
    "updated_at",
    "updated_by",
    "completed_at",
    "source_links",
    "deleted",
    "deleted_at",
]
STRANGE_NAMES = [
    "With space",
    'quote "double"',
    "quote 'single'",
    "percent % %s %(x)s",
    "colon :x",
    "semicolon; DROP VIEW tasks",
    "Größe 客 👋🏽",
    "select",
    "x",
    "xmin",
    "ctid",
    "\\backslash",
    "{curly}",
    "ü" * 31,
]


def columns_of(engine: Engine, view: str) -> list[str]:
    with engine.connect() as connection:
        return list(connection.execute(text(f"SELECT * FROM public.{view}")).keys())


def task_row(connection: Connection, number: int = 1):
    return connection.execute(
        text("SELECT * FROM public.tasks WHERE task_id = :id"), {"id": number}
    ).one_or_none()


def email_row(connection: Connection, name: str = "m1"):
    return connection.execute(
        text("SELECT * FROM public.emails WHERE email_id = :id"), {"id": name}
    ).one_or_none()


def fill_directories(connection: Connection) -> None:
    directories: dict[Table, list[Record]] = {
        PROJECTS: [make_project()],
        TASKLISTS: [make_tasklist()],
        TAGS: [make_tag(), make_tag(id=902, name="waiting")],
        COMPANIES: [make_company()],
        TEAMS: [make_team()],
        PEOPLE: [make_person(), make_person(id=302, first_name=None, last_name="", email="jon@example.com")],
    }
    for table, records in directories.items():
        upsert(connection, table, [seen(record, 1) for record in records])


def test_the_promised_columns_come_first_and_in_their_order(engine):
    assert columns_of(engine, "tasks")[: len(TASK_COLUMNS)] == TASK_COLUMNS
    assert columns_of(engine, "emails")[: len(EMAIL_COLUMNS)] == EMAIL_COLUMNS


def test_a_task_shows_names_instead_of_ids(connection):
    fill_directories(connection)
    save_account(
        connection,
        "teamwork",
        Account(
            account="site",
            owner_id=None,
            credentials_digest=b"x",
            first_import_at=MORNING,
            link_base="https://site.example.com",
        ),
    )
    task = make_task(
        tag_ids=[902, 901],
        assignee_ids=[401, 301, 201],
        assignee_types=["teams", "users", "companies"],
        created_by_id=301,
        updated_by_id=302,
        due_date=date(2025, 3, 14),
    )

    upsert(connection, TASKS, [seen(task, 1)])

    row = task_row(connection)
    assert (row.project_id, row.project_name, row.tasklist_name) == (501, "Quay", "Engineering")
    assert (row.tags, row.tag_ids) == (["waiting", "urgent"], [902, 901])
    assert (row.assignees, row.assignee_ids) == (["Statics", "Mara Holt", "Harbour GmbH"], [401, 301, 201])
    assert (row.created_by, row.updated_by) == ("Mara Holt", "jon@example.com")
    assert (row.start_at, row.due_at) == (None, date(2025, 3, 14))
    assert row.source_links == {"teamwork": "https://site.example.com/app/tasks/1"}


def test_what_is_not_known_shows_its_bare_id(connection):
    fill_directories(connection)
    task = make_task(
        tasklist_id=799,
        tag_ids=[901, 999, 902],
        assignee_ids=[999, 301, 301],
        assignee_types=["users", "users", "companies"],
        created_by_id=999,
    )

    upsert(connection, TASKS, [seen(task, 1)])

    row = task_row(connection)
    assert (row.project_id, row.project_name, row.tasklist_id, row.tasklist_name) == (None, None, 799, None)
    assert row.tags == ["urgent", "999", "waiting"]
    assert row.assignees == ["999", "Mara Holt", "301"]
    assert (row.created_by, row.updated_by) == ("999", None)


def test_a_task_with_nothing_is_shown_too(connection):
    upsert(connection, TASKS, [seen(make_task(tasklist_id=None), 1)])

    row = task_row(connection)
    assert (row.tags, row.tag_ids, row.assignees, row.assignee_ids) == ([], [], [], [])
    assert (row.deleted, row.deleted_at, row.inaccessible) == (False, None, False)


def test_a_renamed_person_is_renamed_everywhere(connection):
    fill_directories(connection)
    task = make_task(assignee_ids=[301], assignee_types=["users"], created_by_id=301)
    upsert(connection, TASKS, [seen(task, 1)])

    upsert(connection, PEOPLE, [seen(make_person(last_name="Berg"), 2)])

    row = task_row(connection)
    assert (row.assignees, row.created_by) == (["Mara Berg"], "Mara Berg")


def test_deleted_and_inaccessible_tasks_are_shown_as_such(connection):
    upsert(connection, TASKS, [seen(make_task(id=number), 1) for number in (1, 2)])

    tombstone(connection, TASKS, [1], seq=2, at=MORNING, evidence="event")
    mark_inaccessible(connection, TASKS, [2], seq=2)

    assert (task_row(connection).deleted, task_row(connection).deleted_at) == (True, MORNING)
    assert (task_row(connection, 2).deleted, task_row(connection, 2).inaccessible) == (False, True)


def test_an_email_shows_what_its_conversation_knows(connection):
    conversation = make_conversation(
        label_names=["Orders", "Berlin, East"],
        assignee_names=["Anna"],
        team_name="Support",
        web_url="https://mail.missiveapp.com/#inbox/conversations/c1",
    )
    upsert(connection, CONVERSATIONS, [seen(conversation, 1)])

    upsert(connection, EMAILS, [seen(make_email(to_addresses=["a@x.org"], to_names=["A"]), 1)])

    row = email_row(connection)
    assert (row.thread_id, row.subject, row.from_address) == ("c1", "Offer", "clara@example.com")
    assert (row.labels, row.assignees, row.team) == (["Orders", "Berlin, East"], ["Anna"], "Support")
    assert (row.to_addresses, row.to_names, row.attachments) == (["a@x.org"], ["A"], [])
    assert row.source_links == {"missive": conversation.web_url}
    assert (row.sent_at, row.received_at, row.draft) == (MORNING, MORNING, False)


def test_an_email_written_here_was_not_received(connection):
    upsert(connection, EMAILS, [seen(make_email(author_id="anna"), 1)])

    row = email_row(connection)
    assert (row.sent_at, row.received_at) == (MORNING, None)


def test_an_email_without_its_conversation_is_shown_too(connection):
    upsert(connection, EMAILS, [seen(make_email(conversation_id=None), 1)])

    row = email_row(connection)
    assert (row.labels, row.source_links, row.deleted) == ([], {}, False)


def test_an_email_goes_with_its_conversation_and_comes_back_with_it(connection):
    upsert(connection, EMAILS, [seen(make_email(), 1)])
    upsert(connection, CONVERSATIONS, [seen(make_conversation(deleted=True, deleted_at=MORNING), 1)])
    gone = email_row(connection)

    upsert(connection, CONVERSATIONS, [seen(make_conversation(), 2)])

    assert (gone.deleted, gone.deleted_at) == (True, MORNING)
    assert (email_row(connection).deleted, email_row(connection).deleted_at) == (False, None)


def test_labels_and_tags_fall_into_their_categories(engine):
    categorize(engine, {"Customer": ("ACME*", "Beta"), "Place": ("Berlin?East",)})
    with engine.begin() as connection:
        fill_directories(connection)
        upsert(connection, TAGS, [seen(make_tag(id=903, name="ACME GmbH"), 1)])
        upsert(connection, TASKS, [seen(make_task(tag_ids=[901, 903]), 1)])
        labels = ["Beta", "acme", "Berlin,East", "ACME"]
        upsert(connection, CONVERSATIONS, [seen(make_conversation(label_names=labels), 1)])
        upsert(connection, EMAILS, [seen(make_email(), 1)])

        task, email = task_row(connection), email_row(connection)

    assert (task.Customer, task.Place) == (["ACME GmbH"], [])
    assert (email.Customer, email.Place) == (["Beta", "ACME"], ["Berlin,East"])


def test_categories_come_last_and_keep_their_places(engine):
    before = columns_of(engine, "tasks")

    categorize(engine, {"B": ("b",)})
    categorize(engine, {"A": ("a",), "B": ("x",)})
    categorize(engine, {"A": ("a",)})
    categorize(engine, {"C": ("c",), "A": ("a",), "B": ("b",)})

    assert columns_of(engine, "tasks") == [*before, "B", "A", "C"]


def test_views_of_users_outlive_every_change_of_categories(engine):
    categorize(engine, {"Customer": ("A*",)})
    with engine.begin() as connection:
        for view in ("tasks", "emails"):
            connection.execute(text(f"CREATE VIEW my_{view} AS SELECT * FROM public.{view}"))
            connection.execute(text(f'CREATE VIEW our_{view} AS SELECT "Customer" FROM public.{view}'))
        fill_directories(connection)
        upsert(connection, TASKS, [seen(make_task(tag_ids=[901]), 1)])

    found = []
    for categories in ({"Customer": ("u*",), "New": ("x",)}, {"New": ("y",)}, {}, {"Customer": ("urgent",)}):
        categorize(engine, categories)
        migrate(engine)
        with engine.connect() as connection:
            found.append(connection.scalar(text('SELECT "Customer" FROM our_tasks')))
            connection.execute(text("SELECT * FROM my_emails"))

    assert found == [["urgent"], [], [], ["urgent"]]


@pytest.mark.parametrize("name", STRANGE_NAMES)
def test_any_name_makes_a_column(engine, name):
    patterns = ("urg*", "it's %s", 'a"b\\c', "$1 :x {y}", "客")

    categorize(engine, {name: patterns})

    assert columns_of(engine, "tasks")[-1] == columns_of(engine, "emails")[-1] == name
    with engine.begin() as connection:
        labels = [*patterns, "urgent", "other"]
        upsert(connection, CONVERSATIONS, [seen(make_conversation(label_names=labels), 1)])
        upsert(connection, EMAILS, [seen(make_email(), 1)])
        assert email_row(connection)._mapping[name] == [*patterns, "urgent"]


def test_a_category_named_like_a_column_stands_beside_it(engine):
    categorize(engine, {"title": ("a",), "subject": ("b",), "labels": ("c",)})

    tasks, emails = columns_of(engine, "tasks"), columns_of(engine, "emails")
    assert tasks[-3:] == ["title (category)", "subject", "labels"]
    assert emails[-3:] == ["title", "subject (category)", "labels (category)"]


def test_a_category_named_like_the_way_out_is_not_lost(engine):
    categorize(engine, {"title": ("a",), "title (category)": ("urgent",)})

    with engine.begin() as connection:
        fill_directories(connection)
        upsert(connection, TASKS, [seen(make_task(tag_ids=[901]), 1)])
        row = task_row(connection)

    found = [value for name, value in row._mapping.items() if name.startswith("title (category)")]
    assert sorted(found) == [[], ["urgent"]]


def test_categorizing_twice_changes_nothing(engine):
    categories = {"Customer": ("A*",), "Place": ("B*",)}

    def state():
        with engine.connect() as connection:
            return connection.execute(
                text(
                    "SELECT (SELECT array_agg(c.xmin::text || c.ctid::text) FROM twm.label_categories c),"
                    " (SELECT array_agg(xmin::text ORDER BY oid) FROM pg_class"
                    " WHERE oid IN ('public.tasks'::regclass, 'public.emails'::regclass)),"
                    " (SELECT last_value FROM twm.label_categories_position_seq)"
                )
            ).one()

    first = categorize(engine, categories)
    before = state()
    second = categorize(engine, dict(reversed(categories.items())))

    assert (first, second) == (True, False)
    assert state() == before


def test_the_reader_reads_everything_and_writes_nothing(engine):
    categorize(engine, {"Customer": ("A*",)})
    with engine.connect() as connection:
        connection.execute(text(f"SET ROLE {READER_ROLE}"))

        for name in (
            "public.tasks",
            "public.emails",
            "teamwork.people",
            "missive.comments",
            "twm.checkpoints",
        ):
            connection.execute(text(f"SELECT * FROM {name}"))
        connection.commit()
        for statement in (
            "DELETE FROM teamwork.tasks",
            "UPDATE missive.emails SET subject = ''",
            "INSERT INTO twm.counters VALUES ('x', 'y', 1)",
            "DELETE FROM public.tasks",
            "DROP VIEW public.tasks",
            "CREATE TABLE teamwork.x (id int)",
            "CREATE TABLE public.x (id int)",
            "SELECT nextval('twm.observed_seq')",
        ):
            with pytest.raises(DBAPIError, match=r"permission denied|must be owner|cannot delete"):
                connection.execute(text(statement))
            connection.rollback()
            connection.execute(text(f"SET ROLE {READER_ROLE}"))
            connection.commit()
        connection.execute(text("RESET ROLE"))
        connection.commit()
