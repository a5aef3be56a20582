import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy import URL, Engine

from twm_pipeline.db import copy_embedded_mirror, copy_mirror, embedded_server, open_engine, relocate
from twm_pipeline.errors import ConfigError, DatabaseUnavailableError, PermanentError
from twm_pipeline.settings import load_settings

TABLES = """
CREATE SCHEMA teamwork; CREATE SCHEMA missive; CREATE SCHEMA twm;
CREATE TABLE twm.alembic_version (version_num text);
INSERT INTO twm.alembic_version VALUES ('0001');
CREATE SEQUENCE twm.observed_seq;
CREATE TABLE twm.change_log (id integer GENERATED ALWAYS AS IDENTITY, what text);
CREATE TABLE teamwork.tasks (
    id bigint PRIMARY KEY, title text, length integer GENERATED ALWAYS AS (length(title)) STORED,
    gone text, tags text[], raw jsonb, hash bytea, at timestamptz
);
ALTER TABLE teamwork.tasks DROP COLUMN gone;
CREATE TABLE missive."E-Mails" (id text, "Body" text);
CREATE FUNCTION twm.log() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN INSERT INTO twm.change_log (what) VALUES (NEW.id); RETURN NEW; END$$;
CREATE TRIGGER log AFTER INSERT ON teamwork.tasks FOR EACH ROW EXECUTE FUNCTION twm.log();
"""
ROWS = r"""
INSERT INTO teamwork.tasks (id, title, tags, raw, hash, at)
    SELECT n, E'tab\there, line\nthere, \\N, Grüße ' || n, ARRAY['a,b', NULL, '"'], '{"a": [1, 2.50, null]}',
        '\x00ff', 'epoch'::timestamptz + n * interval '1.000001 s' FROM generate_series(1, 5000) n;
INSERT INTO missive."E-Mails" VALUES ('m1', NULL), ('m2', '');
SELECT setval('twm.observed_seq', 777);
"""


def run(url: URL, statements: str) -> list[tuple[object, ...]]:
    engine = open_engine(url)
    with engine.begin() as connection:
        result = connection.exec_driver_sql(statements.replace("%", "%%"))
        rows = [tuple(row) for row in result] if result.returns_rows else []
    engine.dispose()
    return rows


def migrate(engine: Engine) -> None:
    """Stand in for the mirror's own: several statements, again without effect."""
    with engine.begin() as connection:
        if not sa.inspect(connection).has_schema("twm"):
            connection.exec_driver_sql(TABLES)


@pytest.fixture
def source(empty_database: URL) -> URL:
    """Return a mirror with rows of every awkward kind."""
    run(empty_database, TABLES)
    run(empty_database, ROWS)
    return empty_database


@pytest.fixture
def target(server, empty_database) -> Iterator[URL]:
    """Return a mirror without rows."""
    name = f"{empty_database.database}_target"
    server.create_database(name)
    url = server.url(name)
    run(url, TABLES)
    yield url
    with server.connect() as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def content(url: URL) -> list[list[tuple[object, ...]]]:
    return [
        run(url, f"SELECT t::text FROM {table} t ORDER BY 1")
        for table in ("teamwork.tasks", 'missive."E-Mails"', "twm.change_log", "twm.alembic_version")
    ]


def test_every_row_arrives_and_is_counted(source, target):
    copied = copy_mirror(source, target)

    assert copied == {"missive.E-Mails": 2, "teamwork.tasks": 5000, "twm.change_log": 5000}
    assert content(target) == content(source)


def test_counting_goes_on_where_it_stopped(source, target):
    copy_mirror(source, target)

    assert run(target, "SELECT nextval('twm.observed_seq')") == [(778,)]
    assert run(target, "INSERT INTO twm.change_log (what) VALUES ('x') RETURNING id") == [(5001,)]


def test_triggers_are_silent_while_copying_and_speak_again_afterwards(source, target):
    copy_mirror(source, target)
    run(target, "INSERT INTO teamwork.tasks (id) VALUES (9001)")

    assert run(target, "SELECT what FROM twm.change_log WHERE id > 5000") == [("9001",)]


def test_a_second_call_does_nothing(source, target):
    copy_mirror(source, target)
    run(target, "DELETE FROM teamwork.tasks WHERE id > 10")

    assert copy_mirror(source, target) == {}
    assert run(target, "SELECT count(*) FROM teamwork.tasks") == [(10,)]


def test_a_target_with_rows_of_its_own_is_refused(source, target):
    run(target, "INSERT INTO missive.\"E-Mails\" VALUES ('mine')")

    with pytest.raises(ConfigError, match=r"holds a mirror already: rows in missive\.E-Mails"):
        copy_mirror(source, target)

    assert run(target, "SELECT count(*) FROM teamwork.tasks") == [(0,)]


def test_a_target_of_another_version_is_refused(source, target):
    run(target, "ALTER TABLE teamwork.tasks DROP COLUMN hash")

    with pytest.raises(ConfigError, match=r"lacks teamwork\.tasks\.hash"):
        copy_mirror(source, target)


