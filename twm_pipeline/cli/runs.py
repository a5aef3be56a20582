"""Recorded runs: jobs in a child process, watched from here through PostgreSQL."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, ProgrammingError

from twm_pipeline.cli import output, processes
from twm_pipeline.cli.mirror import embedded_while_needed
from twm_pipeline.db import connect_database
from twm_pipeline.errors import TwmError
from twm_pipeline.mirror.status import read_budgets, read_progress
from twm_pipeline.records import SOURCES, Json
from twm_pipeline.settings import PROJECT_DIR, Settings, environment_of

LONGEST_RUN_SECONDS = 7 * 86_400
"""A first import takes as long as the vendor's budget makes it; nobody is to end it halfway."""
LOOK_SECONDS = 0.5
STARTING = "starting …"
PLAIN_SECONDS = 10.0
"""Between two lines of progress where there is no terminal."""
CHANGES_NEEDED = ("ConfigError", "AuthenticationError", "AccountChangedError")


class RunFailedError(TwmError):
    """A recorded run did not succeed; the text says why."""


def environment(settings: Settings) -> dict[str, str]:
    """Return the environment of every process of Dagster: these settings, the project's instance."""
    return {
        **environment_of(settings),
        "DAGSTER_HOME": str(_home(settings)),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "",  # each run is a new process, and would compile the package anew
    }


def _home(settings: Settings) -> Path:
    """Return a home for Dagster with the project's `dagster.yaml`; it leaves folders of its own in there."""
    home = settings.twm_data_dir / "dagster" / "home"
    home.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    home.mkdir(exist_ok=True)
    draft = home / f"dagster.yaml.{os.getpid()}"
    shutil.copyfile(PROJECT_DIR / "dagster.yaml", draft)
    draft.replace(home / "dagster.yaml")
    return home


def job_request(job: str, *, op: str, config: Json) -> Json:
    """Return what `run_jobs` takes for a job of one op with this configuration."""
    return {
        "job": job,
        "run_config": {"ops": {op: {"config": config}}},
        "tags": {"dagster/max_runtime": str(LONGEST_RUN_SECONDS)},
    }


def run_jobs(settings: Settings, requests: Sequence[Json]) -> list[Json]:
    """Run jobs one after the other in a child process and return what each run recorded.

    Args:
        settings: Handed down to the child.
        requests: `job`, `run_config`, `tags` of each run.

    Raises:
        RunFailedError: If the child ended without answering.
    """
    children: list[processes.Child] = []
    with (
        embedded_while_needed(settings),
        processes.stopped_at_the_end(children),
        _watching(settings) as look,
    ):
        child = processes.start(
            "runs",
            ["-m", "twm_pipeline.cli.child"],
            env=environment(settings),
            logs=settings.twm_data_dir / "logs",
            cwd=PROJECT_DIR,
            answers=True,
        )
        children.append(child)
        answers: list[Json] = []
        talk = threading.Thread(target=_talk, args=(child, list(requests), answers), daemon=True)
        talk.start()
        while talk.is_alive():
            talk.join(LOOK_SECONDS)
            look()
        child.process.wait()
    if len(answers) < len(requests):
        msg = f"The run's process ended early. The end of {child.log}:\n{child.log_end()}"
        raise RunFailedError(msg)
    return answers


def _talk(child: processes.Child, requests: list[Json], answers: list[Json]) -> None:
    """Hand the requests over and collect the answers until the child has closed its output."""
    stdin, stdout = child.process.stdin, child.process.stdout
    if stdin is None or stdout is None:
        return
    _write(stdin, requests)
    with stdout:
        answers += [json.loads(line) for line in stdout if line.startswith("{")]


def _write(stdin: IO[str], requests: list[Json]) -> None:
    try:
        stdin.write(json.dumps(requests))
        stdin.close()
    except BrokenPipeError:
        pass  # the child has ended already; its log says why


@contextmanager
def _watching(settings: Settings) -> Iterator[Callable[[], None]]:
    """Give what shows the progress of running passes: one changing line on a terminal, else some lines."""
    console = output.err()
    engine = connect_database(settings)
    try:
        if console.is_terminal:
            with output.progress(STARTING) as show:
                yield lambda: show(progress_line(engine) or STARTING)
        else:
            yield _plain_lines(console, engine)
    finally:
        engine.dispose()


def _plain_lines(console: Console, engine: Engine) -> Callable[[], None]:
    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1
        if looks % int(PLAIN_SECONDS / LOOK_SECONDS) == 0 and (line := progress_line(engine)):
            console.print(line, markup=False)

    return look


def progress_line(engine: Engine) -> str:
    """Return what every running pass is doing, and what it waits for; nothing before the first has begun."""
    words = []
    try:
        with engine.connect() as connection:
            for source in SOURCES:
                for item in read_progress(connection, source)[:1]:
                    total = f" of {item['total']:,}" if item["total"] else ""
                    words.append(f"{source} {item['stream']}: {item['phase']}, {item['done']:,}{total}")
                words += [
                    f"{source} waits for its request budget"
                    for item in read_budgets(connection, source)
                    if item["waiting_until"] or item["paused_until"]
                ]
    except ProgrammingError:  # the run has still to create the tables
        return ""
    except DBAPIError:
        return "the mirror does not answer"
    return " · ".join(words)


def report_problems(results: Sequence[Json]) -> int:
    """Write what failed to standard error; return the exit code that tells the truth."""
    code = output.OK
    for result in results:
        if result["success"]:
            continue
        error: dict[str, Any] = result["error"] or {"class": "", "text": f"ended as {result['status']}"}
        output.complain(f"{result['job']}: {error['text']}")
        changes = error["class"] in CHANGES_NEEDED
        code = max(code, output.TO_BE_CHANGED if changes else output.FAILED)
    return code
