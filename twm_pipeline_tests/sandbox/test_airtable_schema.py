"""The sandbox's Airtable, schema: bases, tables and fields, and who may change them."""

from __future__ import annotations

from typing import Any

import pytest

from twm_pipeline_tests.sandbox.airtable_clients import FIELDS, ISO, MOMENT, AirtableClient, refusal

TABLES = "/meta/bases/appSandboxMirror0/tables"
NOT_FOUND = (403, "INVALID_PERMISSIONS_OR_MODEL_NOT_FOUND")
ROLE = (403, "INVALID_PERMISSIONS")
OPTIONS = (422, "INVALID_FIELD_TYPE_OPTIONS_FOR_CREATE")
FORM = (422, "INVALID_REQUEST_UNKNOWN")
CHECK = {"icon": "check", "color": "greenBright"}
STAR = {"icon": "star", "color": "yellowBright", "max": 5}


def test_pyairtable_reads_the_schema_it_made(airtable: AirtableClient) -> None:
    made = airtable.table().schema()
    read: Any = airtable.base.schema().table("Things")

    assert read.id == made.id
    assert [(item.name, item.type.value) for item in read.fields] == [(f["name"], f["type"]) for f in FIELDS]
    assert read.primary_field_id == read.fields[0].id
    assert [view.name for view in read.views] == ["Grid view"]
    at = read.field("At").options
    assert (at.time_zone, at.date_format.format, at.time_format.format) == (
        "Europe/Berlin",
        "YYYY-MM-DD",
        "HH:mm",
    )


def test_views_name_their_fields_only_when_asked(airtable: AirtableClient) -> None:
    airtable.table()

    [plain], [visible] = (
        airtable.json(TABLES, **params)["tables"] for params in ({}, {"include[]": "visibleFieldIds"})
    )

    assert set(plain["views"][0]) == {"id", "name", "type"}
    assert visible["views"][0]["visibleFieldIds"] == [item["id"] for item in visible["fields"]]


def test_pyairtable_creates_renames_and_describes(airtable: AirtableClient) -> None:
    table = airtable.table()

    field = table.create_field("Extra", "dateTime", description="More", options=MOMENT)
    field.name, field.description = "More", "Even more"
    field.save()
    schema = table.schema(force=True)
    schema.name, schema.description = "Renamed", "Tasks"
    schema.save()

    again = airtable.base.schema(force=True).table("Renamed")
    assert again.id == schema.id
    assert again.description == "Tasks"
    assert (again.fields[-1].id, again.fields[-1].name, again.fields[-1].description) == (
        field.id,
        "More",
        "Even more",
    )


def test_a_record_is_found_by_the_ids_after_renames(airtable: AirtableClient) -> None:
    table = airtable.table()
    schema = table.schema()
    row = table.create({"Key": "k"})

    airtable.box.control.airtable_rename_field("Things", "Key", "Schlüssel")
    airtable.box.control.airtable_rename_table("Things", "Dinge")

    by_id = airtable.base.table(schema.id)
    assert by_id.get(row["id"])["fields"] == {"Schlüssel": "k"}
    assert by_id.get(row["id"], use_field_ids=True)["fields"] == {schema.field("Key").id: "k"}
    assert refusal(airtable.get(airtable.path("Things"))) == NOT_FOUND
    old_name = airtable.post(airtable.path(schema.id), {"fields": {"Key": "x"}})
    assert refusal(old_name) == (422, "UNKNOWN_FIELD_NAME")
    assert old_name.json()["error"]["message"] == 'Unknown field name: "Key"'


def field(name: str = "F", kind: str = "singleLineText", **more: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, **more}


