"""Which vendors are configured, and whose account of theirs the mirror holds."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from twm_pipeline.mirror.checkpoints import Account, load_account, save_account
from twm_pipeline.records import SOURCES, Source
from twm_pipeline.sources import missive, teamwork

if TYPE_CHECKING:
    from collections.abc import Callable

    from twm_pipeline.http import Reply
    from twm_pipeline.settings import Settings
    from twm_pipeline.sync.engine import Pass


def configured_sources(settings: Settings) -> tuple[Source, ...]:
    """Return the vendors whose credentials are set; the others are switched off (DESIGN 6)."""
    present = {
        "teamwork": settings.teamwork_base_url is not None and settings.teamwork_api_key is not None,
        "missive": settings.missive_api_token is not None,
    }
    return tuple(source for source in SOURCES if present[source])


def credentials_digest(settings: Settings, source: Source) -> bytes:
    """Return a digest of address and credentials: while it stays, the account needs no asking."""
    secret = settings.teamwork_api_key if source == "teamwork" else settings.missive_api_token
    api = teamwork if source == "teamwork" else missive
    words = f"{source}\n{api.base_url(settings)}\n{secret.get_secret_value() if secret else ''}"
    return hashlib.blake2b(words.encode(), digest_size=16).digest()


def ensure_account(work: Pass, *, identify: Callable[[], tuple[str, str | None, Reply]]) -> Account:
    """Return whose rows these are, asking the vendor only when the credentials are new.

    Args:
        work: The pass.
        identify: Returns the account's name, the token owner's id, and the answer that said so.

    Raises:
        AccountChangedError: If the mirror holds rows of another account.
    """
    proof = credentials_digest(work.settings, work.source)
    with work.read() as connection:
        known = load_account(connection, work.source)
    if known is not None and known.credentials_digest == proof:
        return known
    name, owner_id, reply = identify()
    work.note_reply(reply)
    if known is not None and known.account == name and known.owner_id not in (None, owner_id):
        work.report.problems.append(
            f"the credentials now belong to person {owner_id} of the same account (before: {known.owner_id});"
            " what only the other one may see stays as it was and will turn inaccessible"
        )
    account = Account(
        account=name,
        owner_id=owner_id,
        credentials_digest=proof,
        first_import_at=known.first_import_at if known else reply.date,
        link_base=str(work.settings.teamwork_base_url) if work.source == "teamwork" else None,
        scope=known.scope if known else {},
    )
    with work.commit() as connection:
        save_account(connection, work.source, account)
    return account
