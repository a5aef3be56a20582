"""Files of messages reach the store once and whole, whatever happens, and none holds up the others."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from twm_pipeline.errors import StoreUnavailableError, UnansweredError, WindowClosedError
from twm_pipeline.settings import INHERITED, environment_of
from twm_pipeline.sync import attachment_look
from twm_pipeline.sync.attachment_look import AttachmentReport
from twm_pipeline.sync.attachments import AttachmentWindow, stored_copy
from twm_pipeline.sync.window_lock import window_lock
from twm_pipeline_tests.publishing import PATIENCE, PAUSE, PAUSE_SECONDS
from twm_pipeline_tests.storage import s3_away, s3_bucket
from twm_pipeline_tests.sync.accounts import Account

PDF = {"filename": "offer.pdf", "media_type": "application", "sub_type": "pdf", "size": 2000}
LOGO = {"filename": "logo.png", "media_type": "image", "sub_type": "png", "size": 900}
INVITE = {"filename": "invite.ics", "media_type": "text", "sub_type": "calendar", "size": 300}


@dataclass
class Filed:
    """An account whose files are downloaded."""

    account: Account

    def receive(self, *files: dict[str, Any], sync: bool = True, **options: Any) -> list[str]:
        """Receive an e-mail with files, and read it; return their ids."""
        made = self.account.control.receive_mail(attachments=list(files), **options)
        if sync:
            self.account.sync("missive")
        [mail] = [row for row in self.account.control.truth("message") if row["id"] == made["message_id"]]
        return [item["id"] for item in mail["attachments"]]

    def download(self, **options: Any) -> AttachmentReport:
        """Download what is due, once; return the figures."""
        reports: list[AttachmentReport] = []
        window = AttachmentWindow(
            engine=self.account.engine,
            settings=self.account.settings,
            on_report=lambda report, ended: reports.append(report) if ended else None,
            **options,
        )
        for _ in range(PATIENCE):  # a lock is free a moment after the connection that held it was closed
            if window.run():
                return reports[-1]
            PAUSE.wait(PAUSE_SECONDS)
        raise AssertionError("another process is downloading")

    def row(self, file_id: str) -> Any:
        [row] = self.account.query("SELECT * FROM missive.attachments WHERE attachment_id = :id", id=file_id)
        return row

    def due_again(self) -> None:
        """Let the waits of files that failed pass."""
        with self.account.engine.begin() as connection:
            connection.exec_driver_sql(
                "UPDATE twm.attachments SET next_try_at = now() WHERE next_try_at > now()"
            )

    @property
    def folder(self) -> Path:
        return Path(self.account.settings.attachments_store)

    def files(self) -> dict[str, bytes]:
        """Return everything below the store's folder, also what is on its way."""
        found = (path for path in self.folder.rglob("*") if path.is_file())
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in found}

    def downloads(self) -> int:
        return int(self.account.control.status()["files"]["downloads"])


@pytest.fixture
def filed(open_account: Any) -> Filed:
    account: Account = open_account(tasks=1, conversations=1)
    account.sync("missive")
    settings = account.change(attachments_reserve_megabytes=0)
    with account.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM twm.attachments")  # what the account began with
    return Filed(settings)


