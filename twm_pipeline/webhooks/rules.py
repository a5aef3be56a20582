"""What a person has to set up in Missive: the API has hooks for incoming messages and comments only.

Facts: Missive's documentation, "Webhooks" (missiveapp.com/docs/developers/webhooks).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from twm_pipeline.sources.missive_hooks import RULE_EVENT

if TYPE_CHECKING:
    from twm_pipeline.settings import Settings
    from twm_pipeline.webhooks.secrets import HookSecrets

TRIGGERS = (
    "outgoing email (and outgoing messages of other channels in use)",
    "label change",
    "assignment",
    "conversation closed",
    "conversation reopened",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSetup:
    """What to paste into the rules; all of it is secret but `url`.

    Args:
        url: Address of the webhook action.
        secret: Its signature secret.
        unsigned_url: An address that needs no signature, where Missive's check of the first one fails.
    """

    url: str
    secret: str
    unsigned_url: str

    def instructions(self) -> list[str]:
        """Return the steps, a line each; lines that begin with a blank belong to the step above."""
        return [
            "Rules to make in Missive: its API has hooks for incoming messages and comments only. Without"
            " these rules the next poll finds the rest.",
            "1. Leave the receiver running (`twm up`): Missive tries the address when a rule is saved.",
            "2. As an administrator or owner of the organisation (Productive plan or higher), open"
            " Settings > Rules and make a new rule for each of these triggers, without further conditions:",
            *(f"     {trigger}" for trigger in TRIGGERS),
            "3. As the action of each rule choose Webhook, and paste:",
            f"     URL               {self.url}",
            f"     Signature secret  {self.secret}",
            "4. Save. If Missive says that the validation failed, paste this URL instead and leave the"
            " signature secret empty:",
            f"     URL               {self.unsigned_url}",
            "Whoever knows the secret or the second URL can send deliveries: treat them as passwords.",
        ]


def rule_setup(settings: Settings, secrets: HookSecrets) -> RuleSetup:
    """Return what to paste into the rules of this deployment, which has a public address."""
    url = f"{settings.public_url}/hooks/missive"
    return RuleSetup(
        url=url, secret=secrets.missive_secret, unsigned_url=f"{url}/{secrets.path_for(RULE_EVENT)}"
    )
