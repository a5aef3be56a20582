"""Accounts made of real content, read line by line; the mapping is in docs/sandbox.md."""

from __future__ import annotations

import gzip
import html
import re
from collections.abc import Iterator
from datetime import datetime
from itertools import cycle
from pathlib import Path
from typing import Any

import orjson

from twm_pipeline.sandbox.generate_missive import add_directories
from twm_pipeline.sandbox.missive_account import (
    Attachment,
    Conversation,
    Label,
    Mail,
    MissiveAccount,
    Note,
    make_id,
)
from twm_pipeline.sandbox.teamwork_account import (
    FIRST_COMMENT_ID,
    FIRST_TASK_ID,
    OWNER_COMPANY_ID,
    Company,
    Person,
    Project,
    Tag,
    Task,
    TaskComment,
    TaskList,
    TeamworkAccount,
)

Row = dict[str, Any]
ME_ID = 300_000
FIRST_PERSON_ID, FIRST_PROJECT_ID, FIRST_LIST_ID, FIRST_TAG_ID = 300_001, 500_001, 700_001, 900_001
NO_LIST = "General tasks"
RECEIVED_SECONDS = 1_600_000_000  # A mail without a usable date counts as received then, plus its line.
DONE = ("resolved", "merged", "rejected")
PRIORITIES = {"critical": "high", "high": "high", "medium": "medium", "low": "low", "trivial": "low"}
MARKUP = re.compile(r"<[^>]*>")
PREVIEW_CHARACTERS = 140


