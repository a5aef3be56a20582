"""A process that listens until it is killed: `python -m twm_pipeline_tests.faults.listener SOURCE FILE`.

It keeps window after window open, as Dagster's runs do, and writes to FILE what is done with before it is
removed from the spool: what was accepted has to be found there, or among the dead.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from twm_pipeline.db import connect_database
from twm_pipeline.errors import TwmError
from twm_pipeline.records import Source
from twm_pipeline.settings import Settings, environment_of, load_settings
from twm_pipeline.spool import Entry, Spool
from twm_pipeline.sync import outages, window
from twm_pipeline.sync.engine import PassOptions
from twm_pipeline_tests.faults.worker import ROOT

logger = logging.getLogger(__name__)

WINDOW_SECONDS = 6.0
PAUSE_SECONDS = 0.1
Key = tuple[str, str, str]
"""Source, event and object of a delivery."""


def start(settings: Settings, source: Source, *, account: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start a process that listens to *source* with exactly these settings, and return when it does."""
    command = [sys.executable, "-m", "twm_pipeline_tests.faults.listener", source, str(account)]
    environment = {**environment_of(settings), "PYTHONPATH": str(ROOT)}
    with log.open("ab") as errors:
        return subprocess.Popen(command, env=environment, cwd=ROOT, stderr=errors)


@contextlib.contextmanager
def accounting(account: Path) -> Iterator[None]:
    """Write each entry to *account* before it is removed as done, while the block runs."""
    original = Spool.done
    with account.open("ab", buffering=0) as file:

        def done(self: Spool, entry: Entry) -> None:
            file.write(json.dumps([entry.name.split(".")[1], *key_of(self, entry)]).encode() + b"\n")
            original(self, entry)

        Spool.done = done  # type: ignore[method-assign]  # what is left of an entry is nothing
        try:
            yield
        finally:
            Spool.done = original  # type: ignore[method-assign]


def key_of(spool: Spool, entry: Entry) -> Key:
    hint = entry.envelope.hint
    return spool.source, hint.event, str(hint.object_id)


def accounted(account: Path) -> Counter[Key]:
    """Return how many entries were done, by what they tell; one that was done twice counts once."""
    lines = {tuple(json.loads(line)) for line in account.read_bytes().splitlines()}
    return Counter((source, event, object_id) for _, source, event, object_id in lines)


def main() -> None:
    """Listen until killed."""
    source: Source = "teamwork" if sys.argv[1] == "teamwork" else "missive"
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    outages.PAUSE_AFTER_OUTAGE_SECONDS = PAUSE_SECONDS
    settings = load_settings()
    engine = connect_database(settings)
    with accounting(Path(sys.argv[2])):
        while os.getppid() != 1:
            try:
                window.Window(engine, settings, source, WINDOW_SECONDS).run(PassOptions())
            except TwmError as error:
                logger.warning("the window ended: %s", error)
                time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    main()
