"""A process that publishes, to be killed or raced: `python -m twm_pipeline_tests.faults.publisher SECONDS`.

With no seconds it publishes once and prints whether it did; else it keeps windows of that length open, one
after the other, whatever stops them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading

from twm_pipeline.db import connect_database
from twm_pipeline.errors import TwmError
from twm_pipeline.settings import Settings, environment_of, load_settings
from twm_pipeline.sync.publishing import PublishWindow
from twm_pipeline_tests.faults.worker import ROOT

PAUSE_SECONDS = 0.1


def start(settings: Settings, *, seconds: float = 0) -> subprocess.Popen[str]:
    """Start a publisher with exactly these settings."""
    command = [sys.executable, "-m", "twm_pipeline_tests.faults.publisher", str(seconds)]
    environment = {**environment_of(settings), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> bool:
    """Wait for a publisher that publishes once; return whether it did."""
    out, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors[-2000:]
    return bool(json.loads(out)["ran"])


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a publisher wherever it is."""
    process.kill()
    process.communicate()


def main() -> None:
    """Publish once, or until killed."""
    seconds = float(sys.argv[1])
    settings = load_settings()
    engine = connect_database(settings)
    pause = threading.Event()  # never set: only its timeout is used
    while True:
        try:
            ran = PublishWindow(engine=engine, settings=settings, seconds=seconds).run()
        except TwmError as error:
            if not seconds:
                raise
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            ran = False
        if not seconds:
            sys.stdout.write(json.dumps({"ran": ran}) + "\n")
            return
        pause.wait(PAUSE_SECONDS)


if __name__ == "__main__":
    main()
