"""Bodies become readable text, whatever was sent, and quickly."""

import html
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twm_pipeline.sources.html import MOST_TAGS, to_text

READABLE = {
    "paragraphs": ("<p>One</p><p>Two</p>", "One\n\nTwo"),
    "line breaks": ("One<br>Two<br/>Three", "One\nTwo\nThree"),
    "divisions": ("<div>One<div>Two</div></div>Three", "One\nTwo\nThree"),
    "a list": ("<ul><li>One</li><li>Two</li></ul>", "* One\n* Two"),
    "a numbered list": ("<ol><li>One</li><li>Two</li></ol>", "1. One\n2. Two"),
    "a table": (
        "<table><tr><th>Item</th><th>Qty</th></tr><tr><td>Bolt</td><td><b>2</b></td></tr></table>",
        "Item Qty\nBolt 2",
    ),
    "entities": ("Tom &amp; Jerry &lt;3 &#8364;", "Tom & Jerry <3 €"),
    "a link": ('<a href="https://example.com/?a=1">Offer</a>', "Offer"),
    "script and style": ("<style>p{}</style><script>alert(1)</script><p>Hello</p>", "Hello"),
    "a title": ("<html><head><title>T</title></head><body>Hello</body></html>", "Hello"),
    "a comment": ("Hel<!-- no -->lo<br>", "Hello"),
    "a hidden preview": ('<div style="display: none">Preview</div><p>Hello</p>', "Hello"),
    "an XML declaration": ('<?xml version="1.0" encoding="utf-8"?><p>Grüße</p>', "Grüße"),
    "unclosed tags": ("<p>One<b>two<i>three", "Onetwothree"),
    "many blank lines": ("<p>One</p>" + "<br>" * 20 + "<p>Two</p>", "One\n\nTwo"),
    "emoji and CJK": ("<p>你好 👋🏽</p>", "你好 👋🏽"),
    "markup only": ("<p></p>", ""),
    "broken characters": ("<p>a&#xD800;b&#0;c</p>", "a�b�c"),
}

PLAIN = ["", "Hello", "a < b and c > d\n\n\n\nR&D", "  indented\n\tby a tab  ", "5 <6 > 4", "x <y"]

HOSTILE = {
    "divisions nested 5,000 deep": "<div>" * 5000 + "needle" + "</div>" * 5000,
    "tables nested 5,000 deep": "<table><tr><td>" * 5000 + "needle",
    "lists nested 5,000 deep": "<ul><li>" * 5000 + "needle",
    "quotes nested 300 deep": "<blockquote>" * 300 + "needle" + "</blockquote>" * 300,
    "a million unclosed tags": "<b>needle</b>" + "<p " * 1_000_000,
    "a million open brackets": "<b>needle</b>" + "<" * 1_000_000,
    "2 MB of paragraphs": "<p>words</p>" * 150_000 + "needle",
    "2 MB of text": "<p>" + "word " * 400_000 + "needle",
    "as many tags as are laid out": "<br>" * (MOST_TAGS - 10) + "needle",
    "100,000 attributes": "<p " + " ".join(f"a{i}=1" for i in range(100_000)) + ">needle</p>",
    "a wide column of many rows": (
        "<table><tr><td>" + "x" * 100_000 + "</td></tr>" + "<tr><td>b</td></tr>" * 5000 + "</table>needle"
    ),
    "padding without end": "<div style='padding-left:9999em'>" * 50 + "needle<br>" * 100,
    "margins without end": "<div style='margin-top:99999999em'>needle</div>" * 100,
    "deep lists around long lines": "<ul><li>" * 120 + "<pre>" + "a\n" * 100_000 + "needle",
    "scripts that never end": "needle<b>" + "<script>" * 100_000,
    "comments that never end": "needle<b></b>" + "<!-- " * 100_000,
    "quotes that never end": "needle" + '<a="' * 20_000 + "x" * 500_000,
}


@pytest.mark.parametrize(("body", "expected"), READABLE.values(), ids=READABLE)
def test_a_body_reads_as_a_person_would_read_it(body, expected):
    assert to_text(body) == expected


@pytest.mark.parametrize("body", PLAIN)
def test_a_body_without_markup_is_left_alone(body):
    assert to_text(body) == body


def test_no_body_stays_no_body():
    assert to_text(None) is None


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_body_keeps_its_words_and_costs_little(body):
    started = time.process_time()

    text = to_text(body)

    assert time.process_time() - started < 1
    assert text is not None
    assert "needle" in text
    assert len(text) <= len(body) + 1000


def test_an_inline_image_is_no_reason_to_give_up_the_layout():
    image = '<img src="data:image/png;base64,' + "AAA/BB=\n" * 20_000 + '">'

    assert to_text(f"<p>One</p>{image}<p>Two</p>") == "One\n\nTwo"


def test_a_body_too_large_to_lay_out_still_loses_its_scripts():
    body = "<script>alert(1)</script><STYLE>p{}</STYLE><!-- x -->" + "<p>word</p>" * MOST_TAGS

    text = to_text(body)

    assert text is not None
    assert set(text.split()) == {"word"}


@given(st.text(alphabet="<>/&;#!-='\" \n\x00abpdivtlx?", max_size=200))
def test_any_text_is_survived(body):
    text = to_text(body)

    assert text is not None
    text.encode()


@given(st.text(st.characters(exclude_categories=("Cc", "Cs", "Z")), min_size=1))
def test_escaped_words_come_back(word):
    assert to_text(f"<p>{html.escape(word)}</p>") == word
