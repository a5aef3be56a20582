from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from sqlalchemy import Engine, text
from typer.main import get_command
from typer.testing import CliRunner

from twm_pipeline.cli import INTERRUPTED, TERMINATED, Terminated, output
from twm_pipeline.cli import runs as cli_runs
from twm_pipeline.cli import sync as cli_sync
from twm_pipeline.cli import up as cli_up
from twm_pipeline.cli import upkeep as cli_upkeep
from twm_pipeline.cli.app import app
from twm_pipeline.cli.help import flowing
from twm_pipeline.cli.output import FAILED, MISUSED, OK, TO_BE_CHANGED
from twm_pipeline.cli.sandbox import remembered_place, sandbox_settings
from twm_pipeline.db import open_engine
from twm_pipeline.errors import ConfigError, RetriableError
from twm_pipeline.mirror.published import add_calls, note_exhausted
from twm_pipeline.sandbox import MISSIVE_TOKEN, TEAMWORK_KEY, Sandbox, SandboxOptions
from twm_pipeline.settings import INHERITED, PROJECT_DIR, Settings, environment_of, load_settings
from twm_pipeline.sync.engine import PassOptions
from twm_pipeline.sync.window import run_pass
from twm_pipeline.sync.window_lock import window_lock


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """Run a sandbox that the settings name."""
    with Sandbox(SandboxOptions(tasks=30, conversations=10)) as box:
        monkeypatch.setenv("TEAMWORK_BASE_URL", box.teamwork_url)
        monkeypatch.setenv("TEAMWORK_API_KEY", TEAMWORK_KEY)
        monkeypatch.setenv("MISSIVE_BASE_URL", box.missive_url)
        monkeypatch.setenv("MISSIVE_API_TOKEN", MISSIVE_TOKEN)
        monkeypatch.setenv("BUDGET_TIME_SCALE", "1000")
        yield box


def read_everything(engine: Engine) -> None:
    settings = load_settings()
    for source in ("teamwork", "missive"):
        run_pass(engine, settings, source, options=PassOptions())


def paths_of(command: Any, *before: str) -> Iterator[tuple[str, ...]]:
    """Yield the words of every command, those of groups with theirs."""
    for name, child in command.commands.items():
        yield (*before, name)
        if hasattr(child, "commands"):
            yield from paths_of(child, *before, name)


@pytest.mark.parametrize("words", list(paths_of(get_command(app))), ids=" ".join)
def test_every_command_explains_itself_with_an_example_in_a_line(words):
    told = CliRunner().invoke(app, [*words, "--help"])

    lines = [line.strip() for line in click.unstyle(told.stdout).splitlines()]
    assert told.exit_code == OK
    assert any(line.startswith(f"$ twm {' '.join(words)}") for line in lines)
    assert "<bool>" not in told.stdout


def test_the_help_lists_every_command_and_the_exit_codes():
    listed = click.unstyle(CliRunner().invoke(app, ["--help"]).stdout)
    group: Any = get_command(app)

    assert all(f"│ {name} " in listed for name in group.commands)
    assert "130 and 143 ended by Ctrl-C or SIGTERM" in " ".join(listed.split())


def test_help_flows_and_lists_its_examples():
    text = """What it does.

    A paragraph that
    goes on.

    Examples: twm one · twm two --with
    · twm three
    """

    assert flowing(text) == (
        "What it does.\n\nA paragraph that goes on.\n\nExamples:\n$ twm one\n$ twm two --with\n$ twm three"
    )


def test_nothing_is_coloured_without_a_terminal(twm):
    assert "\x1b" not in twm("--help").out + twm("status").out + twm("sync").err


@pytest.mark.parametrize(
    "words",
    [("nonsense",), ("sync", "gmail"), ("sync", "--full", "--since", "2024-01-01"), ("up", "--json")],
    ids=" ".join,
)
def test_a_misspelt_command_is_told_so(twm, box, words):
    assert twm(*words).code == MISUSED


def test_an_error_is_one_line_and_no_traceback(twm):
    answer = twm("sync")

    assert answer.code == TO_BE_CHANGED
    assert answer.out == ""
    assert answer.err.startswith("Nothing is configured. Set TEAMWORK_BASE_URL")
    assert "Traceback" not in answer.err


