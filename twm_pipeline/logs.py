"""One set-up for every line that this project logs: text or JSON, and nothing that is not to be read.

A line never holds the text of a library's error, which may quote a row (`errors.trace_of`), nor the value of
a secret setting, nor a character that would begin a new line or steer a terminal: what vendors send may be
part of a message.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

from pydantic import SecretStr

from twm_pipeline.errors import trace_of

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from twm_pipeline.settings import Settings

PACKAGE = "twm_pipeline"
KEPT_LOG_BYTES = 5_000_000
FIELDS = ("source", "run", "object")
"""What a line may be about: the vendor, Dagster's run, `stream/id`. A record's own `extra` wins."""
SHORTEST_SECRET = 6
"""Shorter values are not looked for: they would be found in any line."""
HIDDEN = "…"

_about: ContextVar[dict[str, str]] = ContextVar("about", default={})  # noqa: B039 - never changed in place

logger = logging.getLogger(__name__)


@contextmanager
def about(**fields: str) -> Iterator[None]:
    """Let every line of this thread that is logged in the block tell what it is about (see `FIELDS`)."""
    token = _about.set({**_about.get(), **fields})
    try:
        yield
    finally:
        _about.reset(token)


class Lines(logging.Formatter):
    """Writes a record as one line.

    Args:
        settings: Say in which form, and which secrets are not to be shown.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._as_json = settings.log_format == "json"
        self._secrets = sorted(_secrets_of(settings), key=len, reverse=True)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields = {**_about.get(), **{name: vars(record)[name] for name in FIELDS if name in vars(record)}}
        values = {
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            **{name: str(fields[name]) for name in FIELDS if name in fields},
            "message": record.getMessage(),
        }
        if record.exc_info and record.exc_info[1] is not None:
            values["trace"] = trace_of(record.exc_info[1])
        shown = {name: self._hide(value) for name, value in values.items()}
        # As ASCII: a separator of lines or a turn of the writing direction is then no such thing.
        return json.dumps(shown) if self._as_json else _as_text(shown)

    def _hide(self, value: str) -> str:
        for secret in self._secrets:
            value = value.replace(secret, HIDDEN)
        return value


def _as_text(values: dict[str, str]) -> str:
    words = [values[name] for name in ("time", "level", "logger")]
    words += [f"{name}={values[name]}" for name in FIELDS if name in values]
    line = f"{' '.join(words)}: {values['message']}"
    return "\n".join(map(printable, [line, *values.get("trace", "").splitlines()])).rstrip("\n")


def printable(text: str) -> str:
    """Return *text* without what would begin a line or steer a terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _secrets_of(settings: Settings) -> set[str]:
    """Return the values of all secret settings, of addresses the password too."""
    values = {value.get_secret_value() for _, value in settings if isinstance(value, SecretStr)}
    passwords = {value.partition("://")[2].rpartition("@")[0].partition(":")[2] for value in values}
    return {value for value in values | passwords if len(value) >= SHORTEST_SECRET}


def set_up(settings: Settings, *, level: str | None = None, stream: TextIO | None = None) -> None:
    """Send the lines of this process to *stream*, unless something else takes them already.

    Libraries are heard from WARNING on: what they tell below holds addresses with their queries.

    Args:
        settings: Say the form and, without *level*, the least severe level.
        level: Of this project's own lines.
        stream: Standard error, if none is given.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(Lines(settings))
    own = logging.getLevelNamesMapping()[level or settings.log_level]
    logging.basicConfig(level=max(own, logging.WARNING), handlers=[handler])
    logging.getLogger(PACKAGE).setLevel(own)


def log_what_ends() -> None:
    """Log what ends this process or a thread of it, in place of Python's traceback with all texts."""
    logging.raiseExceptions = False  # a line that cannot be written would be shown with its arguments
    sys.excepthook, threading.excepthook = _on_end, _on_thread_end


def _on_end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        logger.critical("this process ends by a defect of this program", exc_info=(kind, error, trace))


def _on_thread_end(ended: Any) -> None:  # noqa: ANN401 - the class has no public name that can be written
    if not issubclass(ended.exc_type, SystemExit):
        logger.critical("a thread ends by a defect of this program", exc_info=ended.exc_value)


def open_log(path: Path) -> TextIO:
    """Return the log at *path* to append to, for its owner only; a large one is put aside first."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > KEPT_LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600), "a")


def shorten_logs(folder: Path) -> int:
    """Keep what the logs of running processes hold beside them, and begin them anew; return how many.

    They are open for appending, so writing goes on at the new end. Few lines may be lost: those written
    between the copy and the cut.
    """
    long = [path for path in folder.glob("*.log") if path.stat().st_size > KEPT_LOG_BYTES]
    for path in long:
        shutil.copy(path, path.with_suffix(".log.1"))
        os.truncate(path, 0)
    return len(long)
