"""Digests of vendor JSON, and what every record and its table have in common."""

import json
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import inspect

from twm_pipeline import records
from twm_pipeline.errors import RecordError
from twm_pipeline.mirror.tables import JSON_COLUMNS, TABLES, table_of
from twm_pipeline.records import HASH_BYTES, Record, digest, to_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=3), JSON, max_size=4)


@given(OBJECTS)
def test_a_digest_does_not_depend_on_the_order_of_keys(value):
    turned = dict(reversed(value.items()))

    assert digest(value) == digest(turned)
    assert len(digest(value)) == HASH_BYTES


@given(OBJECTS, OBJECTS)
def test_different_values_have_different_digests(one, other):
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)

    assert (digest(one) == digest(other)) is same


def test_a_digest_depends_on_its_salt():
    assert len({digest({"a": 1}, salt=salt) for salt in ("", "anna", "ben")}) == 3


@pytest.mark.parametrize(
    "pair",
    [({"a": 1}, {"a": "1"}), ({"a": None}, {}), ({"a": []}, {"a": None}), ({"a": [1, 2]}, {"a": [2, 1]})],
    ids=str,
)
def test_what_looks_alike_is_not_the_same(pair):
    one, other = pair

    assert digest(one) != digest(other)


@given(JSON)
def test_json_survives_a_round_trip(value):
    assert json.loads(to_json(value)) == value


@pytest.mark.parametrize("call", [digest, to_json])
def test_what_json_cannot_hold_sets_the_row_aside(call):
    with pytest.raises(RecordError, match="cannot be stored as JSON"):
        call({"number": 2**70})


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_field_is_a_column_of_its_table(engine, table):
    columns = {column["name"]: column for column in inspect(engine).get_columns(table.stream, table.source)}

    assert [field.name for field in fields(table.record)] == list(table.columns)
    assert set(table.columns) <= set(columns)
    assert table.keep_when_null <= set(table.columns)
    for name in table.columns:
        assert (str(columns[name]["type"]) == "JSONB") is (name in JSON_COLUMNS)


def test_every_record_has_a_table():
    kinds = {
        name for name, kind in vars(records).items() if isinstance(kind, type) and issubclass(kind, Record)
    }

    assert kinds - {"Record"} == {table.record.__name__ for table in TABLES}


def test_a_table_is_found_by_its_stream():
    assert all(table_of(table.source, table.stream) is table for table in TABLES)
    with pytest.raises(KeyError, match="teamwork/emails"):
        table_of("teamwork", "emails")
