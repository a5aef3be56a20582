"""Missive REST API v1: requests, and lists paged by `until`.

Facts and their sources: Missive's REST documentation (missiveapp.com/docs/developers/rest-api).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from twm_pipeline.budget import Limit, Plan
from twm_pipeline.errors import NotFoundError, PagingError, RequestRefusedError
from twm_pipeline.http import BearerAuth
from twm_pipeline.records import Json
from twm_pipeline.sources.fields import plain
from twm_pipeline.sources.missive_rows import Children

if TYPE_CHECKING:
    from twm_pipeline.http import Reply, VendorSession
    from twm_pipeline.settings import Settings

Mailbox = Literal["all", "closed", "trashed", "junked", "drafts"]

MAILBOXES: tuple[Mailbox, ...] = ("all", "closed", "trashed", "junked")
CONVERSATIONS_PER_PAGE = 50
CHILDREN_PER_PAGE = 10
IDS_PER_CALL = 10
CONCURRENCY = 5
LONG_WINDOW_SECONDS = 900
MAX_DIRECTORY_PAGES = 500
_OFFSET_PAGE = 200


def auth(settings: Settings) -> BearerAuth:
    """Return the credentials."""
    token = settings.missive_api_token
    return BearerAuth(token.get_secret_value() if token else "")


def base_url(settings: Settings) -> str:
    """Return the API's address."""
    return str(settings.missive_base_url)


def budget_plan(settings: Settings) -> Plan:
    """Return what Missive allows: 5 at once, 300 a minute, 900 in 15 minutes (Missive docs "Rate limits")."""
    per_minute = settings.missive_requests_per_minute
    scale = settings.budget_time_scale
    return Plan(
        account=f"missive {settings.missive_base_url}",
        limits=(Limit(per_minute, 60 / scale), Limit(3 * per_minute, LONG_WINDOW_SECONDS / scale)),
        concurrency=CONCURRENCY,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page of a list, newest first.

    Args:
        rows: Vendor JSON of the rows.
        limit: What was asked for; only a shorter page may end a walk (missive.md, 4.1).
        reply: The whole answer.
    """

    rows: list[Json]
    limit: int
    reply: Reply


class MissiveSource:
    """Reads one Missive account as its token's owner sees it."""

    def __init__(self, session: VendorSession) -> None:
        self.session = session

    def fetch_owner_id(self) -> tuple[str, Reply]:
        """Return the id of the token's owner.

        Raises:
            PagingError: If no user is marked as the owner.
        """
        for offset in range(0, _OFFSET_PAGE * 50, _OFFSET_PAGE):
            reply = self.session.get("/users", {"limit": str(_OFFSET_PAGE), "offset": str(offset)})
            users = _rows(reply.data, "users")
            for user in users:
                if user.get("me") is True:
                    return str(user["id"]), reply
            if len(users) < _OFFSET_PAGE:
                break
        msg = "Missive GET /users: no row is marked as the token's owner (me: true)"
        raise PagingError(msg)

    def fetch_conversations(self, mailbox: Mailbox, *, until: int | None = None, fresh: bool = True) -> Page:
        """Return a page of a mailbox, newest activity first.

        Args:
            mailbox: One of `MAILBOXES`, or `drafts`.
            until: Unix seconds; newer rows are left out. Whether inclusive is not documented for this list.
            fresh: See `Budget.draw`.
        """
        params = {mailbox: "true", "limit": str(CONVERSATIONS_PER_PAGE)}
        return self._page("/conversations", "conversations", params, until=until, fresh=fresh)

    def fetch_conversation(self, conversation_id: str, *, fresh: bool = True) -> tuple[Json, Reply]:
        """Return one conversation; its id may differ from *conversation_id* after a merge.

        Raises:
            NotFoundError: Unknown, invisible or deleted for good.
        """
        reply = self.session.get(f"/conversations/{conversation_id}", fresh=fresh)
        rows = _rows(reply.data, "conversations")
        if len(rows) != 1 or not isinstance(rows[0].get("id"), str):
            msg = f"Missive GET /conversations/{conversation_id}: the answer is not one conversation"
            raise PagingError(msg)
        return rows[0], reply

    def fetch_children(
        self, conversation_id: str, kind: Children, *, until: int | None = None, fresh: bool = True
    ) -> Page:
        """Return a page of a conversation's messages (without bodies), comments or drafts, newest first."""
        path = f"/conversations/{conversation_id}/{kind}"
        return self._page(path, kind, {"limit": str(CHILDREN_PER_PAGE)}, until=until, fresh=fresh)

    def fetch_messages(self, ids: list[str], *, fresh: bool = True) -> Iterator[tuple[Json, Reply]]:
        """Yield full messages, up to ten a call; those that are gone are left out.

        One id is answered by an object, several by an array; an id that is gone may spoil the whole call, and
        how many ids a call takes is not documented: a refused call is halved.
        """
        for start in range(0, len(ids), IDS_PER_CALL):
            yield from self._fetch_batch(ids[start : start + IDS_PER_CALL], fresh=fresh)

    def _fetch_batch(self, ids: list[str], *, fresh: bool) -> Iterator[tuple[Json, Reply]]:
        try:
            reply = self.session.get("/messages/" + ",".join(ids), fresh=fresh)
        except (NotFoundError, RequestRefusedError) as error:
            if len(ids) > 1:
                middle = len(ids) // 2
                yield from self._fetch_batch(ids[:middle], fresh=fresh)
                yield from self._fetch_batch(ids[middle:], fresh=fresh)
            elif isinstance(error, RequestRefusedError):
                raise
            return
        found = reply.data.get("messages") if isinstance(reply.data, dict) else None
        rows = [found] if isinstance(found, dict) else _rows(reply.data, "messages")
        answered = {plain(row, "id") for row in rows}
        if not answered <= set(ids):
            msg = "Missive GET /messages/…: the answer holds other messages than were asked for"
            raise PagingError(msg)
        yield from ((row, reply) for row in rows)
        # What is left out may be gone, or more than one call takes: only asked for alone it can be told.
        missing = [item for item in ids if item not in answered]
        if missing and len(ids) > 1:
            smaller = len(missing) if answered else (len(missing) + 1) // 2
            for start in range(0, len(missing), smaller):
                yield from self._fetch_batch(missing[start : start + smaller], fresh=fresh)

    def fetch_directory(self, stream: str) -> list[Page]:
        """Return the pages of `shared_labels`, `users` or `teams`, which hold all that the owner may see."""
        pages: list[Page] = []
        for number in range(MAX_DIRECTORY_PAGES):
            params = {"limit": str(_OFFSET_PAGE), "offset": str(number * _OFFSET_PAGE)}
            reply = self.session.get(f"/{stream}", params)
            pages.append(Page(rows=_rows(reply.data, stream), limit=_OFFSET_PAGE, reply=reply))
            if len(pages[-1].rows) < _OFFSET_PAGE:
                return pages
        msg = f"Missive GET /{stream}: more than {MAX_DIRECTORY_PAGES} pages"
        raise PagingError(msg)

    def _page(self, path: str, key: str, params: dict[str, str], *, until: int | None, fresh: bool) -> Page:
        if until is not None:
            params = {**params, "until": str(until)}
        reply = self.session.get(path, params, fresh=fresh)
        return Page(rows=_rows(reply.data, key), limit=int(params["limit"]), reply=reply)


def _rows(data: Any, key: str) -> list[Json]:  # noqa: ANN401 - any JSON value
    rows = data.get(key) if isinstance(data, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        msg = f"Missive: the answer has no list {key!r}"
        raise PagingError(msg)
    return rows
