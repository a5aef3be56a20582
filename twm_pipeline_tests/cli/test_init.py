"""`twm init`: what is asked, tested live and written."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dotenv import dotenv_values
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import URL
from typer.testing import CliRunner

from twm_pipeline.cli import INTERRUPTED, init
from twm_pipeline.cli.app import app
from twm_pipeline.cli.env_file import with_values, write_env
from twm_pipeline.cli.output import OK
from twm_pipeline.sandbox import Sandbox, SandboxOptions
from twm_pipeline.settings_pages import env_example

SETTINGS = ("PG_DSN", "TEAMWORK_BASE_URL", "TEAMWORK_API_KEY", "MISSIVE_API_TOKEN", "TIMEZONE")


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox(SandboxOptions(tasks=3, conversations=2)) as box:
        yield box


Init = Callable[..., tuple[int, str, dict[str, str | None]]]


@pytest.fixture
def answer(
    box: Sandbox, database: URL, empty_database: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Init:
    """Answer the questions one after the other; return the exit code, what was said, and the file."""
    monkeypatch.setattr(init, "PROJECT_DIR", tmp_path)
    monkeypatch.setattr(init, "is_interactive", lambda: True)
    monkeypatch.setenv("DAGSTER_PG_URL", empty_database.render_as_string(hide_password=False))
    monkeypatch.setenv("MISSIVE_BASE_URL", box.missive_url)
    monkeypatch.setenv("AIRTABLE_ENDPOINT_URL", box.airtable_url)
    monkeypatch.setenv("BUDGET_TIME_SCALE", "1000")

    def run(*lines: str) -> tuple[int, str, dict[str, str | None]]:
        dsn = database.render_as_string(hide_password=False)
        result = CliRunner().invoke(app, ["init"], input="\n".join([dsn, *lines]) + "\n")
        file = tmp_path / ".env"
        return result.exit_code, result.stderr, dotenv_values(file) if file.exists() else {}

    return run


def test_each_answer_is_tested_and_what_works_is_written(answer, box, tmp_path):
    code, said, file = answer(
        box.teamwork_url, box.teamwork_key, "31.12.2024", box.missive_token, "", "", "", "Europe/Vienna"
    )

    assert code == OK, said
    assert file["TEAMWORK_BASE_URL"] == box.teamwork_url
    assert file["TEAMWORK_API_KEY"] == box.teamwork_key
    assert file["TEAMWORK_PROCESS_AFTER"] == "31.12.2024"
    assert file["MISSIVE_API_TOKEN"] == box.missive_token
    assert file["TIMEZONE"] == "Europe/Vienna"
    assert "AIRTABLE_API_KEY" not in file
    assert "the key works" in said
    assert "the token works" in said
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600


def test_a_wrong_key_is_asked_for_again_and_what_was_right_is_kept(answer, box):
    code, said, file = answer(
        box.teamwork_url, "no-such-key", "", "n", "", box.teamwork_key, "", "", "", "", "", ""
    )

    assert code == OK, said
    assert file["TEAMWORK_API_KEY"] == box.teamwork_key
    assert "401" in said, said


def test_an_answer_that_cannot_be_one_says_what_is_expected(answer, box):
    code, said, file = answer(
        "no address", box.teamwork_url, box.teamwork_key, "yesterday", "01.02.2025", "", "", "", ""
    )

    assert code == OK, said
    assert "expected an address such as https://example.teamwork.com" in said
    assert "expected a date such as 31.12.2024" in said
    assert file["TEAMWORK_PROCESS_AFTER"] == "01.02.2025"


def test_airtable_is_tested_and_switched_on(answer, box):
    code, said, file = answer("", "", box.airtable_token, box.airtable_base_id, "", "")

    assert code == OK, said
    assert file["DB_BACKEND"] == "both"
    assert "the base can be published to" in said


def test_whoever_stops_halfway_finds_the_file_as_it_was(answer, box, tmp_path):
    (tmp_path / ".env").write_text("TEAMWORK_API_KEY=before\n")

    code, said, file = answer(box.teamwork_url)

    assert code == INTERRUPTED
    assert "Nothing is written" in said
    assert file == {"TEAMWORK_API_KEY": "before"}


def test_other_lines_stay_and_examples_are_replaced_in_their_place():
    before = "# mine\nTIMEZONE=UTC\nexport PG_DSN = old\n# APP_PORT=5000\nX=1\n"

    after = with_values(before, {"PG_DSN": "new", "APP_PORT": "5001", "TIMEZONE": "", "LOG_LEVEL": "INFO"})

    assert after == "# mine\n# TIMEZONE=\nPG_DSN=new\nAPP_PORT=5001\nX=1\nLOG_LEVEL=INFO\n"


@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1))
def test_any_value_is_read_back_as_it_was_given(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("env") / ".env"

    write_env(path, with_values(env_example(), {"PG_DSN": value, "TIMEZONE": "Europe/Paris"}))

    assert dotenv_values(path)["PG_DSN"] == value
    assert dotenv_values(path)["TIMEZONE"] == "Europe/Paris"
    assert list(path.parent.iterdir()) == [path]
