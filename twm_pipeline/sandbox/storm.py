"""Random changes as people make them, seeded, for tests of everything at once."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from twm_pipeline.sandbox.missive_account import Conversation
from twm_pipeline.sandbox.missive_actions import MOST_MESSAGES, MissiveActions
from twm_pipeline.sandbox.teamwork_account import Task
from twm_pipeline.sandbox.teamwork_actions import TeamworkActions
from twm_pipeline.sandbox.texts import Writer

TASK_CHANGES = (
    "create_task",
    "edit_task",
    "edit_task",
    "complete_task",
    "reopen_task",
    "delete_task",
    "restore_task",
    "tag_task",
    "untag_task",
    "assign_task",
    "move_task",
    "comment_task",
    "edit_task_comment",
    "delete_task_comment",
    "log_time",
    "edit_time",
    "delete_time",
    "restore_time",
)
TIME_AND_COMMENTS = TASK_CHANGES[-6:]
MAIL_CHANGES = (
    "receive_mail",
    "receive_mail",
    "reply",
    "reply",
    "comment",
    "label",
    "unlabel",
    "assign",
    "set_flag",
    "set_flag",
    "merge",
    "delete_message",
    "write_draft",
    "edit_draft",
    "send_draft",
    "discard_draft",
    "edit_comment",
    "delete_comment",
)
NEW_CONVERSATION_SHARE = 0.5
SET_SHARE = 0.6


class Storm:
    """Makes random changes.

    Args:
        tasks: What people do in Teamwork.
        mails: What people do in Missive.
    """

    def __init__(self, tasks: TeamworkActions, mails: MissiveActions) -> None:
        self.tasks = tasks
        self.mails = mails

    def random_changes(self, *, count: int, seed: int, vendor: str | None = None) -> dict[str, int]:
        """Make *count* changes and return how many of each; equal accounts change alike."""
        source = random.Random(f"storm {seed}")  # noqa: S311 - a simulation, not a secret
        writer = Writer(source)
        made: dict[str, int] = {}
        for number in range(count):
            choice = vendor or source.choice(("teamwork", "missive"))
            change = self._teamwork if choice == "teamwork" else self._missive
            name = change(source, writer, number)
            made[name] = made.get(name, 0) + 1
        return made

    def _task(self, source: random.Random, test: Callable[[Task], bool]) -> Task | None:
        account = self.tasks.account
        for _ in range(50 if account.by_updated else 0):
            task = account.tasks[source.choice(account.by_updated)[1]]
            if test(task) and account.is_visible(task):
                return task
        return None

    def _teamwork(self, source: random.Random, writer: Writer, number: int) -> str:
        actions = self.tasks
        kind = source.choice(TASK_CHANGES)
        tests: dict[str, Callable[[Task], bool]] = {
            "restore_task": lambda task: task.deleted_at is not None,
            "reopen_task": lambda task: task.completed_at is not None and task.deleted_at is None,
            "untag_task": lambda task: bool(task.tag_ids) and task.deleted_at is None,
        }
        task = self._task(source, tests.get(kind, lambda item: item.deleted_at is None))
        if kind == "create_task" or task is None:
            actions.create_task(name=writer.title(number), description=writer.plain(number))
            return "create_task"
        if kind in TIME_AND_COMMENTS:
            return self._time_or_comment(kind, task, source, writer, number)
        fields: dict[str, Any] = {"task_id": task.id}
        if kind == "edit_task":
            fields |= {"name": writer.title(number), "progress": source.randrange(100)}
        elif kind in ("tag_task", "untag_task"):
            fields["tag_id"] = source.choice(
                task.tag_ids if kind[0] == "u" and task.tag_ids else self._tags()
            )
        elif kind == "assign_task":
            people = [("users", key) for key in actions.account.people]
            fields["assignees"] = source.choice((None, [], source.sample(people, min(2, len(people)))))
        elif kind == "move_task":
            fields["list_id"] = source.choice(self._lists())
        elif kind == "comment_task":
            fields["body"] = writer.plain(number)
        getattr(actions, kind)(**fields)
        return kind

    def _time_or_comment(
        self, kind: str, task: Task, source: random.Random, writer: Writer, number: int
    ) -> str:
        """Change a time entry or a comment; where there is none to change, log time or write one."""
        account, actions = self.tasks.account, self.tasks
        if kind.endswith("_comment"):
            comments = [account.comments[key] for key in account.comments_of.get(task.id, ())]
            ids = [comment.id for comment in comments if comment.deleted_at is None]
            if not ids:
                kind = "comment_task"
                actions.comment_task(task_id=task.id, body=writer.plain(number))
            elif kind == "edit_task_comment":
                actions.edit_task_comment(comment_id=source.choice(ids), body=writer.plain(number))
            else:
                actions.delete_task_comment(comment_id=source.choice(ids))
            return kind
        deleted = kind == "restore_time"
        ids = [key for key, log in account.timelogs.items() if (log.deleted_at is not None) == deleted]
        if kind == "log_time" or not ids:
            kind = "log_time"
            if account.project_of(task) is not None:
                actions.log_time(task_id=task.id, minutes=source.randrange(1, 480))
            return kind
        fields = {"minutes": source.randrange(1, 480)} if kind == "edit_time" else {}
        getattr(actions, kind)(timelog_id=source.choice(ids), **fields)
        return kind

    def _tags(self) -> list[int]:
        return list(self.tasks.account.tags) or [self.tasks.create_tag(name="urgent")]

    def _lists(self) -> list[int]:
        account = self.tasks.account
        return [
            item.id
            for item in account.lists.values()
            if item.deleted_at is None and account.projects[item.project_id].accessible
        ]

    def _pick(self, source: random.Random) -> Conversation | None:
        account = self.mails.account
        for _ in range(50 if account.by_activity else 0):
            item = account.conversations[source.choice(account.by_activity)[1]]
            if item.accessible and not item.guest:
                return item
        return None

    def _missive(self, source: random.Random, writer: Writer, number: int) -> str:
        actions = self.mails
        kind = source.choice(MAIL_CHANGES)
        item = self._pick(source)
        if item is None or (kind == "receive_mail" and source.random() < NEW_CONVERSATION_SHARE):
            actions.receive_mail(subject=writer.title(number), body=writer.markup(number + 10))
            return "receive_mail"
        fields = self._missive_fields(kind, item, source, writer)
        if fields is None:
            kind, fields = "comment", {"conversation_id": item.id, "body": writer.plain(number)}
        getattr(actions, kind)(**fields)
        return kind

    def _missive_fields(
        self, kind: str, item: Conversation, source: random.Random, writer: Writer
    ) -> dict[str, Any] | None:
        """Return the arguments of a change, None where it is impossible here."""
        account = self.mails.account
        text = writer.plain(source.randrange(100))
        fields: dict[str, Any] = {"conversation_id": item.id}
        if kind in ("receive_mail", "reply"):
            fields["body"] = f"<p>{text}</p>"
        elif kind in ("label", "unlabel") and account.labels:
            fields["label_id"] = source.choice(list(account.labels))
        elif kind == "assign":
            fields["user_ids"] = source.choice(([], [account.me.id]))
        elif kind == "set_flag":
            flag = source.choice(("closed", "trashed", "junked", "archived", "flagged"))
            fields |= {"flag": flag, "value": source.random() < SET_SHARE}
        elif kind == "merge" and (other := self._other(source, item)):
            fields["into_id"] = other.id
        elif kind == "delete_message" and len(item.messages) > 1:
            fields = {"message_id": source.choice(item.messages).id}
        elif kind == "write_draft":
            fields["body"] = f"<p>{text}</p>"
        elif kind.endswith("_draft") and (drafts := [mail.id for mail in item.messages if mail.draft]):
            fields = {"message_id": source.choice(drafts)} | ({"body": text} if kind == "edit_draft" else {})
        elif kind in ("edit_comment", "delete_comment") and item.notes:
            fields["comment_id"] = source.choice(item.notes).id
            fields |= {"body": text} if kind == "edit_comment" else {}
        else:
            return None
        return fields

    def _other(self, source: random.Random, item: Conversation) -> Conversation | None:
        """Return a conversation that *item* can be merged into."""
        other = self._pick(source)
        if other is None or other is item:
            return None
        return other if len(other.messages) + len(item.messages) <= MOST_MESSAGES else None
