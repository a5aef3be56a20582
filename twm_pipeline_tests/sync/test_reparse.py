from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from twm_pipeline import records
from twm_pipeline.mirror.tables import COMMENTS, CONVERSATIONS, EMAILS, TABLES, TASKS
from twm_pipeline.sync.reparse import BATCH_ROWS, reparse_table
from twm_pipeline_tests.sync.accounts import Account

BOOKS = "id, observed_seq, deleted, deleted_at, deleted_evidence, missing_since, inaccessible, version_at"


@pytest.fixture
def filled(account: Account) -> Account:
    account.sync("teamwork")
    account.sync("missive")
    return account


def run(account: Account, statement: str, **values: Any) -> None:
    with account.engine.begin() as connection:
        connection.execute(text(statement), values)


def everything(account: Account, name: str) -> list[Any]:
    return account.query(f"SELECT to_jsonb(t) AS row FROM {name} t ORDER BY id")


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_what_the_parsers_have_written_is_not_written_again(filled, table):
    before = everything(filled, table.name)

    result = reparse_table(filled.engine, table)

    assert result.read == len(before) > 0
    assert (result.rewritten, result.unusable) == (0, 0)
    assert everything(filled, table.name) == before


def test_a_column_that_was_empty_is_filled_and_nothing_else_moves(filled):
    requests = filled.control.request_count()
    books = filled.query(f"SELECT {BOOKS} FROM teamwork.tasks ORDER BY id")
    titles = filled.query("SELECT id, title FROM teamwork.tasks ORDER BY id")
    run(filled, "UPDATE teamwork.tasks SET title = NULL")

    first = reparse_table(filled.engine, TASKS)
    second = reparse_table(filled.engine, TASKS)

    assert first.rewritten == len(titles)
    assert second.rewritten == 0
    assert filled.query("SELECT id, title FROM teamwork.tasks ORDER BY id") == titles
    assert filled.query(f"SELECT {BOOKS} FROM teamwork.tasks ORDER BY id") == books
    assert filled.control.request_count() == requests


def test_after_a_newer_parser_the_next_pass_writes_nothing(filled, monkeypatch):
    monkeypatch.setattr(records, "PARSER_VERSION", records.PARSER_VERSION + 1)

    results = [reparse_table(filled.engine, table) for table in TABLES]
    reports = [filled.sync("teamwork", full=True), filled.sync("missive", full=True)]

    assert all(result.rewritten == result.read for result in results)
    written = {stream: item.written for report in reports for stream, item in report.streams.items()}
    assert set(written.values()) == {0}


def test_a_tombstone_stays_one(filled):
    run(filled, "UPDATE teamwork.tasks SET deleted = true, deleted_at = now(), deleted_evidence = 'absence'")

    reparse_table(filled.engine, TASKS)

    assert filled.scalar("SELECT count(*) FROM teamwork.tasks WHERE NOT deleted") == 0


@pytest.mark.parametrize("table", [EMAILS, COMMENTS], ids=lambda table: table.name)
def test_what_a_merge_has_moved_stays_where_it_is(filled, table):
    run(filled, f"UPDATE {table.name} SET conversation_id = 'elsewhere'")

    reparse_table(filled.engine, table)

    assert filled.query(f"SELECT DISTINCT conversation_id FROM {table.name}") == [("elsewhere",)]


def test_a_row_that_no_parser_can_use_is_counted_and_left_alone(filled):
    run(filled, "UPDATE missive.conversations SET raw = jsonb_set(raw, '{created_at}', '\"soon\"')")
    before = everything(filled, CONVERSATIONS.name)

    result = reparse_table(filled.engine, CONVERSATIONS)

    assert result.unusable == result.read == len(before)
    assert everything(filled, CONVERSATIONS.name) == before


def test_more_rows_than_a_batch_are_all_read(open_account: Callable[..., Account]):
    account = open_account(tasks=BATCH_ROWS + 200, conversations=5)
    account.sync("teamwork")
    run(account, "UPDATE teamwork.tasks SET status = 'unknown'")

    result = reparse_table(account.engine, TASKS)

    assert (
        result.read == result.rewritten == account.scalar("SELECT count(*) FROM teamwork.tasks") > BATCH_ROWS
    )
