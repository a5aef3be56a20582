"""The status page in a real browser: with and without scripts, light and dark, wide and narrow."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from twm_pipeline.insights.flow import task_flow
from twm_pipeline.settings import Settings
from twm_pipeline.status import board, page
from twm_pipeline_tests.chromium import Tab, chromium
from twm_pipeline_tests.status.pages import Shown, shown

pytestmark = pytest.mark.system

PHONE = 360
CONTRAST = (Path(__file__).parent / "contrast.js").read_text()
OUTLINE = """[...document.querySelectorAll("h1, h2, h3, h4")].map(item => Number(item.tagName[1]))"""
NAMELESS = """
[...document.querySelectorAll("a, button, summary, [role=img], [role=region], nav, section, table, svg")]
  .filter(item => !item.closest("[aria-hidden=true]"))
  .filter(item => {
    const label = item.getAttribute("aria-label") || item.querySelector("caption")?.textContent
      || document.getElementById(item.getAttribute("aria-labelledby"))?.textContent || item.textContent;
    return !label.trim();
  }).map(item => item.outerHTML.slice(0, 100))
"""
HEADLESS_CELLS = """
[...document.querySelectorAll("table")].filter(table =>
  !table.querySelector("caption") || [...table.querySelectorAll("th")].some(cell => !cell.scope)
  || [...table.querySelectorAll("tr")].some(row => !row.querySelector("th"))).length
"""
TINY = """
[...document.querySelectorAll("main *, header *")]
  .filter(item => [...item.childNodes].some(node => node.nodeType === 3 && node.textContent.trim()))
  .filter(item => parseFloat(getComputedStyle(item).fontSize) < 11.9 && !item.closest("svg, .unseen"))
  .map(item => item.outerHTML.slice(0, 80))
