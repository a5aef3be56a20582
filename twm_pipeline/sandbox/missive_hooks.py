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
from twm_pipeline.sandbox.courier import Courier
from twm_pipeline.sandbox.gate import JSON
from twm_pipeline.sandbox.hooks import API_TYPES, DELETED, JSON_TYPE, RULE_TYPES, Hook, is_web_address
from twm_pipeline.sandbox.missive_account import make_id
from twm_pipeline.sandbox.options import Json

ANSWER_SECONDS = 15.0
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
        courier: Brings the validation requests.
    """

    def __init__(self, *, answers: Answers, courier: Courier) -> None:
        self.answers = answers
        self.courier = courier
        self.hooks: dict[str, Hook] = {}
        self._made = 0

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
        status = await self.courier.post(
            hook.url, headers=delivery_headers(hook, body), body=body, seconds=ANSWER_SECONDS
        )
        return 200 <= status < 300  # noqa: PLR2004 - 2xx


def rule_row(hook: Hook) -> dict[str, Any]:
    """Return a hook as deliveries name it."""
    return {"id": hook.id, "description": "Webhook" if hook.rule else None, "type": hook.event}


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
