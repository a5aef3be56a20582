"""A base as an earlier connector left it, with what its users added."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from twm_pipeline.sandbox.airtable_cells import CONTROL_CHARACTERS, MOST_CHARACTERS
from twm_pipeline.sandbox.airtable_schema import Rules
from twm_pipeline.sandbox.airtable_store import Base, Cell, Field, Table, View, written
from twm_pipeline.sandbox.missive_account import Mail, MissiveAccount
from twm_pipeline.sandbox.teamwork_account import Task, TeamworkAccount

Column = tuple[str, str]
TEXT, LONG, MOMENT = "singleLineText", "multilineText", "dateTime"
EMAIL_COLUMNS: tuple[Column, ...] = (
    ("Email ID", TEXT),
    ("Thread ID", TEXT),
    ("Subject", TEXT),
    ("From", TEXT),
    ("From Name", TEXT),
    ("To", LONG),
    ("To Names", LONG),
    ("Cc", LONG),
    ("Cc Names", LONG),
    ("Bcc", LONG),
    ("Bcc Names", LONG),
    ("In Reply To", LONG),
    ("Body Text", LONG),
    ("Body HTML", LONG),
    ("Sent At", MOMENT),
    ("Received At", MOMENT),
    ("Labels Text", LONG),
    ("Draft", "draft"),
    ("Deleted", "checkbox"),
    ("Deleted At", MOMENT),
    ("Source Links", LONG),
    ("Attachments", "multipleAttachments"),
)
TASK_COLUMNS: tuple[Column, ...] = (
    *((name, TEXT) for name in ("id", "name", "status", "priority")),
    ("description", LONG),
    *((name, "number") for name in ("progress", "estimateMinutes", "accumulatedEstimatedMinutes")),
    *((name, LONG) for name in ("tagIds", "tags", "assigneeUserIds", "assignees", "attachments")),
    *((name, TEXT) for name in ("projectId", "projectName", "tasklistId", "tasklistName", "parentTask")),
    *((name, MOMENT) for name in ("startDate", "dueDate", "updatedAt", "createdAt", "dateUpdated")),
    ("deletedAt", MOMENT),
    *((name, TEXT) for name in ("updatedById", "updatedBy", "createdById", "createdBy")),
)
OWN_COLUMNS: tuple[Column, ...] = (("My notes", LONG), ("Handled by", "choice"), ("Score", "number"))
OWN_FORMULA = "Shown as"
CHOICES = ("Ana", "Ben", "Later")


def build_old_base(
    base: Base,
    rules: Rules,
    *,
    time_zone: str,
    categories: Sequence[str],
    now: float,
) -> dict[str, Table]:
    """Add the tables `Emails` and `Tasks` to a base and return them by name.

    Args:
        base: The base.
        rules: What its plan allows.
        time_zone: Of the columns with a time.
        categories: Names of columns for categories.
        now: The account's time.
    """
    tables = {}
    for name, columns in (("Emails", EMAIL_COLUMNS), ("Tasks", TASK_COLUMNS)):
        wanted = (*columns, *((category, LONG) for category in categories), *OWN_COLUMNS)
        made = [describe(column, rules, time_zone=time_zone) for column in wanted]
        table = rules.new_table({"name": name, "fields": made})
        table.views.append(View(id=base.ids("viw"), name="Mine"))
        add_formula(base, table)
        base.tables[table.id] = tables[name] = table
    contacts = rules.new_table({"name": "Contacts", "fields": [{"name": "Name", "type": TEXT}]})
    contacts.insert(base.ids("rec"), {contacts.primary_field_id: "Nora Keel"}, now=now)
    base.tables[contacts.id] = contacts
    return tables


def describe(column: Column, rules: Rules, *, time_zone: str) -> dict[str, Any]:
    """Return a column as a request to create it has it."""
    name, kind = column
    options: dict[str, Any] = {
        MOMENT: {"dateFormat": {"name": "iso"}, "timeFormat": {"name": "24hour"}, "timeZone": time_zone},
        "number": {"precision": 0},
        "checkbox": {"icon": "check", "color": "greenBright"},
        "draft": {"icon": "check", "color": "greenBright" if rules.plan() == "free" else "yellowBright"},
        "choice": {"choices": [{"name": choice} for choice in CHOICES]},
    }
    given = {"options": options[kind]} if kind in options else {}
    return {"name": name, "type": {"draft": "checkbox", "choice": "singleSelect"}.get(kind, kind), **given}


def add_formula(base: Base, table: Table) -> None:
    """Add a column that the users compute."""
    key = table.primary_field_id
    options = {
        "formula": f'"# " & {{{key}}}',
        "isValid": True,
        "referencedFieldIds": [key],
        "result": {"type": TEXT},
    }
    item = Field(id=base.ids("fld"), name=OWN_FORMULA, type="formula", options=options)
    table.fields[item.id] = item


def fill(base: Base, table: Table, rows: Sequence[dict[str, Cell]], *, now: float) -> None:
    """Add rows given by column name, some with what users wrote beside."""
    for number, row in enumerate(rows):
        own: dict[str, Cell] = {}
        if number % 2 == 0:
            own = {
                "My notes": f"checked by hand, {number}",
                "Handled by": CHOICES[number % 3],
                "Score": number,
            }
        cells = {
            table.field(name).id: value for name, value in (row | own).items() if value not in (None, "")
        }
        table.insert(base.ids("rec"), cells, now=now)


def old_rows(teamwork: TeamworkAccount, missive: MissiveAccount, table: str) -> list[dict[str, Cell]]:
    """Return what the earlier connector had written into a table.

    Not everything: some columns it never filled. The last two rows are one whose original is gone,
    and one that a user added without a key.
    """
    if table == "Tasks":
        rows = [task_row(teamwork, task) for task in teamwork.tasks.values() if task.deleted_at is None]
        return [*rows, {"id": "4711", "name": "Of a site long gone"}, {"name": "A user's own row"}]
    mails = [mail for item in missive.conversations.values() for mail in item.messages if not mail.draft]
    gone = {"Email ID": "00000000-0000-4000-8000-000000004711", "Subject": "Of a mailbox long gone"}
    return [*(email_row(mail) for mail in mails), gone, {"Subject": "A user's own row"}]


def task_row(account: TeamworkAccount, task: Task) -> dict[str, Cell]:
    """Return a task as the earlier connector wrote it."""
    project = account.project_of(task)
    return {
        "id": str(task.id),
        "name": clean(task.name),
        "status": task.status,
        "description": clean(task.description),
        "progress": task.progress,
        "tagIds": joined([str(key) for key in task.tag_ids or ()]),
        "projectId": "" if project is None else str(project.id),
        "projectName": "" if project is None else clean(project.name),
        "createdAt": instant(task.created_at),
        "updatedAt": instant(task.updated_at),
    }


def email_row(mail: Mail) -> dict[str, Cell]:
    """Return a message as the earlier connector wrote it."""
    return {
        "Email ID": mail.id,
        "Thread ID": mail.conversation_id,
        "Subject": clean(mail.subject or ""),
        "From": (mail.sender or {}).get("address") or "",
        "To": joined([str(entry["address"]) for entry in mail.to if entry.get("address")]),
        "Body Text": clean(mail.preview),
        "Received At": "" if mail.delivered_at is None else instant(mail.delivered_at),
    }


def instant(seconds: int) -> str:
    """Return Unix seconds as they are stored; what no calendar has is left out."""
    try:
        return written(datetime.fromtimestamp(seconds, UTC))
    except (OSError, OverflowError, ValueError):
        return ""


def joined(values: Sequence[str]) -> str:
    """Return several values as one text."""
    return ", ".join(values)


def clean(text: str) -> str:
    """Return a text as a cell can hold it."""
    return CONTROL_CHARACTERS.sub("", text)[:MOST_CHARACTERS]
