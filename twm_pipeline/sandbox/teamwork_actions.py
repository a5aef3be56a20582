"""What people do in Teamwork."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twm_pipeline.sandbox.answers import Answers
from twm_pipeline.sandbox.bodies import Item
from twm_pipeline.sandbox.options import Clock, Json
from twm_pipeline.sandbox.teamwork_account import (
    FIRST_ACTIVITY_ID,
    FIRST_COMMENT_ID,
    FIRST_TASK_ID,
    OWNER_COMPANY_ID,
    Activity,
    Person,
    Project,
    Tag,
    Task,
    TaskComment,
    TaskList,
    TeamworkAccount,
    Timelog,
)

TASK_FIELDS = frozenset(
    (
        "name",
        "description",
        "html",
        "priority",
        "progress",
        "start",
        "due",
        "estimate_minutes",
        "private",
        "hidden",
    )
)


class TeamworkActions:
    """Changes a site as its people would, moving `updatedAt` as the answers say.

    Args:
        account: What exists.
        answers: The open questions.
        clock: The site's time.
        fire: Tells the webhooks of an event.
    """

    def __init__(
        self,
        account: TeamworkAccount,
        *,
        answers: Answers,
        clock: Clock,
        fire: Callable[[str, Item], None],
    ) -> None:
        self.account = account
        self.answers = answers
        self.clock = clock
        self._tell = fire
        self._silent = False

    def actions(self) -> dict[str, Callable[..., Any]]:
        """Return every public action by its name; each takes `fire=False` too, and then tells no webhook."""
        names = [name for name in vars(type(self)) if not name.startswith("_") and name != "actions"]
        return {name: self._silenceable(getattr(self, name)) for name in names}

    def _silenceable(self, action: Callable[..., Any]) -> Callable[..., Any]:
        def run(*, fire: bool = True, **fields: Json) -> Json:
            self._silent = not fire
            try:
                return action(**fields)
            finally:
                self._silent = False

        return run

    def _fire(self, event: str, item: Item, *, updated_too: bool = False) -> None:
        """Tell the webhooks; what *updated_too* marks may be an update as well."""
        if self._silent:
            return
        self._tell(event, item)
        if updated_too and self.answers["teamwork.updated_fires_too"]:
            self._tell("TASK.UPDATED", item)

    def _next_id(self, items: dict[int, Any], first: int) -> int:
        return max(items, default=first - 1) + 1

    def _changed(self, task: Task, *, bump: bool = True) -> None:
        self.account.changed(task, at=self.clock.now() if bump else None, by=self.account.me_id)

    def _note(self, kind: str, item: Json, *, item_type: str = "task") -> None:
        account = self.account
        project_id = getattr(item, "project_id", None)
        if isinstance(item, Task):
            project = account.project_of(item)
            project_id = None if project is None else project.id
        account.activities.append(
            Activity(
                id=FIRST_ACTIVITY_ID + len(account.activities),
                kind=kind,
                at=self.clock.now(),
                item_type=item_type,
                item_id=item.id,
                title=getattr(item, "name", ""),
                user_id=account.me_id,
                project_id=project_id,
            )
        )

    # Tasks.

    def create_task(
        self,
        *,
        name: str,
        list_id: int | None = None,
        parent_id: int | None = None,
        tag_ids: list[int] | None = None,
        assignees: list[tuple[str, int]] | None = None,
        **fields: Json,
    ) -> int:
        """Create a task and return its id; without a list it goes to the first that is open."""
        self._check(fields)
        now = self.clock.now()
        task = Task(
            id=self._next_id(self.account.tasks, FIRST_TASK_ID),
            name=name,
            created_at=now,
            updated_at=now,
            list_id=self._open_list() if list_id is None else self.account.lists[list_id].id,
            parent_id=parent_id,
            tag_ids=tag_ids,
            assignees=self._assignees(assignees),
            created_by=self.account.me_id,
            updated_by=self.account.me_id,
            **fields,
        )
        self.account.add_task(task)
        self._note("new", task)
        self._fire("TASK.CREATED", task)
        return task.id

    def _check(self, fields: dict[str, Any]) -> None:
        unknown = set(fields) - TASK_FIELDS
        if unknown:
            raise ValueError(f"unknown fields {sorted(unknown)}; known: {sorted(TASK_FIELDS)}")

    def _open_list(self) -> int:
        projects = self.account.projects
        for item in self.account.lists.values():
            project = projects[item.project_id]
            hidden = (
                project.archived_at is not None or project.deleted_at is not None or not project.accessible
            )
            if not item.completed and item.deleted_at is None and not hidden:
                return item.id
        raise LookupError("no open task list")

    def _assignees(self, assignees: list[Any] | None) -> list[tuple[str, int]] | None:
        if assignees is None:
            return None
        known: dict[str, dict[int, Any]] = {
            "users": self.account.people,
            "teams": self.account.teams,
            "companies": self.account.companies,
        }
        pairs = [(str(kind), int(key)) for kind, key in assignees]
        for kind, key in pairs:
            if key not in known[kind]:
                raise LookupError(f"no {kind} {key}")
        return pairs

    def edit_task(self, *, task_id: int, **fields: Json) -> None:
        """Change fields of a task."""
        self._check(fields)
        task = self.account.tasks[task_id]
        for name, value in fields.items():
            setattr(task, name, value)
        self._changed(task)
        self._note("edited", task)
        self._fire("TASK.UPDATED", task)

    def bulk_edit(self, *, count: int, priority: str | None = "high") -> list[int]:
        """Set the priority of the first *count* living tasks within one second; return their ids."""
        living = [task for task in self.account.tasks.values() if task.deleted_at is None][:count]
        now = self.clock.now()
        for task in living:
            task.priority = priority
            self.account.changed(task, at=now, by=self.account.me_id)
            self._fire("TASK.UPDATED", task)
        return [task.id for task in living]

    def redate_task(self, *, task_id: int, updated_at: int) -> None:
        """Give a task any `updatedAt`, as a vendor's wrong clock does."""
        self.account.changed(self.account.tasks[task_id], at=updated_at)

    def complete_task(self, *, task_id: int) -> None:
        """Complete a task."""
        task = self.account.tasks[task_id]
        task.status, task.progress = "completed", 100
        task.completed_at, task.completed_by = self.clock.now(), self.account.me_id
        self._changed(task)
        self._note("completed", task)
        self._fire("TASK.COMPLETED", task)

    def reopen_task(self, *, task_id: int) -> None:
        """Reopen a task."""
        task = self.account.tasks[task_id]
        task.status, task.completed_at, task.completed_by = "reopened", None, None
        self._changed(task)
        self._note("reopened", task)
        self._fire("TASK.REOPENED", task)

    def delete_task(self, *, task_id: int) -> None:
        """Delete a task."""
        task = self.account.tasks[task_id]
        task.deleted_at, task.deleted_by = self.clock.now(), self.account.me_id
        self._changed(task, bump=self.answers["teamwork.delete_bumps_updated_at"])
        self._note("deleted", task)
        self._fire("TASK.DELETED", task)

    def restore_task(self, *, task_id: int) -> None:
        """Restore a deleted task."""
        task = self.account.tasks[task_id]
        task.deleted_at = task.deleted_by = None
        self._changed(task, bump=self.answers["teamwork.restore_bumps_updated_at"])
        self._note("undeleted", task)
        if self.answers["teamwork.restore_fires"] == "UPDATED":
            self._fire("TASK.UPDATED", task)

    def tag_task(self, *, task_id: int, tag_id: int) -> None:
        """Tag a task."""
        task, tag = self.account.tasks[task_id], self.account.tags[tag_id]
        if tag.id not in (task.tag_ids or ()):
            task.tag_ids = [*(task.tag_ids or ()), tag.id]
        self._changed(task, bump=self.answers["teamwork.tag_bumps_updated_at"])
        self._fire("TASK.TAGGED", task, updated_too=True)

    def untag_task(self, *, task_id: int, tag_id: int) -> None:
        """Take a tag off a task; none left may be null or empty."""
        task = self.account.tasks[task_id]
        left = [key for key in task.tag_ids or () if key != tag_id]
        task.tag_ids = left or (None if task_id % 2 else [])
        self._changed(task, bump=self.answers["teamwork.tag_bumps_updated_at"])
        self._fire("TASK.UNTAGGED", task, updated_too=True)

    def assign_task(self, *, task_id: int, assignees: list[tuple[str, int]] | None) -> None:
        """Set who a task is assigned to: pairs of `users`, `teams` or `companies` and an id."""
        task = self.account.tasks[task_id]
        task.assignees = self._assignees(assignees)
        self._changed(task)
        self._note("edited", task)
        self._fire("TASK.UPDATED", task)

    def move_task(self, *, task_id: int, list_id: int) -> None:
        """Move a task to another list, perhaps of another project."""
        task = self.account.tasks[task_id]
        task.list_id = self.account.lists[list_id].id
        self._changed(task, bump=self.answers["teamwork.move_bumps_updated_at"])
        self._fire("TASK.MOVED", task, updated_too=True)

    def comment_task(self, *, task_id: int, body: str) -> int:
        """Comment on a task and return the comment's id."""
        task = self.account.tasks[task_id]
        comment = TaskComment(
            id=self._next_id(self.account.comments, FIRST_COMMENT_ID),
            task_id=task.id,
            body=body,
            posted_at=self.clock.now(),
            posted_by=self.account.me_id,
        )
        self.account.add_comment(comment)
        self._changed(task, bump=self.answers["teamwork.comment_bumps_updated_at"])
        self._note("new", comment, item_type="task_comment")
        self._fire("COMMENT.CREATED", comment)
        return comment.id

    def edit_task_comment(self, *, comment_id: int, body: str) -> None:
        """Edit a comment."""
        comment = self.account.comments[comment_id]
        comment.body = body
        comment.edited_at, comment.edited_by = self.clock.now(), self.account.me_id
        self.account.version += 1
        self._fire("COMMENT.UPDATED", comment)

    def delete_task_comment(self, *, comment_id: int) -> None:
        """Delete a comment."""
        comment = self.account.comments[comment_id]
        comment.deleted_at, comment.deleted_by = self.clock.now(), self.account.me_id
        self._note("deleted", comment, item_type="task_comment")
        self.account.version += 1
        self._fire("COMMENT.DELETED", comment)

    # Lists, projects, people, tags.

    def _touch(self, item: Project | TaskList | Person) -> None:
        item.updated_at = self.clock.now()
        self.account.version += 1

    def _tasks_in(self, list_ids: set[int]) -> list[Task]:
        return [task for task in self.account.tasks.values() if task.list_id in list_ids]

    def create_tasklist(self, *, name: str, project_id: int) -> int:
        """Create a task list and return its id."""
        now = self.clock.now()
        project = self.account.projects[project_id]
        key = self._next_id(self.account.lists, 700_001)
        made = TaskList(id=key, name=name, project_id=project.id, created_at=now, updated_at=now)
        self.account.lists[key] = made
        self.account.version += 1
        self._fire("TASKLIST.CREATED", made)
        return key

    def rename_tasklist(self, *, list_id: int, name: str) -> None:
        """Rename a task list."""
        self.account.lists[list_id].name = name
        self._touch(self.account.lists[list_id])
        self._fire("TASKLIST.UPDATED", self.account.lists[list_id])

    def complete_tasklist(self, *, list_id: int) -> None:
        """Complete a task list; its tasks stay as they are, hidden."""
        self.account.lists[list_id].completed = True
        self._touch(self.account.lists[list_id])
        self._fire("TASKLIST.COMPLETED", self.account.lists[list_id])

    def reopen_tasklist(self, *, list_id: int) -> None:
        """Reopen a task list."""
        self.account.lists[list_id].completed = False
        self._touch(self.account.lists[list_id])
        self._fire("TASKLIST.REOPENED", self.account.lists[list_id])

    def delete_tasklist(self, *, list_id: int) -> None:
        """Delete a task list: its tasks vanish without an event of their own."""
        item, now = self.account.lists[list_id], self.clock.now()
        item.deleted_at = now
        self._touch(item)
        self._note("deleted", item, item_type="tasklist")
        self._fire("TASKLIST.DELETED", item)
        if self.answers["teamwork.deleted_list_tasks"] == "deleted":
            for task in self._tasks_in({list_id}):
                if task.deleted_at is None:
                    task.deleted_at, task.deleted_by = now, self.account.me_id
                    self._changed(task, bump=self.answers["teamwork.delete_bumps_updated_at"])

    def create_project(self, *, name: str) -> int:
        """Create a project with one list and return its id."""
        now = self.clock.now()
        key = self._next_id(self.account.projects, 500_001)
        self.account.projects[key] = Project(
            id=key,
            name=name,
            company_id=OWNER_COMPANY_ID,
            created_at=now,
            updated_at=now,
            created_by=self.account.me_id,
            updated_by=self.account.me_id,
        )
        self._fire("PROJECT.CREATED", self.account.projects[key])
        self.create_tasklist(name="General tasks", project_id=key)
        return key

    def rename_project(self, *, project_id: int, name: str) -> None:
        """Rename a project."""
        self.account.projects[project_id].name = name
        self._touch(self.account.projects[project_id])
        self._fire("PROJECT.UPDATED", self.account.projects[project_id])

    def archive_project(self, *, project_id: int, archived: bool = True) -> None:
        """Archive a project, or take it back."""
        project = self.account.projects[project_id]
        project.archived_at = self.clock.now() if archived else None
        self._touch(project)
        event = "ARCHIVED" if archived else self.answers["teamwork.unarchive_fires"]
        if event != "none":
            self._fire(f"PROJECT.{event}", project)
        if self.answers["teamwork.archive_bumps_updated_at"]:
            lists = {item.id for item in self.account.lists.values() if item.project_id == project_id}
            for task in self._tasks_in(lists):
                self._changed(task)

    def delete_project(self, *, project_id: int) -> None:
        """Delete a project: its lists and tasks vanish with it."""
        project = self.account.projects[project_id]
        project.deleted_at = self.clock.now()
        self._touch(project)
        self._note("deleted", project, item_type="project")
        self._fire("PROJECT.DELETED", project)

    def set_project_access(self, *, project_id: int, accessible: bool) -> None:
        """Let the key's owner lose or regain a project; nothing else says so."""
        self.account.projects[project_id].accessible = accessible
        self.account.version += 1

    def rename_person(self, *, person_id: int, first_name: str, last_name: str) -> None:
        """Rename a person."""
        person = self.account.people[person_id]
        person.first_name, person.last_name = first_name, last_name
        self._touch(person)

    def delete_person(self, *, person_id: int) -> None:
        """Delete a person."""
        self.account.people[person_id].deleted = True
        self._touch(self.account.people[person_id])

    def create_tag(self, *, name: str, color: str = "#d84640") -> int:
        """Create a tag and return its id."""
        key = self._next_id(self.account.tags, 900_001)
        self.account.tags[key] = Tag(id=key, name=name, color=color)
        self.account.version += 1
        return key

    def rename_tag(self, *, tag_id: int, name: str) -> None:
        """Rename a tag; no task changes."""
        self.account.tags[tag_id].name = name
        self.account.version += 1

    def delete_tag(self, *, tag_id: int) -> None:
        """Delete a tag, and take it off every task without touching them."""
        del self.account.tags[tag_id]
        for task in self.account.tasks.values():
            if tag_id in (task.tag_ids or ()):
                task.tag_ids = [key for key in task.tag_ids or () if key != tag_id]
                self._changed(task, bump=False)
        self.account.version += 1

    def log_time(self, *, task_id: int, minutes: int) -> int:
        """Log time on a task that lies in a project and return the entry's id."""
        task = self.account.tasks[task_id]
        project = self.account.project_of(task)
        if project is None:
            raise LookupError(f"task {task_id} lies in no project")
        key, now = self._next_id(self.account.timelogs, 8_000_001), self.clock.now()
        log = self.account.timelogs[key] = Timelog(
            id=key,
            description="",
            minutes=minutes,
            logged_at=now,
            user_id=self.account.me_id,
            project_id=project.id,
            task_id=task_id,
            created_at=now,
            updated_at=now,
        )
        self._note("new", log, item_type="timelog")
        self._fire("TIME.CREATED", log)
        return key

    def edit_time(self, *, timelog_id: int, minutes: int, description: str | None = None) -> None:
        """Change how much time was logged, and for what."""
        log = self.account.timelogs[timelog_id]
        log.minutes, log.updated_at = minutes, self.clock.now()
        log.description = log.description if description is None else description
        self._fire("TIME.UPDATED", log)

    def delete_time(self, *, timelog_id: int) -> None:
        """Delete a time entry."""
        log, now = self.account.timelogs[timelog_id], self.clock.now()
        log.deleted_at, log.deleted_by = now, self.account.me_id
        if self.answers["teamwork.delete_bumps_updated_at"]:
            log.updated_at = now
        self._note("deleted", log, item_type="timelog")
        self._fire("TIME.DELETED", log)

    def restore_time(self, *, timelog_id: int) -> None:
        """Restore a deleted time entry."""
        log = self.account.timelogs[timelog_id]
        log.deleted_at = log.deleted_by = None
        if self.answers["teamwork.restore_bumps_updated_at"]:
            log.updated_at = self.clock.now()
        self._note("undeleted", log, item_type="timelog")
