"""Rows of the views as cells."""

import json
import re
from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from twm_pipeline.airtable.cells import (
    MOST_UNITS,
    attachment_set,
    clean,
    clean_line,
    cut,
    digest,
    to_cells,
)
from twm_pipeline.airtable.fields import KEYS, specs
from twm_pipeline.settings import load_settings

BERLIN = ZoneInfo("Europe/Berlin")
ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")

FIELDS = specs(load_settings(), {"tasks": {"Urgent": "Urgent"}, "emails": {"Urgent": "Urgent"}})

TEXTS = st.text(st.characters())  # surrogates and control characters included
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
INSTANTS = st.datetimes(timezones=st.just(UTC) | st.just(BERLIN)) | st.datetimes()
VALUES = JSON | INSTANTS | st.dates()


def units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def cells_of(key="tasks", **row):
    return to_cells(FIELDS[key], row, timezone=BERLIN)


def test_a_task_reads_as_in_its_view():
    cells = cells_of(
        task_id=1000001,
        title="Prepare foundation drawings",
        progress=40,
        tags=["urgent", "site"],
        tag_ids=[7, 8],
        due_at=date(2025, 7, 1),
        updated_at=datetime(2025, 3, 4, 9, 15, tzinfo=UTC),
        source_links={"teamwork": "https://example.teamwork.com/app/tasks/1000001"},
        deleted=False,
        parent_task_id=None,
        Urgent=["urgent"],
    )

    assert {name: value for name, value in cells.items() if value} == {
        "id": "1000001",
        "name": "Prepare foundation drawings",
        "progress": 40,
        "tags": "urgent, site",
        "tagIds": "7, 8",
        "dueDate": "2025-06-30T22:00:00.000Z",
        "updatedAt": "2025-03-04T09:15:00.000Z",
        "dateUpdated": "2025-03-04T09:15:00.000Z",
        "url": "https://example.teamwork.com/app/tasks/1000001",
        "Urgent": "urgent",
    }


def test_what_is_empty_is_emptied_and_not_left_out():
    cells = cells_of(task_id=1, description="", tags=[], source_links={})

    assert cells.keys() == {field.name for field in FIELDS["tasks"].fields}
    assert [cells[name] for name in ("description", "tags", "dueDate", "url")] == [None] * 4
    assert cells["deleted"] is False


def test_attachments_are_not_among_the_cells():
    assert "Attachments" not in cells_of("emails", email_id="m1", attachments=[{"id": "a"}])


def test_a_retired_category_is_emptied():
    spec = specs(load_settings(), {}, retired={"tasks": {"Old": "Old"}})["tasks"]

    assert to_cells(spec, {"Old": ["x"]}, timezone=BERLIN)["Old"] is None


def test_an_empty_new_field_does_not_make_a_row_a_changed_one():
    assert digest({"id": "1", "new": None, "box": False}) == digest({"id": "1"})
    assert digest({"id": "1", "new": "x"}) != digest({"id": "1"})


INSTANTS_TABLE = {
    "utc": (datetime(2025, 3, 4, 9, 15, 0, 123456, tzinfo=UTC), "2025-03-04T09:15:00.123Z"),
    "offset": (datetime(2025, 3, 4, 9, tzinfo=timezone(timedelta(hours=2))), "2025-03-04T07:00:00.000Z"),
    "without a zone": (datetime(2025, 7, 4, 9), "2025-07-04T07:00:00.000Z"),  # noqa: DTZ001 - what is tested
    "a bare date": (date(2025, 1, 1), "2024-12-31T23:00:00.000Z"),
    "the night the clock goes forward": (date(2025, 3, 30), "2025-03-29T23:00:00.000Z"),
    "long ago": (datetime(33, 4, 3, tzinfo=UTC), "0033-04-03T00:00:00.000Z"),
    "the first day": (date.min, None),
    "no instant": ("2025-03-04", None),
}


@pytest.mark.parametrize(("value", "cell"), INSTANTS_TABLE.values(), ids=INSTANTS_TABLE)
def test_instants_have_a_z(value, cell):
    assert cells_of(due_at=value)["dueDate"] == cell


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (40, 40),
        (0, 0),
        (2.5, 2.5),
        (float("nan"), None),
        (float("inf"), None),
        (2**60, None),
        (True, None),
        ("4", None),
    ],
)
def test_numbers_are_those_that_json_has(value, cell):
    assert cells_of(progress=value)["progress"] == cell


