"""Compare the mirror, field by field, with the files of real content that the sandbox served.

Imports neither product nor sandbox: how a line of a file becomes a task, a conversation, a message or a
comment is written down here a second time (docs/sandbox.md has it in words). Prints counts and ids only:
the content belongs to other people.

    python twm_pipeline_tests/truth/compare_files.py --data DIR --dsn postgresql://…
"""

from __future__ import annotations

import argparse
import gzip
import html
import json
import re
import sys
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

Row = dict[str, Any]

NAMESPACE = uuid.UUID("b2f8f0a4-6c1d-5b3e-9a57-3d1f0c6e8a21")
FIRST_TASK_COMMENT = 6_000_001
FIRST_TASK, FIRST_PERSON, FIRST_PROJECT, FIRST_LIST, FIRST_TAG = 1_000_001, 300_001, 500_001, 700_001, 900_001
OWNER, COMPANY = 300_000, 200_001
UNDATED = 1_600_000_000
NO_LIST = "General tasks"
DONE = ("resolved", "merged", "rejected")
PRIORITIES = {"critical": "high", "high": "high", "medium": "medium", "low": "low", "trivial": "low"}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SURROGATE = re.compile("[\ud800-\udfff]")
BATCH = 300
SHOWN_IDS = 5
SAME_WORDS_SHARE = 0.8


def clean(value: Any) -> Any:
    """Return JSON as PostgreSQL can hold it: NUL taken out, lone surrogates replaced."""
    if isinstance(value, str):
        return SURROGATE.sub("\N{REPLACEMENT CHARACTER}", value.replace("\x00", ""))
    if isinstance(value, list):
        return [clean(item) for item in value]
    if isinstance(value, dict):
        return {clean(key): clean(item) for key, item in value.items()}
    return value


def read_lines(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield the number from 0 and the content of every line."""
    with gzip.open(path, "rb") as lines:
        for number, line in enumerate(lines):
            yield number, json.loads(line)


def make_id(name: str) -> str:
    """Return the id that the simulated Missive gives to the thing with this name."""
    return str(uuid.uuid5(NAMESPACE, name))


def from_iso(value: str | None) -> datetime | None:
    """Return an instant in whole seconds: the simulated Teamwork has no finer clock."""
    return None if value is None else datetime.fromisoformat(value).astimezone(UTC).replace(microsecond=0)


def from_unix(value: int) -> datetime:
    """Return an instant of any year."""
    return EPOCH + timedelta(seconds=value)


class Words(HTMLParser):
    """Collects what a reader sees of an HTML body, by the standard library."""

    HIDDEN = frozenset({"script", "style", "title"})

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.words: list[str] = []
        self.hidden = 0

    def handle_starttag(self, tag: str, attrs: Any) -> None:  # noqa: ARG002 - the base class gives it
        self.hidden += tag in self.HIDDEN

    def handle_endtag(self, tag: str) -> None:
        if tag in self.HIDDEN and self.hidden:
            self.hidden -= 1

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.words += data.split()


@dataclass
class Findings:
    """What was compared and what differed: numbers and ids, never content."""

    compared: Counter[str] = field(default_factory=Counter)
    differing: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    notes: Counter[str] = field(default_factory=Counter)

    def compare(self, kind: str, key: Any, expected: Row, found: Row | None) -> None:
        """Compare the fields of *expected* with a row of the mirror."""
        self.compared[kind] += 1
        if found is None:
            self.differing[f"{kind}: missing"].append(str(key))
            return
        for name, value in expected.items():
            self.compared[f"{kind}.{name}"] += 1
            if found[name] != value:
                self.differing[f"{kind}.{name}"].append(str(key))

    def lines(self) -> Iterator[str]:
        """Yield the findings as text."""
        for kind, count in self.compared.items():
            if "." not in kind:
                fields = sum(1 for name in self.compared if name.startswith(f"{kind}."))
                yield f"{kind}: {count} compared in {fields} fields"
        for note, count in self.notes.items():
            yield f"note: {note}: {count}"
        for name, keys in sorted(self.differing.items()):
            yield f"DIFFERENT {name}: {len(keys)}, such as {', '.join(keys[:SHOWN_IDS])}"
        yield "equal" if not self.differing else f"{sum(map(len, self.differing.values()))} differences"


class Mirror:
    """Reads the mirror by its ids."""

    def __init__(self, connection: psycopg.Connection[Row]) -> None:
        self.connection = connection

    def rows(self, table: str, ids: Iterable[Any], *, key: str = "id") -> dict[Any, Row]:
        """Return rows of a table or view."""
        cursor = self.connection.execute(f"SELECT * FROM {table} WHERE {key} = ANY(%s)", [list(ids)])
        return {row[key]: row for row in cursor}

    def count(self, table: str, condition: str = "true") -> int:
        """Return how many rows there are."""
        row = self.connection.execute(f"SELECT count(*) AS n FROM {table} WHERE {condition}").fetchone()
        return 0 if row is None else int(row["n"])


def batched(items: Iterable[Any], size: int = BATCH) -> Iterator[list[Any]]:
    """Yield lists of *size*."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def compare_all(
    mirror: Mirror, findings: Findings, table: str, kind: str, expected: Iterable[tuple[Any, Row]]
) -> None:
    """Compare expected rows with a table, and their number with its number of rows."""
    total = 0
    for batch in batched(expected):
        total += len(batch)
        found = mirror.rows(table, [item for item, _ in batch])
        for item, row in batch:
            findings.compare(kind, item, row, found.get(item))
    if (stored := mirror.count(table)) != total:
        findings.differing[f"{kind}: rows"].append(f"{stored} instead of {total}")


