"""Missive's JSON: what each kind of row shows."""

from __future__ import annotations

from typing import Any

from twm_pipeline.sandbox.missive_account import FLAGS, Conversation, Label, Mail, MissiveAccount, Note, User
from twm_pipeline.sandbox.missive_files import FileStorage

Row = dict[str, Any]


class MissiveRows:
    """The rows of an account, as the token's owner sees them.

    Args:
        account: What exists.
        files: Signs the addresses of attachments.
    """

    def __init__(self, account: MissiveAccount, files: FileStorage) -> None:
        self.account = account
        self.files = files

    def conversation_row(self, item: Conversation) -> Row:
        """Return a conversation; a guest sees two fields of it."""
        if item.guest:
            return {"id": item.id, "last_activity_at": item.last_activity_at}
        sent = [mail for mail in item.messages if not mail.draft]
        authors = distinct_authors(sent)
        external = distinct_authors([mail for mail in sent if mail.author_id is None])
        row = self.conversation_short(item)
        members = [self._state_row(item, self.account.users[key]) for key in item.assignee_ids]
        tasks = [note.task for note in item.notes if note.task is not None]
        return row | {
            "color": item.color,
            "attachments_count": sum(len(mail.attachments) for mail in sent),
            "drafts_count": len(item.messages) - len(sent),
            "send_later_messages_count": 0,
            "tasks_count": len(tasks),
            "completed_tasks_count": sum(task["completed_at"] is not None for task in tasks),
            "authors": authors,
            "external_authors": external,
            "assignee_names": ", ".join(row["name"] for row in members),
            "assignee_emails": ", ".join(row["email"] for row in members),
        }

    def conversation_short(self, item: Conversation) -> Row:
        """Return a conversation as a message shows it."""
        labels = [self.account.labels[key] for key in item.label_ids]
        sent = [mail for mail in item.messages if not mail.draft]
        newest = max(sent, key=delivered, default=None)
        url = f"mail.missiveapp.com/#inbox/conversations/{item.id}"
        return {
            "id": item.id,
            "created_at": item.created_at,
            "subject": item.subject,
            "latest_message_subject": (newest and newest.subject) or item.subject or "",
            "organization": self.account.organization,
            "team": self.account.team if item.team else None,
            "assignees": [self._state_row(item, self.account.users[key]) for key in item.assignee_ids],
            "users": [self._state_row(item, self.account.users[key]) for key in item.states],
            "shared_labels": [self.label_row(label) for label in labels],
            "shared_label_names": ", ".join(label.name for label in labels),
            "messages_count": len(sent),
            "web_url": f"https://{url}",
            "app_url": f"missive://{url}",
            "last_activity_at": item.last_activity_at,
        }

    def _state_row(self, item: Conversation, user: User) -> Row:
        flags = item.states.get(user.id, set())
        row: Row = {"id": user.id, "name": user.name, "email": user.email, "unassigned": False}
        row |= {name: name in flags for name in FLAGS}
        return row | {"assigned": user.id in item.assignee_ids}

    def message_row(self, mail: Mail) -> Row:
        """Return a message as lists show it: without its body."""
        author = self.account.users.get(mail.author_id) if mail.author_id is not None else None
        return {
            "id": mail.id,
            "subject": mail.subject,
            "preview": mail.preview,
            "type": mail.type,
            "delivered_at": mail.delivered_at,
            "updated_at": mail.updated_at,
            "created_at": mail.created_at,
            "email_message_id": mail.email_message_id,
            "in_reply_to": mail.in_reply_to,
            "references": mail.references,
            "from_field": mail.sender,
            "to_fields": mail.to,
            "cc_fields": mail.cc,
            "bcc_fields": mail.bcc,
            "reply_to_fields": mail.reply_to,
            "attachments": [self.files.attachment_row(item) for item in mail.attachments],
            "author": None if author is None else author_row(author),
            "external_id": None,
            "account_author": None,
            "account_recipients": [],
        }

    def full_message_row(self, mail: Mail) -> Row:
        """Return a message with its body and its conversation."""
        conversation = self.account.find(mail.conversation_id)
        short = None if conversation is None else self.conversation_short(conversation)
        return self.message_row(mail) | {"body": mail.body, "conversation": short}

    def comment_row(self, note: Note) -> Row:
        """Return a comment."""
        return {
            "id": note.id,
            "body": note.body,
            "created_at": note.created_at,
            "mentions": note.mentions,
            "author": note.author,
            "attachment": None if note.attachment is None else self.files.attachment_row(note.attachment),
            "task": note.task,
        }

    def label_rows(self) -> list[Row]:
        """Return the directory of shared labels."""
        return [self.label_row(label) for label in self.account.labels.values()]

    def label_row(self, label: Label) -> Row:
        """Return a shared label."""
        return {
            "id": label.id,
            "name": label.name,
            "name_with_parent_names": self.label_path(label),
            "organization": self.account.organization["id"],
            "color": label.color,
            "parent": label.parent,
            "share_with_organization": label.everybody,
            "share_with_users": [] if label.everybody else [self.account.me.id],
            "share_with_team": None if label.everybody else self.account.team["id"],
            "visibility": "organization" if label.everybody else "team",
        }

    def label_path(self, label: Label) -> str:
        """Return a label's name behind those of its parents."""
        parent = None if label.parent is None else self.account.labels.get(label.parent)
        return label.name if parent is None else f"{self.label_path(parent)}/{label.name}"


def delivered(mail: Mail) -> int:
    """Return the second that orders a message; a draft has only its creation."""
    return mail.created_at if mail.delivered_at is None else mail.delivered_at


def distinct_authors(mails: list[Mail]) -> list[Row]:
    """Return who wrote some messages, each once, without what identifies only in the channel."""
    authors: list[Row] = []
    for mail in mails:
        if mail.sender is None:
            continue
        author = mail.sender
        if "phone_number" in author:
            author = {"phone_number": author["phone_number"]}
        if author not in authors:
            authors.append(author)
    return authors


def user_row(user: User) -> Row:
    """Return a user as the directory shows them."""
    return {
        "id": user.id,
        "me": user.me,
        "email": user.email,
        "name": user.name,
        "avatar_url": user.avatar_url,
    }


def author_row(user: User) -> Row:
    """Return a user as an author."""
    return {"id": user.id, "name": user.name, "email": user.email, "avatar_url": user.avatar_url}
