"""Missive's HTTP interface: its paths, its pages and what it refuses."""

from __future__ import annotations

import math
import uuid
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from twm_pipeline.sandbox.answers import Answers
from twm_pipeline.sandbox.budgets import MINUTE_SECONDS, Budget, Verdict, Window
from twm_pipeline.sandbox.gate import JSON, Vendor
from twm_pipeline.sandbox.missive_account import Conversation, Mail, MissiveAccount, Note
from twm_pipeline.sandbox.missive_files import FileStorage
from twm_pipeline.sandbox.missive_hooks import MissiveHooks
from twm_pipeline.sandbox.missive_rows import MissiveRows, Row, delivered, user_row
from twm_pipeline.sandbox.options import MISSIVE_TOKEN, Clock, Json

MAILBOXES = ("inbox", "all", "assigned", "closed", "snoozed", "flagged", "trashed", "junked", "drafts")
LEFT_OUT = ("trashed", "junked", "closed")
ID_MAILBOXES = ("shared_label", "team_inbox", "team_closed", "team_all")
FILTERS = ("organization", "email", "domain", "contact_organization")
SMALL_PAGE = 10
CONVERSATION_LIMITS = (25, 50)
DIRECTORY_LIMITS = (50, 200)
ERRORS = {
    401: "Authentication token is invalid or has been revoked",
    404: "Not found",
    429: "Rate limit exceeded",
}


class RefusedError(Exception):
    """A request that the vendor answers with 400."""