def test_debug_shows_where_an_error_comes_from(twm):
    answer = twm("--debug", "sync")

    assert answer.code == TO_BE_CHANGED
    assert 'sync.py", line' in answer.err
    assert "ConfigError: Nothing is configured." in answer.err


def test_a_wrong_setting_is_named(twm, monkeypatch):
    monkeypatch.setenv("PERIODIC_BACKFILL_INTERVAL", "often")

    answer = twm("status")

    assert answer.code == TO_BE_CHANGED
    assert "PERIODIC_BACKFILL_INTERVAL: read 'often'" in answer.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RetriableError("later"), FAILED),
        (ConfigError("change"), TO_BE_CHANGED),
        (KeyboardInterrupt(), INTERRUPTED),
        (Terminated(), TERMINATED),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_exit_code_says_what_to_do_next(twm, box, monkeypatch, error, code):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(cli_sync, "run_jobs", fail)

    assert twm("sync").code == code


@pytest.mark.parametrize(
    ("number", "words", "code"),
    [("SIGINT", "Interrupted", INTERRUPTED), ("SIGTERM", "Terminated", TERMINATED)],
)
def test_a_command_can_be_ended_while_it_is_still_being_loaded(tmp_path, number, words, code):
    slow = tmp_path / "typer.py"  # found first in the place of the library
    slow.write_text(f"import os, signal\nos.kill(os.getpid(), signal.{number})\nsignal.pause()\n")
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{PROJECT_DIR}"}

    command = [sys.executable, "-m", "twm_pipeline.cli", "status"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stderr) == (code, f"{words}; what is stored stays.\n")


def test_an_unreachable_database_is_told_in_words(twm, monkeypatch):
    monkeypatch.setenv("PG_DSN", "postgresql://somebody:secret@127.0.0.1:1/nowhere")

    answer = twm("status")

    assert answer.code == FAILED
    assert "PostgreSQL does not answer: database nowhere at 127.0.0.1:1" in answer.err
    assert "secret" not in answer.err


def test_status_of_an_empty_mirror_says_what_to_do(twm):
    answer = twm("status")

    assert answer.code == OK
    assert "Nothing is configured" in answer.out


def test_status_shows_rows_checkpoints_budgets_and_what_is_set_aside(twm, box, engine):
    read_everything(engine)
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO twm.set_aside (source, stream, object_id, reason)"
                " VALUES ('missive', 'emails', 'broken-one', 'body: expected a text')"
            )
        )

    teamwork, missive = twm("status", "--json").json["sources"]
    shown = twm("status").out

    rows = {table["stream"]: table["living"] for table in teamwork["tables"]}
    with engine.connect() as connection:
        assert rows["tasks"] == connection.scalar(text("SELECT count(*) FROM public.tasks WHERE NOT deleted"))
    assert teamwork["account"] == box.teamwork_url
    assert teamwork["lag_seconds"] < 60
    assert teamwork["last_error"] is None
    assert not any(item["more_to_read"] for item in teamwork["checkpoints"])
    assert teamwork["budgets"][0]["requests"] == box.control.request_count("teamwork")
    assert missive["set_aside"]["count"] == 1
    assert missive["set_aside"]["records"][0]["reason"] == "body: expected a text"
    assert "broken-one" in shown
    assert "complete 0 s ago" in shown or "complete 1 s ago" in shown


def test_status_shows_how_to_connect_without_the_password(twm, database):
    answer, shown = twm("status"), twm("status", "--json").json["database"]

    assert f"-p {database.port} -U {database.username} -d {database.database}" in answer.out
    assert (shown["port"], shown["database"], shown["password_in"]) == (
        database.port,
        database.database,
        "PG_DSN",
    )
    assert database.password not in answer.out


def test_status_tells_of_the_last_error(twm, box, engine):
    read_everything(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE twm.sources SET last_error = 'Teamwork: 502', last_error_at = now()"))

    assert "Teamwork: 502" in twm("status").err


def test_a_field_that_the_vendor_did_not_send_before_is_told_by_status_and_doctor(twm, box, engine):
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO twm.vendor_fields (source, stream, field, kind, is_baseline)"
                " VALUES ('missive', 'emails', 'mood', 'string', false)"
            )
        )

    findings = {item["name"]: item for item in twm("doctor", "--json").json["findings"]}

    assert findings["fields"]["verdict"] == "warning"
    assert (
        "emails: 1 fields that Missive did not send before: mood (string, new)" in findings["fields"]["text"]
    )
    assert "Missive: emails: 1 fields that Missive did not send before" in twm("status").err