class Tasks:
    """Teamwork: what the lines of `tasks.jsonl.gz` must have become."""

    def __init__(self) -> None:
        self.people: dict[str, int] = {}
        self.projects: dict[str, tuple[int, datetime]] = {}
        self.lists: dict[tuple[str, str], int] = {}
        self.tags: dict[str, int] = {}
        self.commented: list[tuple[int, list[Row]]] = []
        self.ids: dict[str, int] = {}

    def compare(self, path: Path, mirror: Mirror, findings: Findings) -> None:
        """Compare tasks, and everything they refer to."""
        self.ids = {row["id"]: FIRST_TASK + line for line, row in read_lines(path)}
        pairs = ((line, self._expected(line, row)) for line, row in read_lines(path))
        seen = 0
        for batch in batched(pairs):
            seen += len(batch)
            ids = [FIRST_TASK + line for line, _ in batch]
            shown, stored = (
                mirror.rows("public.tasks", ids, key="task_id"),
                mirror.rows("teamwork.tasks", ids),
            )
            for task_id, (_, (view, table)) in zip(ids, batch, strict=True):
                findings.compare("task", task_id, view, shown.get(task_id))
                findings.compare("task row", task_id, table, stored.get(task_id))
        for table in ("public.tasks", "teamwork.tasks"):
            if (count := mirror.count(table)) != seen:
                findings.differing[f"{table}: rows"].append(f"{count} instead of {seen}")
        self._compare_directories(mirror, findings)

    def _expected(self, line: int, row: Row) -> tuple[Row, Row]:
        created, completed = from_iso(row["created_at"]), from_iso(row["completed_at"])
        updated = created if row["updated_at"] is None else from_iso(row["updated_at"])
        status = row["status"].lower()
        if completed is None and (status.startswith("closed") or status in DONE):
            completed = updated
        creator = self._person(row["created_by"])
        assignees = [name for name in row["assignees"] if self._person(name) is not None]
        tags = list(dict.fromkeys(row["tags"]))
        tag_ids = [self._tag(name) for name in tags]
        project_id = self._project(row["project"], created)
        list_name = row["tasklist"] or NO_LIST
        list_id = self.lists.setdefault((row["project"], list_name), FIRST_LIST + len(self.lists))
        for comment in row["comments"]:
            self._person(comment["author"])
        if row["comments"]:
            self.commented.append((line, row["comments"]))
        written = "completed" if completed is not None else "reopened" if status == "reopened" else "new"
        due = None if row["due_at"] is None else date.fromisoformat(row["due_at"][:10])
        priority = None if row["priority"] is None else PRIORITIES.get(row["priority"].lower())
        view = {
            "title": clean(row["title"]),
            "description": clean(row["description"]),
            "status": written,
            "priority": priority,
            "progress": 0 if completed is None else 100,
            "tags": [clean(name) for name in tags],
            "tag_ids": tag_ids,
            "assignees": [self._shown(name) for name in assignees],
            "assignee_ids": [self._person(name) for name in assignees],
            "project_id": project_id,
            "project_name": clean(row["project"]),
            "tasklist_id": list_id,
            "tasklist_name": clean(list_name),
            "parent_task_id": self.ids.get(row["parent"]) if row["parent"] is not None else None,
            "start_at": None,
            "due_at": due,
            "created_at": created,
            "created_by": None if creator is None else self._shown(row["created_by"]),
            "updated_at": updated,
            "updated_by": None if creator is None else self._shown(row["created_by"]),
            "completed_at": completed,
            "deleted": False,
            "deleted_at": None,
            "inaccessible": False,
        }
        table = {
            "title": view["title"],
            "description": view["description"],
            "description_type": "TEXT",
            "is_private": False,
            "tasklist_id": list_id,
            "parent_task_id": view["parent_task_id"],
            "assignee_ids": view["assignee_ids"],
            "assignee_types": ["users"] * len(assignees),
            "created_by_id": creator,
            "updated_by_id": creator,
            "completed_by_id": None,
            "due_date": due,
            "missing_since": None,
            "out_of_scope": False,
            "version_at": updated,
        }
        return view, table

    def _person(self, name: str | None) -> int | None:
        return None if name is None else self.people.setdefault(name, FIRST_PERSON + len(self.people))

    def _shown(self, name: str) -> str:
        """Return a name as the view shows it: without spaces at its ends."""
        return str(clean(name)).strip(" ") or f"person{self.people[name]}@example.com"

    def _tag(self, name: str) -> int:
        return self.tags.setdefault(name, FIRST_TAG + len(self.tags))

    def _project(self, name: str, created: datetime | None) -> int:
        known = self.projects.get(name)
        if known is None:
            known = self.projects[name] = (FIRST_PROJECT + len(self.projects), created or EPOCH)
        return known[0]

    def _compare_directories(self, mirror: Mirror, findings: Findings) -> None:
        people: list[tuple[int, Row]] = [
            (
                key,
                {
                    "first_name": clean(name.partition(" ")[0]),
                    "last_name": clean(name.partition(" ")[2]),
                    "email": f"person{key}@example.com",
                    "company_id": COMPANY,
                    "deleted": name == "ghost",
                },
            )
            for name, key in self.people.items()
        ]
        people.append((OWNER, {"first_name": "Sandbox", "last_name": "Owner", "deleted": False}))
        compare_all(mirror, findings, "teamwork.people", "person", people)
        projects = (
            (key, {"name": clean(name), "company_id": COMPANY, "created_at": created, "deleted": False})
            for name, (key, created) in self.projects.items()
        )
        compare_all(mirror, findings, "teamwork.projects", "project", projects)
        lists = (
            (key, {"name": clean(name), "project_id": self.projects[project][0], "deleted": False})
            for (project, name), key in self.lists.items()
        )
        compare_all(mirror, findings, "teamwork.tasklists", "task list", lists)
        tags = ((key, {"name": clean(name), "project_id": None}) for name, key in self.tags.items())
        compare_all(mirror, findings, "teamwork.tags", "tag", tags)
        compare_all(mirror, findings, "teamwork.companies", "company", [(COMPANY, {"name": "Archive"})])
        compare_all(mirror, findings, "teamwork.task_comments", "task comment", self._comments())

    def _comments(self) -> Iterator[tuple[int, Row]]:
        """Yield the comments in the order of the file, numbered through."""
        comments = ((line, row) for line, rows in self.commented for row in rows)
        for number, (line, row) in enumerate(comments):
            yield (
                FIRST_TASK_COMMENT + number,
                {
                    "body": clean(row["body"]),
                    "object_type": "tasks",
                    "task_id": FIRST_TASK + line,
                    "author_id": self._person(row["author"]),
                    "created_at": from_iso(row["created_at"]),
                    "deleted": False,
                    "inaccessible": False,
                    "missing_since": None,
                },
            )


