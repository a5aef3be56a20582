"""The sandbox's Airtable, cells: what each type takes, stores and refuses."""

from __future__ import annotations

from typing import Any

import pytest

from twm_pipeline_tests.sandbox.airtable_clients import AirtableClient, refusal

VALUE = (422, "INVALID_VALUE_FOR_COLUMN")
CHOICE = (422, "INVALID_MULTIPLE_CHOICE_OPTIONS")
OWNER = {"id": "usrSandboxOwner00", "email": "mara.holt@harbour.example.com", "name": "Mara Holt"}
KEPT: list[tuple[str, Any, Any]] = [
    ("Key", "plain", "plain"),
    ("Notes", "two\nlines\tand a tab", "two\nlines\tand a tab"),
    ("Rich", "**bold**", "**bold**"),
    ("Mail", "no address at all", "no address at all"),
    ("Link", "nowhere", "nowhere"),
    ("Phone", "+49 30 1", "+49 30 1"),
    ("Count", 1.25, 1.25),
    ("Count", -3, -3),
    ("Price", 9.99, 9.99),
    ("Share", 0.123, 0.123),
    ("Took", 3600, 3600),
    ("Done", True, True),
    ("Stars", 5, 5),
    ("Due", "2026-02-28", "2026-02-28"),
    ("At", "2026-01-02T10:00:00Z", "2026-01-02T10:00:00.000Z"),
    ("At", "2026-01-02T10:00:00.1234+02:00", "2026-01-02T08:00:00.123Z"),
    ("At", "2026-01-02T10:00:00", "2026-01-02T09:00:00.000Z"),
    ("At", "2026-07-02T10:00", "2026-07-02T08:00:00.000Z"),
    ("At", "2026-01-02", "2026-01-01T23:00:00.000Z"),
    ("At", "0999-01-02T10:00:00Z", "0999-01-02T10:00:00.000Z"),
    ("Status", "done", "done"),
    ("Tags", ["b", "a", "b"], ["b", "a"]),
    ("Owner", {"email": OWNER["email"]}, OWNER),
    ("Owner", {"id": OWNER["id"]}, OWNER),
    ("Team", [{"id": OWNER["id"]}], [OWNER]),
    ("Code", {"text": "4711"}, {"text": "4711"}),
]
REFUSED: list[tuple[str, object, tuple[int, str]]] = [
    ("Key", 1, VALUE),
    ("Key", ["a"], VALUE),
    ("Notes", "a\x00b", VALUE),
    ("Notes", "a\x0bb", VALUE),
    ("Notes", "a\x1bb", VALUE),
    ("Notes", "x" * 100_001, VALUE),
    ("Key", "x" * 100_001, VALUE),
    ("Count", "1", VALUE),
    ("Count", True, VALUE),
    ("Done", 1, VALUE),
    ("Done", "true", VALUE),
    ("Stars", 0, VALUE),
    ("Stars", 6, VALUE),
    ("Stars", 1.5, VALUE),
    ("Due", "2026-02-30", VALUE),
    ("Due", "2026-02-03T10:00:00Z", VALUE),
    ("Due", "3.2.2026", VALUE),
    ("At", "yesterday", VALUE),
    ("At", "2026-13-02T10:00:00Z", VALUE),
    ("At", 1767348000, VALUE),
    ("Status", "later", CHOICE),
    ("Status", "Done", CHOICE),
    ("Tags", ["a", "later"], CHOICE),
    ("Tags", "a", VALUE),
    ("Owner", {"email": "stranger@example.com"}, VALUE),
    ("Owner", OWNER["email"], VALUE),
    ("Code", "4711", VALUE),
    ("Files", "https://example.com/a", VALUE),
    ("Files", [{"url": "ftp://example.com/a"}], VALUE),
    ("Files", [{"id": "attNotThere000000"}], VALUE),
    ("Files", [{"url": "http://127.0.0.1/a", "size": 1}], VALUE),
]


def test_what_fits_is_kept(airtable: AirtableClient) -> None:
    table = airtable.table()

    for name, value, stored in KEPT:
        assert table.create({name: value})["fields"] == {name: stored}, (name, value)


def test_what_does_not_fit_is_refused(airtable: AirtableClient) -> None:
    airtable.table()

    for name, value, error in REFUSED:
        answer = airtable.post(airtable.path("Things"), {"fields": {name: value}})
        assert refusal(answer) == error, (name, value)
        assert name in answer.text or error == CHOICE
    assert airtable.records() == {}


