"""What the views show: start dates, exclusions, old completed tasks; hidden is not deleted."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import Connection, Engine, text

from twm_pipeline.mirror.checkpoints import Account, load_account, save_account
from twm_pipeline.mirror.scope import Scope, apply_scope, remember_scope
from twm_pipeline.mirror.tables import EMAILS, PROJECTS, TASKLISTS, TASKS
from twm_pipeline.mirror.upserts import upsert
from twm_pipeline_tests.factories import MORNING, make_email, make_project, make_task, make_tasklist, seen

HOUR = timedelta(hours=1)
TASK_SCOPES = {
    "everything": (Scope(), {1, 2, 3, 4, 5, 6}),
    "created on or after": (Scope(process_after=MORNING), {1, 3, 4, 5, 6}),
    "created before all": (Scope(process_after=MORNING - 9 * HOUR), {1, 2, 3, 4, 5, 6}),
    "completed on or after": (Scope(completed_before=MORNING), {1, 2, 4, 5, 6}),
    "without a project": (Scope(excluded_projects=(502,)), {1, 2, 3}),
    "without a company": (Scope(excluded_companies=(202,)), {1, 2, 3}),
    "all of it": (
        Scope(process_after=MORNING, completed_before=MORNING, excluded_projects=(502, 9)),
        {1},
    ),
}


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    """Give a connection that sees tasks of an own, a foreign, an unknown project and of no list at all."""
    with engine.connect() as connection:
        upsert(
            connection,
            PROJECTS,
            [
                seen(make_project(id=501, company_id=201), 1),
                seen(make_project(id=502, company_id=202), 1),
            ],
        )
        upsert(
            connection,
            TASKLISTS,
            [seen(make_tasklist(id=701, project_id=501), 1), seen(make_tasklist(id=702, project_id=502), 1)],
        )
        tasks = [
            make_task(id=1, created_at=MORNING),
            make_task(id=2, created_at=MORNING - HOUR),
            make_task(id=3, completed_at=MORNING - HOUR),
            make_task(id=4, tasklist_id=702, completed_at=MORNING),
            make_task(id=5, tasklist_id=799),
            make_task(id=6, tasklist_id=None),
        ]
        upsert(connection, TASKS, [seen(task, 1) for task in tasks])
        yield connection


def shown(connection: Connection) -> set[int]:
    return set(connection.scalars(text("SELECT task_id FROM public.tasks")).all())


@pytest.mark.parametrize(("scope", "expected"), TASK_SCOPES.values(), ids=TASK_SCOPES)
def test_a_scope_shows_its_tasks(connection, scope, expected):
    apply_scope(connection, "teamwork", scope)

    assert shown(connection) == expected


def test_what_is_hidden_is_not_deleted(connection):
    apply_scope(connection, "teamwork", Scope(excluded_projects=(502,)))

    assert connection.scalar(text("SELECT count(*) FROM teamwork.tasks WHERE NOT deleted")) == 6


def test_a_task_is_shown_as_soon_as_its_project_is_known(connection):
    scope = Scope(excluded_projects=(502,))
    apply_scope(connection, "teamwork", scope)

    upsert(connection, TASKLISTS, [seen(make_tasklist(id=799, project_id=501), 2)])
    apply_scope(connection, "teamwork", scope)

    assert shown(connection) == {1, 2, 3, 5}


def test_an_excluded_company_hides_projects_whose_company_is_not_known(connection):
    upsert(connection, PROJECTS, [seen(make_project(id=501, company_id=None), 2)])

    apply_scope(connection, "teamwork", Scope(excluded_companies=(202,)))

    assert shown(connection) == set()


def test_only_the_rows_that_were_written_are_looked_at(connection):
    apply_scope(connection, "teamwork", Scope(process_after=MORNING + HOUR), ids=[1, 3])

    assert shown(connection) == {2, 3, 4, 5, 6}
    apply_scope(connection, "teamwork", Scope(), ids=[])
    assert shown(connection) == {2, 3, 4, 5, 6}


def test_a_wider_scope_shows_again(connection):
    apply_scope(connection, "teamwork", Scope(process_after=MORNING + HOUR))

    apply_scope(connection, "teamwork", Scope())

    assert shown(connection) == {1, 2, 3, 4, 5, 6}


def test_the_same_scope_again_writes_no_row(connection):
    def versions():
        return connection.execute(
            text("SELECT id, xmin::text, ctid::text FROM teamwork.tasks ORDER BY id")
        ).all()

    scope = Scope(process_after=MORNING, excluded_projects=(502,))
    apply_scope(connection, "teamwork", scope)
    before = versions()

    apply_scope(connection, "teamwork", scope)

    assert versions() == before


def test_hiding_survives_a_change_of_the_row(connection):
    apply_scope(connection, "teamwork", Scope(process_after=MORNING))

    upsert(connection, TASKS, [seen(make_task(id=2, title="changed", created_at=MORNING - HOUR), 2)])

    assert 2 not in shown(connection)


def test_messages_are_shown_from_their_delivery_on(connection):
    emails = [
        make_email(id="on", delivered_at=MORNING),
        make_email(id="before", delivered_at=MORNING - HOUR),
        make_email(id="draft", delivered_at=None, created_at=MORNING),
        make_email(id="old draft", delivered_at=None, created_at=MORNING - HOUR),
        make_email(id="unknown", delivered_at=None),
    ]
    upsert(connection, EMAILS, [seen(email, 1) for email in emails])

    apply_scope(connection, "missive", Scope(process_after=MORNING))
    first = set(connection.scalars(text("SELECT email_id FROM public.emails")))
    apply_scope(connection, "missive", Scope(), ids=["before"])
    second = set(connection.scalars(text("SELECT email_id FROM public.emails")))

    assert first == {"on", "draft", "unknown"}
    assert second == {"on", "draft", "unknown", "before"}


def test_a_scope_is_remembered(connection):
    account = Account(account="x", owner_id=None, credentials_digest=b"x", first_import_at=MORNING)
    scope = Scope(process_after=MORNING, excluded_projects=(1, 2))
    save_account(connection, "teamwork", account)

    remember_scope(connection, "teamwork", scope)

    found = load_account(connection, "teamwork")
    assert found is not None
    assert (
        found.scope
        == scope.to_json()
        == {
            "process_after": "2025-03-04T09:00:00+00:00",
            "excluded_projects": [1, 2],
        }
    )


def test_a_scope_knows_what_it_does():
    assert Scope().shows_everything
    assert not Scope(process_after=MORNING).shows_everything
    assert Scope(excluded_companies=(1,)).excludes
    assert not Scope(process_after=MORNING).excludes
