"""What stands before a vendor's handlers: log, key, budget, faults, headers."""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import socket
import struct
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Router
from starlette.types import Message, Receive, Scope, Send

from twm_pipeline.sandbox.answers import Answers
from twm_pipeline.sandbox.budgets import Budget, Verdict
from twm_pipeline.sandbox.faults import Fault, FaultBook
from twm_pipeline.sandbox.options import Clock, Json, http_date

IDS = re.compile(
    r"(?<=/)([0-9a-f]{8}-[0-9a-f-]+(,[0-9a-f-]+)*|[0-9]+|(app|tbl|fld|rec)[0-9A-Za-z]{14}(?=/|$))"
)
REMEMBERED_ANSWERS = 32


class JSON(Response):
    """A JSON response; takes `orjson.Fragment`s."""

    media_type = "application/json"

    def render(self, content: Json) -> bytes:
        """Return *content* serialised."""
        return orjson.dumps(content)


@dataclass(slots=True, kw_only=True)
class Entry:
    """One request in the log."""

    vendor: str
    method: str
    path: str
    query: str
    at: float
    seconds: float = 0.0
    status: int = 0
    fault: str | None = None
    violation: str | None = None


@dataclass(slots=True)
class Log:
    """The requests made to one vendor."""

    entries: deque[Entry] = field(default_factory=lambda: deque(maxlen=200_000))
    endpoints: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    violations: int = 0
    injected: int = 0

    def add(self, entry: Entry) -> None:
        """Count a request when it is over."""
        self.entries.append(entry)
        self.requests += 1
        self.endpoints[f"{entry.method} {IDS.sub('{id}', entry.path)}"] += 1
        self.statuses[str(entry.status)] += 1
        self.violations += entry.violation is not None
        self.injected += entry.fault is not None

    def to_dict(self) -> dict[str, Any]:
        """Return the counters."""
        return {
            "requests": self.requests,
            "violations": self.violations,
            "faults": self.injected,
            "endpoints": dict(self.endpoints),
            "statuses": dict(self.statuses),
        }

    def rows(self, since: int) -> list[dict[str, Any]]:
        """Return the entries from number *since* on."""
        skipped = self.requests - len(self.entries)
        return [asdict(entry) for entry in list(self.entries)[max(since - skipped, 0) :]]


class Vendor:
    """One simulated vendor: its routes and what it says at the door."""

    name = ""

    def __init__(self, *, answers: Answers, clock: Clock, budget: Budget, key: str) -> None:
        self.answers = answers
        self.clock = clock
        self.budget = budget
        self.key = key

    def routes(self) -> list[BaseRoute]:
        """Return the vendor's endpoints."""
        raise NotImplementedError

    def is_authorised(self, authorization: str) -> bool:
        """Say whether an Authorization header holds the key."""
        raise NotImplementedError

    def error(self, status: int, message: str = "") -> JSON:
        """Return an error as the vendor words it."""
        raise NotImplementedError

    def budget_headers(self, verdict: Verdict, status: int) -> dict[str, str]:
        """Return the headers that tell of the budget."""
        raise NotImplementedError

    def outage(self, kind: str) -> JSON | None:  # noqa: ARG002 - for vendors that word theirs
        """Return a failure of the server as the vendor words it, None for the common one."""
        return None

    def done_before_outage(self, kind: str, body: bytes) -> bytes | None:  # noqa: ARG002 - likewise
        """Return what of a request is done although a failure of the server answers it."""
        return None

    def report(self) -> dict[str, Any]:
        """Return counters that only this vendor has."""
        return {}

    def reset(self) -> None:
        """Start these counters anew."""

    def retry_after(self, seconds: float, *, form: str | None = None) -> dict[str, str]:
        """Return a Retry-After header in the form the answers ask for."""
        form = form or str(self.answers[f"{self.name}.retry_after"])
        whole = max(math.ceil(seconds), 1)
        if form == "none":
            return {}
        return {"Retry-After": str(whole) if form == "seconds" else http_date(self.clock.time() + whole)}


@dataclass(slots=True)
class Answer:
    """A complete answer, before it is sent."""

    status: int
    headers: dict[str, str]
    body: bytes


async def capture(app: Router, scope: Scope, receive: Receive) -> Answer:
    """Run an application and return what it would have sent."""
    answer = Answer(500, {}, b"")
    chunks: list[bytes] = []

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {k.decode(): v.decode() for k, v in message["headers"]}
        else:
            chunks.append(message.get("body", b""))

    await app(scope, receive, send)
    answer.body = b"".join(chunks)
    answer.headers.pop("content-length", None)
    return answer


def from_response(response: Response, extra: Mapping[str, str] | None = None) -> Answer:
    """Return a response as an answer."""
    return Answer(
        response.status_code, {"content-type": "application/json", **(extra or {})}, bytes(response.body)
    )


