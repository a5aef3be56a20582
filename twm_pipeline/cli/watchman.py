"""Process groups and their end; run as a program, the end of what a killed process had started.

The program reads from standard input which groups its parent starts (`123`) and has ended (`-123`). When the
pipe is closed, because the parent has ended in whatever way, it ends the groups that are left. It is started
without site packages and imports nothing of the project: it waits for weeks and should cost next to nothing.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable

STOP_SECONDS = 15.0
KILL_SECONDS = 5.0
LOOK_SECONDS = 0.05


def end_groups(
    groups: Iterable[int], *, seconds: float = STOP_SECONDS, reap: Callable[[], object] = lambda: None
) -> list[int]:
    """End process groups: SIGINT, then SIGTERM, then SIGKILL; return those that had to be killed.

    Args:
        groups: Their numbers.
        seconds: How long the first signal may take.
        reap: Called while waiting: a child that nobody waits for stays in its group as a zombie.
    """
    alive = list(groups)
    for number, patience in (
        (signal.SIGINT, seconds),
        (signal.SIGTERM, KILL_SECONDS),
        (signal.SIGKILL, KILL_SECONDS),
    ):
        alive = [group for group in alive if _lives(group)]
        for group in alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, number)
        _wait_for(alive, patience, reap)
    return alive


def _wait_for(groups: list[int], seconds: float, reap: Callable[[], object]) -> None:
    deadline = time.monotonic() + seconds
    while groups and time.monotonic() < deadline:
        reap()
        if not any(_lives(group) for group in groups):
            return
        time.sleep(LOOK_SECONDS)


def _lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def main() -> None:
    """Watch until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line)
        if group > 0:
            groups.add(group)
        else:
            groups.discard(-group)
    end_groups(groups)


if __name__ == "__main__":
    main()
