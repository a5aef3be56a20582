"""What the receiver asks of the kernel, and when: no 200 before the delivery survives a power cut (G1)."""

from __future__ import annotations

import itertools
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from twm_pipeline.spool import Spool
from twm_pipeline_tests.faults.tracing import CALLS, SECONDS, SENDING, Ledger, calls_of, traced_receiver
from twm_pipeline_tests.webhooks.deliveries import task_delivery
from twm_pipeline_tests.webhooks.running import Receiver, receiver_process, receiver_settings, request_bytes

pytestmark = pytest.mark.system

CONNECTIONS = 8
DELIVERIES_EACH = 25
FIRST_ID = 900_000
AT_ONCE = 3
ANSWER = "answer"
KILLS = {
    "mkdir": 7,
    "openat": 18,
    "write": 12,
    "fadvise64": 4,
    "fsync": 18,
    "close": 18,
    "rename": 5,
    ANSWER: 8,
}
"""How many calls of each kind are died at: those of the first round, which makes the folders, and more."""
VICTIMS = {
    "write": {"entry"},
    "fadvise64": {"entry"},
    "fsync": {"entry", "folder"},
    "close": {"entry", "folder"},
    ANSWER: {"socket"},
}
"""What the calls have to be about, as far as a descriptor tells, or the receiver works otherwise now."""


def send_all(
    receiver: Receiver, *, each: int = DELIVERIES_EACH, first_id: int = FIRST_ID
) -> dict[str, bytes]:
    """Send deliveries on several connections at once; return what was answered 200, by task."""
    ids = itertools.count(first_id)
    acknowledged: dict[str, bytes] = {}

    def send() -> None:
        try:
            with receiver.connect() as connection:
                for _ in range(each):
                    task_id = next(ids)
                    delivery = task_delivery(task_id)
                    if connection.ask(request_bytes(delivery)).status == 200:
                        acknowledged[str(task_id)] = delivery.body
        except (EOFError, ConnectionError, IndexError):
            return  # the receiver is dead

    threads = [threading.Thread(target=send) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return acknowledged


def test_every_200_is_sent_after_its_entry_survives_a_power_cut(tmp_path):
    trace = tmp_path / "trace"

    with traced_receiver(tmp_path, trace, "-e", f"trace={CALLS}") as (receiver, _):
        acknowledged = send_all(receiver)

    ledger = Ledger().follow(trace)
    assert sorted(ledger.answered) == sorted(acknowledged)
    assert len(acknowledged) == CONNECTIONS * DELIVERIES_EACH
    assert ledger.early == []
    assert max(ledger.rounds) > 1


@dataclass(frozen=True)
class Death:
    """A killed receiver: what it had acknowledged, the spool it left, and what the call was about."""

    acknowledged: dict[str, bytes]
    spool: Spool
    victims: set[str]


def die_at(call: str, number: int, folder: Path) -> Death:
    """Kill a receiver as a thread of it begins its *number*-th *call*, with deliveries under way."""
    folder.mkdir()
    trace = folder / "trace"
    calls = ",".join(SENDING) if call == ANSWER else call
    options = ["-e", f"trace={calls}", "-e", f"inject={calls}:signal=SIGKILL:when={number}"]
    with traced_receiver(folder, trace, *options, only_loop=call == ANSWER) as (receiver, process):
        acknowledged = send_all(receiver)
        assert process.wait(SECONDS) == -signal.SIGKILL, f"there was no {call} number {number}"
    victims = {kind_of(item.target) for item in calls_of(trace) if item.result == "?"}
    return Death(acknowledged, Spool(receiver.settings.spool_folder, "teamwork"), victims)


def kind_of(target: str) -> str:
    if target.startswith("socket:"):
        return "socket"
    return "entry" if "/spool/teamwork/tmp/" in target else "folder"


@pytest.mark.parametrize("call", KILLS)
def test_a_death_at_any_call_loses_no_acknowledged_entry_and_shows_no_half_of_one(tmp_path, call):
    numbers = range(1, KILLS[call] + 1)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        deaths = list(pool.map(lambda number: die_at(call, number, tmp_path / str(number)), numbers))

    for death in deaths:
        entries = death.spool.claim(limit=10_000)
        bodies = {str(entry.envelope.hint.object_id): entry.envelope.body for entry in entries}
        assert death.acknowledged.items() <= bodies.items()
        assert all(task_delivery(int(task)).body == body for task, body in bodies.items())
        assert death.spool.waiting().dead == 0
        assert len(bodies) == len(entries)
    assert VICTIMS.get(call, set()) <= {victim for death in deaths for victim in death.victims}


def test_a_receiver_goes_on_where_another_one_was_killed(tmp_path):
    death = die_at("rename", 3, tmp_path / "killed")

    with receiver_process(receiver_settings(tmp_path / "killed")) as (receiver, _):
        more = send_all(receiver, each=1, first_id=2 * FIRST_ID)

    assert len(more) == CONNECTIONS
    found = {entry.envelope.hint.object_id for entry in death.spool.claim(limit=10_000)}
    assert death.acknowledged.keys() | more.keys() <= found
