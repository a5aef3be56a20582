"""Missive's hooks: those made through the API, and rules as people make them in the UI."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from twm_pipeline.sandbox.answers import Answers
from twm_pipeline.sandbox.deliveries import ACCEPTED, ANSWER_SECONDS, Deliveries
from twm_pipeline.sandbox.gate import JSON
from twm_pipeline.sandbox.hooks import API_TYPES, DELETED, JSON_TYPE, RULE_TYPES, Hook, is_web_address
from twm_pipeline.sandbox.missive_account import make_id
from twm_pipeline.sandbox.options import Json

FILTERS = (
    "organization",
    "content_contains",
    "content_starts_with",
    "content_ends_with",
    "is_task",
    "author",
    "mention",
    "from_eq",
    "subject_contains",
)
UNKNOWN_KEY = "a key that nobody is told"
VALIDATION_BODIES = {"empty_object": b"{}", "empty": b""}
ErrorAnswer = Callable[[int, str], Response]


class MissiveHooks:
    """The hooks of an account.

    Args:
        answers: The open questions.
        deliveries: Takes on what an event gives to tell.
    """

    def __init__(self, *, answers: Answers, deliveries: Deliveries) -> None:
        self.answers = answers
        self.deliveries = deliveries
        self.hooks: dict[str, Hook] = {}
        self._made = 0
        self._events = 0

    def routes(self, error: ErrorAnswer) -> list[BaseRoute]:
        """Return the endpoints; *error* words the refusals."""

        async def create(request: Request) -> Response:
            return await self._create(request, error)

        async def delete(request: Request) -> Response:
            return self._delete(request, error)

        return [
            Route("/hooks", create, methods=["POST"]),
            Route("/hooks/{id}", delete, methods=["DELETE"]),
        ]

    async def _create(self, request: Request, error: ErrorAnswer) -> Response:
        fields = parse_hook(request.headers.get("content-type", ""), await request.body())
        if fields is None:
            return error(400, "param is missing or the value is empty: hooks")
        kind, url = fields.pop("type", None), fields.pop("url", None)
        unknown = [name for name in fields if name not in FILTERS]
        if unknown:
            return error(400, f"Unpermitted parameters: {', '.join(unknown)}")
        if kind not in API_TYPES:
            return error(422, "Validation failed: type is not included in the list")
        if not is_web_address(url):
            return error(422, "Validation failed: url is invalid")
        hook = self._new(kind, url, filters=fields)
        if self.answers["missive.hook_signature"] == "unknown_key":
            hook.secret = UNKNOWN_KEY
        if self.answers["missive.hook_validation"] and not await self._is_valid(hook):
            return error(422, "Validation failed: url did not answer")
        self.hooks[hook.id] = hook
        return JSON({"hooks": {"id": hook.id}}, int(self.answers["missive.hook_created_status"]))

    def _delete(self, request: Request, error: ErrorAnswer) -> Response:
        hook = self.hooks.get(request.path_params["id"])
        if hook is None or hook.rule:
            return error(404, "")
        self._remove(hook)
        return JSON({})

    # The UI.

    async def create_rule(self, *, type: str, url: str, secret: str | None = None) -> str:  # noqa: A002 - Missive's word
        """Save a rule with a webhook action and return its id.

        Raises:
            ValueError: If the type is unknown, or the address does not answer 2xx at once.
        """
        if type not in RULE_TYPES or not is_web_address(url):
            raise ValueError(f"no rule of type {type!r} for this address; known types: {RULE_TYPES}")
        hook = self._new(type, url, secret=secret, rule=True)
        if not await self._is_valid(hook):
            raise ValueError("the address did not answer the validation request with 2xx")
        self.hooks[hook.id] = hook
        return hook.id

    def delete_rule(self, *, rule_id: str) -> None:
        """Delete a rule; a hook made through the API is one too."""
        self._remove(self.hooks[rule_id])

    def actions(self) -> dict[str, Callable[..., Any]]:
        """Return what people do in the UI, by name."""
        return {"create_rule": self.create_rule, "delete_rule": self.delete_rule}

    def _new(self, event: str, url: str, **fields: Json) -> Hook:
        self._made += 1
        key = make_id(f"hook/{self._made}")
        return Hook(id=key, vendor="missive", event=event, url=url, content_type=JSON_TYPE, **fields)

    def _remove(self, hook: Hook) -> None:
        hook.status = DELETED
        del self.hooks[hook.id]

    async def _is_valid(self, hook: Hook) -> bool:
        """Send a validation request, signed like a delivery, and say whether it was answered 2xx."""
        form = self.answers["missive.validation_body"]
        body = VALIDATION_BODIES.get(form, orjson.dumps({"rule": rule_row(hook)}))
        status = await self.deliveries.courier.post(
            hook.url, headers=delivery_headers(hook, body), body=body, seconds=ANSWER_SECONDS["missive"]
        )
        return status in ACCEPTED["missive"]

    def fire(self, event: str, content: dict[str, Any], *, text: str) -> None:
        """Tell the hooks of an event; *text* is what filters on content look at."""
        for hook in self.hooks.values():
            if hook.event == event and passes(hook.filters, content, text):
                self._events += 1
                body = orjson.dumps({"rule": rule_row(hook)} | content)
                self.deliveries.add(
                    hook,
                    key=make_id(f"delivery/{self._events}"),
                    object_id=content["conversation"]["id"],
                    headers=delivery_headers(hook, body),
                    body=body,
                )


def rule_row(hook: Hook) -> dict[str, Any]:
    """Return a hook as deliveries name it."""
    return {"id": hook.id, "description": "Webhook" if hook.rule else None, "type": hook.event}


def passes(filters: dict[str, Any], content: dict[str, Any], text: str) -> bool:
    """Say whether an event passes the filters of a hook."""
    child = content.get("message") or content.get("comment") or {}
    sender = (child.get("from_field") or {}).get("address") or ""
    mentioned = [row.get("id") for row in child.get("mentions", ())]
    tests: dict[str, Callable[[Any], bool]] = {
        "organization": lambda value: value == content["conversation"]["organization"]["id"],
        "content_contains": lambda value: str(value).lower() in text.lower(),
        "content_starts_with": lambda value: text.lower().startswith(str(value).lower()),
        "content_ends_with": lambda value: text.lower().endswith(str(value).lower()),
        "is_task": lambda value: bool(value) == (child.get("task") is not None),
        "author": lambda value: value == (child.get("author") or {}).get("id"),
        "mention": lambda value: value in mentioned,
        "from_eq": lambda value: sender.lower() == str(value).lower(),
        "subject_contains": lambda value: str(value).lower() in (child.get("subject") or "").lower(),
    }
    return all(tests[name](value) for name, value in filters.items())


def delivery_headers(hook: Hook, body: bytes) -> dict[str, str]:
    """Return the headers of a delivery, signed where the hook has a secret."""
    headers = {"Content-Type": JSON_TYPE}
    if hook.secret:
        digest = hmac.new(hook.secret.encode(), body, hashlib.sha256).hexdigest()
        headers["X-Hook-Signature"] = f"sha256={digest}"
    return headers


def parse_hook(content_type: str, body: bytes) -> dict[str, Any] | None:
    """Return what a request says of a hook; None where it is no JSON with `hooks`."""
    if not content_type.startswith(JSON_TYPE):
        return None
    try:
        sent = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    inner = sent.get("hooks") if isinstance(sent, dict) else None
    return dict(inner) if isinstance(inner, dict) else None