@dataclass
class Thread:
    """What the lines of one thread add up to."""

    subject: str | None
    first: int
    last: int
    last_subject: str | None
    labels: list[str] = field(default_factory=list)
    messages: int = 0
    attachments: int = 0


class Mails:
    """Missive: what the lines of `emails.jsonl.gz` must have become, with the comments of the tasks."""

    def __init__(self) -> None:
        self.threads: dict[str, Thread] = {}

    def compare(
        self, path: Path, commented: list[tuple[int, list[Row]]], mirror: Mirror, findings: Findings
    ) -> None:
        """Compare messages, conversations and comments."""
        for line, row in read_lines(path):
            self._add(line, row)
        seen = 0
        for batch in batched(read_lines(path)):
            seen += len(batch)
            ids = [make_id(f"message/{line}") for line, _ in batch]
            shown, stored = (
                mirror.rows("public.emails", ids, key="email_id"),
                mirror.rows("missive.emails", ids),
            )
            for key, (line, row) in zip(ids, batch, strict=True):
                view, table = self._expected(line, row)
                findings.compare("message", key, view, shown.get(key))
                findings.compare("message row", key, table, stored.get(key))
                if key in stored:
                    self._compare_text(findings, key, row, stored[key]["body_text"])
        for name in ("public.emails", "missive.emails"):
            if (count := mirror.count(name)) != seen:
                findings.differing[f"{name}: rows"].append(f"{count} instead of {seen}")
        conversations = ((make_id(f"conversation/{key}"), row) for key, row in self._conversations())
        compare_all(mirror, findings, "missive.conversations", "conversation", conversations)
        compare_all(mirror, findings, "missive.comments", "comment", self._comments(commented))

    def _add(self, line: int, row: Row) -> None:
        at = UNDATED + line if row["date"] is None else row["date"]
        thread = self.threads.get(row["thread_key"])
        if thread is None:
            thread = self.threads[row["thread_key"]] = Thread(row["subject"], at, at, row["subject"])
        if at > thread.last:
            thread.last, thread.last_subject = at, row["subject"]
        thread.first = min(thread.first, at)
        thread.messages += 1
        thread.attachments += len(row["attachments"])
        thread.labels += [name for name in dict.fromkeys(row["labels"]) if name not in thread.labels]

    def _expected(self, line: int, row: Row) -> tuple[Row, Row]:
        moment = from_unix(UNDATED + line if row["date"] is None else row["date"])
        thread = self.threads[row["thread_key"]]
        sender = (
            row["from"] if row["from"]["name"] or row["from"]["address"] else {"name": None, "address": ""}
        )
        people = {
            f"{kind}_{part}": [
                clean(item["address"]).strip().lower() if part == "addresses" else clean(item["name"])
                for item in row[kind]
            ]
            for kind in ("to", "cc", "bcc")
            for part in ("addresses", "names")
        }
        view = {
            "thread_id": make_id(f"conversation/{row['thread_key']}"),
            "subject": clean(row["subject"]),
            "from_address": clean(sender["address"]).strip().lower() or None,
            "from_name": clean(sender["name"]),
            **people,
            "in_reply_to": clean(row["in_reply_to"]),
            "body_html": clean(body_of(row)),
            "sent_at": moment,
            "received_at": moment,
            "labels": clean(thread.labels),
            "draft": False,
            "attachments": [
                attachment_of(line, number, item) for number, item in enumerate(row["attachments"])
            ],
            "deleted": False,
            "deleted_at": None,
            "inaccessible": False,
            "message_id": clean(row["message_id"]),
            "type": "email",
            "created_at": moment,
            "updated_at": moment,
            "assignees": [],
            "team": "Support",
            "author_name": None,
        }
        table = {
            "conversation_id": view["thread_id"],
            "preview": clean(preview_of(row)),
            "references": clean(row["references"]),
            "reply_to_addresses": [],
            "author_id": None,
            "missing_since": None,
            "out_of_scope": False,
        }
        return view, table

    def _compare_text(self, findings: Findings, key: str, row: Row, text: str | None) -> None:
        """Compare the readable text: word by word where the message was plain, else by its words as a set."""
        if row["body_html"] is None:
            expected = None if row["body_text"] is None else clean(row["body_text"]).split()
            found = None if text is None else text.split()
            findings.compare("plain text", key, {"words": expected}, {"words": found})
            return
        reader = Words()
        reader.feed(clean(row["body_html"]))
        reader.close()
        wanted, found_words = Counter(reader.words), Counter((text or "").split())
        shared = sum((wanted & found_words).values())
        findings.notes["HTML bodies whose words were compared"] += 1
        if shared < SAME_WORDS_SHARE * max(wanted.total(), found_words.total()):
            findings.notes["HTML bodies that two readers understand differently"] += 1
        findings.compare("HTML text", key, {"empty": not wanted}, {"empty": not found_words and not wanted})

    def _conversations(self) -> Iterator[tuple[str, Row]]:
        for key, thread in self.threads.items():
            yield (
                key,
                {
                    "subject": clean(thread.subject),
                    "latest_message_subject": clean(thread.last_subject or thread.subject or ""),
                    "organization_name": "Harbour Example GmbH",
                    "team_name": "Support",
                    "assignee_ids": [],
                    "assignee_names": [],
                    "label_ids": [make_id(f"label/{name}") for name in thread.labels],
                    "label_names": clean(thread.labels),
                    **dict.fromkeys(("closed", "archived", "trashed", "junked", "flagged", "snoozed"), False),
                    "messages_count": thread.messages,
                    "drafts_count": 0,
                    "attachments_count": thread.attachments,
                    "created_at": from_unix(thread.first),
                    "last_activity_at": from_unix(thread.last),
                    "children_read_at": from_unix(thread.last),
                    "merged_into": None,
                    "deleted": False,
                    "deleted_at": None,
                    "inaccessible": False,
                    "missing_since": None,
                },
            )

    def _comments(self, commented: list[tuple[int, list[Row]]]) -> Iterator[tuple[str, Row]]:
        for (line, comments), thread in zip(commented, cycle(self.threads), strict=False):
            for number, row in enumerate(comments):
                author = None if row["author"] is None else make_id(f"user/{row['author']}")
                yield (
                    make_id(f"comment/{line}/{number}"),
                    {
                        "conversation_id": make_id(f"conversation/{thread}"),
                        "body": clean(row["body"]),
                        "author_id": author,
                        "author_name": clean(row["author"]),
                        "author_email": None if author is None else f"{author[:8]}@example.com",
                        "mentions": [],
                        "attachment": None,
                        "task": None,
                        "created_at": from_iso(row["created_at"]),
                        "deleted": False,
                        "inaccessible": False,
                        "missing_since": None,
                    },
                )