def test_status_of_a_sandbox_that_was_never_started(twm):
    assert "there is no sandbox yet" in click.unstyle(twm("status", "--sandbox").err)


def test_doctor_finds_a_sound_deployment_sound(twm, box):
    answer = twm("doctor", "--json")

    findings = {item["name"]: item["verdict"] for item in answer.json["findings"]}
    assert answer.code == OK
    assert findings == {
        "database": "ok",
        "role": "ok",
        "tables": "ok",
        "teamwork": "ok",
        "missive": "ok",
        "fields": "ok",
        "airtable": "off",
        "categories": "off",
        "attachments": "ok",
        "room": "ok",
        "dagster": "ok",
    }
    assert box.control.request_count() <= 5


def test_doctor_shows_which_secrets_are_set_and_none_of_them(twm, box):
    answer = twm("doctor")

    assert "TEAMWORK_API_KEY" in answer.out
    assert "set (not shown)" in answer.out
    assert TEAMWORK_KEY not in answer.out
    assert MISSIVE_TOKEN not in answer.out


def test_doctor_names_a_refused_key(twm, box, monkeypatch):
    monkeypatch.setenv("TEAMWORK_API_KEY", "expired")

    answer = twm("doctor")

    assert answer.code == TO_BE_CHANGED
    assert "WRONG" in answer.out
    assert "Check the address" in answer.out
    assert "expired" not in answer.out


def test_doctor_goes_on_without_a_database(twm, monkeypatch):
    monkeypatch.setenv("PG_DSN", "postgresql://127.0.0.1:1/nowhere")

    findings = {item["name"]: item for item in twm("doctor", "--json").json["findings"]}

    assert findings["database"]["verdict"] == "wrong"
    assert findings["dagster"]["verdict"] == "ok"


def test_doctor_says_which_right_the_role_lacks(twm, database, engine, monkeypatch):
    with engine.begin() as connection:
        connection.execute(text("DROP ROLE IF EXISTS weak"))
        connection.execute(text("CREATE ROLE weak LOGIN PASSWORD 'pw'"))
    weak = database.set(username="weak", password="pw")  # noqa: S106 - a role of this test's own
    monkeypatch.setenv("PG_DSN", weak.render_as_string(hide_password=False))

    findings = {item["name"]: item for item in twm("doctor", "--json").json["findings"]}

    assert findings["role"]["verdict"] == "wrong"
    assert 'GRANT CREATE ON DATABASE "' in findings["role"]["text"]
    with engine.begin() as connection:
        connection.execute(text("DROP ROLE weak"))


def test_check_shows_what_is_not_in_order_and_everything_only_when_asked(twm, box, engine):
    read_everything(engine)
    sound = twm("check")
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO twm.set_aside (source, stream, object_id, reason)"
                " VALUES ('missive', 'emails', 'broken-one', 'body: expected a text')"
            )
        )
    warned, everything = twm("check", "--no-sample"), twm("check", "--no-sample", "--all")
    with engine.begin() as connection:
        connection.execute(text("UPDATE twm.sources SET last_success_at = now() - interval '2 hours'"))
    failed = twm("check", "--no-sample")

    assert (sound.code, warned.code, failed.code) == (OK, OK, FAILED)
    assert re.fullmatch(r"(\d+) of \1 checks of 17 assets are in order\.\n", sound.out)
    assert [line.split()[:3] for line in warned.out.splitlines()[2:3]] == [
        ["!", "missive/emails", "nothing_is_set_aside"]
    ]
    assert "keys_are_unique" not in warned.out
    assert "keys_are_unique" in everything.out
    assert failed.out.count("WRONG") == 2
    assert "source_is_read" in failed.out


def test_categorize_says_that_there_is_no_file(twm, monkeypatch, tmp_path):
    monkeypatch.setenv("LABEL_CATEGORIES_FILE", str(tmp_path / "none.json"))

    assert "There is no file" in twm("categorize").out


