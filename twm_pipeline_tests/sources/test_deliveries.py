from __future__ import annotations

import json
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twm_pipeline.errors import DeliveryError
from twm_pipeline.records import Hint
from twm_pipeline.sources import missive_deliveries, teamwork_deliveries
from twm_pipeline_tests.webhooks.deliveries import load_samples

JSON_TYPE, FORM_TYPE = "application/json", "application/x-www-form-urlencoded"
SAMPLES = {sample.name: sample for sample in load_samples()}


def teamwork(body, *, path="", kind=JSON_TYPE, header=None):
    headers = ({"content-type": kind} if kind else {}) | ({"x-projects-event": header} if header else {})
    return teamwork_deliveries.parse_delivery(path_event=path, headers=headers, body=encode(body))


def missive(body, *, path="", kind=JSON_TYPE):
    headers = {"content-type": kind} if kind else {}
    return missive_deliveries.parse_delivery(path_event=path, headers=headers, body=encode(body))


def encode(body):
    return body if isinstance(body, bytes) else json.dumps(body).encode()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("webhook.task-created.v2", Hint(event="TASK.CREATED", stream="tasks", object_id="1000001")),
        ("webhook.task-updated.v2", Hint(event="TASK.UPDATED", stream="tasks", object_id="1000001")),
        ("webhook.task-completed.v2", Hint(event="TASK.COMPLETED", stream="tasks", object_id="1000001")),
        ("webhook.task-updated.v2-form", Hint(event="TASK.UPDATED", stream="tasks", object_id="1000001")),
        ("webhook.task-deleted.v2-form", Hint(event="TASK.DELETED", stream="tasks", object_id="1000004")),
        ("webhook.task-deleted.v2.assumed", Hint(event="TASK.DELETED", stream="tasks", object_id="1000004")),
        (
            "webhook.tasklist-updated.v2",
            Hint(event="TASKLIST.UPDATED", stream="tasklists", object_id="701001"),
        ),
        (
            "webhook.project-archived.v2",
            Hint(event="PROJECT.ARCHIVED", stream="projects", object_id="501001"),
        ),
        (
            "webhook.comment-created.v2",
            Hint(event="COMMENT.CREATED", stream="task_comments", object_id="600001"),
        ),
        ("webhook.time-created.v2", Hint(event="TIME.CREATED", stream="time_entries", object_id="800001")),
    ],
)
@pytest.mark.parametrize("named_by", ["header", "path"])
def test_samples_of_teamwork_name_their_object(name, hint, named_by):
    sample = SAMPLES[name]
    header = sample.headers["X-Projects-Event"] if named_by == "header" else None
    path = sample.path.rpartition("/")[2] if named_by == "path" else ""

    assert teamwork(sample.body, path=path, kind=sample.headers["Content-Type"], header=header) == hint


@pytest.mark.parametrize("name", [name for name, sample in SAMPLES.items() if sample.source == "missive"])
def test_samples_of_missive_name_their_conversation(name):
    event, body = name.split(".")[1], SAMPLES[name].body
    conversation = json.loads(body)["conversation"]["id"]

    assert missive(body) == Hint(event=event, stream="conversations", object_id=conversation)


def test_every_sample_is_looked_at():
    assert len(SAMPLES) == 14


@pytest.mark.parametrize(
    "body",
    [
        {"id": 7},
        {"ID": 7},
        {"id": "7"},
        {"task": {"id": 7}},
        {"task": {"ID": "7"}},
        {"Task": {"ID": 7}},
        {"Task.ID": 7},
        {"task.id": "0007"},
        {"task": None, "id": 7},
        {"task": {"id": None}, "ID": " 7 "},
        {"task": {"id": 7}, "id": 8},
        {"eventCreator": {"id": 301}, "id": 7},
    ],
    ids=json.dumps,
)
def test_a_deletion_may_spell_its_id_in_many_ways(body):
    assert teamwork(body, path="task-deleted") == Hint(event="TASK.DELETED", stream="tasks", object_id="7")


