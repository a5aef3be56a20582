"""The readable text of a body says what a mail client shows."""

import html

import pytest

from twm_pipeline.sources.html import to_text

WRITTEN = {
    "entities spelled out": "write &lt;b&gt; and &nbsp; and &amp;amp; and &#8220;",
    "an address with parameters": "https://example.com/?a=1&copy=2&lt=3&amp;b=4",
    "no entity at all": "AT&T, R&D; 5 < 7 && 9 > 3",
    "words that entities begin with": "&notify &region &ampere",
}


@pytest.mark.parametrize("text", WRITTEN.values(), ids=WRITTEN)
def test_plain_text_in_markup_is_read_as_it_was_written(text):
    assert to_text(f"<pre>{html.escape(text, quote=False)}</pre>") == text


@pytest.mark.parametrize("written", ["&amp;lt;", "&#38;lt;", "&#x26;lt;", "&AMP;lt;"])
def test_an_escaped_ampersand_is_resolved_once(written):
    assert to_text(f"<p>{written}</p>") == "&lt;"