def test_categorize_applies_the_file_and_says_whether_anything_changed(twm, monkeypatch, tmp_path, engine):
    file = tmp_path / "categories.json"
    file.write_text('{"Urgent": ["urgent*"]}')
    monkeypatch.setenv("LABEL_CATEGORIES_FILE", str(file))

    first, second = twm("categorize", "--json").json, twm("categorize", "--json").json

    assert (first["changed"], second["changed"]) == (True, False)
    with engine.connect() as connection:
        columns = connection.execute(text("SELECT * FROM public.emails LIMIT 0")).keys()
    assert "Urgent" in list(columns)


def test_categorize_names_the_mistake_in_the_file(twm, monkeypatch, tmp_path):
    file = tmp_path / "categories.json"
    file.write_text("{")
    monkeypatch.setenv("LABEL_CATEGORIES_FILE", str(file))

    answer = twm("categorize")

    assert answer.code == TO_BE_CHANGED
    assert str(file) in answer.err


def test_reparse_rewrites_nothing_the_second_time(twm, box, engine):
    read_everything(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE teamwork.tasks SET title = NULL"))

    [first] = twm("reparse", "teamwork.tasks", "--json").json
    [second] = twm("reparse", "teamwork.tasks", "--json").json

    assert first["rewritten"] == first["read"] > 0
    assert second["rewritten"] == 0


def read_terminal(ours: int, shown: list[bytes]) -> None:
    """Read what is written to a terminal until nobody has it open any more."""
    with contextlib.suppress(OSError):  # so Linux says that the other side is closed
        while part := os.read(ours, 4096):
            shown.append(part)


def test_a_terminal_shows_how_far_it_is_and_what_is_piped_is_plain(box, engine, twm):
    read_everything(engine)
    ours, theirs = os.openpty()
    shown: list[bytes] = []
    reader = threading.Thread(target=read_terminal, args=(ours, shown))
    command = [sys.executable, "-m", "twm_pipeline.cli", "reparse", "teamwork.tasks"]
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=theirs, text=True) as process:
        os.close(theirs)
        reader.start()
        out, _ = process.communicate(timeout=60)
    reader.join(60)
    os.close(ours)
    words = b"".join(shown).decode()

    assert process.returncode == OK
    assert re.search(r"teamwork\.tasks: (\d+) of \1 rows", words)
    assert "\x1b[" in words
    assert "\x1b" not in out
    assert out.startswith("Parsed again\n")


