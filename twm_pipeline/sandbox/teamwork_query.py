"""What a list request asks for: parameters, the tasks they let through, pages."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from starlette.datastructures import QueryParams

from twm_pipeline.sandbox.answers import Answers
from twm_pipeline.sandbox.teamwork_account import Task, TeamworkAccount

DATE = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\dZ)?")
DEFAULT_PAGE_SIZE = 50
Test = Callable[[Task], bool]


class InvalidParameterError(Exception):
    """A parameter that the vendor answers with 422."""


@dataclass(slots=True)
class Listing:
    """Rows in order, read only as far as somebody asked."""

    source: Iterator[Any]
    taken: list[Any] = field(default_factory=list)

    def until(self, count: int) -> list[Any]:
        """Return the rows, at least *count* if there are so many."""
        while len(self.taken) < count:
            row = next(self.source, None)
            if row is None:
                break
            self.taken.append(row)
        return self.taken


class Parameters:
    """Typed access to a query string; what nobody asks for is ignored silently."""

    def __init__(self, query: QueryParams) -> None:
        self._values: dict[str, str] = {}
        for key, value in query.multi_items():
            self._values.setdefault(key, value)  # A repeated parameter counts only once.

    def text(self, name: str) -> str:
        """Return a parameter, empty when it is missing."""
        return self._values.get(name, "")

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return a boolean."""
        value = self.text(name).lower()
        return value in ("true", "1", "yes") if value else default

    def names(self, name: str) -> list[str]:
        """Return a comma list."""
        return [item.strip() for item in self.text(name).split(",") if item.strip()]

    def ids(self, name: str) -> set[int] | None:
        """Return a comma list of ids, None when it is missing."""
        items = self.names(name)
        if not items:
            return None
        if not all(item.isdigit() for item in items):
            raise InvalidParameterError(f"{name}: invalid id")
        return {int(item) for item in items}

    def number(self, name: str, default: int) -> int:
        """Return a positive number."""
        value = self.text(name)
        if not value:
            return default
        if not value.isdigit():
            raise InvalidParameterError(f"{name}: invalid number")
        return max(int(value), 1)

    def instant(self, name: str) -> int | None:
        """Return a date as Unix seconds; offsets and fractions are refused."""
        value = self.text(name)
        if not value:
            return None
        if not DATE.fullmatch(value):
            raise InvalidParameterError(f"{name}: invalid date")
        try:
            parsed = datetime.fromisoformat(value)
        except ValueError:
            raise InvalidParameterError(f"{name}: invalid date") from None
        return int((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp())

    def day_end(self, name: str) -> int | None:
        """Return a date as its last second: a bare one means the whole day."""
        instant = self.instant(name)
        return instant if instant is None or "T" in self.text(name) else instant + 86_399

    def key(self, *, without: frozenset[str]) -> tuple[tuple[str, str], ...]:
        """Return the parameters as a key, leaving out some."""
        return tuple(sorted((k, v) for k, v in self._values.items() if k not in without))


def due_seconds(value: str | None) -> int | None:
    """Return the instant at which a served due date begins."""
    return None if value is None else int(datetime.fromisoformat(value[:10] + "T00:00:00Z").timestamp())


def in_range(value: int | None, after: int | None, before: int | None, *, inclusive: bool) -> bool:
    """Say whether a value lies between two bounds; None does not, once there is a bound."""
    if after is None and before is None:
        return True
    if value is None:
        return False
    if inclusive:
        return (after is None or value >= after) and (before is None or value <= before)
    return (after is None or value > after) and (before is None or value < before)


def hidden_lists(account: TeamworkAccount, ask: Parameters) -> set[int]:
    """Return the task lists whose tasks the parameters leave out."""
    completed = ask.flag("showCompletedLists") and (
        ask.flag("includeCompletedTasks") or ask.flag("completedOnly")
    )
    deleted = ask.flag("includeTasksFromDeletedLists")
    archived = ask.flag("includeArchivedProjects")
    tentative = ask.flag("includeTentativeProjects", default=True)
    kind = ask.text("projectType").lower()
    hidden = set()
    for task_list in account.lists.values():
        project = account.projects[task_list.project_id]
        if (
            (task_list.completed and not completed)
            or (task_list.deleted_at is not None and not deleted)
            or (project.archived_at is not None and not archived)
            or (project.type == "tentative" and not tentative)
            or (kind in ("normal", "tentative") and project.type != kind)
        ):
            hidden.add(task_list.id)
    return hidden


def deletion_test(ask: Parameters, answers: Answers) -> Test:
    """Return the test that decides between living and deleted tasks."""
    shown = ask.flag("showDeleted")
    only = ask.flag("deletedOnly") or (shown and answers["teamwork.show_deleted"] == "replace")
    after = ask.instant("deletedAfter")
    if after is not None:
        if not shown and answers["teamwork.deleted_after_needs_show_deleted"]:
            return lambda _: False
        inclusive = answers["teamwork.updated_after_inclusive"]
        return lambda task: in_range(task.deleted_at, after, None, inclusive=inclusive)
    if only:
        return lambda task: task.deleted_at is not None
    return lambda task: shown or task.deleted_at is None


def range_tests(ask: Parameters, *, inclusive: bool) -> list[Test]:
    """Return the tests of the date parameters that were sent."""
    fields: dict[str, Callable[[Task], int | None]] = {
        "updated": lambda task: task.updated_at,
        "created": lambda task: task.created_at,
        "completed": lambda task: task.completed_at,
        "due": lambda task: due_seconds(task.due),
    }
    tests: list[Test] = []
    for name, read in fields.items():
        after, before = ask.instant(f"{name}After"), ask.instant(f"{name}Before")
        if after is not None or before is not None:
            tests.append(range_test(read, after, before, inclusive=inclusive))
    return tests


def range_test(
    read: Callable[[Task], int | None], after: int | None, before: int | None, *, inclusive: bool
) -> Test:
    """Return the test of one date."""
    return lambda task: in_range(read(task), after, before, inclusive=inclusive)


def selection_tests(account: TeamworkAccount, ask: Parameters) -> list[Test]:
    """Return the tests of the id lists that were sent."""
    tests: list[Test] = []
    if (lists := ask.ids("tasklistIds")) is not None:
        tests.append(lambda task: task.list_id in lists)
    if (projects := ask.ids("projectIds")) is not None:
        inside = {item.id for item in account.lists.values() if item.project_id in projects}
        tests.append(lambda task: task.list_id in inside)
    if (tags := ask.ids("tagIds")) is not None:
        tests.append(lambda task: bool(task.tag_ids and tags.intersection(task.tag_ids)))
    if (people := ask.ids("responsiblePartyIds")) is not None:
        tests.append(
            lambda task: any(kind == "users" and key in people for kind, key in task.assignees or ())
        )
    return tests


def status_tests(ask: Parameters, today: str) -> list[Test]:
    """Return the tests of `status`, `taskFilter` and the completion flags."""
    tests: list[Test] = []
    only = ask.flag("completedOnly") or ask.text("taskFilter") == "completed"
    if only:
        tests.append(lambda task: task.status == "completed")
    elif not ask.flag("includeCompletedTasks"):
        tests.append(lambda task: task.status != "completed")
    if wanted := set(ask.names("status")):
        tests.append(lambda task: (task.status if task.deleted_at is None else "deleted") in wanted)
    if ask.text("taskFilter") == "overdue":
        tests.append(lambda task: task.due is not None and task.due[:10] < today)
    if ask.text("taskFilter") == "nodate":
        tests.append(lambda task: task.due is None)
    return tests


def task_tests(account: TeamworkAccount, ask: Parameters, answers: Answers, *, today: str) -> list[Test]:
    """Return every test that a task has to pass to be in the list."""
    hidden = hidden_lists(account, ask)
    tests: list[Test] = [deletion_test(ask, answers)]
    if hidden:
        tests.append(lambda task: task.list_id not in hidden)
    tests += status_tests(ask, today)
    tests += range_tests(ask, inclusive=answers["teamwork.updated_after_inclusive"])
    tests += selection_tests(account, ask)
    sub_tasks = ask.flag("getSubTasks", default=answers["teamwork.sub_tasks_by_default"])
    if not sub_tasks or ask.flag("nestSubTasks"):
        tests.append(lambda task: task.parent_id is None)
    if not ask.flag("includePrivateItems", default=True):
        tests.append(lambda task: not task.private)
    if not ask.flag("includeTasksWithoutDueDates", default=True):
        tests.append(lambda task: task.due is not None)
    return tests


def task_order(account: TeamworkAccount, ask: Parameters, answers: Answers) -> Iterator[Task]:
    """Yield the candidates in the order asked for; by due date, whatever else was asked."""
    ids = ask.ids("ids")
    order = ask.text("orderBy").lower()
    descending = ask.text("orderMode").lower() == "desc"
    flip = answers["teamwork.tie_order"] == "id_desc"
    if ids is None and order == "updatedat" and not flip:
        yield from account.ordered(after=ask.instant("updatedAfter"), descending=descending)
        return
    found = account.tasks.values() if ids is None else [t for i in ids if (t := account.tasks.get(i))]
    keys: dict[str, Callable[[Task], Any]] = {
        "updatedat": lambda task: task.updated_at,
        "createdat": lambda task: task.created_at,
        "completedat": lambda task: task.completed_at or 0,
        "id": lambda task: task.id,
    }
    rows = sorted(found, key=lambda task: task.id, reverse=flip)
    yield from sorted(rows, key=keys.get(order, lambda task: task.due or "9999"), reverse=descending)
