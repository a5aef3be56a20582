"""The sandbox's Airtable, records: as the real pyairtable and bare requests see it."""

from __future__ import annotations

import re
from typing import Any

import pytest
import requests
from pyairtable import formulas

from twm_pipeline_tests.sandbox.airtable_clients import AirtableClient, refusal

ID = re.compile(r"rec[0-9A-Za-z]{14}")


def test_a_record_lives_through_everything(airtable: AirtableClient) -> None:
    table = airtable.table()

    made = table.create({"Key": "k", "Notes": "n", "Done": True})
    read = table.get(made["id"])
    patched = table.update(made["id"], {"Notes": None, "Count": 2})
    put = table.update(made["id"], {"Key": "k2"}, replace=True)
    gone = table.delete(made["id"])

    assert ID.fullmatch(made["id"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", made["createdTime"])
    assert read == made
    assert patched["fields"] == {"Key": "k", "Done": True, "Count": 2}
    assert put["fields"] == {"Key": "k2"}
    assert gone == {"id": made["id"], "deleted": True}
    with pytest.raises(requests.HTTPError, match="MODEL_ID_NOT_FOUND"):
        table.get(made["id"])


def test_batches_of_any_size_arrive_in_order(airtable: AirtableClient) -> None:
    table = airtable.table()

    made = table.batch_create([{"Key": f"k{number}"} for number in range(23)])
    changed = table.batch_update(
        [{"id": row["id"], "fields": {"Notes": row["fields"]["Key"]}} for row in made]
    )
    table.batch_delete([row["id"] for row in made[:11]])

    assert [row["fields"]["Key"] for row in made] == [f"k{number}" for number in range(23)]
    assert [row["id"] for row in changed] == [row["id"] for row in made]
    assert [row["fields"] for row in table.all()] == [
        {"Key": f"k{number}", "Notes": f"k{number}"} for number in range(11, 23)
    ]


def test_empty_cells_are_left_out(airtable: AirtableClient) -> None:
    table = airtable.table()

    row = table.create({"Key": "", "Notes": None, "Tags": [], "Done": False, "Count": 0, "Files": []})

    assert row["fields"] == {"Count": 0}


def test_fields_are_named_by_id_when_asked_and_taken_by_either(airtable: AirtableClient) -> None:
    table = airtable.table()
    key = table.schema().field("Key").id

    row = table.create({key: "by id"}, use_field_ids=True)

    assert row["fields"] == {key: "by id"}
    assert table.all(use_field_ids=True)[0]["fields"] == {key: "by id"}
    assert table.get(row["id"], use_field_ids=True)["fields"] == {key: "by id"}
    assert table.get(row["id"])["fields"] == {"Key": "by id"}


def test_a_list_pages_through_everything_by_get_and_by_post(airtable: AirtableClient) -> None:
    table = airtable.table()
    table.batch_create([{"Key": f"{number:03}"} for number in range(230)])
    long = formulas.OR(*(formulas.EQ(formulas.Field("Key"), f"{n:03}") for n in range(900)))

    by_get = [row["fields"]["Key"] for row in table.all()]
    by_post = [row["fields"]["Key"] for row in table.all(formula=long, page_size=50)]

    assert by_get == by_post == [f"{number:03}" for number in range(230)]
    paths = [row["method"] + row["path"] for row in airtable.box.control.requests("airtable")]
    assert sum("listRecords" in path for path in paths) == 5
    assert [len(page) for page in table.iterate(page_size=100, max_records=150)] == [100, 50]


def test_a_list_filters_sorts_and_picks_fields(airtable: AirtableClient) -> None:
    table = airtable.table()
    table.batch_create(
        [{"Key": key, "Count": count} for key, count in (("b", 2), ("a", 2), ("c", 1), ("d", 3))]
    )

    rows = table.all(sort=["-Count", "Key"], fields=["Key"], formula="{Count}<3", view="Grid view")

    assert [row["fields"] for row in rows] == [{"Key": "a"}, {"Key": "b"}, {"Key": "c"}]
    assert table.first(sort=["Key"])["fields"]["Key"] == "a"
    assert table.all(count_comments=True)[0]["commentCount"] == 0


def test_an_arbitrary_order_is_one_nobody_made(airtable: AirtableClient) -> None:
    airtable.box.control.set_answer("airtable.record_order", "arbitrary")
    table = airtable.table()
    made = [row["id"] for row in table.batch_create([{"Key": str(number)} for number in range(30)])]

    listed = [row["id"] for row in table.all(page_size=7)]

    assert listed != made
    assert sorted(listed) == sorted(made)
    assert [row["id"] for row in table.all(view="Grid view")] == made


def test_a_list_being_read_is_of_the_moment_it_began(airtable: AirtableClient) -> None:
    table = airtable.table()
    ids = [row["id"] for row in table.batch_create([{"Key": str(number)} for number in range(6)])]
    pages = table.iterate(page_size=2)

    first = next(pages)
    table.create({"Key": "late"})
    table.delete(ids[2])
    table.update(ids[3], {"Key": "changed"})

    assert [row["fields"]["Key"] for row in first] == ["0", "1"]
    assert [[row["fields"]["Key"] for row in page] for page in pages] == [["changed"], ["4", "5"]]


@pytest.mark.parametrize("how", ["control", "age"])
def test_an_offset_expires(airtable: AirtableClient, how: str) -> None:
    table = airtable.table()
    table.batch_create([{"Key": str(number)} for number in range(4)])
    offset = airtable.json(airtable.path("Things"), pageSize=2)["offset"]
    again = airtable.json(airtable.path("Things"), pageSize=2, offset=offset)

    if how == "age":
        airtable.box.control.advance(601)
    else:
        assert airtable.box.control.airtable_expire_iterators() == 1
    late = airtable.get(airtable.path("Things"), pageSize=2, offset=offset)

    assert [row["fields"]["Key"] for row in again["records"]] == ["2", "3"]
    assert refusal(late) == (422, "LIST_RECORDS_ITERATOR_NOT_AVAILABLE")


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({"offset": "nonsense"}, "INVALID_OFFSET_VALUE"),
        ({"pageSize": 101}, "INVALID_REQUEST_UNKNOWN"),
        ({"pageSize": 0}, "INVALID_REQUEST_UNKNOWN"),
        ({"maxRecords": "x"}, "INVALID_REQUEST_UNKNOWN"),
        ({"cellFormat": "string"}, "INVALID_REQUEST_UNKNOWN"),
        ({"unknown": "1"}, "INVALID_REQUEST_UNKNOWN"),
        ({"view": "Nowhere"}, "VIEW_NAME_NOT_FOUND"),
        ({"fields[]": "Nope"}, "UNKNOWN_FIELD_NAME"),
        ({"sort[0][field]": "Nope"}, "UNKNOWN_FIELD_NAME"),
        ({"filterByFormula": "{Nope}=1"}, "INVALID_FILTER_BY_FORMULA"),
        ({"filterByFormula": "{Key}='it's'"}, "INVALID_FILTER_BY_FORMULA"),
        ({"filterByFormula": "{Key}="}, "INVALID_FILTER_BY_FORMULA"),
        ({"filterByFormula": "NOSUCH({Key})"}, "INVALID_FILTER_BY_FORMULA"),
        ({"filterByFormula": "AND({Key}"}, "INVALID_FILTER_BY_FORMULA"),
        ({"filterByFormula": "(" * 5000}, "INVALID_FILTER_BY_FORMULA"),
        ({"filterByFormula": "-" * 5000}, "INVALID_FILTER_BY_FORMULA"),
    ],
)
def test_a_list_refuses_what_it_cannot_do(airtable: AirtableClient, params, error: str) -> None:
    airtable.table()

    assert refusal(airtable.get(airtable.path("Things"), **params)) == (422, error)


