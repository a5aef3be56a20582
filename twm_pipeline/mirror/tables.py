"""The mirror's tables: one a stream, a column for every field of its record."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

from twm_pipeline import records
from twm_pipeline.records import SOURCES, Record, Source

JSON_COLUMNS = frozenset({"raw", "attachments", "mentions", "attachment", "task"})


@dataclass(frozen=True)
class Table:
    """One stream's table.

    Args:
        source: The vendor, and the PostgreSQL schema.
        stream: The stream, and the table's name.
        record: What its rows are made from.
        keep_when_null: Columns that a record may leave unknown; None then keeps what is stored.
    """

    source: Source
    stream: str
    record: type[Record]
    keep_when_null: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """The table's name with its schema, ready for SQL."""
        return f"{self.source}.{self.stream}"

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns that a record fills, in the order of its fields."""
        return tuple(field.name for field in fields(self.record))

    @cached_property
    def list_places(self) -> tuple[int, ...]:
        """The places in `columns` of those that are arrays."""
        types = [str(field.type) for field in fields(self.record)]
        return tuple(place for place, name in enumerate(types) if name.startswith("list["))


TASKS = Table("teamwork", "tasks", records.Task)
PROJECTS = Table("teamwork", "projects", records.Project)
TASKLISTS = Table("teamwork", "tasklists", records.Tasklist)
PEOPLE = Table("teamwork", "people", records.Person)
TAGS = Table("teamwork", "tags", records.Tag)
COMPANIES = Table("teamwork", "companies", records.Company)
TEAMS = Table("teamwork", "teams", records.Team)
TIME_ENTRIES = Table("teamwork", "time_entries", records.TimeEntry)
TASK_COMMENTS = Table("teamwork", "task_comments", records.TaskComment)
CONVERSATIONS = Table("missive", "conversations", records.Conversation)
EMAILS = Table("missive", "emails", records.Email, keep_when_null=frozenset({"stub_hash"}))
COMMENTS = Table("missive", "comments", records.Comment)
SHARED_LABELS = Table("missive", "shared_labels", records.SharedLabel)
MISSIVE_USERS = Table("missive", "users", records.MissiveUser)
MISSIVE_TEAMS = Table("missive", "teams", records.MissiveTeam)

DIRECTORIES = (PROJECTS, TASKLISTS, PEOPLE, TAGS, COMPANIES, TEAMS)
"""Teamwork's lists of everything that tasks refer to, read completely every now and then."""
FEEDS = (TIME_ENTRIES, TASK_COMMENTS)
"""What people do on tasks, read by what changed since the checkpoint."""
THREADS = (CONVERSATIONS, EMAILS, COMMENTS)
"""What is read together: a conversation with what is in it."""
MISSIVE_DIRECTORIES = (SHARED_LABELS, MISSIVE_USERS, MISSIVE_TEAMS)
"""Missive's lists of everything that conversations name, read completely every now and then."""
TABLES = (TASKS, *DIRECTORIES, *FEEDS, *THREADS, *MISSIVE_DIRECTORIES)
STREAMS: dict[Source, tuple[str, ...]] = {
    source: tuple(table.stream for table in TABLES if table.source == source) for source in SOURCES
}


def table_of(source: str, stream: str) -> Table:
    """Return the table of a stream.

    Raises:
        KeyError: If there is no such stream.
    """
    for table in TABLES:
        if (table.source, table.stream) == (source, stream):
            return table
    msg = f"{source}/{stream}"
    raise KeyError(msg)
