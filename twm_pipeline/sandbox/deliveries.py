"""Deliveries of webhooks: sent beside everything else, retried, lost and repeated as told."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from heapq import heappop, heappush
from typing import Any

from twm_pipeline.sandbox.answers import Answers
from twm_pipeline.sandbox.courier import Courier
from twm_pipeline.sandbox.hooks import ACTIVE, INACTIVE, Hook
from twm_pipeline.sandbox.options import Clock

WAITING, DELIVERED, DISCARDED, DROPPED = "waiting", "delivered", "discarded", "dropped"
ACCEPTED = {"teamwork": range(200, 201), "missive": range(200, 300)}
ANSWER_SECONDS = {"teamwork": 5.0, "missive": 15.0}
TEAMWORK_WAITS = {"hourly": (3600, 3600, 3600), "minutes": (60, 300, 600)}
MISSIVE_WAITS = (30, 120, 600, 3600, 10_800)  # Nothing is known but that it tries again.
DISCARDS_TO_SWITCH_OFF = 3
LAG_SECONDS = 1.0
KEPT_PARCELS = 2000


@dataclass(slots=True, kw_only=True)
class Delivery:
    """One delivery in the log.

    Attributes:
        id: Equal for a delivery and its repetitions.
        object_id: Of what changed: for Missive, the conversation.
        copy: True for the second of a delivery sent twice, or sent again by request.
        state: `waiting`, `delivered`, `discarded` or `dropped`.
        statuses: Of every answer; 0 where none came in time.
        changed_at: Monotonic seconds of the change; `changed_time` is Unix time.
        sent_at: Monotonic seconds at which the last attempt began.
        answered_at: Monotonic seconds of the answer that was accepted.
    """

    number: int
    id: str
    vendor: str
    hook: str
    event: str
    object_id: int | str
    copy: bool = False
    state: str = WAITING
    attempts: int = 0
    statuses: list[int] = field(default_factory=list)
    changed_at: float
    changed_time: float
    sent_at: float | None = None
    answered_at: float | None = None
    answered_time: float | None = None


@dataclass(slots=True, kw_only=True)
class Parcel:
    """What is sent, and the log's row of it."""

    delivery: Delivery
    hook: Hook
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """How badly deliveries travel.

    Attributes:
        drop: Share that never arrives.
        double: Share that arrives twice.
        reorder: Share that is up to a second late, so that later ones overtake it.
        delay_seconds: How late all of them are.
        answer_seconds: How long an answer is awaited; None for what the vendors document.
        at_once: Most requests at once.
    """

    drop: float = 0.0
    double: float = 0.0
    reorder: float = 0.0
    delay_seconds: float = 0.0
    answer_seconds: float | None = None
    at_once: int = 16


Queue = list[tuple[float, int, Parcel]]  # (due by the accounts' clock, number, parcel)