ROWS: list[dict[str, Any]] = [
    {"Key": "it's", "Count": 1, "Done": True, "Due": "2026-01-02", "Tags": ["a", "b"]},
    {"Key": 'a "quoted" \\ one', "Count": 2.5, "At": "2026-01-02T10:00:00Z"},
    {"Key": "}", "Status": "new"},
    {},
]


@pytest.mark.parametrize(
    ("formula", "found"),
    [
        (formulas.match({"Key": "it's"}), [0]),
        (formulas.match({"Key": 'a "quoted" \\ one'}), [1]),
        (formulas.match({"Key": "it's", "Count": 1}), [0]),
        (formulas.match({"Key": "it's", "Count": 2.5}, match_any=True), [0, 1]),
        (formulas.match({"Count": (">=", 1)}), [0, 1]),
        (formulas.match({"Key": ("!=", "}")}), [0, 1, 3]),
        (formulas.match({"Done": True}), [0]),
        (formulas.match({"Done": False}), [1, 2, 3]),
        ("{Key}=''", [3]),
        ("{Key}=BLANK()", [3]),
        ("NOT({Key})", [3]),
        ("Key & Status = '}new'", [2]),
        ("{Tags}='a, b'", [0]),
        ("FIND('b', {Tags})", [0]),
        ("IS_BEFORE({Due}, '2026-02-01')", [0]),
        ("{Due}=DATETIME_PARSE('2026-01-02')", [0]),
        ("{At}>DATETIME_PARSE('2026-01-02T09:00:00Z')", [1]),
        ("AND(OR({Count}=1,{Count}=2.5),LEN({Key})>4)", [1]),
        ("IF({Count}, {Count} * -2 + 6 / 2 > 0, FALSE())", [0]),
        ("RECORD_ID()!=''", [0, 1, 2, 3]),
        ("{Key}+1>0", [3]),
        ("LOWER(UPPER({Status}))='new'", [2]),
        ("REGEX_MATCH({Key}, 'q.o')", [1]),
    ],
    ids=str,
)
def test_a_formula_finds_its_rows(airtable: AirtableClient, formula, found: list[int]) -> None:
    table = airtable.table()
    made = [row["id"] for row in table.batch_create(ROWS)]

    assert [made.index(row["id"]) for row in table.all(formula=formula)] == found


