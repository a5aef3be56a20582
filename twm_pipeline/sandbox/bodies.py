"""What Teamwork's webhooks carry: version 2 as JSON or as a form, and the form of version 1."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any
from urllib.parse import urlencode

import orjson

from twm_pipeline.sandbox.hooks import FORM_TYPE, JSON_TYPE, Hook
from twm_pipeline.sandbox.options import iso
from twm_pipeline.sandbox.teamwork_account import (
    Project,
    Task,
    TaskComment,
    TaskList,
    TeamworkAccount,
    Timelog,
)

Row = dict[str, Any]
Item = Task | TaskList | Project | TaskComment | Timelog
ACCOUNT_ID = 100_001
OBJECTS = {"TASK": "task", "TASKLIST": "taskList", "PROJECT": "project", "COMMENT": "comment", "TIME": "time"}
HOUR = 3600
# What forms were seen to carry; of other objects everything that is not nested.
FORM_KEYS = {
    "eventCreator": ("id", "firstName", "lastName"),
    "task": ("id", "name", "status", "projectId", "taskListId", "dateCreated", "dateUpdated"),
    "taskList": ("id", "name"),
    "project": ("id", "name"),
}


def project_of(account: TeamworkAccount, item: Item) -> Project | None:
    """Return the project something lies in."""
    if isinstance(item, Project):
        return item
    if isinstance(item, TaskComment):
        item = account.tasks[item.task_id]
    return account.project_of(item) if isinstance(item, Task) else account.projects[item.project_id]


def event_content(account: TeamworkAccount, event: str, item: Item, *, deletion_id: str) -> Row:
    """Return what version 2 says of an event; of something deleted, *deletion_id* names its only key."""
    kind, _, action = event.partition(".")
    creator = {"eventCreator": creator_row(account)}
    if action == "DELETED":
        return (
            creator | {OBJECTS[kind]: {"id": item.id}}
            if deletion_id == "object.id"
            else {deletion_id: item.id} | creator
        )
    if isinstance(item, Task):
        return creator | task_content(account, item, created=action == "CREATED")
    if isinstance(item, TaskList):
        return creator | {"milestone": None, "taskList": list_row(item)}
    if isinstance(item, Project):
        return creator | {"project": project_row(account, item)}
    if isinstance(item, TaskComment):
        return creator | {"comment": comment_row(account, item)}
    return creator | {"time": time_row(item)}


def creator_row(account: TeamworkAccount) -> Row:
    """Return who did it: the key's owner does everything here."""
    me = account.people[account.me_id]
    avatar = f"https://files.example.com/avatars/{me.id}.png"
    return {"id": me.id, "firstName": me.first_name, "lastName": me.last_name, "avatar": avatar}


def task_content(account: TeamworkAccount, task: Task, *, created: bool) -> Row:
    """Return a task with its project and list, and who is assigned when it is new."""
    project = account.project_of(task)
    task_list = account.lists.get(task.list_id) if task.list_id is not None else None
    assigned = [key for kind, key in task.assignees or () if kind == "users"]
    content: Row = {
        "project": None if project is None else project_row(account, project),
        "task": {
            "id": task.id,
            "name": task.name,
            "description": task.description,
            "status": task.status,
            "priority": task.priority,
            "progress": task.progress,
            "startDate": task.start and task.start[:10],
            "dueDate": task.due and task.due[:10],
            "parentId": task.parent_id or 0,
            "taskListId": task.list_id or 0,
            "projectId": 0 if project is None else project.id,
            "assignedUserIds": assigned,
            "creatorId": task.created_by,
            "tags": tag_rows(account, task.tag_ids),
            "dateCreated": iso(task.created_at),
            "dateUpdated": iso(task.updated_at),
            "hasCustomFields": False,
        },
        "taskList": None if task_list is None else list_row(task_list),
    }
    people = [account.people[key] for key in assigned]
    users = [{"id": item.id, "firstName": item.first_name, "lastName": item.last_name} for item in people]
    return content | {"users": users} if created else content


def tag_rows(account: TeamworkAccount, ids: list[int] | None) -> list[Row]:
    """Return tags, in full where lists of version 3 have only their ids."""
    tags = [account.tags[key] for key in ids or () if key in account.tags]
    return [{"id": tag.id, "name": tag.name, "color": tag.color} for tag in tags]


