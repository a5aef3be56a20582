"""Every benchmark runs at a tiny size and says what it should; the figures themselves are not judged here."""

import os
from pathlib import Path

import orjson
import pytest
from rich.console import Console

from bench import dlt_peer, idle, imports, latency, receiver, requests_count, starts, upsert
from bench import publish as publishing
from bench.content import Content
from bench.report import Report, publish
from bench.servers import append_body, bytes_server, measured
from twm_pipeline.mirror.tables import EMAILS
from twm_pipeline_tests.conftest import FAST_AND_FORGETFUL

TINY = 0.001

needs_patience = pytest.mark.skipif(
    "TWM_WHOLE_DATA" not in os.environ, reason="takes a minute; TWM_WHOLE_DATA=1 runs it"
)


@pytest.fixture(autouse=True)
def _quick_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.servers.OPTIONS", FAST_AND_FORGETFUL)


def aims_of(report: Report) -> dict[str, bool | None]:
    return {aim.text: aim.met for aim in report.aims}


def test_upserting_the_same_rows_again_rewrites_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dlt_peer, "is_installed", lambda: False)

    report = upsert.run(scale=TINY, rounds=1)

    unchanged = [met for text, met in aims_of(report).items() if "rewritten" in text]
    assert unchanged == [True, True]
    assert report.figures["emails"]["rows"] == 2 * upsert.CHANGED_EVERY


@needs_patience
def test_an_import_is_measured_in_a_process_of_its_own() -> None:
    report = imports.run(scale=TINY, rounds=1, times=2)

    assert report.figures["teamwork"]["records"] > 0
    assert report.figures["missive"]["requests"] > 0
    assert report.figures["missive"]["imports"][0]["peak_bytes"] > 1 << 20
    assert report.figures["missive_larger"]["records"] > report.figures["missive"]["records"]


def test_a_quiet_pass_stays_within_its_requests_and_writes_nothing() -> None:
    report = requests_count.run(scale=TINY)

    quiet = {text: met for text, met in aims_of(report).items() if "quiet" in text}
    assert quiet
    assert all(quiet.values())


def test_every_delivery_of_a_burst_is_there() -> None:
    report = receiver.run(scale=TINY, rounds=1)

    assert report.figures["burst"]["there"] == 100
    assert report.figures["statuses"] == [{"200": 50}]
    assert aims_of(report)["of the burst, all is acknowledged and there"]


@needs_patience
def test_changes_are_followed_to_their_rows() -> None:
    report = latency.run(scale=TINY)

    fast, rested = report.figures.values()
    assert (len(fast), len(rested)) == (6, 3)
    assert {journey["source"] for journey in fast} == {"teamwork", "missive"}
    assert all(0 < item["vendor"] < item["from_sending"] <= item["from_change"] for item in fast + rested)


@needs_patience
def test_a_start_is_held_against_a_bare_dagster() -> None:
    report = starts.run(scale=TINY)

    [ours], [floor] = report.figures.values()
    assert ours["journey"]["from_change"] > ours["seconds"] > ours["queued"] > 0
    assert floor["seconds"] > floor["queued"] > 0


@needs_patience
def test_an_idle_deployment_is_measured_whole() -> None:
    report = idle.run(scale=TINY)

    assert {row[0] for row in report.rows} >= {*idle.ROLES.values(), "all"}
    assert 0 < report.figures["pss_bytes"] <= report.figures["rss_bytes"]
    assert report.figures["cpu_share"] > 0


def test_only_what_changed_is_published() -> None:
    report = publishing.run(scale=TINY, pace=20)

    assert report.figures["first"]["calls"] == 15
    counts = [met for text, met in aims_of(report).items() if "call" in text and "bare" not in text]
    assert counts == [True] * 3
    assert report.figures["latency"]["p50"] > 0


def test_a_report_is_printed_and_written(tmp_path: Path) -> None:
    console = Console(width=100, record=True)
    report = Report(name="example", title="Example", columns=("", "rows"), rows=[("one", "1")])

    path = publish(report, console=console, folder=tmp_path)

    assert orjson.loads(path.read_bytes())["rows"] == [["one", "1"]]
    assert "Example" in console.export_text()


def test_stored_bodies_are_served_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "bodies"
    with path.open("wb") as file:
        append_body(file, b'{"a": 1}')
        append_body(file, b"[]")

    with bytes_server(path) as url:
        total, usage = measured(imports.fetch_all, url, 2)

    assert total == 10
    assert usage.cpu_seconds > 0


def test_content_is_the_same_for_the_same_seed() -> None:
    assert [Content(1).message(number) for number in range(3)] == [Content(1).message(n) for n in range(3)]


def test_rows_for_the_peer_hold_no_bytes() -> None:
    record = upsert.messages(1).parse(orjson.dumps(Content().message(1)))

    hints = dlt_peer.column_hints(EMAILS.columns, [record])

    assert hints["content_hash"]["data_type"] == "text"
    assert hints["to_addresses"]["data_type"] == "json"
    assert hints["id"]["nullable"] is False
