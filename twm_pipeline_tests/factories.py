"""Valid records with every field overridable, as a vendor's parser would hand them over."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, TypeVar

from twm_pipeline.mirror.upserts import Observed
from twm_pipeline.records import (
    Comment,
    Company,
    Conversation,
    Email,
    Hint,
    MissiveTeam,
    MissiveUser,
    Person,
    Project,
    Record,
    SharedLabel,
    Tag,
    Task,
    TaskComment,
    Tasklist,
    Team,
    TimeEntry,
    digest,
    to_json,
)
from twm_pipeline.spool import Envelope

R = TypeVar("R", bound=Record)

MORNING = datetime(2025, 3, 4, 9, 0, tzinfo=UTC)
_LISTS = frozenset(
    {
        "assignee_ids",
        "assignee_types",
        "assignee_names",
        "tag_ids",
        "member_ids",
        "label_ids",
        "label_names",
        "in_reply_to",
        "references",
        "to_addresses",
        "to_names",
        "cc_addresses",
        "cc_names",
        "bcc_addresses",
        "bcc_names",
        "reply_to_addresses",
        "shared_with_user_ids",
    }
)
_OF_EVERY_RECORD = {"version_at": None, "deleted": False, "deleted_at": None}


def _make(kind: type[R], values: dict[str, Any]) -> R:
    """Return a record whose hash and raw JSON follow from its other fields unless they are given."""
    complete: dict[str, Any] = {}
    for field in fields(kind):
        complete[field.name] = values.get(field.name, [] if field.name in _LISTS else None)
    complete |= {name: values.get(name, "[]") for name in ("attachments", "mentions") if name in complete}
    for name, value in _OF_EVERY_RECORD.items():
        complete[name] = values.get(name, value)
    content = {key: repr(value) for key, value in complete.items() if key not in ("content_hash", "raw")}
    complete["content_hash"] = values.get("content_hash") or digest(content)
    complete["raw"] = values.get("raw") or to_json({"id": complete["id"]})
    return kind(**complete)


def make_task(**values: Any) -> Task:
    defaults = {"id": 1, "title": "Pour the floor", "status": "new", "tasklist_id": 701, "progress": 0}
    return _make(Task, defaults | values)


def make_project(**values: Any) -> Project:
    return _make(Project, {"id": 501, "name": "Quay", "status": "active", "company_id": 201} | values)


def make_tasklist(**values: Any) -> Tasklist:
    return _make(Tasklist, {"id": 701, "name": "Engineering", "project_id": 501} | values)


def make_person(**values: Any) -> Person:
    defaults = {"id": 301, "first_name": "Mara", "last_name": "Holt", "email": "mara@example.com"}
    return _make(Person, defaults | values)


def make_tag(**values: Any) -> Tag:
    return _make(Tag, {"id": 901, "name": "urgent"} | values)


def make_company(**values: Any) -> Company:
    return _make(Company, {"id": 201, "name": "Harbour GmbH", "status": "active"} | values)


def make_team(**values: Any) -> Team:
    return _make(Team, {"id": 401, "name": "Statics"} | values)


def make_conversation(**values: Any) -> Conversation:
    return _make(Conversation, {"id": "c1", "subject": "Offer", "last_activity_at": MORNING} | values)


def make_email(**values: Any) -> Email:
    defaults = {
        "id": "m1",
        "conversation_id": "c1",
        "type": "email",
        "subject": "Offer",
        "from_address": "clara@example.com",
        "delivered_at": MORNING,
        "draft": False,
    }
    return _make(Email, defaults | values)


def make_comment(**values: Any) -> Comment:
    return _make(Comment, {"id": "k1", "conversation_id": "c1", "body": "Call them"} | values)


def make_time_entry(**values: Any) -> TimeEntry:
    return _make(TimeEntry, {"id": 801, "minutes": 30, "task_id": 1, "person_id": 301} | values)


def make_task_comment(**values: Any) -> TaskComment:
    return _make(
        TaskComment, {"id": 601, "body": "Done by noon", "object_type": "tasks", "task_id": 1} | values
    )


def make_shared_label(**values: Any) -> SharedLabel:
    return _make(SharedLabel, {"id": "l1", "name": "Customer"} | values)


def make_missive_user(**values: Any) -> MissiveUser:
    return _make(MissiveUser, {"id": "u1", "name": "Mara Holt"} | values)


def make_missive_team(**values: Any) -> MissiveTeam:
    return _make(MissiveTeam, {"id": "t1", "name": "Support"} | values)


def seen(record: Record, seq: int) -> Observed:
    """Return *record* as the request with number *seq* saw it."""
    return Observed(record=record, seq=seq)


def make_envelope(**values: Any) -> Envelope:
    defaults: dict[str, Any] = {
        "source": "teamwork",
        "hint": Hint(event="TASK.UPDATED", stream="tasks", object_id="1"),
        "received_at": MORNING,
        "headers": {},
        "body": b'{"task": {"id": 1}}',
    }
    return Envelope(**(defaults | values))
