"""What the page has to show: read when it is asked for, and honest about an outage."""

from __future__ import annotations

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from twm_pipeline.db import EmbeddedServer
from twm_pipeline.settings import Settings, load_settings
from twm_pipeline.status.board import FRESH_SECONDS, LEAST_COUNT_SECONDS, Board, Counts
from twm_pipeline_tests.status.pages import Shown, shown


class Clock:
    """Seconds that pass when a test says so, or while something is counted."""

    def __init__(self) -> None:
        self.now = 0.0
        self.each = 0.0

    def __call__(self) -> float:
        self.now += self.each
        return self.now


def add_task(engine: Engine, number: int) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO teamwork.tasks (id, raw, content_hash, observed_seq) VALUES (:id, '{}', '', 1)"
            ),
            {"id": number},
        )


def test_figures_are_read_once_for_everybody_who_asks_at_a_time(filled, engine):
    clock = Clock()
    board = Board(filled, clock=clock)

    first = board.figures()
    assert board.figures() is first
    clock.now += FRESH_SECONDS
    assert board.figures() is not first
    board.close()


def test_rows_are_counted_more_rarely_the_longer_it_takes(settings, engine):
    clock = Clock()
    count = Counts(clock)
    with engine.connect() as connection:

        def tasks() -> int:
            return next(
                int(row["living"])
                for row in count(connection, settings)["tables"]
                if row["table"] == "teamwork.tasks"
            )

        assert tasks() == 0
        add_task(engine, 1)
        clock.now += LEAST_COUNT_SECONDS - 1
        assert tasks() == 0
        clock.now += 1
        clock.each = 2.0  # counting now takes two seconds
        assert tasks() == 1
        add_task(engine, 2)
        clock.each = 0.0
        clock.now += 39
        assert tasks() == 1
        clock.now += 1
        assert tasks() == 2


def test_the_page_cannot_write(filled):
    board = Board(filled)
    board.figures()

    engine = board._engine
    assert engine is not None
    with engine.connect() as connection, pytest.raises(Exception, match="read-only transaction"):
        connection.execute(text("DELETE FROM twm.sources"))
    board.close()


def test_an_outage_of_postgresql_is_shown_and_its_end_too(running: EmbeddedServer, place, filled):
    dsn = running.url("postgres").set(drivername="postgresql").render_as_string(hide_password=False)
    settings = filled.model_copy(update={"pg_dsn": SecretStr(dsn)})
    with shown(settings) as page:
        assert "twm up brings its tables up to date" in words(page)  # a server without the mirror's tables
        running.stop()
        down = words(page, until="PostgreSQL does not answer")
        metrics = page.get("/metrics").text
        running.start()
        words(page, until="twm up brings its tables up to date")

    assert "1 given up" in down
    assert "1 waiting" in down
    assert "Lag" not in down
    assert "twm_database_up 0.0" in metrics
    assert 'twm_spool_entries{place="dead",source="teamwork"} 1.0' in metrics
    assert "twm_rows" not in metrics


def words(page: Shown, *, until: str = "") -> str:
    """Return the page's text, asking again until it has some words."""
    for _ in range(200):
        answer = page.get()
        assert answer.status_code == 200
        text = answer.text.replace("<code>", "").replace("</code>", "")
        if until in text:
            return text
    raise AssertionError(until)


def test_the_page_starts_no_server(tmp_path):
    settings: Settings = load_settings(twm_data_dir=tmp_path / "none")

    board = Board(settings)

    assert "has not been started here" in board.figures()["problem"]
    assert not (tmp_path / "none" / "postgres").exists()


def test_a_wrong_address_is_told_and_not_shown(settings):
    board = Board(settings.model_copy(update={"pg_dsn": SecretStr("mysql://user:hunter2@nowhere")}))

    problem = board.figures()["problem"]

    assert "PG_DSN is no address" in problem
    assert "hunter2" not in problem


def test_the_embedded_server_is_followed_to_another_port(server: EmbeddedServer, settings):
    board = Board(settings)
    first = board._engine_for(server.url("postgres"))

    assert board._engine_for(server.url("postgres")) is first
    assert board._engine_for(server.url("postgres").set(port=1)) is not first
    board.close()
