"""Field types: which options they need, which can be created, how tables are described."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from twm_pipeline.sandbox.airtable_cells import COMPUTED
from twm_pipeline.sandbox.airtable_errors import RefusedError, invalid
from twm_pipeline.sandbox.airtable_store import Base, Field, Table, View
from twm_pipeline.sandbox.options import Json

Options = dict[str, Any]
LONGEST_NAME = 255
LONGEST_DESCRIPTION = 20_000
MOST_FIELDS = 500
MOST_TABLES = 1000
BEST_RATING = 10
DATE_FORMATS = {
    "local": "l",
    "friendly": "LL",
    "us": "M/D/YYYY",
    "european": "D/M/YYYY",
    "iso": "YYYY-MM-DD",
}
TIME_FORMATS = {"12hour": "h:mma", "24hour": "HH:mm"}
DURATIONS = ("h:mm", "h:mm:ss", "h:mm:ss.S", "h:mm:ss.SS", "h:mm:ss.SSS")
COLORS = tuple(
    f"{name}Bright"
    for name in ("yellow", "orange", "red", "pink", "purple", "blue", "cyan", "teal", "green", "gray")
)
ICONS = {
    "checkbox": ("check", "xCheckbox", "star", "heart", "thumbsUp", "flag", "dot"),
    "rating": ("star", "heart", "thumbsUp", "flag", "dot"),
}
FREE_PAIRS = {"checkbox": ("check", "greenBright"), "rating": ("star", "yellowBright")}
CHOICE_COLORS = tuple(
    f"{name}Light2" for name in ("blue", "cyan", "teal", "green", "yellow", "orange", "red", "pink", "purple")
)
PRIMARY_TYPES = (
    "singleLineText",
    "multilineText",
    "email",
    "url",
    "phoneNumber",
    "number",
    "currency",
    "percent",
    "duration",
    "date",
    "dateTime",
    "barcode",
)


class Rules:
    """Checks what is created in a base.

    Args:
        base: The base.
        plan: Says which plan its workspace has.
    """

    def __init__(self, base: Base, *, plan: Callable[[], str]) -> None:
        self.base = base
        self.plan = plan

    def new_table(self, body: Json) -> Table:
        """Return a table as a request describes it, not yet in the base.

        Raises:
            RefusedError: If the description is not right.
        """
        given = checked_keys(body, required=("name", "fields"), optional=("description",))
        name = self.table_name(given["name"])
        fields = given["fields"]
        if not isinstance(fields, list) or not 1 <= len(fields) <= MOST_FIELDS:
            raise invalid()
        if len(self.base.tables) >= MOST_TABLES:
            raise RefusedError(422, "TABLE_LIMIT_EXCEEDED", "This base has too many tables")
        made: list[Field] = []
        for entry in fields:
            made.append(self.new_field(entry, besides=made))
        if made[0].type not in PRIMARY_TYPES:
            raise RefusedError(
                422, "INVALID_PRIMARY_FIELD_TYPE", f"{made[0].type} cannot be the primary field"
            )
        ids = self.base.ids
        views = [View(id=ids("viw"), name="Grid view")]
        description = self.description(given)
        return Table(id=ids("tbl"), name=name, fields=made, views=views, description=description)

    def new_field(self, body: Json, *, besides: Sequence[Field]) -> Field:
        """Return a field as a request describes it.

        Args:
            body: The description.
            besides: The fields its table has.

        Raises:
            RefusedError: If the description is not right.
        """
        given = checked_keys(body, required=("name", "type"), optional=("description", "options"))
        if len(besides) >= MOST_FIELDS:
            raise RefusedError(422, "FIELD_LIMIT_EXCEEDED", "This table has too many fields")
        return Field(
            id=self.base.ids("fld"),
            name=self.field_name(given["name"], besides=besides),
            type=given["type"],
            description=self.description(given),
            options=self.options(given["type"], given.get("options")),
        )

    def table_name(self, name: Json, *, besides: Table | None = None) -> str:
        """Return a name no other table has, whatever the case."""
        taken = [item.name for item in self.base.tables.values() if item is not besides]
        return checked_name(name, taken, "DUPLICATE_TABLE_NAME")

    def field_name(self, name: Json, *, besides: Sequence[Field]) -> str:
        """Return a name none of the other fields has, whatever the case."""
        return checked_name(name, [item.name for item in besides], "DUPLICATE_OR_EMPTY_FIELD_NAME")

    @staticmethod
    def description(given: Options) -> str | None:
        """Return a description."""
        text = given.get("description")
        if text is not None and (not isinstance(text, str) or not 1 <= len(text) <= LONGEST_DESCRIPTION):
            raise invalid()
        return text

    def options(self, kind: Json, options: Json) -> Options:
        """Return the options of a new field as they are stored.

        Raises:
            RefusedError: If a type cannot be created, or its options are not the required ones.
        """
        if kind in COMPUTED or not isinstance(kind, str) or (kind not in PLAIN and kind not in WITH_OPTIONS):
            message = f"Creating {kind} fields is not supported at this time"
            raise RefusedError(422, "UNSUPPORTED_FIELD_TYPE_FOR_CREATE", message)
        if kind in PLAIN:
            if options is not None:
                raise wrong_options(kind)
            return {"isReversed": False} if kind == "multipleAttachments" else {}
        if not isinstance(options, dict):
            raise wrong_options(kind)
        stored = WITH_OPTIONS[kind](options, self)
        if stored is None:
            raise wrong_options(kind)
        free = kind in FREE_PAIRS and self.plan() == "free"
        if free and (options["icon"], options["color"]) != FREE_PAIRS[kind]:
            raise wrong_options(kind)
        return stored


def checked_keys(body: Json, *, required: tuple[str, ...], optional: tuple[str, ...]) -> Options:
    """Return an object that has these keys and no others."""
    if not isinstance(body, dict) or not set(required) <= body.keys() <= {*required, *optional}:
        raise invalid()
    return body


def checked_name(name: Json, taken: list[str], error: str) -> str:
    """Return a name that is free."""
    if not isinstance(name, str) or not name.strip() or len(name) > LONGEST_NAME:
        raise invalid()
    if name.casefold() in (item.casefold() for item in taken):
        raise RefusedError(422, error, f'"{name}" is taken')
    return name


def wrong_options(kind: str) -> RefusedError:
    """Return the refusal of a field's options."""
    message = f"Invalid options for {kind} field"
    return RefusedError(422, "INVALID_FIELD_TYPE_OPTIONS_FOR_CREATE", message)


