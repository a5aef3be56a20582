"""What a line of the logs looks like, and what never is in one."""

import io
import json
import logging
import re
import stat
import subprocess
import sys
import threading

import pytest

from twm_pipeline.errors import ConfigError
from twm_pipeline.logs import KEPT_LOG_BYTES, Lines, about, open_log
from twm_pipeline.settings import environment_of, load_settings

HOSTILE = "Re: hello\nCRITICAL all is well\r\x1b[2J\x1b]0;title\x07\x85\u2028\u202eback\x00"
STEERING = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202e]")


@pytest.fixture
def log():
    """Return what logs one record, in text or JSON, and gives what was written."""

    def write(message="done", *args, form="text", settings=None, **options) -> str:
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        handler.setFormatter(Lines(settings or load_settings(log_format=form)))
        logger = logging.Logger("twm_pipeline.test")  # noqa: LOG001 - of this test alone
        logger.addHandler(handler)
        logger.warning(message, *args, **options)
        return stream.getvalue()

    return write


def test_a_line_says_when_how_bad_who_and_what(log):
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z WARNING twm_pipeline\.test: 3 rows\n", log("%d rows", 3)
    )


def test_a_line_of_json_tells_the_same_by_name(log):
    with about(source="teamwork", run="r1"):
        told = json.loads(log("%d rows", 3, form="json", extra={"object": "tasks/42"}))

    assert told.pop("time").endswith("Z")
    assert told == {
        "level": "WARNING",
        "logger": "twm_pipeline.test",
        "source": "teamwork",
        "run": "r1",
        "object": "tasks/42",
        "message": "3 rows",
    }


def test_what_a_line_is_about_ends_with_its_block(log):
    with about(source="missive"):
        assert "source=missive run=r2:" in log(extra={"run": "r2"})
    assert "source" not in log()


@pytest.mark.parametrize("form", ["text", "json"])
def test_vendor_text_begins_no_line_and_steers_no_terminal(log, form):
    line = log("%s", HOSTILE, form=form, extra={"object": HOSTILE})

    assert line.count("\n") == 1
    assert not STEERING.search(line.removesuffix("\n"))


@pytest.mark.parametrize("form", ["text", "json"])
def test_an_error_shows_where_it_came_from_and_not_what_a_library_said(log, form):
    try:
        try:
            int("Dear Mr Smith")
        except ValueError as error:
            raise ConfigError("change the setting") from error
    except ConfigError as error:
        line = log("failed", exc_info=error, form=form)

    assert "ConfigError: change the setting" in line
    assert "ValueError" in line
    assert "test_logs.py" in line
    assert "'Dear" not in line  # the source line itself stays, as in any traceback


@pytest.mark.parametrize("form", ["text", "json"])
def test_secrets_are_hidden_whoever_writes_them(log, form):
    settings = load_settings(
        log_format=form,
        teamwork_api_key="twp_abcdef",
        pg_dsn="postgresql://me:hunter22@db/twm",
    )

    line = log("GET /?key=%s failed, %s", "twp_abcdef", "password=hunter22", settings=settings)

    assert "twp_abcdef" not in line
    assert "hunter22" not in line
    assert "failed" in line


def run(code: str, **settings) -> subprocess.CompletedProcess[str]:
    start = (
        "from twm_pipeline import logs; from twm_pipeline.settings import load_settings;"
        "logs.set_up(load_settings()); logs.log_what_ends()\n"
    )
    return subprocess.run(
        [sys.executable, "-c", start + code],
        env=environment_of(load_settings(**settings)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_what_ends_a_process_or_a_thread_is_told_without_its_text():
    code = (
        "import threading; t = threading.Thread(target=int, args=('Dear Mr Smith',)); t.start(); t.join()\n"
        "row = ['Dear Mr Jones']\nint(row[0])"
    )

    done = run(code, log_format="json")

    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["message"] for line in lines] == [
        "a thread ends by a defect of this program",
        "this process ends by a defect of this program",
    ]
    assert all(line["trace"].endswith("ValueError") for line in lines)
    assert "Mr" not in done.stderr
    assert done.returncode == 1


def test_libraries_are_heard_only_when_it_matters():
    code = (
        "import logging; u = logging.getLogger('urllib3'); u.debug('GET /?signature'); u.warning('retry')\n"
        "logging.getLogger('twm_pipeline.x').debug('own')"
    )

    done = run(code, log_level="DEBUG")

    assert "signature" not in done.stderr
    assert "urllib3: retry" in done.stderr
    assert "twm_pipeline.x: own" in done.stderr


def test_a_line_that_cannot_be_written_shows_nothing_of_its_arguments():
    done = run("import logging; logging.getLogger('twm_pipeline').warning('%d rows', 'Dear Mr Smith')")

    assert done.returncode == 0
    assert "Smith" not in done.stderr


def test_a_log_is_its_owners_own_and_is_put_aside_when_large(tmp_path):
    path = tmp_path / "logs" / "twm.log"
    with open_log(path) as file:
        file.write("x" * (KEPT_LOG_BYTES + 1))
    with open_log(path) as file:
        file.write("y")

    assert path.read_text() == "y"
    assert path.with_suffix(".log.1").stat().st_size == KEPT_LOG_BYTES + 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_threads_do_not_share_what_their_lines_are_about(log):
    lines = []
    with about(source="teamwork"):
        thread = threading.Thread(target=lambda: lines.append(log()))
        thread.start()
        thread.join()

    assert "source" not in lines[0]
