"""Set-up of a base: planned from what is there, then applied; fields that are not ours are never touched."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from twm_pipeline.airtable.fields import FieldSpec, FoundField, FoundTable, Key, Layout, TableSpec, fold
from twm_pipeline.errors import AccessError, ConfigError, RequestRefusedError, UnansweredError

if TYPE_CHECKING:
    from twm_pipeline.airtable.client import Whoami

T = TypeVar("T")

logger = logging.getLogger(__name__)

ATTEMPTS = 3

TEXT_TYPES = ("singleLineText", "multilineText")
ACCEPTED_TYPES: Mapping[str, tuple[str, ...]] = {
    "singleLineText": TEXT_TYPES,
    "url": ("url", *TEXT_TYPES),
}
"""Types that take the same cells as the one we would make; a type that is not a key takes only itself."""

READ_SCHEMA, WRITE_SCHEMA = "schema.bases:read", "schema.bases:write"
RECORD_SCOPES = ("data.records:read", "data.records:write")
LEVELS = ("none", "read", "comment", "edit", "create", "owner")


class Schema(Protocol):
    """The calls that set-up makes; `AirtableClient` has them."""

    def whoami(self) -> Whoami:
        """Return whose token this is."""

    def permission_level(self) -> str | None:
        """Return what its owner may do in the base."""

    def schema(self) -> list[FoundTable]:
        """Return what there is."""

    def create_table(self, name: str, *, description: str, fields: Sequence[Mapping[str, Any]]) -> FoundTable:
        """Make a table."""

    def create_field(self, table_id: str, field: Mapping[str, Any], /) -> FoundField:
        """Add a field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateTable:
    """Make a table with all its fields; the first becomes its primary field."""

    name: str
    description: str
    fields: tuple[FieldSpec, ...]

    def __str__(self) -> str:
        return f"make table {self.name!r} with {len(self.fields)} fields"


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateField:
    """Add a field to a table that is there."""

    table_id: str
    table: str
    field: FieldSpec

    def __str__(self) -> str:
        return f"add field {self.field.name!r} ({self.field.type}) to table {self.table!r}"


Action = CreateTable | CreateField


