"""The status page as a browser gets it, on real figures."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
import requests
from pydantic import SecretStr

from twm_pipeline.errors import ConfigError
from twm_pipeline.mirror.insights import save_plot
from twm_pipeline.settings import load_settings
from twm_pipeline.status.guard import (
    MOST_GUESSERS,
    MOST_WRONG,
    WRONG_SECONDS,
    Attempts,
    require_password,
)
from twm_pipeline.status.page import mark_commands
from twm_pipeline.status.plots import PLOTS
from twm_pipeline_tests.status.conftest import EVIL, SUBJECT
from twm_pipeline_tests.status.pages import shown

PNG = b"\x89PNG\r\n\x1a\n picture"
VOID = {"meta", "link", "br", "input", "img"}


class Outline(HTMLParser):
    """Tags with their attributes, the texts, and whether every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID and not (self.open and self.open.pop() == tag):
            raise AssertionError(f"</{tag}> closes nothing")

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def test_the_page_shows_what_there_is(page):
    text = Outline(page.get().text).text

    for words in (
        "8 things need attention",
        "The last complete pass ended 20 min ago",
        "The receiver does not answer on 127.0.0.1:9",
        "Rows 2",
        "tasks 2 1 0",
        "30 of 150 used, 120 left",
        "1,234 requests so far · 5 answered 429",
        "1 of 2 active",
        "1 waiting",
        "1 given up",
        "rows in 24 h",
        "0 stored (0 B)",
    ):
        assert words in text


def test_a_deployment_that_was_never_read_does_not_look_current(deployment, engine):
    with shown(deployment) as page:
        text = Outline(page.get().text).text

    assert "Everything is current" not in text
    assert text.count("Nothing of it has been read yet") == 2
    assert "twm doctor" in text


def test_a_budget_is_told_as_documented_where_its_clock_runs_faster(filled):
    with shown(filled.model_copy(update={"budget_time_scale": 60.0})) as page:
        text, metrics = Outline(page.get().text).text, page.get("/metrics").text

    assert "Request budget its clock runs 60 times as fast here in 60 s" in text
    assert re.search(r'twm_budget_limit_requests\{[^}]*window_seconds="60"\} 150', metrics)


def test_objects_runs_and_vendors_are_linked(page):
    links = {item["href"] for item in Outline(page.get().text).all("a")}

    assert {
        "http://127.0.0.1:3000",
        "http://127.0.0.1:3000/runs?q[0]=job:teamwork_sync",
        "https://example.teamwork.com",
        "https://example.teamwork.com/app/tasks/4711",
        "https://example.teamwork.com/app/tasks/42",
        "/metrics",
    } <= links


def test_what_a_vendor_says_is_never_markup(page):
    html = page.get().text

    assert "<script>alert" not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 6
    assert EVIL in Outline(html).text


def test_nothing_personal_and_no_secret_is_shown(page):
    for path in ("/", "/fragment", "/metrics"):
        text = page.get(path).text
        for secret in (SUBJECT, "@", "key-of-teamwork", "token-of-missive", "secret.example.com"):
            assert secret not in text.replace("@media", "")


def test_the_page_is_well_formed_and_ids_are_unique(page):
    outline = Outline(page.get().text)
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    named = [item["aria-labelledby"] for _, item in outline.tags if "aria-labelledby" in item]

    assert outline.open == []
    assert len(ids) == len(set(ids))
    assert set(named) <= set(ids)


def test_the_fragment_is_the_main_part_of_the_page(page):
    whole, fragment = page.get().text, page.get("/fragment").text

    def without_the_time(text: str) -> str:
        return re.sub(r"\d\d:\d\d:\d\d|<time datetime=.*?>|\d+ s ago", "", text)

    assert without_the_time(fragment).strip() in without_the_time(whole)


def test_the_browser_is_told_to_load_nothing_from_elsewhere_and_to_run_nothing_inline(page):
    answer = page.get()
    policy = answer.headers["Content-Security-Policy"]

    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert not re.search(r"<style|<script(?! src=\"/static/)|\son\w+=|\sstyle=", answer.text)
    for name in ("status.css", "status.js", "favicon.svg"):
        assert page.get(f"/static/{name}").status_code == 200
        assert "://" not in page.get(f"/static/{name}").text.replace("http://www.w3.org/2000/svg", "")


def test_pictures_of_insights_are_shown_with_words_and_hidden_while_there_are_none(filled, engine):
    with shown(filled) as page:
        without = page.get()
    with engine.begin() as connection:
        save_plot(connection, "task_flow", PNG)
        save_plot(connection, "of_tomorrow", PNG)
    with shown(filled) as page:
        [image] = Outline(page.get().text).all("img")
        picture = page.get(str(image["src"]))
        others = [page.get(f"/plots/{name}.png") for name in ("daily_activity", "of_tomorrow")]

    assert (without.status_code, 'id="insights"' in without.text) == (200, False)
    assert image["alt"] == PLOTS["task_flow"]
    assert (picture.content, picture.headers["Content-Type"]) == (PNG, "image/png")
    assert [answer.status_code for answer in others] == [404, 404]


