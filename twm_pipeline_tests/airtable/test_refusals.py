"""What Airtable says when it refuses, and what the caller gets."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twm_pipeline.airtable import refusals
from twm_pipeline.airtable.refusals import Asked, Refusal, redact, to_error
from twm_pipeline.errors import (
    AccessError,
    AuthenticationError,
    ConfigError,
    NotFoundError,
    PagingError,
    PermanentError,
    QuotaExhaustedError,
    RequestRefusedError,
    SchemaChangedError,
)
from twm_pipeline.http import ADDRESS, HIDDEN, LONGEST_WORDS, MOST_WORDS
from twm_pipeline_tests.airtable.replay import SAMPLES, sample

TABLE = "/v0/app0DZ9rm8w2jR5qW/tblGXW8uViLVOHe6f"
NAMES = {"Due", "Notes", "Tasks"}

KINDS = {
    "error.401": AuthenticationError,
    "error.403.model-not-found": AccessError,
    "error.403.permissions": AccessError,
    "error.404.record": NotFoundError,
    "error.404.string": NotFoundError,
    "error.422.invalid-value": RequestRefusedError,
    "error.422.iterator-expired": PagingError,
    "error.422.request": RequestRefusedError,
    "error.422.select-option": RequestRefusedError,
    "error.422.too-many-records": RequestRefusedError,
    "error.422.unknown-field": SchemaChangedError,
    "error.429.monthly-quota": QuotaExhaustedError,
}


def asked(path=TABLE, query="", body=None):
    return Asked.of(words="Airtable PATCH", path=path, query=query, body=json.dumps(body) if body else None)


UPDATE = asked(body={"records": [{"id": "recLnWTenJRiUHIky", "fields": {"fldl5tWNTryykjryx": "tomorrow"}}]})
UPSERT = asked(body={"records": [{"fields": {"fldl5tWNTryykjryx": "tomorrow"}}]})


def refusal_of(name):
    refusal = Refusal.of(sample(name))
    assert refusal is not None
    return refusal


def refused(status, body, request=UPDATE):
    refusal = Refusal.of(body)
    assert refusal is not None
    return to_error(status, refusal, request, names=NAMES)


@pytest.mark.parametrize(("name", "kind"), KINDS.items(), ids=KINDS)
def test_each_refusal_asks_for_one_reaction(name, kind):
    error = refused(int(name.split(".")[1]), sample(name))

    assert type(error) is kind
    assert refusal_of(name).type in str(error)


def test_every_refusal_that_was_recorded_has_its_reaction():
    recorded = {path.stem for path in SAMPLES.glob("error.4*.json")}

    assert recorded == KINDS.keys() | {"error.429.rate"}  # which is waited out by the session


def test_a_used_up_month_is_permanent_until_somebody_says_otherwise():
    error = refused(429, sample("error.429.monthly-quota"))

    assert isinstance(error, PermanentError)
    assert "calls of this month are used up" in str(error)


WITH_IDS = {
    "update": UPDATE,
    "one record": asked(path=f"{TABLE}/recLnWTenJRiUHIky"),
    "upload": asked(path="/v0/app0DZ9rm8w2jR5qW/recLnWTenJRiUHIky/fld9SBHJqlEeuSQxy/uploadAttachment"),
    "delete": asked(query="records%5B%5D=recLnWTenJRiUHIky"),
}
WITHOUT_IDS = {
    "upsert": UPSERT,
    "list": asked(query="fields%5B%5D=fldl5tWNTryykjryx&filterByFormula=%7Brecords%7D%3D1"),
    "schema": asked(path="/v0/meta/bases/app0DZ9rm8w2jR5qW/tables"),
}


@pytest.mark.parametrize("request_", WITH_IDS.values(), ids=WITH_IDS)
def test_a_404_of_a_call_that_names_records_means_a_record(request_):
    assert type(refused(404, sample("error.404.string"), request_)) is NotFoundError


@pytest.mark.parametrize("request_", WITHOUT_IDS.values(), ids=WITHOUT_IDS)
def test_any_other_404_means_base_or_table(request_):
    error = refused(404, sample("error.404.string"), request_)

    assert type(error) is ConfigError
    assert "AIRTABLE_BASE_ID" in str(error)


def test_a_row_that_is_gone_is_told_by_its_type_too():
    body = (
        b'{"error": {"type": "ROW_DOES_NOT_EXIST", "message": "Record ID recLnWTenJRiUHIky does not exist"}}'
    )

    assert type(refused(422, body)) is NotFoundError


MESSAGES = {
    "a field's name stays": ('Field "Due" cannot accept the provided value', 'Field "Due" cannot accept the'),
    "a choice goes": ('no permission to create option "later"', 'create option "…"'),
    "quotation marks inside": ('bad value "say "hi" now" for "Due"', 'bad value "…"'),
    "a cell without marks": ("cannot parse tomorrow as a date", "cannot parse … as a date"),
    "an address": ("bob.miller@example.com is no collaborator", "… is no collaborator"),
}


@pytest.mark.parametrize(("message", "left"), MESSAGES.values(), ids=MESSAGES)
def test_airtables_words_are_passed_on_without_what_was_in_a_cell(message, left):
    body = json.dumps({"error": {"type": "INVALID_VALUE_FOR_COLUMN", "message": message}}).encode()

    text = str(refused(422, body))

    assert left in text
    assert not any(secret in text for secret in ("later", "hi", "tomorrow", "bob"))


@given(cell=st.text(min_size=3).filter(lambda it: "…" not in it), before=st.text(), after=st.text())
def test_no_cell_comes_back_in_words(cell, before, after):
    shown = redact(f"{before}{cell}{after}", cells=iter([cell]), names=())

    assert cell not in shown
    assert len(shown) <= MOST_WORDS


HOSTILE = {
    "a message": {"type": "INVALID_VALUE", "message": "a" * 5_000_000},
    "a type": "a" * 5_000_000,
}


@pytest.mark.parametrize("error", HOSTILE.values(), ids=HOSTILE)
def test_no_endless_text_is_searched_for_addresses(error, monkeypatch):
    searched = [0]

    class Counting:  # in place of the pattern, which takes the square of a text's length
        def sub(self, shown, text):
            searched.append(len(text))
            return ADDRESS.sub(shown, text[:LONGEST_WORDS])

    monkeypatch.setattr(refusals, "ADDRESS", Counting())
    text = str(refused(422, json.dumps({"error": error}).encode()))

    assert HIDDEN in text
    assert len(text) < 2 * MOST_WORDS
    assert max(searched) <= LONGEST_WORDS


def test_a_type_that_is_free_text_is_passed_on_without_addresses():
    text = str(refused(422, b'{"error": "bob.miller@example.com has no seat"}'))

    assert "… has no seat" in text


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"error": 7}', b'{"error": {"type": '])
def test_what_is_not_airtables_form_is_no_refusal(body):
    assert Refusal.of(body) is None


@given(st.recursive(st.none() | st.text(), lambda it: st.lists(it) | st.dictionaries(st.text(), it)))
def test_any_shape_of_error_is_read(error):
    refusal = Refusal.of(json.dumps({"error": error}).encode())

    assert refusal is None or isinstance(to_error(422, refusal, UPDATE, names=()), Exception)
