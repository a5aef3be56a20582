"""Teamwork's HTTP interface: version 3, and what is left of version 1."""

from __future__ import annotations

import base64
import binascii
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any, TypeVar

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from twm_pipeline.sandbox import teamwork_rows as rows
from twm_pipeline.sandbox.answers import Answers
from twm_pipeline.sandbox.budgets import MINUTE_SECONDS, Budget, Verdict, Window
from twm_pipeline.sandbox.gate import JSON, Vendor
from twm_pipeline.sandbox.options import TEAMWORK_KEY, Clock, Json, iso
from twm_pipeline.sandbox.teamwork_account import (
    Activity,
    Person,
    Task,
    TaskComment,
    TeamworkAccount,
    Timelog,
)
from twm_pipeline.sandbox.teamwork_hooks import TeamworkHooks
from twm_pipeline.sandbox.teamwork_query import (
    DEFAULT_PAGE_SIZE,
    InvalidParameterError,
    Listing,
    Parameters,
    in_range,
    task_order,
    task_tests,
)

V3 = "/projects/api/v3"
PAGING = frozenset({"page", "pageSize", "include", "skipCounts", "fields[tasks]"})
KEPT_LISTINGS = 8
ERRORS = {
    401: "401: Not authorized",
    403: "403: Forbidden",
    404: "404: Not found",
    405: "405: Method not allowed",
    429: "429: Too many requests",
}
EMPTY_SIDE_LOADS = ("milestones", "timeTotals", "attachments", "jobRoles", "comments", "predecessors")
SHORT_ROWS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "projects": rows.project_short,
    "tasklists": rows.list_short,
    "tags": rows.tag_row,
    "users": rows.person_short,
    "teams": rows.team_short,
    "companies": rows.company_short,
}
Item = TypeVar("Item")
Page = tuple[list[Any], dict[str, Any]]