@pytest.mark.parametrize(("unit", "fits"), [("utf16", False), ("characters", True)])
def test_a_long_text_is_counted_in_either_unit(airtable: AirtableClient, unit: str, fits: bool) -> None:
    airtable.box.control.set_answer("airtable.text_unit", unit)
    airtable.table()

    plain = airtable.post(airtable.path("Things"), {"fields": {"Notes": "x" * 100_000}})
    emoji = airtable.post(airtable.path("Things"), {"fields": {"Notes": "😀" * 50_001}})

    assert plain.status_code == 200
    assert (emoji.status_code == 200) == fits


@pytest.mark.parametrize(("answer", "stored"), [("lost", "a b c"), ("kept", "a\nb\r\nc"), ("refused", None)])
def test_a_line_break_in_a_single_line_has_three_fates(airtable: AirtableClient, answer, stored) -> None:
    airtable.box.control.set_answer("airtable.single_line_newlines", answer)
    airtable.table()

    reply = airtable.post(airtable.path("Things"), {"fields": {"Key": "a\nb\r\nc"}})

    assert (reply.json()["fields"]["Key"] if reply.ok else None) == stored


def test_control_characters_may_be_dropped_instead(airtable: AirtableClient) -> None:
    airtable.box.control.set_answer("airtable.control_characters", "dropped")

    row = airtable.table().create({"Key": "a\x00b\x85c"})

    assert row["fields"] == {"Key": "abc"}


def test_numbers_may_be_rounded_to_their_precision(airtable: AirtableClient) -> None:
    airtable.box.control.set_answer("airtable.number_rounding", "rounded")

    assert airtable.table().create({"Count": 1.26, "Took": 1.5})["fields"] == {"Count": 1.3, "Took": 1.5}


def test_typecast_converts_and_creates_choices(airtable: AirtableClient) -> None:
    table = airtable.table()

    row = table.create(
        {
            "Key": 1,
            "Count": "2.5",
            "Done": "true",
            "Due": "2026-01-02T10:00:00Z",
            "Status": "later",
            "Tags": "a, c",
        },
        typecast=True,
    )

    assert row["fields"] == {
        "Key": "1",
        "Count": 2.5,
        "Done": True,
        "Due": "2026-01-02",
        "Status": "later",
        "Tags": ["a", "c"],
    }
    options: dict[str, Any] = {
        item.name: getattr(item, "options", None) for item in table.schema(force=True).fields
    }
    assert [choice.name for choice in options["Status"].choices] == ["new", "done", "later"]
    assert [choice.name for choice in options["Tags"].choices] == ["a", "b", "c"]


def test_an_editor_cannot_create_choices_even_by_typecast(airtable: AirtableClient) -> None:
    airtable.table()
    airtable.box.control.airtable_set_role("edit")

    answer = airtable.post(airtable.path("Things"), {"fields": {"Status": "later"}, "typecast": True})

    assert refusal(answer) == CHOICE
    assert answer.json()["error"]["message"] == 'Insufficient permissions to create new select option "later"'


COMPUTED = [
    ("formula", {"formula": "UPPER({Key})", "isValid": True}, "K"),
    ("autoNumber", None, 1),
    ("createdTime", {}, "createdTime"),
    ("lastModifiedTime", {"isValid": True}, "createdTime"),
    ("count", {"isValid": True}, 0),
    ("aiText", {}, None),
    ("button", None, None),
]


@pytest.mark.parametrize(("kind", "options", "value"), COMPUTED, ids=[kind for kind, *_ in COMPUTED])
def test_a_computed_field_is_read_only(airtable: AirtableClient, kind: str, options, value) -> None:
    table = airtable.table()
    row = table.create({"Key": "k"})
    airtable.box.control.airtable_add_field("Things", "Computed", kind, options)

    answer = airtable.post(airtable.path("Things"), {"fields": {"Computed": "x"}})
    emptied = airtable.patch(airtable.path("Things", row["id"]), {"fields": {"Computed": None}})

    assert refusal(answer) == refusal(emptied) == VALUE
    assert "computed" in answer.json()["error"]["message"]
    assert table.get(row["id"])["fields"].get("Computed") == (
        row["createdTime"] if value == "createdTime" else value
    )
    put = table.update(row["id"], {"Key": "other"}, replace=True)
    assert put["fields"]["Key"] == "other"


def test_a_locked_field_cannot_be_written(airtable: AirtableClient) -> None:
    airtable.table()
    airtable.box.control.airtable_lock_field("Things", "Notes")

    locked = airtable.post(airtable.path("Things"), {"fields": {"Notes": "x"}})
    beside = airtable.post(airtable.path("Things"), {"fields": {"Key": "x"}})

    assert refusal(locked) == (403, "INVALID_PERMISSIONS")
    assert beside.status_code == 200