def content_of(filed: Filed, file_id: str) -> bytes:
    """Return what the vendor's storage holds, worked out anew."""
    size: int = next(
        item["size"]
        for row in filed.account.control.truth("message")
        for item in row["attachments"]
        if item["id"] == file_id
    )
    block = hashlib.sha256(file_id.encode()).digest()
    return (block * (size // len(block) + 1))[:size]


def test_a_file_is_stored_whole_where_a_person_finds_it_and_its_row_says_where(filed: Filed) -> None:
    [pdf] = filed.receive(PDF, subject="Offer for the bridge")
    requests = filed.account.requests("missive")

    report = filed.download()

    row = filed.row(pdf)
    assert (report.stored, report.bytes, report.requests) == (1, 2000, 0)
    assert row.state == "stored"
    assert "/Offer-for-the-bridge_" in row.path
    assert filed.files()[row.path] == content_of(filed, pdf)
    assert row.sha256 == hashlib.sha256(content_of(filed, pdf)).hexdigest()
    assert filed.account.requests("missive") == requests
    assert filed.account.control.status()["files"]["leaked_tokens"] == 0


def test_the_file_of_a_comment_is_stored_too(open_account: Any) -> None:
    account: Account = open_account(tasks=1, conversations=60)
    account.sync("missive")
    filed = Filed(account.change(attachments_reserve_megabytes=0))
    expected = account.scalar("SELECT count(*) FROM missive.comments WHERE attachment IS NOT NULL")

    filed.download()

    states = account.query(
        "SELECT state, count(*) FROM missive.attachments WHERE comment_id <> '' GROUP BY 1"
    )
    assert expected > 0
    assert [tuple(row) for row in states] == [("stored", expected)]


def test_a_second_time_nothing_is_fetched_and_nothing_is_written(filed: Filed) -> None:
    filed.receive(PDF, LOGO)
    filed.download()
    versions = filed.account.query("SELECT id, xmin::text FROM twm.attachments ORDER BY id")
    downloads = filed.downloads()

    report = filed.download()

    assert report == AttachmentReport()
    assert filed.downloads() == downloads
    assert filed.account.query("SELECT id, xmin::text FROM twm.attachments ORDER BY id") == versions


def test_expired_addresses_are_renewed_by_reading_their_messages_again(filed: Filed) -> None:
    filed.account.control.set_answer("missive.attachment_seconds", 5)
    for _ in range(12):
        filed.receive(PDF, sync=False)
    filed.account.sync("missive")
    filed.account.control.set_answer("missive.attachment_seconds", 3600)

    report = filed.download()

    assert (report.stored, report.requests) == (12, 2)


def test_an_address_that_the_storage_refuses_before_its_time_is_renewed_at_once(filed: Filed) -> None:
    [pdf] = filed.receive(PDF)
    filed.account.control.advance(7200)  # by the storage's clock it has expired, by ours it has not

    report = filed.download()

    assert (report.stored, report.failed, report.requests) == (1, 0, 1)
    assert filed.row(pdf).tries == 0


def test_the_address_of_a_comments_file_is_renewed_from_its_conversation(open_account: Any) -> None:
    account: Account = open_account(tasks=1, conversations=60)
    account.control.set_answer("missive.attachment_seconds", 5)
    account.sync("missive")
    account.control.set_answer("missive.attachment_seconds", 3600)
    filed = Filed(account.change(attachments_reserve_megabytes=0))

    filed.download()

    living = account.query("SELECT state, comment_id, reason FROM missive.attachments WHERE NOT deleted")
    assert {row.state for row in living} == {"stored"}, living
    assert any(row.comment_id for row in living)


def test_without_a_token_what_has_expired_waits_and_what_has_not_is_stored(filed: Filed) -> None:
    filed.account.control.set_answer("missive.attachment_seconds", 5)
    [old] = filed.receive(PDF)
    filed.account.control.set_answer("missive.attachment_seconds", 3600)
    [new] = filed.receive(PDF)
    filed.account.settings = filed.account.settings.model_copy(update={"missive_api_token": None})

    filed.download()

    assert (filed.row(new).state, filed.row(old).state, filed.row(old).tries) == ("stored", "pending", 0)


FAULTS = {
    "gone": "answers 404",
    "refused": "answers 403",
    "inside": "private network",
    "html": "instead of the",
    "cut": "instead of the",
    "empty": "instead of the",
    "short": "no complete answer",
    "error": "answers 500",
}


@pytest.mark.parametrize(("fault", "reason"), FAULTS.items(), ids=FAULTS)
def test_a_file_that_cannot_be_fetched_says_why_and_holds_up_no_other(
    filed: Filed, fault: str, reason: str
) -> None:
    ids = filed.receive(PDF, PDF, PDF, PDF, PDF, PDF)
    filed.account.control.set_file_fault(fault, ids[2])

    report = filed.download()

    assert (report.stored, report.failed) == (5, 1)
    row = filed.row(ids[2])
    assert (row.state, row.tries) == ("failed", 1)
    assert reason in row.reason
    assert len(filed.files()) == len([path for path in filed.files() if not path.startswith(".")])
    assert row.path not in filed.files()

    filed.account.control.set_file_fault(None, ids[2])
    filed.due_again()
    assert filed.download().stored == 1
    assert filed.files()[row.path] == content_of(filed, ids[2])


def test_a_file_that_moved_is_followed(filed: Filed) -> None:
    [pdf] = filed.receive(PDF)
    filed.account.control.set_file_fault("redirect", pdf)

    filed.download()

    assert filed.row(pdf).state == "stored"


def test_a_file_that_is_always_of_another_size_is_kept_in_the_end_and_said_to_be_odd(filed: Filed) -> None:
    [odd, empty] = filed.receive(PDF, PDF)
    filed.account.control.set_file_fault("cut", odd)
    filed.account.control.set_file_fault("empty", empty)

    for _ in range(1 + attachment_look.AGREEING_TRIES):
        filed.download()
        filed.due_again()

    assert (filed.row(odd).state, filed.row(odd).size) == ("stored", 1000)
    assert "1,000 bytes instead of the 2,000" in filed.row(odd).reason
    assert filed.row(empty).state == "failed"


def test_a_storage_that_answers_nothing_is_an_outage_which_counts_nothing(filed: Filed) -> None:
    ids = filed.receive(PDF, PDF, PDF, PDF, PDF)
    filed.account.control.set_file_fault("error")

    with pytest.raises(UnansweredError):
        filed.download()

    assert {filed.row(item).tries for item in ids} == {0}
    filed.account.control.set_file_fault(None)
    filed.due_again()
    assert filed.download().stored == 5


def test_files_that_look_like_an_outage_hold_up_the_others_for_one_look_only(filed: Filed) -> None:
    good = filed.receive(PDF)
    bad = filed.receive(*[PDF] * 6)
    for item in bad:
        filed.account.control.set_file_fault("error", item)

    for _ in range(3):
        try:
            filed.download()
        except UnansweredError:
            continue

    assert filed.row(good[0]).state == "stored"


def test_a_message_that_cannot_be_read_again_holds_up_no_other(filed: Filed) -> None:
    filed.account.control.set_answer("missive.attachment_seconds", 5)
    [lost], [ill], [good] = (filed.receive(PDF) for _ in range(3))
    filed.account.control.set_answer("missive.attachment_seconds", 3600)
    filed.account.control.delete_message(filed.row(lost).email_id)
    filed.account.control.add_fault("missive", "500", count=None, path=filed.row(ill).email_id)

    filed.download()

    states = [filed.row(item).state for item in (lost, ill, good)]
    assert states == ["failed", "failed", "stored"]


def test_rules_leave_files_out_and_other_rules_take_them_up_again(filed: Filed) -> None:
    whole = filed.account.settings
    filed.account.settings = whole.model_copy(
        update={
            "attachments_skip_types": ("text/calendar",),
            "attachments_skip_inline_kilobytes": 1,
            "attachments_max_megabytes": 1,
        }
    )
    made = filed.account.control.receive_mail(
        attachments=[PDF, LOGO, INVITE, {**PDF, "size": 1_000_001}], body="<p>Hello</p>"
    )
    filed.account.sync("missive")
    listed = filed.account.scalar(
        "SELECT attachments FROM missive.emails WHERE id = :id", id=made["message_id"]
    )
    pdf, logo, invite, large = (item["id"] for item in listed)
    with filed.account.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE missive.emails SET body_html = %s WHERE id = %s",
            (f'<img data-missive-attachment-id="{logo}">', made["message_id"]),
        )

    report = filed.download()

    assert (report.stored, report.skipped) == (1, 3)
    assert [filed.row(item).state for item in (pdf, logo, invite, large)] == ["stored", *["skipped"] * 3]
    assert "ATTACHMENTS_SKIP_TYPES" in filed.row(invite).reason
    filed.account.settings = whole
    assert filed.download().stored == 3


def test_a_look_does_not_end_at_files_that_are_left_out(
    filed: Filed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attachment_look, "ROWS_AT_ONCE", 2)
    [pdf] = filed.receive(PDF)
    filed.receive(*[INVITE] * 5)
    filed.account.settings = filed.account.settings.model_copy(update={"attachments_skip_types": ("text/*",)})

    report = filed.download()

    assert (report.stored, report.skipped) == (1, 5)
    assert filed.row(pdf).state == "stored"


def test_a_file_for_which_there_is_no_room_holds_up_no_smaller_one(filed: Filed) -> None:
    free = shutil.disk_usage(filed.account.settings.twm_data_dir.parent).free // 1_000_000
    filed.account.settings = filed.account.settings.model_copy(
        update={"attachments_max_megabytes": 1_000_000, "attachments_reserve_megabytes": free // 2}
    )
    [small] = filed.receive(PDF)
    [huge] = filed.receive(PDF)
    with filed.account.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE missive.emails SET attachments = jsonb_set(attachments, '{0,size}', %s)"
            " WHERE attachments -> 0 ->> 'id' = %s",
            (str(free * 1_000_000), huge),
        )

    with pytest.raises(StoreUnavailableError):
        filed.download()
    filed.download()

    assert (filed.row(small).state, filed.row(huge).tries) == ("stored", 0)


def test_a_file_that_turns_out_larger_than_allowed_is_left_out(filed: Filed) -> None:
    filed.account.settings = filed.account.settings.model_copy(update={"attachments_max_megabytes": 1})
    [large] = filed.receive({**PDF, "size": 1_500_000})
    with filed.account.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE missive.emails SET attachments = jsonb_set(attachments, '{0,size}', '5')"
            " WHERE attachments <> '[]'"
        )

    filed.download()

    assert filed.row(large).state == "skipped"
    assert filed.files() == {}


