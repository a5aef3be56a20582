"""The sandbox as a server: in a thread for tests, blocking for the command line."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import json
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from twm_pipeline.sandbox.airtable import Airtable
from twm_pipeline.sandbox.answers import Answers
from twm_pipeline.sandbox.client import SandboxControl
from twm_pipeline.sandbox.control import Control
from twm_pipeline.sandbox.courier import Courier
from twm_pipeline.sandbox.deliveries import Deliveries
from twm_pipeline.sandbox.faults import FaultBook
from twm_pipeline.sandbox.gate import JSON, Gate
from twm_pipeline.sandbox.generate_missive import MissiveGenerator
from twm_pipeline.sandbox.generate_teamwork import TeamworkGenerator
from twm_pipeline.sandbox.load import load_accounts
from twm_pipeline.sandbox.missive import Missive
from twm_pipeline.sandbox.missive_account import MissiveAccount
from twm_pipeline.sandbox.missive_hooks import MissiveHooks
from twm_pipeline.sandbox.options import (
    AIRTABLE_BASE_ID,
    AIRTABLE_FOREIGN_BASE_ID,
    AIRTABLE_TOKEN,
    MISSIVE_TOKEN,
    TEAMWORK_KEY,
    Clock,
    SandboxOptions,
)
from twm_pipeline.sandbox.teamwork import Teamwork
from twm_pipeline.sandbox.teamwork_account import TeamworkAccount
from twm_pipeline.sandbox.teamwork_hooks import TeamworkHooks

START_SECONDS = 10.0
QUIET_SECONDS = 60  # Without an anchor, nothing has happened in the last minute.


class World:
    """All vendors with everything around them.

    Args:
        options: What the sandbox holds and how it behaves.
    """

    def __init__(self, options: SandboxOptions) -> None:
        anchor = None if options.anchor is None else options.anchor.timestamp()
        self.options = options
        self.answers = Answers(options.answers)
        self.clock = Clock(anchor)
        self.faults = FaultBook(options.seed)
        end = self.clock.now() - QUIET_SECONDS if anchor is None else int(anchor)
        teamwork, missive = build_accounts(options, end=end)
        self.courier = Courier()
        self.deliveries = Deliveries(
            courier=self.courier,
            answers=self.answers,
            clock=self.clock,
            seed=options.seed,
            time_scale=options.webhook_time_scale,
        )
        tell: dict[str, Any] = {"answers": self.answers, "deliveries": self.deliveries}
        given: dict[str, Any] = {"answers": self.answers, "clock": self.clock}
        self.teamwork = Teamwork(teamwork, hooks=TeamworkHooks(teamwork, **tell), **given)
        self.missive = Missive(missive, hooks=MissiveHooks(**tell), **given)
        self.airtable = Airtable(seed=options.seed, **given)
        latency = options.latency_seconds
        self.gates = {
            vendor.name: Gate(vendor, self.faults, latency_seconds=latency)
            for vendor in (self.teamwork, self.missive, self.airtable)
        }
        self.control = Control(
            teamwork=self.teamwork,
            missive=self.missive,
            gates=self.gates,
            faults=self.faults,
            answers=self.answers,
            clock=self.clock,
            deliveries=self.deliveries,
            airtable=self.airtable,
        )
        self.control.actions["set_budgets"](mode=options.budgets)

    def app(self) -> Starlette:
        """Return the ASGI application."""
        return Starlette(
            routes=[
                Route("/health", health),
                Mount("/teamwork", self.gates["teamwork"]),
                Mount("/missive/v1", self.gates["missive"]),
                Mount("/airtable/v0", self.gates["airtable"]),
                Mount("/airtable-content/v0", self.gates["airtable"]),
                Route("/files/{id}/{name:path}", self.missive.files.download),
                Route(
                    "/airtable-files/{id}/{expires:int}/{signature}/{name:path}",
                    self.airtable.files.download,
                ),
                Mount("/control", routes=self.control.routes()),
            ],
            lifespan=self._lifespan,
        )

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        rate = self.options.changes_per_hour
        tasks = [asyncio.create_task(self.deliveries.run())]
        if rate:
            tasks.append(asyncio.create_task(self._change_now_and_then(3600 / rate)))
        yield
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await self.airtable.files.close()

    async def _change_now_and_then(self, seconds: float) -> None:
        number = 0
        while True:
            await asyncio.sleep(seconds)
            number += 1
            self.control.actions["random_changes"](count=1, seed=self.options.seed + number)


def build_accounts(options: SandboxOptions, *, end: int) -> tuple[TeamworkAccount, MissiveAccount]:
    """Return both accounts, loaded or generated."""
    if options.data_dir is not None:
        return load_accounts(options.data_dir)
    teamwork = TeamworkGenerator(seed=options.seed, tasks=options.tasks, end=end)
    missive = MissiveGenerator(seed=options.seed, conversations=options.conversations, end=end)
    return teamwork.build(), missive.build()


async def health(_: Request) -> Response:
    """Say that the sandbox is up."""
    return JSON({"status": "ok"})


class WithTransport:
    """Puts the connection's transport into the scope, so that a fault can break it.

    Args:
        app: The application behind.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] == "http":
            cycle: Any = getattr(send, "__self__", None)  # uvicorn's cycle of this request
            extensions = scope.setdefault("extensions", {})
            extensions["sandbox"] = {"transport": cycle.transport}
        await self._app(scope, receive, send)