class Teamwork(Vendor):
    """A Teamwork site.

    Args:
        account: What exists.
        hooks: Its webhooks.
        answers: The open questions.
        clock: The site's time.
    """

    name = "teamwork"

    def __init__(
        self, account: TeamworkAccount, *, hooks: TeamworkHooks, answers: Answers, clock: Clock
    ) -> None:
        window = Window(lambda: answers["teamwork.requests_per_minute"], MINUTE_SECONDS)
        budget = Budget([window], concurrency=None, sliding=lambda: answers["teamwork.window"] == "sliding")
        super().__init__(answers=answers, clock=clock, budget=budget, key=TEAMWORK_KEY)
        self.account = account
        self.hooks = hooks
        self._listings: OrderedDict[object, Listing] = OrderedDict()

    # What the door asks.

    def is_authorised(self, authorization: str) -> bool:
        """Accept the key as user of Basic, whatever the password, and as Bearer."""
        scheme, _, value = authorization.partition(" ")
        if scheme.lower() == "bearer":
            return value.strip() == self.key
        if scheme.lower() != "basic":
            return False
        try:
            user = base64.b64decode(value, validate=True).decode("utf-8").partition(":")[0]
        except (binascii.Error, UnicodeDecodeError):
            return False
        return user == self.key

    def error(self, status: int, message: str = "") -> JSON:
        """Return an error; 422 names the parameter."""
        if status == HTTPStatus.UNPROCESSABLE_ENTITY:
            error = {"id": "VALIDATION_ERROR", "title": "Validation error", "detail": message}
        else:
            error = {"title": "unexpected error", "detail": ERRORS.get(status, f"{status}: {message}")}
        return JSON({"errors": [error]}, status)

    def budget_headers(self, verdict: Verdict, status: int) -> dict[str, str]:  # noqa: ARG002 - on every answer
        """Return limit, remaining and reset under the spelling the answers ask for."""
        prefix = self.answers["teamwork.rate_header"]
        if prefix == "none":
            return {}
        reset = math.ceil(verdict.reset_seconds)
        if self.answers["teamwork.rate_reset"] == "epoch":
            reset += self.clock.now()
        names = ("-Limit", "-Remaining", "-Reset") if prefix[0] == "X" else ("-limit", "-remaining", "-reset")
        values = (verdict.limit, verdict.remaining, reset)
        return {prefix + name: str(value) for name, value in zip(names, values, strict=True)}

    def routes(self) -> list[BaseRoute]:
        """Return the endpoints."""
        get = self._route
        return [
            get(f"{V3}/tasks.json", self._tasks),
            get(f"{V3}/tasks/{{id:int}}.json", self._task),
            get(f"{V3}/projects/{{project:int}}/tasks.json", self._tasks),
            get(f"{V3}/tasklists/{{list:int}}/tasks.json", self._tasks),
            get(f"{V3}/projects.json", self._projects),
            get(f"{V3}/projects/{{id:int}}.json", self._project),
            get(f"{V3}/tasklists.json", self._lists),
            get(f"{V3}/projects/{{project:int}}/tasklists.json", self._lists),
            get(f"{V3}/tasklists/{{id:int}}.json", self._list),
            get(f"{V3}/people.json", self._people),
            get(f"{V3}/people/{{id:int}}.json", self._person),
            get(f"{V3}/me.json", self._me),
            get(f"{V3}/tags.json", self._tags),
            get(f"{V3}/companies.json", self._companies),
            get(f"{V3}/comments.json", self._comments),
            get(f"{V3}/comments/{{id:int}}.json", self._comment),
            get(f"{V3}/tasks/{{task:int}}/comments.json", self._comments),
            get(f"{V3}/time.json", self._time),
            get(f"{V3}/time/{{id:int}}.json", self._time_entry),
            get(f"{V3}/projects/{{project:int}}/time.json", self._time),
            get(f"{V3}/tasks/{{task:int}}/time.json", self._time),
            get(f"{V3}/latestactivity.json", self._activity),
            get("/teams.json", self._teams_v1),
            *self.hooks.routes(),
            Route("/{rest:path}", self._unknown),
        ]

    def _route(self, path: str, answer: Callable[[Request, Parameters], Response]) -> Route:
        async def endpoint(request: Request) -> Response:
            try:
                return answer(request, Parameters(request.query_params))
            except InvalidParameterError as error:
                return self.error(422, str(error))

        return Route(path, endpoint, methods=["GET"])

    async def _unknown(self, request: Request) -> Response:
        if request.url.path.endswith(".json") and V3 not in request.url.path:
            return JSON({"STATUS": "Error", "MESSAGE": "Invalid request"}, 404)
        return self.error(404)

    # Pages.

    def _page(self, listing: Listing, ask: Parameters) -> Page:
        """Cut a page out of a listing and describe it."""
        asked = ask.number("pageSize", DEFAULT_PAGE_SIZE)
        size = min(asked, self.answers["teamwork.max_page_size"])
        number = ask.number("page", 1)
        cap = self.answers["teamwork.record_cap"]
        start = (number - 1) * size
        if start >= cap and self.answers["teamwork.beyond_cap"] == "422":
            raise InvalidParameterError(f"page: only {cap} records can be paged")
        end = min(start + size, cap)
        found = listing.until(end + 1)
        has_more = len(found) > end and (end < cap or self.answers["teamwork.beyond_cap"] == "422")
        count = 0 if ask.flag("skipCounts") else min(len(found), end + 1)
        names = ("pageOffset", "pageSize")
        if self.answers["teamwork.page_meta"] == "offset":
            names = ("offset", "size")
        meta = {names[0]: number - 1, names[1]: asked, "count": count, "hasMore": has_more}
        return found[start:end], {"page": meta}

    def _answer_list(
        self, name: str, found: Iterable[Any], row: Callable[[Any], dict[str, Any]], ask: Parameters
    ) -> JSON:
        page, meta = self._page(Listing(iter(found)), ask)
        return JSON({name: [row(item) for item in page], "included": {}, "meta": meta})

    def _updated(self, items: Iterable[Any], ask: Parameters) -> list[Any]:
        """Keep what changed within `updatedAfter` and `updatedBefore`."""
        after, before = ask.instant("updatedAfter"), ask.instant("updatedBefore")
        inclusive = self.answers["teamwork.updated_after_inclusive"]
        return [
            item
            for item in items
            if in_range(item.updated_at or item.created_at, after, before, inclusive=inclusive)
        ]

    # Tasks.

    def _tasks(self, request: Request, ask: Parameters) -> Response:
        scope = request.path_params
        if not self._scope_exists(scope):
            return self.error(404)
        page, meta = self._page(self._task_listing(scope, ask), ask)
        page = [task for task in page if self.account.is_visible(task)]
        fields = ask.names("fields[tasks]")
        body = {
            "tasks": [self._sparse(task, fields) for task in page],
            "included": self._included(page, ask.names("include")),
            "meta": meta,
        }
        return JSON(body)

    def _scope_exists(self, scope: dict[str, Any]) -> bool:
        account = self.account
        if "list" in scope:
            task_list = account.lists.get(scope["list"])
            if task_list is None or task_list.deleted_at is not None:
                return False
            scope = {"project": task_list.project_id}
        if "project" in scope:
            project = account.projects.get(scope["project"])
            return project is not None and project.accessible and project.deleted_at is None
        return True

    def _task_listing(self, scope: dict[str, Any], ask: Parameters) -> Listing:
        """Return the tasks asked for, kept so that the next page goes on where this one ended."""
        key = (
            tuple(scope.items()),
            ask.key(without=PAGING),
            self.account.version,
            self.answers.version,
        )
        listing = self._listings.get(key)
        if listing is None:
            listing = self._listings[key] = Listing(self._select(scope, ask))
            while len(self._listings) > KEPT_LISTINGS:
                self._listings.popitem(last=False)
        return listing

    def _select(self, scope: dict[str, Any], ask: Parameters) -> Iterator[Task]:
        account = self.account
        today = (iso(self.clock.now()) or "")[:10]
        tests = task_tests(account, ask, self.answers, today=today)
        if "list" in scope:
            tests.insert(0, lambda task: task.list_id == scope["list"])
        if "project" in scope:
            inside = {item.id for item in account.lists.values() if item.project_id == scope["project"]}
            tests.insert(0, lambda task: task.list_id in inside)
        if not self.answers["teamwork.filter_after_paging"]:
            tests.append(account.is_visible)
        return (task for task in task_order(account, ask, self.answers) if all(test(task) for test in tests))

    def _sparse(self, task: Task, fields: list[str]) -> Json:
        if not fields:
            return orjson.Fragment(rows.task_bytes(task))
        return {name: value for name, value in rows.task_row(task).items() if name in fields or name == "id"}

    def _task(self, request: Request, ask: Parameters) -> Response:
        task = self.account.tasks.get(request.path_params["id"])
        if task is None or not self.account.is_visible(task) or self._is_gone(task):
            return self.error(404)
        included = self._included([task], ask.names("include"))
        return JSON({"task": orjson.Fragment(rows.task_bytes(task)), "included": included})

    def _is_gone(self, task: Task) -> bool:
        """Say whether a deleted task is not found, by itself or with its list."""
        task_list = self.account.lists.get(task.list_id) if task.list_id is not None else None
        deleted = task.deleted_at is not None or (task_list is not None and task_list.deleted_at is not None)
        return deleted and self.answers["teamwork.deleted_get"] == "404"

    def _included(self, tasks: list[Task], names: list[str]) -> dict[str, Any]:
        """Return the side-loads asked for; an empty one is a map, null or missing, in turn."""
        included: dict[str, Any] = {}
        for place, name in enumerate(names):
            side_load = self._side_load(tasks, name)
            if side_load is None:
                continue
            key, found = side_load
            if found or (len(tasks) + place) % 3 == 0:
                included[key] = {**(included.get(key) or {}), **found}
            elif (len(tasks) + place) % 3 == 1:
                included.setdefault(key, None)
        return included

    def _side_load(self, tasks: list[Task], name: str) -> tuple[str, dict[str, Any]] | None:
        """Return one side-load's key and map; None for a name that means nothing."""
        account = self.account
        projects = {item.id: item for task in tasks if (item := account.project_of(task))}
        companies = {item.company_id for item in projects.values()}
        tables: dict[str, Callable[[], dict[int, Any]]] = {
            "projects": lambda: projects,
            "tasklists": lambda: pick(account.lists, (task.list_id for task in tasks)),
            "tags": lambda: pick(account.tags, (key for task in tasks for key in task.tag_ids or ())),
            "users": lambda: self._users(tasks),
            "teams": lambda: pick(account.teams, assigned(tasks, "teams")),
            "companies": lambda: pick(account.companies, companies | assigned(tasks, "companies")),
            "projects.companies": lambda: pick(account.companies, companies),
            "parentTasks": lambda: self._parents(tasks),
        }
        if name not in tables:
            return (name, {}) if name in EMPTY_SIDE_LOADS else None
        key = {"projects.companies": "companies", "parentTasks": "tasks"}.get(name, name)
        row = SHORT_ROWS.get(key, rows.task_row)
        return key, {str(row_id): row(item) for row_id, item in tables[name]().items()}

    def _parents(self, tasks: list[Task]) -> dict[int, Task]:
        found = pick(self.account.tasks, (task.parent_id for task in tasks))
        return {key: task for key, task in found.items() if self.account.is_visible(task)}

    def _users(self, tasks: list[Task]) -> dict[int, Person]:
        """Return the people in some tasks that the key's owner can see."""
        named = {key for task in tasks for key in (task.created_by, task.updated_by, task.completed_by)}
        found = pick(self.account.people, named | assigned(tasks, "users"))
        return {key: person for key, person in found.items() if person.visible}

    # Directories.

    def _projects(self, _: Request, ask: Parameters) -> Response:
        archived, only = ask.flag("includeArchivedProjects"), ask.flag("onlyArchivedProjects")
        statuses, ids = set(ask.names("projectStatuses")), ask.ids("ids")
        found = [
            item
            for item in self._updated(self.account.projects.values(), ask)
            if item.accessible
            and item.deleted_at is None
            and (ids is None or item.id in ids)
            and (not statuses or item.status in statuses)
            and (item.archived_at is not None if only else archived or item.archived_at is None)
        ]
        return self._answer_list("projects", found, rows.project_row, ask)

    def _project(self, request: Request, _: Parameters) -> Response:
        project = self.account.projects.get(request.path_params["id"])
        if project is None or not project.accessible or project.deleted_at is not None:
            return self.error(404)
        return JSON({"project": rows.project_row(project), "included": {}})

    def _lists(self, request: Request, ask: Parameters) -> Response:
        account, scope = self.account, request.path_params
        if not self._scope_exists(scope):
            return self.error(404)
        completed, archived = ask.flag("showCompleted"), ask.flag("includeArchivedProjects")
        wanted = {scope["project"]} if "project" in scope else ask.ids("projectIds")
        ids = ask.ids("ids")

        def shown(project_id: int) -> bool:
            project = account.projects[project_id]
            if not project.accessible or project.deleted_at is not None:
                return False
            return (archived or project.archived_at is None) and (wanted is None or project_id in wanted)

        found = [
            item
            for item in self._updated(account.lists.values(), ask)
            if item.deleted_at is None
            and (completed or not item.completed)
            and (ids is None or item.id in ids)
            and shown(item.project_id)
        ]
        return self._answer_list("tasklists", found, rows.list_row, ask)

    def _list(self, request: Request, _: Parameters) -> Response:
        task_list = self.account.lists.get(request.path_params["id"])
        if task_list is None or not self._scope_exists({"list": task_list.id}):
            return self.error(404)
        return JSON({"tasklist": rows.list_row(task_list), "included": {}})

    def _people(self, _: Request, ask: Parameters) -> Response:
        deleted, ids = ask.flag("showDeleted"), ask.ids("ids")
        found = [
            item
            for item in self._updated(self.account.people.values(), ask)
            if item.visible and (deleted or not item.deleted) and (ids is None or item.id in ids)
        ]
        return self._answer_list("people", found, rows.person_row, ask)

    def _person(self, request: Request, _: Parameters) -> Response:
        person = self.account.people.get(request.path_params["id"])
        if person is None or not person.visible:
            return self.error(404)
        return JSON({"person": rows.person_row(person), "included": {}})

    def _me(self, _: Request, __: Parameters) -> Response:
        return JSON({"person": rows.me_row(self.account.people[self.account.me_id])})

    def _tags(self, _: Request, ask: Parameters) -> Response:
        term, projects = ask.text("searchTerm").lower(), ask.ids("projectIds")
        found = [
            item
            for item in self.account.tags.values()
            if term in item.name.lower() and (projects is None or item.project_id in projects)
        ]
        return self._answer_list("tags", found, rows.tag_row, ask)

    def _companies(self, _: Request, ask: Parameters) -> Response:
        found = self._updated(self.account.companies.values(), ask)
        return self._answer_list("companies", found, rows.company_row, ask)

    def _teams_v1(self, _: Request, ask: Parameters) -> Response:
        teams = list(self.account.teams.values())
        size = min(ask.number("pageSize", DEFAULT_PAGE_SIZE), 250)
        number = ask.number("page", 1)
        page = teams[(number - 1) * size : number * size]
        headers = {
            "X-Page": str(number),
            "X-Pages": str(max(math.ceil(len(teams) / size), 1)),
            "X-Records": str(len(teams)),
        }
        body = {"STATUS": "OK", "teams": [rows.team_v1_row(team, self.account) for team in page]}
        return JSON(body, headers=headers)

    # What happens to tasks.

    def _comments(self, request: Request, ask: Parameters) -> Response:
        account = self.account
        task_id = request.path_params.get("task")
        if task_id is not None:
            task = account.tasks.get(task_id)
            if task is None or not account.is_visible(task) or self._is_gone(task):
                return self.error(404)
        keys = account.comments if task_id is None else account.comments_of.get(task_id, [])
        comments = self._wanted_comments([account.comments[key] for key in keys], ask)
        return self._answer_list("comments", comments, lambda item: rows.comment_row(item, account), ask)

    def _comment(self, request: Request, _: Parameters) -> Response:
        comment = self.account.comments.get(request.path_params["id"])
        if comment is None or not self._is_reachable(comment) or self._is_gone_alone(comment):
            return self.error(404)
        return JSON({"comments": rows.comment_row(comment, self.account), "included": {}})

    def _is_reachable(self, comment: TaskComment) -> bool:
        """Say whether a comment's task lets it be seen."""
        task = self.account.tasks[comment.task_id]
        kept = self.answers["teamwork.deleted_task_comments"] == "kept"
        return self.account.is_visible(task) and (task.deleted_at is None or kept)

    def _is_gone_alone(self, item: TaskComment | Timelog) -> bool:
        return item.deleted_at is not None and self.answers["teamwork.deleted_get"] == "404"

    def _wanted_comments(self, comments: list[TaskComment], ask: Parameters) -> list[TaskComment]:
        after, before = ask.instant("updatedAfter"), ask.instant("updatedBefore")
        users, shown = ask.ids("userIds"), self._deletion_test(ask)
        inclusive = self.answers["teamwork.updated_after_inclusive"]

        def changed_at(item: TaskComment) -> int:
            return max(item.posted_at, item.edited_at or 0, item.deleted_at or 0)

        found = [
            item
            for item in comments
            if shown(item)
            and (users is None or item.posted_by in users)
            and in_range(changed_at(item), after, before, inclusive=inclusive)
            and self._is_reachable(item)
        ]
        return self._ordered(found, ask, {"date": lambda item: item.posted_at})

    def _deletion_test(self, ask: Parameters) -> Callable[[TaskComment | Timelog], bool]:
        """Return the test that decides between living and deleted time entries or comments."""
        meaning = self.answers["teamwork.feed_show_deleted"]
        if not ask.flag("showDeleted") or meaning == "ignored":
            return lambda item: item.deleted_at is None
        return lambda item: meaning == "add" or item.deleted_at is not None

    def _ordered(
        self, found: list[Item], ask: Parameters, keys: dict[str, Callable[[Item], int]]
    ) -> list[Item]:
        """Return time entries or comments in the order asked for, or in whichever the site prefers."""
        order = self.answers["teamwork.feed_order"]
        if order == "newest_first":
            return found[::-1]
        key = keys.get(ask.text("orderBy").lower())
        if order == "id" or key is None:
            return found
        return sorted(found, key=key, reverse=ask.text("orderMode").lower() == "desc")

    def _time(self, request: Request, ask: Parameters) -> Response:
        scope = request.path_params
        start, end = ask.instant("startDate"), ask.day_end("endDate")
        shown = self._deletion_test(ask)

        def wanted(item: Timelog) -> bool:
            return (
                shown(item)
                and in_range(item.logged_at, start, end, inclusive=True)
                and scope.get("task", item.task_id) == item.task_id
                and scope.get("project", item.project_id) == item.project_id
                and self._scope_exists({"project": item.project_id})
            )

        found = [item for item in self._updated(self.account.timelogs.values(), ask) if wanted(item)]
        keys: dict[str, Callable[[Timelog], int]] = {
            "date": lambda item: item.logged_at,
            "dateupdated": lambda item: item.updated_at,
        }
        return self._answer_list("timelogs", self._ordered(found, ask, keys), rows.timelog_row, ask)

    def _time_entry(self, request: Request, _: Parameters) -> Response:
        log = self.account.timelogs.get(request.path_params["id"])
        if log is None or not self._scope_exists({"project": log.project_id}) or self._is_gone_alone(log):
            return self.error(404)
        return JSON({"timelog": rows.timelog_row(log), "included": {}})

    def _activity(self, _: Request, ask: Parameters) -> Response:
        account = self.account
        start, end = ask.instant("startDate"), ask.day_end("endDate")
        kinds, ids = set(ask.names("activityTypes")), ask.ids("itemIds")

        def seen(item: Activity) -> bool:
            task = account.tasks.get(item.item_id) if item.item_type == "task" else None
            project = None if item.project_id is None else account.projects[item.project_id]
            return (task is None or not task.hidden) and (project is None or project.accessible)

        found = [
            item
            for item in account.activities
            if (not kinds or item.item_type in kinds)
            and (ids is None or item.item_id in ids)
            and in_range(item.at, start, end, inclusive=True)
            and seen(item)
        ]
        newest = self.answers["teamwork.activity_order"] == "newest_first"
        found.sort(key=lambda item: (item.at, item.id), reverse=newest)
        return self._answer_list("activities", found, rows.activity_row, ask)


def pick(items: dict[int, Item], keys: Iterable[int | None]) -> dict[int, Item]:
    """Return the items with some ids, in the order of the ids; None and unknown ones are left out."""
    return {key: items[key] for key in sorted({key for key in keys if key is not None and key in items})}


def assigned(tasks: list[Task], kind: str) -> set[int]:
    """Return the ids of one kind of assignee in some tasks."""
    return {key for task in tasks for name, key in task.assignees or () if name == kind}
