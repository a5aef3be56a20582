"""What exists in a simulated Missive account, seen through one user's token."""

from __future__ import annotations

import uuid
from bisect import bisect_left, insort
from dataclasses import dataclass, field
from typing import Any

NAMESPACE = uuid.UUID("b2f8f0a4-6c1d-5b3e-9a57-3d1f0c6e8a21")
FLAGS = ("closed", "archived", "trashed", "junked", "flagged", "snoozed")


def make_id(name: str) -> str:
    """Return the id of the thing with this name."""
    return str(uuid.uuid5(NAMESPACE, name))


@dataclass(slots=True, kw_only=True)
class User:
    """A Missive user."""

    id: str
    name: str
    email: str
    avatar_url: str | None = None
    me: bool = False


@dataclass(slots=True, kw_only=True)
class Attachment:
    """A file; its URL is signed anew on every read."""

    id: str
    filename: str | None
    media_type: str
    sub_type: str
    size: int
    width: int | None = None
    height: int | None = None


@dataclass(slots=True, kw_only=True)
class Mail:
    """A message of any channel. Times are Unix seconds."""

    id: str
    conversation_id: str
    created_at: int
    updated_at: int
    delivered_at: int | None
    subject: str | None
    preview: str
    body: str | None
    type: str = "email"
    email_message_id: str | None = None
    in_reply_to: list[str] = field(default_factory=list)
    references: list[str] = field(default_factory=list)
    sender: dict[str, Any] | None = None
    to: list[dict[str, Any]] = field(default_factory=list)
    cc: list[dict[str, Any]] = field(default_factory=list)
    bcc: list[dict[str, Any]] = field(default_factory=list)
    reply_to: list[dict[str, Any]] = field(default_factory=list)
    attachments: list[Attachment] = field(default_factory=list)
    author_id: str | None = None
    draft: bool = False


@dataclass(slots=True, kw_only=True)
class Note:
    """A comment of a conversation."""

    id: str
    body: str
    created_at: int
    author: dict[str, Any] | None
    mentions: list[dict[str, Any]] = field(default_factory=list)
    attachment: Attachment | None = None
    task: dict[str, Any] | None = None


@dataclass(slots=True, kw_only=True)
class Label:
    """A shared label."""

    id: str
    name: str
    parent: str | None = None
    color: str | None = None
    everybody: bool = True


@dataclass(slots=True, kw_only=True)
class Conversation:
    """A conversation; `states` holds each user's flags by user id."""

    id: str
    created_at: int
    last_activity_at: int
    subject: str | None = None
    team: bool = False
    guest: bool = False
    accessible: bool = True
    color: str | None = None
    states: dict[str, set[str]] = field(default_factory=dict)
    assignee_ids: list[str] = field(default_factory=list)
    label_ids: list[str] = field(default_factory=list)
    aliases: list[str] = field(default_factory=list)
    messages: list[Mail] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    posts: list[dict[str, Any]] = field(default_factory=list)


class MissiveAccount:
    """All conversations, and an index of them by (last_activity_at, id)."""

    def __init__(self) -> None:
        self.organization = {"id": make_id("organization"), "name": "Harbour Example GmbH"}
        self.team = {
            "id": make_id("team"),
            "name": "Support",
            "organization": self.organization["id"],
        }
        self.users: dict[str, User] = {}
        self.labels: dict[str, Label] = {}
        self.conversations: dict[str, Conversation] = {}
        self.messages: dict[str, Mail] = {}
        self.alias_of: dict[str, str] = {}
        self.by_activity: list[tuple[int, str]] = []

    @property
    def me(self) -> User:
        """Return the token's owner."""
        return next(user for user in self.users.values() if user.me)

    @property
    def members(self) -> list[User]:
        """Return the users whose flags a conversation shows: the first two."""
        return list(self.users.values())[:2]

    def add(self, conversation: Conversation) -> Conversation:
        """Add a conversation with its messages."""
        self.conversations[conversation.id] = conversation
        for user in self.members:
            conversation.states.setdefault(user.id, set())
        for mail in conversation.messages:
            self.messages[mail.id] = mail
        insort(self.by_activity, (conversation.last_activity_at, conversation.id))
        return conversation

    def remove(self, conversation: Conversation) -> None:
        """Take a conversation out, without its messages."""
        del self.conversations[conversation.id]
        del self.by_activity[self._place(conversation)]

    def touch(self, conversation: Conversation, at: int) -> None:
        """Move a conversation's last activity."""
        del self.by_activity[self._place(conversation)]
        conversation.last_activity_at = at
        insort(self.by_activity, (at, conversation.id))

    def _place(self, conversation: Conversation) -> int:
        return bisect_left(self.by_activity, (conversation.last_activity_at, conversation.id))

    def find(self, conversation_id: str) -> Conversation | None:
        """Return the conversation that answers to an id, perhaps under another one."""
        found = self.conversations.get(self.alias_of.get(conversation_id, conversation_id))
        return found if found is not None and found.accessible else None

    def find_message(self, message_id: str) -> Mail | None:
        """Return a message that the token's owner may see."""
        mail = self.messages.get(message_id)
        if mail is None:
            return None
        conversation = self.find(mail.conversation_id)
        return None if conversation is None or conversation.guest else mail
