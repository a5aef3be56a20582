"""From a change at the vendor to its row in PostgreSQL, while a window is open."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import psycopg
from sqlalchemy import URL

from bench.deployment import settings_of, twm_up
from bench.report import Aim, Report
from bench.servers import sandbox, scratch_folder
from twm_pipeline.db import mirror_url
from twm_pipeline.records import SOURCES, Source
from twm_pipeline.sandbox import SandboxControl, SandboxOptions

EVENTS, PER_HOUR = 500, 9_000
REST_EVENTS, REST_SECONDS = 40, 2.0
"""What is special at 90 an hour is that all sleeps before each event, as it does after two seconds."""
MAIL_EVERY = 3
"""30 e-mails for every 60 changes of tasks."""
SETTLE_SECONDS = 60.0
MEDIAN_AIM, P99_AIM = 0.025, 0.250
COLUMNS = ("", "events", "p50 ms", "p99 ms", "vendor's p50", "from the change: p50", "p99")

TRIGGERS = """
    CREATE SCHEMA bench;
    CREATE TABLE bench.floor (id text NOT NULL);
    CREATE FUNCTION bench.tell() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM pg_notify('bench', TG_TABLE_NAME || ' ' || NEW.id); RETURN NULL; END $$;
    CREATE TRIGGER bench AFTER INSERT OR UPDATE ON teamwork.tasks FOR EACH ROW EXECUTE FUNCTION bench.tell();
    CREATE TRIGGER bench AFTER INSERT OR UPDATE ON missive.emails FOR EACH ROW EXECUTE FUNCTION bench.tell();
    CREATE TRIGGER bench AFTER INSERT ON bench.floor FOR EACH ROW EXECUTE FUNCTION bench.tell();
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Something that was done at the sandbox.

    Args:
        source: The vendor.
        object_id: What its delivery names.
        row: What the mirror's trigger will tell of.
    """

    source: Source
    object_id: int | str
    row: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Journey:
    """How long one change took until its row was committed, in seconds.

    Args:
        source: The vendor.
        from_change: Since it was made at the sandbox.
        from_sending: Since the sandbox began to send the delivery.
        from_answer: Since the receiver's 200 arrived at the sandbox.
        vendor: Of these, what the sandbox needed to answer the re-read.
    """

    source: Source
    from_change: float
    from_sending: float
    from_answer: float
    vendor: float

    @property
    def accepted(self) -> float:
        """Since the delivery was sent, which is a moment before it was accepted, less the vendor's time."""
        return self.from_sending - self.vendor


class Rows:
    """Hears of rows when they are durable: PostgreSQL tells other sessions of a commit, and only then."""

    def __init__(self, url: URL) -> None:
        self._heard: dict[str, float] = {}
        self._news = threading.Condition()
        self._connection = psycopg.connect(words(url), autocommit=True)
        self._connection.execute("LISTEN bench")
        self._closing = False
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while not self._closing:
            for notice in self._connection.notifies(timeout=0.5, stop_after=1):
                with self._news:
                    self._heard.setdefault(notice.payload, time.monotonic())
                    self._news.notify_all()

    def close(self) -> None:
        """End the session: a deployment goes down only when nobody uses its server."""
        self._closing = True
        self._thread.join()
        self._connection.close()

    def await_all(self, names: Sequence[str]) -> dict[str, float]:
        """Return when each of *names* was heard of first, in monotonic seconds.

        Raises:
            TimeoutError: If one of them does not come.
        """
        with self._news:
            if not self._news.wait_for(lambda: self._heard.keys() >= set(names), SETTLE_SECONDS):
                msg = f"{len(set(names) - self._heard.keys())} rows did not come"
                raise TimeoutError(msg)
            return {name: self._heard[name] for name in names}


@contextmanager
def rows_of(url: URL) -> Iterator[Rows]:
    """Give what hears of the rows of a mirror."""
    with psycopg.connect(words(url)) as connection:
        connection.execute(TRIGGERS)
    rows = Rows(url)
    try:
        yield rows
    finally:
        rows.close()
        with psycopg.connect(words(url)) as connection:
            connection.execute("DROP SCHEMA bench CASCADE")


def words(url: URL) -> str:
    """Return an address for psycopg itself."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


class Vendors:
    """Changes the sandbox's accounts, each object once."""

    def __init__(self, control: SandboxControl) -> None:
        self.control = control
        self.random = random.Random(7)  # noqa: S311 - no secret
        tasks = [row["id"] for row in control.truth("task") if row["visible"] and not row["deleted"]]
        threads = [row["id"] for row in control.truth("conversation") if row["visible"] and not row["guest"]]
        self._tasks, self._threads = iter(self._shuffled(tasks)), iter(self._shuffled(threads))

    def _shuffled(self, items: list[Any]) -> list[Any]:
        return self.random.sample(items, len(items))

    def edit_task(self, number: int) -> Change:
        """Rename a task."""
        task = next(self._tasks)
        self.control.edit_task(task, name=f"Measured {number}")
        return Change(source="teamwork", object_id=task, row=f"tasks {task}")

    def receive_mail(self) -> Change:
        """Let a message arrive in a thread."""
        ids = self.control.receive_mail(next(self._threads))
        return Change(source="missive", object_id=ids["conversation_id"], row=f"emails {ids['message_id']}")

    def change(self, number: int) -> Change:
        """Do one or the other."""
        return self.receive_mail() if number % MAIL_EVERY == 0 else self.edit_task(number)


