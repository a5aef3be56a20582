"""Airtable's HTTP interface: what is let in, and how refusals are worded."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any
from urllib.parse import unquote

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from twm_pipeline.sandbox.airtable_account import Account, Call, Endpoint
from twm_pipeline.sandbox.airtable_errors import MissingTableError, RefusedError, error_response, forbidden
from twm_pipeline.sandbox.airtable_files import Files
from twm_pipeline.sandbox.airtable_limits import PenaltyBudget, Quota
from twm_pipeline.sandbox.airtable_meta import Meta
from twm_pipeline.sandbox.airtable_records import Records
from twm_pipeline.sandbox.airtable_store import Base
from twm_pipeline.sandbox.answers import Answers
from twm_pipeline.sandbox.budgets import Verdict
from twm_pipeline.sandbox.faults import HTML_PAGE
from twm_pipeline.sandbox.gate import JSON, Vendor
from twm_pipeline.sandbox.options import AIRTABLE_TOKEN, Clock

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
LONGEST_URL = 16_000
TOO_LARGE = 413
UPLOADS = "/airtable-content"
OUTAGES = {"500": (500, "SERVER_ERROR"), "502": (502, "BAD_GATEWAY"), "503": (503, "RETRIABLE_ERROR")}
AFTER_ALL = ("500", "502", "503", "html_502")


class Airtable(Vendor):
    """An Airtable account.

    Args:
        seed: Decides the ids.
        answers: The open questions.
        clock: The account's time.
    """

    name = "airtable"

    def __init__(self, *, seed: int, answers: Answers, clock: Clock) -> None:
        self.quota = Quota(lambda: answers["airtable.quota_exhausted"])
        self.pace = PenaltyBudget(self.quota.per_second)
        super().__init__(answers=answers, clock=clock, budget=self.pace, key=AIRTABLE_TOKEN)
        self.files = Files(answers=answers, clock=clock)
        self.account = Account(seed=seed, answers=answers, clock=clock, files=self.files)
        self.meta = Meta(self.account)
        self.records = Records(self.account)
        self._endpoints: list[Endpoint] = [*self.meta.endpoints(), *self.records.endpoints()]
        self._nowhere = Base(id="", name="", ids=self.account.ids)

    # What the door asks.

    def is_authorised(self, authorization: str) -> bool:
        """Accept the token as Bearer."""
        return authorization == f"Bearer {self.key}"

    def error(self, status: int, message: str = "") -> JSON:
        """Return the error of a status."""
        kinds = {401: str(self.answers["airtable.unauthorized"]), 429: "RATE_LIMIT_REACHED"}
        return self._refusal(RefusedError(status, kinds.get(status, "NOT_FOUND"), message or None))

    def budget_headers(self, verdict: Verdict, status: int) -> dict[str, str]:  # noqa: ARG002 - there are none
        """Return nothing: Airtable does not tell."""
        return {}

    def outage(self, kind: str) -> JSON | None:
        """Return a failure of the server as Airtable words it."""
        return self._refusal(RefusedError(*OUTAGES[kind])) if kind in OUTAGES else None

    def done_before_outage(self, kind: str, body: bytes) -> bytes | None:
        """Return what of a request is done although a failure of the server answers it."""
        share = self.answers["airtable.done_before_5xx"]
        if kind not in AFTER_ALL or share == "nothing":
            return None
        try:
            given = orjson.loads(body)
            if share == "half" and len(given["records"]) > 1:
                given["records"] = given["records"][: len(given["records"]) // 2]
                return orjson.dumps(given)
        except (orjson.JSONDecodeError, KeyError, TypeError):
            pass
        return body

    def report(self) -> dict[str, Any]:
        """Return the counters of the limits and the files."""
        return {
            "budget_share": round(self.pace.share, 4),
            "penalties": self.pace.penalties,
            "calls_left": self.quota.left,
            "over_quota": self.quota.refused,
            "records": self.account.base.record_count,
            "attachments": self.files.to_dict(),
        }

    def reset(self) -> None:
        """Start counting anew."""
        self.pace.forget()
        self.quota.refused = self.files.fetched = self.files.failed = 0

    def routes(self) -> list[BaseRoute]:
        """Return one route for everything: names in paths may hold slashes."""
        return [Route("/{rest:path}", self._answer, methods=METHODS)]

    async def _answer(self, request: Request) -> Response:
        try:
            body = await request.body()
            self._check_size(request, body)
            endpoint, names = self._find(request)
            self.quota.charge(meta=endpoint.is_meta)
            base = self._let_in(endpoint, names)
            found = endpoint.answer(Call(base=base, names=names, request=request, body=body))
            return JSON(await found if isinstance(found, Awaitable) else found)
        except RefusedError as error:
            return self._worded(error)

    def _check_size(self, request: Request, body: bytes) -> None:
        scope, url = request.scope, request.url
        length = len(f"{url.scheme}://{url.netloc}?") + len(scope["raw_path"]) + len(scope["query_string"])
        if length > LONGEST_URL:
            raise RefusedError(414, "URI_TOO_LONG", "The URL is longer than 16,000 characters")
        if len(body) > self.answers["airtable.largest_body"] and not is_upload(request):
            raise RefusedError(TOO_LARGE, "REQUEST_TOO_LARGE", "The request is too large")

    def _find(self, request: Request) -> tuple[Endpoint, dict[str, str]]:
        raw = request.scope["raw_path"].decode("latin-1").removeprefix(request.scope["root_path"])
        parts = [unquote(part) for part in raw.removeprefix("/").split("/")]
        upload = is_upload(request)
        for endpoint in self._endpoints:
            names = endpoint.match(request.method, parts)
            anywhere = endpoint.upload and self.answers["airtable.upload_host"] == "both"
            if names is not None and (endpoint.upload == upload or anywhere):
                return endpoint, names
        raise RefusedError(404, "NOT_FOUND")

    def _let_in(self, endpoint: Endpoint, names: dict[str, str]) -> Base:
        """Return the base a call is about, if token and user may do what it does."""
        account = self.account
        base = account.bases.get(names["base"]) if "base" in names else self._nowhere
        if base is None or (base is not self._nowhere and base not in account.reachable):
            raise forbidden()
        if endpoint.scope is not None and endpoint.scope not in account.scopes:
            raise forbidden()
        if not account.may(endpoint.role):
            raise RefusedError(403, "INVALID_PERMISSIONS")
        return base

    def _worded(self, error: RefusedError) -> Response:
        """Return a refusal as the answers have it; a 413 may come from what stands before Airtable."""
        if isinstance(error, MissingTableError) and self.answers["airtable.missing_table"] == "404":
            return self._refusal(RefusedError(404, "NOT_FOUND"))
        way = self.answers["airtable.too_large"]
        if error.status != TOO_LARGE or way == "json":
            return self._refusal(error)
        page = HTML_PAGE % (b"413", b"413 Request Entity Too Large") if way == "html" else b""
        return Response(page, status_code=TOO_LARGE, media_type="text/html")

    def _refusal(self, error: RefusedError) -> JSON:
        return error_response(error, shape=str(self.answers["airtable.error_shape"]))


def is_upload(request: Request) -> bool:
    """Say whether a request came to the address for uploads."""
    return str(request.scope["root_path"]).startswith(UPLOADS)
