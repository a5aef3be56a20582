"""What `twm up` serves itself: the receiver with its public address and hooks, and the status page."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from sqlalchemy.exc import DBAPIError

from twm_pipeline.cli import output, processes
from twm_pipeline.cli.output import say
from twm_pipeline.cli.runs import environment
from twm_pipeline.db import connect_database
from twm_pipeline.errors import ConfigError, TwmError, WindowClosedError
from twm_pipeline.mirror.hooks import forget_all_hooks
from twm_pipeline.records import Source
from twm_pipeline.settings import PROJECT_DIR, Settings
from twm_pipeline.status.guard import require_password
from twm_pipeline.sync.accounts import configured_sources
from twm_pipeline.webhooks.registration import HooksReport, open_registrar
from twm_pipeline.webhooks.tunnel import open_tunnel
from twm_pipeline.webhooks.wanted import why_no_hooks

START_SECONDS = 60.0
REGISTER_SECONDS = 45.0
"""So long may the hooks of one vendor hold up the start; the check every 15 minutes finishes the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """A module that listens on an address of its own.

    Args:
        name: Of its log, and in messages.
        module: What runs.
        host: Where it listens.
        port: And on which port.
        advice: What to do where the port is taken.
    """

    name: str
    module: str
    host: str
    port: int
    advice: str

    @property
    def url(self) -> str:
        """Return the address for people."""
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"

    @property
    def family(self) -> socket.AddressFamily:
        """Return which kind of address it is."""
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET


def receiver_of(settings: Settings) -> Listener:
    """Return the receiver."""
    return Listener(
        name="receiver",
        module="twm_pipeline.webhooks",
        host=settings.app_host,
        port=settings.app_port,
        advice="Choose another port with APP_PORT (and the address with APP_HOST), or set"
        " DISABLE_WEBHOOKS=true.",
    )


def status_page_of(settings: Settings) -> Listener:
    """Return the status page.

    Raises:
        ConfigError: If it would listen beyond this machine without a password.
    """
    require_password(settings)
    return Listener(
        name="status page",
        module="twm_pipeline.status",
        host=settings.status_host,
        port=settings.status_port,
        advice="Choose another port with STATUS_PORT (and the address with STATUS_HOST).",
    )


def start(listener: Listener, settings: Settings, children: list[processes.Child]) -> None:
    """Start what listens and wait until it does.

    Args:
        listener: What is started.
        settings: Handed down to it.
        children: Where it is added.

    Raises:
        ConfigError: If its port is taken.
        TwmError: If it does not come up; the text has the end of its log.
    """
    try:
        socket.create_server((listener.host, listener.port), family=listener.family).close()
    except OSError as error:
        msg = (
            f"The {listener.name} cannot listen on port {listener.port} of {listener.host}: {error.strerror}."
            f" {listener.advice}"
        )
        raise ConfigError(msg) from error
    command, logs = ["-m", listener.module], settings.twm_data_dir / "logs"
    log = listener.name.replace(" ", "-")
    child = processes.start(log, command, env=environment(settings), logs=logs, cwd=PROJECT_DIR)
    children.append(child)
    deadline = time.monotonic() + START_SECONDS
    while not _listens(listener):
        if child.process.poll() is not None or time.monotonic() > deadline:
            msg = f"The {listener.name} did not start. The end of {child.log}:\n{child.log_end()}"
            raise TwmError(msg)
        time.sleep(0.05)


def _listens(listener: Listener) -> bool:
    with socket.socket(listener.family) as probe:
        probe.settimeout(2)
        return probe.connect_ex((listener.host, listener.port)) == 0


@contextmanager
def reachable(settings: Settings) -> Iterator[Settings]:
    """Give *settings* with the address under which the vendors reach the receiver, if they do.

    Where it cannot be had, they say so to every child: without webhooks it polls more often. The token of the
    tunnel is nobody else's business.
    """
    with ExitStack() as stack:
        address = None if settings.disable_webhooks else settings.public_url
        if address is None and settings.ngrok_authtoken is not None and not settings.disable_webhooks:
            try:
                address = stack.enter_context(open_tunnel(settings))
            except TwmError as error:
                output.complain(str(error))
        effective = settings.model_copy(update={"public_url": address, "ngrok_authtoken": None})
        if not settings.disable_webhooks:
            public = f" · public address {address}" if address else ""
            say(f"Receiver      {receiver_of(settings).url}{public}")
        yield effective


def register_hooks(settings: Settings, *, simulated: bool) -> None:
    """Register the hooks at the vendors and say how it went; nothing of it holds up the start for long.

    Args:
        settings: With the public address.
        simulated: Whether the accounts are those of a sandbox, which has forgotten every hook when it starts.
    """
    if (why := why_no_hooks(settings)) is not None:
        say(f"Webhooks      none. {why}")
        return
    told = []
    for source in configured_sources(settings):
        try:
            report = _register(settings, source, simulated=simulated)
        except (TwmError, DBAPIError) as error:
            words = type(error.orig).__name__ if isinstance(error, DBAPIError) else error
            output.complain(f"{source.capitalize()}: its hooks are not registered. {words}")
            continue
        told.append(f"{source.capitalize()} {report.registered} of {report.wanted}")
        for step in report.undone:
            output.complain(f"{source.capitalize()}: {step.action.event}: {step.problem}")
    command = "twm webhooks register --sandbox" if simulated else "twm webhooks register"
    rules = f" · `{command}` shows the rules to make in Missive" if settings.missive_api_token else ""
    say(f"Webhooks      {', '.join(told) or 'none'}{rules}")


def _register(settings: Settings, source: Source, *, simulated: bool) -> HooksReport:
    engine = connect_database(settings)
    try:
        if simulated:
            with engine.begin() as connection:
                forget_all_hooks(connection, source)
        with open_registrar(engine, settings, source, should_stop=_bound(REGISTER_SECONDS)) as registrar:
            return registrar.register()
    finally:
        engine.dispose()


def _bound(seconds: float) -> Callable[[], None]:
    """Return what raises once *seconds* are over."""
    deadline = time.monotonic() + seconds

    def check() -> None:
        if time.monotonic() > deadline:
            msg = f"It took more than {seconds:.0f} s; the check every 15 minutes goes on with it."
            raise WindowClosedError(msg)

    return check
