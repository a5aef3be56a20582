"""Files of e-mails reach their records: by address, by upload, once, and again when they did not arrive."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from twm_pipeline.errors import QuotaExhaustedError, UnansweredError
from twm_pipeline.mirror.published_files import count_waiting_files
from twm_pipeline.sync.attachments import AttachmentWindow
from twm_pipeline.sync.publish import PublishReport
from twm_pipeline.sync.publish_check import How
from twm_pipeline.sync.publishing import PublishWindow
from twm_pipeline.sync.window import prepare
from twm_pipeline.sync.window_lock import holds_window
from twm_pipeline_tests.publishing import airtable_settings
from twm_pipeline_tests.sync.accounts import Account

SMALL = {"filename": "offer.pdf", "media_type": "application", "sub_type": "pdf", "size": 2000}
LARGE = {"filename": "film.mp4", "media_type": "video", "sub_type": "mp4", "size": 6 << 20}


@pytest.fixture
def base(open_account: Any) -> Account:
    account: Account = open_account(tasks=5, conversations=3)
    ready = account.change(**airtable_settings(account.box.describe()))
    prepare(ready.engine, ready.settings)
    ready.sync("missive")
    publish(ready)
    return ready


def publish(account: Account, **options: Any) -> dict[Any, PublishReport]:
    """Publish once, and wait until Airtable has fetched what it was given."""
    reports: list[dict[Any, PublishReport]] = []
    window = PublishWindow(
        engine=account.engine, settings=account.settings, on_report=reports.append, **options
    )
    assert window.run()
    account.control.do("airtable_wait_for_attachments")
    return reports[-1]


def receive(account: Account, *attachments: dict[str, Any]) -> str:
    """Receive an e-mail and read it; return its id."""
    made = account.control.receive_mail(attachments=list(attachments))
    account.sync("missive")
    return str(made["message_id"])


def files(account: Account, message_id: str) -> list[dict[str, Any]]:
    """Return what the record of an e-mail holds."""
    for row in account.control.truth("airtable_record"):
        if row["cells"].get("Email ID") == message_id:
            return list(row["cells"].get("Attachments") or [])
    raise AssertionError("no record")


def record_of(account: Account, message_id: str) -> str:
    """Return the record of an e-mail."""
    [found] = [
        row["id"]
        for row in account.control.truth("airtable_record")
        if row["cells"].get("Email ID") == message_id
    ]
    return str(found)


def until_released(account: Account) -> None:
    """Wait until PostgreSQL has noticed that a window that failed has left its connection."""
    with account.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while holds_window(connection, "airtable"):
            connection.exec_driver_sql("SELECT pg_sleep(0.01)")


def waiting(account: Account) -> int:
    with account.engine.connect() as connection:
        return count_waiting_files(connection, str(account.settings.airtable_base_id))


def tried_again(account: Account) -> None:
    """Let the time pass in which Airtable fetches."""
    with account.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE twm.published SET attachments_sent_at = now() - interval '1 hour'"
            " WHERE attachments_sent_at IS NOT NULL"
        )


def test_files_with_a_long_life_are_given_by_their_address(base: Account) -> None:
    message_id = receive(base, SMALL, LARGE)

    publish(base)

    assert [file["filename"] for file in files(base, message_id)] == ["offer.pdf", "film.mp4"]
    assert not any("uploadAttachment" in entry["path"] for entry in base.control.requests("airtable"))


def test_files_are_sent_once(base: Account) -> None:
    receive(base, SMALL)
    publish(base)
    tried_again(base)
    publish(base)
    calls = base.requests("airtable")

    publish(base)

    assert base.requests("airtable") == calls
    assert waiting(base) == 0


def test_a_changed_cell_sends_no_file_again(base: Account) -> None:
    made = base.control.receive_mail(attachments=[SMALL])
    base.sync("missive")
    publish(base)
    label_id = base.control.create_label("Urgent")
    base.control.label(made["conversation_id"], label_id)
    base.sync("missive", ids=(made["conversation_id"],))

    report = publish(base)

    assert report["emails"].updated == 1
    assert report["emails"].files == 0
    assert len(files(base, made["message_id"])) == 1


def test_files_whose_address_dies_soon_are_fetched_and_uploaded(base: Account) -> None:
    base.control.set_answer("missive.attachment_seconds", 60)
    slow = base.change(budget_time_scale=1.0)
    message_id = receive(base, SMALL)

    publish(slow)

    [file] = files(base, message_id)
    assert (file["filename"], file["size"]) == ("offer.pdf", 2000)
    assert any("uploadAttachment" in entry["path"] for entry in base.control.requests("airtable"))


def test_what_airtable_failed_to_fetch_is_noticed_and_uploaded(base: Account) -> None:
    base.control.do("airtable_fail_attachments", count=1)
    message_id = receive(base, SMALL)
    publish(base)
    tried_again(base)

    publish(base)

    assert [file["size"] for file in files(base, message_id)] == [2000]
    assert waiting(base) == 0
    query = "SELECT max(attachments_tries), count(attachments_due_at) FROM twm.published"
    assert tuple(base.query(query)[0]) == (0, 0)


def test_a_file_whose_upload_is_never_answered_does_not_hold_up_the_others(base: Account) -> None:
    base.control.set_answer("missive.attachment_seconds", 0)
    other, newest = receive(base, SMALL), receive(base, SMALL)
    with base.engine.begin() as connection:
        connection.execute(  # the newest is sent first
            text("UPDATE missive.emails SET delivered_at = now() - interval '1 day' WHERE id = :id"),
            {"id": other},
        )
    publish(base)
    base.control.set_answer("missive.attachment_seconds", 60)
    never = f"{record_of(base, newest)}/.*/uploadAttachment"
    base.control.add_fault("airtable", "500", path=never, count=None)

    for _ in range(2):
        with pytest.raises(UnansweredError):
            publish(base, seconds=1)
        until_released(base)

    assert len(files(base, other)) == 1


@pytest.mark.parametrize("how", ["sample", "whole"])
def test_files_that_somebody_took_out_of_a_record_come_back(base: Account, how: How) -> None:
    emptied, kept = receive(base, SMALL, SMALL), receive(base, SMALL)
    publish(base)
    tried_again(base)
    publish(base)
    before = files(base, kept)
    base.control.airtable_edit("Emails", record_of(base, emptied), {"Attachments": None})

    publish(base, check=how)

    assert len(files(base, emptied)) == 2
    assert files(base, kept) == before


def test_files_whose_address_has_died_wait_and_cost_no_call(base: Account) -> None:
    base.control.set_answer("missive.attachment_seconds", 0)
    receive(base, SMALL)
    publish(base)
    calls = base.requests("airtable"), base.requests("missive")

    publish(base)

    assert waiting(base) == 1
    assert (base.requests("airtable"), base.requests("missive")) == calls


def test_a_window_asks_the_vendor_for_fresh_addresses(base: Account) -> None:
    base.control.set_answer("missive.attachment_seconds", 0)
    message_id = receive(base, SMALL)
    publish(base)
    base.control.set_answer("missive.attachment_seconds", 3600)

    PublishWindow(engine=base.engine, settings=base.settings, seconds=1).run()
    base.control.do("airtable_wait_for_attachments")

    assert len(files(base, message_id)) == 1
    assert waiting(base) == 0


def test_fresh_addresses_are_believed_where_our_clock_is_ahead_of_the_vendors(base: Account) -> None:
    base.box.world.clock.offset = -2 * 3600
    message_id = receive(base, SMALL)

    PublishWindow(engine=base.engine, settings=base.settings, seconds=1).run()

    assert [file["size"] for file in files(base, message_id)] == [2000]
    assert waiting(base) == 0


def test_a_field_of_files_that_is_deleted_is_made_again_and_filled(base: Account) -> None:
    old = receive(base, SMALL)
    publish(base)
    base.control.do("airtable_delete_field", table="Emails", field="Attachments")
    new = receive(base, SMALL)

    reports = publish(base)

    assert reports["emails"].updated == 0
    assert [len(files(base, item)) for item in (old, new)] == [1, 1]
    assert waiting(base) == 0


def test_a_record_that_is_gone_before_its_files_arrived_comes_back_with_them(base: Account) -> None:
    message_id = receive(base, SMALL)
    publish(base)
    base.control.do("airtable_delete", table="Emails", record_ids=[record_of(base, message_id)])
    tried_again(base)

    publish(base)
    publish(base)

    assert len(files(base, message_id)) == 1


def test_files_that_fail_again_and_again_are_tried_ever_later(base: Account) -> None:
    receive(base, SMALL)
    base.control.do("airtable_fail_attachments", count=9)
    with base.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE missive.emails SET raw = jsonb_set(raw, '{attachments,0,url}', '\"http://127.0.0.1:1/\"')"
            " WHERE attachments <> '[]'"
        )

    for _ in range(4):
        publish(base)
        tried_again(base)

    query = (
        "SELECT max(attachments_tries), max(attachments_due_at) > now() + interval '4 min' FROM twm.published"
    )
    assert tuple(base.query(query)[0]) == (2, True)
    assert waiting(base) > 0


def test_a_wiped_base_gets_its_files_from_the_store_and_asks_no_vendor(base: Account) -> None:
    message_id = receive(base, SMALL)
    publish(base)
    assert AttachmentWindow(engine=base.engine, settings=base.settings).run()
    with base.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE missive.emails SET raw = jsonb_set(raw, '{attachments,0,url}', '\"http://x.test/?Expires=1\"')"
            " WHERE attachments <> '[]'"
        )
    base.control.do("airtable_wipe", tables=False)
    asked = base.requests("missive"), base.requests("teamwork")

    assert PublishWindow(engine=base.engine, settings=base.settings, check="sample").run()

    assert [file["size"] for file in files(base, message_id)] == [2000]
    assert (base.requests("missive"), base.requests("teamwork")) == asked


def test_an_outage_of_the_vendor_holds_up_files_and_no_row(base: Account) -> None:
    base.control.set_answer("missive.attachment_seconds", 0)
    receive(base, SMALL)
    publish(base)
    base.control.add_fault("missive", "503", count=None, retry_after="none")

    assert PublishWindow(engine=base.engine, settings=base.settings, seconds=0.5).run()

    assert waiting(base) == 1
    assert base.scalar("SELECT max(attachments_tries) FROM twm.published") == 0


def test_files_do_not_exceed_the_months_calls(base: Account) -> None:
    receive(base, SMALL)
    used = base.scalar("SELECT calls FROM twm.monthly_calls")
    calls = base.requests("airtable")

    with pytest.raises(QuotaExhaustedError, match="AIRTABLE_MONTHLY_CALLS"):
        publish(base.change(airtable_monthly_calls=used + 1))

    assert base.requests("airtable") == calls + 1
    assert waiting(base) == 1
