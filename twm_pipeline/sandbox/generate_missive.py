"""A generated Missive account: seeded, in several languages, awkward on purpose."""

# ruff: noqa: PLR2004 - the numbers are the pattern itself
from __future__ import annotations

import random
from typing import Any

from twm_pipeline.sandbox.missive_account import (
    Attachment,
    Conversation,
    Label,
    Mail,
    MissiveAccount,
    Note,
    User,
    make_id,
)
from twm_pipeline.sandbox.texts import FIRST_NAMES, HUGE, LAST_NAMES, Writer

DAY = 86_400
TIED = 57  # More than the largest page of conversations.
FILES: tuple[tuple[str | None, str, str, int | None], ...] = (
    ("offer.pdf", "application", "pdf", None),
    (None, "application", "octet-stream", None),
    ("logo.png", "image", "png", 96),
    ("../../etc/passwd", "text", "plain", None),
    ("Prüfbericht größer 図面 🚧.xlsx", "application", "vnd.ms-excel", None),
    ("", "text", "calendar", None),
    ("a" * 250 + ".txt", "text", "plain", None),
)


def add_directories(account: MissiveAccount) -> None:
    """Give an account its users."""
    for name, email, me in (("Anna Linde", "anna.linde", True), ("Ben Okoro", "ben.okoro", False)):
        avatar = None if me else "https://files.example.com/avatars/ben.png"
        user = User(
            id=make_id(f"user/{email}"),
            name=name,
            email=f"{email}@harbour.example.com",
            avatar_url=avatar,
            me=me,
        )
        account.users[user.id] = user


def author_of(user: User) -> dict[str, Any]:
    """Return a user as the author of a comment."""
    return {"id": user.id, "name": user.name, "email": user.email, "avatar_url": user.avatar_url}