@pytest.mark.parametrize("event", ["TASK.DELETED", "task.deleted"])
def test_the_oldest_form_names_event_and_object(event):
    fields = {"accountId": 9, "event": event, "objectId": 1000004, "userId": 301, "projectId": 5}

    hint = teamwork(urlencode(fields).encode(), kind=FORM_TYPE)

    assert hint == Hint(event="TASK.DELETED", stream="tasks", object_id="1000004")


@pytest.mark.parametrize(
    ("path", "header", "event"),
    [
        ("task-deleted", None, "TASK.DELETED"),
        ("task-deleted", "TASK.UPDATED", "TASK.UPDATED"),
        ("task-deleted", "no event", "TASK.DELETED"),
        ("tasklist-createdfromtemplate", None, "TASKLIST.CREATEDFROMTEMPLATE"),
        ("", " task.Tagged ", "TASK.TAGGED"),
        ("", "ＴＡＳＫ.TAGGED", ""),
        ("..", None, ""),
        ("task-deleted-twice", None, ""),
        ("task", None, ""),
    ],
)
def test_header_or_path_name_the_event(path, header, event):
    assert teamwork({"task": {"id": 7}}, path=path, header=header).event == event


@pytest.mark.parametrize(
    ("value"),
    [
        None,
        0,
        -1,
        1.5,
        7.0,
        True,
        "",
        "x",
        "1e3",
        "٧",
        "1" * 19,
        10**18,
        2**70,
        10**400,
        [7],
        {"id": 7},
        "../7",
        "7\n8",
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_task_event_without_a_usable_id_asks_for_a_poll(value):
    assert teamwork({"task": {"id": value}}, path="task-updated") == Hint(event="TASK.UPDATED")


def test_without_an_event_a_task_is_known_by_its_key_only():
    assert teamwork({"task": {"id": 7}}) == Hint(event="", stream="tasks", object_id="7")
    assert teamwork({"id": 7}) == Hint(event="")


def test_other_objects_than_tasks_do_not_lend_their_id():
    assert teamwork({"id": 7, "task": {"id": 8}}, path="file-created") == Hint(event="FILE.CREATED")
    assert teamwork({"task": {"id": 8}}, path="project-updated") == Hint(event="PROJECT.UPDATED")


@pytest.mark.parametrize("body", [b"", b" \r\n", b"{}", b"\xef\xbb\xbf{}"])
@pytest.mark.parametrize("parse", [teamwork, missive])
def test_a_ping_says_nothing(parse, body):
    assert parse(body) is None


@pytest.mark.parametrize("body", [{"rule": {"type": "test"}}, {"conversation": None}, {"validation": True}])
def test_missives_validation_has_no_conversation(body):
    assert missive(body) is None


@pytest.mark.parametrize(
    "kind",
    [
        JSON_TYPE,
        "application/json; charset=utf-8",
        "Application/JSON",
        "application/vnd.x+json",
        "text/json",
        "",
    ],
)
@pytest.mark.parametrize("parse", [teamwork, missive])
def test_json_has_many_names(parse, kind):
    assert parse({"conversation": {"id": "a"}, "task": {"id": 7}}, kind=kind).object_id in ("7", "a")


def test_without_a_content_type_the_body_tells_what_it_is():
    assert teamwork(b"Task.ID=7", kind="", path="task-updated").object_id == "7"
    assert teamwork(b'\xef\xbb\xbf {"id": 7}', kind="", path="task-updated").object_id == "7"


@pytest.mark.parametrize(
    "kind", ["text/plain", "multipart/form-data; boundary=x", "application/xml", "json", "é/é"]
)
@pytest.mark.parametrize("parse", [teamwork, missive])
def test_other_content_types_are_refused(parse, kind):
    with pytest.raises(DeliveryError) as refused:
        parse({"task": {"id": 7}}, kind=kind)
    assert refused.value.status == 415


def test_missive_sends_no_forms():
    with pytest.raises(DeliveryError) as refused:
        missive(b"conversation.id=a", kind=FORM_TYPE)
    assert refused.value.status == 415


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"[{}]",
        b"null",
        b"7",
        b'"text"',
        b"{",
        b'{"task": {"id": 7}',
        b"\x00",
        b"\xff\xfe{\x00}\x00",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"task": {"id": ' + b"9" * 5000 + b"}}",
        b"<html>",
    ],
    ids=lambda body: repr(body[:12]),
)
@pytest.mark.parametrize("parse", [teamwork, missive])
def test_what_is_no_json_object_is_refused(parse, body):
    with pytest.raises(DeliveryError) as refused:
        parse(body)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    "text",
    [b"\\ud800", b"\xff", b"\x00", b"\x01", b"\\u0000", "ü".encode("latin-1")],
    ids=["lone surrogate", "no UTF-8", "NUL", "control character", "escaped NUL", "latin-1"],
)
def test_a_text_that_nobody_reads_costs_no_delivery(text):
    body = b'{"conversation": {"id": "a", "subject": "' + text + b'"}, "rule": {"type": "new_comment"}}'

    assert missive(body) == Hint(event="new_comment", stream="conversations", object_id="a")


