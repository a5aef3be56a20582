"""What the receiver counts, for whoever shows it."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

from twm_pipeline.webhooks.tally import Tally, read_tally, tally_file
from twm_pipeline_tests.webhooks.deliveries import task_delivery
from twm_pipeline_tests.webhooks.running import receiver_settings, receiver_thread


def test_accepted_and_refused_requests_are_counted_by_their_reasons(tmp_path):
    settings = receiver_settings(tmp_path)
    with receiver_thread(settings) as receiver:
        for number in (1, 2):
            receiver.send(task_delivery(number))
        receiver.send(replace(task_delivery(3), body=b"{}"))
        with receiver.connect() as connection:
            connection.ask(b"nonsense\r\n\r\n")

    counted = read_tally(settings)

    assert counted is not None
    assert counted["accepted"] == {"teamwork": 2}
    assert {(item["status"], item["count"]) for item in counted["refused"]} == {(401, 1), (400, 1)}


def test_a_restart_begins_at_zero(tmp_path):
    settings = receiver_settings(tmp_path)
    for _ in range(2):
        with receiver_thread(settings) as receiver:
            receiver.send(task_delivery(1))

    assert (read_tally(settings) or {})["accepted"] == {"teamwork": 1}


def test_a_disk_that_takes_nothing_disturbs_nobody(tmp_path):
    place = tmp_path / "data"
    place.write_text("no folder")
    tally = Tally(place / "receiver.json")
    tally.start()
    tally.accept("teamwork")
    tally.stop()

    assert tally.figures()["accepted"] == {"teamwork": 1}
    assert "tally" not in [thread.name for thread in threading.enumerate()]


def test_before_the_first_start_and_behind_a_torn_file_nothing_is_known(tmp_path):
    settings = receiver_settings(tmp_path)

    assert read_tally(settings) is None
    tally_file(settings).parent.mkdir()
    tally_file(settings).write_text(json.dumps({"accepted": {}})[:-3])
    assert read_tally(settings) is None
