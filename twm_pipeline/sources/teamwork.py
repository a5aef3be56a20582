"""Teamwork Projects API v3 (and what is left of v1): requests, pages, and its JSON as records.

Facts come from Teamwork's API guides (apidocs.teamwork.com) and its official SDK (Teamwork/twapi-go-sdk).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from requests.auth import HTTPBasicAuth

from twm_pipeline.budget import Limit, Plan
from twm_pipeline.errors import PagingError, RecordError
from twm_pipeline.records import (
    Company,
    Json,
    Person,
    Project,
    Record,
    Tag,
    Task,
    Tasklist,
    Team,
    digest,
    to_json,
)
from twm_pipeline.sources.fields import (
    plain,
    plain_id,
    read_bool,
    read_calendar_date,
    read_id,
    read_int,
    read_iso,
    read_list,
    read_object,
    read_text,
    to_id,
)

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
_DELETED = {"deletedOnly": "true", "showDeleted": "true"}
_VOLATILE = frozenset({"avatarUrl", "lastWorkedOn", "lastLogin", "sequence", "included"})


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
        """Return one row of a directory and the answer it came in.

        Raises:
            NotFoundError: Unknown, invisible or deleted.
        """
        reply = self.session.get(f"{API}/{stream}/{object_id}.json")
        data = reply.data if isinstance(reply.data, dict) else {}
        found = (value for value in data.values() if isinstance(value, dict))
        row = next((value for value in found if plain_id(value) == object_id), None)
        if row is None:
            msg = f"Teamwork GET {stream}/{object_id}.json: the answer is not this row"
            raise PagingError(msg)
        return row, reply

    def fetch_undeleted(self, *, since: datetime) -> tuple[list[int], datetime | None]:
        """Return ids of tasks restored since, and the newest activity's time, from the activity feed."""
        ids: list[int] = []
        newest: datetime | None = None
        params = {"startDate": to_param(since), "activityTypes": "task", "pageSize": str(PAGE_SIZE)}
        for page in self._pages(f"{API}/latestactivity.json", "activities", params):
            for row in page.rows:
                try:
                    moment, item_id = _restored(row)
                except RecordError:
                    continue  # a restored task that cannot be named is found by the reconcile
                if moment and moment <= page.reply.date and (newest is None or moment > newest):
                    newest = moment
                if item_id:
                    ids.append(item_id)
        return list(dict.fromkeys(ids)), newest

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


def _restored(row: Json) -> tuple[datetime | None, int | None]:
    """Return when an activity happened, and the task it restored, if it did."""
    item = read_object(row, "item") or {}
    is_task = str(item.get("type", "task")).lower().rstrip("s") == "task"
    kind = row.get("activityType") or row.get("latestActivityType")
    item_id = read_id(item, "id") if kind == "undeleted" and is_task else None
    return read_iso(row, "dateTime"), item_id


def _included(data: Json) -> dict[str, dict[str, Json]]:
    """Return the side-loaded maps; the key, a map or a row may be absent, null or empty."""
    included = data.get("included")
    if not isinstance(included, dict):
        return {}
    return {name: value for name, value in included.items() if isinstance(value, dict)}


def to_param(moment: datetime) -> str:
    """Return *moment* as the API takes it: UTC, whole seconds, `Z`; offsets and fractions are refused."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def updated_at(row: Json) -> datetime | None:
    """Return when a task's row says that it was last updated."""
    return read_iso(row, "updatedAt") or read_iso(row, "dateUpdated")


def _base(row: Json, *, version: datetime | None, date: datetime) -> dict[str, Any]:
    """Return what every record has; a version later than the answer itself is not believed (D4)."""
    row_id = read_id(row, "id")
    if row_id is None:
        msg = "the row has no id"
        raise RecordError(msg)
    return {
        "id": row_id,
        "version_at": version if version is None or version <= date else None,
        "content_hash": digest({key: value for key, value in row.items() if key not in _VOLATILE}),
        "raw": to_json(row),
    }


def _related_id(row: Json, key: str, plain: str) -> int | None:
    """Return the id of a relation given as `{id, type}`, as a bare id, or both."""
    value = row.get(key)
    if isinstance(value, dict):
        return read_id(value, "id")
    return to_id(value, key) or read_id(row, plain)


def _related_ids(row: Json, key: str, plain: str) -> list[int]:
    ids = [to_id(item.get("id") if isinstance(item, dict) else item, key) for item in read_list(row, key)]
    if not ids:
        ids = [to_id(item, plain) for item in read_list(row, plain)]
    return list(dict.fromkeys(item for item in ids if item is not None))


def _assignees(row: Json) -> list[tuple[int, str]]:
    """Return (id, kind) of people, teams and companies in the vendor's order."""
    pairs = []
    for item in read_list(row, "assignees"):
        if isinstance(item, dict) and (item_id := read_id(item, "id")):
            pairs.append((item_id, str(item.get("type") or "users")))
    pairs += [
        (item_id, kind)
        for key, kind in (
            ("assigneeUserIds", "users"),
            ("assigneeTeamIds", "teams"),
            ("assigneeCompanyIds", "companies"),
        )
        for item_id in _related_ids(row, key, key)
    ]
    return list(dict.fromkeys(pairs))