def test_a_copy_that_differs_is_taken_back(source, target, monkeypatch):
    def copy_too_little(source, target, name, columns):
        return 3

    monkeypatch.setattr(relocate, "_copy_table", copy_too_little)

    with pytest.raises(PermanentError, match="not complete: 2 rows in the original, 0 in the copy"):
        copy_mirror(source, target)

    assert run(target, "SELECT obj_description('twm'::regnamespace, 'pg_namespace')") == [(None,)]


def test_a_writer_at_the_source_does_not_disturb(source, target):
    stop = threading.Event()

    def write() -> None:
        number = 100_000
        while not stop.is_set():
            number += 1
            run(source, f"INSERT INTO teamwork.tasks (id) VALUES ({number})")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        copied = copy_mirror(source, target)
    finally:
        stop.set()
        writer.join()

    assert run(target, "SELECT count(*) FROM teamwork.tasks") == [(copied["teamwork.tasks"],)]
    assert copied["teamwork.tasks"] == copied["twm.change_log"]


def test_killed_half_way_it_leaves_nothing_and_succeeds_the_next_time(source, target):
    code = (
        "import sys; from sqlalchemy import make_url; from twm_pipeline.db import copy_mirror, relocate;"
        "relocate._verify = lambda *_: (print('copied', flush=True), sys.stdin.read());"
        "copy_mirror(*map(make_url, sys.argv[1:]))"
    )
    urls = [url.render_as_string(hide_password=False) for url in (source, target)]
    with subprocess.Popen([sys.executable, "-c", code, *urls], stdin=-1, stdout=-1) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"copied\n"
        os.kill(process.pid, signal.SIGKILL)

    assert run(target, "SELECT count(*) FROM teamwork.tasks") == [(0,)]
    assert copy_mirror(source, target)["teamwork.tasks"] == 5000


def test_two_copies_at_once_are_one(source, target):
    results: list[dict[str, int]] = []
    copiers = [threading.Thread(target=lambda: results.append(copy_mirror(source, target))) for _ in range(2)]

    for copier in copiers:
        copier.start()
    for copier in copiers:
        copier.join()

    assert sorted(len(result) for result in results) == [0, 3]
    assert content(target) == content(source)


def test_a_server_that_is_away_is_named(source, target):
    with pytest.raises(DatabaseUnavailableError, match=r"at 127\.0\.0\.1:1:"):
        copy_mirror(source, target.set(port=1))


def test_the_tables_of_the_product_can_be_copied(database, server, template_database):
    run(
        database,
        "INSERT INTO teamwork.people (id, first_name, raw, content_hash, observed_seq)"
        " VALUES (1, 'Anna', '{}', '', nextval('twm.observed_seq'));"
        "INSERT INTO twm.checkpoints (source, stream) VALUES ('teamwork', 'tasks')",
    )
    name = f"{database.database}_copy"
    with server.connect() as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template_database}")

    copied = copy_mirror(database, server.url(name))
    people = run(server.url(name), "SELECT name FROM teamwork.people")
    with server.connect() as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

    assert {table: rows for table, rows in copied.items() if rows} == {
        "teamwork.people": 1,
        "twm.checkpoints": 1,
    }
    assert people == [("Anna",)]


class TestMovingTheEmbeddedMirror:
    @pytest.fixture
    def settings(self, place, target):
        settings = load_settings(
            twm_data_dir=place / ".twm", pg_dsn=target.render_as_string(hide_password=False)
        )
        server = embedded_server(settings)
        server.start()
        server.create_database("twm")
        return settings

    @pytest.fixture
    def filled(self, settings):
        run(embedded_server(settings).url("twm"), TABLES)
        run(embedded_server(settings).url("twm"), ROWS)
        return settings

    def test_happens_once(self, filled, target):
        first = copy_embedded_mirror(filled, migrate=migrate)
        embedded_server(filled).stop()
        second = copy_embedded_mirror(filled, migrate=migrate)

        assert first["teamwork.tasks"] == 5000
        assert second == {}
        assert not embedded_server(filled).is_alive()
        assert run(target, "SELECT count(*) FROM teamwork.tasks") == [(5000,)]

    def test_needs_rows_to_move(self, settings):
        assert copy_embedded_mirror(settings, migrate=migrate) == {}

    def test_needs_an_embedded_server(self, target, tmp_path):
        dsn = target.render_as_string(hide_password=False)

        assert copy_embedded_mirror(load_settings(pg_dsn=dsn), migrate=migrate) == {}
        assert not (tmp_path / ".twm").exists()

    def test_says_how_to_go_on_with_the_rows_that_are_there(self, filled, target):
        run(target, "INSERT INTO teamwork.tasks (id) VALUES (1)")

        with pytest.raises(
            ConfigError, match="To go on with the rows that are there, make an empty file"
        ) as caught:
            copy_embedded_mirror(filled, migrate=migrate)
        (embedded_server(filled).folder / "copied").touch()

        assert str(embedded_server(filled).folder / "copied") in str(caught.value)
        assert copy_embedded_mirror(filled, migrate=migrate) == {}
