"""The two tables in Airtable: name and type of each field, and which column of the view fills it.

Names, types and order are those that bases of the old connector have, so such a base is adopted as it is;
what is new comes at the end, the categories last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from twm_pipeline.errors import ConfigError

if TYPE_CHECKING:
    from twm_pipeline.settings import Settings

Key = Literal["tasks", "emails"]
Form = Literal["text", "list", "json", "number", "checkbox", "instant", "attachments"]
Options = Mapping[str, Any]

UTC_NAMES = {"UTC", "Etc/UTC", "Zulu", "Etc/Zulu", "UCT", "Etc/UCT", "Universal", "Etc/Universal"}
"""Of a zone that Airtable calls `utc`."""
KEYS: tuple[Key, ...] = ("tasks", "emails")
ATTACHMENTS = "Attachments"
"""The field that holds the files of e-mails, which travel apart from the other cells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldSpec:
    """A field as it is to be.

    Args:
        name: Its name when it is made; afterwards it is known by its id.
        type: Airtable's type ("Field types and cell values" of its Web API).
        form: How a cell is made from the column.
        column: The view's column.
        member: The member of a JSON column that is meant; None: all of it.
        options: What Airtable needs to make it.
        fallbacks: Options to try, one after the other, where Airtable refuses the others.
        retired: A category that is no more: never made, emptied where it is known.
    """

    name: str
    type: str
    form: Form
    column: str
    member: str | None = None
    options: Options | None = None
    fallbacks: tuple[Options, ...] = ()
    retired: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSpec:
    """A table as it is to be.

    Args:
        key: Which of the tables; also the view's name in the schema `public`.
        name: Its name when it is made or looked for; afterwards it is known by its id.
        description: What Airtable shows beside the name.
        fields: In order; the first is the key, which no two records share.
    """

    key: Key
    name: str
    description: str
    fields: tuple[FieldSpec, ...]

    @property
    def view(self) -> str:
        """The view that is published."""
        return f"public.{self.key}"

    @property
    def key_field(self) -> FieldSpec:
        """The field that holds the vendor's id."""
        return self.fields[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundField:
    """A field as it is in Airtable."""

    id: str
    name: str
    type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundTable:
    """A table as it is in Airtable."""

    id: str
    name: str
    fields: tuple[FoundField, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where a table and its fields are; kept by the caller, so that renames are followed.

    Args:
        table_id: Airtable's id of the table.
        fields: Name of the specification → Airtable's id of the field.
    """

    table_id: str
    fields: Mapping[str, str]

    def by_id(self, cells: Mapping[str, Any]) -> dict[str, Any]:
        """Return *cells* with field ids instead of names, without those of retired fields that are gone."""
        return {self.fields[name]: value for name, value in cells.items() if name in self.fields}


def fold(name: str) -> str:
    """Return what two names have in common that Airtable takes for the same."""
    return name.strip().lower()


def specs(
    settings: Settings,
    categories: Mapping[Key, Mapping[str, str]],
    *,
    retired: Mapping[Key, Mapping[str, str]] | None = None,
) -> dict[Key, TableSpec]:
    """Return both tables.

    Args:
        settings: Names of the tables, and the zone in which Airtable shows times.
        categories: For each view the category's name → its column.
        retired: The same for categories that are no more but still have a column.

    Raises:
        ConfigError: If both tables have the same name.
    """
    names: dict[Key, str] = {
        "tasks": settings.airtable_tasks_table.strip(),
        "emails": settings.airtable_emails_table.strip(),
    }
    if fold(names["tasks"]) == fold(names["emails"]):
        msg = "AIRTABLE_TASKS_TABLE and AIRTABLE_EMAILS_TABLE name the same table; give them different names"
        raise ConfigError(msg)
    zone = "utc" if settings.timezone in UTC_NAMES else settings.timezone
    fields = {"tasks": _task_fields(zone), "emails": _email_fields(zone)}
    return {
        key: TableSpec(
            key=key,
            name=names[key],
            description=_DESCRIPTIONS[key],
            fields=(
                *fields[key],
                *_category_fields(fields[key], categories.get(key, {}), (retired or {}).get(key, {})),
            ),
        )
        for key in KEYS
    }


_LASTING = "Written by twm_pipeline: changes to its fields do not last; fields that you add are yours."
_DESCRIPTIONS: dict[Key, str] = {
    "tasks": f"Tasks from Teamwork. {_LASTING}",
    "emails": f"E-mails from Missive. {_LASTING}",
}


def _category_fields(
    fields: tuple[FieldSpec, ...], categories: Mapping[str, str], retired: Mapping[str, str]
) -> Iterator[FieldSpec]:
    """Yield a field for each category; one named like another field gets a suffix of its own."""
    taken = {fold(field.name) for field in fields}
    for name, column in {**categories, **retired}.items():
        unique = name.strip()
        while fold(unique) in taken:
            unique += " (category)"
        taken.add(fold(unique))
        yield FieldSpec(
            name=unique, type="multilineText", form="list", column=column, retired=name not in categories
        )


def _line(name: str, column: str) -> FieldSpec:
    return FieldSpec(name=name, type="singleLineText", form="text", column=column)


def _text(name: str, column: str) -> FieldSpec:
    return FieldSpec(name=name, type="multilineText", form="text", column=column)


def _list(name: str, column: str) -> FieldSpec:
    return FieldSpec(name=name, type="multilineText", form="list", column=column)


def _json(name: str, column: str) -> FieldSpec:
    return FieldSpec(name=name, type="multilineText", form="json", column=column)


def _link(name: str, column: str, member: str) -> FieldSpec:
    return FieldSpec(name=name, type="url", form="text", column=column, member=member)


def _number(name: str, column: str) -> FieldSpec:
    return FieldSpec(name=name, type="number", form="number", column=column, options={"precision": 0})


def _instant(name: str, column: str, zone: str) -> FieldSpec:
    """Return a field; its zone only says how Airtable shows it, which has no name for every zone there is."""
    options = {"dateFormat": {"name": "iso"}, "timeFormat": {"name": "24hour"}, "timeZone": zone}
    # Shown in UTC as the very last resort: nobody is to lose the zone because the plan refuses a colour.
    fallbacks = (options, {**options, "timeZone": "utc"})
    return FieldSpec(
        name=name, type="dateTime", form="instant", column=column, options=options, fallbacks=fallbacks
    )


_PLAIN_CHECKBOX = {"icon": "check", "color": "greenBright"}  # the only pair that Airtable's Free plan takes


def _checkbox(name: str, column: str, *, color: str = "greenBright") -> FieldSpec:
    return FieldSpec(
        name=name,
        type="checkbox",
        form="checkbox",
        column=column,
        options={"icon": "check", "color": color},
        fallbacks=(_PLAIN_CHECKBOX,),
    )


def _task_fields(zone: str) -> tuple[FieldSpec, ...]:
    return (
        _line("id", "task_id"),
        _line("name", "title"),
        _line("status", "status"),
        _line("priority", "priority"),
        _text("description", "description"),
        _number("progress", "progress"),
        _number("estimateMinutes", "estimate_minutes"),
        _number("accumulatedEstimatedMinutes", "accumulated_estimate_minutes"),
        _list("tagIds", "tag_ids"),
        _list("tags", "tags"),
        _list("assigneeUserIds", "assignee_ids"),
        _list("assignees", "assignees"),
        _json("attachments", "attachments"),
        _line("projectId", "project_id"),
        _line("projectName", "project_name"),
        _line("tasklistId", "tasklist_id"),
        _line("tasklistName", "tasklist_name"),
        _line("parentTask", "parent_task_id"),
        _instant("startDate", "start_at", zone),
        _instant("dueDate", "due_at", zone),
        _instant("updatedAt", "updated_at", zone),
        _instant("createdAt", "created_at", zone),
        _instant("dateUpdated", "updated_at", zone),
        _instant("deletedAt", "deleted_at", zone),
        _line("updatedById", "updated_by_id"),
        _line("updatedBy", "updated_by"),
        _line("createdById", "created_by_id"),
        _line("createdBy", "created_by"),
        _link("url", "source_links", "teamwork"),
        _instant("completedAt", "completed_at", zone),
        _checkbox("deleted", "deleted"),
        _checkbox("inaccessible", "inaccessible"),
    )


def _email_fields(zone: str) -> tuple[FieldSpec, ...]:
    return (
        _line("Email ID", "email_id"),
        _line("Thread ID", "thread_id"),
        _line("Subject", "subject"),
        _line("From", "from_address"),
        _line("From Name", "from_name"),
        _list("To", "to_addresses"),
        _list("To Names", "to_names"),
        _list("Cc", "cc_addresses"),
        _list("Cc Names", "cc_names"),
        _list("Bcc", "bcc_addresses"),
        _list("Bcc Names", "bcc_names"),
        _list("In Reply To", "in_reply_to"),
        _text("Body Text", "body_text"),
        _text("Body HTML", "body_html"),
        _instant("Sent At", "sent_at", zone),
        _instant("Received At", "received_at", zone),
        _instant("Deleted At", "deleted_at", zone),
        _list("Labels Text", "labels"),
        _checkbox("Draft", "draft", color="yellowBright"),
        _checkbox("Deleted", "deleted"),
        _json("Source Links", "source_links"),
        FieldSpec(name=ATTACHMENTS, type="multipleAttachments", form="attachments", column="attachments"),
        _link("URL", "source_links", "missive"),
        _list("Assignees", "assignees"),
        _line("Team", "team"),
        _checkbox("Inaccessible", "inaccessible"),
    )
