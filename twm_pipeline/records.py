"""Typed, vendor-neutral rows: what a source hands over and the mirror stores.

Every field of a record is a column of its table under the same name (`mirror/tables.py`). Instants are aware
and in UTC; calendar dates are dates. Ids are the vendor's own.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import orjson

from twm_pipeline.errors import RecordError

if TYPE_CHECKING:
    from datetime import date, datetime

Source = Literal["teamwork", "missive"]
Origin = Source | Literal["airtable"]
"""What has a budget, a window and records set aside of its own: a vendor, or the base published to."""
Json = dict[str, Any]

SOURCES: tuple[Source, ...] = ("teamwork", "missive")
WITHOUT_ID = "without-id-"
"""Begins the name under which a vendor's row without a usable id is set aside."""
HASH_BYTES = 16
PARSER_VERSION = 1
"""Raised whenever a parser fills a column differently; part of every hash, so all rows are written again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """What a delivery says: that something of an object changed. The object itself is read again.

    Args:
        event: The vendor's name for it, such as `TASK.DELETED` or `incoming_email`; empty if it said none.
        stream: Such as `tasks` or `conversations`; None where no single object is meant.
        object_id: The vendor's id of the object; None: look for what changed.
    """

    event: str
    stream: str | None = None
    object_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What every row has.

    Args:
        id: The vendor's id.
        version_at: The vendor's own version of the row, or None where it has none or one that cannot be
            believed (later than the answer's `Date`): then only the order of observation counts (D4).
        content_hash: Digest of the canonical vendor JSON without volatile keys.
        raw: The vendor's JSON, serialised.
        deleted: Whether the vendor itself calls the row deleted.
        deleted_at: When, as far as the vendor says.
    """

    id: int | str
    version_at: datetime | None
    content_hash: bytes
    raw: str
    deleted: bool = False
    deleted_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task(Record):
    """A Teamwork task; its project is found through its task list."""

    title: str | None
    description: str | None
    description_type: str | None
    status: str | None
    priority: str | None
    progress: int | None
    is_private: bool | None
    tasklist_id: int | None
    parent_task_id: int | None
    assignee_ids: list[int]
    assignee_types: list[str]
    tag_ids: list[int]
    start_date: date | None
    due_date: date | None
    estimate_minutes: int | None
    accumulated_estimate_minutes: int | None
    created_at: datetime | None
    created_by_id: int | None
    updated_at: datetime | None
    updated_by_id: int | None
    completed_at: datetime | None
    completed_by_id: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Project(Record):
    """A Teamwork project; archived is separate from its status."""

    name: str | None
    description: str | None
    status: str | None
    type: str | None
    company_id: int | None
    owner_id: int | None
    tag_ids: list[int]
    start_at: datetime | None
    end_at: datetime | None
    created_at: datetime | None
    updated_at: datetime | None
    completed_at: datetime | None
    archived_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tasklist(Record):
    """A Teamwork task list."""

    name: str | None
    description: str | None
    project_id: int | None
    status: str | None
    created_at: datetime | None
    updated_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Person(Record):
    """A Teamwork user, collaborator or contact."""

    first_name: str | None
    last_name: str | None
    email: str | None
    title: str | None
    type: str | None
    company_id: int | None
    created_at: datetime | None
    updated_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag(Record):
    """A Teamwork tag, of the site or of one project."""

    name: str | None
    color: str | None
    project_id: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Company(Record):
    """A Teamwork company."""

    name: str | None
    status: str | None
    website: str | None
    created_at: datetime | None
    updated_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Team(Record):
    """A Teamwork team."""

    name: str | None
    handle: str | None
    description: str | None
    member_ids: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeEntry(Record):
    """Time that somebody logged in Teamwork, on a task or on a project alone.

    `logged_at` is the work's own moment in UTC, whose day may be another one than the person's.
    """

    description: str | None
    minutes: int | None
    billable: bool | None
    logged_at: datetime | None
    person_id: int | None
    task_id: int | None
    project_id: int | None
    tag_ids: list[int]
    logged_by_id: int | None
    created_at: datetime | None
    updated_at: datetime | None
    updated_by_id: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskComment(Record):
    """A Teamwork comment; `task_id` is None where it was written about something else than a task."""

    body: str | None
    body_html: str | None
    object_type: str | None
    object_id: int | None
    task_id: int | None
    project_id: int | None
    author_id: int | None
    created_at: datetime | None
    updated_at: datetime | None
    updated_by_id: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation(Record):
    """A Missive conversation as the token's owner sees it; a guest sees only `last_activity_at`."""

    subject: str | None
    latest_message_subject: str | None
    organization_id: str | None
    organization_name: str | None
    team_id: str | None
    team_name: str | None
    assignee_ids: list[str]
    assignee_names: list[str]
    label_ids: list[str]
    label_names: list[str]
    closed: bool | None
    archived: bool | None
    trashed: bool | None
    junked: bool | None
    flagged: bool | None
    snoozed: bool | None
    messages_count: int | None
    drafts_count: int | None
    attachments_count: int | None
    web_url: str | None
    app_url: str | None
    created_at: datetime | None
    last_activity_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Email(Record):
    """A Missive message of any channel, or a draft of one.

    `stub_hash` is the digest of its row in the conversation's list.
    """

    conversation_id: str | None
    type: str | None
    subject: str | None
    preview: str | None
    email_message_id: str | None
    in_reply_to: list[str]
    references: list[str]
    from_address: str | None
    from_name: str | None
    to_addresses: list[str]
    to_names: list[str]
    cc_addresses: list[str]
    cc_names: list[str]
    bcc_addresses: list[str]
    bcc_names: list[str]
    reply_to_addresses: list[str]
    author_id: str | None
    author_name: str | None
    body_html: str | None
    body_text: str | None
    attachments: str
    delivered_at: datetime | None
    created_at: datetime | None
    updated_at: datetime | None
    stub_hash: bytes | None
    draft: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Comment(Record):
    """A Missive comment; it has no version of its own."""

    conversation_id: str | None
    body: str | None
    author_id: str | None
    author_name: str | None
    author_email: str | None
    mentions: str
    attachment: str | None
    task: str | None
    created_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedLabel(Record):
    """A Missive label; `full_name` begins with the names of its parents."""

    name: str | None
    full_name: str | None
    parent_id: str | None
    color: str | None
    organization_id: str | None
    visibility: str | None
    shared_with_organization: bool | None
    shared_with_team_id: str | None
    shared_with_user_ids: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class MissiveUser(Record):
    """A Missive user that the token's owner works with; `is_me` is the owner."""

    name: str | None
    email: str | None
    is_me: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MissiveTeam(Record):
    """A Missive team."""

    name: str | None
    organization_id: str | None


def digest(value: Json, *, salt: str = "") -> bytes:
    """Return a 16-byte digest of *value* that does not depend on the order of its keys.

    Raises:
        RecordError: If *value* is nested deeper than 250 levels or holds an integer beyond 64 bits.
    """
    data = _dump(value, orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(data, digest_size=HASH_BYTES, key=f"{PARSER_VERSION}{salt}".encode()).digest()


def to_json(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """Return *value* as compact JSON text."""
    return _dump(value).decode()


def _dump(value: Any, option: int | None = None) -> bytes:  # noqa: ANN401 - any JSON value
    try:
        return orjson.dumps(value, option=option)
    except TypeError as error:
        msg = "the row cannot be stored as JSON: nested too deep, or a number too large"
        raise RecordError(msg) from error
