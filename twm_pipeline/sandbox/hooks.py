"""What was subscribed: Teamwork's webhooks, Missive's API hooks, and the rules of Missive's UI."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

JSON_TYPE = "application/json"
FORM_TYPE = "application/x-www-form-urlencoded"
ACTIVE, INACTIVE, DELETED = "ACTIVE", "INACTIVE", "DELETED"
EVERYTHING = ("CREATED", "UPDATED", "DELETED")
TAGGING = ("TAGGED", "UNTAGGED")
TEAMWORK_ACTIONS = {
    "TASK": (*EVERYTHING, *TAGGING, "COMPLETED", "REOPENED", "MOVED", "REMINDER"),
    "TASKLIST": (*EVERYTHING, "CREATEDFROMTEMPLATE", "COMPLETED", "REOPENED"),
    "PROJECT": (*EVERYTHING, *TAGGING, "COMPLETED", "REOPENED", "ARCHIVED", "COPIED"),
    "COMMENT": EVERYTHING,
    "TIME": (*EVERYTHING, *TAGGING),
    "FILE": (*EVERYTHING, *TAGGING, "DOWNLOADED"),
    "USER": EVERYTHING,
    "COMPANY": EVERYTHING,
    "STATUS": EVERYTHING,
    "CALENDEREVENT": EVERYTHING,  # The vendor's spelling.
}
SITE_ONLY = ("USER", "COMPANY", "STATUS", "CALENDEREVENT")
TEAMWORK_EVENTS = frozenset(
    f"{kind}.{action}" for kind, names in TEAMWORK_ACTIONS.items() for action in names
)
API_TYPES = (
    "incoming_email",
    "incoming_sms_message",
    "incoming_facebook_message",
    "incoming_whatsapp_message",
    "incoming_twilio_chat_message",
    "new_comment",
)
# Of the names that only rules have, `label_change` alone has been seen; the others are ours.
RULE_TYPES = (
    *API_TYPES,
    "label_change",
    "outgoing_email",
    "assignment_change",
    "conversation_closed",
    "conversation_reopened",
)


@dataclass(slots=True, kw_only=True)
class Hook:
    """One subscription.

    Attributes:
        vendor: `teamwork` or `missive`.
        event: `TASK.CREATED`, or a rule's type such as `incoming_email`.
        secret: Key of the signatures; None for none.
        version: Teamwork's version of the bodies: `1` or `2`.
        project_id: Teamwork's project, None for the whole site.
        rule: True for a rule made in Missive's UI, which the API cannot delete.
        filters: What Missive's API hook was narrowed to.
        discarded: Deliveries given up since the hook was created or resumed.
    """

    id: str
    vendor: str
    event: str
    url: str
    secret: str | None = None
    version: str = "2"
    content_type: str = FORM_TYPE
    status: str = ACTIVE
    project_id: int | None = None
    rule: bool = False
    filters: dict[str, Any] = field(default_factory=dict)
    discarded: int = 0


def is_web_address(value: object) -> bool:
    """Say whether *value* is an address a vendor could post to."""
    try:
        parts = urlsplit(value if isinstance(value, str) else "")
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False
