"""Vendor-like JSON of realistic size, seeded: tasks as Teamwork lists them, messages as Missive answers them.

Sizes follow public trackers and mailing lists: half of all descriptions have at most 300 characters, half of
all message bodies at most 1,000, with a long tail (mean about 1,000 and 3,200). A fifth of the messages is
the kind of HTML that shops and newsletters send: nested tables with inline styles.
"""

from __future__ import annotations

import random
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

Json = dict[str, Any]

START = datetime(2024, 1, 1, tzinfo=UTC)
# fmt: off
WORDS = (
    "about", "after", "account", "agreed", "answer", "approve", "before", "budget", "calendar",
    "change", "client", "concrete", "contract", "date", "delivery", "document", "drawing", "estimate",
    "foundation", "harbour", "invoice", "issue", "later", "letter", "load", "meeting", "message",
    "need", "number", "offer", "order", "page", "paint", "part", "payment", "permit", "plan", "please",
    "project", "question", "reason", "report", "review", "schedule", "section", "send", "sheet", "site",
    "steel", "supplier", "table", "thanks", "tomorrow", "update", "version", "warehouse", "week",
    "whether", "work", "years", "Größe", "Prüfung", "Straße", "für", "nächste", "über", "prêt",
    "société", "informação", "図面", "確認",
)
# fmt: on
PARAGRAPHS = 4_000
LONGEST_TASK_TEXT = 60_000
LONGEST_BODY = 200_000
DESCRIPTION_MEDIAN, DESCRIPTION_SPREAD = 300.0, 1.35
BODY_MEDIAN, BODY_SPREAD = 1_000.0, 1.5
NEWSLETTER_SHARE = 0.2
CELL_STYLE = "padding:12px 24px;font-family:Arial,Helvetica,sans-serif;font-size:14px;color:#333333"


