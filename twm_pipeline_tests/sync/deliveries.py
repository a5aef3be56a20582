"""Deliveries as the receiver would have accepted them, and what became of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from twm_pipeline.records import Hint, Source
from twm_pipeline.spool import Envelope
from twm_pipeline.sync.drain import Drain, spool_of
from twm_pipeline_tests.sync.accounts import Account


def deliver(account: Account, source: Source, *hints: Hint) -> list[str]:
    """Spool deliveries as the receiver does."""
    envelopes = [
        Envelope(source=source, hint=hint, received_at=datetime.now(UTC), headers={}, body=b"{}")
        for hint in hints
    ]
    return spool_of(account.settings, source).put(envelopes)


def task_event(task_id: Any, event: str = "TASK.UPDATED") -> Hint:
    return Hint(event=event, stream="tasks", object_id=str(task_id))


def mail_event(conversation_id: str, event: str = "incoming_email") -> Hint:
    return Hint(event=event, stream="conversations", object_id=conversation_id)


def drain(account: Account, source: Source) -> Drain:
    made = Drain(account.engine, account.settings, source)
    made.run_once()
    return made


def nothing_waits(account: Account, source: Source) -> bool:
    waiting = spool_of(account.settings, source).waiting()
    return (waiting.count, waiting.later, waiting.dead) == (0, 0, 0)


def row(account: Account, task_id: int) -> Any:
    return account.query("SELECT * FROM teamwork.tasks WHERE id = :id", id=task_id)[0]
