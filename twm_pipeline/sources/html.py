"""HTML bodies as readable text."""

from __future__ import annotations

import html
import re

from inscriptis.css_profiles import RELAXED_CSS_PROFILE
from inscriptis.html_engine import Inscriptis
from inscriptis.html_properties import Display
from inscriptis.model.config import ParserConfig
from inscriptis.model.html_document_state import HtmlDocumentState
from inscriptis.model.html_element import HtmlElement
from inscriptis.model.tag import CustomHtmlTagHandlerMapping
from lxml.etree import LxmlError
from lxml.html import HTMLParser, document_fromstring

LONGEST_RENDERED = 1_000_000
MOST_TAGS = 25_000
MOST_ATTRIBUTES = 2_000
"""Characters, tags, and attributes of one tag that are rendered in well under a second; a body beyond is only
stripped of its tags."""

# None of these reads far past the next `<`, so a body of unclosed tags is not read again for each of them.
_MARKUP = re.compile(r"<[a-zA-Z!/][^<>]*>|&(?:#\d+|#x[0-9a-fA-F]+|[a-zA-Z]+\d*);")
_TAG = re.compile(r"<[a-zA-Z!/?][^<>]*>")
_ATTRIBUTE = r"""[\s/]++[^<>\s/=]*+(?:\s*+=\s*+(?:"[^"]*+"|'[^']*+'|[^<>\s"']*+))?+"""
_CROWDED_TAG = re.compile(rf"<[^<>\s/]*+(?:{_ATTRIBUTE}){{{MOST_ATTRIBUTES}}}")
_UNSEEN = re.compile(r"<(script|style|title)\b|<!--", re.IGNORECASE)
_XML_DECLARATION = re.compile(r"^\s*<\?xml[^<>]*>")
_HIDDEN = re.compile(r"display\s*:\s*none", re.IGNORECASE)
_SPACES = re.compile(r"[ \t]+")
_BLANK_LINES = re.compile(r"\n[ \t]*\n(?:[ \t]*\n)+")
_AMPERSAND = re.compile(r"&(?:amp|#0*38|#x0*26);?", re.IGNORECASE)


def _begin_cell(state: HtmlDocumentState, _: dict[str, str]) -> None:
    state.tags[-1].write(" ")


# Columns and indents are not drawn: padding multiplies, and a hostile body of 100 kB would become 200 MB.
_LINE = HtmlElement(display=Display.block)
_CONFIG = ParserConfig(
    css={
        **RELAXED_CSS_PROFILE,
        **dict.fromkeys(("div", "ul", "ol", "table", "tr", "caption"), _LINE),
    },
    custom_html_tag_handler_mapping=CustomHtmlTagHandlerMapping(
        start_tag_mapping={"table": None, "tr": None, "td": _begin_cell, "th": _begin_cell},
        end_tag_mapping=dict.fromkeys(("table", "td", "th")),
    ),
)


def to_text(body: str | None) -> str | None:
    """Return the readable text of an e-mail body; a body without markup is returned as it is."""
    if body is None or not _MARKUP.search(body):
        return body
    try:
        text = _strip(body) if _is_excessive(body) else _render(body)
    except (LxmlError, RecursionError, ValueError, KeyError, IndexError, AttributeError, TypeError):
        # Spam is written to break parsers; its words are still worth having.
        text = _strip(body)
    lines = "\n".join(line.rstrip() for line in text.replace("\x00", "").splitlines())
    return _BLANK_LINES.sub("\n\n", lines).strip("\n")


def _is_excessive(body: str) -> bool:
    return (
        len(body) > LONGEST_RENDERED or body.count("<") > MOST_TAGS or _CROWDED_TAG.search(body) is not None
    )


def _render(body: str) -> str:
    parser = HTMLParser(huge_tree=True)
    # The library resolves entities twice: `&amp;lt;` would become `<` instead of `&lt;`.
    tree = document_fromstring(_XML_DECLARATION.sub("", _AMPERSAND.sub("&amp;amp;", body)), parser=parser)
    if any(entry.type_name == "ERR_RESOURCE_LIMIT" for entry in parser.error_log):
        return _strip(body)  # nested so deep that the parser left words out
    for element in tree.iter():
        # Only "do not show" counts: margins and paddings may be any number of lines and spaces.
        if style := element.attrib.pop("style", None):
            element.set("style", "display:none" if _HIDDEN.search(style) else "")
    return str(Inscriptis(tree, _CONFIG).get_text())


def _strip(body: str) -> str:
    return html.unescape(_SPACES.sub(" ", _TAG.sub(" ", _without_unseen(body)))).strip(" ")


def _without_unseen(body: str) -> str:
    """Return *body* without comments, scripts, styles and its title; what is never closed ends the body."""
    kept = []
    place = 0
    lower = body.lower() if body.isascii() else body
    while found := _UNSEEN.search(body, place):
        kept.append(body[place : found.start()])
        closing = f"</{found[1].lower()}" if found[1] else "-->"
        end = lower.find(closing, found.end())
        if end < 0:
            place = len(body)
            break
        place = end + len(closing) if not found[1] else end
    kept.append(body[place:])
    return " ".join(kept)
