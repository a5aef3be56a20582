"""What exists in a simulated Teamwork site."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field

OWNER_COMPANY_ID = 200_001
FIRST_TASK_ID = 1_000_001
FIRST_COMMENT_ID = 6_000_001
FIRST_ACTIVITY_ID = 9_500_001


@dataclass(slots=True, kw_only=True)
class Task:
    """A task. Times are Unix seconds; due and start are strings as served."""

    id: int
    name: str
    created_at: int
    updated_at: int
    description: str = ""
    html: bool = False
    priority: str | None = None
    progress: int = 0
    status: str = "new"
    private: bool = False
    hidden: bool = False
    start: str | None = None
    due: str | None = None
    estimate_minutes: int = 0
    list_id: int | None = None
    parent_id: int | None = None
    children: list[int] | None = None
    assignees: list[tuple[str, int]] | None = None
    tag_ids: list[int] | None = None
    created_by: int | None = None
    updated_by: int | None = None
    completed_by: int | None = None
    completed_at: int | None = None
    deleted_by: int | None = None
    deleted_at: int | None = None
    row: bytes | None = None


@dataclass(slots=True, kw_only=True)
class Project:
    """A project; `accessible` says whether the key's owner may see it."""

    id: int
    name: str
    company_id: int
    created_at: int
    updated_at: int
    description: str = ""
    type: str = "normal"
    status: str = "active"
    owner_id: int | None = None
    tag_ids: list[int] | None = None
    billable: bool = False
    start_at: int | None = None
    archived_at: int | None = None
    deleted_at: int | None = None
    completed_at: int | None = None
    last_worked_on: int | None = None
    created_by: int | None = None
    updated_by: int | None = None
    accessible: bool = True


@dataclass(slots=True, kw_only=True)
class TaskList:
    """A task list of a project."""

    id: int
    name: str
    project_id: int
    created_at: int
    updated_at: int
    description: str = ""
    completed: bool = False
    deleted_at: int | None = None


@dataclass(slots=True, kw_only=True)
class Person:
    """A person; `visible` says whether the key's owner may see them."""

    id: int
    first_name: str
    last_name: str
    email: str
    created_at: int
    updated_at: int | None = None
    title: str | None = None
    type: str = "account"
    company_id: int = OWNER_COMPANY_ID
    admin: bool = False
    deleted: bool = False
    visible: bool = True


@dataclass(slots=True, kw_only=True)
class Tag:
    """A tag, of the site or of one project."""

    id: int
    name: str
    color: str
    project_id: int | None = None


@dataclass(slots=True, kw_only=True)
class Company:
    """A company."""

    id: int
    name: str
    created_at: int
    updated_at: int | None = None
    website: str = ""
    status: str = "active"


@dataclass(slots=True, kw_only=True)
class Team:
    """A team of people."""

    id: int
    name: str
    handle: str
    member_ids: list[int] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class TaskComment:
    """A comment on a task."""

    id: int
    task_id: int
    body: str
    posted_at: int
    html_body: str | None = None
    posted_by: int | None = None
    edited_by: int | None = None
    edited_at: int | None = None
    deleted_by: int | None = None
    deleted_at: int | None = None


@dataclass(slots=True, kw_only=True)
class Timelog:
    """Time that somebody logged, on a task or on a project alone."""

    id: int
    description: str
    minutes: int
    logged_at: int
    user_id: int
    project_id: int
    created_at: int
    updated_at: int
    task_id: int | None = None
    billable: bool = True
    deleted_by: int | None = None
    deleted_at: int | None = None


@dataclass(slots=True, kw_only=True)
class Activity:
    """A row of the activity feed."""

    id: int
    kind: str
    at: int
    item_type: str
    item_id: int
    title: str
    user_id: int
    project_id: int | None = None
    list_name: str = ""


class TeamworkAccount:
    """All rows of a site, and an index of its tasks by (updatedAt, id)."""

    def __init__(self) -> None:
        self.me_id = 0
        self.tasks: dict[int, Task] = {}
        self.projects: dict[int, Project] = {}
        self.lists: dict[int, TaskList] = {}
        self.people: dict[int, Person] = {}
        self.tags: dict[int, Tag] = {}
        self.companies: dict[int, Company] = {}
        self.teams: dict[int, Team] = {}
        self.comments: dict[int, TaskComment] = {}
        self.comments_of: dict[int, list[int]] = {}
        self.timelogs: dict[int, Timelog] = {}
        self.activities: list[Activity] = []
        self.by_updated: list[tuple[int, int]] = []
        self.version = 0

    def add_task(self, task: Task, *, index: bool = True) -> Task:
        """Add a task; with `index` off, call `reindex` after the last one."""
        self.tasks[task.id] = task
        if index:
            insort(self.by_updated, (task.updated_at, task.id))
            self._link(task)
        self.version += 1
        return task

    def add_comment(self, comment: TaskComment) -> TaskComment:
        """Add a comment to its task."""
        self.comments[comment.id] = comment
        self.comments_of.setdefault(comment.task_id, []).append(comment.id)
        self.version += 1
        return comment

    def reindex(self) -> None:
        """Build the index and the sub-task lists after a bulk load."""
        self.by_updated = sorted((task.updated_at, task.id) for task in self.tasks.values())
        for task in self.tasks.values():
            self._link(task)
        self.version += 1

    def _link(self, task: Task) -> None:
        parent = self.tasks.get(task.parent_id) if task.parent_id is not None else None
        if parent is not None:
            parent.children = [*(parent.children or ()), task.id]
            parent.row = None

    def changed(self, task: Task, *, at: int | None = None, by: int | None = None) -> None:
        """Note that a task differs now; with *at* its updatedAt moves there."""
        task.row = None
        self.version += 1
        if at is None:
            return
        if at != task.updated_at:
            place = bisect_left(self.by_updated, (task.updated_at, task.id))
            del self.by_updated[place]
            task.updated_at = at
            insort(self.by_updated, (at, task.id))
        if by is not None:
            task.updated_by = by

    def project_of(self, task: Task) -> Project | None:
        """Return the project a task's list lies in."""
        task_list = self.lists.get(task.list_id) if task.list_id is not None else None
        return None if task_list is None else self.projects.get(task_list.project_id)

    def is_visible(self, task: Task) -> bool:
        """Say whether the key's owner may see a task at all, deleted or not."""
        project = self.project_of(task)
        reachable = project is None or (project.accessible and project.deleted_at is None)
        return reachable and not task.hidden

    def ordered(self, *, after: int | None = None, descending: bool = False) -> Iterator[Task]:
        """Yield tasks by updatedAt, ascending from *after* inclusive, or descending.

        Nobody may change the account between two rows.
        """
        start = 0 if after is None else bisect_left(self.by_updated, (after, 0))
        places = range(start, len(self.by_updated))
        for place in reversed(places) if descending else places:
            yield self.tasks[self.by_updated[place][1]]