# Stores that fail.


def test_a_full_disk_is_an_outage_that_counts_nothing(filed: Filed) -> None:
    [pdf] = filed.receive(PDF)
    room = filed.account.settings
    filed.account.settings = room.model_copy(update={"attachments_reserve_megabytes": 1 << 40})

    with pytest.raises(StoreUnavailableError):
        filed.download()

    assert (filed.row(pdf).state, filed.row(pdf).tries, filed.files()) == ("pending", 0, {})
    filed.account.settings = room
    filed.due_again()
    assert filed.download().stored == 1


def test_an_s3_that_is_away_is_an_outage_and_what_waits_is_stored_when_it_is_back(
    filed: Filed, monkeypatch: pytest.MonkeyPatch
) -> None:
    [pdf] = filed.receive(PDF)
    with s3_bucket(monkeypatch) as place:
        filed.account.settings = filed.account.settings.model_copy(update={"attachments_url": place})
        with s3_away(monkeypatch), pytest.raises(StoreUnavailableError):
            filed.download()
        assert filed.row(pdf).tries == 0
        filed.due_again()

        assert filed.download().stored == 1
        row = filed.row(pdf)
        copy = stored_copy(
            filed.account.engine,
            filed.account.settings,
            email_id=row.email_id,
            attachment_id=pdf,
            most_bytes=5_000_000,
        )

    assert row.store == place
    assert copy == content_of(filed, pdf)


