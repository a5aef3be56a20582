"""What the vendors talk to: an ASGI application that answers 200 exactly when a delivery is durable.

Anything that is not answered 200 is sent again by the vendor, so every doubt ends in another status; nothing
ends in a 5xx but 503, which says when to come again.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router

from twm_pipeline.errors import DeliveryError, SpoolError, place_of
from twm_pipeline.records import SOURCES, Hint, Source
from twm_pipeline.sources import missive_deliveries, teamwork_deliveries
from twm_pipeline.spool import Envelope, Spool
from twm_pipeline.webhooks.current import CurrentSecrets
from twm_pipeline.webhooks.intake import Intake
from twm_pipeline.webhooks.refusals import Refusals
from twm_pipeline.webhooks.signatures import (
    MISSIVE_HEADER,
    TEAMWORK_HEADER,
    verify_missive,
    verify_teamwork,
)
from twm_pipeline.webhooks.tally import Tally, tally_file

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from twm_pipeline.settings import Settings
    from twm_pipeline.webhooks.secrets import HookSecrets

MOST_BODY_BYTES = 2 << 20
MOST_BODIES_BYTES = 64 << 20
"""Bound of all bodies that are being received: who sends them is known only when they are complete."""
SMALL_BODY_BYTES = 64 << 10
"""Never put off for the size of others: most deliveries are smaller."""
RETRY_AFTER_SECONDS = 60
KEPT_HEADERS = ("content-type", "x-projects-event", "x-projects-delivery", "user-agent")
KEPT_CHARACTERS = 200
LENGTH_DIGITS = 10


class Disconnected(Exception):  # noqa: N818 - no error: the sender is gone
    """Nobody is left to answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """How the deliveries of one vendor are recognised and read.

    Args:
        source: The vendor.
        signature_header: In lower case.
        verify: Raises unless the signature is right.
        parse: Says what changed.
    """

    source: Source
    signature_header: str
    verify: Callable[..., None]
    parse: Callable[..., Hint | None]

    def verifier(self, signature: str, secrets: HookSecrets) -> Callable[[bytes], None]:
        """Return what raises unless *signature* is that of a body."""
        key = secrets.teamwork_token if self.source == "teamwork" else secrets.missive_secret
        return lambda body: self.verify(body, header=signature, secret=key)


TEAMWORK = Vendor(
    source="teamwork",
    signature_header=TEAMWORK_HEADER,
    verify=verify_teamwork,
    parse=teamwork_deliveries.parse_delivery,
)
MISSIVE = Vendor(
    source="missive",
    signature_header=MISSIVE_HEADER,
    verify=verify_missive,
    parse=missive_deliveries.parse_delivery,
)


class Receiver:
    """The application.

    Args:
        settings: Secrets, spool and whether unsigned deliveries are accepted.
    """

    def __init__(self, settings: Settings) -> None:
        reserve = settings.spool_reserve_megabytes * 1_000_000
        self.spools = {
            source: Spool(settings.spool_folder, source, reserve_bytes=reserve) for source in SOURCES
        }
        self.intake = Intake(self.spools)
        self.secrets = CurrentSecrets(settings)
        self.tally = Tally(tally_file(settings))
        self.refusals = Refusals(self.tally)
        self.allows_unsigned = settings.allow_unsigned_webhooks
        self.reserve_bytes = reserve
        self.bodies_bytes = 0

    def app(self) -> Router:
        """Return the ASGI application."""
        teamwork, missive = Hook(self, TEAMWORK), Hook(self, MISSIVE)
        return Router(
            [
                Route("/hooks/teamwork/{event}", teamwork, methods=["POST"]),
                Route("/hooks/missive", missive, methods=["POST"]),
                Route("/hooks/missive/{token}", missive, methods=["POST"]),
                Route("/hooks/teamwork", teamwork, methods=["POST"]),
                Route("/webhook/teamwork", teamwork, methods=["POST"]),
                Route("/webhook/missive", missive, methods=["POST"]),
                Route("/health", self.health),
            ],
            redirect_slashes=False,
            lifespan=self._lifespan,
        )

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: object) -> AsyncIterator[dict[str, Refusals]]:
        self.intake.start()
        self.tally.start()
        yield {"refusals": self.refusals}
        self.tally.stop()
        await self.intake.stop()

    async def health(self, _: Request) -> Response:
        """Say whether deliveries are taken, and nothing else: everybody may ask."""
        try:
            fits = all(spool.free_bytes > self.reserve_bytes for spool in self.spools.values())
        except SpoolError:
            fits = False
        status = "full" if not fits else "failing" if self.intake.failing else "ok"
        return JSONResponse({"status": status}, 200 if status == "ok" else 503)