def parse_task(row: Json, *, date: datetime) -> Task:
    """Return a task.

    Args:
        row: The row of a list or of a single read.
        date: The answer's own clock.

    Raises:
        RecordError: If the row cannot be used; the message names the key.
    """
    updated = updated_at(row)
    deleted_at = read_iso(row, "deletedAt")
    assignees = _assignees(row)
    status = read_text(row, "status")
    return Task(
        **_base(row, version=updated, date=date),
        deleted=deleted_at is not None or status == "deleted",
        deleted_at=deleted_at,
        title=read_text(row, "name"),
        description=read_text(row, "description"),
        description_type=read_text(row, "descriptionContentType"),
        status=status,
        priority=read_text(row, "priority") or None,
        progress=read_int(row, "progress"),
        is_private=read_bool(row, "isPrivate"),
        tasklist_id=_related_id(row, "tasklist", "tasklistId"),
        parent_task_id=_related_id(row, "parentTask", "parentTaskId"),
        assignee_ids=[item_id for item_id, _ in assignees],
        assignee_types=[kind for _, kind in assignees],
        tag_ids=_related_ids(row, "tags", "tagIds"),
        start_date=read_calendar_date(row, "startDate"),
        due_date=read_calendar_date(row, "dueDate"),
        estimate_minutes=read_int(row, "estimateMinutes"),
        accumulated_estimate_minutes=read_int(row, "accumulatedEstimatedMinutes"),
        created_at=read_iso(row, "createdAt"),
        created_by_id=_related_id(row, "createdBy", "createdByUserId"),
        updated_at=updated,
        updated_by_id=_related_id(row, "updatedBy", "updatedByUserId"),
        completed_at=read_iso(row, "completedAt"),
        completed_by_id=_related_id(row, "completedBy", "completedByUserId"),
    )


def parse_project(row: Json, *, date: datetime) -> Project:
    """Return a project; see `parse_task`."""
    return Project(
        **_base(row, version=read_iso(row, "updatedAt"), date=date),
        deleted=read_text(row, "status") == "deleted",
        name=read_text(row, "name"),
        description=read_text(row, "description"),
        status=read_text(row, "status"),
        type=read_text(row, "type"),
        company_id=_related_id(row, "company", "companyId"),
        owner_id=_related_id(row, "projectOwner", "ownerId"),
        tag_ids=_related_ids(row, "tags", "tagIds"),
        start_at=read_iso(row, "startAt"),
        end_at=read_iso(row, "endAt"),
        created_at=read_iso(row, "createdAt"),
        updated_at=read_iso(row, "updatedAt"),
        completed_at=read_iso(row, "completedAt"),
        archived_at=read_iso(row, "archivedAt"),
    )


def parse_tasklist(row: Json, *, date: datetime) -> Tasklist:
    """Return a task list; see `parse_task`."""
    return Tasklist(
        **_base(row, version=read_iso(row, "updatedAt"), date=date),
        deleted=read_text(row, "status") == "deleted",
        name=read_text(row, "name"),
        description=read_text(row, "description"),
        project_id=_related_id(row, "project", "projectId"),
        status=read_text(row, "status"),
        created_at=read_iso(row, "createdAt"),
        updated_at=read_iso(row, "updatedAt"),
    )


def parse_person(row: Json, *, date: datetime) -> Person:
    """Return a person; see `parse_task`."""
    return Person(
        **_base(row, version=read_iso(row, "updatedAt"), date=date),
        deleted=bool(read_bool(row, "deleted")),
        first_name=read_text(row, "firstName"),
        last_name=read_text(row, "lastName"),
        email=read_text(row, "email"),
        title=read_text(row, "title"),
        type=read_text(row, "type"),
        company_id=_related_id(row, "company", "companyId"),
        created_at=read_iso(row, "createdAt"),
        updated_at=read_iso(row, "updatedAt"),
    )


def parse_tag(row: Json, *, date: datetime) -> Tag:
    """Return a tag; see `parse_task`."""
    return Tag(
        **_base(row, version=None, date=date),
        name=read_text(row, "name"),
        color=read_text(row, "color"),
        project_id=_related_id(row, "project", "projectId"),
    )


def parse_company(row: Json, *, date: datetime) -> Company:
    """Return a company; see `parse_task`."""
    return Company(
        **_base(row, version=read_iso(row, "updatedAt"), date=date),
        deleted=read_text(row, "status") == "deleted",
        name=read_text(row, "name"),
        status=read_text(row, "status"),
        website=read_text(row, "website"),
        created_at=read_iso(row, "createdAt"),
        updated_at=read_iso(row, "updatedAt"),
    )


def parse_team(row: Json, *, date: datetime) -> Team:
    """Return a team; its ids are strings in v1. See `parse_task`."""
    return Team(
        **_base(row, version=None, date=date),
        name=read_text(row, "name"),
        handle=read_text(row, "handle"),
        description=read_text(row, "description"),
        member_ids=_related_ids(row, "members", "memberIds"),
    )


PARSERS: dict[str, Callable[..., Record]] = {
    "tasks": parse_task,
    "projects": parse_project,
    "tasklists": parse_tasklist,
    "people": parse_person,
    "tags": parse_tag,
    "companies": parse_company,
    "teams": parse_team,
}
INCLUDED = {
    "projects": "projects",
    "tasklists": "tasklists",
    "users": "people",
    "tags": "tags",
    "companies": "companies",
    "teams": "teams",
}
"""Side-loaded map → stream."""
