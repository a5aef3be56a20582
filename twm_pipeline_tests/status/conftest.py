"""A mirror with something to show, and its page."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from twm_pipeline.mirror.tables import EMAILS, TASKS
from twm_pipeline.mirror.tombstones import tombstone
from twm_pipeline.mirror.upserts import upsert
from twm_pipeline.records import Hint
from twm_pipeline.settings import Settings
from twm_pipeline.sources.teamwork import budget_plan
from twm_pipeline.spool import Envelope
from twm_pipeline.sync.drain import spool_of
from twm_pipeline_tests.factories import MORNING, make_email, make_task, seen
from twm_pipeline_tests.status.pages import Shown, shown

SUBJECT = "Invoice of Anna"
EVIL = "<script>alert(1)</script> & 'quoted'"


@pytest.fixture
def deployment(settings: Settings) -> Settings:
    """Return the settings of a deployment with both vendors, whose receiver does not run."""
    return settings.model_copy(
        update={
            "teamwork_base_url": "https://example.teamwork.com",
            "teamwork_api_key": SecretStr("key-of-teamwork"),
            "missive_api_token": SecretStr("token-of-missive"),
            "public_url": "https://sync.example.com",
            "dagster_ui_url": "http://127.0.0.1:3000",
            "app_port": 9,
        }
    )


@pytest.fixture
def filled(engine: Engine, deployment: Settings) -> Settings:
    """Fill the mirror and the spool with a bit of everything, some of it faulty."""
    with engine.begin() as connection:
        upsert(connection, TASKS, [seen(make_task(id=number, title=SUBJECT), 10) for number in (1, 2, 3)])
        tombstone(connection, TASKS, [3], seq=11, at=MORNING, evidence="event")
        upsert(connection, EMAILS, [seen(make_email(id="m1", subject=SUBJECT), 12)])
        for statement in ROWS:
            connection.execute(text(statement), {"evil": EVIL, "account": budget_plan(deployment).account})
    spool = spool_of(deployment, "teamwork")
    hint = Hint(event="TASK.UPDATED", stream="tasks", object_id="42")
    envelope = Envelope(
        source="teamwork", hint=hint, received_at=datetime.now(UTC), headers={}, body=SUBJECT.encode()
    )
    spool.put([envelope, envelope])
    [entry] = spool.claim(limit=1)
    spool.fail(entry, EVIL, most_attempts=1, first_wait_seconds=1)
    return deployment


@pytest.fixture
def page(filled: Settings) -> Iterator[Shown]:
    with shown(filled) as page:
        yield page


ROWS = (
    "INSERT INTO twm.sources (source, account, first_import_at, last_success_at, link_base, last_error,"
    " last_error_at) VALUES ('teamwork', 'https://example.teamwork.com', now(),"
    " now() - interval '20 minutes', 'https://example.teamwork.com', :evil, now())",
    "INSERT INTO twm.checkpoints (source, stream, feed, last_event_time)"
    " VALUES ('teamwork', 'tasks', '', now()), ('teamwork', 'tasks', 'deleted', NULL)",
    "INSERT INTO twm.set_aside (source, stream, object_id, reason)"
    " VALUES ('teamwork', 'tasks', '4711', :evil), ('missive', 'emails', 'without-id-1', :evil)",
    "INSERT INTO twm.hooks (source, hook_id, event, url, status, problem)"
    " VALUES ('teamwork', '1', 'TASK.CREATED', 'https://secret.example.com', 'active', NULL),"
    " ('teamwork', '2', 'TASK.UPDATED', 'https://secret.example.com', 'refused', :evil)",
    "INSERT INTO twm.budgets (account, requests, throttled) VALUES (:account, 1234, 5)",
    "INSERT INTO twm.budget_requests (seq, account, sent_at) SELECT n, :account, now()"
    " FROM generate_series(1, 30) AS n",
)
