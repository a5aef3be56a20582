"""Hooks at Missive: `POST /hooks` and `DELETE /hooks/:id`; a list of them cannot be had.

Facts: Missive's documentation, "REST API — Endpoints" and "Webhooks" (missiveapp.com/docs/developers).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from twm_pipeline.errors import NotFoundError, RequestRefusedError, UnansweredError

if TYPE_CHECKING:
    from twm_pipeline.http import VendorSession

API_EVENTS = (
    "incoming_email",
    "incoming_sms_message",
    "incoming_facebook_message",
    "incoming_whatsapp_message",
    "incoming_twilio_chat_message",
    "new_comment",
)
"""Every type that can be asked for by API; Missive signs none of them."""

RULE_EVENT = "rule"
"""Our name for whatever a rule made in Missive's settings sends."""

_ID = re.compile(r"[\w-]{1,100}", re.ASCII)


class MissiveHooks:
    """The hooks of the token's owner; in Missive's settings they are shown among the rules."""

    def __init__(self, session: VendorSession) -> None:
        self.session = session

    def fetch(self) -> None:
        """Return None: what exists cannot be listed."""

    def enable(self) -> None:
        """Do nothing: the feature is always on."""

    def resume(self, hook_id: str) -> None:
        """Refuse: that a hook is switched off cannot be seen, so nobody may think so."""
        msg = f"Missive cannot resume the hook {hook_id}"
        raise RequestRefusedError(msg)

    def create(self, *, event: str, url: str, secret: str) -> str:
        """Make a hook below *url*, on the path *secret* that nobody else knows, and return its id.

        Raises:
            UnansweredError: If the answer names no id; the hook may have been made.
        """
        body = {"hooks": {"type": event, "url": f"{url}/{secret}"}}
        reply = self.session.send("POST", "/hooks", body=body)
        found = reply.data.get("hooks") if isinstance(reply.data, dict) else None
        row = found[0] if isinstance(found, list) and found else found
        hook_id = row.get("id") if isinstance(row, dict) else None
        if not isinstance(hook_id, str) or not _ID.fullmatch(hook_id):
            msg = "Missive POST /hooks: the answer names no id"
            raise UnansweredError(msg)
        return hook_id

    def delete(self, hook_id: str) -> None:
        """Remove a hook; one that is gone already is no error."""
        try:
            self.session.send("DELETE", f"/hooks/{hook_id}")
        except NotFoundError:
            return
