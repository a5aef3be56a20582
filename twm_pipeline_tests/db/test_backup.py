"""A mirror in one file: it comes back as it was, and goes on where it was."""

from __future__ import annotations

import stat
from collections.abc import Callable

import pytest
from sqlalchemy import URL, Engine, text
from typer.testing import CliRunner

from twm_pipeline.cli.app import app
from twm_pipeline.cli.output import FAILED, OK, TO_BE_CHANGED
from twm_pipeline.db import open_engine
from twm_pipeline.sandbox import Sandbox, SandboxControl, SandboxOptions
from twm_pipeline_tests.faults.world import TABLES, World, settings_for

Twm = Callable[..., tuple[int, str]]


@pytest.fixture
def twm(empty_database: URL, monkeypatch: pytest.MonkeyPatch) -> Twm:
    """Run a command on one of the databases."""
    monkeypatch.setenv("DAGSTER_PG_URL", empty_database.render_as_string(hide_password=False))

    def run(url: URL, *words: object) -> tuple[int, str]:
        monkeypatch.setenv("PG_DSN", url.render_as_string(hide_password=False))
        result = CliRunner().invoke(app, [str(word) for word in words])
        return result.exit_code, result.stdout + result.stderr

    return run


def content(engine: Engine) -> dict[str, object]:
    tables = (*TABLES, "twm.checkpoints", "twm.sources", "twm.label_categories")
    with engine.connect() as connection:
        return {
            table: connection.scalar(
                text(f"SELECT md5(string_agg(t::text, '' ORDER BY t::text)) FROM {table} t")
            )
            for table in tables
        }


def test_a_restored_mirror_equals_the_one_before_and_goes_on(engine, database, empty_database, tmp_path, twm):
    file = tmp_path / "mirror.dump"
    with Sandbox(SandboxOptions(tasks=30, conversations=10)) as box:
        world = World(SandboxControl(box.url), engine, settings_for(box, database, tmp_path))
        world.sync()
        code, said = twm(database, "backup", file)
        assert code == OK, said
        before = content(engine)

        code, said = twm(empty_database, "restore", file)
        assert code == OK, said
        restored = open_engine(empty_database)
        assert content(restored) == before
        world.control.random_changes(20, 1)
        again = World(world.control, restored, settings_for(box, empty_database, tmp_path))
        again.sync()
        again.settle()
        again.assert_true()
        restored.dispose()

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path for path in tmp_path.iterdir() if "part" in path.name] == []


def test_a_database_that_holds_a_mirror_is_not_restored_into(database, tmp_path, twm):
    file = tmp_path / "mirror.dump"
    assert twm(database, "backup", file)[0] == OK

    code, said = twm(database, "restore", file)

    assert code == TO_BE_CHANGED
    assert "already holds a mirror" in said


def test_what_is_no_backup_leaves_the_database_empty(empty_database, tmp_path, twm):
    file = tmp_path / "mirror.dump"
    file.write_bytes(b"PGDMP but not really")

    code, said = twm(empty_database, "restore", file)

    assert code == FAILED
    assert "pg_restore did not work" in said
    engine = open_engine(empty_database)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT to_regnamespace('twm') IS NULL"))
    engine.dispose()


def test_a_file_that_cannot_be_written_is_said_and_leaves_nothing(database, tmp_path, twm):
    code, said = twm(database, "backup", tmp_path / "no" / "folder" / "mirror.dump")

    assert code == TO_BE_CHANGED
    assert "cannot be written" in said
    password = database.password
    assert password is None or str(password) not in said


def test_a_file_that_is_not_there_is_said(empty_database, tmp_path, twm):
    code, said = twm(empty_database, "restore", tmp_path / "nowhere")

    assert code == TO_BE_CHANGED
    assert "no such file" in said