def read_lines(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield every line of a gzipped JSON Lines file with its number from 0."""
    with gzip.open(path, "rb") as lines:
        for number, line in enumerate(lines):
            yield number, orjson.loads(line)


def seconds(value: str) -> int:
    """Return an ISO 8601 instant as Unix seconds."""
    return int(datetime.fromisoformat(value).timestamp())


class TeamworkLoader:
    """Builds a site from `tasks.jsonl.gz`."""

    def __init__(self) -> None:
        self.account = TeamworkAccount()
        self.commented: list[tuple[int, list[Row]]] = []
        self._task_ids: dict[str, int] = {}
        self._parents: list[tuple[int, str]] = []
        self._projects: dict[str, int] = {}
        self._lists: dict[tuple[str, str], int] = {}
        self._people: dict[str, int] = {}
        self._tags: dict[str, int] = {}

    def load(self, path: Path) -> TeamworkAccount:
        """Return the account."""
        account = self.account
        account.me_id = ME_ID
        account.companies[OWNER_COMPANY_ID] = Company(id=OWNER_COMPANY_ID, name="Archive", created_at=0)
        account.people[ME_ID] = Person(
            id=ME_ID,
            first_name="Sandbox",
            last_name="Owner",
            email="owner@example.com",
            created_at=0,
            admin=True,
        )
        for line, row in read_lines(path):
            self._task(line, row)
        for task_id, name in self._parents:
            account.tasks[task_id].parent_id = self._task_ids.get(name)
        account.reindex()
        return account

    def _task(self, line: int, row: Row) -> None:
        key = FIRST_TASK_ID + line
        self._task_ids[row["id"]] = key
        if row["parent"] is not None:
            self._parents.append((key, row["parent"]))
        created = seconds(row["created_at"])
        updated = created if row["updated_at"] is None else seconds(row["updated_at"])
        completed = None if row["completed_at"] is None else seconds(row["completed_at"])
        status = row["status"].lower()
        if completed is None and (status.startswith("closed") or status in DONE):
            completed = updated
        due = row["due_at"]
        creator = self._person(row["created_by"], created)
        assignees = [self._person(name, created) for name in row["assignees"]]
        tags = [self._tag(name) for name in row["tags"]]
        self.account.add_task(
            Task(
                id=key,
                name=row["title"],
                description=row["description"],
                created_at=created,
                updated_at=updated,
                priority=None if row["priority"] is None else PRIORITIES.get(row["priority"].lower()),
                progress=0 if completed is None else 100,
                status="completed"
                if completed is not None
                else "reopened"
                if status == "reopened"
                else "new",
                due=due[:10] if due is not None and line % 2 else due,
                list_id=self._list(row["project"], row["tasklist"] or NO_LIST, created),
                assignees=[("users", person) for person in assignees if person is not None],
                tag_ids=list(dict.fromkeys(tags)),
                created_by=creator,
                updated_by=creator,
                completed_at=completed,
            ),
            index=False,
        )
        self._comments(key, line, row["comments"])

    def _comments(self, task_id: int, line: int, comments: list[Row]) -> None:
        if comments:
            self.commented.append((line, comments))
        for comment in comments:
            at = seconds(comment["created_at"])
            self.account.add_comment(
                TaskComment(
                    id=FIRST_COMMENT_ID + len(self.account.comments),
                    task_id=task_id,
                    body=comment["body"],
                    posted_at=at,
                    posted_by=self._person(comment["author"], at),
                )
            )

    def _person(self, name: str | None, at: int) -> int | None:
        if name is None:
            return None
        key = self._people.get(name)
        if key is None:
            key = self._people[name] = FIRST_PERSON_ID + len(self._people)
            first, _, last = name.partition(" ")
            email = f"person{key}@example.com"
            self.account.people[key] = Person(
                id=key,
                first_name=first,
                last_name=last,
                email=email,
                created_at=at,
                deleted=name == "ghost",
            )
        return key

    def _project(self, name: str, at: int) -> int:
        key = self._projects.get(name)
        if key is None:
            key = self._projects[name] = FIRST_PROJECT_ID + len(self._projects)
            self.account.projects[key] = Project(
                id=key, name=name, company_id=OWNER_COMPANY_ID, created_at=at, updated_at=at
            )
        return key

    def _list(self, project: str, name: str, at: int) -> int:
        project_id = self._project(project, at)
        key = self._lists.get((project, name))
        if key is None:
            key = self._lists[project, name] = FIRST_LIST_ID + len(self._lists)
            self.account.lists[key] = TaskList(
                id=key, name=name, project_id=project_id, created_at=at, updated_at=at
            )
        return key

    def _tag(self, name: str) -> int:
        key = self._tags.get(name)
        if key is None:
            key = self._tags[name] = FIRST_TAG_ID + len(self._tags)
            self.account.tags[key] = Tag(id=key, name=name, color="#9e9e9e")
        return key


class MissiveLoader:
    """Builds an account from `emails.jsonl.gz`.

    Args:
        commented: Task line and comments of every task that has some, in file order.
    """

    def __init__(self, commented: list[tuple[int, list[Row]]]) -> None:
        self.account = MissiveAccount()
        self._commented = commented
        self._threads: dict[str, Conversation] = {}

    def load(self, path: Path) -> MissiveAccount:
        """Return the account."""
        add_directories(self.account)
        for line, row in read_lines(path):
            self._message(line, row)
        for (line, comments), conversation in zip(
            self._commented, cycle(self._threads.values()), strict=False
        ):
            conversation.notes += [self._note(line, number, row) for number, row in enumerate(comments)]
        for conversation in self._threads.values():
            times = [mail.created_at for mail in conversation.messages]
            conversation.created_at, conversation.last_activity_at = min(times), max(times)
            self.account.add(conversation)
        return self.account

    def _message(self, line: int, row: Row) -> None:
        key = row["thread_key"]
        thread = self._threads.get(key)
        if thread is None:
            thread = self._threads[key] = Conversation(
                id=make_id(f"conversation/{key}"),
                created_at=0,
                last_activity_at=0,
                subject=row["subject"],
                team=True,
            )
        at = RECEIVED_SECONDS + line if row["date"] is None else row["date"]
        sender = row["from"]
        thread.messages.append(
            Mail(
                id=make_id(f"message/{line}"),
                conversation_id=thread.id,
                created_at=at,
                updated_at=at,
                delivered_at=at,
                subject=row["subject"],
                preview=preview_of(row),
                body=body_of(row),
                email_message_id=row["message_id"],
                in_reply_to=row["in_reply_to"],
                references=row["references"],
                sender=sender if sender["name"] or sender["address"] else None,
                to=row["to"],
                cc=row["cc"],
                bcc=row["bcc"],
                attachments=[attachment_of(line, n, item) for n, item in enumerate(row["attachments"])],
            )
        )
        for name in row["labels"]:
            label = self._label(name)
            if label not in thread.label_ids:
                thread.label_ids.append(label)

    def _label(self, name: str) -> str:
        key = make_id(f"label/{name}")
        self.account.labels.setdefault(key, Label(id=key, name=name))
        return key

    def _note(self, line: int, number: int, row: Row) -> Note:
        name = row["author"]
        author = None
        if name is not None:
            key = make_id(f"user/{name}")
            author = {"id": key, "name": name, "email": f"{key[:8]}@example.com", "avatar_url": None}
        note_id = make_id(f"comment/{line}/{number}")
        return Note(id=note_id, body=row["body"], created_at=seconds(row["created_at"]), author=author)


def body_of(row: Row) -> str | None:
    """Return a message's HTML: its own, else its text escaped in `<pre>`, else None."""
    if row["body_html"] is not None:
        return str(row["body_html"])
    return None if row["body_text"] is None else f"<pre>{html.escape(row['body_text'], quote=False)}</pre>"


def preview_of(row: Row) -> str:
    """Return the first words of a message, without markup."""
    text = row["body_text"]
    if text is None:
        text = MARKUP.sub(" ", (row["body_html"] or "")[: 20 * PREVIEW_CHARACTERS])
    return " ".join(text[: 4 * PREVIEW_CHARACTERS].split())[:PREVIEW_CHARACTERS]


def attachment_of(line: int, number: int, row: Row) -> Attachment:
    """Return an attachment of a message."""
    media_type, _, sub_type = row["media_type"].partition("/")
    return Attachment(
        id=make_id(f"attachment/{line}/{number}"),
        filename=row["filename"],
        media_type=media_type,
        sub_type=sub_type,
        size=row["size"],
    )


def load_accounts(data_dir: Path) -> tuple[TeamworkAccount, MissiveAccount]:
    """Return both accounts made of the files in a folder."""
    teamwork = TeamworkLoader()
    site = teamwork.load(data_dir / "tasks.jsonl.gz")
    return site, MissiveLoader(teamwork.commented).load(data_dir / "emails.jsonl.gz")
