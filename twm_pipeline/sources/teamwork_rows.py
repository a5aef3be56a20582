"""Teamwork's JSON as records: which key is which column, and what makes a row unusable."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from twm_pipeline.errors import RecordError
from twm_pipeline.records import (
    Company,
    Json,
    Person,
    Project,
    Record,
    Tag,
    Task,
    TaskComment,
    Tasklist,
    Team,
    TimeEntry,
    digest,
    to_json,
)
from twm_pipeline.sources.fields import (
    read_bool,
    read_calendar_date,
    read_id,
    read_int,
    read_iso,
    read_list,
    read_object,
    read_text,
    to_id,
)

_VOLATILE = frozenset({"avatarUrl", "lastWorkedOn", "lastLogin", "sequence", "included"})


def updated_at(row: Json) -> datetime | None:
    """Return when a row says that it was last updated; v1 has another name for it."""
    return read_iso(row, "updatedAt") or read_iso(row, "dateUpdated")


def posted_at(row: Json) -> datetime | None:
    """Return when a comment's row says that it was written."""
    return read_iso(row, "postedDateTime")


def changed_at(row: Json) -> datetime | None:
    """Return when a time entry or a comment last changed, as far as its row says."""
    names = ("updatedAt", "postedDateTime", "dateLastEdited", "dateDeleted")
    return max(filter(None, (read_iso(row, name) for name in names)), default=None)


def is_deleted(row: Json) -> bool:
    """Return whether a time entry or a comment says itself that it is deleted."""
    return any(row.get(name) for name in ("deleted", "deletedAt", "dateDeleted"))


def _base(row: Json, *, version: datetime | None, date: datetime) -> dict[str, Any]:
    """Return what every record has; a version later than the answer itself is not believed (D4)."""
    row_id = read_id(row, "id")
    if row_id is None:
        msg = "the row has no id"
        raise RecordError(msg)
    return {
        "id": row_id,
        "version_at": version if version is None or version <= date else None,
        "content_hash": digest({key: value for key, value in row.items() if key not in _VOLATILE}),
        "raw": to_json(row),
    }


def _dated(row: Json, *, date: datetime) -> dict[str, Any]:
    """Return what every record has whose row says when it was made and changed: the latter is its version."""
    updated = updated_at(row)
    return {
        **_base(row, version=updated, date=date),
        "created_at": read_iso(row, "createdAt"),
        "updated_at": updated,
    }


def _related_id(row: Json, key: str, plain: str) -> int | None:
    """Return the id of a relation given as `{id, type}`, as a bare id, or both."""
    value = row.get(key)
    if isinstance(value, dict):
        return read_id(value, "id")
    return to_id(value, key) or read_id(row, plain)


def _related_ids(row: Json, key: str, plain: str) -> list[int]:
    ids = [to_id(item.get("id") if isinstance(item, dict) else item, key) for item in read_list(row, key)]
    if not ids:
        ids = [to_id(item, plain) for item in read_list(row, plain)]
    return list(dict.fromkeys(item for item in ids if item is not None))


def _assignees(row: Json) -> list[tuple[int, str]]:
    """Return (id, kind) of people, teams and companies in the vendor's order."""
    pairs = []
    for item in read_list(row, "assignees"):
        if isinstance(item, dict) and (item_id := read_id(item, "id")):
            pairs.append((item_id, str(item.get("type") or "users")))
    pairs += [
        (item_id, kind)
        for key, kind in (
            ("assigneeUserIds", "users"),
            ("assigneeTeamIds", "teams"),
            ("assigneeCompanyIds", "companies"),
        )
        for item_id in _related_ids(row, key, key)
    ]
    return list(dict.fromkeys(pairs))


def parse_task(row: Json, *, date: datetime) -> Task:
    """Return a task.

    Args:
        row: The row of a list or of a single read.
        date: The answer's own clock.

    Raises:
        RecordError: If the row cannot be used; the message names the key.
    """
    deleted_at = read_iso(row, "deletedAt")
    assignees = _assignees(row)
    status = read_text(row, "status")
    return Task(
        **_dated(row, date=date),
        deleted=deleted_at is not None or status == "deleted",
        deleted_at=deleted_at,
        title=read_text(row, "name"),
        description=read_text(row, "description"),
        description_type=read_text(row, "descriptionContentType"),
        status=status,
        priority=read_text(row, "priority") or None,
        progress=read_int(row, "progress"),
        is_private=read_bool(row, "isPrivate"),
        tasklist_id=_related_id(row, "tasklist", "tasklistId"),
        parent_task_id=_related_id(row, "parentTask", "parentTaskId"),
        assignee_ids=[item_id for item_id, _ in assignees],
        assignee_types=[kind for _, kind in assignees],
        tag_ids=_related_ids(row, "tags", "tagIds"),
        start_date=read_calendar_date(row, "startDate"),
        due_date=read_calendar_date(row, "dueDate"),
        estimate_minutes=read_int(row, "estimateMinutes"),
        accumulated_estimate_minutes=read_int(row, "accumulatedEstimatedMinutes"),
        created_by_id=_related_id(row, "createdBy", "createdByUserId"),
        updated_by_id=_related_id(row, "updatedBy", "updatedByUserId"),
        completed_at=read_iso(row, "completedAt"),
        completed_by_id=_related_id(row, "completedBy", "completedByUserId"),
    )


