"""The questions the documentation leaves open, answered on accounts that answer either way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL, Engine

from twm_pipeline.records import SOURCES, Source
from twm_pipeline.sandbox import Sandbox, SandboxControl, SandboxOptions
from twm_pipeline.sync.engine import open_pass
from twm_pipeline.sync.probe import UNKNOWN, probe
from twm_pipeline_tests.faults.world import World, settings_for

MOST_REQUESTS = {"teamwork": 8, "missive": 20}


@pytest.fixture
def world(engine: Engine, database: URL, tmp_path: Path) -> Iterator[World]:
    with Sandbox(SandboxOptions(tasks=12, conversations=30)) as box:
        yield World(SandboxControl(box.url), engine, settings_for(box, database, tmp_path))


def ask(world: World, source: Source) -> dict[str, str]:
    before = world.control.request_count()
    with open_pass(world.engine, world.settings, source, owns_checkpoints=False) as work:
        answers = {item.question: item.answer for item in probe(work)}
    assert world.control.request_count() - before <= MOST_REQUESTS[source] + work.session.traffic.retries
    return answers


def answer(world: World, source: Source, words: str) -> str:
    [found] = [text for question, text in ask(world, source).items() if words in question]
    return found


@pytest.mark.parametrize(
    ("switch", "words", "either"),
    [
        ("teamwork.show_deleted", "showDeleted", {"add": "adds", "replace": "replaces"}),
        ("teamwork.updated_after_inclusive", "updatedAfter", {True: "yes", False: "no"}),
        ("teamwork.max_page_size", "one page", {500: "all there is", 2: "answered 2, and more"}),
    ],
)
def test_teamworks_questions_are_answered_as_the_site_behaves(world, switch, words, either):
    world.control.delete_task(world.ids("task")[0])

    for value, expected in either.items():
        world.control.set_answer(switch, value)
        assert expected in answer(world, "teamwork", words)


@pytest.mark.parametrize(("bumps", "moved"), [(True, 1), (False, 0)])
def test_whether_a_deletion_moves_a_task_is_read_from_deleted_ones(world, bumps, moved):
    for task_id in world.ids("task", lambda row: row["deleted_at"] is not None):
        world.control.restore_task(task_id)
    world.control.set_answer("teamwork.delete_bumps_updated_at", bumps)
    world.control.advance(60)
    world.control.delete_task(world.ids("task")[0])

    assert f"of 1 deleted tasks {moved} have" in answer(world, "teamwork", "deleting")


@pytest.mark.parametrize(
    ("switch", "words", "either"),
    [
        ("missive.until_inclusive", "for conversations", {True: "yes", False: "no"}),
        ("missive.until_inclusive", "for messages", {True: "yes", False: "no"}),
        ("missive.all_includes_trashed", "mailbox all", {True: "trashed: yes", False: "trashed: no"}),
        ("missive.missing_in_multi", "is gone", {"omit": "left out", "404": "404 for all"}),
        ("missive.max_message_ids", "one call return", {10: "fewer than 40", 50: "answered 40"}),
        ("missive.attachment_seconds", "live", {3600: "60 minutes", 300: "5 minutes"}),
    ],
)
def test_missives_questions_are_answered_as_the_account_behaves(world, switch, words, either):
    world.control.trash(world.ids("conversation")[0])
    world.sync("missive")

    for value, expected in either.items():
        world.control.set_answer(switch, value)
        assert expected in answer(world, "missive", words)


def test_an_account_without_anything_answers_what_it_can(engine, database, tmp_path):
    with Sandbox(SandboxOptions(tasks=0, conversations=0)) as box:
        world = World(SandboxControl(box.url), engine, settings_for(box, database, tmp_path))
        answers = [text for source in SOURCES for text in ask(world, source).values()]

    assert sum(UNKNOWN in text for text in answers) >= len(answers) - 3
    assert "404 in the vendor's own JSON" in answers
