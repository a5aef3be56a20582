"""Rows per second into the mirror: new, unchanged, 1 % changed; beside a bare COPY and beside dlt."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import orjson
from sqlalchemy import Engine, text

from bench import dlt_peer
from bench.content import Content, iso
from bench.report import Aim, Report, median, ratio
from bench.servers import mirror, scratch_folder, server
from twm_pipeline.mirror.tables import EMAILS, TASKS, Table
from twm_pipeline.mirror.upserts import Counts, Observed
from twm_pipeline.records import Record
from twm_pipeline.settings import load_settings
from twm_pipeline.sources.fields import read_iso
from twm_pipeline.sources.missive_rows import parse_message
from twm_pipeline.sources.teamwork_rows import parse_task
from twm_pipeline.sync.engine import open_pass
from twm_pipeline.sync.teamwork import HISTORY_ROWS_PER_COMMIT

T = TypeVar("T")
Parse = Callable[[bytes], Record]

ROWS = 100_000
ROUNDS = 3
ROWS_PER_COMMIT = {"tasks": HISTORY_ROWS_PER_COMMIT, "emails": 250}
"""What an import commits at once: some pages of tasks' history, about the messages of ten conversations."""
CHANGED_EVERY = 100
WARM_UP = 500
NOW = datetime(2030, 1, 1, tzinfo=UTC)
PHASES = ("new", "unchanged", "1 % changed")
NEW_AIM, UNCHANGED_AIM = 2.0, 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One stream with its rows as the vendor sends them, and how they are read."""

    table: Table
    bodies: list[bytes]
    parse: Parse
    change: Callable[[dict[str, Any]], None]


@dataclass(slots=True)
class Seconds:
    """Seconds per phase, one figure a round."""

    of: dict[str, list[float]] = field(default_factory=dict)

    def add(self, phase: str, work: Callable[[], T]) -> T:
        """Run *work*, remember how long it took, and return its result."""
        began = time.perf_counter()
        result = work()
        self.of.setdefault(phase, []).append(time.perf_counter() - began)
        return result

    def rate(self, phase: str, rows: int) -> float:
        """Return the median rate of *phase* in rows per second."""
        return rows / median(self.of[phase])


def run(*, scale: float = 1.0, rounds: int = ROUNDS) -> Report:
    """Return the figures of both streams."""
    rows = max(int(ROWS * scale), 2 * CHANGED_EVERY)
    report = Report(
        name="upsert",
        title=f"Upsert: {rows:,} rows, rows per second (medians; in brackets seconds)",
        columns=("", *PHASES, "product of this, new and unchanged"),
        notes=[
            "product: an import's own path; rows a commit: "
            + ", ".join(f"{stream} {rows}" for stream, rows in ROWS_PER_COMMIT.items()),
            f"Medians of {rounds} rounds, all in turns.",
            "COPY: the same rows in one transaction into a table of the same columns without any index.",
        ],
    )
    with server() as embedded, mirror(embedded, "upsert") as engine, scratch_folder() as folder:
        for case in (tasks(rows), messages(rows)):
            _measure(case, engine, folder, report, rounds=rounds)
    return report


def tasks(count: int) -> Case:
    """Return *count* tasks."""
    content = Content()

    def change(row: dict[str, Any]) -> None:
        moment = read_iso(row, "updatedAt") or NOW
        row |= {"progress": 99, "updatedAt": iso(moment + timedelta(hours=1))}

    return Case(
        table=TASKS,
        bodies=[orjson.dumps(content.task(number)) for number in range(count)],
        parse=lambda body: parse_task(orjson.loads(body), date=NOW),
        change=change,
    )


def messages(count: int) -> Case:
    """Return *count* messages."""
    content = Content()

    def change(row: dict[str, Any]) -> None:
        row |= {"subject": "Changed " + row["subject"], "updated_at": row["updated_at"] + 60}

    return Case(
        table=EMAILS,
        bodies=[orjson.dumps(content.message(number)) for number in range(count)],
        parse=lambda body: parse_message(orjson.loads(body), conversation_id=None, date=NOW),
        change=change,
    )


def _measure(case: Case, engine: Engine, folder: Path, report: Report, *, rounds: int) -> None:
    """Time every way of writing the rows, in turns, and add lines to *report*."""
    timings = {name: Seconds() for name in ("parse", "product", "COPY", "dlt rows", "dlt arrow")}
    records = timings["parse"].add("new", lambda: [case.parse(body) for body in case.bodies])
    batches = {"new": records, "unchanged": records, "1 % changed": _with_changes(case, records)}
    store(engine, case.table, records[:WARM_UP])
    rewritten = 0
    for _ in range(rounds):
        copy_bare(engine, case.table, records, timings["COPY"])
        rewritten += _run_product(engine, case.table, batches, timings["product"])
        if dlt_peer.is_installed():
            _run_dlt(engine, case.table, folder, batches, timings)
    _add_lines(case, report, timings, len(records), rewritten)


def _with_changes(case: Case, records: Sequence[Record]) -> list[Record]:
    changed = list(records)
    for place in range(0, len(changed), CHANGED_EVERY):
        row = orjson.loads(case.bodies[place])
        case.change(row)
        changed[place] = case.parse(orjson.dumps(row))
    return changed


def _run_product(engine: Engine, table: Table, batches: dict[str, list[Record]], seconds: Seconds) -> int:
    """Time the three phases on an empty table; return how many unchanged rows were rewritten."""
    with engine.begin() as connection:
        connection.execute(text(f"TRUNCATE {table.name}"))
    rewritten = 0
    for phase, records in batches.items():
        before = row_versions(engine, table)
        counts = seconds.add(phase, partial(store, engine, table, records))
        expected = {"new": len(records), "unchanged": 0}.get(phase, -(-len(records) // CHANGED_EVERY))
        if counts.written != expected:
            msg = f"{table.name}, {phase}: {counts.written} rows written instead of {expected}"
            raise AssertionError(msg)
        if phase == "unchanged":
            rewritten = len(before ^ row_versions(engine, table))
        vacuum(engine, table)
    return rewritten


def store(engine: Engine, table: Table, records: Sequence[Record]) -> Counts:
    """Store *records* the way a pass does, a batch a commit."""
    settings = load_settings(
        teamwork_base_url="http://127.0.0.1:9",
        teamwork_api_key="bench",
        missive_api_token="bench",  # noqa: S106 - no secret: nothing is asked
    )
    total = Counts()
    with engine.connect() as connection:
        seq = int(connection.execute(text("SELECT nextval('twm.observed_seq')")).scalar_one())
    with open_pass(engine, settings, table.source) as work:
        for batch in batched(records, ROWS_PER_COMMIT[table.stream]):
            observed = [Observed(record=record, seq=seq) for record in batch]
            with work.commit() as connection:
                total.add(work.store(connection, table, observed))
    return total


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of *size* items."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def row_versions(engine: Engine, table: Table) -> set[tuple[Any, ...]]:
    """Return which transaction wrote each row and where it lies: any rewrite changes both."""
    query = f"SELECT id, xmin::text, ctid::text FROM {table.name}"  # noqa: S608 - a name from tables.py
    with engine.connect() as connection:
        return {tuple(row) for row in connection.execute(text(query))}


def vacuum(engine: Engine, table: Table) -> None:
    """Leave no work of the last phase to the next."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"VACUUM ANALYZE {table.name}"))
        connection.execute(text("CHECKPOINT"))


