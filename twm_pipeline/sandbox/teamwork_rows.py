"""Teamwork's JSON: one function per kind of row."""

from __future__ import annotations

import html
from typing import Any

import orjson

from twm_pipeline.sandbox.options import iso
from twm_pipeline.sandbox.teamwork_account import (
    Activity,
    Company,
    Person,
    Project,
    Tag,
    Task,
    TaskComment,
    TaskList,
    Team,
    TeamworkAccount,
    Timelog,
)

Row = dict[str, Any]
GO_ZERO_DATE = "0001-01-01T00:00:00Z"


def relation(kind: str, row_id: int | None) -> Row | None:
    """Return a relationship, or None."""
    return None if row_id is None else {"id": row_id, "type": kind}


def task_row(task: Task) -> Row:
    """Return a task as lists and single reads show it."""
    assignees = task.assignees
    return {
        "id": task.id,
        "name": task.name,
        "description": task.description,
        "descriptionContentType": "HTML" if task.html else "TEXT",
        "priority": task.priority,
        "progress": task.progress,
        "status": task.status if task.deleted_at is None else "deleted",
        "isPrivate": int(task.private),
        "sequence": None,
        "startDate": task.start,
        "dueDate": task.due,
        "estimateMinutes": task.estimate_minutes,
        "accumulatedEstimatedMinutes": task.estimate_minutes,
        "tasklist": relation("tasklists", task.list_id),
        "tasklistId": task.list_id or 0,
        "parentTask": relation("tasks", task.parent_id),
        "parentTaskId": task.parent_id or 0,
        "subTaskIds": task.children,
        "assignees": None if assignees is None else [relation(kind, key) for kind, key in assignees],
        "assigneeUserIds": None if assignees is None else [key for kind, key in assignees if kind == "users"],
        "tags": None if task.tag_ids is None else [relation("tags", key) for key in task.tag_ids],
        "tagIds": task.tag_ids,
        "attachments": None,
        "workflowStages": [],
        "createdBy": task.created_by,
        "createdAt": iso(task.created_at),
        "updatedBy": task.updated_by,
        "updatedAt": iso(task.updated_at),
        "dateUpdated": iso(task.updated_at),
        "completedBy": task.completed_by,
        "completedAt": iso(task.completed_at),
        "deletedBy": task.deleted_by,
        "deletedAt": iso(task.deleted_at),
    }


def task_bytes(task: Task) -> bytes:
    """Return a task's row serialised, from its cache while it has not changed."""
    if task.row is None:
        task.row = orjson.dumps(task_row(task))
    return task.row


def project_short(project: Project) -> Row:
    """Return a project as a side-load shows it."""
    return {
        "id": project.id,
        "name": project.name,
        "status": project.status if project.deleted_at is None else "deleted",
        "company": relation("companies", project.company_id),
        "companyId": project.company_id,
        "archivedAt": iso(project.archived_at) or GO_ZERO_DATE,
        "createdAt": iso(project.created_at),
        "updatedAt": iso(project.updated_at),
    }


def project_row(project: Project) -> Row:
    """Return a project in full."""
    tag_ids = project.tag_ids
    return project_short(project) | {
        "description": project.description,
        "startAt": iso(project.start_at),
        "endAt": None,
        "category": None,
        "projectOwner": relation("users", project.owner_id),
        "tags": None if tag_ids is None else [relation("tags", key) for key in tag_ids],
        "type": project.type,
        "isBillable": project.billable,
        "lastWorkedOn": iso(project.last_worked_on),
        "createdBy": project.created_by,
        "updatedBy": project.updated_by,
        "completedAt": iso(project.completed_at),
        "completedBy": None,
    }


def list_short(task_list: TaskList) -> Row:
    """Return a task list as a side-load shows it."""
    status = "completed" if task_list.completed else "active"
    return {
        "id": task_list.id,
        "name": task_list.name,
        "project": relation("projects", task_list.project_id),
        "projectId": task_list.project_id,
        "milestone": None,
        "status": status if task_list.deleted_at is None else "deleted",
    }


def list_row(task_list: TaskList) -> Row:
    """Return a task list in full."""
    return list_short(task_list) | {
        "description": task_list.description,
        "createdAt": iso(task_list.created_at),
        "updatedAt": iso(task_list.updated_at),
    }


