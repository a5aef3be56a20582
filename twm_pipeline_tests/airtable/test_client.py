"""The calls, against a real server that replays what Airtable says."""

from __future__ import annotations

import base64
import json
import logging
import traceback
from urllib.parse import quote

import pytest
from sqlalchemy import text

from twm_pipeline.airtable.client import LISTINGS, MOST_UPLOAD_BYTES, AirtableClient, budget_plan
from twm_pipeline.airtable.fields import FoundField
from twm_pipeline.budget import HISTORY_SHARE, Budget
from twm_pipeline.errors import (
    AccessError,
    AuthenticationError,
    ConfigError,
    PagingError,
    QuotaExhaustedError,
    RateLimitedError,
    RecordError,
    RequestRefusedError,
    SchemaChangedError,
    TwmError,
    UnansweredError,
    WindowClosedError,
)
from twm_pipeline.http import ATTEMPTS
from twm_pipeline.settings import load_settings
from twm_pipeline_tests.airtable.replay import Answer, replaying, sample

TOKEN = "patSECRETSECRETSE.0123456789abcdef"
BASE = "app0DZ9rm8w2jR5qW"
TABLE = "tblGXW8uViLVOHe6f"
KEY = "fldg37DNy2cNkAwQ0"
NAME = "fldJdKEi73qXJ2yMI"
RECORD = "recLnWTenJRiUHIky"
SECRET_CELL = "Confidential: salaries 2025"
PATH = f"/v0/{BASE}/{TABLE}"

UPSERTED = json.dumps(
    {
        "records": [
            {"id": "recHt4dEY9801UXpb", "createdTime": "2025-03-04T11:00:00.000Z", "fields": {KEY: "2"}},
            {"id": RECORD, "createdTime": "2025-03-04T09:20:00.000Z", "fields": {KEY: "1"}},
        ],
        "createdRecords": ["recHt4dEY9801UXpb"],
        "updatedRecords": [RECORD],
    }
).encode()
UPDATED = sample("records.list.by-field-id")
RATE = Answer(429, sample("error.429.rate"))
OUTAGE = Answer(503, sample("error.503"))


@pytest.fixture
def replay():
    with replaying() as replay:
        yield replay


@pytest.fixture
def settings(settings, replay):
    return settings.model_copy(
        update=dict(
            load_settings(
                airtable_api_key=TOKEN,
                airtable_base_id=BASE,
                airtable_endpoint_url=replay.url,
                airtable_upload_url=replay.url,
                budget_time_scale=2000,
                pg_dsn=settings.pg_dsn,
            )
        )
    )


@pytest.fixture
def budget(engine, settings):
    with Budget(engine, budget_plan(settings)) as budget:
        yield budget


@pytest.fixture
def client(settings, budget):
    return AirtableClient(settings, budget)


def test_the_schema_is_read_with_every_call_counted(client, replay, budget):
    replay.says(sample("meta.tables"))

    [table] = client.schema()

    assert (table.id, table.name) == (TABLE, "Tasks")
    assert table.fields[0] == FoundField(id=KEY, name="Source ID", type="singleLineText")
    [request] = replay.requests
    assert (request.method, request.path) == ("GET", f"/v0/meta/bases/{BASE}/tables")
    assert request.headers["Authorization"] == f"Bearer {TOKEN}"
    assert request.headers["User-Agent"].startswith("twm-pipeline")
    assert budget.usage.requests == 1


def test_who_the_token_is_and_what_its_owner_may_do(client, replay):
    replay.says(sample("meta.whoami"), b'{"id": "usr1"}', sample("meta.bases"), b'{"bases": []}')

    assert "schema.bases:write" in (client.whoami().scopes or ())
    assert client.whoami().scopes is None
    assert client.permission_level() == "create"
    assert client.permission_level() is None


def test_tables_and_fields_are_made_by_the_meta_api(client, replay):
    replay.says(sample("meta.create-table.response"), sample("meta.create-field.response"))

    table = client.create_table(
        "Tasks", description="of us", fields=[{"name": "id", "type": "singleLineText"}]
    )
    field = client.create_field(TABLE, {"name": "Updated At", "type": "dateTime", "options": {}})

    assert (table.id, len(table.fields)) == (TABLE, 10)
    assert (field.name, field.type) == ("Updated At", "dateTime")
    first, second = replay.requests
    assert first.body == {
        "name": "Tasks",
        "description": "of us",
        "fields": [{"name": "id", "type": "singleLineText"}],
    }
    assert second.path == f"/v0/meta/bases/{BASE}/tables/{TABLE}/fields"


