"""What people do in Missive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twm_pipeline.sandbox.answers import Answers
from twm_pipeline.sandbox.missive_account import (
    FLAGS,
    Attachment,
    Conversation,
    Label,
    Mail,
    MissiveAccount,
    Note,
    make_id,
)
from twm_pipeline.sandbox.options import Clock

MOST_MESSAGES = 400


class MissiveActions:
    """Changes an account as its users would, moving `last_activity_at` as the answers say.

    Args:
        account: What exists.
        answers: The open questions.
        clock: The account's time.
        fire: Tells the hooks of an event, with the conversation and what is new in it.
    """

    def __init__(
        self,
        account: MissiveAccount,
        *,
        answers: Answers,
        clock: Clock,
        fire: Callable[[str, Conversation, Mail | Note | None], None],
    ) -> None:
        self.account = account
        self.answers = answers
        self.clock = clock
        self._fire = fire
        self._made = 0

    def actions(self) -> dict[str, Callable[..., Any]]:
        """Return every public action by its name."""
        names = [name for name in vars(type(self)) if not name.startswith("_") and name != "actions"]
        return {name: getattr(self, name) for name in names}

    def _new_id(self, kind: str) -> str:
        self._made += 1
        return make_id(f"action/{kind}/{self._made}")

    def _get(self, key: str) -> Conversation:
        return self.account.conversations[self.account.alias_of.get(key, key)]

    def _bump(self, item: Conversation, switch: str | None = None) -> None:
        if switch is None or self.answers[f"missive.{switch}_bumps_activity"]:
            self.account.touch(item, max(self.clock.now(), item.last_activity_at))

    # Messages.

    def receive_mail(
        self,
        *,
        body: str | None = "<p>Hello</p>",
        subject: str | None = "Hello",
        conversation_id: str | None = None,
        attachments: list[dict[str, Any]] | None = None,
    ) -> dict[str, str]:
        """Receive a message, in a new conversation unless one is named; return both ids."""
        sender = {"name": "Clara Vogt", "address": "Clara.Vogt@customer.example.com"}
        item = self._open(subject) if conversation_id is None else self._get(conversation_id)
        mail = self._add_mail(self._with_room(item), subject=subject, body=body, sender=sender)
        mail.attachments = [
            Attachment(id=self._new_id("attachment"), **fields) for fields in attachments or ()
        ]
        self._fire("incoming_email", self._get(mail.conversation_id), mail)
        if any("closed" in flags for flags in item.states.values()):
            for flags in item.states.values():
                flags.discard("closed")
            self._fire("conversation_reopened", item, None)
        return {"conversation_id": mail.conversation_id, "message_id": mail.id}

    def reply(self, *, conversation_id: str, body: str = "<p>Thanks</p>") -> dict[str, str]:
        """Answer in a conversation as the token's owner; return both ids."""
        me = self.account.me
        item = self._with_room(self._get(conversation_id))
        sender = {"name": me.name, "address": me.email}
        mail = self._add_mail(item, subject=item.subject, body=body, sender=sender)
        mail.author_id = me.id
        self._fire("outgoing_email", item, mail)
        return {"conversation_id": mail.conversation_id, "message_id": mail.id}

    def _open(self, subject: str | None) -> Conversation:
        now = self.clock.now()
        return self.account.add(
            Conversation(
                id=self._new_id("conversation"),
                created_at=now,
                last_activity_at=now,
                subject=subject,
                team=True,
            )
        )

    def _with_room(self, item: Conversation) -> Conversation:
        """Return the conversation a message goes to: after 400, a new one."""
        return item if len(item.messages) < MOST_MESSAGES else self._open(item.subject)

    def _add_mail(
        self,
        item: Conversation,
        *,
        subject: str | None,
        body: str | None,
        sender: dict[str, Any],
        draft: bool = False,
    ) -> Mail:
        now, key = self.clock.now(), self._new_id("message")
        earlier = [mail.email_message_id for mail in item.messages if mail.email_message_id]
        mail = Mail(
            id=key,
            conversation_id=item.id,
            created_at=now,
            updated_at=now,
            delivered_at=None if draft else now,
            draft=draft,
            subject=subject,
            preview="",
            body=body,
            email_message_id=f"<{key}@sandbox.example.com>",
            in_reply_to=earlier[-1:],
            references=earlier[-10:],
            sender=sender,
            to=[{"name": "Harbour Support", "address": "support@harbour.example.com"}],
        )
        item.messages.append(mail)
        self.account.messages[key] = mail
        self._bump(item, "draft" if draft else None)
        return mail

    def write_draft(
        self, *, conversation_id: str, body: str = "<p>Dear all</p>", delivered_at: int | None = None
    ) -> str:
        """Begin an answer without sending it, or one to be sent later, and return its id."""
        me, item = self.account.me, self._get(conversation_id)
        sender = {"name": me.name, "address": me.email}
        draft = self._add_mail(item, subject=item.subject, body=body, sender=sender, draft=True)
        draft.author_id, draft.delivered_at = me.id, delivered_at
        return draft.id

    def edit_draft(self, *, message_id: str, body: str) -> None:
        """Go on writing: only the list of the conversation's drafts shows it."""
        draft = self._draft(message_id)
        draft.body, draft.updated_at = body, self.clock.now()
        self._bump(self._get(draft.conversation_id), "draft")

    def send_draft(self, *, message_id: str) -> str:
        """Send a draft and return the id of the message that it becomes."""
        draft = self._draft(message_id)
        item, now = self._get(draft.conversation_id), self.clock.now()
        if not self.answers["missive.sent_draft_keeps_id"]:
            del self.account.messages[draft.id]
            draft.id = self._new_id("message")
            self.account.messages[draft.id] = draft
        draft.draft, draft.delivered_at, draft.updated_at = False, now, now
        self._bump(item)
        self._fire("outgoing_email", item, draft)
        return draft.id

    def discard_draft(self, *, message_id: str) -> None:
        """Throw a draft away: nothing tells of it."""
        self.delete_message(message_id=self._draft(message_id).id)

    def _draft(self, message_id: str) -> Mail:
        draft = self.account.messages[message_id]
        if not draft.draft:
            raise ValueError(f"message {message_id} is no draft")
        return draft

    def delete_message(self, *, message_id: str) -> None:
        """Delete a message for good: nothing tells of it."""
        mail = self.account.messages.pop(message_id)
        self._get(mail.conversation_id).messages.remove(mail)

    # Comments.

    def comment(self, *, conversation_id: str, body: str) -> str:
        """Comment on a conversation and return the comment's id."""
        item, me = self._get(conversation_id), self.account.me
        author = {"id": me.id, "name": me.name, "email": me.email, "avatar_url": me.avatar_url}
        note = Note(id=self._new_id("comment"), body=body, created_at=self.clock.now(), author=author)
        item.notes.append(note)
        self._bump(item, "comment")
        self._fire("new_comment", item, note)
        return note.id

    def edit_comment(self, *, conversation_id: str, comment_id: str, body: str) -> None:
        """Edit a comment: only reading it again shows it."""
        next(note for note in self._get(conversation_id).notes if note.id == comment_id).body = body

    def delete_comment(self, *, conversation_id: str, comment_id: str) -> None:
        """Delete a comment: only reading the list again shows it."""
        item = self._get(conversation_id)
        item.notes = [note for note in item.notes if note.id != comment_id]

    # Conversations.

    def label(self, *, conversation_id: str, label_id: str) -> None:
        """Put a shared label on a conversation."""
        item, label = self._get(conversation_id), self.account.labels[label_id]
        new = label.id not in item.label_ids
        if new:
            item.label_ids.append(label.id)
        self._bump(item, "label")
        if new:
            self._fire("label_change", item, None)

    def unlabel(self, *, conversation_id: str, label_id: str) -> None:
        """Take a shared label off a conversation."""
        item = self._get(conversation_id)
        had = label_id in item.label_ids
        item.label_ids = [key for key in item.label_ids if key != label_id]
        self._bump(item, "label")
        if had:
            self._fire("label_change", item, None)

    def create_label(self, *, name: str, parent: str | None = None) -> str:
        """Create a shared label and return its id."""
        key = self._new_id("label")
        self.account.labels[key] = Label(id=key, name=name, parent=parent)
        return key

    def rename_label(self, *, label_id: str, name: str) -> None:
        """Rename a shared label; no conversation moves."""
        self.account.labels[label_id].name = name

    def delete_label(self, *, label_id: str) -> None:
        """Delete a shared label: it is on no conversation any more."""
        del self.account.labels[label_id]
        for item in self.account.conversations.values():
            item.label_ids = [key for key in item.label_ids if key != label_id]

    def rename_user(self, *, user_id: str, name: str) -> None:
        """Rename a user."""
        self.account.users[user_id].name = name

    def assign(self, *, conversation_id: str, user_ids: list[str]) -> None:
        """Set a conversation's assignees."""
        item = self._get(conversation_id)
        item.assignee_ids = [self.account.users[key].id for key in user_ids]
        self._bump(item, "assign")
        self._fire("assignment_change", item, None)

    def set_flag(
        self, *, conversation_id: str, flag: str, value: bool = True, user_id: str | None = None
    ) -> None:
        """Set one flag of one user, the token's owner unless named; closing is everybody's."""
        if flag not in FLAGS:
            raise ValueError(f"unknown flag {flag!r}; known: {FLAGS}")
        item = self._get(conversation_id)
        users = list(item.states) if flag == "closed" else [user_id or self.account.me.id]
        for user in users:
            flags = item.states.setdefault(user, set())
            (flags.add if value else flags.discard)(flag)
        switch = {"closed": "close", "trashed": "trash", "junked": "trash"}.get(flag)
        if switch is not None:
            self._bump(item, switch)
        if flag == "closed":
            self._fire("conversation_closed" if value else "conversation_reopened", item, None)

    def merge(self, *, conversation_id: str, into_id: str) -> None:
        """Merge a conversation into another; its id keeps answering with the survivor."""
        gone, kept = self._get(conversation_id), self._get(into_id)
        if gone is kept:
            raise ValueError("a conversation cannot be merged into itself")
        if len(gone.messages) + len(kept.messages) > MOST_MESSAGES:
            raise ValueError(f"a conversation holds at most {MOST_MESSAGES} messages")
        self.account.remove(gone)
        for mail in gone.messages:
            mail.conversation_id = kept.id
        kept.messages += gone.messages
        kept.notes += gone.notes
        kept.posts += gone.posts
        kept.label_ids += [key for key in gone.label_ids if key not in kept.label_ids]
        kept.aliases += [gone.id, *gone.aliases]
        for alias in kept.aliases:
            self.account.alias_of[alias] = kept.id
        self.account.touch(kept, max(kept.last_activity_at, gone.last_activity_at))
        self._bump(kept, "merge")

    def delete_conversation(self, *, conversation_id: str) -> None:
        """Delete a conversation for good: nothing tells of it."""
        item = self._get(conversation_id)
        self.account.remove(item)
        for mail in item.messages:
            del self.account.messages[mail.id]

    def set_conversation_access(self, *, conversation_id: str, accessible: bool) -> None:
        """Let the token's owner lose or regain a conversation; nothing else says so."""
        self._get(conversation_id).accessible = accessible

    def redate_conversation(self, *, conversation_id: str, last_activity_at: int) -> None:
        """Give a conversation any `last_activity_at`, as a mail with a wrong date does."""
        self.account.touch(self._get(conversation_id), last_activity_at)
