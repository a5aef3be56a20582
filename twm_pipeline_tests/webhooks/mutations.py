"""Requests that no vendor sends: samples, changed at random places in ways that break programs."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from twm_pipeline_tests.webhooks.deliveries import (
    MISSIVE_SECRET,
    SIGNATURE_HEADERS,
    TEAMWORK_SECRET,
    Delivery,
    signature,
)

PATHS = (
    "/",
    "*",
    "//hooks/teamwork",
    "/hooks/../hooks/teamwork",
    "/hooks/teamwork/../../../../etc/passwd",
    "/hooks/teamwork/..%2f..%2f..%2fevil",
    "/hooks/teamwork/%2e%2e",
    "/hooks/teamwork/%00",
    "/hooks/teamwork/task-deleted%00.json",
    "/hooks/teamwork/%ff%fe",
    "/hooks/teamwork/tâche-créée",
    "/hooks/teamwork/\xff\xfe",
    "/hooks/teamwork/%",
    "/hooks/teamwork/task-deleted?event=x&x=%00#part",
    "/hooks/teamwork/" + "a" * 300,
    "/hooks/teamwork/" + "a-" * 9000,
    "/hooks/missive/../../../etc/passwd",
    "/hooks/missive/" + "0" * 64,
    "/hooks/missive/" + "0" * 64 + "/..",
    "/hooks/missive/%30%30",
    "/hooks/missive/;",
    "/webhook/teamwork",
    "/webhook/missive",
    "/webhook/../hooks/missive",
    "/health",
    "/health/../hooks/teamwork",
    "http://other.example/hooks/teamwork",
    "http://[::1/hooks",
    "/hooks/teamwork HTTP/1.1",
)
METHODS = (
    "GET",
    "HEAD",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "post",
    "FOO",
    "M-SEARCH",
    "",
)
CONTENT_TYPES = (
    "application/json",
    'APPLICATION/JSON ; charset="utf-8"',
    "application/problem+json",
    "application/x-www-form-urlencoded",
    "text/plain",
    "multipart/form-data; boundary=x",
    "application/json, text/html",
    ";",
    "",
    "\xff",
    "a" * 5000,
)
SIGNATURES = (
    "",
    "sha256=",
    "0" * 64,
    "sha256=" + "f" * 64,
    "\xe9" * 64,
    "a" * 9000,
    "null",
    "sha1=0",
    "=",
    "\t",
)
EVENTS = (
    "TASK.DELETED",
    "task.deleted",
    "../../x",
    "TASK.",
    "\xff.\xff",
    "A" * 3000,
    "PROJECT.DELETED",
    "TASK.\tX",
    "",
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    7,
    1.5,
    1e308,
    2**63,
    10**30,
    "",
    "7",
    "../../../evil",
    "a\x00b",
    "\ud800",
    "\u202e",
    "a" * 5000,
    [],
    [[]],
    {},
    {"id": "../../evil"},
    {"ID": 7},
)
KEYS = (
    "id",
    "ID",
    "task",
    "Task",
    "taskList",
    "project",
    "conversation",
    "rule",
    "type",
    "event",
    "objectId",
    "\x00",
)
PIECES = (
    b"\x00",
    b"\xff",
    b"\xef\xbb\xbf",
    b"{",
    b"[" * 2000,
    b'{"a":' * 2000,
    b"9" * 5000,
    b"\\ud800",
    b"&",
    b"=",
    b"\r\n\r\n",
)
EXTRA_HEADERS = (
    ("Connection", "close"),
    ("Connection", "keep-alive"),
    ("Connection", "upgrade"),
    ("Upgrade", "websocket"),
    ("Upgrade", "h2c"),
    ("Transfer-Encoding", "gzip"),
    ("Transfer-Encoding", "identity"),
    ("Content-Length", "0"),
    ("Content-Length", "99999999999999999999"),
    ("Content-Length", "-1"),
    ("Content-Encoding", "gzip"),
    ("Expect", "something"),
    ("X-Forwarded-For", "\xff"),
    ("Host", ""),
    ("Cookie", "x" * 8000),
    ("X-Long", "x" * 20_000),
    ("X Space", "1"),
    ("User-Agent", "\xff\x7f"),
    ("X-Projects-Delivery", "../../evil"),
)


@dataclass(frozen=True)
class Request:
    """What is sent, and what is known of it.

    Args:
        data: All bytes.
        is_authentic: Whether a 200 is allowed; None if nobody can tell.
        is_whole: Whether it is HTTP, so that there has to be an answer.
    """

    data: bytes
    is_authentic: bool | None
    is_whole: bool


class Mutator:
    """An endless stream of requests, the same for the same seed.

    Args:
        seed: Of the random numbers.
        samples: What is changed.
        secret_paths: Paths that authenticate.
    """

    def __init__(self, seed: int, *, samples: Sequence[Delivery], secret_paths: Sequence[str]) -> None:
        self.random = random.Random(seed)
        self.samples = samples
        self.secret_paths = secret_paths

    def request(self) -> Request:
        """Return the next request."""
        delivery = self.delivery()
        method = self._seldom(0.05, lambda: self.random.choice(METHODS), "POST")
        version = self._seldom(0.05, lambda: self.random.choice(["1.0", "0.9", "2.0", "1.2", "x"]), "1.1")
        extra = self._some(EXTRA_HEADERS) if self.random.random() < 0.15 else []
        data = self._bytes_of(delivery, method=method, version=version, extra=extra)
        is_plain = method == "POST" and version == "1.1" and not extra and " " not in delivery.path
        if self.random.random() < 0.1:
            return Request(self._damage(data), None, is_whole=False)
        return Request(data, self._is_authentic(delivery) if is_plain else None, is_whole=is_plain)

    def delivery(self) -> Delivery:
        """Return a sample with other body, headers, path, signature, or some of them."""
        delivery = self.random.choice(self.samples)
        if self.random.random() < 0.6:
            delivery = replace(delivery, body=self.body(delivery))
        headers = dict(delivery.headers)
        if self.random.random() < 0.2:
            headers["Content-Type"] = self.random.choice(CONTENT_TYPES)
        if self.random.random() < 0.2:
            headers["X-Projects-Event"] = self.random.choice(EVENTS)
        delivery = replace(delivery, headers=headers, path=self._path(delivery))
        if self.random.random() < 0.7:
            return delivery.signed()
        return self._with_other_signature(delivery) if self.random.random() < 0.7 else delivery

    def body(self, delivery: Delivery) -> bytes:
        """Return another body."""
        changes: list[Callable[[bytes], bytes]] = [
            self._damage,
            self._with_other_value,
            lambda body: body * 2,
            lambda body: self.random.choice(PIECES) + body,
            lambda body: body + self.random.choice(PIECES),
            lambda _: b"",
            lambda _: b"{}",
            lambda _: json.dumps(self._value(3)).encode(),
            lambda _: self.random.randbytes(self.random.randrange(300)),
            lambda body: body.decode("utf-8", "replace").encode("utf-16"),
        ]
        return self.random.choice(changes)(delivery.body)

    def _with_other_value(self, body: bytes) -> bytes:
        """Return *body* with another value at a random place of its JSON or form."""
        try:
            data = json.loads(body)
        except ValueError:
            return body.replace(b"1000", self.random.choice(PIECES))
        place, key = data, self.random.choice(list(data) or ["id"])
        while isinstance(place.get(key), dict) and place[key] and self.random.random() < 0.7:
            place = place[key]
            key = self.random.choice(list(place))
        place[key] = self._value(2)
        return json.dumps(data).encode()

    def _value(self, depth: int) -> Any:
        if depth and self.random.random() < 0.5:
            return {self.random.choice(KEYS): self._value(depth - 1) for _ in range(self.random.randrange(4))}
        return self.random.choice(VALUES)

    def _path(self, delivery: Delivery) -> str:
        chance = self.random.random()
        if chance < 0.15:
            return self.random.choice(PATHS)
        if chance < 0.3:
            return self.random.choice(self.secret_paths)
        return delivery.path

    def _with_other_signature(self, delivery: Delivery) -> Delivery:
        right = signature(delivery.source, delivery.body)
        wrong = right[:-1] + ("0" if right[-1] != "0" else "1")
        header = self.random.choice([wrong, right[:-1], right + "0", *SIGNATURES])
        name = self.random.choice([delivery.signature_header, *SIGNATURE_HEADERS.values()])
        return replace(delivery, headers=delivery.headers | {name: header})

    def _is_authentic(self, delivery: Delivery) -> bool:
        """Return whether the receiver may believe *delivery*, judged without its code."""
        path = delivery.path.partition("?")[0]
        if path in self.secret_paths or path == "/health":
            return True
        source = "missive" if "missive" in path else "teamwork"
        given = delivery.headers.get(SIGNATURE_HEADERS[source], "").strip().lower()
        right = signature("missive" if source == "missive" else "teamwork", delivery.body)
        return given in (right, right.removeprefix("sha256="))

    def _bytes_of(
        self, delivery: Delivery, *, method: str, version: str, extra: Sequence[tuple[str, str]]
    ) -> bytes:
        target = delivery.path.encode("utf-8", "replace").decode("latin-1")
        lines = [f"{method} {target} HTTP/{version}", "Host: receiver"]
        headers = [*delivery.headers.items(), *extra]
        self.random.shuffle(headers)
        lines += [f"{name}: {value}" for name, value in headers]
        chunked = self.random.random() < 0.2 and version == "1.1"
        lines.append("Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(delivery.body)}")
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        return head + (self._chunks(delivery.body) if chunked else delivery.body)

    def _chunks(self, body: bytes) -> bytes:
        pieces = []
        while body:
            size = self.random.randrange(1, len(body) + 1)
            pieces.append(b"%x\r\n%s\r\n" % (size, body[:size]))
            body = body[size:]
        return b"".join([*pieces, b"0\r\n\r\n"])

    def _damage(self, data: bytes) -> bytes:
        """Return *data* with a few bytes changed, cut out, or put in."""
        damaged = bytearray(data)
        for _ in range(self.random.randrange(1, 5)):
            place = self.random.randrange(len(damaged) + 1)
            kind = self.random.randrange(4)
            if kind == 0 and place < len(damaged):
                damaged[place] = self.random.randrange(256)
            elif kind == 1:
                del damaged[place : place + self.random.randrange(1, 50)]
            elif kind == 2:
                damaged[place:place] = self.random.choice(PIECES)
            else:
                damaged[place:] = b""
        return bytes(damaged)

    def _some(self, items: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        return self.random.sample(items, self.random.randrange(1, 4))

    def _seldom(self, chance: float, make: Callable[[], Any], otherwise: Any) -> Any:
        return make() if self.random.random() < chance else otherwise


SECRETS = (TEAMWORK_SECRET, MISSIVE_SECRET)
"""What no log may show."""