def test_an_update_says_what_is_emptied_and_speaks_of_field_ids(client, replay):
    replay.says(UPDATED)

    client.update(TABLE, [(RECORD, {KEY: "1", NAME: None})])

    [request] = replay.requests
    assert (request.method, request.path) == ("PATCH", PATH)
    assert request.body == {
        "records": [{"id": RECORD, "fields": {KEY: "1", NAME: None}}],
        "typecast": False,
        "returnFieldsByFieldId": True,
    }


def test_an_upsert_tells_in_order_which_record_is_which(client, replay):
    replay.says(UPSERTED)

    found = client.upsert(TABLE, KEY, [{KEY: "1", NAME: "a"}, {KEY: "2", NAME: "b"}])

    assert found == [(RECORD, False), ("recHt4dEY9801UXpb", True)]
    assert replay.requests[0].body["performUpsert"] == {"fieldsToMergeOn": [KEY]}


def test_a_key_that_the_answer_lacks_is_an_answer_that_cannot_be_trusted(client, replay):
    replay.says(UPSERTED)

    with pytest.raises(UnansweredError, match="not in the expected shape"):
        client.upsert(TABLE, KEY, [{KEY: "3"}])


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.upsert(TABLE, KEY, [{KEY: "1"}, {KEY: "1"}]),
        lambda client: client.upsert(TABLE, KEY, [{KEY: str(n)} for n in range(11)]),
        lambda client: client.update(TABLE, [(RECORD, {})] * 11),
        lambda client: client.delete(TABLE, [RECORD] * 11),
    ],
    ids=["a key twice", "upsert", "update", "delete"],
)
def test_what_airtable_would_refuse_is_not_sent(client, replay, call):
    with pytest.raises(ValueError, match=r"key|records"):
        call(client)

    assert replay.requests == []


def test_records_are_deleted_by_id(client, replay):
    replay.says(sample("records.delete.response"))

    client.delete(TABLE, [RECORD, "recPyRXFOpMMGlYbd"])

    [request] = replay.requests
    assert request.method == "DELETE"
    assert request.query == {"records[]": [RECORD, "recPyRXFOpMMGlYbd"]}


def test_a_listing_is_followed_to_its_end(client, replay):
    replay.says(sample("records.list.page1"), sample("records.list.page2.last"))

    pages = list(client.list_records(TABLE, fields=[KEY, NAME]))

    assert [len(page) for page in pages] == [2, 1]
    assert pages[0][0].id == RECORD
    first, second = replay.requests
    assert first.query["fields[]"] == [KEY, NAME]
    assert first.query["returnFieldsByFieldId"] == ["1"]
    assert second.query["offset"] == ["itrpdKXAXxHWdjnvR/recw0RmbI4Lhd4a3W"]


def test_a_listing_that_expired_is_begun_again(client, replay):
    expired = Answer(422, sample("error.422.iterator-expired"))
    replay.says(
        sample("records.list.page1"),
        expired,
        sample("records.list.page1"),
        sample("records.list.page2.last"),
    )

    ids = [record.id for page in client.list_records(TABLE, fields=[]) for record in page]

    assert len(ids) == 5
    assert len(set(ids)) == 3
    assert "offset" not in replay.requests[2].query


def test_a_listing_that_expires_every_time_is_given_up(client, replay):
    replay.says(Answer(422, sample("error.422.iterator-expired")))

    with pytest.raises(PagingError):
        list(client.list_records(TABLE, fields=[]))

    assert len(replay.requests) == LISTINGS


def test_records_are_found_by_id(client, replay):
    replay.says(UPDATED)

    assert [it.id for it in client.get_records(TABLE, [RECORD], fields=[KEY])] == [RECORD]
    assert client.get_records(TABLE, [], fields=[KEY]) == []

    [request] = replay.requests
    assert request.query["filterByFormula"] == [f"OR(RECORD_ID()='{RECORD}')"]