RIGHT: list[tuple[str, Any]] = [
    ("number", {"precision": 8}),
    ("percent", {"precision": 0}),
    ("currency", {"precision": 7, "symbol": "€"}),
    ("checkbox", {"icon": "heart", "color": "redBright"}),
    ("rating", {"icon": "flag", "color": "grayBright", "max": 10}),
    ("date", {"dateFormat": {"name": "european", "format": "D/M/YYYY"}}),
    ("dateTime", MOMENT | {"timeZone": "client"}),
    ("duration", {"durationFormat": "h:mm:ss"}),
    ("singleSelect", {"choices": [{"name": "a", "color": "redBright"}]}),
    ("multipleSelects", {"choices": []}),
    ("multipleAttachments", None),
    ("barcode", None),
]
WRONG: list[tuple[Any, Any, tuple[int, str]]] = [
    ("number", None, OPTIONS),
    ("number", {}, OPTIONS),
    ("number", {"precision": 9}, OPTIONS),
    ("number", {"precision": 1.0}, OPTIONS),
    ("number", {"precision": 1, "symbol": "€"}, OPTIONS),
    ("currency", {"precision": 8, "symbol": "€"}, OPTIONS),
    ("currency", {"precision": 2}, OPTIONS),
    ("checkbox", None, OPTIONS),
    ("checkbox", {"icon": "check"}, OPTIONS),
    ("checkbox", {"icon": "check", "color": "green"}, OPTIONS),
    ("rating", {"icon": "star", "color": "yellowBright"}, OPTIONS),
    ("rating", {"icon": "star", "color": "yellowBright", "max": 11}, OPTIONS),
    ("date", None, OPTIONS),
    ("date", {"dateFormat": {"name": "german"}}, OPTIONS),
    ("date", {"dateFormat": {"name": "iso", "format": "l"}}, OPTIONS),
    ("dateTime", ISO, OPTIONS),
    ("dateTime", ISO | {"timeFormat": {"name": "24hour"}}, OPTIONS),
    ("dateTime", ISO | {"timeZone": "utc"}, OPTIONS),
    ("dateTime", MOMENT | {"timeZone": "Mars/Olympus"}, OPTIONS),
    ("dateTime", MOMENT | {"timeZone": "../etc/passwd"}, OPTIONS),
    ("duration", {"durationFormat": "hh"}, OPTIONS),
    ("singleSelect", None, OPTIONS),
    ("singleSelect", {"choices": [{"name": ""}]}, OPTIONS),
    ("singleSelect", {"choices": [{"name": "a"}, {"name": "a"}]}, OPTIONS),
    ("multipleRecordLinks", {"linkedTableId": "tblNotThere000000"}, OPTIONS),
    ("multipleRecordLinks", None, OPTIONS),
    ("singleLineText", {}, OPTIONS),
    ("multipleAttachments", {"isReversed": False}, OPTIONS),
    ("formula", {"formula": "1"}, (422, "UNSUPPORTED_FIELD_TYPE_FOR_CREATE")),
    ("autoNumber", None, (422, "UNSUPPORTED_FIELD_TYPE_FOR_CREATE")),
    ("createdTime", None, (422, "UNSUPPORTED_FIELD_TYPE_FOR_CREATE")),
    ("lastModifiedTime", {}, (422, "UNSUPPORTED_FIELD_TYPE_FOR_CREATE")),
    ("button", None, (422, "UNSUPPORTED_FIELD_TYPE_FOR_CREATE")),
    ("text", None, (422, "UNSUPPORTED_FIELD_TYPE_FOR_CREATE")),
    (["number"], None, (422, "UNSUPPORTED_FIELD_TYPE_FOR_CREATE")),
]


def test_each_type_is_created_with_its_options_and_not_with_others(airtable: AirtableClient) -> None:
    table = airtable.table()
    path = f"{TABLES}/{table.id}/fields"

    for number, (kind, options) in enumerate(RIGHT):
        given = {} if options is None else {"options": options}
        answer = airtable.post(path, field(f"R{number}", kind, **given))
        assert answer.status_code == 200, (kind, options, answer.text)
    for kind, options, error in WRONG:
        given = {} if options is None else {"options": options}
        answer = airtable.post(path, {"name": "W", "type": kind, **given})
        assert refusal(answer) == error, (kind, options)

    assert len(table.schema(force=True).fields) == len(FIELDS) + len(RIGHT)


@pytest.mark.parametrize(
    ("kind", "options", "free"),
    [
        ("checkbox", CHECK, True),
        ("checkbox", CHECK | {"color": "yellowBright"}, False),
        ("checkbox", CHECK | {"icon": "star"}, False),
        ("rating", STAR, True),
        ("rating", STAR | {"color": "redBright"}, False),
    ],
)
def test_the_free_plan_has_one_colour(airtable: AirtableClient, kind: str, options, free: bool) -> None:
    table = airtable.table()
    path = f"{TABLES}/{table.id}/fields"

    answers = [airtable.post(path, field("T", kind, options=options))]
    airtable.box.control.airtable_set_plan("free")
    answers.append(airtable.post(path, field("F", kind, options=options)))

    assert [answer.ok for answer in answers] == [True, free]
    assert free or refusal(answers[1]) == OPTIONS


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"name": "T"}, FORM),
        ({"name": "T", "fields": []}, FORM),
        ({"name": "", "fields": [field()]}, FORM),
        ({"name": "x" * 256, "fields": [field()]}, FORM),
        ({"name": "T", "fields": [field()], "description": ""}, FORM),
        ({"name": "T", "fields": [field()], "description": "x" * 20_001}, FORM),
        ({"name": "T", "fields": [field()], "views": []}, FORM),
        ({"name": "T", "fields": [field(required=True)]}, FORM),
        ({"name": "T", "fields": [{"name": "F"}]}, FORM),
        ({"name": "T", "fields": [field(f"F{n}") for n in range(501)]}, FORM),
        ({"name": "tHINGS", "fields": [field()]}, (422, "DUPLICATE_TABLE_NAME")),
        ({"name": "T", "fields": [field("A"), field("a")]}, (422, "DUPLICATE_OR_EMPTY_FIELD_NAME")),
        (
            {"name": "T", "fields": [field("A", "checkbox", options=CHECK)]},
            (422, "INVALID_PRIMARY_FIELD_TYPE"),
        ),
        ({"name": "T", "fields": [field("A", "multipleAttachments")]}, (422, "INVALID_PRIMARY_FIELD_TYPE")),
    ],
)
def test_a_table_of_another_form_is_refused(airtable: AirtableClient, body, error) -> None:
    airtable.table()

    assert refusal(airtable.post(TABLES, body)) == error
    assert [table.name for table in airtable.base.tables(force=True)] == ["Things"]


