import pytest
import sqlalchemy as sa
from psycopg import sql
from sqlalchemy import URL, Engine

from twm_pipeline.db import (
    connect_database,
    dagster_url,
    embedded_server,
    mirror_url,
    open_engine,
    parse_dsn,
    translate_errors,
)
from twm_pipeline.errors import ConfigError, DatabaseUnavailableError
from twm_pipeline.settings import load_settings

ADDRESSES = {
    "postgres": ("postgres://u:p@db.example:5433/mirror", "postgresql+psycopg://u:p@db.example:5433/mirror"),
    "postgresql": ("postgresql://u@db.example/mirror", "postgresql+psycopg://u@db.example/mirror"),
    "driver": ("postgresql+asyncpg://u:p@h/d", "postgresql+psycopg://u:p@h/d"),
    "upper case": ("POSTGRES://u:p@h/d", "postgresql+psycopg://u:p@h/d"),
    "spaces": ("  postgres://u:p@h/d\n", "postgresql+psycopg://u:p@h/d"),
    "query": ("postgres://u:p@h/d?sslmode=require", "postgresql+psycopg://u:p@h/d?sslmode=require"),
    "escapes": ("postgres://u:p%40ss%2F@h/d", "postgresql+psycopg://u:p%40ss%2F@h/d"),
    "socket": ("postgres:///d?host=/run/pg", "postgresql+psycopg:///d?host=%2Frun%2Fpg"),
    "ipv6": ("postgres://u:p@[::1]:5433/d", "postgresql+psycopg://u:p@[::1]:5433/d"),
    "words": ("host=h dbname=d user=u password='p q'", "postgresql+psycopg://u:p q@h/d"),
}


@pytest.mark.parametrize(("text", "expected"), ADDRESSES.values(), ids=ADDRESSES)
def test_an_address_is_understood_in_every_usual_form(text, expected):
    url = parse_dsn(text, name="PG_DSN")

    assert url.render_as_string(hide_password=False) == expected


def test_several_hosts_reach_the_driver_as_they_were_written():
    url = parse_dsn("postgres://u:p@h1:5433,h2:5434/d?target_session_attrs=read-write", name="PG_DSN")

    _, words = open_engine(url).dialect.create_connect_args(url)

    assert (words["host"], words["port"]) == ("h1,h2", "5433,5434")
    assert words["target_session_attrs"] == "read-write"


@pytest.mark.parametrize(
    "text", ["mysql://u:s3cret@h/d", "s3cret", "postgres://u:s3cret@h:port/d", "postgres://s3cret%"]
)
def test_what_is_no_address_is_refused_without_showing_it(text):
    with pytest.raises(ConfigError, match=r"^PG_DSN is no address") as caught:
        parse_dsn(text, name="PG_DSN")

    assert "s3cret" not in str(caught.value)


def test_dagster_always_gets_psycopg_2():
    settings = load_settings(dagster_pg_url="postgres://u:p@h/d")

    assert dagster_url(settings).drivername == "postgresql+psycopg2"


def test_without_addresses_mirror_and_dagster_share_the_embedded_server(place):
    settings = load_settings(twm_data_dir=place / ".twm")

    mirror, dagster = mirror_url(settings), dagster_url(settings)

    assert (mirror.database, dagster.database) == ("twm", "dagster")
    assert mirror.port == dagster.port
    for url in (mirror, dagster):
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        with engine.connect() as connection:
            assert connection.scalar(sa.text("SELECT current_database()")) == url.database
    assert embedded_server(settings).is_alive()


def test_an_engine_is_in_utc_and_says_who_it_is(empty_database):
    engine = open_engine(empty_database.update_query_dict({"options": "-c work_mem=7MB"}))

    with engine.connect() as connection:
        names = ("timezone", "application_name", "work_mem")
        values = [connection.scalar(sa.text(f"SHOW {name}")) for name in names]
    engine.dispose()

    assert values == ["UTC", "twm", "7MB"]


def test_an_error_of_an_engine_shows_no_parameters(empty_database):
    engine = open_engine(empty_database)

    with pytest.raises(sa.exc.ProgrammingError) as caught, engine.connect() as connection:
        connection.execute(sa.text("SELECT * FROM missing WHERE body = :body"), {"body": "dear Anna"})
    engine.dispose()

    assert "dear Anna" not in str(caught.value)


def test_an_engine_outlives_a_restart_of_its_server(running):
    engine = open_engine(running.url("postgres"))
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT 1"))

    running.stop()
    running.start()

    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT 1")) == 1
    engine.dispose()


def test_connecting_to_the_mirror_uses_pg_dsn(settings, database):
    engine = connect_database(settings)

    assert engine.url.database == database.database
    engine.dispose()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"port": 1}, "Connection refused"),
        ({"password": "s3cret"}, "password authentication failed"),
        ({"database": "nowhere"}, "does not exist"),
    ],
    ids=["nobody listens", "wrong password", "no such database"],
)
def test_a_database_that_cannot_be_reached_is_named_without_its_password(empty_database, change, said):
    url: URL = empty_database.set(**change)
    settings = load_settings(pg_dsn=url.render_as_string(hide_password=False))

    with pytest.raises(DatabaseUnavailableError, match=said) as caught:
        connect_database(settings)

    assert f"database {url.database} at 127.0.0.1:{url.port}" in str(caught.value)
    assert url.password is not None
    assert url.password not in str(caught.value)


def test_a_connection_that_dies_inside_is_translated(empty_database):
    engine = open_engine(empty_database)

    with (
        pytest.raises(DatabaseUnavailableError, match="terminating connection"),
        translate_errors(engine.url),
        engine.connect() as connection,
    ):
        connection.execute(sa.text("SELECT pg_terminate_backend(pg_backend_pid())"))
    engine.dispose()


def test_an_error_of_a_statement_is_left_as_it_is(empty_database):
    engine = open_engine(empty_database)

    with (
        pytest.raises(sa.exc.ProgrammingError, match="syntax error"),
        translate_errors(engine.url),
        engine.connect() as connection,
    ):
        connection.execute(sa.text("SELEKT 1"))
    engine.dispose()


def test_an_exhausted_pool_is_an_unavailable_database(empty_database):
    engine: Engine = sa.create_engine(empty_database, pool_size=1, max_overflow=0, pool_timeout=0.1)

    with (
        engine.connect(),
        pytest.raises(DatabaseUnavailableError, match="QueuePool limit"),
        translate_errors(engine.url),
    ):
        engine.connect()
    engine.dispose()


def test_each_test_gets_a_database_of_its_own(database, empty_database, server):
    with server.connect() as connection:
        found = connection.execute(
            sql.SQL("SELECT count(*) FROM pg_database WHERE datname IN ({}, {})").format(
                sql.Literal(database.database), sql.Literal(empty_database.database)
            )
        ).fetchone()

    assert found == (2,)