@dataclass(frozen=True, slots=True)
class Hook:
    """The paths of one vendor."""

    receiver: Receiver
    vendor: Vendor

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take a delivery in and answer it."""
        with contextlib.suppress(Disconnected):
            status, words = await self._outcome(scope, receive)
            await answer(send, status, words.encode())

    async def _outcome(self, scope: Scope, receive: Receive) -> tuple[int, str]:
        """Return the status and the words of the answer."""
        try:
            return await self._take(scope, receive)
        except DeliveryError as error:
            self.receiver.refusals.note(error.status, f"{self.vendor.source}: {error}")
            return error.status, str(error)
        except Disconnected:
            raise
        except Exception as error:  # noqa: BLE001 - a defect of ours must not lose the delivery: it is sent again
            self.receiver.refusals.note(503, place_of(error))
            return 503, "come again"

    async def _take(self, scope: Scope, receive: Receive) -> tuple[int, str]:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        _check_size(int(headers.get("content-length", "0")[:LENGTH_DIGITS]))
        verify, path_event = self._authentication(headers, scope["path_params"])
        body = await self._read_body(receive)
        verify(body)
        kept = {name: headers[name][:KEPT_CHARACTERS] for name in KEPT_HEADERS if name in headers}
        hint = self.vendor.parse(path_event=path_event, headers=kept, body=body)
        if hint is None:
            return 200, "nothing to do"
        envelope = Envelope(
            source=self.vendor.source, hint=hint, received_at=datetime.now(UTC), headers=kept, body=body
        )
        if not await self.receiver.intake.store(envelope):
            self.receiver.tally.refuse(503, f"{self.vendor.source}: not stored")
            return 503, "come again"
        self.receiver.tally.accept(self.vendor.source)
        return 200, ""

    def _authentication(
        self, headers: Mapping[str, str], path: Mapping[str, str]
    ) -> tuple[Callable[[bytes], None], str]:
        """Return what raises unless a body is authentic, and the event that the path tells.

        Raises:
            DeliveryError: 401 if no body can be.
        """
        secrets = self.receiver.secrets.known()
        token = path.get("token")
        event = path.get("event") if token is None else self._event_of(token)
        signature = headers.get(self.vendor.signature_header)
        if token is not None and event is not None:
            return _accept, event
        if signature is not None:
            return self.vendor.verifier(signature, secrets), event or ""
        if token is None and self.receiver.allows_unsigned:
            return _accept, event or ""
        msg = "there is no signature" if token is None else "the path is unknown and there is no signature"
        raise DeliveryError(msg, status=401)

    def _event_of(self, token: str) -> str | None:
        """Return the kind of hook of a secret path, also of one that another process made just now."""
        secrets = self.receiver.secrets
        event = secrets.known().event_of(token)
        return event if event is not None else secrets.now().event_of(token)

    async def _read_body(self, receive: Receive) -> bytes:
        """Return the whole body.

        Raises:
            DeliveryError: 413 if it is too large, 503 if too much of others is being received.
            Disconnected: If the sender is gone before its end.
        """
        body = bytearray()
        more = True
        try:
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Disconnected
                part = message.get("body", b"")
                body += part
                self.receiver.bodies_bytes += len(part)
                self._check_room(len(body))
                more = message.get("more_body", False)
        finally:
            self.receiver.bodies_bytes -= len(body)
        return bytes(body)

    def _check_room(self, size: int) -> None:
        _check_size(size)
        if size > SMALL_BODY_BYTES and self.receiver.bodies_bytes > MOST_BODIES_BYTES:
            msg = "too many bodies at once"
            raise DeliveryError(msg, status=503)


def _accept(_: bytes) -> None:
    """Accept any body: the path authenticates it, or the operator accepts unsigned ones."""


def _check_size(size: int) -> None:
    if size > MOST_BODY_BYTES:
        msg = "the body is too large"
        raise DeliveryError(msg, status=413)


async def answer(send: Send, status: int, body: bytes) -> None:
    """Send a complete answer."""
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    if status == 503:  # noqa: PLR2004 - HTTP's own number
        headers.append((b"retry-after", b"%d" % RETRY_AFTER_SECONDS))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