def test_what_is_said_beside_a_bar_has_a_line_of_its_own():
    ours, theirs = os.openpty()
    shown: list[bytes] = []
    reader = threading.Thread(target=read_terminal, args=(ours, shown))
    lines = (
        "with output.progress('waiting'):",
        "    output.say('said')",
        "    output.complain('complained')",
    )
    command = [sys.executable, "-c", "\n".join(["from twm_pipeline.cli import output", *lines])]
    env = {**os.environ, "TERM": "xterm", "NO_COLOR": "1"}
    with subprocess.Popen(command, env=env, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        reader.start()
        process.wait(60)
    reader.join(60)
    os.close(ours)

    told = b"".join(shown).decode()
    assert "\x1b[2Ksaid\r\n" in told
    assert "\x1b[2Kcomplained\r\n" in told


def test_what_is_said_beside_a_bar_stays_in_the_pipe(monkeypatch, capsys):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")  # standard error is a terminal, standard output is not

    with output.progress("waiting") as show:
        show("still [waiting]", done=1, total=2)
        output.say("said")

    told = capsys.readouterr()
    assert told.out == "said\n"
    assert "still [waiting]" in told.err


def test_reparse_of_an_unknown_table_lists_the_known_ones(twm):
    answer = twm("reparse", "tasks")

    assert answer.code == MISUSED
    assert "teamwork.tasks" in click.unstyle(answer.err).replace("\n", "")


class Asked(list[dict[str, Any]]):
    """Stands in for the child process: remembers what it was asked and answers with *results*."""

    def __init__(self, *results: dict[str, Any]) -> None:
        super().__init__()
        self.results = list(results)

    def __call__(self, _: Settings, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        self.extend(requests)
        return self.results


def recorded(**changes: Any) -> dict[str, Any]:
    return {
        "job": "teamwork_sync",
        "run_id": "0123456789",
        "status": "SUCCESS",
        "success": True,
        "reports": [],
        "sweeps": [],
        "looks": [],
        "refusals": [],
        "error": None,
        **changes,
    }


def failed(kind: str) -> dict[str, Any]:
    return recorded(success=False, status="FAILURE", error={"class": kind, "text": "what happened"})


def test_progress_says_nothing_of_a_mirror_that_has_no_tables_yet(empty_database):
    engine = open_engine(empty_database)

    assert cli_runs.progress_line(engine) == ""

    engine.dispose()


@pytest.mark.parametrize(
    ("results", "code"),
    [
        ([recorded(), recorded()], OK),
        ([recorded(), failed("RateLimitedError")], FAILED),
        ([failed("AuthenticationError"), recorded()], TO_BE_CHANGED),
        ([recorded(success=False, status="CANCELED")], FAILED),
    ],
    ids=["all well", "one later", "one wrong", "cancelled"],
)
def test_sync_ends_with_what_its_runs_recorded(twm, box, monkeypatch, results, code):
    monkeypatch.setattr(cli_sync, "run_jobs", lambda *_: results)

    answer = twm("sync", "--json")

    assert answer.code == code
    assert answer.json == json.loads(json.dumps(results))
    assert ("what happened" in answer.err) is any(item["error"] for item in results)


@pytest.mark.parametrize(
    ("words", "jobs"),
    [
        ((), {"teamwork_sync": {"full": False}, "missive_sync": {"full": False}}),
        (("missive", "teamwork"), {"teamwork_sync": {"full": False}, "missive_sync": {"full": False}}),
        (("missive", "--full"), {"missive_sync": {"full": True}}),
        (("teamwork", "--since", "01.02.2025"), {"teamwork_sync": {"full": False, "since": "01.02.2025"}}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_sync_asks_for_one_pass_of_each_source(twm, box, monkeypatch, words, jobs):
    asked = Asked()
    monkeypatch.setattr(cli_sync, "run_jobs", asked)

    twm("sync", *words)

    assert {
        item["job"]: item["run_config"]["ops"][item["job"].replace("_sync", "_window")]["config"]
        for item in asked
    } == jobs


@pytest.mark.parametrize(("is_lost", "code"), [(True, 1), (False, 0)])
def test_sync_says_what_is_refused_and_fails_if_it_was_read_before(twm, box, monkeypatch, is_lost, code):
    refusal = {"source": "teamwork", "stream": "api", "refused": "people: 403 Forbidden", "is_lost": is_lost}
    monkeypatch.setattr(cli_sync, "run_jobs", lambda *_: [recorded(refusals=[refusal])])

    answer = twm("sync")

    assert answer.code == code
    assert "teamwork: people: 403 Forbidden" in answer.err


def test_sync_refuses_a_vendor_without_credentials_and_a_date_that_is_none(twm, box, monkeypatch):
    assert "'tomorrow' is not a date" in twm("sync", "--since", "tomorrow").err

    monkeypatch.delenv("MISSIVE_API_TOKEN")

    assert "missive: no credentials are set" in twm("sync", "missive").err


def test_reconcile_hands_its_options_down_and_shows_what_is_gone(twm, box, monkeypatch):
    sweep = {
        "source": "teamwork",
        "dry_run": True,
        "gone_tasks": 3,
        "problems": [],
        "held_deletions": ["teamwork/tasks: too many"],
    }
    asked = Asked(recorded(job="reconcile", sweeps=[sweep]))
    monkeypatch.setattr(cli_upkeep, "run_jobs", asked)

    answer = twm("reconcile", "teamwork", "--dry-run")

    config = asked[0]["run_config"]["ops"]["sweep"]["config"]
    assert config == {
        "sources": ["teamwork"],
        "dry_run": True,
        "full": False,
        "confirm_deletions": False,
    }
    assert "tasks" in answer.out
    assert "too many" in answer.err


def test_a_run_whose_process_dies_is_told_with_the_end_of_its_log(twm, box, monkeypatch):
    environment = cli_runs.environment
    monkeypatch.setattr(
        cli_runs, "environment", lambda settings: environment(settings) | {"DAGSTER_HOME": "/nowhere"}
    )

    answer = twm("sync", "teamwork")

    assert answer.code == FAILED
    assert "The run's process ended early" in answer.err
    assert "/nowhere" in answer.err


def test_a_taken_port_is_named(twm, box, monkeypatch):
    monkeypatch.setattr(cli_up, "_prepare", lambda _: None)
    port = box.url.rpartition(":")[2]

    answer = twm("up", "--port", port)

    assert answer.code == TO_BE_CHANGED
    assert f"Port {port} is taken" in answer.err


def test_the_sandbox_has_nothing_of_the_real_accounts(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("TEAMWORK_EXCLUDED_PROJECTS", "1,2")
    secrets = {"teamwork_webhook_secret": "real-token", "missive_webhook_secret": "real-secret"}
    settings = load_settings(
        pg_dsn="postgresql://real/database",
        dagster_pg_url="postgresql://real/dagster",
        teamwork_base_url="https://real.example",
        teamwork_api_key="real-key",
        missive_process_after="2024-01-01",
        timezone="Europe/Paris",
        twm_data_dir=tmp_path,
        public_url="https://real.example",
        ngrok_authtoken="real-tunnel",
        spool_dir=tmp_path / "real-spool",
        allow_unsigned_webhooks=True,
        app_host="192.0.2.1",
        **secrets,
    )

    simulated = sandbox_settings(
        settings, {"port": 4711, "receiver_port": 4712, "status_port": 4713, "anchor": ""}
    )

    assert (simulated.pg_dsn, simulated.dagster_pg_url, simulated.missive_process_after) == (None, None, None)
    assert simulated.teamwork_base_url == "http://127.0.0.1:4711/teamwork"
    assert simulated.teamwork_excluded_projects == ()
    assert simulated.twm_data_dir == tmp_path / "sandbox"
    assert simulated.timezone == "Europe/Paris"
    assert (simulated.app_host, simulated.app_port) == ("127.0.0.1", 4712)
    assert simulated.public_url == "http://127.0.0.1:4712"
    assert simulated.status_port == 4713
    assert "real" not in environment_of(simulated)[INHERITED].replace("real_", "")


def test_a_sandbox_is_the_same_account_after_a_restart(tmp_path: Path):
    settings = load_settings(twm_data_dir=tmp_path)

    assert remembered_place(settings) == remembered_place(settings)


def test_where_the_sandbox_is_can_be_read_while_it_is_written(settings):
    file = settings.twm_data_dir / "sandbox" / "sandbox.json"
    remembered_place(settings)
    older = {"port": 4711, "anchor": "2026-01-01T00:00:00+00:00"}
    file.write_text(json.dumps(older))
    file.with_name("being-read.json").hardlink_to(file)

    place = remembered_place(settings)

    assert json.loads(file.read_text()) == place
    assert json.loads(file.with_name("being-read.json").read_text()) == older


def test_a_sandbox_of_an_older_version_gets_a_receiver_and_stays_as_it_is(tmp_path: Path):
    settings = load_settings(twm_data_dir=tmp_path)
    (tmp_path / "sandbox").mkdir()
    (tmp_path / "sandbox" / "sandbox.json").write_text(
        '{"port": 4711, "anchor": "2026-01-01T00:00:00+00:00"}'
    )

    place = remembered_place(settings)

    assert (place["port"], place["anchor"]) == (4711, "2026-01-01T00:00:00+00:00")
    assert len({place["port"], place["receiver_port"], place["status_port"]}) == 3
    assert remembered_place(settings) == place


def test_attachments_are_downloaded_listed_and_counted(twm, box, monkeypatch):
    monkeypatch.setenv("ATTACHMENTS_RESERVE_MEGABYTES", "0")
    made = box.control.receive_mail(
        attachments=[{"filename": "a\x1b[2J.pdf", "media_type": "application", "sub_type": "pdf", "size": 9}]
    )
    [mail] = [row for row in box.control.truth("message") if row["id"] == made["message_id"]]
    file_id = mail["attachments"][0]["id"]
    box.control.set_file_fault("gone", file_id)
    assert twm("sync", "missive").code == OK

    answer = twm("attachments", "download", "--json")

    figures = answer.json["reports"][0]["streams"]["attachments"]
    listed = twm("attachments", "list", "--json").json
    assert answer.code == OK
    assert figures["failed"] == listed["counts"]["failed"] == 1
    assert figures["stored"] == listed["counts"]["stored"] > 0
    assert "answers 404" in twm("attachments", "list").out
    assert "\x1b" not in twm("attachments", "list").out
    assert "1 failed (twm attachments list)" in twm("status").out

    box.control.set_file_fault(None, file_id)
    assert "1 files stored" in twm("attachments", "retry").out
    assert twm("attachments", "list", "--json").json["failed"] == []


def test_attachments_that_are_switched_off_are_a_setting_to_be_changed(twm, box, monkeypatch):
    monkeypatch.setenv("ATTACHMENTS_DOWNLOAD", "false")

    assert twm("attachments", "download").code == TO_BE_CHANGED
    findings = {item["name"]: item["verdict"] for item in twm("doctor", "--json").json["findings"]}
    assert findings["attachments"] == "off"


def test_doctor_says_when_nothing_can_be_put_into_the_attachment_store(twm, box, monkeypatch, tmp_path):
    (tmp_path / "taken").write_text("a file")
    monkeypatch.setenv("ATTACHMENTS_URL", str(tmp_path / "taken"))

    findings = {item["name"]: item for item in twm("doctor", "--json").json["findings"]}

    assert findings["attachments"]["verdict"] == "wrong"
    assert str(tmp_path / "taken") in findings["attachments"]["text"]


@pytest.fixture
def publishing(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """Return a sandbox whose Airtable is published to."""
    for name, value in {
        "DB_BACKEND": "both",
        "AIRTABLE_API_KEY": box.airtable_token,
        "AIRTABLE_BASE_ID": box.airtable_base_id,
        "AIRTABLE_ENDPOINT_URL": box.airtable_url,
        "AIRTABLE_UPLOAD_URL": box.airtable_upload_url,
    }.items():
        monkeypatch.setenv(name, value)
    return box


def test_a_look_at_the_base_says_what_it_found_and_how_many_calls_it_took(twm, engine, publishing):
    read_everything(engine)

    answer = twm("sync", "airtable", "--check-all", "--json")

    assert answer.code == OK, answer.err
    [run] = answer.json
    [report] = run["reports"]
    looks = {look["stream"]: look for look in run["looks"]}
    assert report["requests"] == publishing.control.request_count("airtable") > 0
    assert report["requests"] == sum(figures["calls"] for figures in report["streams"].values())
    assert looks["tasks"]["how"] == "whole"
    assert looks["tasks"]["rows"] == looks["tasks"]["records"] == looks["tasks"]["checked"] > 0


def test_publishing_that_another_process_is_at_says_so(twm, engine, publishing):
    read_everything(engine)
    with window_lock(engine, "airtable"):
        answer = twm("sync", "airtable")

    assert answer.code == OK, answer.err
    assert answer.out == "airtable_publish: another process is at it, and does what was asked for here.\n"


def test_a_used_up_month_is_told_by_status_and_doctor_and_costs_no_call(twm, engine, publishing, monkeypatch):
    with engine.begin() as connection:
        note_exhausted(connection, publishing.airtable_base_id, exhausted=True)

    status, doctor = twm("status", "--json"), twm("doctor", "--json")
    told = twm("status").err
    monkeypatch.setenv("AIRTABLE_MONTHLY_CALLS", "1")
    with engine.begin() as connection:
        add_calls(connection, publishing.airtable_base_id, 1)
    limited = twm("status", "--json")

    assert "monthly quota is used up" in status.json["airtable"]["stopped"]
    assert "monthly quota is used up" in told
    assert "1 of 1 calls this month" in twm("status").out
    [finding] = [item for item in doctor.json["findings"] if item["name"] == "airtable"]
    assert (finding["verdict"], "monthly quota is used up" in finding["text"]) == ("wrong", True)
    assert "AIRTABLE_MONTHLY_CALLS" in limited.json["airtable"]["stopped"]
    assert publishing.control.request_count("airtable") == 0


def test_a_look_needs_a_base(twm, box):
    assert twm("sync", "--check").code == MISUSED
