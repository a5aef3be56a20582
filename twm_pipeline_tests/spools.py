"""What tests of the spool share: a clock moved by hand, short words, a disk that is watched."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from twm_pipeline.spool import Entry, Spool
from twm_pipeline_tests.factories import MORNING, make_envelope

FIRST_WAIT = 60.0
MOST_ATTEMPTS = 3


class Clock:
    """Seconds since 1970, moved by hand."""

    def __init__(self) -> None:
        self.now = MORNING.timestamp()

    def __call__(self) -> float:
        return self.now


def put(spool: Spool, *bodies: bytes) -> list[str]:
    return spool.put([make_envelope(body=body) for body in bodies])


def take(spool: Spool) -> Entry:
    [entry] = spool.claim(limit=1)
    return entry


def fail(spool: Spool, entry: Entry, **values) -> bool:
    terms = {"most_attempts": MOST_ATTEMPTS, "first_wait_seconds": FIRST_WAIT} | values
    return spool.fail(entry, "title: expected a text", **terms)


def files(spool: Spool) -> dict[str, list[str]]:
    return {
        folder.name: sorted(path.name for path in folder.iterdir())
        for folder in sorted(spool.folder.iterdir())
    }


class Trace(list[tuple[str, str]]):
    """The calls of the operating system that change or sync a file, with the name of the file."""

    CALLS = ("open", "write", "fsync", "rename", "close", "mkdir", "unlink")

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.names: dict[int, str] = {}
        for call in self.CALLS:
            monkeypatch.setattr(os, call, self._watched(call, getattr(os, call)))

    def _watched(self, call: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def watched(first, *rest, **options):
            result = original(first, *rest, **options)
            if call == "open":
                self.names[result] = Path(first).name
            self.append((call, self.names[first] if isinstance(first, int) else Path(first).name))
            return result

        return watched

    def at(self, call: str, name: str) -> list[int]:
        return [index for index, item in enumerate(self) if item == (call, name)]


def break_call(monkeypatch: pytest.MonkeyPatch, call: str, number: int, code: int) -> None:
    """Let the *number*-th call of a function of the operating system fail."""
    original, calls = getattr(os, call), iter(range(1, 1000))

    def broken(*arguments, **options):
        if next(calls) == number:
            raise OSError(code, os.strerror(code))
        return original(*arguments, **options)

    monkeypatch.setattr(os, call, broken)
