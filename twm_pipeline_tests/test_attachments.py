"""Where files go: paths that people find and nothing from outside bends, stores that show whole files."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twm_pipeline.attachments import FolderStore, RemoteStore, Store, open_store, plan_path
from twm_pipeline.errors import ConfigError, RecordError, StoreUnavailableError
from twm_pipeline.settings import Settings, load_settings
from twm_pipeline_tests.storage import s3_away, s3_bucket

MORNING = datetime(2025, 3, 4, 9, 0, tzinfo=UTC)
CONTENT = os.urandom(100_000)

AWKWARD = st.sampled_from(
    [
        *(
            "..",
            "../../etc/passwd",
            "..\\..\\boot.ini",
            "/etc/passwd",
            "C:\\x",
            "\\\\host\\share",
            "~root",
            "-rf",
            ".",
        ),
        *(
            "CON",
            "nul.txt",
            "COM1",
            "lpt9.pdf",
            "a:b",
            "a\x00b",
            "a\nb",
            "\u202egpj.exe",
            "e\u0301",
            "\ud800",
            " x ",
        ),
        *(
            "%2e%2e%2f",
            "a/b",
            "\uff0e\uff0e\uff0f",
            "ß" * 200,
            "日本語" * 80,
            "x" * 5000,
            "",
            ".",
            ".htaccess",
            "🙂",
        ),
    ]
)
WORDS = st.one_of(st.none(), AWKWARD, st.text(), st.tuples(AWKWARD, st.text()).map("".join))
MOMENTS = st.one_of(st.none(), st.datetimes(timezones=st.just(UTC)))


def path_of(**given_: Any) -> str:
    values = {"key": "k", "conversation": "c", "at": MORNING, "subject": "Offer", "filename": "plan.pdf"}
    return plan_path(**{**values, **given_})


def test_a_person_finds_a_file_by_month_subject_and_name() -> None:
    path = path_of(subject="Re: Offer for the bridge (2nd)", filename="Übersicht v2 (final).PDF")

    month, folder, name = path.rsplit("/", 2)
    assert month == "2025/03"
    assert folder.startswith("Re-Offer-for-the-bridge-2nd_")
    assert name.startswith("2025-03-04_Übersicht-v2-final_")
    assert name.endswith(".pdf")


def test_the_files_of_a_conversation_lie_together() -> None:
    one, other = path_of(key="1"), path_of(key="2")

    assert PurePosixPath(one).parent == PurePosixPath(other).parent
    assert one != other


def test_the_vendors_extension_stands_in_for_a_missing_one() -> None:
    assert path_of(filename=None, extension="png").endswith(".png")
    assert path_of(filename="scan", extension="../x").rpartition("/")[2].count(".") == 0
    assert path_of(filename="photo.jpg", extension="png").endswith(".jpg")


@given(subject=WORDS, filename=WORDS, extension=WORDS, key=WORDS, at=MOMENTS)
def test_no_words_from_outside_bend_a_path(
    subject: str | None, filename: str | None, extension: str | None, key: str | None, at: datetime | None
) -> None:
    path = plan_path(
        key=key or "", conversation="c", at=at, subject=subject, filename=filename, extension=extension
    )

    parts = PurePosixPath(path).parts
    assert len(parts) == (4 if at else 3)
    assert PureWindowsPath(path).parts == parts
    assert not PureWindowsPath(path).anchor
    assert not any(PureWindowsPath(part).is_reserved() for part in parts)
    assert all(
        0 < len(part.encode()) <= 140 and part[0] not in ".-~ " and part[-1] not in ". " for part in parts
    )
    assert unicodedata.normalize("NFC", path) == path
    assert all(unicodedata.category(c)[0] in "LNM" or c in "/-_." for c in path)
    assert path.count(".") <= 1


@given(first=st.tuples(WORDS, WORDS), second=st.tuples(WORDS, WORDS))
def test_two_files_never_share_a_path_whatever_they_are_called(first: Any, second: Any) -> None:
    one = path_of(key="one", subject=first[0], filename=first[1])
    two = path_of(key="two", subject=second[0], filename=second[1])

    assert unicodedata.normalize("NFKD", one).casefold() != unicodedata.normalize("NFKD", two).casefold()


# Stores.


@pytest.fixture(params=["folder", "file address", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    places = {
        "folder": str(tmp_path / "files"),
        "file address": (tmp_path / "my files").as_uri(),
        "memory": "memory://files/here",
    }
    yield open_store(settings(tmp_path, places[request.param]))
    if request.param == "memory":
        import fsspec  # noqa: PLC0415

        fsspec.filesystem("memory").store.clear()


def settings(tmp_path: Path, place: str | None = None, **overrides: Any) -> Settings:
    return load_settings(
        twm_data_dir=tmp_path / ".twm", attachments_url=place, attachments_reserve_megabytes=0, **overrides
    )


def put(store: Store, path: str, content: bytes = CONTENT) -> None:
    with store.part(size=len(content)) as file:
        file.write(content)
        store.put(file, path)


def test_a_store_gives_back_what_it_took(store: Store) -> None:
    path = path_of()

    assert store.size(path) is None
    put(store, path, b"first")
    put(store, path)

    assert store.size(path) == len(CONTENT)
    assert store.read(path) == CONTENT
    store.probe()
    store.remove(path)
    assert store.size(path) is None


def test_a_file_that_is_given_up_leaves_nothing(store: Store) -> None:
    def give_up() -> None:
        with store.part() as file:
            file.write(CONTENT)
            raise KeyError

    with pytest.raises(KeyError):
        give_up()

    assert store.size(path_of()) is None
    assert list(store.parts.iterdir()) == []


def test_what_was_on_its_way_when_a_process_was_killed_is_swept(store: Store) -> None:
    store.parts.mkdir(parents=True)
    (store.parts / "half").write_bytes(CONTENT)

    assert store.sweep() == 1
    assert list(store.parts.iterdir()) == []


def test_the_default_store_is_a_folder_of_the_deployment(tmp_path: Path) -> None:
    store = open_store(settings(tmp_path))

    assert isinstance(store, FolderStore)
    assert store.place == str(tmp_path / ".twm" / "attachments")
    assert isinstance(open_store(settings(tmp_path, "s3://bucket/here")), RemoteStore)
    assert open_store(settings(tmp_path, "s3://bucket/here"), str(tmp_path)).place == str(tmp_path)


def test_a_full_disk_is_an_outage_and_its_reserve_stays(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free // 1_000_000
    full = open_store(settings(tmp_path).model_copy(update={"attachments_reserve_megabytes": 2 * free}))

    with pytest.raises(StoreUnavailableError, match="would be free"):
        put(full, path_of())


OUTAGES = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES)


@pytest.mark.parametrize("code", OUTAGES, ids=[errno.errorcode[code] for code in OUTAGES])
def test_what_concerns_all_files_is_an_outage(tmp_path: Path, monkeypatch, code: int) -> None:
    store = open_store(settings(tmp_path))

    def fail(*_: Any) -> None:
        raise OSError(code, "of the disk")

    monkeypatch.setattr(os, "fsync", fail)

    with pytest.raises(StoreUnavailableError):
        put(store, path_of())
    assert store.size(path_of()) is None


def test_what_concerns_one_path_is_no_outage(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="does not take the path"):
        put(open_store(settings(tmp_path)), "x" * 300)


def test_a_folder_that_cannot_be_made_is_an_outage(tmp_path: Path) -> None:
    (tmp_path / "files").write_text("a file")

    with pytest.raises(StoreUnavailableError):
        put(open_store(settings(tmp_path, str(tmp_path / "files" / "below"))), path_of())


def test_an_unknown_kind_of_store_is_a_setting_to_be_changed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ATTACHMENTS_URL"):
        open_store(settings(tmp_path, "nosuchthing://host/files")).probe()


# S3, spoken by a server of its own.


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with s3_bucket(monkeypatch) as place:
        yield place


def test_s3_takes_files_of_one_piece_and_of_many(bucket: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("twm_pipeline.attachments.S3_PIECE_BYTES", 5 << 20)
    store = open_store(settings(tmp_path, bucket))
    large = CONTENT * 150

    store.probe()
    put(store, path_of(subject="Größe: 3 m²"))
    put(store, path_of(key="large"), large)

    assert store.read(path_of(subject="Größe: 3 m²")) == CONTENT
    assert store.size(path_of(key="large")) == len(large)
    assert hashlib.sha256(store.read(path_of(key="large"))).digest() == hashlib.sha256(large).digest()
    assert list(store.parts.iterdir()) == []


def test_an_s3_that_does_not_answer_or_has_no_bucket_is_an_outage(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoreUnavailableError):
        put(open_store(settings(tmp_path, "s3://no-such-bucket/x")), path_of())

    with s3_away(monkeypatch), pytest.raises(StoreUnavailableError):
        put(open_store(settings(tmp_path, bucket)), path_of())
