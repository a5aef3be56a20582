"""No process is left behind, however the one that started it ends."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from twm_pipeline.cli import processes, up

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


@pytest.mark.parametrize(("jump", "times"), [(-3600, 1), (3600, 0), (-5, 0)])
def test_the_daemon_starts_anew_when_the_clock_is_set_back(tmp_path, monkeypatch, jump, times):
    """The jump comes between two looks; the child ends after some more of them."""
    looks, real, anew = itertools.count(), time.time, []
    code = "import sys; sys.stdin.readline()"
    child = processes.start("one", ["-c", code], env=dict(os.environ), logs=tmp_path, answers=True)

    def clock() -> float:
        look = next(looks)
        if look == 4:
            child.process.communicate()  # its input ends, and so does it
        return real() + (jump if look >= 2 else 0)

    monkeypatch.setattr(up, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(time, "time", clock)
    with processes.stopped_at_the_end([child]), pytest.raises(up.ChildEndedError):
        up._stay([child], [], on_clock_set_back=lambda: anew.append(True))

    assert len(anew) == times
