"""Neither a message's body nor a secret comes to light, whatever goes wrong while a row is in hand (G10).

`leaks.py` looks through what every test of the suite writes. Here the errors are provoked that quote most: a
PostgreSQL that refuses rows repeats them, in its message and in the details of its error.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from twm_pipeline.db import open_engine
from twm_pipeline.records import Hint
from twm_pipeline.sandbox.texts import SENTENCES
from twm_pipeline.settings import environment_of
from twm_pipeline.sync.drain import Drain, spool_of
from twm_pipeline.sync.engine import PassOptions
from twm_pipeline.sync.window import Window
from twm_pipeline_tests import leaks
from twm_pipeline_tests.factories import make_envelope
from twm_pipeline_tests.faults.world import dsn_of

BODY = SENTENCES[0]
TWM_SECONDS = 180
REFUSALS = {
    "a constraint": "ALTER TABLE {table} ADD CONSTRAINT users_own CHECK (length({column}) < 3) NOT VALID",
    "a trigger": (
        "CREATE FUNCTION {table}_own() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'refused: %', NEW.{column}; END $$;"
        "CREATE TRIGGER users_own BEFORE INSERT OR UPDATE ON {table}"
        " FOR EACH ROW EXECUTE FUNCTION {table}_own()"
    ),
    "a broken trigger": (
        "CREATE FUNCTION {table}_own() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN EXECUTE 'SELECT ' || quote_literal(NEW.{column}) || ' FROM nowhere'; END $$;"
        "CREATE TRIGGER users_own BEFORE INSERT OR UPDATE ON {table}"
        " FOR EACH ROW EXECUTE FUNCTION {table}_own()"
    ),
}
"""What people add to tables of theirs, and PostgreSQL then quotes the row: as a detail, or in the message."""


def refuse(engine, table: str, column: str, how: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(REFUSALS[how].format(table=table, column=column).replace(":", r"\:")))


@pytest.mark.parametrize("how", REFUSALS)
@pytest.mark.shows_bodies
def test_postgresql_does_quote_what_it_refuses(engine, how):
    refuse(engine, "missive.comments", "body", how)

    with pytest.raises(psycopg.Error) as caught, psycopg.connect(dsn_of(engine.url)) as connection:
        connection.execute(
            "INSERT INTO missive.comments (id, conversation_id, body, content_hash, observed_seq, raw)"
            " VALUES ('k', 'c', %s, '', 1, '{}')",
            [BODY],
        )

    assert BODY in f"{caught.value} {caught.value.diag.message_detail}"


@pytest.fixture
def twm(world, empty_database):
    """Return what runs a command as a person does, on this world, with Dagster's history in a database."""
    dagster_url = dsn_of(empty_database)
    settings = world.settings.model_copy(update={"dagster_pg_url": SecretStr(dagster_url)})

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "twm_pipeline.cli", *words]
        env = environment_of(settings)
        return subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=TWM_SECONDS, check=False
        )

    return run


def test_a_refused_row_is_quoted_by_no_command_no_event_and_no_log(world, twm, empty_database):
    refuse(world.engine, "missive.emails", "body_html", "a broken trigger")
    refuse(world.engine, "missive.comments", "body", "a constraint")
    refuse(world.engine, "teamwork.tasks", "title", "a trigger")

    done = [twm("--debug", "sync"), twm("status"), twm("queue", "list")]

    folder = world.settings.twm_data_dir
    for said in done:
        leaks.WATCH.look(said.stdout + said.stderr, "a command")
    leaks.look_at_logs(folder)
    leaks.look_at_database(empty_database)
    assert leaks.WATCH.leaks == []
    assert done[0].returncode == 1
    assert done[0].stderr.count("PostgreSQL refused a statement") == 1
    assert (folder / "logs" / "twm.log").read_text().count("PostgreSQL refused a statement") == 1
    assert list(folder.glob("dagster/storage/**/*.err"))
    assert events_of(empty_database, "STEP_FAILURE") == 1
    assert readable_by_others(folder) == []


def events_of(url, kind: str) -> int:
    engine = open_engine(url)
    with engine.connect() as connection:
        query = text("SELECT count(*) FROM event_logs WHERE dagster_event_type = :kind")
        found = int(connection.execute(query, {"kind": kind}).scalar_one())
    engine.dispose()
    return found


def readable_by_others(folder: Path) -> list[str]:
    """Return files below *folder* that another user of the machine can reach and read."""
    found = []
    for place, folders, files in os.walk(folder):
        if place != str(folder) and not stat.S_IMODE(Path(place).stat().st_mode) & 0o011:
            folders.clear()
            continue
        paths = [Path(place) / name for name in files]
        found += [str(path) for path in paths if stat.S_IMODE(path.stat().st_mode) & 0o044]
    return found


@pytest.fixture
def told(world):
    """Return *world* as a delivery tells of a comment that its PostgreSQL refuses, and its conversation."""
    world.sync("missive")
    conversation, comment = world.scalar(
        "SELECT ARRAY[conversation_id, id] FROM missive.comments WHERE NOT deleted ORDER BY id LIMIT 1"
    )
    refuse(world.engine, "missive.comments", "body", "a broken trigger")
    world.control.edit_comment(conversation, comment, f"{BODY} Now.")
    hint = Hint(event="new_comment", stream="conversations", object_id=conversation)
    spool_of(world.settings, "missive").put([make_envelope(source="missive", hint=hint)])
    return world, conversation


def test_the_reason_of_a_record_set_aside_does_not_quote_it(told):
    world, conversation = told

    Drain(world.engine, world.settings, "missive").run_once()

    reason = world.scalar("SELECT reason FROM twm.set_aside WHERE object_id = :id", id=conversation)
    assert reason.startswith("a defect of this program: UndefinedTable in mirror/upserts.py:")
    spool = spool_of(world.settings, "missive")
    assert [spool.reason(item.name) for item in spool.entries("retry")] == [reason]


def test_what_stops_a_drain_is_noted_without_the_row(told):
    world, _ = told
    refuse(world.engine, "twm.set_aside", f"reason || '{BODY}'", "a trigger")

    with pytest.raises(DBAPIError, match=BODY):
        Window(world.engine, world.settings, "missive", 60).run(PassOptions())

    noted = world.scalar("SELECT last_error FROM twm.sources WHERE source = 'missive'")
    assert re.fullmatch(r"\w+Error in mirror/set_aside\.py:\d+", noted)
