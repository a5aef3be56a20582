"""Hooks at Missive: `POST /hooks` and `DELETE /hooks/:id`; a list of them cannot be had.

Facts: Missive's documentation, "REST API — Endpoints" and "Webhooks" (missiveapp.com/docs/developers).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twm_pipeline.errors import NotFoundError, UnansweredError

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


class MissiveHooks:
    """The hooks of the token's owner."""

    def __init__(self, session: VendorSession) -> None:
        self.session = session

    def create(self, event: str, url: str) -> str:
        """Make a hook and return its id.

        Raises:
            UnansweredError: If the answer names no id; the hook may have been made.
        """
        reply = self.session.send("POST", "/hooks", body={"hooks": {"type": event, "url": url}})
        found = reply.data.get("hooks") if isinstance(reply.data, dict) else None
        if isinstance(found, list) and found:
            found = found[0]
        hook_id = found.get("id") if isinstance(found, dict) else None
        if not isinstance(hook_id, str | int) or isinstance(hook_id, bool) or not str(hook_id):
            msg = "Missive POST /hooks: the answer names no id"
            raise UnansweredError(msg)
        return str(hook_id)

    def delete(self, hook_id: str) -> None:
        """Remove a hook; one that is gone already is no error."""
        try:
            self.session.send("DELETE", f"/hooks/{hook_id}")
        except NotFoundError:
            return
