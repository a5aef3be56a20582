"""What reaches the disk before a delivery is acknowledged, and what is left where the disk fails (G1)."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from twm_pipeline.errors import SpoolError, SpoolFullError
from twm_pipeline.spool import Spool
from twm_pipeline.spool.files import FILES_AT_ONCE
from twm_pipeline_tests.spools import Trace, break_call, files, put, take


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", "teamwork")


def test_a_batch_is_on_the_disk_before_put_returns(spool, monkeypatch):
    put(spool)
    trace = Trace(monkeypatch)

    names = put(spool, b"one", b"two", b"three")

    [folder_synced] = trace.at("fsync", "new")
    for name in names:
        [written], [synced], [renamed] = (trace.at(call, name) for call in ("write", "fsync", "rename"))
        assert written < synced < renamed < folder_synced
    assert all(call == "close" for call, _ in trace[folder_synced + 1 :])


def test_new_folders_are_on_the_disk_too(tmp_path, monkeypatch):
    trace = Trace(monkeypatch)

    put(Spool(tmp_path / "data" / "spool", "teamwork"), b"one")

    for parent, child in (
        (tmp_path.name, "data"),
        ("data", "spool"),
        ("spool", "teamwork"),
        ("teamwork", "new"),
    ):
        [made], synced = trace.at("mkdir", child), trace.at("fsync", parent)
        assert made < max(synced) < trace.at("fsync", "new")[0]


def test_folders_that_another_process_made_are_synced_once(spool, monkeypatch):
    put(spool, b"one")
    trace = Trace(monkeypatch)
    other = Spool(spool.folder.parent, "teamwork")

    put(other, b"two")
    put(other, b"three")

    assert [len(trace.at("fsync", name)) for name in ("teamwork", "spool", "new")] == [1, 1, 2]


FULL, BROKEN_DISK = (errno.ENOSPC, errno.EDQUOT), (errno.EIO, errno.EROFS)
CALLS_OF_THREE = {"open": 4, "write": 3, "fsync": 4, "rename": 3}
"""How often `put` calls each for three deliveries: the folder is opened and synced as well."""


@pytest.mark.parametrize("code", [*FULL, *BROKEN_DISK], ids=errno.errorcode.get)
@pytest.mark.parametrize(
    ("call", "number"), [(call, n) for call, count in CALLS_OF_THREE.items() for n in range(1, count + 1)]
)
def test_of_a_batch_that_the_disk_does_not_take_nothing_is_left(spool, monkeypatch, call, number, code):
    [before] = put(spool, b"before")

    with monkeypatch.context() as patch:
        break_call(patch, call, number, code)
        with pytest.raises(SpoolError, match=os.strerror(code)) as caught:
            put(spool, b"one", b"two", b"three")

    assert isinstance(caught.value, SpoolFullError) is (code in FULL)
    assert (files(spool)["tmp"], files(spool)["new"]) == ([], [before])
    put(spool, b"after")
    assert [entry.envelope.body for entry in spool.claim(limit=9)] == [b"before", b"after"]


def test_a_short_write_is_completed(spool, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, content: write(file, content[:7]))

    put(spool, b"a body that is longer than seven bytes")

    assert take(spool).envelope.body == b"a body that is longer than seven bytes"


def test_below_the_reserve_nothing_is_taken(tmp_path):
    spool = Spool(tmp_path, "teamwork", reserve_bytes=1 << 60)

    with pytest.raises(SpoolFullError, match="no room but its reserve"):
        put(spool, b"one")

    assert spool.waiting().count == 0
    assert 0 < spool.free_bytes < 1 << 60


@pytest.mark.parametrize(
    ("total", "free", "is_full"),
    [(1000, 0, True), (1000, 2, True), (1000, 9, False), (0, 0, False)],
    ids=["none", "too few", "enough", "not counted"],
)
def test_files_are_counted_where_the_file_system_counts_them(tmp_path, monkeypatch, total, free, is_full):
    spool = Spool(tmp_path, "teamwork", reserve_bytes=3 * 16_384)
    real = os.statvfs(tmp_path)
    room = os.statvfs_result((*real[:5], total, free, free, *real[8:]))
    monkeypatch.setattr(os, "statvfs", lambda _: room)

    if is_full:
        with pytest.raises(SpoolFullError):
            put(spool, b"one")
    else:
        assert len(put(spool, b"one")) == 1


def test_a_batch_of_any_size_opens_few_files_at_once(spool, monkeypatch):
    put(spool)
    trace = Trace(monkeypatch)

    names = put(spool, *[b"x"] * (2 * FILES_AT_ONCE + 3))

    is_open, most = 0, 0
    for call, _ in trace:
        is_open += (call == "open") - (call == "close")
        most = max(most, is_open)
    assert files(spool)["new"] == names
    assert most == FILES_AT_ONCE
