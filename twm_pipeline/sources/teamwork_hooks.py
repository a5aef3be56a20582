"""Webhooks of a Teamwork site: what is left of API v1 manages them, at the root of the site's address.

Facts: guides "Setting up webhooks", "Webhook events" and "Responding to a webhook" (apidocs.teamwork.com).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twm_pipeline.errors import NotFoundError, PagingError, UnansweredError

if TYPE_CHECKING:
    from twm_pipeline.http import VendorSession
    from twm_pipeline.records import Json

EVENTS = (
    *(
        f"TASK.{action}"
        for action in (
            *("CREATED", "UPDATED", "COMPLETED", "REOPENED", "DELETED"),
            *("MOVED", "TAGGED", "UNTAGGED", "REMINDER"),  # whether UPDATED is sent with them is not known
        )
    ),
    # A task list or project that comes or goes takes its tasks with it, without an event for each of them.
    *(
        f"TASKLIST.{action}"
        for action in ("CREATED", "CREATEDFROMTEMPLATE", "UPDATED", "COMPLETED", "REOPENED", "DELETED")
    ),
    *(
        f"PROJECT.{action}"
        for action in ("CREATED", "UPDATED", "COMPLETED", "REOPENED", "ARCHIVED", "COPIED", "DELETED")
    ),
    *(f"TIME.{action}" for action in ("CREATED", "UPDATED", "DELETED", "TAGGED", "UNTAGGED")),
    *(f"COMMENT.{action}" for action in ("CREATED", "UPDATED", "DELETED")),
)
"""What changes a task, directly or through what it lies in, and what people do on it."""

ACTIVE = "ACTIVE"
MAX_PAGES = 100
PAGE_SIZE = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedHook:
    """A webhook as the vendor lists it; the event and the status in upper case."""

    hook_id: str
    event: str
    url: str
    status: str = ACTIVE

    @property
    def is_active(self) -> bool:
        """Whether deliveries are sent."""
        return self.status == ACTIVE


class TeamworkHooks:
    """The webhooks of one site, those of the whole site and not of single projects."""

    def __init__(self, session: VendorSession) -> None:
        self.session = session

    def fetch(self) -> list[ListedHook]:
        """Return every webhook of the site, whoever made it.

        Whether the list is paged is not documented: a page that brings nothing new ends it.
        """
        found: dict[str, ListedHook] = {}
        for number in range(1, MAX_PAGES):
            reply = self.session.get("/webhooks.json", {"page": str(number), "pageSize": str(PAGE_SIZE)})
            page = {hook.hook_id: hook for hook in map(_parse, _rows(reply.data)) if hook is not None}
            if page.keys() <= found.keys():
                return list(found.values())
            found |= page
        msg = f"Teamwork GET /webhooks.json: more than {MAX_PAGES} pages"
        raise PagingError(msg)

    def enable(self) -> None:
        """Switch the feature on for the site; it is off until somebody does."""
        self.session.send("PUT", "/webhooks/enable.json")

    def create(self, *, event: str, url: str, secret: str) -> str:
        """Make a webhook whose deliveries are signed with *secret*, and return its id.

        Raises:
            UnansweredError: If the answer names no id; the webhook may have been made.
        """
        webhook = {
            "event": event,
            "url": url,
            "version": "2",  # without these three the body is a form and nothing is signed
            "contentType": "application/json",
            "token": secret,
        }
        reply = self.session.send("POST", "/webhooks.json", body={"webhook": webhook})
        hook_id = _id_of(reply.data)
        if hook_id is None:
            msg = "Teamwork POST /webhooks.json: the answer names no id"
            raise UnansweredError(msg)
        return hook_id

    def resume(self, hook_id: str) -> None:
        """Switch a webhook on again."""
        self.session.send("PUT", f"/webhooks/{hook_id}/resume.json")

    def delete(self, hook_id: str) -> None:
        """Remove a webhook; one that is gone already is no error.

        Raises:
            UnansweredError: It is said to be gone and listed all the same.
        """
        try:
            self.session.send("DELETE", f"/webhooks/{hook_id}.json")
        except NotFoundError as error:
            if any(hook.hook_id == hook_id for hook in self.fetch()):
                msg = f"{error}, but the list still has webhook {hook_id}"
                raise UnansweredError(msg) from error


def _rows(data: Any) -> list[Any]:  # noqa: ANN401 - any JSON value
    rows = data.get("webhooks") if isinstance(data, dict) else None
    if not isinstance(rows, list):
        msg = "Teamwork GET /webhooks.json: the answer is not a list of webhooks"
        raise PagingError(msg)
    return rows


def _parse(row: Any) -> ListedHook | None:  # noqa: ANN401 - any JSON value
    """Return a webhook, or None for a row that cannot be one of ours: it names no id or no address."""
    hook_id = _id_of(row)
    if hook_id is None or not isinstance(row.get("url"), str):
        return None
    return ListedHook(
        hook_id=hook_id,
        event=str(row.get("event") or "").upper(),
        url=row["url"],
        status=str(row.get("status") or ACTIVE).upper(),
    )


def _id_of(data: Any) -> str | None:  # noqa: ANN401 - any JSON value
    """Return an id: a string at the top level, as seen; a number or nested as in other answers of v1."""
    if not isinstance(data, dict):
        return None
    nested: Json | None = data.get("webhook")
    value = data.get("id", nested.get("id") if isinstance(nested, dict) else None)
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return str(value).strip() if str(value).strip().isdigit() else None
