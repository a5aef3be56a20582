"""Processes that use a spool, to be killed or raced: `python -m twm_pipeline_tests.faults.spooler …`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from twm_pipeline.records import Hint
from twm_pipeline.spool import Entry, Envelope, Spool

ROOT = Path(__file__).resolve().parent.parent.parent
CALLS = ("open", "write", "fsync", "close", "rename", "unlink", "mkdir")
BATCH = 3
KILLED = 9
CALLS_AT_MOST = 200
DAY = 86_400.0


def start(word: str, folder: Path) -> subprocess.Popen[str]:
    """Start a process that does what *word* names with the spool in *folder*."""
    return subprocess.Popen(
        [sys.executable, "-m", "twm_pipeline_tests.faults.spooler", word, str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def open_spool(folder: Path, *, later: float = 0.0) -> Spool:
    """Return the spool that all of these processes use; *later*: seconds by which its clock is ahead."""
    return Spool(folder, "teamwork", clock=lambda: time.time() + later)


def envelope(number: int) -> Envelope:
    """Return a delivery whose body can be told from that of any other, and from half of itself."""
    return Envelope(
        source="teamwork",
        hint=Hint(event="TASK.UPDATED", stream="tasks", object_id=str(number)),
        received_at=datetime.now(UTC),
        headers={},
        body=f"{number} ".encode() * 500,
    )


def put_for_ever(folder: Path) -> None:
    """Store batches and tell the name of each entry once it is stored."""
    spool, number = open_spool(folder), 0
    while True:
        number += BATCH
        for name in spool.put([envelope(number + offset) for offset in range(BATCH)]):
            tell(name)


def use_all(folder: Path) -> None:
    """Claim until nothing is left, finish each entry in another way, and tell which may be gone."""
    spool = open_spool(folder, later=DAY)
    spool.take_back()
    while entries := spool.claim(limit=8):
        for number, entry in enumerate(entries):
            _finish(spool, number, entry)


def _finish(spool: Spool, number: int, entry: Entry) -> None:
    match number % 4:
        case 0:
            tell(entry.name)
            spool.done(entry)
        case 1:
            spool.release(entry)
        case _:
            spool.fail(entry, "broken", most_attempts=3, first_wait_seconds=1)


def claim_all(folder: Path) -> None:
    """Wait for a line, then claim until nothing is left and tell the names."""
    spool = open_spool(folder)
    tell("ready")
    sys.stdin.readline()
    while entries := spool.claim(limit=7):
        for entry in entries:
            tell(entry.name)


def tell(text: str) -> None:
    """Write a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _put(spool: Spool) -> None:
    for name in spool.put([envelope(number) for number in range(BATCH)]):
        tell(name)


def _claim(spool: Spool) -> list[Entry]:
    return spool.claim(limit=BATCH)


def _done(spool: Spool) -> None:
    for entry in _claim(spool):
        spool.done(entry)


def _release(spool: Spool) -> None:
    for entry in _claim(spool):
        spool.release(entry)


def _fail(spool: Spool) -> None:
    for entry in _claim(spool):
        spool.fail(entry, "broken", most_attempts=9, first_wait_seconds=60)


def _bury(spool: Spool) -> None:
    for entry in _claim(spool):
        spool.fail(entry, "broken", most_attempts=1, first_wait_seconds=60)


def _claim_later(spool: Spool) -> None:
    _claim(open_spool(spool.folder.parent, later=DAY))


def _retry(spool: Spool) -> None:
    for item in spool.entries():
        spool.retry(item.name)


ACTIONS: dict[str, tuple[Callable[[Spool], object], ...]] = {
    "put": (_put,),
    "claim": (_put, _claim),
    "done": (_put, _done),
    "release": (_put, _release),
    "fail": (_put, _fail),
    "fail for good": (_put, _bury),
    "claim a retry": (_put, _fail, _claim_later),
    "take back": (_put, _claim, Spool.take_back),
    "retry": (_put, _bury, _retry),
}
"""What is done before, and last the action during which the process dies."""


def die_at_every_call(action: str, folder: Path) -> None:
    """Do *action* again and again, each time in a process that ends at a later call.

    Tells a line per process: the folder it left, how it ended, and the names that it told.
    """
    for number in range(1, CALLS_AT_MOST):
        for tears in (False, True):
            place = folder / f"{number}-{'torn' if tears else 'whole'}"
            told, tells = os.pipe()
            child = os.fork()
            if child == 0:
                os.dup2(tells, sys.stdout.fileno())
                _die(ACTIONS[action], open_spool(place), number, tears=tears)
            os.close(tells)
            names = os.fdopen(told).read().split()
            _, status = os.waitpid(child, 0)
            tell(" ".join([place.name, str(os.waitstatus_to_exitcode(status)), *names]))
        if os.waitstatus_to_exitcode(status) != KILLED:
            return


def _die(steps: tuple[Callable[[Spool], object], ...], spool: Spool, number: int, *, tears: bool) -> None:
    """Do all *steps*, and end at the *number*-th call of the last; *tears*: half of a write is done then."""
    try:
        for step in steps[:-1]:
            step(spool)
        left = iter(range(number - 1, -1, -1))
        for call in CALLS:
            setattr(os, call, _mortal(call, getattr(os, call), left, tears=tears))
        steps[-1](spool)
        os._exit(0)
    except BaseException as error:  # noqa: BLE001 - told by the parent; a forked process must not go on
        sys.stderr.write(repr(error))
        os._exit(1)


def _mortal(
    call: str, original: Callable[..., Any], left: Iterator[int], *, tears: bool
) -> Callable[..., Any]:
    def mortal(*arguments: Any, **options: Any) -> Any:
        if next(left) == 0:
            if call == "write" and tears:
                file, content = arguments
                original(file, content[: len(content) // 2])
            os._exit(KILLED)
        return original(*arguments, **options)

    return mortal


def main() -> None:
    """Do what the command line says."""
    word, folder = sys.argv[1], Path(sys.argv[2])
    ways = {"put for ever": put_for_ever, "use all": use_all, "claim all": claim_all}
    if word in ways:
        ways[word](folder)
    else:
        die_at_every_call(word, folder)


if __name__ == "__main__":
    main()
