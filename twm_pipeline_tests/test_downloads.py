"""Files from signed addresses: only complete ones, only from where they may come, and bearing no secret."""

from __future__ import annotations

import base64
import gzip
import hashlib
import socket
import tracemalloc
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from twm_pipeline import downloads
from twm_pipeline.downloads import Downloads, Fetched, is_public, redirected
from twm_pipeline.errors import FileTooLargeError, LinkRefusedError, UnansweredError, UnsafeAddressError
from twm_pipeline.settings import load_settings
from twm_pipeline_tests.storage import Storage, file, status, storage

CONTENT = b"Offer No. 17\n" * 1000
HERE = Downloads(("127.0.0.1",))


@pytest.fixture
def host() -> Iterator[Storage]:
    with storage() as host:
        yield host


def fetch(url: str, *, by: Downloads = HERE, most_bytes: int = 1 << 30) -> tuple[bytes, Fetched]:
    content = bytearray()
    fetched = by.fetch(url, content.extend, most_bytes=most_bytes)
    return bytes(content), fetched


def named(monkeypatch: pytest.MonkeyPatch, **names: str) -> None:
    """Have names resolve to addresses of the test's choice."""
    real = socket.getaddrinfo

    def resolve(host: str, *args: Any, **options: Any) -> Any:
        return real(names.get(host.replace(".", "_"), host), *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


def test_a_file_arrives_whole_with_its_size_and_checksum(host: Storage) -> None:
    host.answers["/a"] = file(
        CONTENT, Content_MD5=base64.b64encode(hashlib.md5(CONTENT, usedforsecurity=False).digest()).decode()
    )

    content, fetched = fetch(host.url("/a?Signature=x"))

    assert content == CONTENT
    assert fetched == Fetched(len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


def test_an_empty_file_is_a_file(host: Storage) -> None:
    host.answers["/a"] = file(b"")

    assert fetch(host.url("/a"))[1].size == 0


def test_what_a_storage_keeps_compressed_arrives_as_it_was(host: Storage) -> None:
    host.answers["/a"] = file(gzip.compress(CONTENT), Content_Encoding="gzip")

    assert fetch(host.url("/a"))[0] == CONTENT


def test_no_credentials_go_to_the_storage(host: Storage, monkeypatch, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine files.example.com login me password s3cret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("NO_PROXY", "*")
    named(monkeypatch, files_example_com="127.0.0.1")
    host.answers["/a"] = status(302, Location="/b", Set_Cookie="session=1")
    host.answers["/b"] = file(CONTENT)

    fetch(f"http://files.example.com:{host.port}/a")

    assert [path for path, _ in host.asked] == ["/a", "/b"]
    assert not {"Authorization", "Cookie", "Referer"} & {name for _, sent in host.asked for name in sent}


UNFINISHED = {
    "the length is larger than the body": file(CONTENT, Content_Length=str(2 * len(CONTENT))),
    "nothing comes": file(b"", Content_Length="100"),
    "the storage is ill": status(503),
    "the storage is busy": status(429),
    "the checksum is another": file(CONTENT, Content_MD5=base64.b64encode(b"0" * 16).decode()),
    "the checksum of S3 is another": file(
        CONTENT, **{"x-amz-checksum-sha256": base64.b64encode(b"0" * 32).decode()}
    ),
    "the compression is broken": file(b"no gzip", Content_Encoding="gzip"),
    "nobody understands the answer": lambda request: request.wfile.write(b"220 ftp ready\r\n"),
}


@pytest.mark.parametrize("answer", UNFINISHED.values(), ids=UNFINISHED)
def test_what_is_not_complete_is_no_file_and_may_be_one_later(host: Storage, answer: Any) -> None:
    host.answers["/a"] = answer

    with pytest.raises(UnansweredError):
        fetch(host.url("/a?Signature=s3cret"))


def test_a_digest_of_parts_says_nothing(host: Storage) -> None:
    host.answers["/a"] = file(CONTENT, **{"x-amz-checksum-sha256": "q1w2e3==-3", "Content-MD5": "none"})

    assert fetch(host.url("/a"))[0] == CONTENT


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410])
def test_an_address_that_has_expired_is_told_apart_from_an_outage(host: Storage, code: int) -> None:
    host.answers["/a"] = status(code)

    with pytest.raises(LinkRefusedError, match=f"answers {code}"):
        fetch(host.url("/a"))


def test_a_file_that_is_too_large_is_left_at_once(host: Storage) -> None:
    host.answers["/a"] = file(CONTENT)
    host.answers["/b"] = file(CONTENT, Content_Length="none")
    content = bytearray()

    with pytest.raises(FileTooLargeError):
        HERE.fetch(host.url("/a"), content.extend, most_bytes=len(CONTENT) - 1)
    assert not content
    assert HERE.read(host.url("/b"), most_bytes=len(CONTENT) - 1) is None
    assert HERE.read(host.url("/b"), most_bytes=len(CONTENT)) == CONTENT


def test_a_trickle_is_given_up(host: Storage, monkeypatch) -> None:
    monkeypatch.setattr(downloads, "PATIENCE_SECONDS", -1.0)
    monkeypatch.setattr(downloads, "LEAST_BYTES_PER_SECOND", 1 << 40)
    host.answers["/a"] = file(CONTENT)

    with pytest.raises(UnansweredError, match="too slowly"):
        fetch(host.url("/a"))


def test_a_large_file_passes_through_little_memory(host: Storage) -> None:
    piece, pieces = b"\x00" * (1 << 20), 100

    def large(request: Any) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(pieces << 20))
        request.end_headers()
        for _ in range(pieces):
            request.wfile.write(piece)

    host.answers["/a"] = large

    tracemalloc.start()
    fetched = HERE.fetch(host.url("/a"), lambda _: None, most_bytes=1 << 40)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert fetched.size == pieces << 20
    assert peak < 8 << 20


