"""Which hooks are to exist, under which addresses, and why there may be none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twm_pipeline.sources.missive_hooks import API_EVENTS
from twm_pipeline.sources.teamwork_hooks import EVENTS
from twm_pipeline.webhooks.plan import WantedHook

if TYPE_CHECKING:
    from twm_pipeline.records import Source
    from twm_pipeline.settings import Settings
    from twm_pipeline.webhooks.secrets import HookSecrets


def why_no_hooks(settings: Settings) -> str | None:
    """Return why no vendor is to send webhooks, or None if they are."""
    polling = f"the vendors are polled every {settings.poll_seconds:g} s"
    if settings.disable_webhooks:
        return f"Webhooks are disabled (DISABLE_WEBHOOKS=true): {polling}."
    if settings.public_url is not None:
        return None
    if settings.ngrok_authtoken is not None:
        return "The tunnel of NGROK_AUTHTOKEN is open only while `twm up` runs; polling goes on without it."
    return (
        "There is no public address: set PUBLIC_URL to one under which the vendors reach the receiver, or"
        f" NGROK_AUTHTOKEN for a tunnel. Without webhooks {polling}."
    )


def wanted_hooks(settings: Settings, secrets: HookSecrets, source: Source) -> list[WantedHook]:
    """Return the hooks that are to exist; none while the vendors cannot reach us."""
    if why_no_hooks(settings) is not None:
        return []
    base = f"{settings.public_url}/hooks/{source}"
    if source == "missive":
        return [_wanted(secrets, event, base, secrets.path_for(event)) for event in API_EVENTS]
    return [_wanted(secrets, event, f"{base}/{to_slug(event)}", secrets.teamwork_token) for event in EVENTS]


def _wanted(secrets: HookSecrets, event: str, url: str, secret: str) -> WantedHook:
    return WantedHook(event=event, url=url, secret=secret, proof=secrets.proof(secret))


def to_slug(event: str) -> str:
    """Return the last part of a Teamwork hook's address: `task-created` for `TASK.CREATED`."""
    return event.lower().replace(".", "-")