class Missive(Vendor):
    """A Missive account.

    Args:
        account: What exists.
        hooks: Its hooks.
        answers: The open questions.
        clock: The account's time.
    """

    name = "missive"

    def __init__(
        self, account: MissiveAccount, *, hooks: MissiveHooks, answers: Answers, clock: Clock
    ) -> None:
        windows = [Window(lambda: 300, MINUTE_SECONDS), Window(lambda: 900, 15 * MINUTE_SECONDS)]
        budget = Budget(windows, concurrency=5, sliding=lambda: answers["missive.window"] == "sliding")
        super().__init__(answers=answers, clock=clock, budget=budget, key=MISSIVE_TOKEN)
        self.account = account
        self.hooks = hooks
        self.files = FileStorage(account, answers=answers, clock=clock)
        self.rows = MissiveRows(account, self.files)

    # What the door asks.

    def is_authorised(self, authorization: str) -> bool:
        """Accept the token as Bearer."""
        return authorization == f"Bearer {self.key}"

    def error(self, status: int, message: str = "") -> JSON:
        """Return an error in the shape the answers ask for; 401 has been seen and is fixed."""
        text = message or ERRORS.get(status, "Error")
        shape = "error" if status == HTTPStatus.UNAUTHORIZED else self.answers["missive.error_shape"]
        if shape == "errors":
            return JSON({"errors": [{"message": text}]}, status)
        return JSON({"message": text} if shape == "message" else {"error": {"message": text}}, status)

    def budget_headers(self, verdict: Verdict, status: int) -> dict[str, str]:
        """Return the budget with a 429, and elsewhere where the answers say so."""
        if status != HTTPStatus.TOO_MANY_REQUESTS and not self.answers["missive.rate_headers_on_200"]:
            return {}
        return {
            "X-RateLimit-Limit": str(verdict.limit),
            "X-RateLimit-Remaining": str(0 if status == HTTPStatus.TOO_MANY_REQUESTS else verdict.remaining),
            "X-RateLimit-Reset": str(self.clock.now() + math.ceil(verdict.reset_seconds)),
        }

    def routes(self) -> list[BaseRoute]:
        """Return the endpoints."""
        get = self._route
        return [
            get(
                "/conversations", self._conversations, (*MAILBOXES, *ID_MAILBOXES, *FILTERS, "limit", "until")
            ),
            get("/conversations/{id}", self._conversation),
            get("/conversations/{id}/messages", self._messages_of, ("limit", "until")),
            get("/conversations/{id}/comments", self._comments_of, ("limit", "until")),
            get("/conversations/{id}/drafts", self._drafts_of, ("limit", "until")),
            get("/conversations/{id}/posts", self._posts_of, ("limit", "until")),
            get("/messages", self._search, ("email_message_id",)),
            get("/messages/{ids}", self._messages),
            *self._directory("users", lambda: [user_row(user) for user in self.account.users.values()]),
            *self._directory("teams", lambda: [self.account.team]),
            *self._directory("organizations", lambda: [self.account.organization]),
            *self._directory("shared_labels", self.rows.label_rows),
            *self.hooks.routes(self.error),
            Route("/{rest:path}", self._unknown),
        ]

    def _route(
        self, path: str, answer: Callable[[Request], Response], permitted: Sequence[str] = ()
    ) -> Route:
        async def endpoint(request: Request) -> Response:
            unknown = [name for name in request.query_params if name not in permitted]
            if unknown:
                return self.error(400, f"Unpermitted parameters: {', '.join(unknown)}")
            try:
                return answer(request)
            except RefusedError as error:
                return self.error(400, str(error))

        return Route(path, endpoint, methods=["GET"])

    def _directory(self, name: str, read: Callable[[], list[Row]]) -> list[BaseRoute]:
        def answer(request: Request) -> Response:
            limit = self._limit(request, DIRECTORY_LIMITS)
            start = number(request, "offset", 0)
            return JSON({name: read()[start : start + limit]})

        return [self._route(f"/{name}", answer, ("limit", "offset", "organization"))]

    async def _unknown(self, _: Request) -> Response:
        return self.error(404)

    def _limit(self, request: Request, limits: tuple[int, int]) -> int:
        default, most = limits
        limit = max(number(request, "limit", default), 1)
        if limit > most and self.answers["missive.limit_over_max"] == "400":
            raise RefusedError(f"limit must be at most {most}")
        return min(limit, most)

    # Conversations.

    def _conversations(self, request: Request) -> Response:
        tests = self._mailboxes(request)
        if not tests:
            raise RefusedError("You need to paginate at least one mailbox")
        limit = self._limit(request, CONVERSATION_LIMITS)
        until = optional_number(request, "until")
        wanted = contact_test(request)
        organization = request.query_params.get("organization", self.account.organization["id"])
        if organization != self.account.organization["id"] and not shared_mailbox(request):
            return JSON({"conversations": []})
        found: list[Conversation] = []
        for conversation in self._newest_first(until):
            if len(found) >= limit and conversation.last_activity_at != found[-1].last_activity_at:
                break
            if any(test(conversation) for test in tests) and wanted(conversation):
                found.append(conversation)
        return JSON({"conversations": [self.rows.conversation_row(item) for item in found]})

    def _newest_first(self, until: int | None) -> Iterator[Conversation]:
        keys = self.account.by_activity
        end = len(keys)
        if until is not None:
            inclusive = self.answers["missive.until_inclusive"]
            end = bisect_right(keys, (until, "~")) if inclusive else bisect_left(keys, (until, ""))
        for place in range(end - 1, -1, -1):
            conversation = self.account.conversations[keys[place][1]]
            if conversation.accessible:
                yield conversation

    def _mailboxes(self, request: Request) -> list[Callable[[Conversation], bool]]:
        tests: list[Callable[[Conversation], bool]] = []
        for name in MAILBOXES:
            if request.query_params.get(name, "").lower() in ("true", "1"):
                tests.append(lambda item, name=name: self._is_in(item, name))  # type: ignore[misc]
        for name in ID_MAILBOXES:
            if name in request.query_params:
                key = request.query_params[name]
                tests.append(lambda item, name=name, key=key: self._is_in_shared(item, name, key))  # type: ignore[misc]
        return tests

    def _is_in(self, item: Conversation, mailbox: str) -> bool:
        flags = item.states.get(self.account.me.id, set())
        if mailbox in ("trashed", "junked", "snoozed", "flagged"):
            return mailbox in flags
        if mailbox == "drafts":
            return any(mail.draft for mail in item.messages)
        if mailbox == "all":
            left_out = [name for name in LEFT_OUT if not self.answers[f"missive.all_includes_{name}"]]
            return not flags.intersection(left_out)
        inside = {
            "closed": "closed" in flags,
            "assigned": self.account.me.id in item.assignee_ids,
            "inbox": not flags.intersection(("closed", "archived", "snoozed")),
        }
        return inside[mailbox] and not flags.intersection(("trashed", "junked"))

    def _is_in_shared(self, item: Conversation, mailbox: str, key: str) -> bool:
        if item.guest:
            return False
        if mailbox == "shared_label":
            return key in item.label_ids
        closed = any("closed" in flags for flags in item.states.values())
        inside = item.team and key == self.account.team["id"]
        return inside and (mailbox == "team_all" or closed == (mailbox == "team_closed"))

    def _find(self, request: Request) -> Conversation | None:
        key = request.path_params["id"]
        if not is_uuid(key):
            raise RefusedError("Invalid resource ID(s)")
        return self.account.find(key)

    def _conversation(self, request: Request) -> Response:
        found = self._find(request)
        if found is None:
            return self.error(404)
        return JSON({"conversations": [self.rows.conversation_row(found)]})

    # Messages, comments, drafts, posts.

    def _until_page(self, request: Request, items: list[Any], at: Callable[[Any], int]) -> list[Any]:
        """Return one page, newest first; rows that share the last second stay together."""
        limit = self._limit(request, (SMALL_PAGE, SMALL_PAGE))
        until = optional_number(request, "until")
        inclusive = self.answers["missive.until_inclusive"]
        ordered = sorted(items, key=lambda item: (at(item), item_id(item)), reverse=True)
        if until is not None:
            ordered = [item for item in ordered if at(item) < until or (inclusive and at(item) == until)]
        page = ordered[:limit]
        page += [item for item in ordered[limit:] if at(item) == at(page[-1])]
        return page

    def _children(
        self, request: Request, name: str, pick: Callable[[Conversation], list[Any]]
    ) -> tuple[list[Any], Response | None]:
        """Return the children of the conversation asked for, or the answer where there is none."""
        found = self._find(request)
        if found is None or (found.guest and self.answers["missive.guest_children"] == "404"):
            return [], self.error(404)
        return ([], JSON({name: []})) if found.guest else (pick(found), None)

    def _messages_of(self, request: Request) -> Response:
        mails, refused = self._children(
            request, "messages", lambda item: [mail for mail in item.messages if not mail.draft]
        )
        page = [] if refused else self._until_page(request, mails, delivered)
        return refused or JSON({"messages": [self.rows.message_row(mail) for mail in page]})

    def _drafts_of(self, request: Request) -> Response:
        mails, refused = self._children(
            request, "drafts", lambda item: [mail for mail in item.messages if mail.draft]
        )
        page = [] if refused else self._drafts_page(request, mails)
        listed = self.answers["missive.draft_bodies"] == "listed"
        rows = [self.rows.message_row(mail) | ({"body": mail.body} if listed else {}) for mail in page]
        return refused or JSON({"drafts": rows})

    def _drafts_page(self, request: Request, drafts: list[Mail]) -> list[Mail]:
        """Return one page; the undated ones may stand first or last, and come whatever `until` says."""
        place = self.answers["missive.undated_drafts"]
        if place == "by_creation":
            return self._until_page(request, drafts, delivered)
        undated = [mail for mail in drafts if mail.delivered_at is None]
        until = optional_number(request, "until")
        inclusive = self.answers["missive.until_inclusive"]
        dated = sorted(
            (mail for mail in drafts if mail.delivered_at is not None), key=delivered, reverse=True
        )
        if until is not None:
            dated = [
                mail for mail in dated if delivered(mail) < until or (inclusive and delivered(mail) == until)
            ]
        ordered = undated + dated if place == "first" else dated + undated
        return ordered[: self._limit(request, (SMALL_PAGE, SMALL_PAGE))]

    def _comments_of(self, request: Request) -> Response:
        notes, refused = self._children(request, "comments", lambda item: item.notes)
        page = [] if refused else self._until_page(request, notes, lambda note: int(note.created_at))
        return refused or JSON({"comments": [self.rows.comment_row(note) for note in page]})

    def _posts_of(self, request: Request) -> Response:
        posts, refused = self._children(request, "posts", lambda item: item.posts)
        page = [] if refused else self._until_page(request, posts, lambda post: int(post["created_at"]))
        return refused or JSON({"posts": page})

    def _search(self, request: Request) -> Response:
        wanted = request.query_params.get("email_message_id")
        if not wanted:
            raise RefusedError("Invalid resource ID(s)")
        matches = [mail for mail in self.account.messages.values() if mail.email_message_id == wanted]
        found = [mail for mail in matches if not mail.draft and self.account.find_message(mail.id)]
        found.sort(key=lambda mail: (delivered(mail), mail.id), reverse=True)
        return JSON({"messages": [self.rows.full_message_row(mail) for mail in found[:SMALL_PAGE]]})

    def _messages(self, request: Request) -> Response:
        ids = list(dict.fromkeys(request.path_params["ids"].split(",")))
        if not all(is_uuid(key) for key in ids):
            raise RefusedError("Invalid resource ID(s)")
        several = "," in request.path_params["ids"]
        most = self.answers["missive.max_message_ids"]
        if len(ids) > most:
            if self.answers["missive.too_many_ids"] == "400":
                raise RefusedError("Invalid resource ID(s)")
            ids = ids[:most]
        alone = self.answers["missive.draft_bodies"] == "alone"
        found = [
            mail for key in ids if (mail := self.account.find_message(key)) and (alone or not mail.draft)
        ]
        missing = len(found) < len(ids)
        if missing and (not several or self.answers["missive.missing_in_multi"] == "404"):
            return self.error(404)
        rows = [self.rows.full_message_row(mail) for mail in found]
        if len(rows) == 1 and (not several or self.answers["missive.single_in_multi"] == "object"):
            return JSON({"messages": rows[0]})
        return JSON({"messages": rows})

    def fire(self, event: str, item: Conversation, child: Mail | Note | None = None) -> None:
        """Tell the hooks what happened in a conversation that the token's owner may see."""
        if not item.accessible or item.guest:
            return
        content: Row = {"conversation": self.rows.conversation_short(item)}
        if isinstance(child, Note):
            content["comment"] = self.rows.comment_row(child)
        elif child is not None:
            content["message"] = self.rows.message_row(child)
        else:
            newest = max((mail for mail in item.messages if not mail.draft), key=delivered, default=None)
            content["latest_message"] = None if newest is None else self.rows.message_row(newest)
        self.hooks.fire(event, content, text=(child.body or "") if child is not None else "")


