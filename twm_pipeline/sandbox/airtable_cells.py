"""Cell values: what may be written into a field of which type, and how it is read."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from twm_pipeline.sandbox.airtable_errors import RefusedError
from twm_pipeline.sandbox.airtable_store import Attachment, Base, Cell, Field, Table, timestamp, written
from twm_pipeline.sandbox.answers import Answers
from twm_pipeline.sandbox.hooks import is_web_address
from twm_pipeline.sandbox.options import Json

MOST_CHARACTERS = 100_000
LARGEST_EXACT = 2**53
CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
MOMENT = re.compile(
    r"\d{4}-\d{2}-\d{2}(T| )\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}:?\d{2})?|\d{4}-\d{2}-\d{2}"
)
SINGLE_LINE = ("singleLineText", "email", "url", "phoneNumber")
COMPUTED = (
    "aiText",
    "autoNumber",
    "button",
    "count",
    "createdBy",
    "createdTime",
    "externalSyncSource",
    "formula",
    "lastModifiedBy",
    "lastModifiedTime",
    "multipleLookupValues",
    "rollup",
)


class NewRow(str):
    """The name of a row that a write makes in the linked table."""

    __slots__ = ()


@dataclass(slots=True, kw_only=True)
class Writing:
    """One request that writes cells.

    Attributes:
        base: Where it writes.
        answers: The open questions.
        typecast: Convert what does not fit.
        may_configure: The user may create choices.
        new_choices: Choices to create when the request succeeds, by field id.
    """

    base: Base
    answers: Answers
    typecast: bool = False
    may_configure: bool = True
    new_choices: dict[str, list[str]] = field(default_factory=dict)


Parse = Callable[[Any, Field, Writing], Cell]


def parse_cell(value: Json, item: Field, writing: Writing) -> Cell:
    """Return a value as it is stored, None for what empties the cell.

    Raises:
        RefusedError: If the field cannot have this value.
    """
    if item.locked:
        raise RefusedError(403, "INVALID_PERMISSIONS")
    if item.type in COMPUTED:
        message = f'Field "{item.name}" cannot accept a value because the field is computed'
        raise RefusedError(422, "INVALID_VALUE_FOR_COLUMN", message)
    if value is None or value in ("", []):
        return None
    return PARSERS[item.type](value, item, writing)


def unfit(item: Field) -> RefusedError:
    """Return the refusal of a value that does not fit."""
    return RefusedError(
        422, "INVALID_VALUE_FOR_COLUMN", f'Field "{item.name}" cannot accept the provided value'
    )


def text_length(text: str, unit: str) -> int:
    """Return how long a text is in the unit that the answers count."""
    return len(text) if unit == "characters" else len(text.encode("utf-16-le")) // 2


def parse_text(value: Json, item: Field, writing: Writing) -> Cell:
    """Return a text; numbers and booleans only become one by typecast."""
    if writing.typecast and isinstance(value, int | float | bool):
        value = str(value).lower() if isinstance(value, bool) else str(value)
    if not isinstance(value, str):
        raise unfit(item)
    if CONTROL_CHARACTERS.search(value):
        if writing.answers["airtable.control_characters"] == "refused":
            raise unfit(item)
        value = CONTROL_CHARACTERS.sub("", value)
    if text_length(value, writing.answers["airtable.text_unit"]) > MOST_CHARACTERS:
        raise unfit(item)
    if item.type in SINGLE_LINE and re.search(r"[\r\n]", value):
        newlines = writing.answers["airtable.single_line_newlines"]
        if newlines == "refused":
            raise unfit(item)
        if newlines == "lost":
            value = re.sub(r"\r\n|\r|\n", " ", value)
    return value or None


def parse_number(value: Json, item: Field, writing: Writing) -> Cell:
    """Return a number."""
    if writing.typecast and isinstance(value, str):
        try:
            value = float(value.replace(",", ""))
        except ValueError:
            raise unfit(item) from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise unfit(item)
    if writing.answers["airtable.number_rounding"] == "rounded" and "precision" in item.options:
        value = round(value, item.options["precision"])
    return int(value) if abs(value) < LARGEST_EXACT and float(value).is_integer() else value


def parse_rating(value: Json, item: Field, writing: Writing) -> Cell:
    """Return a rating from 1 to the field's best."""
    number = parse_number(value, item, writing)
    if not isinstance(number, int) or not 1 <= number <= item.options["max"]:
        raise unfit(item)
    return number


def parse_checkbox(value: Json, item: Field, writing: Writing) -> Cell:
    """Return true, or None for an empty box."""
    if writing.typecast and isinstance(value, str):
        value = {"true": True, "checked": True, "false": False}.get(value.lower())
    if not isinstance(value, bool):
        raise unfit(item)
    return value or None


def parse_date(value: Json, item: Field, writing: Writing) -> Cell:
    """Return a day; typecast takes a moment for one."""
    if writing.typecast and isinstance(value, str) and MOMENT.fullmatch(value):
        value = value[:10]
    if not isinstance(value, str) or not DATE.fullmatch(value):
        raise unfit(item)
    try:
        return date.fromisoformat(value).isoformat()
    except ValueError:
        raise unfit(item) from None