# Where a file may come from.

PRIVATE = (
    *("127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
    *("0.0.0.0", "255.255.255.255", "224.0.0.1", "198.18.0.1", "192.0.2.1", "240.0.0.1"),  # noqa: S104 - an address of the test
    *("::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:7f00:1::", "2002:a00:1::"),
)


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_of_no_open_network_is_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "52.95.110.1", "2600:1f18::1", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_an_address_of_the_open_network_is_public(address: str) -> None:
    assert is_public(ip_address(address))


FORMS = {
    "decimal": "http://2130706434:{port}/b",
    "hexadecimal": "http://0x7f000002:{port}/b",
    "short": "http://127.2:{port}/b",
    "octal": "http://0177.0.0.2:{port}/b",
    "mapped": "http://[::ffff:127.0.0.2]:{port}/b",
    "with a user": "http://files.example.com@127.0.0.2:{port}/b",
    "a name": "http://inside.example.com:{port}/b",
    "a file": "file:///etc/passwd",
    "another protocol": "ftp://127.0.0.1:{port}/b",
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("how", ["at once", "by a redirect"])
def test_nothing_is_asked_inside_a_private_network(host: Storage, monkeypatch, form: str, how: str) -> None:
    named(monkeypatch, inside_example_com="127.0.0.2")
    target = form.format(port=host.port)
    host.answers["/a"] = status(302, Location=target)
    host.answers["/b"] = file(CONTENT)

    with pytest.raises(UnsafeAddressError):
        fetch(target if how == "at once" else host.url("/a"))

    assert [path for path, _ in host.asked if path == "/b"] == []


def test_a_name_that_changes_its_address_after_it_was_looked_at_is_not_asked(
    host: Storage, monkeypatch
) -> None:
    host.answers["/b"] = file(CONTENT)
    answers = iter(["8.8.8.8"])
    real = socket.getaddrinfo

    def resolve(host: str, *args: Any, **options: Any) -> Any:
        return real(next(answers, "127.0.0.1") if host == "rebind.example.com" else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)

    with pytest.raises(UnsafeAddressError):
        fetch(f"http://rebind.example.com:{host.port}/b", by=Downloads())

    assert host.asked == []


def test_one_private_address_of_several_is_one_too_many(monkeypatch) -> None:
    def resolve(_host: str, *_: Any, **__: Any) -> Any:
        return [(2, 1, 6, "", (address, 0)) for address in ("8.8.8.8", "10.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)

    with pytest.raises(UnsafeAddressError):
        fetch("http://both.example.com/b", by=Downloads())


def test_redirects_have_an_end(host: Storage) -> None:
    host.answers["/a"] = status(307, Location="/a")

    with pytest.raises(LinkRefusedError, match="on and on"):
        fetch(host.url("/a"))
    assert len(host.asked) == 1 + downloads.MOST_REDIRECTS


def test_a_redirect_does_not_lead_out_of_encryption() -> None:
    assert redirected("https://a.example.com/x", "/y") == "https://a.example.com/y"
    with pytest.raises(UnsafeAddressError):
        redirected("https://a.example.com/x", "http://a.example.com/y")


def test_files_may_come_from_where_the_api_is_and_from_hosts_that_are_named(
    host: Storage, monkeypatch
) -> None:
    named(monkeypatch, store_example_com="127.0.0.1", api_example_com="10.1.2.3")
    host.answers["/a"] = file(CONTENT)
    url = f"http://store.example.com:{host.port}/a"

    elsewhere = (load_settings(), load_settings(missive_base_url="http://api.example.com/v1"))
    allowed = (
        load_settings(missive_base_url="http://localhost:9/v1"),
        load_settings(attachments_private_hosts="store.example.com"),
    )

    for settings in elsewhere:
        with pytest.raises(UnsafeAddressError):
            fetch(url, by=Downloads.of(settings))
    for settings in allowed:
        assert fetch(url, by=Downloads.of(settings))[0] == CONTENT