class QuietServer(uvicorn.Server):
    """A server that says when it listens.

    Args:
        config: uvicorn's settings.
        on_start: Called once it accepts connections.
    """

    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then say so."""
        await super().startup(sockets=sockets)
        if self.started:
            self._on_start()


class Sandbox:
    """Simulated vendor accounts, served from a thread while the context is open.

    Args:
        options: What the sandbox holds and how it behaves.
    """

    teamwork_key = TEAMWORK_KEY
    missive_token = MISSIVE_TOKEN
    airtable_token = AIRTABLE_TOKEN
    airtable_base_id = AIRTABLE_BASE_ID
    airtable_foreign_base_id = AIRTABLE_FOREIGN_BASE_ID

    def __init__(self, options: SandboxOptions | None = None) -> None:
        self.options = options or SandboxOptions()
        self.url = ""
        self._world: World | None = None
        self._server: QuietServer | None = None
        self._thread: threading.Thread | None = None
        self._socket: socket.socket | None = None
        self._control: SandboxControl | None = None

    @property
    def teamwork_url(self) -> str:
        """Return what TEAMWORK_BASE_URL has to be."""
        return f"{self.url}/teamwork"

    @property
    def missive_url(self) -> str:
        """Return what MISSIVE_BASE_URL has to be."""
        return f"{self.url}/missive/v1"

    @property
    def airtable_url(self) -> str:
        """Return what AIRTABLE_ENDPOINT_URL has to be."""
        return f"{self.url}/airtable"

    @property
    def airtable_upload_url(self) -> str:
        """Return what AIRTABLE_UPLOAD_URL has to be."""
        return f"{self.url}/airtable-content"

    @property
    def control(self) -> SandboxControl:
        """Return the client of the control plane."""
        if self._control is None:
            raise RuntimeError("the sandbox is not running")
        return self._control

    @property
    def world(self) -> World:
        """Return the accounts themselves; change them through `control` only."""
        if self._world is None:
            raise RuntimeError("the sandbox is not running")
        return self._world

    @property
    def is_running(self) -> bool:
        """Say whether the thread serves."""
        return self._thread is not None and self._thread.is_alive()

    def truth(self) -> Iterator[dict[str, Any]]:
        """Yield everything that exists, read in this process."""
        return self.world.control.truth()

    def describe(self) -> dict[str, Any]:
        """Return addresses and keys."""
        return {
            "url": self.url,
            "teamwork_url": self.teamwork_url,
            "teamwork_key": self.teamwork_key,
            "missive_url": self.missive_url,
            "missive_token": self.missive_token,
            "airtable_url": self.airtable_url,
            "airtable_upload_url": self.airtable_upload_url,
            "airtable_token": self.airtable_token,
            "airtable_base_id": self.airtable_base_id,
            "airtable_foreign_base_id": self.airtable_foreign_base_id,
            "control_url": f"{self.url}/control",
        }

    def _prepare(self, on_start: Callable[[], None]) -> QuietServer:
        options = self.options
        if not ipaddress.ip_address(options.host).is_loopback:
            raise ValueError(f"the sandbox listens on loopback only, not on {options.host}")
        self._world = World(options)
        family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        self._socket = socket.create_server((options.host, options.port), family=family)
        host = f"[{options.host}]" if ":" in options.host else options.host
        self.url = f"http://{host}:{self._socket.getsockname()[1]}"
        self._world.missive.files.url = f"{self.url}/files"
        self._world.airtable.files.url = f"{self.url}/airtable-files"
        self._control = SandboxControl(self.url)
        config = uvicorn.Config(
            WithTransport(self._world.app()),
            log_level="warning",
            access_log=False,
            date_header=False,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        self._server = QuietServer(config, on_start)
        return self._server

    def __enter__(self) -> Self:
        """Start serving in a thread."""
        up = threading.Event()
        server = self._prepare(up.set)
        self._thread = threading.Thread(
            target=server.run, kwargs={"sockets": [self._socket]}, name="sandbox", daemon=True
        )
        self._thread.start()
        if not up.wait(START_SECONDS):
            raise RuntimeError("the sandbox did not start")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop serving."""
        if self._control is not None:
            self._control.close()
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(START_SECONDS)
        if self._socket is not None:
            self._socket.close()

    def run(self, on_start: Callable[[dict[str, Any]], None]) -> None:
        """Serve in this thread until SIGINT or SIGTERM."""
        server = self._prepare(lambda: on_start(self.describe()))
        gc.freeze()  # Sweeping the rows of a large account would cost more than answering.
        assert self._socket is not None  # noqa: S101 - made by _prepare
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[self._socket])


def announce(description: dict[str, Any]) -> None:
    """Print addresses and keys as one line of JSON."""
    sys.stdout.write(json.dumps(description) + "\n")
    sys.stdout.flush()


def serve(options: SandboxOptions, on_start: Callable[[dict[str, Any]], None] = announce) -> None:
    """Serve until SIGINT or SIGTERM; *on_start* gets the addresses and keys once it listens."""
    Sandbox(options).run(on_start)