def run(*, scale: float = 1.0) -> Report:
    """Return the latencies at both paces."""
    events, rest_events = max(int(EVENTS * scale), 6), max(int(REST_EVENTS * scale), 3)
    report = Report(
        name="latency",
        title="From a change to its row, in the windows of `twm up`",
        columns=COLUMNS,
        notes=[
            "p50, p99: from the sandbox's sending of the delivery to the moment at which another session of"
            " PostgreSQL hears of the commit, less the sandbox's time for the answers to the re-read.",
            f"At random times; a rest of {REST_SECONDS:.0f} s on average stands for the 40 s of 90 an hour.",
        ],
    )
    options = SandboxOptions(tasks=2 * (events + rest_events), conversations=events + rest_events)
    with sandbox(options) as box, scratch_folder() as folder:
        vendors = Vendors(SandboxControl(box["url"]))
        settings = settings_of(box, folder)
        with twm_up(settings, vendors.control), rows_of(mirror_url(settings)) as rows:
            fast = _send(vendors, rows, events, mean_seconds=3600 / PER_HOUR)
            rested = _send(vendors, rows, rest_events, mean_seconds=REST_SECONDS)
    _add(report, f"{PER_HOUR:,} an hour", fast)
    _add(report, f"after {REST_SECONDS:.0f} s of rest", rested)
    return report


def _send(vendors: Vendors, rows: Rows, count: int, *, mean_seconds: float) -> list[Journey]:
    """Make changes at random times, and return how long each took."""
    changes = []
    began = time.monotonic()
    due = began
    for number in range(count):
        due += vendors.random.expovariate(1 / mean_seconds)
        time.sleep(max(due - time.monotonic(), 0))
        changes.append(vendors.change(number))
    heard = rows.await_all([change.row for change in changes])
    vendors.control.wait_for_deliveries()
    return journeys(vendors.control, changes, heard)


def journeys(control: SandboxControl, changes: Sequence[Change], heard: Mapping[str, float]) -> list[Journey]:
    """Return the journeys of *changes*, by what the sandbox knows of its deliveries and its answers."""
    first: dict[tuple[str, int | str], dict[str, Any]] = {}
    for row in control.deliveries():
        first.setdefault((row["vendor"], row["object_id"]), row)
    requests = control.requests()
    found = []
    for change in changes:
        sent, at = first[change.source, change.object_id], heard[change.row]
        words = (str(change.object_id), change.row.split()[1])
        vendor = sum(
            row["seconds"]
            for row in requests
            if sent["sent_at"] <= row["at"] <= at
            and any(word in row["path"] + row["query"] for word in words)
        )
        found.append(
            Journey(
                source=change.source,
                from_change=at - sent["changed_at"],
                from_sending=at - sent["sent_at"],
                from_answer=at - sent["answered_at"],
                vendor=vendor,
            )
        )
    return found


def _add(report: Report, name: str, found: Sequence[Journey]) -> None:
    """Add lines about an open window, and hold the figures of all its events against the aims."""
    kinds: dict[str, Sequence[Journey]] = {name: found}
    kinds |= {f"    {source}": [item for item in found if item.source == source] for source in SOURCES}
    report.rows += [line(label, some) for label, some in kinds.items()]
    accepted = [item.accepted for item in found]
    for share, aim in ((0.5, MEDIAN_AIM), (0.99, P99_AIM)):
        value = quantile(accepted, share)
        report.aims.append(
            Aim(
                text=f"{name}: p{100 * share:.0f} at most {1000 * aim:.0f} ms",
                measured=f"{1000 * value:.1f} ms",
                met=value <= aim,
            )
        )
    report.figures[name] = [asdict(item) for item in found]


def line(name: str, found: Sequence[Journey]) -> tuple[str, ...]:
    """Return a line of the table."""
    accepted, changed = [item.accepted for item in found], [item.from_change for item in found]
    vendor = quantile([item.vendor for item in found], 0.5)
    cells = [quantile(accepted, 0.5), quantile(accepted, 0.99), vendor]
    cells += [quantile(changed, 0.5), quantile(changed, 0.99)]
    return (name, str(len(found)), *(f"{1000 * value:.1f}" for value in cells))


def quantile(values: Sequence[float], share: float) -> float:
    """Return what *share* of *values* do not exceed."""
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]
