"""Label categories: which labels and tags fall into which of the user's own columns."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from twm_pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

Categories = Mapping[str, tuple[str, ...]]

MAX_NAME_BYTES = 63
"""PostgreSQL's limit for a column name; a longer one would be cut silently and could collide."""


def load_categories(path: Path) -> Categories:
    """Return category name → label patterns from a JSON object of lists (or of single strings).

    Args:
        path: The file; where it does not exist there are no categories.

    Raises:
        ConfigError: If the file is not such an object; the message names the place.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_unique_keys)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        msg = f"{path} cannot be read as label categories: {error}"
        raise ConfigError(msg) from error
    if not isinstance(data, dict):
        msg = f"{path}: expected a JSON object, category name → list of labels, but read {_kind(data)}"
        raise ConfigError(msg)
    return {name: _check_patterns(path, name, patterns) for name, patterns in data.items()}


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            msg = f"the category {name!r} stands there twice"
            raise ValueError(msg)
    return dict(pairs)


def _check_patterns(path: Path, name: str, patterns: object) -> tuple[str, ...]:
    if not name.strip() or not _is_storable(name) or len(name.encode()) > MAX_NAME_BYTES:
        msg = f"{path}: {name!r} cannot be a column: a name needs 1 to {MAX_NAME_BYTES} bytes"
        raise ConfigError(msg)
    if isinstance(patterns, str):
        patterns = [patterns]
    if not isinstance(patterns, list) or not all(isinstance(item, str) and item for item in patterns):
        msg = f"{path}: category {name!r}: expected a list of labels, but read {_kind(patterns)}"
        raise ConfigError(msg)
    if not all(map(_is_storable, patterns)):
        msg = f"{path}: category {name!r}: a label with NUL or half a character cannot be stored"
        raise ConfigError(msg)
    return tuple(dict.fromkeys(patterns))


def _is_storable(text: str) -> bool:
    """Return whether PostgreSQL can hold *text*: no NUL, no lone surrogate."""
    return re.search("[\x00\ud800-\udfff]", text) is None


def _kind(value: object) -> str:
    if isinstance(value, list):
        return "a list with something other than non-empty strings"
    if isinstance(value, dict):
        return "an object"
    return "a string" if isinstance(value, str) else "a number, true, false or null"


def to_regex(patterns: tuple[str, ...]) -> str:
    """Return one anchored, case-sensitive regular expression for *patterns*, valid in PostgreSQL and Python.

    `*` stands for any number of characters, `?` for exactly one; everything else for itself.
    """
    alternatives = []
    for pattern in patterns:
        parts = {"*": "(.|\n)*", "?": "(.|\n)"}
        alternatives.append("".join(parts.get(char) or _literal(char) for char in pattern))
    return "^(" + "|".join(alternatives) + ")$" if alternatives else "^$a"


def _literal(char: str) -> str:
    return char if char.isalnum() or ord(char) > 127 else f"\\{char}"  # noqa: PLR2004 - ASCII ends there


def matching(labels: list[str], patterns: tuple[str, ...]) -> list[str]:
    """Return those of *labels* that fall into the category of *patterns*, in their order."""
    expression = re.compile(to_regex(patterns))
    return [label for label in labels if expression.fullmatch(label)]
