"""Teamwork Projects API v3 (and what is left of v1): requests and pages.

Facts come from Teamwork's API guides (apidocs.teamwork.com) and its official SDK (Teamwork/twapi-go-sdk).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from requests.auth import HTTPBasicAuth

from twm_pipeline.budget import Limit, Plan
from twm_pipeline.errors import PagingError, RecordError
from twm_pipeline.records import Json
from twm_pipeline.sources.fields import plain, plain_id, read_id, read_iso, read_object

if TYPE_CHECKING:
    from twm_pipeline.http import Reply, VendorSession
    from twm_pipeline.settings import Settings

API = "/projects/api/v3"
PAGE_SIZE = 250
DIRECTORY_PAGE_SIZE = 500
IDS_PER_CALL = 100
MAX_PAGES = 4000
DOCUMENTED_PER_MINUTE = 150

_INCLUDE = "projects,tasklists,tags,users,companies,teams"
# Without these flags most of a site stays hidden (teamwork.md, 4.2).
_EVERYTHING = {
    "includeCompletedTasks": "true",
    "showCompletedLists": "true",
    "includeArchivedProjects": "true",
    "includeTasksFromDeletedLists": "true",
    "getSubTasks": "true",
    "skipCounts": "true",
    "include": _INCLUDE,
}
_FEEDS = {"time_entries": ("time", "timelogs"), "task_comments": ("comments", "comments")}
"""What the vendor calls these streams: in addresses, and as the key of a list."""
_FEED_ORDERS = {"time_entries": "dateupdated", "task_comments": "date"}
_ACTIVITY_STREAMS = {
    "task": "tasks",
    "timelog": "time_entries",
    "task_comment": "task_comments",
    "comment": "task_comments",
    "project": "projects",
}
POLLED_ACTIVITY = ("tasks", "time_entries", "task_comments")
_DELETED = {"deletedOnly": "true", "showDeleted": "true"}


def base_url(settings: Settings) -> str:
    """Return the site's address."""
    return str(settings.teamwork_base_url)


def budget_plan(settings: Settings) -> Plan:
    """Return what the site allows: 150 requests a minute unless its headers or the settings say otherwise."""
    asked = settings.teamwork_requests_per_minute
    return Plan(
        account=f"teamwork {settings.teamwork_base_url}",
        limits=(Limit(asked or DOCUMENTED_PER_MINUTE, 60 / settings.budget_time_scale),),
        adapts=asked is None,
    )


