"""Every command: its help, its errors in a line, its exit code, its terminal."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import click
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from twm_pipeline.cli import INTERRUPTED, TERMINATED, Terminated, output
from twm_pipeline.cli import sync as cli_sync
from twm_pipeline.cli.app import app
from twm_pipeline.cli.help import flowing
from twm_pipeline.cli.output import FAILED, MISUSED, OK, TO_BE_CHANGED
from twm_pipeline.errors import ConfigError, RetriableError
from twm_pipeline.settings import PROJECT_DIR
from twm_pipeline_tests.commands import read_everything


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
