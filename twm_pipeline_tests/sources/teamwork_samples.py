"""Rows of the samples of Teamwork's answers."""

from typing import Any

from twm_pipeline_tests.sources.fakes import sample

LISTS = {
    "tasks.list.page1": "tasks",
    "tasks.list.page2.last": "tasks",
    "tasks.list.short-page-but-more": "tasks",
    "tasks.list.empty": "tasks",
    "projects.list": "projects",
    "tasklists.list": "tasklists",
    "people.list": "people",
    "tags.list": "tags",
    "companies.list": "companies",
    "teams.v1.list": "teams",
    "time.list": "time_entries",
    "comments.list": "task_comments",
}
KEYS = {"time_entries": "timelogs", "task_comments": "comments"}
"""Under which key the vendor lists a stream that we call otherwise."""


def rows(name: str) -> dict[int, dict[str, Any]]:
    return {int(row["id"]): row for row in listed(name)}


def listed(name: str) -> list[dict[str, Any]]:
    stream = LISTS[name]
    return list(sample("teamwork", name)[KEYS.get(stream, stream)])


def task(number: int) -> dict[str, Any]:
    return {**rows("tasks.list.page1"), **rows("tasks.list.page2.last")}[number]