class Content:
    """Writes texts and rows from a seed.

    Args:
        seed: Decides everything.
    """

    def __init__(self, seed: int = 7) -> None:
        self.random = random.Random(f"bench {seed}")  # noqa: S311 - a benchmark, not a secret
        self._paragraphs = [self._paragraph() for _ in range(PARAGRAPHS)]

    def _paragraph(self) -> str:
        words = self.random.choices(WORDS, k=self.random.randint(8, 90))
        return " ".join(words).capitalize() + "."

    def paragraphs(self, median: float, spread: float, longest: int) -> list[str]:
        """Return paragraphs of a lognormally distributed length together."""
        wanted = min(self.random.lognormvariate(0.0, spread) * median, longest)
        chosen: list[str] = []
        length = 0
        while length < wanted:
            text = self.random.choice(self._paragraphs)
            chosen.append(text[: max(int(wanted) - length, 12)])
            length += len(text)
        return chosen

    def title(self, number: int) -> str:
        """Return a short title."""
        return " ".join(self.random.choices(WORDS, k=self.random.randint(3, 9))) + f" {number}"

    def body(self) -> str:
        """Return the HTML body of a message."""
        texts = self.paragraphs(BODY_MEDIAN, BODY_SPREAD, LONGEST_BODY)
        if self.random.random() < NEWSLETTER_SHARE:
            cells = "".join(
                f'<tr><td style="{CELL_STYLE}"><p style="margin:0 0 8px">{text}</p>'
                f'<a href="https://shop.example.com/c/{index}?utm_source=mail" style="color:#0a58ca">More</a>'
                "</td></tr>"
                for index, text in enumerate(texts)
            )
            table = '<table width="600" cellpadding="0" cellspacing="0" border="0">'
            return f"<html><body><style>td{{color:#333}}</style>{table}{cells}</table></body></html>"
        return "<div>" + "<br><br>".join(texts) + "</div>"

    def task(self, number: int) -> Json:
        """Return task *number* as a row of `tasks.json`."""
        pick = self.random
        created = START + timedelta(seconds=number * 60)
        updated = created + timedelta(seconds=pick.randrange(40_000_000))
        done = number % 3 == 1
        people = [300_000 + pick.randrange(40) for _ in range(number % 3)]
        tags = sorted({900_000 + pick.randrange(60) for _ in range(number % 4)})
        return {
            "id": 1_000_000 + number,
            "name": self.title(number),
            "description": "\n\n".join(
                self.paragraphs(DESCRIPTION_MEDIAN, DESCRIPTION_SPREAD, LONGEST_TASK_TEXT)
            ),
            "descriptionContentType": "TEXT",
            "priority": (None, "low", "medium", "high")[number % 4],
            "progress": 100 if done else pick.randrange(100),
            "status": "completed" if done else "new",
            "isPrivate": 0,
            "sequence": None,
            "startDate": created.date().isoformat(),
            "dueDate": (created + timedelta(days=30)).date().isoformat() if number % 2 else None,
            "estimateMinutes": 30 * (number % 16),
            "accumulatedEstimatedMinutes": 30 * (number % 16),
            "tasklist": {"id": 700_000 + number % 900, "type": "tasklists"},
            "tasklistId": 700_000 + number % 900,
            "parentTask": None,
            "parentTaskId": 0,
            "subTaskIds": None,
            "assignees": [{"id": item, "type": "users"} for item in people],
            "assigneeUserIds": people,
            "tags": [{"id": item, "type": "tags"} for item in tags],
            "tagIds": tags,
            "attachments": None,
            "workflowStages": [],
            "createdBy": 300_000 + number % 40,
            "createdAt": iso(created),
            "updatedBy": 300_000 + number % 37,
            "updatedAt": iso(updated),
            "dateUpdated": iso(updated),
            "completedBy": 300_000 + number % 31 if done else None,
            "completedAt": iso(updated) if done else None,
            "deletedBy": None,
            "deletedAt": None,
        }

    def message(self, number: int) -> Json:
        """Return message *number* as answered by `GET /messages/:id`; three share a conversation."""
        delivered = int(START.timestamp()) + number * 60
        subject = self.title(number)
        return {
            "id": make_id("message", number),
            "subject": subject,
            "preview": self.random.choice(self._paragraphs)[:120],
            "type": "email",
            "delivered_at": delivered,
            "updated_at": delivered + 10,
            "created_at": delivered,
            "email_message_id": f"<{number}.bench@mail.example.com>",
            "in_reply_to": [f"<{number - 1}.bench@mail.example.com>"] if number % 3 else [],
            "references": [f"<{number - back}.bench@mail.example.com>" for back in range(number % 3)],
            "from_field": self._address(number),
            "to_fields": [{"name": "Harbour Support", "address": "support@harbour.example.com"}],
            "cc_fields": [self._address(number + 7 * place) for place in range(number % 3)],
            "bcc_fields": [],
            "reply_to_fields": [],
            "attachments": [attachment(number, place) for place in range(2 if number % 9 == 0 else 0)],
            "author": None,
            "external_id": None,
            "account_author": None,
            "account_recipients": [],
            "body": self.body(),
            "conversation": self._conversation(number // 3, subject, delivered),
        }

    def _address(self, number: int) -> Json:
        return {"name": f"Person {number % 911}", "address": f"Person.{number % 911}@customer.example.com"}

    def _conversation(self, number: int, subject: str, at: int) -> Json:
        users = [user(place) for place in range(2)]
        return {
            "id": make_id("conversation", number),
            "created_at": at,
            "subject": subject,
            "latest_message_subject": subject,
            "organization": {"id": make_id("organization", 1), "name": "Harbour Example GmbH"},
            "team": {"id": make_id("team", 1), "name": "Support", "organization": make_id("organization", 1)},
            "assignees": users[:1],
            "users": users,
            "shared_labels": [],
            "shared_label_names": "",
            "messages_count": 3,
            "web_url": f"https://mail.missiveapp.com/#inbox/conversations/{make_id('conversation', number)}",
            "last_activity_at": at,
        }


def user(place: int) -> Json:
    """Return one of the account's users with their state of a conversation."""
    states = ("unassigned", "closed", "archived", "trashed", "junked", "assigned", "flagged", "snoozed")
    return {
        "id": make_id("user", place),
        "name": f"User {place}",
        "email": f"user{place}@harbour.example.com",
        **dict.fromkeys(states, False),
    }


def attachment(number: int, place: int) -> Json:
    """Return an attachment with the signed address that changes on every read."""
    key = make_id(f"attachment {place}", number)
    return {
        "id": key,
        "filename": f"offer-{number}-{place}.pdf",
        "extension": "pdf",
        "url": f"https://attachments.example.com/{key}/file?Expires={number}&Signature=bench",
        "media_type": "application",
        "sub_type": "pdf",
        "size": 183_204,
        "width": None,
        "height": None,
    }


def make_id(kind: str, number: int) -> str:
    """Return a stable UUID."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"bench/{kind}/{number}"))


def iso(moment: datetime) -> str:
    """Return *moment* as Teamwork writes it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
