"""Compare the mirror with what the sandbox says of its own accounts.

Imports neither product nor sandbox: takes the sandbox's truth as JSON rows and reads the mirror by SQL. Meant
for a mirror that had its chance: a clean pass, a reconcile, and the second look that a deletion needs.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
from psycopg.rows import dict_row

Row = dict[str, Any]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SURROGATE = re.compile("[\ud800-\udfff]")
FLAGS = ("closed", "archived", "trashed", "junked", "flagged", "snoozed")


def clean(value: Any) -> Any:
    """Return JSON as PostgreSQL can hold it."""
    if isinstance(value, str):
        return SURROGATE.sub("\N{REPLACEMENT CHARACTER}", value.replace("\x00", ""))
    if isinstance(value, list):
        return [clean(item) for item in value]
    if isinstance(value, dict):
        return {clean(key): clean(item) for key, item in value.items()}
    return value


def moment(seconds: int | None) -> datetime | None:
    """Return Unix seconds as an instant."""
    return None if seconds is None else EPOCH + timedelta(seconds=seconds)


def day(text: str | None) -> date | None:
    """Return the calendar date of a date or a date-time."""
    return None if not text else date.fromisoformat(text[:10])


class Comparison:
    """The truth beside the mirror; `problems` names what differs by kind, field and id."""

    def __init__(self, truth: Iterable[Row], connection: psycopg.Connection[Row]) -> None:
        self.truth: dict[str, dict[Any, Row]] = defaultdict(dict)
        for row in truth:
            self.truth[row["kind"]][row["id"]] = clean(row)
        self.connection = connection
        self.problems: list[str] = []

    def run(self, sources: Iterable[str]) -> list[str]:
        """Return every difference of these sources, sorted."""
        if "teamwork" in sources:
            self._directories()
            self._tasks()
            self._time_entries()
            self._task_comments()
        if "missive" in sources:
            self._missive_directories()
            self._conversations()
            self._messages()
            self._comments()
        for row in self.rows("twm.set_aside", key="object_id").values():
            if row["source"] in sources:
                self.problems.append(f"{row['stream']} {row['object_id']}: set aside")
        return sorted(self.problems)

    def rows(self, table: str, *, key: str = "id") -> dict[Any, Row]:
        """Return all rows of a table or view."""
        return {row[key]: row for row in self.connection.execute(f"SELECT * FROM {table}")}

    def check(self, kind: str, key: Any, expected: Row, found: Row | None) -> None:
        """Compare one row that must be living."""
        if found is None:
            self.problems.append(f"{kind} {key}: missing")
            return
        for name, value in expected.items():
            if found[name] != value:
                self.problems.append(f"{kind} {key}: {name} differs")

    def check_gone(self, kind: str, found: dict[Any, Row], living: set[Any]) -> None:
        """Require that whatever is not living in truth is not shown as living."""
        for key, row in found.items():
            if key not in living and not row["deleted"] and not row["inaccessible"]:
                self.problems.append(f"{kind} {key}: shown as living")

    # Teamwork.

    def _is_readable(self, project: Row | None) -> bool:
        return project is not None and project["accessible"] and project["deleted_at"] is None

    def _directories(self) -> None:
        projects = self.truth["project"]
        expected: dict[str, dict[int, Row]] = {
            "projects": {
                key: {
                    "name": row["name"],
                    "company_id": row["company_id"],
                    "archived_at": moment(row["archived_at"]),
                    "updated_at": moment(row["updated_at"]),
                }
                for key, row in projects.items()
                if self._is_readable(row)
            },
            "tasklists": {
                key: {
                    "name": row["name"],
                    "project_id": row["project_id"],
                    "status": "completed" if row["completed"] else "active",
                }
                for key, row in self.truth["tasklist"].items()
                if row["deleted_at"] is None and self._is_readable(projects[row["project_id"]])
            },
            "people": {
                key: {name: row[name] for name in ("first_name", "last_name", "email", "title")}
                for key, row in self.truth["person"].items()
                if row["visible"] and not row["deleted"]
            },
            "tags": {
                key: {name: row[name] for name in ("name", "color", "project_id")}
                for key, row in self.truth["tag"].items()
            },
            "companies": {
                key: {"name": row["name"], "website": row["website"]}
                for key, row in self.truth["company"].items()
            },
            "teams": {
                key: {"name": row["name"], "handle": row["handle"]} for key, row in self.truth["team"].items()
            },
        }
        for stream, living in expected.items():
            found = self.rows(f"teamwork.{stream}")
            for key, row in living.items():
                self.check(stream, key, {**row, "deleted": False, "inaccessible": False}, found.get(key))
            self.check_gone(stream, found, set(living))

    def _tasks(self) -> None:
        stored = self.rows("teamwork.tasks")
        shown = self.rows("public.tasks", key="task_id")
        living: set[int] = set()
        for key, row in self.truth["task"].items():
            if not row["visible"]:
                continue
            if row["deleted"]:
                self.check("deleted task", key, {"deleted": True}, stored.get(key))
                continue
            living.add(key)
            self.check("task", key, self._task(row), stored.get(key))
            self.check("task shown", key, self._task_shown(row), shown.get(key))
        self.check_gone("task", stored, living)

    def _time_entries(self) -> None:
        stored = self.rows("teamwork.time_entries")
        living: set[int] = set()
        for key, row in self.truth["timelog"].items():
            if not self._is_readable(self.truth["project"][row["project_id"]]):
                continue
            if row["deleted_at"] is not None:
                self._check_deleted("time entry", key, stored)
                continue
            living.add(key)
            expected = {
                **{
                    name: row[name]
                    for name in ("description", "minutes", "billable", "task_id", "project_id")
                },
                "logged_at": moment(row["logged_at"]),
                "person_id": row["user_id"],
                "created_at": moment(row["created_at"]),
                "updated_at": moment(row["updated_at"]),
                "deleted": False,
                "inaccessible": False,
                "missing_since": None,
            }
            self.check("time entry", key, expected, stored.get(key))
        self.check_gone("time entry", stored, living)

    def _task_comments(self) -> None:
        stored = self.rows("teamwork.task_comments")
        living: set[int] = set()
        for key, row in self.truth["task_comment"].items():
            task = self.truth["task"][row["task_id"]]
            if not task["visible"]:
                continue
            if row["deleted_at"] is not None:
                self._check_deleted("task comment", key, stored)
                continue
            living.add(key)
            if task["deleted"]:
                continue  # whether those still show is an open question
            expected = {
                "body": row["body"],
                "object_type": "tasks",
                "object_id": row["task_id"],
                "task_id": row["task_id"],
                "project_id": task["project_id"],
                "author_id": row["posted_by"],
                "created_at": moment(row["posted_at"]),
                "updated_at": moment(row["edited_at"]),
                "updated_by_id": row["edited_by"],
                "deleted": False,
                "inaccessible": False,
                "missing_since": None,
            }
            self.check("task comment", key, expected, stored.get(key))
        self.check_gone("task comment", stored, living)

    def _check_deleted(self, kind: str, key: Any, stored: dict[Any, Row]) -> None:
        """Require that a deleted row is no living one here; one deleted before it was seen may be missing."""
        if key in stored and not stored[key]["deleted"]:
            self.problems.append(f"{kind} {key}: deleted and still living")

    def _task(self, row: Row) -> Row:
        assignees = row["assignees"] or []
        return {
            "title": row["name"],
            "description": row["description"],
            "description_type": "HTML" if row["html"] else "TEXT",
            "status": row["status"],
            "priority": row["priority"],
            "progress": row["progress"],
            "is_private": row["private"],
            "tasklist_id": row["list_id"],
            "parent_task_id": row["parent_id"],
            "assignee_ids": [key for _, key in assignees],
            "assignee_types": [kind for kind, _ in assignees],
            "tag_ids": row["tag_ids"] or [],
            "start_date": day(row["start"]),
            "due_date": day(row["due"]),
            "estimate_minutes": row["estimate_minutes"],
            "created_at": moment(row["created_at"]),
            "created_by_id": row["created_by"],
            "updated_at": moment(row["updated_at"]),
            "updated_by_id": row["updated_by"],
            "completed_at": moment(row["completed_at"]),
            "completed_by_id": row["completed_by"],
            "deleted": False,
            "inaccessible": False,
            "missing_since": None,
        }

    def _task_shown(self, row: Row) -> Row:
        task_list = self.truth["tasklist"].get(row["list_id"])
        project = None if task_list is None else self.truth["project"][task_list["project_id"]]
        return {
            "title": row["name"],
            "project_name": None if project is None else project["name"],
            "tasklist_name": None if task_list is None else task_list["name"],
            "tags": [self._name("tag", key) for key in row["tag_ids"] or ()],
            "assignees": [self._assignee(kind, key) for kind, key in row["assignees"] or ()],
            "created_by": None if row["created_by"] is None else self._person(row["created_by"]),
        }

    def _name(self, kind: str, key: int) -> str:
        row = self.truth[kind].get(key)
        return str(key) if row is None else str(row["name"])

    def _person(self, key: int) -> str:
        row = self.truth["person"].get(key)
        if row is None or not row["visible"]:
            return str(key)
        return f"{row['first_name']} {row['last_name']}".strip(" ") or str(row["email"])

    def _assignee(self, kind: str, key: int) -> str:
        if kind == "users":
            return self._person(key)
        return self._name({"teams": "team", "companies": "company"}[kind], key)

    # Missive.

    def _missive_directories(self) -> None:
        expected: dict[str, dict[str, Row]] = {
            "shared_labels": {
                key: {
                    "name": row["name"],
                    "full_name": row["path"],
                    "parent_id": row["parent"],
                    "color": row["color"],
                    "shared_with_organization": row["everybody"],
                }
                for key, row in self.truth["label"].items()
            },
            "users": {
                key: {"name": row["name"], "email": row["email"], "is_me": row["me"]}
                for key, row in self.truth["user"].items()
            },
            "teams": {
                key: {"name": row["name"], "organization_id": row["organization"]}
                for key, row in self.truth["missive_team"].items()
            },
        }
        for stream, living in expected.items():
            found = self.rows(f"missive.{stream}")
            for key, row in living.items():
                self.check(stream, key, {**row, "deleted": False, "inaccessible": False}, found.get(key))
            self.check_gone(stream, found, set(living))

    def _conversations(self) -> None:
        stored = self.rows("missive.conversations")
        me = next(key for key, row in self.truth["user"].items() if row["me"])
        living: set[str] = set()
        for key, row in self.truth["conversation"].items():
            if not row["visible"]:
                continue
            if row["trashed"]:
                self.check("trashed conversation", key, {"deleted": True, "trashed": True}, stored.get(key))
                continue
            living.add(key)
            expected: Row = {
                "last_activity_at": moment(row["last_activity_at"]),
                "deleted": False,
                "inaccessible": False,
                "merged_into": None,
                "missing_since": None,
            }
            if not row["guest"]:
                flags = row["states"].get(me, [])
                expected |= {
                    "subject": row["subject"],
                    "created_at": moment(row["created_at"]),
                    "label_ids": row["label_ids"],
                    "label_names": row["label_names"],
                    "assignee_ids": row["assignee_ids"],
                    "messages_count": len(row["message_ids"]),
                    "drafts_count": len(row["draft_ids"]),
                    **{flag: flag in flags for flag in FLAGS},
                }
            self.check("conversation", key, expected, stored.get(key))
        self.check_gone("conversation", stored, living)
        for key in living:
            for alias in self.truth["conversation"][key]["aliases"]:
                if alias in stored and not stored[alias]["deleted"]:
                    self.problems.append(f"conversation {alias}: merged away and still living")

    def _readable_parent(self, row: Row) -> Row | None:
        parent = self.truth["conversation"].get(row["conversation_id"])
        return parent if parent is not None and parent["visible"] and not parent["guest"] else None

    def _messages(self) -> None:
        stored = self.rows("missive.emails")
        shown = self.rows("public.emails", key="email_id")
        living: set[str] = set()
        for key, row in self.truth["message"].items():
            parent = self._readable_parent(row)
            if parent is None:
                continue
            self.check("message", key, self._message(row), stored.get(key))
            if parent["trashed"]:
                continue
            living.add(key)
            expected = {
                "thread_id": parent["id"],
                "labels": parent["label_names"],
                "deleted": False,
                "inaccessible": False,
            }
            self.check("message shown", key, expected, shown.get(key))
        self.check_gone("message", shown, living)

    def _message(self, row: Row) -> Row:
        sender = row["sender"] or {}
        author = self.truth["user"].get(row["author_id"]) or {}
        people = {
            f"{kind}_{part}": [
                self._address(item) if part == "addresses" else item.get("name") or "" for item in row[kind]
            ]
            for kind in ("to", "cc", "bcc")
            for part in ("addresses", "names")
        }
        return {
            "conversation_id": row["conversation_id"],
            "type": row["type"],
            "subject": row["subject"],
            "preview": row["preview"],
            "email_message_id": row["email_message_id"],
            "in_reply_to": row["in_reply_to"],
            "references": row["references"],
            "from_address": self._address(sender) or None,
            "from_name": sender.get("name"),
            **people,
            "reply_to_addresses": [self._address(item) for item in row["reply_to"]],
            "author_id": row["author_id"],
            "author_name": author.get("name"),
            "body_html": row["body"],
            "delivered_at": moment(row["delivered_at"]),
            "created_at": moment(row["created_at"]),
            "updated_at": moment(row["updated_at"]),
            "draft": row["draft"],
            "missing_since": None,
        }

    def _address(self, field: Row) -> str:
        if field.get("address") is not None:
            return str(field["address"]).strip().lower()
        return str(field.get("phone_number") or field.get("username") or field.get("id") or "")

    def _comments(self) -> None:
        stored = self.rows("missive.comments")
        living: set[str] = set()
        for key, row in self.truth["comment"].items():
            parent = self._readable_parent(row)
            if parent is None:
                continue
            if not parent["trashed"]:
                living.add(key)
            author = row["author"] or {}
            expected = {
                "conversation_id": row["conversation_id"],
                "body": row["body"],
                "author_id": author.get("id"),
                "author_name": author.get("name"),
                "mentions": row["mentions"],
                "created_at": moment(row["created_at"]),
                "deleted": parent["trashed"],
                "inaccessible": False,
                "missing_since": None,
            }
            self.check("comment", key, expected, stored.get(key))
        self.check_gone("comment", stored, living)


def differences(
    truth: Iterable[Row], dsn: str, *, sources: Iterable[str] = ("teamwork", "missive")
) -> list[str]:
    """Return what differs between the sandbox's truth and the mirror behind *dsn*."""
    with psycopg.connect(dsn, row_factory=dict_row) as connection:
        return Comparison(truth, connection).run(list(sources))