def parse_project(row: Json, *, date: datetime) -> Project:
    """Return a project; see `parse_task`."""
    return Project(
        **_dated(row, date=date),
        deleted=read_text(row, "status") == "deleted",
        name=read_text(row, "name"),
        description=read_text(row, "description"),
        status=read_text(row, "status"),
        type=read_text(row, "type"),
        company_id=_related_id(row, "company", "companyId"),
        owner_id=_related_id(row, "projectOwner", "ownerId"),
        tag_ids=_related_ids(row, "tags", "tagIds"),
        start_at=read_iso(row, "startAt"),
        end_at=read_iso(row, "endAt"),
        completed_at=read_iso(row, "completedAt"),
        archived_at=read_iso(row, "archivedAt"),
    )


def parse_tasklist(row: Json, *, date: datetime) -> Tasklist:
    """Return a task list; see `parse_task`."""
    return Tasklist(
        **_dated(row, date=date),
        deleted=read_text(row, "status") == "deleted",
        name=read_text(row, "name"),
        description=read_text(row, "description"),
        project_id=_related_id(row, "project", "projectId"),
        status=read_text(row, "status"),
    )


def parse_person(row: Json, *, date: datetime) -> Person:
    """Return a person; see `parse_task`."""
    return Person(
        **_dated(row, date=date),
        deleted=bool(read_bool(row, "deleted")),
        first_name=read_text(row, "firstName"),
        last_name=read_text(row, "lastName"),
        email=read_text(row, "email"),
        title=read_text(row, "title"),
        type=read_text(row, "type"),
        company_id=_related_id(row, "company", "companyId"),
    )


def parse_tag(row: Json, *, date: datetime) -> Tag:
    """Return a tag; see `parse_task`."""
    return Tag(
        **_base(row, version=None, date=date),
        name=read_text(row, "name"),
        color=read_text(row, "color"),
        project_id=_related_id(row, "project", "projectId"),
    )


def parse_company(row: Json, *, date: datetime) -> Company:
    """Return a company; see `parse_task`."""
    return Company(
        **_dated(row, date=date),
        deleted=read_text(row, "status") == "deleted",
        name=read_text(row, "name"),
        status=read_text(row, "status"),
        website=read_text(row, "website"),
    )


def parse_team(row: Json, *, date: datetime) -> Team:
    """Return a team; its ids are strings in v1. See `parse_task`."""
    return Team(
        **_base(row, version=None, date=date),
        name=read_text(row, "name"),
        handle=read_text(row, "handle"),
        description=read_text(row, "description"),
        member_ids=_related_ids(row, "members", "memberIds"),
    )


def parse_time_entry(row: Json, *, date: datetime) -> TimeEntry:
    """Return a time entry; see `parse_task`."""
    deleted_at = read_iso(row, "deletedAt")
    return TimeEntry(
        **_dated(row, date=date),
        deleted=deleted_at is not None or bool(read_bool(row, "deleted")),
        deleted_at=deleted_at,
        description=read_text(row, "description"),
        minutes=read_int(row, "minutes"),
        billable=read_bool(row, "billable"),
        logged_at=read_iso(row, "timeLogged"),
        person_id=_related_id(row, "user", "userId"),
        task_id=_related_id(row, "task", "taskId"),
        project_id=_related_id(row, "project", "projectId"),
        tag_ids=_related_ids(row, "tags", "tagIds"),
        logged_by_id=_related_id(row, "loggedBy", "loggedByUserId"),
        updated_by_id=_related_id(row, "updatedBy", "updatedByUserId"),
    )


def parse_task_comment(row: Json, *, date: datetime) -> TaskComment:
    """Return a comment, whose dates have other names than a task's; see `parse_task`."""
    about = read_object(row, "object") or {}
    kind, about_id = read_text(about, "type"), read_id(about, "id")
    edited, deleted_at = read_iso(row, "dateLastEdited"), read_iso(row, "dateDeleted")
    posted = posted_at(row)
    return TaskComment(
        **_base(row, version=edited or posted, date=date),
        deleted=deleted_at is not None or bool(read_bool(row, "deleted")),
        deleted_at=deleted_at,
        body=read_text(row, "body"),
        body_html=read_text(row, "htmlBody"),
        object_type=kind,
        object_id=about_id,
        task_id=about_id if (kind or "").lower().rstrip("s") == "task" else None,
        project_id=_related_id(row, "project", "projectId"),
        author_id=_related_id(row, "postedBy", "userId"),
        created_at=posted,
        updated_at=edited,
        updated_by_id=_related_id(row, "lastEditedBy", "lastEditedByUserId"),
    )


PARSERS: dict[str, Callable[..., Record]] = {
    "tasks": parse_task,
    "projects": parse_project,
    "tasklists": parse_tasklist,
    "people": parse_person,
    "tags": parse_tag,
    "companies": parse_company,
    "teams": parse_team,
    "time_entries": parse_time_entry,
    "task_comments": parse_task_comment,
}
INCLUDED = {
    "projects": "projects",
    "tasklists": "tasklists",
    "users": "people",
    "tags": "tags",
    "companies": "companies",
    "teams": "teams",
}
"""Side-loaded map → stream."""