"""


@pytest.fixture
def live(filled: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shown]:
    """Show a page that looks for changes all the time."""
    monkeypatch.setattr(page, "REFRESH_SECONDS", 0.2)
    monkeypatch.setattr(board, "FRESH_SECONDS", 0.0)
    with shown(filled) as live:
        yield live


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with chromium(tmp_path_factory.mktemp("chromium")) as tab:
        yield tab


def set_aside(engine: Engine, number: int) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO twm.set_aside (source, stream, object_id, reason) VALUES (:s, 'tasks', :id, 'r')"
            ),
            {"s": "teamwork", "id": str(number)},
        )


def test_everything_is_there_without_scripts(tab, live, tmp_path):
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    tab.use()
    tab.open(live.url)
    tab.call("Emulation.setScriptExecutionDisabled", value=False)
    tab.photograph(tmp_path / "no-scripts.png")

    shown_text = tab.ask("document.body.innerText")

    assert not tab.ask("document.body.classList.contains('scripted')")
    for words in ("8 things need attention", "Request budget", "Set aside", "Receiver and disk", "4711"):
        assert words in shown_text


def test_the_page_updates_itself_and_keeps_what_a_person_opened_and_chose(tab, live, engine):
    tab.use()
    tab.open(live.url)
    tab.ask("document.getElementById('teamwork-checkpoints').open = true")
    tab.ask("document.querySelector('#teamwork-checkpoints summary').focus()")
    tab.ask("document.getElementById('missive').kept = 'the same element'")

    set_aside(engine, 815)
    tab.wait_for("document.body.innerText.includes('815')")

    assert tab.ask("document.getElementById('teamwork-checkpoints').open")
    assert tab.ask("document.activeElement.closest('details')?.id") == "teamwork-checkpoints"
    assert tab.ask("document.getElementById('missive').kept") == "the same element"


def test_a_change_of_the_verdict_is_announced_and_nothing_else_is(tab, live, engine):
    tab.use()
    tab.open(live.url)
    assert tab.ask("document.getElementById('told').textContent") == ""
    set_aside(engine, 816)
    tab.wait_for("document.body.innerText.includes('816')")
    assert tab.ask("document.getElementById('told').textContent") == ""

    with engine.begin() as connection:
        connection.execute(text("UPDATE twm.sources SET last_success_at = now(), last_error = NULL"))
    tab.wait_for("document.getElementById('told').textContent !== ''")

    assert tab.ask("document.getElementById('told').textContent") == "6 things need attention"
    assert tab.ask("document.getElementById('told').getAttribute('role')") == "status"
    assert tab.ask("document.title").startswith("(6) ")


def test_a_page_that_answers_no_more_says_so(tab, filled, monkeypatch):
    monkeypatch.setattr(page, "REFRESH_SECONDS", 0.2)
    tab.use()
    with shown(filled) as live:
        tab.open(live.url)
        tab.wait_for("document.body.classList.contains('scripted')")
    tab.wait_for("document.body.classList.contains('stale')")

    assert "no longer updated" in tab.ask("document.getElementById('told').textContent")


def test_the_browser_has_nothing_to_complain_about(tab, live):
    tab.open("about:blank")
    tab.complaints.clear()
    tab.use()
    tab.open(live.url)
    tab.wait_for("document.body.classList.contains('scripted')")

    assert tab.complaints == []
    assert tab.ask("getComputedStyle(document.querySelector('.card')).borderRadius") == "8px"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out(tab, live, tmp_path, scheme):
    tab.use(scheme=scheme)
    tab.open(live.url)
    tab.photograph(tmp_path / f"{scheme}.png")

    faint: list[Any] = tab.ask(CONTRAST)

    assert faint == []
    ground = tab.ask("getComputedStyle(document.body).backgroundColor")
    assert (max(int(part) for part in ground[4:-1].split(",")) < 128) == (scheme == "dark")


def test_a_phone_shows_all_of_it_without_scrolling_sideways(tab, live, tmp_path):
    tab.use(width=PHONE, height=740)
    tab.open(live.url)
    tab.photograph(tmp_path / "phone.png")

    assert tab.ask("document.documentElement.scrollWidth") == PHONE
    assert tab.ask(TINY) == []


@pytest.mark.parametrize("width", [PHONE, 1280])
def test_plots_are_large_enough_to_be_read_everywhere(tab, live, filled, engine, width):
    task_flow(engine, filled)
    tab.use(width=width, height=740)
    tab.open(live.url)

    assert tab.ask("document.querySelector('.plots img').getBoundingClientRect().width") > 500
    assert tab.ask("document.documentElement.scrollWidth") == width
    assert tab.ask("getComputedStyle(document.querySelector('#insights')).marginTop") == "20px"


def test_it_is_clean_for_a_screen_reader(tab, live):
    tab.use()
    tab.open(live.url)
    levels: list[int] = tab.ask(OUTLINE)

    assert levels[0] == levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert tab.ask(NAMELESS) == []
    assert tab.ask(HEADLESS_CELLS) == 0
    assert tab.ask("document.documentElement.lang") == "en"
    assert [tab.ask(f"document.querySelectorAll('{tag}').length") for tag in ("main", "header", "nav")] == [
        1
    ] * 3
    assert (
        tab.ask('document.querySelectorAll(\'[tabindex]:not([tabindex="0"], [tabindex="-1"])\').length') == 0
    )


def test_a_keyboard_reaches_the_figures_at_once_and_everything_in_order(tab, live):
    tab.use()
    tab.open(live.url)
    tab.press("Tab")
    assert tab.ask("document.activeElement.textContent") == "Skip to the figures"
    assert tab.ask("document.activeElement.getBoundingClientRect().top") >= 0
    assert tab.ask("getComputedStyle(document.activeElement).outlineStyle") == "solid"

    tab.press("Enter")
    tab.wait_for("document.activeElement.id === 'main'")
    tab.press("Tab")

    assert tab.ask("document.activeElement.closest('main') !== null")
    wide = "[...document.querySelectorAll('.scroll')].every(item => item.tabIndex === 0)"
    assert tab.ask(wide)
