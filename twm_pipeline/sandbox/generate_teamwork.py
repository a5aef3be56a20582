"""A generated Teamwork site: seeded, in several languages, awkward on purpose."""

# ruff: noqa: PLR2004 - the numbers are the pattern itself
from __future__ import annotations

import random

from twm_pipeline.sandbox.options import iso
from twm_pipeline.sandbox.teamwork_account import (
    FIRST_ACTIVITY_ID,
    FIRST_COMMENT_ID,
    FIRST_TASK_ID,
    OWNER_COMPANY_ID,
    Activity,
    Company,
    Person,
    Project,
    Tag,
    Task,
    TaskComment,
    TaskList,
    Team,
    TeamworkAccount,
    Timelog,
)
from twm_pipeline.sandbox.texts import FIRST_NAMES, HUGE, LAST_NAMES, TITLES, Writer

ME_ID = 300_001
HIDDEN_PERSON_IDS = (300_011, 300_012)
DELETED_PERSON_IDS = (300_009, 300_010)
FIRST_PROJECT_ID, FIRST_LIST_ID, FIRST_TAG_ID, FIRST_TEAM_ID = 500_001, 700_001, 900_001, 400_001
TAGS = 64
DAY = 86_400
HISTORY_SECONDS = 700 * DAY


class TeamworkGenerator:
    """Builds an account.

    Args:
        seed: Decides the content.
        tasks: How many tasks.
        end: Unix second at which the history ends.
    """

    def __init__(self, *, seed: int, tasks: int, end: int) -> None:
        self.random = random.Random(f"teamwork {seed}")  # noqa: S311 - a simulation, not a secret
        self.write = Writer(self.random)
        self.count = tasks
        self.end = end
        self.start = end - HISTORY_SECONDS
        self.account = TeamworkAccount()
        self._list_ids: list[int] = []
        self._tag_ids: list[int] = []

    def build(self) -> TeamworkAccount:
        """Return the account."""
        self._people()
        self._projects()
        self._tags()
        self._list_ids, self._tag_ids = list(self.account.lists), list(self.account.tags)
        for place in range(self.count):
            self._task(place)
        self._ties()
        self.account.reindex()
        self._comments()
        self._timelogs()
        return self.account

    def _people(self) -> None:
        account = self.account
        account.me_id = ME_ID
        for place, name in enumerate(("Harbour Example GmbH", "Kunde & Söhne KG", "顧客株式会社")):
            key = OWNER_COMPANY_ID + place
            account.companies[key] = Company(
                id=key, name=name, created_at=self.start, updated_at=None if place else self.start + DAY
            )
        for place in range(12):
            key = ME_ID + place
            account.people[key] = Person(
                id=key,
                first_name=FIRST_NAMES[place],
                last_name=LAST_NAMES[place],
                email=f"person{place}@harbour.example.com",
                created_at=self.start,
                updated_at=self.start + place * DAY if place % 3 else None,
                title="Engineer" if place % 2 else None,
                type=("account", "collaborator", "contact")[place % 3 if place > 5 else 0],
                company_id=OWNER_COMPANY_ID + place % 2,
                admin=place == 0,
                deleted=key in DELETED_PERSON_IDS,
                visible=key not in HIDDEN_PERSON_IDS,
            )
        for place, name in enumerate(("Statics", "Einkauf")):
            key = FIRST_TEAM_ID + place
            account.teams[key] = Team(
                id=key, name=name, handle=name.lower(), member_ids=[ME_ID + place, ME_ID + 10]
            )

    def _projects(self) -> None:
        count = min(max(self.count // 60, 8), 400)
        for place in range(count):
            key = FIRST_PROJECT_ID + place
            at = self.start + place * DAY
            self.account.projects[key] = Project(
                id=key,
                name=f"{TITLES[place % len(TITLES)]} {place}",
                company_id=OWNER_COMPANY_ID + place % 3,
                created_at=at,
                updated_at=at + DAY,
                type="tentative" if place == 6 else "normal",
                owner_id=None if place % 3 else ME_ID,
                tag_ids=None if place % 4 else [],
                start_at=at if place % 2 else None,
                archived_at=at + 9 * DAY if place % 8 == 3 else None,
                created_by=ME_ID,
                updated_by=ME_ID,
                accessible=place != 4,
            )
            for number in range(3):
                self._list(key, place * 3 + number, at)

    def _list(self, project_id: int, place: int, at: int) -> None:
        key = FIRST_LIST_ID + place
        self.account.lists[key] = TaskList(
            id=key,
            name=("Engineering", "Einkauf, Beschaffung", "完了")[place % 3] + f" {place}",
            project_id=project_id,
            created_at=at,
            updated_at=at + DAY,
            completed=place % 7 == 2,
            deleted_at=at + 30 * DAY if place == 15 else None,
        )

    def _tags(self) -> None:
        for place in range(TAGS):
            key = FIRST_TAG_ID + place
            name = ("urgent", "wartet, Rückfrage", "緊急", "عاجل", "🔥")[place % 5]
            self.account.tags[key] = Tag(
                id=key,
                name=name if place < 5 else f"{name} {place}",
                color=f"#{self.random.randrange(1 << 24):06x}",
                project_id=FIRST_PROJECT_ID if place % 9 == 8 else None,
            )

    def _task(self, place: int) -> None:
        pick = self.random
        key = FIRST_TASK_ID + place
        created = self.start + int(HISTORY_SECONDS * 0.9 * place / max(self.count, 1))
        updated = created if place % 5 == 4 else pick.randrange(created, self.end)
        task = Task(
            id=key,
            name=self.write.title(place),
            description=self._description(place),
            html=place % 3 == 0,
            created_at=created,
            updated_at=updated,
            priority=(None, None, "low", "medium", "high")[pick.randrange(5)],
            private=place % 23 == 5,
            hidden=place % 46 == 5,
            list_id=None if place % 97 == 31 else pick.choice(self._list_ids),
            estimate_minutes=pick.choice((0, 0, 30, 480)),
            created_by=ME_ID + pick.randrange(12),
            updated_by=ME_ID + pick.randrange(12),
        )
        self._dates(task, place)
        self._relations(task, place)
        self._state(task, place)
        self.account.add_task(task, index=False)

    def _description(self, place: int) -> str:
        if place in (9, 18, 27):
            return HUGE
        return self.write.plain(place) if place % 3 else self.write.markup(place)

    def _dates(self, task: Task, place: int) -> None:
        due = iso(task.created_at + self.random.randrange(400) * DAY) or ""
        task.due = (None, due[:10], due[:10] + "T00:00:00Z", "")[place % 4] or None
        task.start = None if place % 6 else (iso(task.created_at) or "")[:10]

    def _relations(self, task: Task, place: int) -> None:
        pick = self.random
        choices: list[tuple[str, int]] = [("users", ME_ID + number) for number in range(12)]
        choices += [("teams", FIRST_TEAM_ID), ("companies", OWNER_COMPANY_ID + 1)]
        task.assignees = None if place % 5 == 0 else pick.sample(choices, pick.randrange(4))
        task.tag_ids = None if place % 4 == 0 else pick.sample(self._tag_ids, pick.randrange(4))
        if place % 11 == 7:
            parent = self.account.tasks[FIRST_TASK_ID + place - 1 - pick.randrange(min(place, 6))]
            if parent.parent_id is None and parent.deleted_at is None and not parent.hidden:
                task.parent_id = parent.id
                task.list_id = parent.list_id
                task.due = "2001-01-01"  # The default order then puts it before its parent.

    def _state(self, task: Task, place: int) -> None:
        pick = self.random
        if place % 3 == 1:
            task.status = "completed"
            task.progress = 100
            task.completed_at = task.updated_at
            task.completed_by = task.updated_by
        elif place % 13 == 6:
            task.status = "reopened"
            task.progress = pick.randrange(100)
        if place % 29 == 12:
            task.deleted_at = task.updated_at
            task.deleted_by = task.updated_by
            self._activity("deleted", task)

    def _activity(self, kind: str, task: Task) -> None:
        project = self.account.project_of(task)
        self.account.activities.append(
            Activity(
                id=FIRST_ACTIVITY_ID + len(self.account.activities),
                kind=kind,
                at=task.updated_at,
                item_type="task",
                item_id=task.id,
                title=task.name,
                user_id=task.updated_by or ME_ID,
                project_id=None if project is None else project.id,
            )
        )

    def _ties(self) -> None:
        """Give a fifth of the tasks one updatedAt, as a bulk edit does."""
        at = self.end - 40 * DAY
        for task in list(self.account.tasks.values())[: min(self.count // 5, 700)]:
            if task.deleted_at is None and task.completed_at is None and task.created_at <= at:
                task.updated_at = at

    def _comments(self) -> None:
        place = 0
        for number, task in enumerate(self.account.tasks.values()):
            for _ in range(60 if number == 17 else (0, 0, 1, 0, 3)[number % 5]):
                at = min(task.created_at + 60 * place % DAY, self.end)
                text = self.write.plain(place)
                comment = TaskComment(
                    id=FIRST_COMMENT_ID + place,
                    task_id=task.id,
                    body=text,
                    html_body=f"<p>{text}</p>" if place % 4 == 3 else None,
                    posted_at=at,
                    posted_by=ME_ID + place % 12,
                )
                if place % 50 == 49:
                    comment.deleted_at, comment.deleted_by = at, ME_ID
                self.account.add_comment(comment)
                place += 1

    def _timelogs(self) -> None:
        for place in range(max(self.count // 10, 3)):
            key = 8_000_001 + place
            at = self.start + place * DAY % HISTORY_SECONDS
            task = self.account.tasks.get(FIRST_TASK_ID + place * 10) if place % 4 else None
            project = None if task is None else self.account.project_of(task)
            deleted = at + DAY if place % 9 == 8 else None
            self.account.timelogs[key] = Timelog(
                id=key,
                description=self.write.title(place),
                minutes=15 * (place % 30 + 1),
                logged_at=at - at % DAY - 1800,  # Half an hour before midnight UTC: the next day in Berlin.
                user_id=ME_ID + place % 9,
                project_id=FIRST_PROJECT_ID if project is None else project.id,
                task_id=None if task is None else task.id,
                billable=bool(place % 2),
                created_at=at,
                updated_at=deleted or at,
                deleted_at=deleted,
                deleted_by=None if deleted is None else ME_ID,
            )