def is_precision(value: Json, most: int) -> bool:
    """Say whether a value is a precision."""
    return type(value) is int and 0 <= value <= most


def number_options(options: Options, _: Rules) -> Options | None:
    """Check number and percent."""
    return options if options.keys() == {"precision"} and is_precision(options["precision"], 8) else None


def currency_options(options: Options, _: Rules) -> Options | None:
    """Check currency."""
    right = options.keys() == {"precision", "symbol"} and is_precision(options["precision"], 7)
    return options if right and isinstance(options["symbol"], str) else None


def checkbox_options(options: Options, _: Rules) -> Options | None:
    """Check a checkbox."""
    right = options.keys() == {"icon", "color"} and options["icon"] in ICONS["checkbox"]
    return options if right and options["color"] in COLORS else None


def rating_options(options: Options, _: Rules) -> Options | None:
    """Check a rating."""
    right = options.keys() == {"icon", "color", "max"} and options["icon"] in ICONS["rating"]
    best = options.get("max")
    right = right and options["color"] in COLORS and type(best) is int and 1 <= best <= BEST_RATING
    return options if right else None


def format_of(value: Json, formats: dict[str, str]) -> Options | None:
    """Return a date or time format with its pattern."""
    if not isinstance(value, dict) or not {"name"} <= value.keys() <= {"name", "format"}:
        return None
    pattern = formats.get(value["name"]) if isinstance(value["name"], str) else None
    if pattern is None or value.get("format", pattern) != pattern:
        return None
    return {"name": value["name"], "format": pattern}