def test_nothing_can_be_changed(page):
    for path in ("/", "/fragment", "/metrics"):
        assert requests.post(page.url + path, timeout=10).status_code == 405


def test_without_a_password_only_this_machine_s_names_are_answered(page):
    for host in ("evil.example.com", "evil.example.com:5001", "127.0.0.1.evil.com", "::1.com", ""):
        answer = page.get(headers={"Host": host})
        assert answer.status_code in (400, 421)
        assert "tasks" not in answer.text
    for host in ("localhost:5001", "LOCALHOST", "127.0.0.1", "127.8.8.8:1", "[::1]:5001", "[::1]"):
        assert page.get(headers={"Host": host}).status_code == 200


def test_passwords_cannot_be_guessed_at_will(deployment):
    settings = deployment.model_copy(update={"status_password": SecretStr("right")})
    with shown(settings) as page:
        guessed = [page.get("/metrics", auth=("a", f"guess {n}")).status_code for n in range(MOST_WRONG + 1)]
        right = page.get("/metrics", auth=("a", "right"))
        asked_first = page.get("/metrics")

    assert guessed == [401] * MOST_WRONG + [429]
    assert right.status_code == 429
    assert 0 < int(right.headers["Retry-After"]) <= WRONG_SECONDS
    assert asked_first.status_code == 401


def test_whoever_guessed_too_often_waits_a_minute_and_nobody_else_does():
    now = [1000.0]
    attempts = Attempts(clock=lambda: now[0])
    for _ in range(MOST_WRONG):
        assert attempts.wait_seconds("192.0.2.1") == 0
        attempts.note_wrong("192.0.2.1")

    assert attempts.wait_seconds("192.0.2.1") == WRONG_SECONDS
    assert attempts.wait_seconds("192.0.2.2") == 0
    now[0] += WRONG_SECONDS - 1
    assert attempts.wait_seconds("192.0.2.1") == 1
    now[0] += 1
    assert attempts.wait_seconds("192.0.2.1") == 0
    for _ in range(MOST_WRONG):
        attempts.note_wrong("192.0.2.1")
    assert attempts.wait_seconds("192.0.2.1") == WRONG_SECONDS


def test_one_network_of_ipv6_is_one_guesser():
    attempts = Attempts()
    for number in range(MOST_WRONG):
        attempts.note_wrong(f"2001:db8:1:2::{number:x}")

    assert attempts.wait_seconds("2001:db8:1:2:ffff::1") > 0
    assert attempts.wait_seconds("2001:db8:1:3::1") == 0


def test_no_more_guessers_are_remembered_than_fit():
    attempts = Attempts()
    for _ in range(MOST_WRONG):
        attempts.note_wrong("192.0.2.1")

    for number in range(MOST_GUESSERS):
        attempts.note_wrong(f"10.0.{number // 256}.{number % 256}")

    assert len(attempts) == MOST_GUESSERS


def test_with_a_password_everybody_who_knows_it_is_let_in_and_nobody_else(deployment):
    settings = deployment.model_copy(update={"status_password": SecretStr("pässword:with colon")})
    right = ("anyone", "pässword:with colon".encode())
    with shown(settings) as page:
        for path in ("/", "/fragment", "/metrics", "/static/status.css"):
            assert page.get(path).status_code == 401
            assert page.get(path, auth=("anyone", b"wrong")).status_code == 401
            assert page.get(path, auth=right, headers={"Host": "status.example.com"}).status_code == 200
        for header in ("Bearer abc", "Basic", "Basic ????", "Basic OnDDpHNz", ""):
            refused = page.get(headers={"Authorization": header})
            assert refused.status_code == 401
            assert refused.headers["WWW-Authenticate"].startswith("Basic realm=")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "status.example.com"])  # noqa: S104 - refused
def test_others_are_not_shown_the_page_without_a_password(host):
    with pytest.raises(ConfigError, match="STATUS_PASSWORD"):
        require_password(load_settings(status_host=host))
    require_password(load_settings(status_host=host, status_password=SecretStr("s")))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_this_machine_needs_no_password(host):
    require_password(load_settings(status_host=host))


def test_nothing_configured_says_what_to_do(settings):
    with shown(settings) as page:
        text = Outline(page.get().text).text

    assert "Nothing is configured" in text
    assert "twm up --sandbox" in text


def test_commands_in_words_are_marked_and_everything_is_escaped():
    assert mark_commands("`twm queue list` <b> `") == "<code>twm queue list</code> &lt;b&gt; <code></code>"