def test_types_and_options_cannot_be_changed_and_nothing_deleted(airtable: AirtableClient) -> None:
    table = airtable.table()
    one = f"{TABLES}/{table.id}/fields/{table.schema().field('Key').id}"

    changes: list[Any] = [
        {"type": "number"},
        {"options": {"precision": 1}},
        {"name": "K", "type": "number"},
        [],
    ]
    for body in changes:
        assert refusal(airtable.patch(one, body)) == FORM
    assert refusal(airtable.patch(one, {"name": "nOTES"})) == (422, "DUPLICATE_OR_EMPTY_FIELD_NAME")
    assert airtable.patch(one, {"name": "KEY"}).ok
    for path in (one, f"{TABLES}/{table.id}"):
        assert refusal(airtable.send("DELETE", path)) == (404, "NOT_FOUND")
    for path in (f"{TABLES}/tblNotThere000000", f"{TABLES}/{table.id}/fields/fldNotThere000000"):
        assert refusal(airtable.patch(path, {"name": "x"})) == NOT_FOUND


def test_a_token_is_known_and_sees_its_bases_in_pages(airtable: AirtableClient) -> None:
    control = airtable.box.control
    ids = [airtable.base_id, *(control.airtable_create_base(f"Base {number}") for number in range(3))]
    control.set_answer("airtable.bases_page", 2)

    bases = airtable.api.bases()

    assert [base.id for base in bases] == ids
    assert airtable.box.airtable_foreign_base_id not in ids
    assert bases[0].name == "Project mirror"
    first = airtable.json("/meta/bases")
    assert len(first["bases"]) == 2
    assert refusal(airtable.get("/meta/bases", offset="itrx")) == (422, "INVALID_OFFSET_VALUE")
    assert airtable.base.table("x").id_or_name == "x"


@pytest.mark.parametrize(
    "scope", [None, "data.records:read", "data.records:write", "schema.bases:read", "schema.bases:write"]
)
def test_a_scope_taken_away_closes_what_needs_it(airtable: AirtableClient, scope: str | None) -> None:
    table = airtable.table()
    row = table.create({"Key": "k"})["id"]
    scopes = airtable.api.whoami()["scopes"]

    airtable.box.control.airtable_set_scopes(*(name for name in scopes if name != scope))
    answers = {
        "data.records:read": [
            airtable.get(airtable.path("Things")),
            airtable.get(airtable.path("Things", row)),
        ],
        "data.records:write": [
            airtable.post(airtable.path("Things"), {"fields": {}}),
            airtable.patch(airtable.path("Things", row), {"fields": {}}),
            airtable.send("DELETE", airtable.path("Things", row)),
        ],
        "schema.bases:read": [airtable.get("/meta/bases"), airtable.get(TABLES)],
        "schema.bases:write": [
            airtable.post(TABLES, {"name": "T", "fields": [field()]}),
            airtable.post(f"{TABLES}/{table.id}/fields", field()),
        ],
    }

    for needed, replies in answers.items():
        for reply in replies:
            assert refusal(reply) == NOT_FOUND if needed == scope else reply.ok
    assert set(airtable.api.whoami()["scopes"]) == set(scopes) - {scope}


@pytest.mark.parametrize(
    ("role", "writes", "creates", "level"),
    [("read", False, False, "read"), ("edit", True, False, "edit"), ("create", True, True, "create")],
)
def test_a_role_decides_what_is_permitted(airtable: AirtableClient, role, writes, creates, level) -> None:
    airtable.table()
    airtable.box.control.airtable_set_role(role)

    write = airtable.post(airtable.path("Things"), {"fields": {}})
    create = airtable.post(TABLES, {"name": "T", "fields": [field()]})

    assert airtable.get(airtable.path("Things")).ok
    assert write.ok if writes else refusal(write) == ROLE
    assert create.ok if creates else refusal(create) == ROLE
    assert airtable.json("/meta/bases")["bases"][0]["permissionLevel"] == level


def test_what_is_foreign_unknown_or_withdrawn_looks_alike(airtable: AirtableClient) -> None:
    airtable.table()
    foreign = airtable.box.airtable_foreign_base_id
    paths = [f"/{foreign}/Things", "/appNotThere000000/Things", airtable.path("Nope")]
    paths += [f"/meta/bases/{foreign}/tables", "/meta/bases/appNotThere000000/tables"]

    answers = [airtable.get(path) for path in paths]
    airtable.box.control.airtable_set_access(granted=False)
    answers += [airtable.get(path) for path in (airtable.path("Things"), TABLES)]

    assert {refusal(answer) for answer in answers} == {NOT_FOUND}
    assert len({answer.text for answer in answers}) == 1
    assert airtable.json("/meta/bases") == {"bases": []}
