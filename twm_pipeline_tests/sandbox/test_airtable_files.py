"""The sandbox's Airtable, attachments: fetched late, failing silently, uploaded, expiring."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import requests

from twm_pipeline_tests.sandbox.airtable_clients import AirtableClient, refusal

CONTENT = b"%PDF-1.7 plans"


class Shelf(BaseHTTPRequestHandler):
    """Files: a good one, a login page, redirects, and what is not there."""

    def do_GET(self) -> None:
        kind, _, rest = self.path.strip("/").partition("/")
        if kind == "hop" and rest != "0":
            self.send_response(302)
            self.send_header("Location", f"/hop/{int(rest) - 1}")
            self.end_headers()
        elif kind == "away":
            self.send_response(302)
            self.send_header("Location", "http://192.0.2.1/plan.pdf")
            self.end_headers()
        elif kind == "gone":
            self.send_error(404)
        else:
            body = b"<html>Please log in</html>" if kind == "login" else CONTENT
            self.send_response(200)
            self.send_header(
                "Content-Type", "text/html; charset=utf-8" if kind == "login" else "application/pdf"
            )
            self.send_header("Content-Length", str(len(body) * (2 if kind == "short" else 1)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def shelf() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Shelf)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def files_of(airtable: AirtableClient, record_id: str) -> list[dict[str, Any]]:
    files: list[dict[str, Any]] = airtable.json(airtable.path("Things", record_id))["fields"].get("Files", [])
    return files


def test_a_file_is_fetched_after_the_call_was_answered(airtable: AirtableClient, shelf: str) -> None:
    airtable.box.control.airtable_hold_attachments()
    url = f"{shelf}/file/plan.pdf?signature=x"

    row = airtable.table().create({"Files": [{"url": url}, {"url": url, "filename": "named.pdf"}]})
    before = files_of(airtable, row["id"])
    airtable.box.control.airtable_release_attachments()
    airtable.box.control.airtable_wait_for_attachments()
    after = files_of(airtable, row["id"])

    assert before == row["fields"]["Files"]
    assert [item["url"] for item in before] == [url, url]
    assert [item["filename"] for item in after] == ["plan.pdf", "named.pdf"]
    assert [item["id"] for item in after] == [item["id"] for item in before]
    assert {(item["size"], item["type"]) for item in after} == {(len(CONTENT), "application/pdf")}
    assert requests.get(after[0]["url"], timeout=5).content == CONTENT


def test_a_returned_url_is_dead_after_two_hours(airtable: AirtableClient, shelf: str) -> None:
    row = airtable.table().create({"Files": [{"url": f"{shelf}/file/plan.pdf"}]})
    airtable.box.control.airtable_wait_for_attachments()
    url = files_of(airtable, row["id"])[0]["url"]

    airtable.box.control.advance(7199)
    alive = requests.get(url, timeout=5)
    airtable.box.control.advance(2)
    dead = requests.get(url, timeout=5)
    fresh = requests.get(files_of(airtable, row["id"])[0]["url"], timeout=5)

    assert (alive.status_code, dead.status_code, fresh.status_code) == (200, 410, 200)
    wrong = url.replace(url.split("/")[-2], "0" * 32)
    assert requests.get(wrong, timeout=5).status_code == 403


def test_a_login_page_is_stored_as_if_it_were_the_file(airtable: AirtableClient, shelf: str) -> None:
    row = airtable.table().create({"Files": [{"url": f"{shelf}/login/plan.pdf"}]})
    airtable.box.control.airtable_wait_for_attachments()

    assert [item["type"] for item in files_of(airtable, row["id"])] == ["text/html"]


@pytest.mark.parametrize("path", ["gone/a.pdf", "hop/4", "away/a.pdf", "short/a.pdf"])
@pytest.mark.parametrize("answer", ["disappears", "dead_url"])
def test_a_fetch_fails_without_a_word(airtable: AirtableClient, shelf: str, path: str, answer: str) -> None:
    airtable.box.control.set_answer("airtable.failed_attachment", answer)
    files = [{"url": f"{shelf}/{path}"}, {"url": f"{shelf}/hop/3", "filename": "good.pdf"}]

    row = airtable.table().create({"Key": "k", "Files": files})
    airtable.box.control.airtable_wait_for_attachments()
    after = files_of(airtable, row["id"])

    assert len(row["fields"]["Files"]) == 2
    assert after[-1]["size"] == len(CONTENT)
    if answer == "disappears":
        assert len(after) == 1
    else:
        assert after[0]["url"] == files[0]["url"]
        assert "size" not in after[0]


def test_an_address_that_is_not_loopback_is_never_asked(airtable: AirtableClient) -> None:
    row = airtable.table().create({"Files": [{"url": "https://example.com/a.pdf"}]})
    airtable.box.control.airtable_wait_for_attachments()

    assert files_of(airtable, row["id"]) == []
    status = airtable.box.control.status()["vendors"]["airtable"]["attachments"]
    assert status == {"waiting": 0, "fetched": 0, "failed": 1}


def test_a_url_that_failed_again_and_again_is_told_in_the_answer(
    airtable: AirtableClient, shelf: str
) -> None:
    table = airtable.table()
    bad = {"Files": [{"url": f"{shelf}/gone/a.pdf"}]}
    for _ in range(2):
        table.create(bad)
        airtable.box.control.airtable_wait_for_attachments()

    answer = airtable.post(airtable.path("Things"), {"records": [{"fields": bad}]})

    assert answer.json()["details"]["reasons"] == ["ATTACHMENTS_FAILED_UPLOADING"]


def test_fetches_fail_when_told_to(airtable: AirtableClient, shelf: str) -> None:
    table = airtable.table()
    good = {"Files": [{"url": f"{shelf}/file/a.pdf"}]}
    counts = []
    for fail in (1, None, 0):
        airtable.box.control.airtable_fail_attachments(fail)
        rows = []
        for _ in range(2):
            rows.append(table.create(good)["id"])
            airtable.box.control.airtable_wait_for_attachments()
        counts.append([len(files_of(airtable, row)) for row in rows])

    assert counts == [[0, 1], [0, 0], [1, 1]]


def test_an_update_replaces_and_ids_keep(airtable: AirtableClient, shelf: str) -> None:
    table = airtable.table()
    url = f"{shelf}/file/a.pdf"
    row = table.create({"Files": [{"url": url, "filename": name} for name in ("one", "two")]})
    airtable.box.control.airtable_wait_for_attachments()
    two = files_of(airtable, row["id"])[1]

    table.update(row["id"], {"Files": [{"id": two["id"]}, {"url": url, "filename": "three"}]})
    airtable.box.control.airtable_wait_for_attachments()
    kept = files_of(airtable, row["id"])
    table.update(row["id"], {"Files": kept})
    whole = files_of(airtable, row["id"])
    table.update(row["id"], {"Files": []})

    assert [item["filename"] for item in kept] == [item["filename"] for item in whole] == ["two", "three"]
    assert [item["id"] for item in kept] == [item["id"] for item in whole]
    assert kept[0]["id"] == two["id"]
    assert files_of(airtable, row["id"]) == []


def body(content: bytes, **more: Any) -> dict[str, Any]:
    encoded = base64.encodebytes(content).decode()  # With line breaks, as pyairtable sends it.
    return {"contentType": "text/plain", "filename": "note.txt", "file": encoded} | more


def test_an_upload_appends_and_answers_by_field_id(airtable: AirtableClient) -> None:
    table = airtable.table()
    row = table.create({"Key": "k"})
    field = table.schema().field("Files").id

    first = airtable.upload(row["id"], "Files", body(b"one" * 100))
    second = airtable.upload(row["id"], field, body(b"two", filename="two.txt"))

    assert set(first.json()) == {"id", "createdTime", "fields"}
    assert list(second.json()["fields"]) == [field]
    files = files_of(airtable, row["id"])
    assert [(item["filename"], item["size"], item["type"]) for item in files] == [
        ("note.txt", 300, "text/plain"),
        ("two.txt", 3, "text/plain"),
    ]
    assert requests.get(files[1]["url"], timeout=5).content == b"two"
    assert [item["id"] for item in second.json()["fields"][field]] == [item["id"] for item in files]


def test_an_upload_is_at_most_five_megabytes(airtable: AirtableClient) -> None:
    row = airtable.table().create({"Key": "k"})["id"]

    fits = airtable.upload(row, "Files", body(bytes(5 * 1024 * 1024)))
    large = airtable.upload(row, "Files", body(bytes(5 * 1024 * 1024 + 1)))

    assert fits.ok
    assert refusal(large) == (413, "REQUEST_TOO_LARGE")
    assert len(files_of(airtable, row)) == 1


@pytest.mark.parametrize(
    ("field", "sent", "error"),
    [
        ("Nope", body(b"x"), (422, "UNKNOWN_FIELD_NAME")),
        ("Key", body(b"x"), (422, "INVALID_VALUE_FOR_COLUMN")),
        ("Files", body(b"x", more=1), (422, "INVALID_REQUEST_UNKNOWN")),
        ("Files", body(b"x", file="%%%"), (422, "INVALID_REQUEST_UNKNOWN")),
        ("Files", body(b"x", filename=""), (422, "INVALID_REQUEST_UNKNOWN")),
        ("Files", [], (422, "INVALID_REQUEST_UNKNOWN")),
    ],
)
def test_an_upload_of_another_form_is_refused(airtable: AirtableClient, field: str, sent, error) -> None:
    row = airtable.table().create({"Key": "k"})["id"]

    assert refusal(airtable.upload(row, field, sent)) == error
    assert refusal(airtable.upload("rec00000000000000", "Files", body(b"x"))) == (404, "MODEL_ID_NOT_FOUND")


def test_the_two_hosts_do_not_know_each_others_calls(airtable: AirtableClient) -> None:
    row = airtable.table().create({"Key": "k"})["id"]
    path = airtable.path(row, "Files", "uploadAttachment")
    elsewhere = f"{airtable.box.airtable_upload_url}/v0{airtable.path('Things')}"

    wrong = [airtable.post(path, body(b"x")), airtable.session.get(elsewhere, timeout=5)]
    airtable.box.control.set_answer("airtable.upload_host", "both")
    right = airtable.post(path, body(b"x"))

    assert [refusal(answer) for answer in wrong] == [(404, "NOT_FOUND")] * 2
    assert right.ok
    assert airtable.upload(row, "Files", body(b"y")).ok


def test_pyairtable_uploads_through_the_address_of_the_setting(airtable: AirtableClient) -> None:
    table = airtable.table()
    row = table.create({"Key": "k"})["id"]
    airtable.api.endpoint_url = type(airtable.api.endpoint_url)(airtable.box.airtable_upload_url)
    url = airtable.api.build_url(airtable.base_id, row, "Files", "uploadAttachment")

    answer = airtable.api.post(url, json=body(b"x"))

    assert answer["id"] == row
    assert len(files_of(airtable, row)) == 1