def test_a_long_query_becomes_a_body_and_is_still_repeated(client, replay):
    replay.says(OUTAGE, UPDATED)
    ids = [f"{n:0200}" for n in range(100)]

    assert client.get_records(TABLE, ids, fields=[KEY])

    assert {(it.method, it.path) for it in replay.requests} == {("POST", f"{PATH}/listRecords")}
    assert len(replay.requests) == 2


def test_a_file_is_uploaded_to_the_address_of_the_settings(client, replay):
    replay.says(sample("attachments.upload.response"))

    field = "fld9SBHJqlEeuSQxy"
    held = client.upload_attachment(
        RECORD, field, filename="note.txt", media_type="text/plain", content=b"Sample attachment"
    )

    assert held == ["attGSLYrr55xCC0r7"]
    [request] = replay.requests
    assert (request.method, request.path) == ("POST", f"/v0/{BASE}/{RECORD}/{field}/uploadAttachment")
    assert request.body == json.loads(sample("attachments.upload.request"))
    assert base64.b64decode(request.body["file"]) == b"Sample attachment"


def test_a_file_over_the_limit_is_not_sent(client, replay):
    with pytest.raises(RecordError, match="Airtable takes 5242880"):
        client.upload_attachment(
            RECORD, KEY, filename="a", media_type="a/b", content=bytes(MOST_UPLOAD_BYTES + 1)
        )

    assert replay.requests == []


def update(client):
    client.update(TABLE, [(RECORD, {NAME: SECRET_CELL})])


def upsert(client):
    client.upsert(TABLE, KEY, [{KEY: "1"}, {KEY: "2"}])


def make(client):
    client.create_field(TABLE, {"name": "Updated At", "type": "dateTime"})


def upload(client):
    client.upload_attachment(RECORD, KEY, filename=SECRET_CELL, media_type="a/b", content=b"")


REPEATED = {
    "a refused rate": RATE,
    "an outage": OUTAGE,
    "a gateway's page": Answer(502, b"<html>"),
    "a page instead of an answer": Answer(200, b"<html>"),
    "a cut-off answer": Answer(200, UPSERTED, missing_bytes=10),
    "half of the JSON": Answer(200, UPSERTED[:-10]),
    "a broken connection": Answer(reset=True),
    "a proxy's refusal": Answer(403, b"<html>blocked</html>"),
}


@pytest.mark.parametrize("answer", REPEATED.values(), ids=REPEATED)
def test_an_upsert_is_repeated_after(client, replay, budget, answer):
    replay.says(answer, UPSERTED)

    upsert(client)

    assert len(replay.requests) == 2
    assert replay.requests[0].body == replay.requests[1].body
    assert budget.usage.requests == 2


@pytest.mark.parametrize("call", [make, upload])
def test_what_makes_something_new_is_not_repeated_after_an_outage(client, replay, call):
    replay.says(OUTAGE)

    with pytest.raises(UnansweredError, match="503 RETRIABLE_ERROR"):
        call(client)

    assert len(replay.requests) == 1


def test_what_makes_something_new_is_repeated_after_a_refused_rate(client, replay):
    replay.says(RATE, sample("meta.create-field.response"))

    make(client)

    assert len(replay.requests) == 2


@pytest.mark.parametrize(
    ("answer", "kind"), [(OUTAGE, UnansweredError), (RATE, RateLimitedError)], ids=["outage", "rate"]
)
def test_repeats_are_bounded(client, replay, answer, kind):
    replay.says(answer)

    with pytest.raises(kind):
        update(client)

    assert len(replay.requests) == ATTEMPTS


def test_a_refused_rate_silences_the_whole_base(client, replay, budget, engine):
    replay.says(RATE, UPDATED)

    update(client)

    assert budget.usage.throttled == 1
    with engine.connect() as connection:
        row = connection.execute(text("SELECT account, paused_reason FROM twm.budgets")).one()
    assert row == (f"airtable {BASE}", "Airtable answered 429")
    assert budget.usage.waited_seconds > 0


@pytest.mark.parametrize(("headers", "seconds"), [({"Retry-After": "0.4"}, "0.4"), ({}, "0.0")])
def test_the_wait_that_airtable_asks_for_goes_before_the_documented_one(
    client, replay, caplog, headers, seconds
):
    replay.says(Answer(429, sample("error.429.rate"), headers), UPDATED)

    update(client)

    assert f"429, the base is left alone for {seconds} s" in caplog.text