class MissiveGenerator:
    """Builds an account.

    Args:
        seed: Decides the content.
        conversations: How many conversations.
        end: Unix second at which the history ends.
    """

    def __init__(self, *, seed: int, conversations: int, end: int) -> None:
        self.random = random.Random(f"missive {seed}")  # noqa: S311 - a simulation, not a secret
        self.write = Writer(self.random)
        self.seed = seed
        self.count = conversations
        self.end = end
        self.account = MissiveAccount()
        self._numbers = 0
        self._mails_made = 0

    def build(self) -> MissiveAccount:
        """Return the account."""
        add_directories(self.account)
        self._labels()
        tie = self.end - 20 * DAY
        for place in range(self.count):
            tied = 10 <= place < 10 + TIED
            at = tie if tied else self.end - 60 - place * (400 * DAY // max(self.count, 1))
            self.account.add(self._conversation(place, at))
        return self.account

    def _new_id(self, kind: str) -> str:
        self._numbers += 1
        return make_id(f"{self.seed}/{kind}/{self._numbers}")

    def _labels(self) -> None:
        parent = make_id("label/Projects")
        for name, above in (
            ("Orders", None),
            ("Projects", None),
            ("Berlin, East", parent),
            ("Größe", parent),
            ("発注", None),
            ("orders", None),
        ):
            key = make_id(f"label/{name}")
            self.account.labels[key] = Label(
                id=key,
                name=name,
                parent=above,
                color=None if above else "#2266ff",
                everybody=above is None,
            )

    def _conversation(self, place: int, at: int) -> Conversation:
        key = self._new_id("conversation")
        if place % 37 == 20:
            return Conversation(id=key, created_at=at, last_activity_at=at, guest=True)
        users = list(self.account.users)
        made = Conversation(
            id=key,
            created_at=at - 5 * DAY,
            last_activity_at=at,
            subject=None if place % 9 == 1 else self.write.title(place),
            team=place % 3 != 2,
            label_ids=self.random.sample(list(self.account.labels), place % 4 if place % 2 else 0),
            assignee_ids=users[: place % 3],
            states={user: set() for user in users},
        )
        self._states(made, place)
        self._mails(made, place, at)
        self._notes(made, place, at)
        if place % 15 == 7:
            self._draft(made, at)
        if place % 20 == 3:
            self._post(made, at)
        return made

    def _states(self, made: Conversation, place: int) -> None:
        me, other = list(self.account.users)
        mine, others = made.states[me], made.states[other]
        if place % 6 == 5:
            mine.add("closed")
            others.add("closed")
        if place % 17 == 8:
            mine.add("trashed")
        if place % 17 == 9:
            others.add("trashed")
        if place % 31 == 11:
            mine.add("junked")
            others.add("junked")
        if place % 19 == 4:
            mine.add("archived")
        if place % 23 == 6:
            mine.add("snoozed")
        if place % 8 == 0:
            mine.add("flagged")

    def _mails(self, made: Conversation, place: int, at: int) -> None:
        count = {2: 25, 3: 11, 12: 14}.get(place, 1 + place % 4)
        for number in range(count):
            back = (count - 1 - number) * (0 if place == 12 else 3600)
            made.messages.append(self._mail(made, place, number, at - back))

    def _mail(self, made: Conversation, place: int, number: int, at: int) -> Mail:
        key = self._new_id("message")
        self._mails_made += 1
        mail = Mail(
            id=key,
            conversation_id=made.id,
            created_at=at,
            updated_at=at,
            delivered_at=at,
            subject=made.subject if made.subject is not None else f"Re: {self.write.title(place + 1)}",
            preview="",
            body=HUGE if place == 6 and number == 0 else self.write.markup(self._mails_made),
        )
        if place % 14 == 13:
            made.subject = "Text from +49 30 5550100"
            self._shape_sms(mail, number)
        else:
            self._shape_email(mail, made, place, number)
        mail.preview = (mail.body or "")[:60].replace("<", " ").replace(">", " ")
        return mail

    def _shape_sms(self, mail: Mail, number: int) -> None:
        mail.type = "sms" if number % 2 == 0 else "custom_text"
        mail.subject = None
        mail.body = None if number % 3 == 1 else self.write.plain(number)
        mail.sender = {"id": "+49305550100", "name": None, "phone_number": "+49305550100"}
        if mail.type == "custom_text":
            mail.sender = {"id": "u-17", "username": "clara_v", "name": "Clara"}
        mail.to = [{"phone_number": "+4930555019"}]

    def _shape_email(self, mail: Mail, made: Conversation, place: int, number: int) -> None:
        who = (place + number) % len(FIRST_NAMES)
        address = f"Person{who}@Customer.example.com"
        mail.sender = {"name": f"{FIRST_NAMES[who]} {LAST_NAMES[who]}".strip(), "address": address}
        mail.to = [{"name": "Harbour Support", "address": "support@harbour.example.com"}]
        mail.email_message_id = f"<{mail.id}@customer.example.com>"
        if number and made.messages[-1].email_message_id:
            mail.in_reply_to = [made.messages[-1].email_message_id]
            mail.references = [earlier.email_message_id or "" for earlier in made.messages[-5:]]
        if number % 3 == 2:
            me = self.account.me
            mail.author_id = me.id
            mail.sender = {"name": me.name, "address": me.email}
            mail.cc = [{"name": "", "address": "cc@customer.example.com"}]
        if place % 26 == 14:  # Nobody is named anywhere.
            mail.sender, mail.to, mail.email_message_id = None, [], None
        if place % 5 == 0:
            mail.attachments = [self._attachment(place + extra) for extra in range(1 + place % 3)]

    def _attachment(self, place: int) -> Attachment:
        name, media_type, sub_type, width = FILES[place % len(FILES)]
        return Attachment(
            id=self._new_id("attachment"),
            filename=name,
            media_type=media_type,
            sub_type=sub_type,
            size=self.random.choice((0, 512, 2311, 183_204)),
            width=width,
            height=None if width is None else width // 3,
        )

    def _notes(self, made: Conversation, place: int, at: int) -> None:
        users = list(self.account.users.values())
        for number in range({1: 23, 4: 11}.get(place, place % 3)):
            author = users[number % 2]
            note = Note(
                id=self._new_id("comment"),
                body=self.write.plain(self._numbers),
                created_at=at if place == 4 else at - number * 600,
                author=None if number == 7 else author_of(author),
            )
            if number % 4 == 1:
                note.mentions = [{"id": users[0].id, "index": 0, "length": 4}]
            if number % 5 == 2:
                note.attachment = self._attachment(number)
            if number % 6 == 3:
                assignee = {"id": author.id, "name": author.name, "email": author.email}
                note.task = {"completed_at": None if number % 2 else at, "assignees": [assignee]}
            made.notes.append(note)

    def _draft(self, made: Conversation, at: int) -> None:
        draft = self._mail(made, 0, 0, at)
        draft.draft, draft.delivered_at, draft.author_id = True, None, self.account.me.id
        made.messages.append(draft)

    def _post(self, made: Conversation, at: int) -> None:
        made.posts.append(
            {
                "id": self._new_id("post"),
                "created_at": at,
                "username": "ERP",
                "text": self.write.plain(self._numbers),
                "author": author_of(self.account.me),
                "attachments": [],
            }
        )
