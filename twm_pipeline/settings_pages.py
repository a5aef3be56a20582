"""The settings as pages that people read: `.env.example`, `docs/configuration.md`, a table of the README."""

from __future__ import annotations

import textwrap
from pathlib import Path

from pydantic.fields import FieldInfo

from twm_pipeline.settings import PROJECT_DIR, Settings

_TABLE_BEGINS = "<!-- settings: written by `make format` -->\n"
_TABLE_ENDS = "<!-- /settings -->"
_CONFIGURATION_HEAD = """# Configuration

Settings come from `.env` in the project's folder (start from `.env.example`) or from the environment, which
wins. Without the credentials of a vendor that vendor is switched off and says so. A wrong value stops the
command with the name of the variable, what was read (secrets are not shown) and what is expected. Dates are
`DD.MM.YYYY` or ISO 8601; one without a time is midnight in `TIMEZONE`.

This page is written by `make format` from `twm_pipeline/settings.py`.
"""


def env_example() -> str:
    """Return the text of `.env.example`: every setting with its meaning and its default."""
    head = "# Copy this file to .env, then fill in what you have and remove the # in front of it.\n"
    entries = [_example_of(name, field) for name, field in Settings.model_fields.items()]
    return "\n".join([head, *entries])


def _example_of(name: str, field: FieldInfo) -> str:
    # All of it is a comment: Dagster's commands would put an empty value over one of the environment.
    meaning = textwrap.fill(f"{field.description}.", width=108, initial_indent="# ", subsequent_indent="# ")
    return f"{meaning}\n# {name.upper()}={_default_of(field)}\n"


def configuration_page() -> str:
    """Return the text of `docs/configuration.md`: a table of every setting."""
    return f"{_CONFIGURATION_HEAD}\n{settings_table()}"


def settings_table() -> str:
    """Return every setting as a table in Markdown."""
    rows = [
        f"| `{name.upper()}` | {field.description} | {_shown_default(field)} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(["| Setting | Meaning | Default |", "| --- | --- | --- |", *rows, ""])


def with_settings_table(page: str) -> str:
    """Return *page* with the table between its two marks written anew."""
    head, mark, rest = page.partition(_TABLE_BEGINS)
    _, end, tail = rest.partition(_TABLE_ENDS)
    return f"{head}{mark}{settings_table()}{end}{tail}" if end else page


def _shown_default(field: FieldInfo) -> str:
    default = _default_of(field)
    return f"`{default}`" if default else "none"


def _default_of(field: FieldInfo) -> str:
    """Return a default as it would be written in `.env`; empty if there is none."""
    default = field.default
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, Path):
        return str(default.relative_to(PROJECT_DIR))
    return "" if default is None or default == () else str(default)