def body_of(row: Row) -> str | None:
    """Return a message's HTML: its own, else its text in `<pre>`."""
    if row["body_html"] is not None:
        return str(row["body_html"])
    return None if row["body_text"] is None else f"<pre>{html.escape(row['body_text'], quote=False)}</pre>"


def preview_of(row: Row) -> str:
    """Return the first words of a message."""
    text = row["body_text"]
    if text is None:
        text = re.sub(r"<[^>]*>", " ", (row["body_html"] or "")[:2800])
    return " ".join(text[:560].split())[:140]


def attachment_of(line: int, number: int, row: Row) -> Row:
    """Return an attachment without its address, which is signed anew on every read."""
    media_type, _, sub_type = row["media_type"].partition("/")
    name = row["filename"]
    expected = {
        "id": make_id(f"attachment/{line}/{number}"),
        "filename": name,
        "extension": name.rpartition(".")[2] if name and "." in name else None,
        "media_type": media_type,
        "sub_type": sub_type,
        "size": row["size"],
        "width": None,
        "height": None,
    }
    return dict(clean(expected))


def compare(data: Path, dsn: str) -> Findings:
    """Compare the database behind *dsn* with the files in *data*."""
    findings = Findings()
    with psycopg.connect(dsn, row_factory=dict_row) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        mirror = Mirror(connection)
        tasks = Tasks()
        tasks.compare(data / "tasks.jsonl.gz", mirror, findings)
        Mails().compare(data / "emails.jsonl.gz", tasks.commented, mirror, findings)
        if count := mirror.count("twm.set_aside"):
            findings.differing["set aside"].append(str(count))
    return findings


def main() -> int:
    """Compare, print, and return 0 only where everything is equal."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of both files")
    parser.add_argument("--dsn", required=True, help="the mirror's database")
    given = parser.parse_args()
    findings = compare(given.data, given.dsn)
    sys.stdout.write("\n".join(findings.lines()) + "\n")
    return 1 if findings.differing else 0


if __name__ == "__main__":
    sys.exit(main())