def person_short(person: Person) -> Row:
    """Return a person as a side-load shows them."""
    return {
        "id": person.id,
        "firstName": person.first_name,
        "lastName": person.last_name,
        "email": person.email,
        "type": person.type,
        "company": relation("companies", person.company_id),
        "deleted": person.deleted,
    }


def me_row(person: Person) -> Row:
    """Return the key's owner."""
    return person_short(person) | {"isAdmin": person.admin}


def person_row(person: Person) -> Row:
    """Return a person in full: without a time zone when deleted, with a rate when an administrator."""
    row = me_row(person) | {
        "title": person.title,
        "createdAt": iso(person.created_at),
        "updatedAt": iso(person.updated_at),
    }
    if not person.deleted:
        row |= {"timezone": "Europe/Berlin", "avatarUrl": None}
    if person.admin:
        row |= {"userRate": 12_000, "userCost": None}
    return row


def tag_row(tag: Tag) -> Row:
    """Return a tag."""
    return {
        "id": tag.id,
        "name": tag.name,
        "color": tag.color,
        "project": relation("projects", tag.project_id),
    }


def company_short(company: Company) -> Row:
    """Return a company as a side-load shows it."""
    return {"id": company.id, "name": company.name}


def company_row(company: Company) -> Row:
    """Return a company in full."""
    return company_short(company) | {
        "status": company.status,
        "website": company.website,
        "createdAt": iso(company.created_at),
        "updatedAt": iso(company.updated_at),
    }


def team_short(team: Team) -> Row:
    """Return a team as a side-load shows it."""
    return {"id": team.id, "name": team.name, "handle": team.handle}


def team_v1_row(team: Team, account: TeamworkAccount) -> Row:
    """Return a team as version 1 shows it: every id a string."""
    members = [account.people[key] for key in team.member_ids]
    return {
        "id": str(team.id),
        "name": team.name,
        "handle": team.handle,
        "description": "",
        "members": [
            {"id": str(item.id), "name": f"{item.first_name} {item.last_name}".strip()}
            for item in members
            if item.visible
        ],
    }


def comment_row(comment: TaskComment, account: TeamworkAccount) -> Row:
    """Return a comment; its dates have other names than a task's."""
    project = account.project_of(account.tasks[comment.task_id])
    markup = comment.html_body
    return {
        "id": comment.id,
        "body": comment.body,
        "htmlBody": f"<p>{html.escape(comment.body, quote=False)}</p>" if markup is None else markup,
        "contentType": "TEXT" if markup is None else "HTML",
        "object": relation("tasks", comment.task_id),
        "project": relation("projects", None if project is None else project.id),
        "postedBy": comment.posted_by,
        "postedDateTime": iso(comment.posted_at),
        "lastEditedBy": comment.edited_by,
        "dateLastEdited": iso(comment.edited_at),
        "deleted": comment.deleted_at is not None,
        "deletedBy": comment.deleted_by,
        "dateDeleted": iso(comment.deleted_at),
    }


def timelog_row(log: Timelog) -> Row:
    """Return a time entry."""
    return {
        "id": log.id,
        "description": log.description,
        "billable": log.billable,
        "minutes": log.minutes,
        "timeLogged": iso(log.logged_at),
        "user": relation("users", log.user_id),
        "userId": log.user_id,
        "task": relation("tasks", log.task_id),
        "taskId": log.task_id,
        "project": relation("projects", log.project_id),
        "projectId": log.project_id,
        "tags": [],
        "loggedBy": log.user_id,
        "createdAt": iso(log.created_at),
        "updatedAt": iso(log.updated_at),
        "updatedBy": log.user_id,
        "deleted": log.deleted_at is not None,
        "deletedAt": iso(log.deleted_at),
        "deletedBy": log.deleted_by,
    }


def activity_row(activity: Activity) -> Row:
    """Return a row of the activity feed."""
    link = f"{activity.item_type}s/{activity.item_id}"
    return {
        "id": activity.id,
        "activityType": activity.kind,
        "latestActivityType": activity.kind,
        "dateTime": iso(activity.at),
        "description": activity.title,
        "extraDescription": activity.list_name,
        "user": relation("users", activity.user_id),
        "forUser": None,
        "project": relation("projects", activity.project_id),
        "company": relation("companies", 200_001),
        "item": relation(activity.item_type, activity.item_id),
        "itemLink": link,
        "link": link,
        "publicInfo": None,
        "dueDate": None,
        "forUserName": None,
    }
