"""The sandbox's Airtable answers in the shapes of the recorded samples."""

from __future__ import annotations

from typing import Any

import pytest

from twm_pipeline_tests.sandbox.airtable_clients import AirtableClient
from twm_pipeline_tests.sandbox.test_samples import differences, kind_of
from twm_pipeline_tests.sandbox.test_samples import load as load_any

TABLES = "/meta/bases/appSandboxMirror0/tables"


def load(name: str) -> Any:
    return load_any(f"airtable/{name}.json")


def shape(value: Any) -> Any:
    """Return keys and types; texts and numbers only by their kinds."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    return [shape(item) for item in value] if isinstance(value, list) else kind_of(value)


@pytest.fixture
def tasks(airtable: AirtableClient) -> AirtableClient:
    """Create the table of the samples, with their records."""
    created = airtable.post(TABLES, load("meta.create-table.request"))
    assert created.status_code == 200, created.text
    rows = load("records.list.page1")["records"] + load("records.list.page2.last")["records"]
    answer = airtable.post(airtable.path("Tasks"), {"records": [{"fields": row["fields"]} for row in rows]})
    assert answer.status_code == 200, answer.text
    return airtable


def test_a_created_table_is_described_as_in_its_sample(airtable: AirtableClient) -> None:
    answer = airtable.post(TABLES, load("meta.create-table.request"))

    assert shape(answer.json()) == shape(load("meta.create-table.response"))
    tables = airtable.json(TABLES)
    del tables["tables"][0]["description"]  # The samples' lists happen to have none.
    assert shape(tables) == shape(load("meta.tables"))


def test_a_created_field_is_described_as_in_its_sample(airtable: AirtableClient) -> None:
    table = airtable.table()

    answer = airtable.post(f"{TABLES}/{table.id}/fields", load("meta.create-field.request"))

    sample = load("meta.create-field.response")
    assert answer.json() == sample | {"id": answer.json()["id"]}


def test_whoami_and_bases_have_the_shape_of_their_samples(airtable: AirtableClient) -> None:
    assert airtable.json("/meta/whoami") == load("meta.whoami") | {"id": "usrSandboxOwner00"}
    assert airtable.json("/meta/bases") == {
        "bases": [load("meta.bases")["bases"][0] | {"id": airtable.base_id}]
    }


def test_lists_and_records_have_the_shape_of_their_samples(tasks: AirtableClient) -> None:
    pages = [load("records.list.page1"), load("records.list.page2.last")]

    first = tasks.json(tasks.path("Tasks"), pageSize=2)
    last = tasks.json(tasks.path("Tasks"), pageSize=2, offset=first["offset"])
    one = tasks.json(tasks.path("Tasks", first["records"][0]["id"]))
    by_id = tasks.json(tasks.path("Tasks"), pageSize=1, returnFieldsByFieldId="true")

    assert [shape(first), shape(last), shape(one)] == [shape(page) for page in (*pages, load("record.get"))]
    assert [row["fields"] for row in first["records"]] == [row["fields"] for row in pages[0]["records"]]
    assert differences([load("records.list.by-field-id")], {"records": []}) == []
    assert all(name.startswith("fld") for name in by_id["records"][0]["fields"])


def test_writes_have_the_shape_of_their_samples(tasks: AirtableClient) -> None:
    ids = [row["id"] for row in tasks.json(tasks.path("Tasks"))["records"]]

    created = tasks.post(tasks.path("Tasks"), load("records.create.request"))
    upserted = tasks.patch(tasks.path("Tasks"), load("records.upsert.request"))
    url = f"{tasks.base_url}{tasks.path('Tasks')}"
    deleted = tasks.session.delete(url, params=[("records[]", key) for key in ids[1:]], timeout=5)

    assert shape(created.json()) == shape(load("records.create.response"))
    assert shape(upserted.json()) == shape(load("records.upsert.response"))
    assert upserted.json()["updatedRecords"] == ids[:1]
    assert shape(deleted.json()) == shape(load("records.delete.response"))


def test_an_upload_has_the_shape_of_its_sample(tasks: AirtableClient) -> None:
    row = tasks.json(tasks.path("Tasks"))["records"][0]

    answer = tasks.upload(row["id"], "Attachments", load("attachments.upload.request")).json()

    sample = load("attachments.upload.response")
    [[mine], [theirs]] = [list(item["fields"].values()) for item in (answer, sample)]
    assert shape(answer | {"fields": mine}) == shape(sample | {"fields": theirs})
    assert {key: mine[0][key] for key in ("filename", "size", "type")} == {
        key: theirs[0][key] for key in ("filename", "size", "type")
    }


def errors(tasks: AirtableClient) -> dict[str, Any]:
    """Return a request for every sample of an error."""
    control, path = tasks.box.control, tasks.path("Tasks")
    row = tasks.json(path)["records"][0]["id"]
    offset = tasks.json(path, pageSize=1)["offset"]
    found = {
        "403.model-not-found": tasks.get(tasks.path("Nope")),
        "404.record": tasks.get(tasks.path("Tasks", "rec00000000000000")),
        "404.string": tasks.get("/a/b/c/d/e"),
        "422.invalid-value": tasks.patch(tasks.path("Tasks", row), {"fields": {"Due": "soon"}}),
        "422.request": tasks.patch(tasks.path("Tasks", row), {"cells": {}}),
        "422.select-option": tasks.patch(tasks.path("Tasks", row), {"fields": {"Status": "later"}}),
        "422.too-many-records": tasks.patch(path, {"records": [{"id": row, "fields": {}}] * 11}),
        "422.unknown-field": tasks.patch(tasks.path("Tasks", row), {"fields": {"Notes": "", "notes": ""}}),
    }
    control.airtable_expire_iterators()
    found["422.iterator-expired"] = tasks.get(path, offset=offset)
    control.airtable_set_role("read")
    found["403.permissions"] = tasks.patch(tasks.path("Tasks", row), {"fields": {}})
    control.airtable_set_quota(0)
    found["429.monthly-quota"] = tasks.get(path)
    for kind, name in (("429", "429.rate"), ("503", "503")):
        control.add_fault("airtable", kind)
        found[name] = tasks.get(path)
    tasks.session.headers["Authorization"] = "Bearer wrong"
    return found | {"401": tasks.get(path)}


def test_every_error_equals_its_sample(tasks: AirtableClient) -> None:
    for name, answer in errors(tasks).items():
        expected = load(f"error.{name}")
        if name == "422.unknown-field":
            expected["error"]["message"] = 'Unknown field name: "notes"'
        assert answer.status_code == int(name[:3]), name
        assert answer.json() == expected, name