def auth(settings: Settings) -> HTTPBasicAuth:
    """Return the credentials: the key is the user name, the password is ignored (guide "Authentication")."""
    key = settings.teamwork_api_key
    return HTTPBasicAuth(key.get_secret_value() if key else "", "x")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page of a listing.

    Args:
        rows: Vendor JSON of the rows.
        included: Side-loaded maps; lookups need a fallback.
        has_more: The vendor's word, the only one that ends a listing.
        reply: The whole answer, with its clock and place in the order of observation.
    """

    rows: list[Json]
    included: dict[str, dict[str, Json]]
    has_more: bool
    reply: Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """What the activity feed tells of, by stream.

    Args:
        deleted: Ids that were deleted.
        restored: Ids that came back.
        newest: When the newest activity of any kind happened.
    """

    deleted: dict[str, list[int]] = field(default_factory=dict)
    restored: dict[str, list[int]] = field(default_factory=dict)
    newest: datetime | None = None


class TeamworkSource:
    """Reads one Teamwork site."""

    def __init__(self, session: VendorSession) -> None:
        self.session = session

    def fetch_me(self) -> Reply:
        """Return the person the key acts for."""
        return self.session.get(f"{API}/me.json")

    def fetch_tasks(  # noqa: PLR0913 - the query of a task list has these parts
        self,
        *,
        updated_after: datetime | None = None,
        page: int = 1,
        page_size: int = PAGE_SIZE,
        newest_first: bool = False,
        extra: dict[str, str] | None = None,
        fresh: bool = True,
    ) -> Page:
        """Return a page of living tasks, oldest update first unless *newest_first*.

        Args:
            updated_after: Only rows updated after; inclusive or not is not documented.
            page: From 1.
            page_size: Up to 500; the server may cap it.
            newest_first: Turn the order round.
            extra: Further parameters.
            fresh: See `Budget.draw`.
        """
        params = {
            **_EVERYTHING,
            "orderBy": "updatedat",
            "orderMode": "desc" if newest_first else "asc",
            "page": str(page),
            "pageSize": str(page_size),
            **(extra or {}),
        }
        if updated_after is not None:
            params["updatedAfter"] = to_param(updated_after)
        return self._page(f"{API}/tasks.json", "tasks", params, fresh=fresh)

    def fetch_deleted_tasks(
        self,
        *,
        deleted_after: datetime | None,
        updated_after: datetime | None = None,
        page: int = 1,
        fresh: bool = True,
    ) -> Page:
        """Return a page of deleted tasks, by a query of their own: `showDeleted` may add or replace (D3)."""
        extra = dict(_DELETED)
        if deleted_after is not None:
            extra["deletedAfter"] = to_param(deleted_after)
        return self.fetch_tasks(updated_after=updated_after, page=page, extra=extra, fresh=fresh)

    def fetch_tasks_by_id(self, ids: list[int], *, deleted: bool = False, fresh: bool = True) -> Page:
        """Return the living (or the deleted) tasks among up to `IDS_PER_CALL` *ids* in one call."""
        extra = {"ids": ",".join(map(str, ids)), **(_DELETED if deleted else {})}
        page = self.fetch_tasks(page_size=max(len(ids), 2), extra=extra, fresh=fresh)
        wanted = set(ids)
        if any(plain_id(row) not in wanted for row in page.rows):
            msg = "Teamwork GET tasks.json?ids=…: the answer holds other tasks than were asked for"
            raise PagingError(msg)
        return page

    def fetch_task(self, task_id: int) -> Page:
        """Return one task as a page of one.

        Raises:
            NotFoundError: Unknown, invisible or deleted.
        """
        reply = self.session.get(f"{API}/tasks/{task_id}.json", {"include": _INCLUDE})
        row = reply.data.get("task") if isinstance(reply.data, dict) else None
        if not isinstance(row, dict) or plain_id(row) != task_id:
            msg = f"Teamwork GET tasks/{task_id}.json: the answer is not this task"
            raise PagingError(msg)
        return Page(rows=[row], included=_included(reply.data), has_more=False, reply=reply)

    def fetch_one(self, stream: str, object_id: int) -> tuple[Json, Reply]:
        """Return one row of any stream but tasks, and the answer it came in.

        Raises:
            NotFoundError: Unknown, invisible or deleted.
        """
        path, _ = _FEEDS.get(stream, (stream, stream))
        reply = self.session.get(f"{API}/{path}/{object_id}.json")
        data = reply.data if isinstance(reply.data, dict) else {}
        found = (value for value in data.values() if isinstance(value, dict))
        row = next((value for value in found if plain_id(value) == object_id), None)
        if row is None:
            msg = f"Teamwork GET {stream}/{object_id}.json: the answer is not this row"
            raise PagingError(msg)
        return row, reply

    def fetch_feed(  # noqa: PLR0913 - the query of a list has these parts
        self,
        stream: str,
        *,
        updated_after: datetime | None = None,
        page: int = 1,
        page_size: int = DIRECTORY_PAGE_SIZE,
        deleted: bool = False,
        newest_first: bool = False,
        fresh: bool = True,
    ) -> Page:
        """Return a page of time entries or comments.

        Time entries are asked for in the order of their updates, comments, which know no such order, in that
        of their writing; whether the site does so has to be looked at.

        Args:
            stream: `time_entries` or `task_comments`.
            updated_after: Only rows updated after; inclusive or not is not documented.
            page: From 1.
            page_size: Up to 500; the server may cap it.
            deleted: Show deleted rows; whether besides the others or instead of them is not documented.
            newest_first: Turn the order round.
            fresh: See `Budget.draw`.
        """
        path, key = _FEEDS[stream]
        params = {
            "orderBy": _FEED_ORDERS[stream],
            "orderMode": "desc" if newest_first else "asc",
            "page": str(page),
            "pageSize": str(page_size),
            "skipCounts": "true",
            **({"showDeleted": "true"} if deleted else {}),
        }
        if updated_after is not None:
            params["updatedAfter"] = to_param(updated_after)
        return self._page(f"{API}/{path}.json", key, params, fresh=fresh)

    def fetch_activity(self, *, since: datetime, streams: tuple[str, ...] = POLLED_ACTIVITY) -> Activity:
        """Return what was deleted and restored since: neither need move an `updatedAt`."""
        found = Activity()
        kinds = ",".join(kind for kind, stream in _ACTIVITY_STREAMS.items() if stream in streams)
        params = {"startDate": to_param(since), "activityTypes": kinds, "pageSize": str(PAGE_SIZE)}
        for page in self._pages(f"{API}/latestactivity.json", "activities", params):
            for row in page.rows:
                try:
                    moment = _note_activity(row, found)
                except RecordError:
                    continue  # one that cannot be named is found by the reconcile
                if moment and moment <= page.reply.date and (found.newest is None or moment > found.newest):
                    found = replace(found, newest=moment)
        return found

    def fetch_directory(self, stream: str) -> Iterator[Page]:
        """Yield the pages of a directory that holds everything, hidden kinds included."""
        if stream == "teams":
            yield from self._v1_teams()
            return
        params = {
            "projects": {"includeArchivedProjects": "true", "includeTentativeProjects": "true"},
            "tasklists": {"showCompleted": "true", "includeArchivedProjects": "true"},
            "people": {"showDeleted": "true"},
        }.get(stream, {})
        paged = {**params, "pageSize": str(DIRECTORY_PAGE_SIZE), "skipCounts": "true"}
        yield from self._pages(f"{API}/{stream}.json", stream, paged)

    def _v1_teams(self) -> Iterator[Page]:
        """Yield the pages of v1 `/teams.json`, until one is short or brings nothing new."""
        known: set[Any] = set()
        for number in range(1, MAX_PAGES):
            reply = self.session.get("/teams.json", {"page": str(number), "pageSize": "250"})
            rows = _rows(reply.data, "teams")
            ids = {plain(row, "id") for row in rows}
            if number > 1 and ids <= known:
                break
            known |= ids  # of a site without teams the empty page says that they were read
            yield Page(rows=rows, included={}, has_more=len(rows) >= PAGE_SIZE, reply=reply)
            if len(rows) < PAGE_SIZE:
                break

    def _pages(self, path: str, key: str, params: dict[str, str]) -> Iterator[Page]:
        """Yield pages by number; a page that repeats the one before proves that paging does not work."""
        before: list[Any] | None = None
        for number in range(1, MAX_PAGES):
            page = self._page(path, key, {**params, "page": str(number)}, fresh=True)
            ids = [plain(row, "id") for row in page.rows]
            if ids and ids == before:
                msg = f"Teamwork GET {path}: page {number} repeats page {number - 1}"
                raise PagingError(msg)
            yield page
            if not page.has_more:
                return
            before = ids
        msg = f"Teamwork GET {path}: more than {MAX_PAGES} pages"
        raise PagingError(msg)

    def _page(self, path: str, key: str, params: dict[str, str], *, fresh: bool) -> Page:
        reply = self.session.get(path, params, fresh=fresh)
        rows = _rows(reply.data, key)
        more = _has_more(reply.data, path)
        return Page(rows=rows, included=_included(reply.data), has_more=more, reply=reply)


def _rows(data: Any, key: str) -> list[Json]:  # noqa: ANN401 - any JSON value
    rows = data.get(key) if isinstance(data, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        msg = f"Teamwork: the answer has no list {key!r}"
        raise PagingError(msg)
    return rows


def _has_more(data: Json, path: str) -> bool:
    try:
        meta = read_object(read_object(data, "meta") or {}, "page") or {}
    except RecordError as error:
        msg = f"Teamwork GET {path}: {error}"
        raise PagingError(msg) from error
    return meta.get("hasMore") is True


def _note_activity(row: Json, found: Activity) -> datetime | None:
    """Note what an activity deleted or restored; return when it happened."""
    moment, item = read_iso(row, "dateTime"), read_object(row, "item") or {}
    stream = _ACTIVITY_STREAMS.get(str(item.get("type", "task")).lower().rstrip("s"))
    kind = str(row.get("activityType") or row.get("latestActivityType"))
    ids = {"deleted": found.deleted, "undeleted": found.restored}.get(kind)
    if ids is not None and stream is not None and (item_id := read_id(item, "id")):
        known = ids.setdefault(stream, [])
        if item_id not in known:
            known.append(item_id)
    return moment


def _included(data: Json) -> dict[str, dict[str, Json]]:
    """Return the side-loaded maps; the key, a map or a row may be absent, null or empty."""
    included = data.get("included")
    if not isinstance(included, dict):
        return {}
    return {name: value for name, value in included.items() if isinstance(value, dict)}


def to_param(moment: datetime) -> str:
    """Return *moment* as the API takes it: UTC, whole seconds, `Z`; offsets and fractions are refused."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