@pytest.mark.parametrize(
    ("method", "body", "error"),
    [
        ("POST", {"records": [], "typecast": True}, "INVALID_RECORDS"),
        ("POST", {"records": [{"fields": {}}] * 11}, "INVALID_RECORDS"),
        ("POST", {"records": [{"fields": {}, "id": "x"}]}, "INVALID_RECORDS"),
        ("POST", {"records": [{"Key": "x"}]}, "INVALID_RECORDS"),
        ("POST", {"records": [{"fields": {}}], "upsert": True}, "INVALID_REQUEST_UNKNOWN"),
        ("POST", {"records": [{"fields": {}}], "typecast": "yes"}, "INVALID_REQUEST_UNKNOWN"),
        ("POST", {"records": [{"fields": {}}], "fields": {}}, "INVALID_REQUEST_UNKNOWN"),
        ("POST", {"records": [{"fields": {}}], "performUpsert": {}}, "INVALID_REQUEST_UNKNOWN"),
        ("POST", {"fields": {"Key": "x"}, "more": 1}, "INVALID_REQUEST_UNKNOWN"),
        ("POST", [], "INVALID_REQUEST_UNKNOWN"),
        ("POST", {"fields": {"Nope": "x"}}, "UNKNOWN_FIELD_NAME"),
        ("PATCH", {"records": [{"fields": {}}]}, "INVALID_RECORDS"),
        ("PATCH", {"records": [{"id": 1, "fields": {}}]}, "INVALID_RECORDS"),
        ("PATCH", {"fields": {}}, "INVALID_REQUEST_UNKNOWN"),
        ("PATCH", {"records": [{"id": "recA", "fields": {}}] * 2}, "INVALID_RECORDS"),
        ("PATCH", {"records": [{"id": "recA", "fields": {}}]}, "ROW_DOES_NOT_EXIST"),
        ("DELETE", None, "INVALID_RECORDS"),
    ],
)
def test_a_write_of_another_form_is_refused(airtable: AirtableClient, method: str, body, error: str) -> None:
    airtable.table()

    assert refusal(airtable.send(method, airtable.path("Things"), body)) == (422, error)
    assert airtable.records() == {}


def test_a_body_that_is_not_json_is_a_bad_request(airtable: AirtableClient) -> None:
    airtable.table()
    url = f"{airtable.base_url}{airtable.path('Things')}"

    for body in (b"{", b'{"fields": {"Key": "\\ud800"}}', b'{"fields": {"Count": NaN}}'):
        answer = airtable.session.post(url, data=body, timeout=5)
        assert answer.status_code == 400