def parse_moment(value: Json, item: Field, _: Writing) -> Cell:
    """Return a moment in UTC; without a zone it is of the field's own."""
    if not isinstance(value, str) or not MOMENT.fullmatch(value):
        raise unfit(item)
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            zone = item.options.get("timeZone", "utc")
            moment = moment.replace(tzinfo=UTC if zone in ("utc", "client") else ZoneInfo(zone))
        return written(moment)
    except (ValueError, OverflowError):
        raise unfit(item) from None


def parse_choice(value: Json, item: Field, writing: Writing) -> Cell:
    """Return the name of a choice; typecast makes it where the user may."""
    if writing.typecast and isinstance(value, int | float):
        value = str(value)
    if not isinstance(value, str):
        raise unfit(item)
    new = writing.new_choices.get(item.id, [])
    if value in new or any(choice["name"] == value for choice in item.choices):
        return value
    if not writing.typecast or not writing.may_configure:
        message = f'Insufficient permissions to create new select option "{value}"'
        raise RefusedError(422, "INVALID_MULTIPLE_CHOICE_OPTIONS", message)
    writing.new_choices.setdefault(item.id, []).append(value)
    return value


def parse_choices(value: Json, item: Field, writing: Writing) -> Cell:
    """Return the names of choices, each once."""
    if writing.typecast and isinstance(value, str):
        value = [name.strip() for name in value.split(",")]
    if not isinstance(value, list):
        raise unfit(item)
    return list(dict.fromkeys(parse_choice(name, item, writing) for name in value))


def parse_collaborator(value: Json, item: Field, writing: Writing) -> Cell:
    """Return a collaborator of the base, named by id or e-mail address."""
    if isinstance(value, dict) and len(value) == 1:
        for known in writing.base.collaborators:
            if value.items() <= {"id": known["id"], "email": known["email"]}.items():
                return known
    raise unfit(item)


def parse_collaborators(value: Json, item: Field, writing: Writing) -> Cell:
    """Return several collaborators."""
    if not isinstance(value, list):
        raise unfit(item)
    return [parse_collaborator(entry, item, writing) for entry in value]


def parse_barcode(value: Json, item: Field, _: Writing) -> Cell:
    """Return a barcode."""
    if (
        not isinstance(value, dict)
        or not isinstance(value.get("text"), str)
        or not value.keys() <= {"text", "type"}
    ):
        raise unfit(item)
    return value


def parse_links(value: Json, item: Field, writing: Writing) -> Cell:
    """Return ids of linked rows; typecast finds rows by the text of their primary cell, or makes them."""
    linked = writing.base.tables[item.options["linkedTableId"]]
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise unfit(item)
    return list(dict.fromkeys(parse_link(entry, item, writing, linked) for entry in value))


def parse_link(value: str, item: Field, writing: Writing, linked: Table) -> str:
    """Return the id of a linked row, or the name of a new one."""
    if value in linked.records:
        return value
    if not writing.typecast:
        if value.startswith("rec"):
            raise RefusedError(422, "ROW_DOES_NOT_EXIST", f"Record ID {value} does not exist in this table")
        raise unfit(item)
    found = linked.matches((linked.primary_field_id,), (value,))
    return found[0].id if found else NewRow(value)


def parse_attachments(value: Json, item: Field, writing: Writing) -> Cell:
    """Return attachments: those of the base named by id, and new ones to fetch."""
    if not isinstance(value, list):
        raise unfit(item)
    known: dict[str, Attachment] = {}
    if any(isinstance(entry, dict) and "id" in entry for entry in value):
        known = {found.id: found for found in writing.base.attachments()}
    return [parse_attachment(entry, item, writing, known) for entry in value]


def parse_attachment(value: Json, item: Field, writing: Writing, known: dict[str, Attachment]) -> Attachment:
    """Return one attachment. What is read may be sent back whole: then the id decides."""
    if not isinstance(value, dict) or not isinstance(value.get("filename", ""), str):
        raise unfit(item)
    if "id" in value:
        if value["id"] not in known:
            raise unfit(item)
        return known[value["id"]]
    url = value.get("url")
    if not value.keys() <= {"url", "filename"} or not is_web_address(url):
        raise unfit(item)
    name = value.get("filename") or str(url).split("?", 1)[0].rstrip("/").rsplit("/", 1)[-1]
    return Attachment(id=writing.base.ids("att"), filename=name or "attachment", source=str(url))


PARSERS: dict[str, Parse] = {
    **dict.fromkeys((*SINGLE_LINE, "multilineText", "richText"), parse_text),
    **dict.fromkeys(("number", "currency", "percent", "duration"), parse_number),
    "rating": parse_rating,
    "checkbox": parse_checkbox,
    "date": parse_date,
    "dateTime": parse_moment,
    "singleSelect": parse_choice,
    "multipleSelects": parse_choices,
    "singleCollaborator": parse_collaborator,
    "multipleCollaborators": parse_collaborators,
    "barcode": parse_barcode,
    "multipleRecordLinks": parse_links,
    "multipleAttachments": parse_attachments,
}
READ_ONLY_VALUES: dict[str, Callable[[Any], Cell]] = {
    "autoNumber": lambda record: record.number,
    "createdTime": lambda record: timestamp(record.created_at),
    "lastModifiedTime": lambda record: timestamp(record.modified_at),
}
