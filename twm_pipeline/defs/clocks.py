"""What Dagster noted of schedules and sensors before the machine's clock was set back.

Its daemon starts nothing until that time comes again. What lies ahead of now is therefore not shown to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorTick,
    ScheduleInstigatorData,
    SensorInstigatorData,
)
from dagster._core.storage.schedules import ScheduleStorage
from dagster._time import get_current_timestamp

SLACK_SECONDS = 60.0
"""The clocks of two machines may differ by this much."""
MISSED_SECONDS = 120.0
"""A schedule whose place is not known any more is due if it would have been so long ago."""

T = TypeVar("T")


def hide_the_future(storage: ScheduleStorage) -> None:
    """Have *storage* tell nothing that lies ahead of now."""
    storage.get_instigator_state = _presently(  # type: ignore[method-assign]  # it offers no other way
        storage.get_instigator_state, lambda state: state and _present(state)
    )
    storage.all_instigator_state = _presently(  # type: ignore[method-assign]  # as above
        storage.all_instigator_state, lambda states: [_present(state) for state in states]
    )
    ask = storage.get_ticks

    def get_ticks(
        origin_id: str, selector_id: str, before: float | None = None, **options: object
    ) -> Sequence[InstigatorTick]:
        latest = get_current_timestamp() + SLACK_SECONDS
        return ask(origin_id, selector_id, before=min(before or latest, latest), **options)  # type: ignore[arg-type]  # as it was asked

    storage.get_ticks = get_ticks  # type: ignore[method-assign, assignment]  # as above


def _presently(ask: Callable[..., T], change: Callable[[T], T]) -> Callable[..., T]:
    return lambda *given, **options: change(ask(*given, **options))


def _present(state: InstigatorState) -> InstigatorState:
    """Return *state* as if nothing of it had been noted later than now."""
    now, data = get_current_timestamp(), state.instigator_data
    latest, missed = now + SLACK_SECONDS, now - MISSED_SECONDS
    if isinstance(data, SensorInstigatorData):
        last, started = data.last_tick_timestamp, data.last_tick_start_timestamp
        if max(last or 0.0, started or 0.0) > latest:
            return state.with_data(data._replace(last_tick_timestamp=None, last_tick_start_timestamp=None))
    elif isinstance(data, ScheduleInstigatorData):
        begun, looked = data.start_timestamp, data.last_iteration_timestamp
        if max(begun or 0.0, looked or 0.0) > latest:
            begun, looked = min(begun or missed, missed), min(looked or missed, missed)
            return state.with_data(data._replace(start_timestamp=begun, last_iteration_timestamp=looked))
    return state