def item_id(item: Json) -> str:
    """Return the id of a row or of a dataclass."""
    return str(item["id"] if isinstance(item, dict) else item.id)


def contact_test(request: Request) -> Callable[[Conversation], bool]:
    """Return the test of `email` and `domain`."""
    email = request.query_params.get("email", "").lower()
    domain = request.query_params.get("domain", "").lower()
    if not email and not domain:
        return lambda _: True

    def test(item: Conversation) -> bool:
        fields = [
            entry for mail in item.messages for entry in ([mail.sender] if mail.sender else []) + mail.to
        ]
        addresses = [str(entry.get("address", "")).lower() for entry in fields]
        return any(
            address == email or bool(domain and address.endswith("@" + domain)) for address in addresses
        )

    return test


def shared_mailbox(request: Request) -> bool:
    """Say whether a request names a mailbox by id, for which the organisation does not count."""
    return any(name in request.query_params for name in ID_MAILBOXES)


def is_uuid(value: str) -> bool:
    """Say whether a string has the form of an id."""
    try:
        return str(uuid.UUID(value)) == value
    except ValueError:
        return False


def optional_number(request: Request, name: str) -> int | None:
    """Return a numeric parameter, None when it is missing."""
    value = request.query_params.get(name)
    if value is None:
        return None
    try:
        return int(value)
    except ValueError:
        raise RefusedError(f"{name} is invalid") from None


def number(request: Request, name: str, default: int) -> int:
    """Return a numeric parameter."""
    value = optional_number(request, name)
    return default if value is None else value
