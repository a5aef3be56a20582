"""HTML bodies as readable text."""

from __future__ import annotations

import html
import re

from inscriptis import get_text
from inscriptis.css_profiles import RELAXED_CSS_PROFILE
from inscriptis.model.config import ParserConfig
from lxml.etree import LxmlError

_MARKUP = re.compile(r"<[a-zA-Z!/][^>]*>|&(?:#\d+|#x[0-9a-fA-F]+|[a-zA-Z]+\d*);")
_BLANK_LINES = re.compile(r"\n[ \t]*\n(?:[ \t]*\n)+")
_TAG = re.compile(r"<[^>]*>")
_AMPERSAND = re.compile(r"&(?:amp|#0*38|#x0*26);?", re.IGNORECASE)
_CONFIG = ParserConfig(css=RELAXED_CSS_PROFILE, display_links=False, display_images=False)
LONGEST_RENDERED = 2_000_000
"""Characters; a longer body is only stripped of its tags, layout would take too long."""


def to_text(body: str | None) -> str | None:
    """Return the readable text of an e-mail body; a body without markup is returned as it is."""
    if body is None or not _MARKUP.search(body):
        return body
    try:
        # The library resolves entities twice: `&amp;lt;` would become `<` instead of `&lt;`.
        twice = _AMPERSAND.sub("&amp;amp;", body)
        text = get_text(twice, _CONFIG) if len(body) <= LONGEST_RENDERED else _strip(body)
    except (LxmlError, RecursionError, ValueError, KeyError, IndexError, AttributeError, TypeError):
        # Spam is written to break parsers; its words are still worth having.
        text = _strip(body)
    lines = "\n".join(line.rstrip() for line in text.replace("\x00", "").splitlines())
    return _BLANK_LINES.sub("\n\n", lines).strip("\n")


def _strip(body: str) -> str:
    return html.unescape(_TAG.sub(" ", body))