def test_of_doubled_keys_the_last_counts():
    assert teamwork(b'{"task": {"id": 6}, "task": {"id": 7}}', path="task-updated").object_id == "7"


@pytest.mark.parametrize("body", [b"no form", b"&&", "&".join(f"a{n}=1" for n in range(20_000)).encode()])
def test_what_is_no_form_is_refused(body):
    with pytest.raises(DeliveryError) as refused:
        teamwork(body, kind=FORM_TYPE)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    "conversation",
    [
        "a",
        [],
        {},
        {"id": None},
        {"id": 7},
        {"id": ""},
        {"id": "../x"},
        {"id": "a" * 65},
        {"id": "a\n"},
        {"id": "ä"},
    ],
    ids=repr,
)
def test_a_conversation_without_a_usable_id_is_refused(conversation):
    with pytest.raises(DeliveryError, match="usable id") as refused:
        missive({"conversation": conversation})
    assert refused.value.status == 400


@pytest.mark.parametrize(
    "rule", [None, "x", {}, {"type": None}, {"type": "a b"}, {"type": "x" * 65}], ids=repr
)
def test_a_secret_path_names_the_event_where_the_rule_does_not(rule):
    body = {"conversation": {"id": "a"}, "rule": rule}

    assert missive(body, path="new_comment").event == "new_comment"
    assert missive(body).event == ""


KEYS = st.sampled_from(
    ["id", "ID", "task", "Task", "taskList", "project", "conversation", "rule", "type", "event"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
KINDS = st.sampled_from([JSON_TYPE, FORM_TYPE, "text/plain", ""]) | st.text(max_size=20)


@given(
    body=st.binary(max_size=200) | VALUES.map(lambda value: json.dumps(value).encode()),
    kind=KINDS,
    path=st.sampled_from(["task-updated", "project-deleted", ""]) | st.text(max_size=20),
    header=st.none() | st.text(max_size=20),
)
def test_whatever_comes_is_a_hint_a_ping_or_refused(body, kind, path, header):
    for parse in (teamwork_deliveries.parse_delivery, missive_deliveries.parse_delivery):
        headers = {"content-type": kind} | ({"x-projects-event": header} if header is not None else {})
        try:
            hint = parse(path_event=path, headers=headers, body=body)
        except DeliveryError:
            hint = None
        assert hint is None or is_plain(hint)


def is_plain(hint: Hint) -> bool:
    """Return whether a hint is fit for logs and file names: short, ASCII, no spaces or slashes."""
    texts = [hint.event, hint.object_id or "", hint.stream or ""]
    return all(text.isascii() and len(text) <= 66 and not set(text) & set("/ \n\0") for text in texts)