def date_options(options: Options, _: Rules) -> Options | None:
    """Check a date."""
    day = format_of(options.get("dateFormat"), DATE_FORMATS)
    return {"dateFormat": day} if day and options.keys() == {"dateFormat"} else None


def moment_options(options: Options, _: Rules) -> Options | None:
    """Check a date with a time: all three options are needed."""
    day = format_of(options.get("dateFormat"), DATE_FORMATS)
    time = format_of(options.get("timeFormat"), TIME_FORMATS)
    zone = options.get("timeZone")
    right = options.keys() == {"dateFormat", "timeFormat", "timeZone"} and is_zone(zone)
    return {"timeZone": zone, "dateFormat": day, "timeFormat": time} if day and time and right else None


def is_zone(name: Json) -> bool:
    """Say whether a value is a time zone that Airtable takes."""
    if name in ("utc", "client"):
        return True
    try:
        return isinstance(name, str) and "/" in name and ZoneInfo(name) is not None
    except (ValueError, OSError, ZoneInfoNotFoundError):
        return False


def duration_options(options: Options, _: Rules) -> Options | None:
    """Check a duration."""
    right = options.keys() == {"durationFormat"} and options["durationFormat"] in DURATIONS
    return options if right else None


def select_options(options: Options, rules: Rules) -> Options | None:
    """Check choices, which get ids and colours."""
    choices = options.get("choices")
    if options.keys() != {"choices"} or not isinstance(choices, list):
        return None
    names = [entry.get("name") if isinstance(entry, dict) else None for entry in choices]
    if not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        return None
    if not all(entry.keys() <= {"name", "color"} for entry in choices):
        return None
    return {"choices": [new_choice(rules.base, entry, place) for place, entry in enumerate(choices)]}


def new_choice(base: Base, entry: dict[str, str], place: int) -> dict[str, str]:
    """Return a choice as it is stored."""
    color = entry.get("color") or CHOICE_COLORS[place % len(CHOICE_COLORS)]
    return {"id": base.ids("sel"), "name": entry["name"], "color": color}


def link_options(options: Options, rules: Rules) -> Options | None:
    """Check a link; the other table's own field for it is made by `connect`."""
    linked = options.get("linkedTableId")
    if options.keys() != {"linkedTableId"} or linked not in rules.base.tables:
        return None
    return {"linkedTableId": linked, "isReversed": False, "prefersSingleRecordLink": False}


PLAIN = (
    "singleLineText",
    "multilineText",
    "richText",
    "email",
    "url",
    "phoneNumber",
    "multipleAttachments",
    "singleCollaborator",
    "multipleCollaborators",
    "barcode",
)
WITH_OPTIONS: dict[str, Callable[[Options, Rules], Options | None]] = {
    "number": number_options,
    "percent": number_options,
    "currency": currency_options,
    "checkbox": checkbox_options,
    "rating": rating_options,
    "date": date_options,
    "dateTime": moment_options,
    "duration": duration_options,
    "singleSelect": select_options,
    "multipleSelects": select_options,
    "multipleRecordLinks": link_options,
}


def field_row(item: Field) -> Options:
    """Return a field as the API describes it."""
    row: Options = {"id": item.id, "name": item.name, "type": item.type}
    if item.description is not None:
        row["description"] = item.description
    return row | ({"options": item.options} if item.options else {})


def table_row(table: Table, *, visible: bool = False) -> Options:
    """Return a table as the API describes it; *visible* names the fields each view shows."""
    shown = {"visibleFieldIds": list(table.fields)} if visible else {}
    row = {
        "id": table.id,
        "name": table.name,
        "primaryFieldId": table.primary_field_id,
        "fields": [field_row(item) for item in table.fields.values()],
        "views": [{"id": view.id, "name": view.name, "type": "grid", **shown} for view in table.views],
    }
    return row if table.description is None else row | {"description": table.description}