@dataclass(frozen=True, slots=True, kw_only=True)
class SetupPlan:
    """What there is already of a table, and what has to be made.

    Args:
        table_id: Airtable's id of the table; None: it has to be made.
        adopted: Name of the specification → id of the field that holds it.
        actions: In order.
    """

    table_id: str | None
    adopted: Mapping[str, str]
    actions: tuple[Action, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What can be said of a base before anything is written.

    Args:
        problems: What stands in the way, in words.
        actions: What set-up would do.
    """

    problems: tuple[str, ...]
    actions: tuple[Action, ...]


def plan_setup(
    specs: Mapping[Key, TableSpec], schema: Sequence[FoundTable], known: Mapping[Key, Layout]
) -> dict[Key, SetupPlan]:
    """Return for each table what is adopted and what has to be made.

    A table or field is found by its id where it is known, else by its name whatever the case.

    Args:
        specs: What there should be.
        schema: What there is.
        known: What the last set-up of this base returned.

    Raises:
        ConfigError: Naming every field of a wrong type and every name in use, and the ways out.
    """
    ids = {table.id for table in schema}
    taken = {layout.table_id: key for key, layout in known.items() if layout.table_id in ids}
    plans, problems = {}, []
    for key, spec in specs.items():
        layout = known.get(key)
        table = _find_table(spec, schema, layout)
        if table is not None and taken.setdefault(table.id, key) != key:
            problems.append(
                f"table {table.name!r}: it holds {taken[table.id]} and has been given the name of the table"
                f" of {key}; rename it in Airtable"
            )
        elif table is None:
            wanted = tuple(field for field in spec.fields if not field.retired)
            make = CreateTable(name=spec.name, description=spec.description, fields=wanted)
            plans[key] = SetupPlan(table_id=None, adopted={}, actions=(make,))
        else:
            fields = layout.fields if layout is not None and layout.table_id == table.id else {}
            plans[key], troubles = _plan_fields(spec, table, fields)
            problems += troubles
    if problems:
        raise ConfigError("Airtable's tables cannot be set up:\n" + "\n".join(f"  {it}" for it in problems))
    return plans


def _find_table(spec: TableSpec, schema: Sequence[FoundTable], layout: Layout | None) -> FoundTable | None:
    by_id = {table.id: table for table in schema}
    if layout is not None and layout.table_id in by_id:
        return by_id[layout.table_id]
    return next((table for table in schema if fold(table.name) == fold(spec.name)), None)


def _plan_fields(spec: TableSpec, table: FoundTable, known: Mapping[str, str]) -> tuple[SetupPlan, list[str]]:
    """Return the plan for a table that is there, and what stands in its way."""
    adopted = _follow(spec, table, known)
    held = {identity: name for name, identity in adopted.items()}
    by_name = {fold(field.name): field for field in table.fields}
    actions, problems = [], []
    for field in spec.fields:
        if field.name in adopted or field.retired:
            continue
        found = by_name.get(fold(field.name))
        if found is None:
            actions.append(CreateField(table_id=table.id, table=table.name, field=field))
        elif found.id in held:
            problems.append(
                f"table {table.name!r}, field {found.name!r}: it holds {held[found.id]!r} and has been given"
                f" the name of another field of ours; rename it in Airtable"
            )
        elif not _accepts(found, field):
            problems.append(_wrong_type(table, found, field))
        else:
            adopted[field.name] = found.id
    return SetupPlan(table_id=table.id, adopted=adopted, actions=tuple(actions)), problems


def _follow(spec: TableSpec, table: FoundTable, known: Mapping[str, str]) -> dict[str, str]:
    """Return the fields that are still where they were, under whatever name.

    One whose type does not fit any more is looked for by its name again: having renamed it is one of the
    ways out.
    """
    by_id = {field.id: field for field in table.fields}
    return {
        field.name: found.id
        for field in spec.fields
        if (found := by_id.get(known.get(field.name, ""))) is not None and _accepts(found, field)
    }


def _accepts(found: FoundField, field: FieldSpec) -> bool:
    return found.type in ACCEPTED_TYPES.get(field.type, (field.type,))


def _wrong_type(table: FoundTable, found: FoundField, field: FieldSpec) -> str:
    return (
        f"table {table.name!r}, field {found.name!r}: its type is {found.type}, expected is {field.type}."
        f" In Airtable either rename that field, then a new {field.name!r} is made beside it, or change its"
        f" type to {field.type}"
    )


def set_up(client: Schema, specs: Mapping[Key, TableSpec], known: Mapping[Key, Layout]) -> dict[Key, Layout]:
    """Make what is missing and return where everything is; one call where nothing is missing.

    Where a call to make something fails, what is there is read again before anything is repeated: it may have
    been made all the same, or another process may have been first.

    Raises:
        ConfigError: See `plan_setup`.
        TwmError: As the client.
    """
    for attempt in range(1, ATTEMPTS + 1):
        plans = plan_setup(specs, client.schema(), known)
        try:
            return {key: _apply(client, plan) for key, plan in plans.items()}
        except (UnansweredError, RequestRefusedError) as error:
            if attempt == ATTEMPTS:
                raise
            logger.warning("Airtable: set-up is planned again: %s", error)
    raise AssertionError  # the loop either returns or raises


def _apply(client: Schema, plan: SetupPlan) -> Layout:
    table_id, fields = plan.table_id, dict(plan.adopted)
    for action in plan.actions:
        logger.info("Airtable: %s", action)
        if isinstance(action, CreateTable):
            table = _create_table(client, action)
            table_id = table.id
            fields = _made(action, table)
        else:
            fields[action.field.name] = _create_field(client, action).id
    if table_id is None:
        raise AssertionError  # a plan without a table begins with making it
    return Layout(table_id=table_id, fields=fields)


def _made(action: CreateTable, table: FoundTable) -> dict[str, str]:
    ids = {fold(field.name): field.id for field in table.fields}
    missing = [field.name for field in action.fields if fold(field.name) not in ids]
    if missing:
        msg = f"Airtable: table {table.name!r} was made without {', '.join(missing)}"
        raise UnansweredError(msg)
    return {field.name: ids[fold(field.name)] for field in action.fields}


def _create_table(client: Schema, action: CreateTable) -> FoundTable:
    def create(level: int) -> FoundTable:
        fields = [_payload(field, level=level) for field in action.fields]
        return client.create_table(action.name, description=action.description, fields=fields)

    return _with_fallbacks(create, action.fields)


def _create_field(client: Schema, action: CreateField) -> FoundField:
    return _with_fallbacks(
        lambda level: client.create_field(action.table_id, _payload(action.field, level=level)),
        [action.field],
    )


def _with_fallbacks(create: Callable[[int], T], fields: Sequence[FieldSpec]) -> T:
    """Make something with the options that are wanted, or with the first ones that Airtable takes.

    Raises:
        RequestRefusedError: With the words that it had for what is wanted.
    """
    payloads = [[_payload(field, level=level) for field in fields] for level in range(_levels(fields))]
    levels = [level for level, it in enumerate(payloads) if it not in payloads[:level]]
    try:
        return create(0)
    except RequestRefusedError as error:
        for level in levels[1:]:
            with suppress(RequestRefusedError):
                return create(level)
        raise error from None


def _levels(fields: Sequence[FieldSpec]) -> int:
    return 1 + max((len(field.fallbacks) for field in fields), default=0)


def _payload(field: FieldSpec, *, level: int) -> dict[str, Any]:
    """Return a field for the meta API, with its options or those of a fallback; the last one stays."""
    choices = (field.options, *field.fallbacks)
    options = choices[min(level, len(choices) - 1)]
    head = {"name": field.name, "type": field.type}
    return {**head, "options": dict(options)} if options is not None else head


def check_access(client: Schema, specs: Mapping[Key, TableSpec], known: Mapping[Key, Layout]) -> Access:
    """Return what stands in the way of publishing and what set-up would do; nothing is written.

    Three calls. Airtable does not tell every token's scopes; what it does not tell is not a problem here.

    Raises:
        AuthenticationError: The token is not accepted.
        RetriableError: Airtable does not answer.
    """
    scopes = client.whoami().scopes
    if scopes is not None and READ_SCHEMA not in scopes:
        missing = [it for it in (*RECORD_SCOPES, READ_SCHEMA, WRITE_SCHEMA) if it not in scopes]
        return Access(problems=(_missing_scopes(missing),), actions=())
    try:
        plans = plan_setup(specs, client.schema(), known)
        level = client.permission_level()
    except (ConfigError, AccessError) as error:
        return Access(problems=(str(error),), actions=())
    actions = tuple(action for plan in plans.values() for action in plan.actions)
    needed = (*RECORD_SCOPES, *((WRITE_SCHEMA,) if actions else ()))
    missing = [scope for scope in needed if scopes is not None and scope not in scopes]
    problems = [_missing_scopes(missing)] if missing else []
    problems += _missing_role(level, needed="create" if actions else "edit")
    return Access(problems=tuple(problems), actions=actions)


def _missing_scopes(missing: Sequence[str]) -> str:
    return (
        f"the token lacks {', '.join(missing)}: add what is missing at https://airtable.com/create/tokens"
        " (the token stays the same)"
    )


def _missing_role(level: str | None, *, needed: str) -> list[str]:
    """Return at most one problem; a level that Airtable has not told of before is believed to do."""
    role = "Creator (it makes tables and fields)" if needed == "create" else "Editor"
    if level is None:
        return ["the token may not reach the base AIRTABLE_BASE_ID: add the base to the token's access"]
    if level in LEVELS and LEVELS.index(level) < LEVELS.index(needed):
        return [f"the token's owner has the permission {level!r} in the base; needed is the role {role}"]
    return []
