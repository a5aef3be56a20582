"""A process that syncs, to be killed or raced: `python -m twm_pipeline_tests.faults.worker SOURCE…`.

`reconcile:SOURCE` sweeps instead.

Prints a line of JSON when everything is read: its largest memory in KiB.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from sqlalchemy import Engine

from bench.servers import peak_bytes_of
from twm_pipeline.db import connect_database
from twm_pipeline.errors import RetriableError
from twm_pipeline.records import Source
from twm_pipeline.settings import Settings, environment_of, load_settings
from twm_pipeline.sync.engine import PassOptions
from twm_pipeline.sync.reconcile import ReconcileOptions
from twm_pipeline.sync.window import Window, run_reconcile

ROOT = Path(__file__).resolve().parent.parent.parent


def start(settings: Settings, *sources: str) -> subprocess.Popen[str]:
    """Start a worker with exactly these settings."""
    command = [sys.executable, "-m", "twm_pipeline_tests.faults.worker", *sources]
    environment = {**environment_of(settings), "PYTHONPATH": os.pathsep.join([str(ROOT)])}
    return subprocess.Popen(
        command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> int:
    """Wait for a worker and return its largest memory in KiB."""
    out, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors[-2000:]
    return int(json.loads(out)["memory"])


def work(engine: Engine, settings: Settings, what: str) -> None:
    """Do a pass over a source, or sweep one that is named as `reconcile:SOURCE`."""
    command, _, name = what.rpartition(":")
    source: Source = name  # type: ignore[assignment]  # a test's word
    if command == "reconcile":
        run_reconcile(engine, settings, source, options=ReconcileOptions())
    else:
        Window(engine, settings, source, 0).run(PassOptions())


def main() -> None:
    """Sync until nothing is left to read."""
    settings = load_settings()
    engine = connect_database(settings)
    for source in sys.argv[1:]:
        for _ in range(10):
            try:
                work(engine, settings, source)
                break
            except RetriableError:
                continue
    sys.stdout.write(json.dumps({"memory": peak_bytes_of(os.getpid()) // 1024}) + "\n")


if __name__ == "__main__":
    main()