class Gate:
    """ASGI application in front of one vendor.

    Args:
        vendor: Answers what passes.
        faults: Answers what does not.
        latency_seconds: Waited before every answer.
    """

    def __init__(self, vendor: Vendor, faults: FaultBook, *, latency_seconds: float) -> None:
        self.vendor = vendor
        self.faults = faults
        self.latency_seconds = latency_seconds
        self.log = Log()
        self._router = Router(vendor.routes())
        self._previous: OrderedDict[str, bytes] = OrderedDict()

    def reset_log(self) -> None:
        """Start counting anew."""
        self.log = Log()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        entry = Entry(
            vendor=self.vendor.name,
            method=scope["method"],
            path=path,
            query=scope["query_string"].decode("latin-1"),
            at=time.monotonic(),
        )
        try:
            await self._answer(scope, receive, send, entry)
        finally:
            entry.seconds = time.monotonic() - entry.at
            self.log.add(entry)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, entry: Entry) -> None:
        request, vendor = Request(scope, receive), self.vendor
        if not vendor.is_authorised(request.headers.get("authorization", "")):
            await self._finish(scope, send, entry, from_response(vendor.error(401)))
            return
        verdict = vendor.budget.admit(entry.at)
        entry.violation = verdict.violation
        if not verdict.allowed:
            answer = self._too_many(verdict.reset_seconds)
            answer.headers |= vendor.budget_headers(verdict, answer.status)
            await self._finish(scope, send, entry, answer)
            return
        try:
            fault = self.faults.pick(vendor.name, entry.path)
            answer = await self._inside(request, receive, entry, fault)
            answer.headers |= vendor.budget_headers(verdict, answer.status)
            await self._finish(scope, send, entry, answer, fault=fault)
        finally:
            vendor.budget.release()

    async def _finish(
        self, scope: Scope, send: Send, entry: Entry, answer: Answer, *, fault: Fault | None = None
    ) -> None:
        """Send an answer, or break the connection over it."""
        if self.latency_seconds:
            await asyncio.sleep(self.latency_seconds)
        answer.headers["date"] = http_date(self.vendor.clock.time())
        entry.status = answer.status
        if fault is not None and entry.fault is not None and fault.kind.startswith("reset"):
            await self._reset(scope, send, answer, midway=fault.kind == "reset_midway")
        else:
            await self._send(send, answer)

    async def _inside(self, request: Request, receive: Receive, entry: Entry, fault: Fault | None) -> Answer:
        body = b""
        with contextlib.suppress(ClientDisconnect):  # Read first: a stall would swallow it.
            body = await request.body()
        if fault is not None:
            if fault.kind == "stall":
                await wait_or_disconnect(receive, fault.seconds)
            replaced = fault.replacement()
            if replaced is not None:
                entry.fault = fault.kind
                fault.fired += 1
                answer = Answer(*replaced)
                if fault.kind == "429":
                    answer = self._too_many(fault.seconds, form=fault.retry_after)
                worded = self.vendor.outage(fault.kind)
                if worded is not None:
                    wait = self.vendor.retry_after(fault.seconds, form=fault.retry_after)
                    answer = from_response(worded, wait)
                done = self.vendor.done_before_outage(fault.kind, body)
                if done is not None:
                    await capture(self._router, request.scope, replay(done, receive))
                return answer
        answer = await capture(self._router, request.scope, replay(body, receive))
        if fault is not None and answer.status < HTTPStatus.MULTIPLE_CHOICES:
            changed = fault.transform(answer.body, self._previous.get(entry.path))
            if changed is not None:
                entry.fault = fault.kind
                fault.fired += 1
                answer.body = changed
        if answer.status == HTTPStatus.OK:
            self._previous[entry.path] = answer.body
            self._previous.move_to_end(entry.path)
            while len(self._previous) > REMEMBERED_ANSWERS:
                self._previous.popitem(last=False)
        return answer

    def _too_many(self, seconds: float, *, form: str | None = None) -> Answer:
        headers = self.vendor.retry_after(seconds, form=form)
        return from_response(self.vendor.error(429), headers)

    async def _send(self, send: Send, answer: Answer, *, part: int | None = None) -> None:
        headers = {**answer.headers, "content-length": str(len(answer.body))}
        pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": pairs})
        body = answer.body if part is None else answer.body[:part]
        await send({"type": "http.response.body", "body": body, "more_body": part is not None})

    async def _reset(self, scope: Scope, send: Send, answer: Answer, *, midway: bool) -> None:
        transport = scope["extensions"]["sandbox"]["transport"]
        if midway:
            await self._send(send, answer, part=max(len(answer.body) // 2, 1))
            await asyncio.sleep(0.01)  # Let the first half arrive before the connection breaks.
        linger = struct.pack("ii", 1, 0)  # Closing then sends RST instead of FIN.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()


def replay(body: bytes, receive: Receive) -> Receive:
    """Return a channel that gives a body read before, then what *receive* gives."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return first.pop() if first else await receive()

    return again


async def wait_or_disconnect(receive: Receive, seconds: float) -> None:
    """Wait, but no longer than the client does."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    try:
        await asyncio.wait_for(gone(), timeout=seconds)
    except TimeoutError:
        return