def test_a_line_stays_one_and_a_text_keeps_its_lines():
    assert clean_line("Re:\r\n offer\t2025\x00") == "Re:  offer 2025"
    assert clean("one\r\ntwo\rthree\u2028four\x0bfive\tsix\x07\x9b") == "one\ntwo\nthree\nfour\nfive\tsix"
    assert clean("half a \ud83d character") == "half a \N{REPLACEMENT CHARACTER} character"


@pytest.mark.parametrize("filler", ["x", "ü", "\N{GRINNING FACE}"])
def test_a_text_is_cut_at_the_limit_and_says_so(filler):
    exact = filler * (MOST_UNITS // units(filler))

    assert cut(exact) == exact
    shorter = cut(exact + filler)
    assert units(shorter) <= MOST_UNITS
    assert re.fullmatch(rf"{filler}+ … \[cut here: the whole text has {len(exact) + 1} characters\]", shorter)


def test_half_a_character_is_never_left_by_the_cut():
    for offset in range(2):
        text = "x" * offset + "\N{GRINNING FACE}" * MOST_UNITS
        assert not FORBIDDEN.search(cut(text))


def test_links_are_json_in_a_steady_order():
    one = cells_of("emails", source_links={"missive": "m", "app": "ä"})
    other = cells_of("emails", source_links={"app": "ä", "missive": "m"})

    assert one["Source Links"] == other["Source Links"] == '{"app": "ä", "missive": "m"}'


@pytest.mark.parametrize("key", KEYS)
@given(data=st.data())
def test_whatever_a_row_holds_airtable_takes_the_cells(key, data):
    spec = FIELDS[key]
    columns = sorted({field.column for field in spec.fields})
    row = data.draw(st.fixed_dictionaries({}, optional=dict.fromkeys(columns, VALUES)))

    cells = to_cells(spec, row, timezone=BERLIN)

    json.dumps(cells, allow_nan=False)
    for field in spec.fields:
        value = cells.get(field.name)
        if value is None:
            continue
        if field.type == "dateTime":
            assert ISO.fullmatch(str(value))
        elif field.type == "number":
            assert isinstance(value, int | float)
        elif field.type == "checkbox":
            assert isinstance(value, bool)
        else:
            assert isinstance(value, str)
            assert value
            assert units(value) <= MOST_UNITS
            assert not FORBIDDEN.search(value)
            assert field.type == "multilineText" or not set(value) & set("\n\t")


@given(row=st.dictionaries(st.sampled_from([field.column for field in FIELDS["tasks"].fields]), VALUES))
def test_the_digest_is_steady_and_does_not_know_the_order_of_keys(row):
    cells = to_cells(FIELDS["tasks"], row, timezone=BERLIN)
    turned = to_cells(FIELDS["tasks"], dict(reversed(row.items())), timezone=BERLIN)

    assert digest(cells) == digest(dict(reversed(turned.items())))
    assert len(digest(cells)) == 16


@given(TEXTS, st.integers(0, 60_000))
@example("\N{GRINNING FACE}", 50_000)
@example("\N{GRINNING FACE}x", 33_334)
def test_a_cut_text_begins_as_the_whole_one_and_cutting_again_changes_nothing(text, times):
    whole = clean(text) * times

    short = cut(whole)

    assert cut(short) == short
    assert units(short) <= MOST_UNITS
    assert whole.startswith(short.partition(" … [cut here")[0]) or short == whole


FILE = {
    "id": "dff7fa64",
    "filename": "offer.pdf",
    "media_type": "application",
    "sub_type": "pdf",
    "size": 183204,
}


def test_the_files_of_a_row_are_told_apart_by_their_ids():
    other = {"id": "9d34b056"}
    both = attachment_set({"attachments": [FILE, other, FILE]})

    assert [file.id for file in both] == ["dff7fa64", "9d34b056"]
    assert [file.media_type for file in both] == ["application/pdf", "application/octet-stream"]
    assert [file.filename for file in both] == ["offer.pdf", "9d34b056"]


@given(st.lists(VALUES) | VALUES)
def test_whatever_stands_for_attachments_is_no_reason_to_fail(value):
    attachment_set({"attachments": value})