def test_a_used_up_month_is_not_asked_twice_and_pauses_nothing(client, replay, budget):
    replay.says(Answer(429, sample("error.429.monthly-quota")))

    with pytest.raises(QuotaExhaustedError):
        update(client)

    assert len(replay.requests) == 1
    assert budget.usage.throttled == 0


PERMANENT = {
    "error.401": AuthenticationError,
    "error.403.permissions": AccessError,
    "error.404.string": TwmError,
    "error.422.invalid-value": RequestRefusedError,
    "error.422.unknown-field": SchemaChangedError,
}


@pytest.mark.parametrize(("name", "kind"), PERMANENT.items(), ids=PERMANENT)
def test_a_refusal_is_raised_at_once(client, replay, name, kind):
    replay.says(Answer(int(name.split(".")[1]), sample(name)))

    with pytest.raises(kind):
        update(client)

    assert len(replay.requests) == 1


def test_a_redirect_is_a_wrong_address(client, replay):
    replay.says(Answer(302, b"", {"Location": "https://elsewhere.example.com/"}))

    with pytest.raises(ConfigError, match="AIRTABLE_ENDPOINT_URL"):
        update(client)


def test_field_names_of_the_base_stay_in_its_words(client, replay):
    replay.says(sample("meta.tables"), Answer(422, sample("error.422.unknown-field")))
    client.schema()

    with pytest.raises(SchemaChangedError, match='UNKNOWN_FIELD_NAME Unknown field name: "Notes"'):
        update(client)


def test_the_end_of_the_window_ends_the_repeats(settings, budget, replay):
    def before_attempt():
        if replay.requests:
            raise WindowClosedError("the window is over")

    replay.says(OUTAGE)
    client = AirtableClient(settings, budget, sleep=lambda _: None)
    client.pace.before_attempt = before_attempt

    with pytest.raises(WindowClosedError):
        update(client)

    assert len(replay.requests) == 1


def test_a_write_is_not_repeated_before_the_first_one_can_have_ended(settings, budget, replay):
    slept: list[float] = []
    replay.says(OUTAGE, UPDATED)

    update(AirtableClient(settings.model_copy(update={"budget_time_scale": 1}), budget, sleep=slept.append))

    assert min(slept) >= 2


def test_history_leaves_a_share_of_the_budget(client, replay, budget):
    replay.says(UPDATED)
    client.pace.fresh = False

    update(client)

    assert [limit.requests for limit in budget._limits(fresh=False)] == [int(5 * HISTORY_SHARE)]


@pytest.mark.parametrize("shape", [b"[]", b"{}", b'{"tables": [{}]}', b'{"tables": null}', b"null", b'"x"'])
def test_another_shape_is_an_answer_that_cannot_be_trusted(client, replay, shape):
    replay.says(shape)

    with pytest.raises(UnansweredError, match="not in the expected shape"):
        client.schema()


@pytest.mark.parametrize("name", ["airtable_api_key", "airtable_base_id"])
def test_without_token_or_base_it_is_switched_off(settings, budget, name):
    with pytest.raises(ConfigError, match="AIRTABLE_API_KEY and AIRTABLE_BASE_ID"):
        AirtableClient(settings.model_copy(update={name: None}), budget)


SECRETS = {
    "refused": Answer(
        422,
        json.dumps({"error": {"type": "X", "message": f'"{SECRET_CELL}" by bob@example.com'}}).encode(),
    ),
    "echoed in another shape": json.dumps({"records": [{"id": 7, "fields": {NAME: SECRET_CELL}}]}).encode(),
    "reset": Answer(reset=True),
    "outage": Answer(500, json.dumps({"error": {"type": "X", "message": SECRET_CELL}}).encode()),
}


@pytest.mark.parametrize("answer", SECRETS.values(), ids=SECRETS)
def test_neither_cells_nor_addresses_nor_the_token_come_to_light(client, replay, caplog, answer):
    caplog.set_level(logging.DEBUG, "twm_pipeline")
    replay.says(answer)

    with pytest.raises(TwmError) as caught:
        update(client)
    with pytest.raises(TwmError) as on_upload:
        upload(client)

    for error in (caught.value, on_upload.value):
        shown = "".join(traceback.format_exception(error)) + caplog.text
        assert TOKEN not in shown
        assert "bob@example.com" not in shown
        assert SECRET_CELL not in shown
        assert quote(SECRET_CELL) not in shown
