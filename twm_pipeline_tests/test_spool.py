"""Accepted deliveries on disk (DESIGN D7): where an entry lies, and in which order it is handed out."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from twm_pipeline.errors import RecordError, SpoolError
from twm_pipeline.records import Hint
from twm_pipeline.settings import PROJECT_DIR
from twm_pipeline.spool import PLACES, Entry, Spool
from twm_pipeline.spool.entries import LONGEST_WAIT_SECONDS
from twm_pipeline.spool.maildir import LEFTOVER_SECONDS
from twm_pipeline_tests.factories import MORNING, make_envelope
from twm_pipeline_tests.spools import FIRST_WAIT, Clock, Trace, break_call, fail, files, put, take

NAME = "1741078800000000.0123456789abcdef.0"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def spool(tmp_path: Path, clock: Clock) -> Spool:
    return Spool(tmp_path / "spool", "teamwork", clock=clock)


def places(spool: Spool) -> dict[str, str]:
    """Return id → place."""
    return {item.id: item.place for item in spool.entries()}


def drop(spool: Spool, content: bytes, name: str = NAME, place: str = "new") -> Path:
    """Lay a file into the spool as a foreign program would."""
    put(spool)
    path = spool.folder / place / name
    path.write_bytes(content)
    return path


def head(**changes) -> bytes:
    values = {
        "format": 1,
        "received_at": "2025-03-04T09:00:00+00:00",
        "source": "teamwork",
        "event": "TASK.UPDATED",
        "stream": "tasks",
        "object_id": "1",
        "headers": {},
        "length": 2,
    }
    values = {name: value for name, value in (values | changes).items() if value is not ...}
    return json.dumps(values).encode() + b"\n"


# What goes in


def test_what_was_put_is_handed_out_as_it_came(spool):
    envelope = make_envelope(headers={"content-type": "application/json"}, body=b'{"a": 1}\n\n\x00\xff')

    [name] = spool.put([envelope])

    entry = take(spool)
    assert entry == Entry(name=name, attempts=0, envelope=envelope)


def test_a_text_that_is_no_unicode_does_not_cost_the_others_their_place(spool):
    hint = Hint(event="\udc80", stream="tasks", object_id="1")

    spool.put([make_envelope(), make_envelope(hint=hint)])

    assert [entry.envelope.hint.event for entry in spool.claim(limit=2)] == ["TASK.UPDATED", "\udc80"]


def test_the_example_of_the_specification_is_an_entry(spool):
    page = (PROJECT_DIR / "docs" / "spool.md").read_text()
    example = page.partition('```\n{"format"')[2].partition("\n```")[0]
    drop(spool, b'{"format"' + example.encode())

    envelope = take(spool).envelope

    assert (envelope.hint.object_id, envelope.body) == ("4711", b'{"task":{"id":4711}}')


def test_an_empty_batch_is_stored_as_such(spool):
    assert spool.put([]) == []


def test_files_and_folders_are_for_their_owner_only(spool):
    put(spool, b"secret")
    fail(spool, take(spool), most_attempts=1)

    folders = [spool.folder.parent, spool.folder, *spool.folder.iterdir()]
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}
    inside = [path for path in spool.folder.rglob("*") if path.is_file()]
    assert len(inside) == 2
    assert {stat.S_IMODE(path.stat().st_mode) for path in inside} == {0o600}


def test_a_name_holds_nothing_of_the_delivery(spool):
    hint = Hint(event="../../etc/passwd", stream="tasks", object_id="../x\n")

    [name] = spool.put([make_envelope(hint=hint, headers={"a/b": "../c"}, body=b"../d")])

    assert set(name) <= set("0123456789abcdef.")
    assert files(spool)["new"] == [name]


def test_the_names_of_a_batch_differ_although_its_deliveries_came_at_once(spool):
    names = spool.put([make_envelope() for _ in range(50)])

    assert len({name.split(".")[1] for name in names}) == 50
    assert names == sorted(names)


# What comes out


def test_a_claimed_entry_is_not_listed_again(spool):
    put(spool, b"one")
    take(spool)

    assert spool.claim(limit=1) == []
    assert (spool.waiting().new, spool.waiting().held) == (0, 1)


def test_entries_are_claimed_in_the_order_in_which_they_came(spool):
    put(spool, b"1", b"2")
    put(spool, b"3")

    assert [entry.envelope.body for entry in spool.claim(limit=2)] == [b"1", b"2"]
    assert [entry.envelope.body for entry in spool.claim(limit=2)] == [b"3"]


def test_the_order_holds_although_the_clock_was_set_back(spool):
    for hour in (5, 3, 4):
        spool.put([make_envelope(received_at=MORNING + timedelta(hours=hour), body=str(hour).encode())])

    assert [entry.envelope.body for entry in spool.claim(limit=9)] == [b"5", b"3", b"4"]


def test_no_more_entries_are_read_than_asked_for(spool, monkeypatch):
    put(spool, *[b"x"] * 20)
    trace = Trace(monkeypatch)

    entries = spool.claim(limit=3)

    assert len(entries) == 3
    assert [name for call, name in trace if call == "open"] == [entry.name for entry in entries]


def test_what_waits_is_known_without_opening_a_file(spool, clock, monkeypatch):
    put(spool, *[b"x"] * 6)
    for entry in spool.claim(limit=2):
        fail(spool, entry)
    fail(spool, take(spool), most_attempts=1)
    take(spool)
    trace = Trace(monkeypatch)

    waiting = spool.waiting()

    assert (waiting.new, waiting.due, waiting.later, waiting.held, waiting.dead) == (2, 0, 2, 1, 1)
    assert waiting.next_due == datetime.fromtimestamp(clock.now + FIRST_WAIT, UTC)
    assert waiting.count == 3
    assert trace == []


def test_a_spool_that_was_never_used_is_empty(spool):
    assert spool.waiting().count == 0
    assert spool.claim(limit=1) == []
    assert (spool.take_back(), spool.sweep(), spool.entries()) == (0, 0, [])


def test_a_done_entry_is_gone(spool):
    put(spool, b"one")

    spool.done(take(spool))

    assert not any(files(spool).values())


def test_a_released_entry_is_claimed_again_with_the_attempts_it_had(spool, clock):
    put(spool, b"one")
    fail(spool, take(spool))
    clock.now += FIRST_WAIT

    spool.release(take(spool))

    assert spool.waiting().new == 1
    assert take(spool).attempts == 1


def test_what_a_dead_process_held_is_taken_back(spool):
    names = put(spool, b"1", b"2", b"3")
    spool.claim(limit=2)

    assert spool.take_back() == 2
    assert files(spool)["new"] == names


# Attempts


def test_waits_double_until_the_entry_is_dead(spool, clock):
    put(spool, b"one")
    waits = []
    while True:
        if fail(spool, take(spool), most_attempts=4):
            break
        due = spool.waiting().next_due
        waits.append(due.timestamp() - clock.now)
        assert spool.claim(limit=1) == []
        clock.now += waits[-1]

    assert waits == pytest.approx([FIRST_WAIT, 2 * FIRST_WAIT, 4 * FIRST_WAIT])
    assert spool.waiting().dead == 1
    assert spool.claim(limit=1) == []


def test_no_wait_is_longer_than_a_day(spool, clock):
    put(spool, b"one")
    for _ in range(99):
        fail(spool, take(spool), most_attempts=100, first_wait_seconds=50_000)
        due = spool.waiting().next_due.timestamp()
        assert due <= clock.now + LONGEST_WAIT_SECONDS
        clock.now = due

    assert take(spool).attempts == 99


def test_a_wait_that_was_set_before_the_clock_went_back_is_over(spool, clock):
    put(spool, b"one")
    clock.now += 10 * LONGEST_WAIT_SECONDS
    fail(spool, take(spool))
    clock.now -= 10 * LONGEST_WAIT_SECONDS

    assert (spool.waiting().due, spool.waiting().next_due) == (1, None)
    assert take(spool).attempts == 1


def test_fresh_entries_go_before_retries(spool, clock):
    put(spool, b"old")
    fail(spool, take(spool))
    clock.now += FIRST_WAIT
    put(spool, b"1", b"2")

    assert [entry.envelope.body for entry in spool.claim(limit=2)] == [b"1", b"2"]
    assert spool.claim(limit=2, retries=False) == []
    assert [entry.envelope.body for entry in spool.claim(limit=2)] == [b"old"]


@pytest.mark.parametrize(("most_attempts", "place"), [(1, "dead"), (2, "retry")])
def test_the_reason_lies_beside_what_failed(spool, most_attempts, place):
    put(spool, b"one")

    dead = fail(spool, take(spool), most_attempts=most_attempts)

    [item] = spool.entries()
    assert (dead, item.place, item.attempts) == (place == "dead", place, 1)
    assert files(spool)[place] == [item.name, f"{item.name}.reason"]
    assert spool.reason(item.name) == "title: expected a text"
    note = json.loads((spool.folder / place / f"{item.name}.reason").read_bytes())
    assert note == {
        "reason": "title: expected a text",
        "attempts": 1,
        "died_at" if place == "dead" else "failed_at": MORNING.isoformat(),
    }


def test_the_reason_goes_when_the_entry_does(spool, clock):
    put(spool, b"one")
    fail(spool, take(spool))
    clock.now += FIRST_WAIT

    take(spool)

    assert files(spool)["retry"] == []


def test_a_full_disk_costs_the_reason_and_not_the_entry(spool, monkeypatch):
    put(spool, b"one")
    entry = take(spool)

    with monkeypatch.context() as patch:
        break_call(patch, "write", 1, errno.ENOSPC)
        fail(spool, entry, most_attempts=1)

    [item] = spool.entries("dead")
    assert spool.reason(item.name) is None


# What is broken or foreign

BROKEN = {
    "empty": b"",
    "no line": head()[:-1],
    "half a head": head()[:40] + b"\n{}",
    "no JSON": b"From: somebody\n\n",
    "no object": b"[1]\n",
    "deep JSON": b"[" * 100_000 + b"\n",
    "no UTF-8": b"\xff\xfe\n",
    "another format": head(format=2) + b"{}",
    "another source": head(source="missive") + b"{}",
    "no length": head(length=...) + b"{}",
    "length no number": head(length="2") + b"{}",
    "body too short": head() + b"{",
    "body too long": head() + b"{}\n",
    "negative length": head(length=-1),
    "no event": head(event=...) + b"{}",
    "event no text": head(event=None) + b"{}",
    "id no text": head(object_id=1) + b"{}",
    "stream no text": head(stream=["tasks"]) + b"{}",
    "headers no object": head(headers=[1]) + b"{}",
    "time no time": head(received_at="yesterday") + b"{}",
    "time no text": head(received_at=5) + b"{}",
    "zeros after a power cut": bytes(300),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_entry_is_dead_with_a_reason_and_the_others_go_on(spool, content):
    drop(spool, content)
    put(spool, b"sound")

    [entry] = spool.claim(limit=9)

    assert entry.envelope.body == b"sound"
    [dead] = spool.entries("dead")
    assert (dead.name, dead.attempts) == (NAME, 0)
    assert spool.reason(NAME)
    with pytest.raises(RecordError):
        spool.read(NAME)


def _make_folder(path: Path) -> None:
    path.mkdir()
    (path / "file").touch()


def _link_elsewhere(path: Path) -> None:
    path.symlink_to("/etc/hostname")


@pytest.mark.parametrize("make", [_make_folder, _link_elsewhere, os.mkfifo], ids=["folder", "link", "pipe"])
def test_what_is_no_plain_file_is_dead(spool, make):
    put(spool, b"sound")
    make(spool.folder / "new" / NAME)

    [entry] = spool.claim(limit=9)

    assert entry.envelope.body == b"sound"
    assert places(spool)["0123456789abcdef"] == "dead"


FOREIGN = (
    ".nfs0000000000000001",
    ".x.swp",
    "README",
    f"{NAME}~",
    f"{NAME}.bak",
    f"a{NAME}",
    "17.0123.0",
    f"{NAME}\n",
)


@pytest.mark.parametrize("place", ["tmp", *PLACES])
def test_foreign_files_are_left_alone(spool, clock, place):
    for name in FOREIGN:
        drop(spool, b"x", name, place)
    clock.now = datetime.now(UTC).timestamp() + 2 * LEFTOVER_SECONDS

    assert spool.waiting() == replace(spool.waiting(), new=0, due=0, later=0, held=0, dead=0)
    assert spool.claim(limit=9) == []
    assert (spool.take_back(), spool.sweep(), spool.entries()) == (0, 0, [])
    assert files(spool)[place] == sorted(FOREIGN)


def test_an_entry_that_cannot_be_moved_holds_up_no_other(spool, monkeypatch):
    put(spool, b"stuck", b"sound")
    break_call(monkeypatch, "rename", 1, errno.EPERM)

    assert [entry.envelope.body for entry in spool.claim(limit=9)] == [b"sound"]
    assert spool.waiting().new == 1


def test_it_is_said_when_nothing_can_be_moved(spool, monkeypatch):
    put(spool, b"stuck")
    break_call(monkeypatch, "rename", 1, errno.EROFS)

    with pytest.raises(SpoolError, match="cannot hand deliveries out: Read-only file system"):
        spool.claim(limit=9)


def test_an_entry_is_not_blamed_for_a_process_that_can_open_nothing(spool, monkeypatch):
    put(spool, b"one")
    with monkeypatch.context() as patch:
        break_call(patch, "open", 1, errno.EMFILE)
        with pytest.raises(SpoolError, match="Too many open files"):
            spool.claim(limit=1)

    assert spool.waiting().new == 1
    assert take(spool).attempts == 0


def test_a_disk_that_does_not_give_an_entry_is_the_reason(spool, monkeypatch):
    put(spool, b"one")
    break_call(monkeypatch, "open", 1, errno.EIO)

    assert spool.claim(limit=1) == []
    [dead] = spool.entries("dead")
    assert spool.reason(dead.name) == "the file cannot be read: Input/output error"


def test_a_folder_that_somebody_removed_is_made_again(spool):
    put(spool, b"one")
    for place in ("tmp", "cur", "retry", "dead"):
        (spool.folder / place).rmdir()

    entry = take(spool)

    assert not fail(spool, entry)
    shutil.rmtree(spool.folder)
    assert len(put(spool, b"two")) == 1


@pytest.mark.parametrize(
    "act",
    [
        lambda spool, entry: spool.done(entry),
        lambda spool, entry: spool.release(entry),
        fail,
        lambda spool, entry: fail(spool, entry, most_attempts=1),
    ],
    ids=["done", "release", "fail", "fail for good"],
)
def test_an_entry_that_another_process_finished_meanwhile_is_no_error(spool, act):
    put(spool, b"one")
    entry = take(spool)
    spool.discard(entry.name)

    act(spool, entry)

    assert spool.entries() == []


def test_a_late_failure_does_not_take_the_reason_of_the_dead_entry(spool):
    put(spool, b"one")
    entry = take(spool)
    spool.take_back()
    fail(spool, take(spool), most_attempts=1)

    fail(spool, entry, most_attempts=1)

    [item] = spool.entries()
    assert (item.place, spool.reason(item.name)) == ("dead", "title: expected a text")


# Leftovers


def test_old_leftovers_are_swept_and_young_ones_are_not(spool, clock):
    paths = [
        drop(spool, b"half", NAME, "tmp"),
        drop(spool, b"{}", f"{NAME}.reason", "dead"),
        drop(spool, b"{}", f"1741078800000.{NAME}.reason", "retry"),
    ]
    put(spool, b"one")
    fail(spool, take(spool), most_attempts=1)
    clock.now = datetime.now(UTC).timestamp()

    assert spool.sweep() == 0
    assert all(path.exists() for path in paths)

    clock.now += LEFTOVER_SECONDS + 60

    assert spool.sweep() == 3
    assert not any(path.exists() for path in paths)
    assert len(files(spool)["dead"]) == 2


# By hand


def test_entries_are_listed_oldest_first_with_what_their_names_say(spool, clock):
    first, second, third = put(spool, b"1", b"2", b"3")
    fail(spool, spool.claim(limit=1)[0])
    take(spool)

    listed = spool.entries()

    assert [item.place for item in listed] == ["retry", "cur", "new"]
    assert [item.id for item in listed] == [name.split(".")[1] for name in (first, second, third)]
    assert listed[0].received_at == MORNING
    assert listed[0].due == datetime.fromtimestamp(clock.now + FIRST_WAIT, UTC)
    assert spool.entries("new") == listed[2:]


def test_an_entry_is_read_wherever_it_lies(spool):
    put(spool, b"1", b"2", b"3")
    fail(spool, take(spool), most_attempts=1)
    fail(spool, take(spool))
    take(spool)

    bodies = [spool.read(item.name).body for item in spool.entries()]

    assert bodies == [b"1", b"2", b"3"]
    assert spool.read(NAME) is None


@pytest.mark.parametrize("most_attempts", [1, 9], ids=["dead", "waiting"])
def test_an_entry_is_tried_again_as_if_it_were_new(spool, most_attempts):
    put(spool, b"one")
    fail(spool, take(spool), most_attempts=most_attempts)
    [item] = spool.entries()

    assert spool.retry(item.name)

    assert spool.entries() == spool.entries("new")
    entry = take(spool)
    assert (entry.attempts, entry.envelope.body) == (0, b"one")
    assert not spool.retry(item.name)
    assert files(spool)["dead"] == files(spool)["retry"] == []


@pytest.mark.parametrize("place", PLACES)
def test_a_discarded_entry_is_gone_wherever_it_lay(spool, place):
    put(spool, b"one")
    if place != "new":
        entry = take(spool)
        if place != "cur":
            fail(spool, entry, most_attempts=1 if place == "dead" else 9)
    [item] = spool.entries()
    assert item.place == place

    assert spool.discard(item.name)

    assert not spool.discard(item.name)
    assert not any(files(spool).values())


@pytest.mark.parametrize("name", ["", "..", "../../x", "README", f"../new/{NAME}"])
def test_a_name_that_is_none_of_ours_finds_nothing(spool, name):
    drop(spool, b"x", "README")

    assert spool.read(name) is None
    assert spool.reason(name) is None
    assert not spool.retry(name)
    assert not spool.discard(name)
    assert files(spool)["new"] == ["README"]
