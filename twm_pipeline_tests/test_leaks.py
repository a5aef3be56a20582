"""Whether a leak anywhere turns its test red: the suite is run on tests that leak on purpose."""

import os
import re
import subprocess
import sys

import pytest

from twm_pipeline.settings import PROJECT_DIR

LEAKING = """
import logging, os, subprocess, sys
import dagster as dg
import psycopg, pytest, typer
from sqlalchemy import make_url
from typer.testing import CliRunner
from twm_pipeline.errors import ConfigError
from twm_pipeline.sandbox.options import TEAMWORK_KEY
from twm_pipeline.sandbox.texts import SENTENCES

BODY = SENTENCES[0]

@pytest.fixture
def database():
    return make_url(os.environ["DATABASE"])

@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance

def test_a_line(): logging.getLogger("twm_pipeline.x").debug("read %s", BODY)
def test_a_secret_in_a_line(): logging.getLogger("twm_pipeline.x").info("key %s", TEAMWORK_KEY)
def test_an_address_in_a_line(): logging.getLogger("twm_pipeline.x").info("from person7@harbour.example.com")
def test_an_error_that_is_caught():
    with pytest.raises(ConfigError):
        raise ConfigError(BODY)
def test_printed(): print(BODY)
def test_a_child(): subprocess.run([sys.executable, "-c", f"print({BODY!r})"], capture_output=True)
def test_a_child_that_inherits(capfd): os.write(2, BODY.encode())
def test_a_command():
    app = typer.Typer()
    app.command()(lambda: typer.echo(BODY))
    CliRunner().invoke(app)
def test_a_log_file(tmp_path): (tmp_path / "receiver.log").write_text(BODY)
def test_a_compute_log(tmp_path):
    folder = tmp_path / "dagster" / "storage" / "run"
    folder.mkdir(parents=True)
    (folder / "step.err").write_text(BODY)
def test_a_table(database):
    with psycopg.connect(os.environ["DATABASE"]) as connection:
        connection.execute("INSERT INTO twm.counters VALUES ('teamwork', %s, 1)", [BODY])
def test_an_event(instance):
    @dg.op
    def leak(): raise ValueError(BODY)
    @dg.job
    def leaks(): leak()
    leaks.execute_in_process(instance=instance, raise_on_error=False)
"""
CLEAN = """
@pytest.mark.shows_bodies
def test_shown_on_purpose(): print(BODY)
def test_a_clean_one(): print("2 rows")
def test_the_vendors_own_log(tmp_path): (tmp_path / "sandbox.log").write_text(TEAMWORK_KEY)
@pytest.mark.parametrize("place", ["Hamburg"])
def test_a_place_that_is_no_folder(place): pass
def test_raw_json_is_where_it_belongs(database):
    with psycopg.connect(os.environ["DATABASE"]) as connection:
        connection.execute("DELETE FROM twm.counters")
        connection.execute(
            "INSERT INTO twm.set_aside (source, stream, object_id, reason, raw)"
            " VALUES ('a', 'b', 'c', '', to_jsonb(%s::text))",
            [BODY],
        )
"""


@pytest.mark.shows_bodies
def test_a_leak_anywhere_fails_the_test_in_which_it_happens(database, tmp_path):
    (tmp_path / "test_leaking.py").write_text(LEAKING + CLEAN)
    address = database.set(drivername="postgresql").render_as_string(hide_password=False)

    # Into a file that nobody looks through: what these tests leak is repeated in their errors.
    with (tmp_path / "said.txt").open("w") as said:
        subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-p",
                "twm_pipeline_tests.leaks",
                "-p",
                "no:cacheprovider",
                "-rE",
                "--tb=no",
            ],
            cwd=tmp_path,
            env={**os.environ, "DATABASE": address, "PYTHONPATH": str(PROJECT_DIR)},
            stdout=said,
            stderr=subprocess.STDOUT,
            timeout=120,
            check=False,
        )

    told = (tmp_path / "said.txt").read_text()
    wanted = set(re.findall(r"^def (test_\w+)", LEAKING, re.MULTILINE))
    failed = set(re.findall(r"ERROR test_leaking\.py::(test_\w+)", told))
    assert failed == wanted, told[-3000:]
