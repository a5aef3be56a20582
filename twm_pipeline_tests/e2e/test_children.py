"""No process is left behind, however the one that started it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

# Starts a child, which starts a grandchild; prints the numbers of both and of the watchman, then waits.
PARENT = """
import os, sys, pathlib, psutil
from twm_pipeline.cli import processes
inner = "import subprocess, sys, time; sleep = [sys.executable, '-c', 'import time; time.sleep(600)'];"
inner += "p = subprocess.Popen(sleep); open(sys.argv[1], 'w').write(str(p.pid)) and time.sleep(600)"
place = pathlib.Path(sys.argv[1])
child = processes.start("one", ["-c", inner, str(place / "grandchild")], env=dict(os.environ), logs=place)
while not (place / "grandchild").exists() or not (place / "grandchild").read_text():
    child.process.poll()
print(*(process.pid for process in psutil.Process().children(recursive=True)), flush=True)
sys.stdin.readline()
if sys.argv[2:] == ["stop"]:
    print(processes.stop([child]), flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def parent(tmp_path: Path, request: pytest.FixtureRequest):
    command = [sys.executable, "-c", PARENT, str(tmp_path), *getattr(request, "param", [])]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as process:
        yield process
        process.kill()


def started_by(parent: subprocess.Popen[str]) -> list[psutil.Process]:
    assert parent.stdout is not None
    found = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
    assert len(found) == 3  # a child, its child, and the watchman
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_killed_parent_leaves_nothing_behind(parent, number):
    left = started_by(parent)

    parent.send_signal(number)

    _, alive = psutil.wait_procs(left, timeout=30)
    assert alive == []


@pytest.mark.parametrize("parent", [["stop"]], indirect=True)
def test_children_that_were_stopped_leave_no_watchman(parent):
    left = started_by(parent)

    parent.stdin.write("\n")
    parent.stdin.flush()

    _, alive = psutil.wait_procs(left, timeout=30)
    assert alive == []
    assert parent.stdout.readline() == "[]\n"
    assert parent.poll() is None