def test_a_stored_copy_is_given_back_whole_or_not_at_all(filed: Filed) -> None:
    [pdf] = filed.receive(PDF)

    def copy(most_bytes: int = 2000) -> bytes | None:
        return stored_copy(
            filed.account.engine,
            filed.account.settings,
            email_id=filed.row(pdf).email_id,
            attachment_id=pdf,
            most_bytes=most_bytes,
        )

    assert copy() is None
    filed.download()
    assert copy() == content_of(filed, pdf)
    assert copy(1999) is None
    (filed.folder / filed.row(pdf).path).write_bytes(b"shorter")
    assert copy() is None
    shutil.rmtree(filed.folder)
    filed.folder.write_text("no folder")
    assert copy() is None


# Windows.


def test_one_window_at_a_time(filed: Filed) -> None:
    window = AttachmentWindow(engine=filed.account.engine, settings=filed.account.settings)

    with window_lock(filed.account.engine, "attachments"):
        assert not window.run()


def test_an_open_window_stores_a_file_as_its_message_comes(filed: Filed) -> None:
    stored = threading.Event()

    def on_report(report: AttachmentReport, _ended: bool) -> None:
        if report.stored:
            stored.set()

    def stop() -> None:
        if stored.is_set():
            raise WindowClosedError

    window = AttachmentWindow(
        engine=filed.account.engine,
        settings=filed.account.settings,
        seconds=60,
        on_report=on_report,
        should_stop=stop,
    )

    def run() -> None:
        with pytest.raises(WindowClosedError):
            window.run()

    thread = threading.Thread(target=run)
    thread.start()
    [pdf] = filed.receive(PDF)
    thread.join(60)

    assert stored.is_set()
    assert filed.row(pdf).state == "stored"


def test_a_window_that_is_over_begins_no_file(filed: Filed) -> None:
    [pdf] = filed.receive(PDF)

    filed.download(seconds=1e-9)

    assert filed.row(pdf).state == "pending"


KILLED = """
import os, signal, sys
from twm_pipeline.db import connect_database
from twm_pipeline.settings import load_settings
from twm_pipeline.sync.attachments import AttachmentWindow
import twm_pipeline.attachments as store
import twm_pipeline.sync.attachment_look as look

def kill(*_args, **_options):
    os.kill(os.getpid(), signal.SIGKILL)

moment = sys.argv[1]
if moment == "before the rename":
    store.FolderStore._put = kill
elif moment == "after the rename":
    store._sync_folder = kill
elif moment == "before the row says so":
    look.note_stored = kill
else:
    look.Look._check_ending = kill
settings = load_settings()
AttachmentWindow(engine=connect_database(settings), settings=settings).run()
"""


@pytest.mark.parametrize(
    "moment", ["while it arrives", "before the rename", "after the rename", "before the row says so"]
)
def test_a_process_that_is_killed_leaves_no_half_file_and_the_next_one_finishes(
    filed: Filed, moment: str
) -> None:
    ids = filed.receive(PDF, {**PDF, "size": 700_000})
    environment = {**os.environ, INHERITED: environment_of(filed.account.settings)[INHERITED]}

    done = subprocess.run(
        [sys.executable, "-c", KILLED, moment], env=environment, timeout=60, check=False, capture_output=True
    )

    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]
    visible = {path: held for path, held in filed.files().items() if not path.startswith(".parts/")}
    whole = {filed.row(item).path: content_of(filed, item) for item in ids}
    assert all(whole[path] == held for path, held in visible.items())

    filed.download()

    assert filed.files() == whole
    assert {filed.row(item).state for item in ids} == {"stored"}