def test_one_bad_value_fails_the_whole_batch(airtable: AirtableClient) -> None:
    table = airtable.table()
    old = table.create({"Key": "old"})
    good = [{"id": old["id"], "fields": {"Key": "new", "Status": "fresh"}}]

    created = airtable.post(
        airtable.path("Things"), {"records": [{"fields": {"Key": "a"}}, {"fields": {"Count": "x"}}]}
    )
    changed = airtable.patch(
        airtable.path("Things"),
        {"records": [*good, {"id": "rec00000000000000", "fields": {}}], "typecast": True},
    )

    assert refusal(created) == (422, "INVALID_VALUE_FOR_COLUMN")
    assert refusal(changed) == (422, "ROW_DOES_NOT_EXIST")
    assert airtable.records() == {old["id"]: {"Key": "old"}}
    choices = table.schema(force=True).field("Status").options.choices
    assert [choice.name for choice in choices] == ["new", "done"]


def test_deleting_a_batch_with_one_that_is_gone_deletes_none(airtable: AirtableClient) -> None:
    row = airtable.table().create({"Key": "k"})
    params = [("records[]", row["id"]), ("records[]", "rec00000000000000")]
    url = f"{airtable.base_url}{airtable.path('Things')}"

    answer = airtable.session.delete(url, params=params, timeout=5)

    assert refusal(answer) == (422, "ROW_DOES_NOT_EXIST")
    assert list(airtable.records()) == [row["id"]]


def test_the_missing_are_told_in_either_way(airtable: AirtableClient) -> None:
    airtable.table()
    airtable.box.control.set_answer("airtable.missing_in_batch", "404")
    airtable.box.control.set_answer("airtable.missing_record", "NOT_FOUND")
    gone = "rec00000000000000"

    one = airtable.get(airtable.path("Things", gone))
    batch = airtable.patch(airtable.path("Things"), {"records": [{"id": gone, "fields": {}}]})

    assert one.json() == {"error": "NOT_FOUND"}
    assert refusal(batch) == (404, "MODEL_ID_NOT_FOUND")
    for way, words in {
        "403": (403, "INVALID_PERMISSIONS_OR_MODEL_NOT_FOUND"),
        "422_model": (422, "MODEL_ID_NOT_FOUND"),
    }.items():
        airtable.box.control.set_answer("airtable.missing_in_batch", way)
        batch = airtable.patch(airtable.path("Things"), {"records": [{"id": gone, "fields": {}}]})
        assert refusal(batch) == words


def test_a_missing_table_is_told_in_either_way(airtable: AirtableClient) -> None:
    as_hidden = airtable.get(airtable.path("None such"))
    airtable.box.control.set_answer("airtable.missing_table", "404")

    assert refusal(as_hidden) == (403, "INVALID_PERMISSIONS_OR_MODEL_NOT_FOUND")
    assert airtable.get(airtable.path("None such")).json() == {"error": "NOT_FOUND"}


def test_a_put_empties_what_is_not_sent(airtable: AirtableClient) -> None:
    table = airtable.table()
    row = table.create({"Key": "k", "Notes": "n"})

    [put] = table.batch_update([{"id": row["id"], "fields": {"Count": 1}}], replace=True)

    assert put["fields"] == {"Count": 1}


def test_a_table_may_be_named_with_a_slash(airtable: AirtableClient) -> None:
    airtable.base.create_table("To do / done?", [{"name": "Key / id", "type": "singleLineText"}])

    row = airtable.base.table("To do / done?").create({"Key / id": "k"})

    assert airtable.base.table("To do / done?").get(row["id"])["fields"] == {"Key / id": "k"}


def test_links_have_their_counterpart(airtable: AirtableClient) -> None:
    table = airtable.table()
    other = airtable.base.create_table(
        "Others",
        [
            {"name": "Name", "type": "singleLineText"},
            {"name": "Things", "type": "multipleRecordLinks", "options": {"linkedTableId": table.id}},
        ],
    )
    thing = table.create({"Key": "t"})["id"]

    linked = other.create({"Name": "o", "Things": [thing]})
    named = table.update(thing, {"Others": [linked["id"], "By name"]}, typecast=True)
    refused = airtable.post(airtable.path("Others"), {"fields": {"Things": ["recNotThere000000"]}})
    other.delete(linked["id"])

    assert len(named["fields"]["Others"]) == 2
    by_name = named["fields"]["Others"][1]
    assert other.get(by_name)["fields"] == {"Name": "By name", "Things": [thing]}
    assert refusal(refused) == (422, "ROW_DOES_NOT_EXIST")
    assert table.get(thing)["fields"] == {"Key": "t", "Others": [by_name]}
