from twm_pipeline.defs.ledger import Interval, Ledger
from twm_pipeline.sync.engine import PassReport


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def opened(*streams: str) -> tuple[Ledger, list[tuple[float, str, Interval]], Clock]:
    clock = Clock()
    logged: list[tuple[float, str, Interval]] = []
    ledger = Ledger(
        streams, log=lambda stream, interval: logged.append((clock.now, stream, interval)), clock=clock
    )
    return ledger, logged, clock


def report(*, requests: int = 0, closed: str | None = None, **written: int) -> PassReport:
    found = PassReport(source="teamwork", requests=requests, closed=closed)
    for stream, count in written.items():
        found.of(stream).written = count
    return found


def test_changes_are_logged_every_five_seconds_and_no_sooner():
    ledger, logged, clock = opened("tasks")

    for second in range(21):
        clock.now = float(second)
        ledger.note_report(report(tasks=1))

    assert [moment for moment, _, _ in logged] == [5.0, 10.0, 15.0, 20.0]
    assert sum(interval.written for _, _, interval in logged) == 21


def test_a_quiet_stream_is_logged_once_a_minute_as_verified():
    ledger, logged, clock = opened("tasks", "tags")

    for second in range(0, 301, 10):
        clock.now = float(second)
        ledger.note_report(report())

    assert [moment for moment, stream, _ in logged if stream == "tags"] == [60.0, 120.0, 180.0, 240.0, 300.0]


def test_a_stream_is_not_called_verified_by_a_pass_that_was_cut_short():
    ledger, logged, clock = opened("tasks")

    clock.now = 100.0
    ledger.note_report(report(closed="The window is over."))

    assert logged == []


def test_figures_of_a_growing_report_are_counted_once():
    ledger, logged, clock = opened("tasks")
    growing = report(requests=1, tasks=2)

    clock.now = 6.0
    ledger.note_commit(growing)
    growing.of("tasks").written, growing.requests = 5, 4
    ledger.note_commit(growing)
    ledger.note_report(growing)
    last = ledger.close()["tasks"]

    assert [interval.written for _, _, interval in logged] == [2]
    assert (last.written, last.requests) == (3, 3)


def test_changes_are_logged_at_once_when_a_run_is_cut_short():
    ledger, logged, _ = opened("tasks", "tags")
    ledger.note_commit(report(tasks=1))

    ledger.log_changes()

    assert [stream for _, stream, _ in logged] == ["tasks"]


def test_deliveries_applied_while_a_pass_goes_on_are_counted_once_beside_it():
    ledger, _, _ = opened("tasks")
    growing = report(requests=1, tasks=2)
    ledger.note_commit(growing)

    ledger.note_deliveries(report(requests=3, tasks=5))
    growing.of("tasks").written = 4
    growing.requests = 2
    ledger.note_report(growing)

    interval = ledger.close()["tasks"]
    assert (interval.written, interval.requests) == (9, 5)


def test_deliveries_alone_verify_nothing():
    ledger, logged, clock = opened("tasks", "tags")

    clock.now = 100.0
    ledger.note_deliveries(report(tasks=1))

    assert [stream for _, stream, _ in logged] == ["tasks"]


def test_a_stream_of_which_something_is_refused_is_logged_when_it_is_read_again():
    ledger, logged, clock = opened("tags")
    refused = report(tags=1)
    refused.stopped = {"tags"}

    clock.now = 100.0
    ledger.note_report(refused)
    ledger.log_changes()
    assert (logged, ledger.close()) == ([], {})
    ledger.note_report(report(tags=2))

    assert [(stream, interval.written) for _, stream, interval in logged] == [("tags", 3)]