def copy_bare(engine: Engine, table: Table, records: Sequence[Record], seconds: Seconds) -> None:
    """Time one COPY of the rows into a table of the same columns."""
    columns = ", ".join(f'"{name}"' for name in table.columns)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS public.bare"))
        connection.execute(
            text(f"CREATE TABLE public.bare AS SELECT {columns} FROM {table.name} WITH NO DATA")  # noqa: S608 - names from tables.py
        )
    seconds.add("new", lambda: _copy(engine, table, columns, records))
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE public.bare"))


def _copy(engine: Engine, table: Table, columns: str, records: Sequence[Record]) -> None:
    with engine.begin() as connection:
        driver: Any = connection.connection.driver_connection
        with driver.cursor() as cursor, cursor.copy(f"COPY public.bare ({columns}) FROM STDIN") as copy:
            for record in records:
                copy.write_row([getattr(record, name) for name in table.columns])


def _run_dlt(
    engine: Engine, table: Table, folder: Path, batches: dict[str, list[Record]], timings: dict[str, Seconds]
) -> None:
    for arrow in (False, True) if dlt_peer.has_arrow() else (False,):
        seconds = timings["dlt arrow" if arrow else "dlt rows"]
        with dlt_peer.DltPeer(engine.url, table, folder, arrow=arrow) as peer:
            peer.prepare(batches["new"])
            peer.run(peer.prepare(batches["new"][:1]))
            for phase, records in batches.items():
                rows = peer.prepare(records)
                seconds.add(phase, partial(peer.run, rows))


def _add_lines(case: Case, report: Report, timings: dict[str, Seconds], rows: int, rewritten: int) -> None:
    stream = case.table.stream
    product = {phase: timings["product"].rate(phase, rows) for phase in PHASES}
    parse = timings["parse"].of["new"][0]
    parsed = {phase: rows / (rows / rate + parse) for phase, rate in product.items()}
    report.rows.append((f"{stream}: product", *_cells(product, rows), ""))
    report.rows.append((f"{stream}: product, with parsing", *_cells(parsed, rows), ""))
    for name in ("COPY", "dlt rows", "dlt arrow"):
        peer = {phase: timings[name].rate(phase, rows) for phase in PHASES if phase in timings[name].of}
        if peer:
            ratios = [ratio(product[phase], peer[phase]) for phase in ("new", "unchanged") if phase in peer]
            report.rows.append((f"{stream}: {name}", *_cells(peer, rows), ", ".join(ratios)))
        if name == "dlt rows" or (peer and name != "COPY"):
            report.aims += _aims(f"{stream}: product", name, product, peer)
    report.aims.append(
        Aim(
            text=f"{stream}: no unchanged row rewritten (xmin and place of every row)",
            measured=str(rewritten),
            met=rewritten == 0,
        )
    )
    report.figures[stream] = {
        "rows": rows,
        "mean_body_bytes": sum(map(len, case.bodies)) / rows,
        "seconds": {name: seconds.of for name, seconds in timings.items()},
        "rewritten_unchanged_rows": rewritten,
    }


def _cells(rates: dict[str, float], rows: int) -> list[str]:
    return [f"{rates[phase]:,.0f} ({rows / rates[phase]:.1f})" if phase in rates else "" for phase in PHASES]


def _aims(who: str, name: str, product: dict[str, float], peer: dict[str, float]) -> list[Aim]:
    return [
        Aim(
            text=f"{who}, {phase}, at least {least:.0f} x {name}",
            measured=ratio(product[phase], peer[phase]) if peer else "",
            met=product[phase] >= least * peer[phase] if peer else None,
        )
        for phase, least in (("new", NEW_AIM), ("unchanged", UNCHANGED_AIM))
    ]
