"""Teamwork's webhooks: the part of version 1 that manages them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from twm_pipeline.sandbox.answers import Answers
from twm_pipeline.sandbox.bodies import Item, encode, event_content, project_of
from twm_pipeline.sandbox.deliveries import Deliveries
from twm_pipeline.sandbox.gate import JSON
from twm_pipeline.sandbox.hooks import (
    ACTIVE,
    DELETED,
    FORM_TYPE,
    JSON_TYPE,
    SITE_ONLY,
    TEAMWORK_EVENTS,
    Hook,
    is_web_address,
)
from twm_pipeline.sandbox.missive_account import make_id
from twm_pipeline.sandbox.teamwork_account import Task, TeamworkAccount

V1 = "/projects/api/v1"
FIRST_HOOK_ID = 41_001
DELIVERY_HEADER_EVERY = 20  # It has been seen, but rarely.
FIELDS = {
    "event": "event",
    "url": "url",
    "version": "version",
    "contentType": "content_type",
    "token": "secret",
}
Fields = dict[str, Any]


class HookRefusedError(Exception):
    """A request that is answered with an error of version 1.

    Args:
        status: The answer's status.
        message: The answer's text.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class TeamworkHooks:
    """The webhooks of a site.

    Args:
        account: What exists.
        answers: The open questions.
        deliveries: Takes on what an event gives to tell.
    """

    def __init__(self, account: TeamworkAccount, *, answers: Answers, deliveries: Deliveries) -> None:
        self.account = account
        self.answers = answers
        self.deliveries = deliveries
        self.hooks: dict[str, Hook] = {}
        self._enabled = False
        self._ids = itertools.count(FIRST_HOOK_ID)
        self._events = itertools.count(1)

    def routes(self) -> list[BaseRoute]:
        """Return the endpoints, at the site's root and below the prefix of version 1."""
        one = "/webhooks/{id:int}"
        return [
            route
            for prefix in ("", V1)
            for route in (
                self._route("GET", f"{prefix}/webhooks.json", self._list),
                self._route("POST", f"{prefix}/webhooks.json", self._create),
                self._route("GET", f"{prefix}/projects/{{project:int}}/webhooks.json", self._list),
                self._route("POST", f"{prefix}/projects/{{project:int}}/webhooks.json", self._create),
                self._route("PUT", f"{prefix}/webhooks/enable.json", self._enable),
                self._route("PUT", f"{prefix}{one}.json", self._change),
                self._route("DELETE", f"{prefix}{one}.json", self._delete),
                self._route("PUT", f"{prefix}{one}/pause.json", self._pause),
                self._route("PUT", f"{prefix}{one}/resume.json", self._resume),
                self._route("POST", f"{prefix}{one}/redeliver.json", self._redeliver),
            )
        ]

    def _route(self, method: str, path: str, answer: Callable[[Request, Fields], Response]) -> Route:
        async def endpoint(request: Request) -> Response:
            try:
                self._check_access(request)
                return answer(request, parse_fields(await request.body()))
            except HookRefusedError as error:
                return JSON({"STATUS": "Error", "MESSAGE": str(error)}, error.status)

        return Route(path, endpoint, methods=[method])

    def _check_access(self, request: Request) -> None:
        if not self.answers["teamwork.webhooks_allowed"]:
            raise HookRefusedError(403, "Only administrators can manage webhooks")
        before = self.answers["teamwork.webhooks_before_enabling"]
        if before != "open" and not self._enabled and not request.url.path.endswith("/enable.json"):
            raise HookRefusedError(int(before), "Webhooks are not enabled")
        project = self.account.projects.get(request.path_params.get("project", 0))
        if "project" in request.path_params and (
            project is None or not project.accessible or project.deleted_at is not None
        ):
            raise HookRefusedError(404, "Project not found")

    def _list(self, request: Request, _: Fields) -> Response:
        project_id = request.path_params.get("project")
        found = [hook for hook in self.hooks.values() if hook.project_id == project_id]
        headers: dict[str, str] = {}
        size = self.answers["teamwork.webhook_page_size"]
        if size:
            number = positive(request.query_params.get("page"), 1)
            size = min(positive(request.query_params.get("pageSize"), size), size)
            pages = max(math.ceil(len(found) / size), 1)
            headers = {"X-Page": str(number), "X-Pages": str(pages), "X-Records": str(len(found))}
            found = found[(number - 1) * size : number * size]
        return JSON({"STATUS": "OK", "webhooks": [hook_row(hook) for hook in found]}, headers=headers)

    def _create(self, request: Request, fields: Fields) -> Response:
        values = self._checked(fields, project_id=request.path_params.get("project"))
        if "event" not in values or "url" not in values:
            raise HookRefusedError(422, "event and url are required")
        self._check_new(values["event"], values["url"], besides=None)
        defaults = {"version": self.answers["teamwork.webhook_default_version"], "content_type": FORM_TYPE}
        hook = Hook(
            id=str(next(self._ids)),
            vendor="teamwork",
            project_id=request.path_params.get("project"),
            **(defaults | values),
        )
        self.hooks[hook.id] = hook
        return JSON({"id": hook.id, "STATUS": "OK"}, 201)

    def _change(self, request: Request, fields: Fields) -> Response:
        hook = self._get(request)
        values = self._checked(fields, project_id=hook.project_id)
        self._check_new(values.get("event", hook.event), values.get("url", hook.url), besides=hook)
        for name, value in values.items():
            setattr(hook, name, value)
        return JSON({"id": hook.id, "STATUS": "OK"})

    def _checked(self, fields: Fields, *, project_id: int | None) -> Fields:
        """Return a hook's attributes by their own names; unknown ones are ignored, as everywhere."""
        values = {FIELDS[name]: str(value) for name, value in fields.items() if name in FIELDS and value}
        if "event" in values:
            values["event"] = self._event(values["event"], project_id=project_id)
        if not is_web_address(values.get("url", "http://localhost")):
            raise HookRefusedError(422, "url is invalid")
        if values.get("version", "2") not in ("1", "2"):
            raise HookRefusedError(422, "version is invalid")
        if values.get("content_type", JSON_TYPE) not in (JSON_TYPE, FORM_TYPE):
            raise HookRefusedError(422, "contentType is invalid")
        return values

    def _event(self, name: str, *, project_id: int | None) -> str:
        case = self.answers["teamwork.webhook_event_case"]
        upper = name.upper()
        site_only = project_id is not None and upper.startswith(SITE_ONLY)
        if upper not in TEAMWORK_EVENTS or site_only or (case == "strict" and name != upper):
            raise HookRefusedError(422, "event is invalid")
        return name if case == "as_given" else upper

    def _check_new(self, event: str, url: str, *, besides: Hook | None) -> None:
        """Refuse a second hook for one event and URL, on whatever level."""
        if self.answers["teamwork.webhook_doubles"] == "accepted":
            return
        for hook in self.hooks.values():
            if hook is not besides and (hook.event.upper(), hook.url) == (event.upper(), url):
                raise HookRefusedError(422, "A webhook for this event and URL already exists")

    def _get(self, request: Request) -> Hook:
        hook = self.hooks.get(str(request.path_params["id"]))
        if hook is None:
            raise HookRefusedError(404, "Webhook not found")
        return hook

    def _enable(self, _: Request, __: Fields) -> Response:
        self._enabled = True
        return JSON({"STATUS": "OK"})

    def _delete(self, request: Request, _: Fields) -> Response:
        hook = self._get(request)
        hook.status = DELETED
        del self.hooks[hook.id]
        return JSON({"STATUS": "OK"})

    def _pause(self, request: Request, _: Fields) -> Response:
        self._get(request).status = self.answers["teamwork.paused_status"]
        return JSON({"STATUS": "OK"})

    def _resume(self, request: Request, _: Fields) -> Response:
        hook = self._get(request)
        hook.status, hook.discarded = ACTIVE, 0
        return JSON({"STATUS": "OK"})

    def _redeliver(self, request: Request, fields: Fields) -> Response:
        if not self.deliveries.redeliver(self._get(request), str(fields.get("uuid"))):
            raise HookRefusedError(404, "Delivery not found")
        return JSON({"STATUS": "OK"})

    def fire(self, event: str, item: Item) -> None:
        """Tell the hooks of an event, unless the key's owner may not see where it happened."""
        project = project_of(self.account, item)
        if (project is not None and not project.accessible) or (isinstance(item, Task) and item.hidden):
            return
        levels = (None, None if project is None else project.id)
        hooks = [hook for hook in self.hooks.values() if hook.event.upper() == event]
        hooks = [hook for hook in hooks if hook.status == ACTIVE and hook.project_id in levels]
        if not hooks:
            return
        spelling = self.answers["teamwork.deletion_id"]
        content = event_content(self.account, event, item, deletion_id=spelling)
        for hook in hooks:
            self._deliver(hook, event, item, content)

    def _deliver(self, hook: Hook, event: str, item: Item, content: Fields) -> None:
        number = next(self._events)
        key = make_id(f"event/{number}")
        headers, body = encode(hook, content, event=event, object_id=item.id)
        if self.answers["teamwork.event_header"]:
            headers["X-Projects-Event"] = event
        if number % DELIVERY_HEADER_EVERY == 0:
            headers["X-Projects-Delivery"] = key
        self.deliveries.add(hook, key=key, object_id=item.id, headers=headers, body=body)


def hook_row(hook: Hook) -> Fields:
    """Return a webhook as lists show it: without version, content type and token."""
    return {"id": hook.id, "event": hook.event, "url": hook.url, "status": hook.status}


def parse_fields(body: bytes) -> Fields:
    """Return what a request says of a webhook, without the key around it."""
    if not body:
        return {}
    try:
        sent = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise HookRefusedError(400, "Invalid JSON") from None
    inner = sent.get("webhook", sent) if isinstance(sent, dict) else None
    if not isinstance(inner, dict):
        raise HookRefusedError(422, "webhook is missing")
    return inner


def positive(value: str | None, default: int) -> int:
    """Return a parameter as a number from 1 on, the default where it is none."""
    return max(int(value), 1) if value is not None and value.isdigit() else default
