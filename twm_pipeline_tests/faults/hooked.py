"""A world whose vendors tell a receiver of what changes, and what is left of their deliveries."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterator
from dataclasses import replace

from twm_pipeline.records import SOURCES, Source
from twm_pipeline.settings import Settings
from twm_pipeline.spool import Spool
from twm_pipeline.sync.drain import Drain, spool_of
from twm_pipeline.webhooks.registration import HooksReport, open_registrar
from twm_pipeline.webhooks.secrets import HookSecrets
from twm_pipeline_tests.faults.world import World
from twm_pipeline_tests.webhooks.running import receiver_thread

RULES = (
    "label_change",
    "outgoing_email",
    "assignment_change",
    "conversation_closed",
    "conversation_reopened",
)
"""What only people can subscribe to, in Missive's settings."""
PORTS = range(20_000, 25_000)
DELIVERY_SECONDS = 60.0


@contextlib.contextmanager
def hooked(world: World) -> Iterator[World]:
    """Give *world* with a receiver in a thread and every hook at the vendors; nothing is lost on the way."""
    with receiver_thread(without_reserve(world.settings)) as receiver:
        told = reachable(world, receiver.url)
        register(told)
        make_rules(told)
        drain(told)  # new hooks ask for a poll
        yield told


def without_reserve(settings: Settings) -> Settings:
    return settings.model_copy(update={"spool_reserve_megabytes": 0})


def reachable(world: World, url: str) -> World:
    """Return *world* as it is when the vendors can reach its receiver under *url*."""
    return replace(world, settings=without_reserve(world.settings).model_copy(update={"public_url": url}))


def port_of(world: World) -> int:
    """Return where the vendors expect the receiver."""
    return int(str(world.settings.public_url).rpartition(":")[2])


def lasting_port() -> int:
    """Return a free port that no outgoing connection is given while its receiver is dead."""
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise AssertionError


def register(world: World) -> dict[Source, HooksReport]:
    """Make the hooks at the vendors what they should be, as the product does."""
    reports = {}
    for source in SOURCES:
        with open_registrar(world.engine, world.settings, source) as registrar:
            reports[source] = registrar.register()
        assert not reports[source].undone
    return reports


def make_rules(world: World) -> None:
    """Make the rules that only people can make; the receiver has to answer meanwhile."""
    secret = HookSecrets.load(world.settings).missive_secret
    for kind in RULES:
        world.control.create_rule(kind, f"{world.settings.public_url}/hooks/missive", secret)


def deliver(world: World) -> None:
    """Wait until all that is under way has arrived."""
    world.control.wait_for_deliveries(DELIVERY_SECONDS)


def drain(world: World, *sources: Source) -> None:
    """Apply what waits, without a poll."""
    for source in sources or SOURCES:
        Drain(world.engine, world.settings, source).run_once()


def spools(world: World) -> list[Spool]:
    return [spool_of(world.settings, source) for source in SOURCES]


def waiting(world: World) -> int:
    """Return how many deliveries wait, of both vendors; none is dead."""
    counts = [spool.waiting() for spool in spools(world)]
    assert sum(count.dead for count in counts) == 0
    return sum(count.count + count.later for count in counts)