class Deliveries:
    """Sends what the hooks of both vendors were promised.

    Args:
        courier: Brings it.
        answers: The open questions.
        clock: The accounts' time: letting it pass makes retries due.
        seed: Decides what is dropped, doubled and reordered.
        time_scale: What the waits between retries are divided by.

    Raises:
        ValueError: If the time scale is not positive.
    """

    def __init__(
        self, *, courier: Courier, answers: Answers, clock: Clock, seed: int, time_scale: float
    ) -> None:
        if time_scale <= 0:
            raise ValueError("the time scale of webhooks must be positive")
        self.courier = courier
        self.answers = answers
        self.clock = clock
        self.time_scale = time_scale
        self.weather = Weather()
        self.log: deque[Delivery] = deque(maxlen=50_000)
        self._random = self._source(seed)
        self._made = 0
        self._fresh: Queue = []
        self._retries: Queue = []
        self._parked: Queue = []
        self._held: tuple[str, ...] | None = None
        self._kept: OrderedDict[str, Parcel] = OrderedDict()
        self._sending: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()

    def _source(self, seed: int) -> random.Random:
        return random.Random(f"deliveries {seed}")  # noqa: S311 - a simulation, not a secret

    # What the vendors and the control plane ask for.

    def add(
        self, hook: Hook, *, key: str, object_id: int | str, headers: Mapping[str, str], body: bytes
    ) -> None:
        """Take on a delivery and decide its fate."""
        delivery = Delivery(
            number=self._number(),
            id=key,
            vendor=hook.vendor,
            hook=hook.id,
            event=hook.event,
            object_id=object_id,
            changed_at=time.monotonic(),
            changed_time=time.time(),
        )
        parcel = Parcel(delivery=delivery, hook=hook, headers=headers, body=body)
        self._remember(parcel)
        # Always as many draws, so that one share does not change what another hits.
        drop, double, reorder, lag, second_lag = (self._random.random() for _ in range(5))
        if drop < self.weather.drop:
            delivery.state = DROPPED
            return
        late = self.weather.delay_seconds
        self._send_in(late + (lag * LAG_SECONDS if reorder < self.weather.reorder else 0.0), parcel)
        if double < self.weather.double:
            self._send_in(late + second_lag * LAG_SECONDS, self._repeated(parcel))

    def _number(self) -> int:
        self._made += 1
        return self._made

    def _remember(self, parcel: Parcel) -> None:
        self.log.append(parcel.delivery)
        self._kept[parcel.delivery.id] = parcel
        while len(self._kept) > KEPT_PARCELS:
            self._kept.popitem(last=False)

    def _repeated(self, parcel: Parcel) -> Parcel:
        delivery = replace(
            parcel.delivery, number=self._number(), copy=True, state=WAITING, attempts=0, statuses=[]
        )
        delivery.sent_at = delivery.answered_at = delivery.answered_time = None
        self.log.append(delivery)
        return replace(parcel, delivery=delivery)

    def _send_in(self, seconds: float, parcel: Parcel) -> None:
        heappush(self._fresh, (self.clock.time() + seconds, parcel.delivery.number, parcel))
        self.wake()

    def redeliver(self, hook: Hook, key: str) -> bool:
        """Send a delivery of a hook again; False where it is not known any more."""
        parcel = self._kept.get(key)
        if parcel is None or parcel.hook is not hook:
            return False
        self._send_in(0.0, self._repeated(parcel))
        return True

    def set_weather(self, *, seed: int | None = None, **fields: Any) -> None:  # noqa: ANN401 - Weather's own
        """Change how deliveries travel from now on; what is not given is as at the start.

        Raises:
            TypeError: If there is no such field.
        """
        self.weather = Weather(**fields)
        if seed is not None:
            self._random = self._source(seed)

    def hold(self, *, events: Sequence[str] = ()) -> None:
        """Keep back what was not sent yet, of some events or all, until it is released."""
        self._held = tuple(event.upper() for event in events)

    def release(self) -> int:
        """Let go what was kept back; return how many deliveries that are."""
        self._held = None
        released, self._parked = self._parked, []
        for item in released:
            heappush(self._retries if item[2].delivery.attempts else self._fresh, item)
        self.wake()
        return len(released)

    def rows(
        self, *, since: int = 0, vendor: str | None = None, state: str | None = None
    ) -> list[dict[str, Any]]:
        """Return the log from number *since* on, of one vendor or both, in one state or all."""
        return [
            asdict(item)
            for item in self.log
            if item.number > since and vendor in (None, item.vendor) and state in (None, item.state)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return counts by state, and what is going on."""
        return {
            "states": dict(Counter(item.state for item in self.log)),
            "under_way": len(self._fresh) + len(self._sending),
            "retries": len(self._retries),
            "held": len(self._parked),
        }

    async def wait(self, *, seconds: float, retries: bool = False) -> None:
        """Wait until nothing is under way; what is held, and unless asked what is to be retried, is not.

        Raises:
            TimeoutError: If that takes longer than *seconds*.
        """
        try:
            async with asyncio.timeout(seconds):
                while self._fresh or self._sending or (retries and self._retries):
                    self._settled.clear()
                    await self._settled.wait()
        except TimeoutError:
            raise TimeoutError(f"not all was delivered within {seconds} s: {self.to_dict()}") from None

    def wake(self) -> None:
        """Look again what is due."""
        self._wake.set()

    # The work.

    async def run(self) -> None:
        """Send what is due until cancelled."""
        try:
            while True:
                self._wake.clear()
                self._start_due()
                self._settled.set()
                try:
                    async with asyncio.timeout(self._idle_seconds()):
                        await self._wake.wait()
                except TimeoutError:
                    continue
        finally:
            for task in self._sending:
                task.cancel()

    def _idle_seconds(self) -> float | None:
        """Return how long nothing becomes due; None while only the end of a request changes anything."""
        if len(self._sending) >= self.weather.at_once:
            return None
        dues = [queue[0][0] for queue in (self._fresh, self._retries) if queue]
        return max(min(dues) - self.clock.time(), 0.0) if dues else None

    def _start_due(self) -> None:
        now = self.clock.time()
        for queue in (self._fresh, self._retries):
            while queue and queue[0][0] <= now and len(self._sending) < self.weather.at_once:
                item = heappop(queue)
                if self._held is not None and (
                    not self._held or item[2].delivery.event.upper() in self._held
                ):
                    self._parked.append(item)
                    continue
                task = asyncio.create_task(self._attempt(item[2]))
                self._sending.add(task)
                task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        self.wake()

    async def _attempt(self, parcel: Parcel) -> None:
        delivery, hook = parcel.delivery, parcel.hook
        if hook.status != ACTIVE:
            delivery.state = DISCARDED
            return
        delivery.attempts += 1
        delivery.sent_at = time.monotonic()
        seconds = self.weather.answer_seconds or ANSWER_SECONDS[hook.vendor]
        status = await self.courier.post(hook.url, headers=parcel.headers, body=parcel.body, seconds=seconds)
        delivery.statuses.append(status)
        if status in ACCEPTED[hook.vendor]:
            delivery.state = DELIVERED
            delivery.answered_at, delivery.answered_time = time.monotonic(), time.time()
        else:
            self._retry_or_discard(parcel)

    def _retry_or_discard(self, parcel: Parcel) -> None:
        delivery, hook = parcel.delivery, parcel.hook
        teamwork = hook.vendor == "teamwork"
        waits = TEAMWORK_WAITS[self.answers["teamwork.webhook_retries"]] if teamwork else MISSIVE_WAITS
        if delivery.attempts <= len(waits):
            due = self.clock.time() + waits[delivery.attempts - 1] / self.time_scale
            heappush(self._retries, (due, delivery.number, parcel))
            return
        delivery.state = DISCARDED
        hook.discarded += 1
        if teamwork and hook.discarded >= DISCARDS_TO_SWITCH_OFF and hook.status == ACTIVE:
            hook.status = INACTIVE
