"""Migrations: from nothing, again, and by several processes at once."""

import logging
import threading

import pytest
from sqlalchemy import Engine, text

from twm_pipeline.db import open_engine
from twm_pipeline.mirror import schema
from twm_pipeline.mirror.schema import migrate
from twm_pipeline.mirror.tables import TABLES
from twm_pipeline.mirror.upserts import upsert
from twm_pipeline_tests.factories import make_task, seen
from twm_pipeline_tests.mirror.locks import wait_for_a_lock


@pytest.fixture
def empty(empty_database):
    engine = open_engine(empty_database)
    yield engine
    engine.dispose()


def tables_of(engine: Engine) -> set[str]:
    with engine.connect() as connection:
        rows = connection.scalars(
            text(
                "SELECT schemaname || '.' || tablename FROM pg_tables"
                " WHERE schemaname IN ('teamwork', 'missive', 'twm')"
            )
        )
        return set(rows.all())


def test_an_empty_database_gets_every_table_and_both_views(empty):
    migrate(empty)

    assert {table.name for table in TABLES} < tables_of(empty)
    with empty.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM public.tasks, public.emails")) == 0
        assert connection.scalar(text("SELECT version_num FROM twm.alembic_version"))


def test_migrating_again_keeps_rows_and_rewrites_nothing(engine):
    with engine.begin() as connection:
        upsert(connection, TABLES[0], [seen(make_task(), 1)])

    def state():
        with engine.connect() as connection:
            return connection.execute(
                text(
                    "SELECT (SELECT xmin::text FROM teamwork.tasks),"
                    " (SELECT array_agg(xmin::text ORDER BY oid) FROM pg_rewrite"
                    " WHERE ev_class IN ('public.tasks'::regclass, 'public.emails'::regclass))"
                )
            ).one()

    before = state()
    migrate(engine)
    migrate(engine)

    assert state() == before


def test_a_database_that_is_up_to_date_is_only_looked_at(engine):
    def version_of_the_catalog():
        with engine.connect() as connection:
            return connection.scalar(text("SELECT max(xmin::text::bigint) FROM pg_class"))

    before = version_of_the_catalog()
    migrate(engine)

    assert version_of_the_catalog() == before


def test_a_right_that_the_reader_has_lost_comes_back(engine):
    with engine.begin() as connection:
        connection.execute(text(f"REVOKE SELECT ON missive.comments FROM {schema.READER_ROLE}"))

    migrate(engine)

    with engine.connect() as connection:
        assert connection.scalar(
            text("SELECT has_table_privilege(:r, 'missive.comments', 'SELECT')"), {"r": schema.READER_ROLE}
        )


def test_processes_that_migrate_at_once_end_alike(empty):
    errors: list[BaseException] = []

    def work() -> None:
        engine = open_engine(empty.url)
        try:
            migrate(engine)
        except BaseException as error:  # noqa: BLE001 - handed to the test
            errors.append(error)
        finally:
            engine.dispose()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert errors == []
    assert {table.name for table in TABLES} < tables_of(empty)


def test_two_databases_of_one_server_may_be_migrated_at_once(empty, engine, monkeypatch):
    """Roles belong to the whole server, so the other database's process may be first with the reader."""
    role = f"reader_{empty.url.database}"
    monkeypatch.setattr(schema, "READER_ROLE", role)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            migrate(empty)
        except BaseException as error:  # noqa: BLE001 - handed to the test
            errors.append(error)

    thread = threading.Thread(target=work)
    with engine.begin() as other:
        other.execute(text(f"CREATE ROLE {role} NOLOGIN"))
        thread.start()
        wait_for_a_lock(empty)
    thread.join(30)

    assert errors == []
    with empty.begin() as connection:
        assert connection.scalar(
            text("SELECT has_table_privilege(:r, 'public.tasks', 'SELECT')"), {"r": role}
        )
        connection.execute(text(f"DROP OWNED BY {role}"))
        connection.execute(text(f"DROP ROLE {role}"))


def test_a_user_who_may_not_create_roles_migrates_without_one(empty, caplog):
    """On a hosted server the owner of the database is often not allowed to create roles."""
    caplog.set_level(logging.INFO, logger="twm_pipeline.mirror.schema")
    with empty.connect() as connection:
        database = connection.scalar(text("SELECT current_database()"))
        owner, word = f"owner_{database}", "word"
        connection.execute(text(f"CREATE ROLE {owner} LOGIN PASSWORD '{word}'"))
        connection.execute(text(f"ALTER DATABASE {database} OWNER TO {owner}"))
        connection.commit()
    engine = open_engine(empty.url.set(username=owner, password=word))

    migrate(engine)
    engine.dispose()

    assert {table.name for table in TABLES} < tables_of(empty)
    with empty.connect() as connection:
        connection.execute(text(f"REASSIGN OWNED BY {owner} TO CURRENT_USER"))
        connection.execute(text(f"DROP OWNED BY {owner}"))
        connection.execute(text(f"DROP ROLE {owner}"))
        connection.commit()
