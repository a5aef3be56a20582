"""An Airtable account: its bases, what the token may do there, and one request to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from starlette.requests import Request

from twm_pipeline.sandbox.airtable_errors import RefusedError
from twm_pipeline.sandbox.airtable_files import Files
from twm_pipeline.sandbox.airtable_limits import RECORDS_PER_BASE
from twm_pipeline.sandbox.airtable_store import Base, Ids
from twm_pipeline.sandbox.answers import Answers
from twm_pipeline.sandbox.options import AIRTABLE_BASE_ID, AIRTABLE_FOREIGN_BASE_ID, Clock, Json

SCOPES = ("data.records:read", "data.records:write", "schema.bases:read", "schema.bases:write")
ROLES = ("read", "comment", "edit", "create", "owner")
USER = {"id": "usrSandboxOwner00", "email": "mara.holt@harbour.example.com", "name": "Mara Holt"}
COLLEAGUE = {"id": "usrSandboxFriend0", "email": "jonas.wick@harbour.example.com", "name": "Jonas Wick"}


class Account:
    """What one token reaches, and a base it does not.

    Args:
        seed: Decides the ids.
        answers: The open questions.
        clock: The account's time.
        files: The attachments' storage.
    """

    def __init__(self, *, seed: int, answers: Answers, clock: Clock, files: Files) -> None:
        self.answers = answers
        self.clock = clock
        self.files = files
        self.ids = Ids(seed)
        self.base = Base(
            id=AIRTABLE_BASE_ID, name="Project mirror", ids=self.ids, collaborators=(USER, COLLEAGUE)
        )
        self.bases = {AIRTABLE_BASE_ID: self.base}
        self.foreign = Base(id=AIRTABLE_FOREIGN_BASE_ID, name="Somebody else's", ids=self.ids)
        self.scopes = set(SCOPES)
        self.role = "create"
        self.granted = True
        self.plan = "team"

    def may(self, role: str) -> bool:
        """Say whether the token's user has at least this role."""
        return ROLES.index(self.role) >= ROLES.index(role)

    @property
    def reachable(self) -> list[Base]:
        """Return the bases the token was given."""
        return list(self.bases.values()) if self.granted else []

    @property
    def most_records(self) -> int:
        """Return how many records a base may hold."""
        return int(self.answers["airtable.records_per_base"]) or RECORDS_PER_BASE[self.plan]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request, let in.

    Attributes:
        base: What it is about; an empty one for calls about none.
        names: What the path names.
        body: The bytes sent.
    """

    base: Base
    names: dict[str, str]
    request: Request
    body: bytes = field(repr=False)

    def json(self) -> Json:
        """Return what was sent.

        Raises:
            RefusedError: If it is not JSON.
        """
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            raise RefusedError(400, "BAD_REQUEST") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A method and a path, what they need, and what answers.

    Attributes:
        scope: What the token needs; None for nothing.
        role: What its user has to be.
        upload: It lies at the address for uploads.
    """

    method: str
    path: str
    answer: Callable[[Call], dict[str, Any] | Awaitable[dict[str, Any]]]
    scope: str | None = None
    role: str = "read"
    upload: bool = False

    @property
    def is_meta(self) -> bool:
        """Say whether it is about the schema, not about records."""
        return self.path.startswith("meta/")

    def match(self, method: str, parts: list[str]) -> dict[str, str] | None:
        """Return what a path names, None for another path or method."""
        pattern = self.path.split("/")
        if method != self.method or len(pattern) != len(parts):
            return None
        pairs = list(zip(pattern, parts, strict=True))
        if any(known != part for known, part in pairs if not known.startswith("{")):
            return None
        return {known[1:-1]: part for known, part in pairs if known.startswith("{")}
