"""Writing `.env`: values go in where their names stand, everything else stays as it was."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+=,~-]+")


def with_values(text: str, values: Mapping[str, str]) -> str:
    """Return the text of a `.env` file with *values* set.

    A line that sets a name already is replaced, every one of them; else the commented example of it; else
    the line is added at the end. Without a value the line becomes a comment: Dagster's commands would put an
    empty value over one of the environment.
    """
    for name, value in values.items():
        line = f"{name}={_quoted(value)}" if value else f"# {name}="
        for start in (rf"[ \t]*(?:export[ \t]+)?{name}[ \t]*=", rf"#[ \t]*{name}="):
            text, count = re.subn(rf"^{start}.*$", lambda _, line=line: line, text, flags=re.MULTILINE)  # type: ignore[misc]  # bound per loop
            if count:
                break
        else:
            text = f"{text.rstrip()}\n{line}\n".lstrip("\n")
    return text


def _quoted(value: str) -> str:
    """Return *value* as python-dotenv reads it back: in single quotes nothing is expanded."""
    if _PLAIN.fullmatch(value):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def write_env(path: Path, text: str) -> None:
    """Put *text* in place of the file at once, readable only by its owner: it holds secrets."""
    handle, name = tempfile.mkstemp(prefix=".env-", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
