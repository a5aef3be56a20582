"""The sandbox's Airtable, upserts: every rule of `performUpsert`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from twm_pipeline_tests.sandbox.airtable_clients import AirtableClient, refusal


def upsert(
    airtable: AirtableClient, *records: dict[str, Any], on: Any = ("Key",), method: str = "PATCH"
) -> Any:
    body = {"performUpsert": {"fieldsToMergeOn": on}, "records": list(records)}
    return airtable.send(method, airtable.path("Things"), body)


def test_it_updates_what_matches_and_creates_the_rest_in_order(airtable: AirtableClient) -> None:
    table = airtable.table()
    old = table.batch_create([{"Key": "a", "Notes": "kept"}, {"Key": "b", "Notes": "gone"}])

    result = table.batch_upsert(
        [
            {"fields": {"Key": key, "Count": n, "Notes": None} if key == "b" else {"Key": key, "Count": n}}
            for n, key in enumerate("cba")
        ],
        ["Key"],
    )

    assert [row["fields"]["Key"] for row in result["records"]] == ["c", "b", "a"]
    assert result["createdRecords"] == [result["records"][0]["id"]]
    assert result["updatedRecords"] == [old[1]["id"], old[0]["id"]]
    assert sorted(row["Count"] for row in airtable.records().values()) == [0, 1, 2]
    assert airtable.records()[old[0]["id"]] == {"Key": "a", "Notes": "kept", "Count": 2}
    assert airtable.records()[old[1]["id"]] == {"Key": "b", "Count": 1}


def test_more_than_ten_go_in_several_requests(airtable: AirtableClient) -> None:
    table = airtable.table()
    rows = [{"fields": {"Key": str(number)}} for number in range(25)]

    first, second = table.batch_upsert(rows, ["Key"]), table.batch_upsert(rows, ["Key"])

    assert len(first["createdRecords"]) == len(second["updatedRecords"]) == 25
    assert len(airtable.records()) == 25


def test_several_matches_fail_the_whole_request(airtable: AirtableClient) -> None:
    table = airtable.table()
    twin = table.create({"Key": "twin"})
    copy = airtable.box.control.airtable_duplicate("Things", twin["id"])
    before = airtable.records()

    answers = [upsert(airtable, {"fields": {"Key": "new"}}, {"fields": {"Key": "twin"}})]
    airtable.box.control.set_answer("airtable.several_matches", "INVALID_RECORDS")
    answers.append(upsert(airtable, {"fields": {"Key": "twin"}}))

    assert [refusal(answer)[1] for answer in answers] == ["INVALID_REQUEST_UNKNOWN", "INVALID_RECORDS"]
    assert airtable.records() == before
    airtable.box.control.airtable_delete("Things", copy)
    assert upsert(airtable, {"fields": {"Key": "twin"}}).json()["updatedRecords"] == [twin["id"]]


def test_an_id_makes_it_an_ordinary_update(airtable: AirtableClient) -> None:
    row = airtable.table().create({"Key": "a"})

    named = upsert(airtable, {"id": row["id"], "fields": {"Count": 1}}, {"fields": {"Key": "b"}})
    gone = upsert(airtable, {"id": "rec00000000000000", "fields": {}}, {"fields": {"Key": "c"}})

    assert named.json()["updatedRecords"] == [row["id"]]
    assert refusal(gone) == (422, "ROW_DOES_NOT_EXIST")
    assert sorted(cells["Key"] for cells in airtable.records().values()) == ["a", "b"]


@pytest.mark.parametrize("answer", ["duplicates", "refused"])
def test_equal_keys_in_one_request_make_duplicates_or_are_refused(airtable: AirtableClient, answer) -> None:
    airtable.box.control.set_answer("airtable.equal_keys", answer)
    airtable.table()

    reply = upsert(airtable, {"fields": {"Key": "same"}}, {"fields": {"Key": "same"}})

    assert reply.ok == (answer == "duplicates")
    assert len(airtable.records()) == (2 if answer == "duplicates" else 0)
    if answer == "duplicates":
        assert refusal(upsert(airtable, {"fields": {"Key": "same"}})) == (422, "INVALID_REQUEST_UNKNOWN")


@pytest.mark.parametrize(
    ("on", "fields", "error"),
    [
        ([], {"Key": "a"}, "INVALID_REQUEST_UNKNOWN"),
        (["Key", "Notes", "Count", "Due"], {"Key": "a"}, "INVALID_REQUEST_UNKNOWN"),
        ("Key", {"Key": "a"}, "INVALID_REQUEST_UNKNOWN"),
        (["Key", "Key"], {"Key": "a"}, "INVALID_REQUEST_UNKNOWN"),
        (["Nope"], {"Key": "a"}, "UNKNOWN_FIELD_NAME"),
        (["Mail"], {"Mail": "a"}, "INVALID_REQUEST_UNKNOWN"),
        (["Done"], {"Done": True}, "INVALID_REQUEST_UNKNOWN"),
        (["At"], {"At": "2026-01-01T00:00:00Z"}, "INVALID_REQUEST_UNKNOWN"),
        (["Files"], {"Files": []}, "INVALID_REQUEST_UNKNOWN"),
        (["Key", "Count"], {"Key": "a"}, "INVALID_RECORDS"),
    ],
)
def test_what_cannot_be_merged_on_is_refused(airtable: AirtableClient, on, fields, error: str) -> None:
    airtable.table()

    assert refusal(upsert(airtable, {"fields": fields}, on=on)) == (422, error)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Key", "é"),
        ("Notes", "n\nn"),
        ("Count", 2.5),
        ("Status", "new"),
        ("Tags", ["a", "b"]),
        ("Due", "2026-01-02"),
    ],
)
def test_every_type_that_can_be_merged_on_is_matched(airtable: AirtableClient, name: str, value) -> None:
    row = airtable.table().create({name: value})
    airtable.table().create({"Key": "beside"})

    answer = upsert(airtable, {"fields": {name: value, "Phone": "1"}}, on=[name])

    assert answer.json()["updatedRecords"] == [row["id"]]


def test_three_fields_match_together_and_by_id(airtable: AirtableClient) -> None:
    table = airtable.table()
    ids = [table.schema().field(name).id for name in ("Key", "Count", "Due")]
    row = table.create({"Key": "a", "Count": 1, "Due": "2026-01-02"})

    same = {"Key": "a", "Count": 1.0, "Due": "2026-01-02"}
    answers = [
        upsert(airtable, {"fields": same}, on=ids),
        upsert(airtable, {"fields": same | {"Count": 2}}, on=ids),
    ]

    assert answers[0].json()["updatedRecords"] == [row["id"]]
    assert len(answers[1].json()["createdRecords"]) == 1


def test_matching_follows_edits_deletions_and_case(airtable: AirtableClient) -> None:
    table = airtable.table()
    row = table.create({"Key": "a"})
    upsert(airtable, {"fields": {"Key": "a"}})

    airtable.box.control.airtable_edit("Things", row["id"], {"Key": "b"})
    made = [upsert(airtable, {"fields": {"Key": key}}).json()["createdRecords"] for key in ("a", "b", "B")]
    airtable.box.control.airtable_delete("Things", row["id"])
    again = upsert(airtable, {"fields": {"Key": "b"}}).json()["createdRecords"]

    assert [len(ids) for ids in made] == [1, 0, 1]
    assert len(again) == 1


def test_a_put_upsert_empties_what_is_not_sent(airtable: AirtableClient) -> None:
    row = airtable.table().create({"Key": "a", "Notes": "n"})

    answer = upsert(airtable, {"fields": {"Key": "a", "Count": 1}}, method="PUT")

    assert answer.json()["records"][0]["fields"] == {"Key": "a", "Count": 1}
    assert airtable.records() == {row["id"]: {"Key": "a", "Count": 1}}


@pytest.mark.parametrize(("milliseconds", "rows"), [(0, 1), (500, 2)])
def test_two_upserts_of_a_new_key_at_once_may_make_two_rows(
    airtable: AirtableClient, milliseconds, rows
) -> None:
    airtable.box.control.set_answer("airtable.upsert_race_milliseconds", milliseconds)
    airtable.table()

    with AirtableClient(airtable.box) as other, ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda client: upsert(client, {"fields": {"Key": "new"}}), (airtable, other)))

    assert all(answer.ok for answer in answers)
    assert len(airtable.records()) == rows