def list_row(task_list: TaskList) -> Row:
    """Return a task list."""
    return {
        "id": task_list.id,
        "name": task_list.name,
        "description": task_list.description,
        "status": "completed" if task_list.completed else "new",
        "milestoneId": 0,
        "projectId": task_list.project_id,
        "templateId": 0,
        "tags": [],
    }


def project_row(account: TeamworkAccount, project: Project) -> Row:
    """Return a project."""
    return {
        "id": project.id,
        "name": project.name,
        "description": project.description,
        "status": project.status if project.archived_at is None else "archived",
        "startDate": (iso(project.start_at) or "")[:10] or None,
        "endDate": None,
        "tags": tag_rows(account, project.tag_ids),
        "ownerId": project.owner_id or 0,
        "companyId": project.company_id,
        "categoryId": 0,
        "dateCreated": iso(project.created_at),
    }


def comment_row(account: TeamworkAccount, comment: TaskComment) -> Row:
    """Return a comment."""
    project = project_of(account, comment)
    return {
        "id": comment.id,
        "body": comment.body,
        "objectType": "task",
        "objectId": comment.task_id,
        "userId": comment.posted_by,
        "projectId": 0 if project is None else project.id,
        "dateCreated": iso(comment.posted_at),
    }


def time_row(log: Timelog) -> Row:
    """Return a time entry."""
    return {
        "id": log.id,
        "hours": log.minutes // 60,
        "minutes": log.minutes % 60,
        "date": iso(log.logged_at),
        "dateUserPerspective": iso(log.logged_at + HOUR),
        "userId": log.user_id,
        "description": log.description,
        "billable": log.billable,
        "invoiceId": 0,
        "taskId": log.task_id,
        "projectId": log.project_id,
        "tags": [],
        "dateCreated": iso(log.created_at),
        "dateUpdated": iso(log.updated_at),
    }


def encode(hook: Hook, content: Row, *, event: str, object_id: int) -> tuple[dict[str, str], bytes]:
    """Return headers and body as a hook's version, content type and token want them."""
    if hook.version == "1":
        content_type, body = FORM_TYPE, urlencode(legacy_fields(content, event=event, object_id=object_id))
    elif hook.content_type == JSON_TYPE:
        content_type, body = JSON_TYPE, orjson.dumps(content).decode()
    else:
        content_type, body = FORM_TYPE, urlencode(flat_fields(content))
    raw = body.encode()
    headers = {"Content-Type": content_type}
    if hook.secret:
        headers["X-Projects-Signature"] = hmac.new(hook.secret.encode(), raw, hashlib.sha256).hexdigest()
    return headers, raw


def legacy_fields(content: Row, *, event: str, object_id: int) -> Row:
    """Return what version 1 says: ids, and the project where there is one."""
    creator = content["eventCreator"]["id"]
    fields = {"accountId": ACCOUNT_ID, "event": event, "objectId": object_id, "userId": creator}
    project = content.get("project") or {}
    return fields | ({"projectId": project["id"]} if project else {})


def flat_fields(content: Row) -> Row:
    """Return version 2 flattened, under dotted names in Pascal case; who did it comes first."""
    fields: Row = {}
    for name in sorted(content, key=lambda key: key != "eventCreator"):
        value = content[name]
        if isinstance(value, dict):
            inner = {key: value[key] for key in FORM_KEYS.get(name, value)}
            fields |= {f"{pascal(name)}.{pascal(key)}": form_value(item) for key, item in inner.items()}
        elif name in ("id", "ID"):
            fields["ID"] = form_value(value)
    return {name: value for name, value in fields.items() if value is not None}


def pascal(name: str) -> str:
    """Return a name as forms spell it: `taskListId` is `TaskListID`."""
    name = name[0].upper() + name[1:]
    return f"{name[:-2]}ID" if name.endswith("Id") else name


def form_value(value: object) -> str | None:
    """Return a value as a form has it; None for what a form cannot hold."""
    if isinstance(value, bool):
        return str(value).lower()
    return None if value is None or isinstance(value, list | dict) else str(value)
