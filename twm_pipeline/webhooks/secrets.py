"""What authenticates deliveries: the vendors' signing secrets and the unguessable paths of unsigned hooks.

They live in `hooks.json` below `TWM_DATA_DIR`, readable by its owner only and without PostgreSQL, so that the
receiver needs no database (DESIGN D7). Whoever comes first makes the file; nobody ever makes it twice.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from twm_pipeline.errors import ConfigError
from twm_pipeline.records import Json
from twm_pipeline.sources.missive_hooks import API_EVENTS, RULE_EVENT

if TYPE_CHECKING:
    from pydantic import SecretStr

    from twm_pipeline.settings import Settings

FILE_NAME = "hooks.json"
SECRET_BYTES = 32
PATH_EVENTS = (*API_EVENTS, RULE_EVENT)
"""Kinds of Missive hooks with a path of their own; made together, so that the file hardly ever changes."""

_SECRET_PATH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HookSecrets:
    """Tokens and paths; none of them appears in a repr.

    Args:
        file: Where they are kept.
        teamwork_token: Key of Teamwork's signatures.
        missive_secret: Key of the signatures of Missive's rules.
        missive_paths: Kind of hook → 64 hexadecimal digits, the last part of its URL.
    """

    file: Path
    teamwork_token: str = field(repr=False)
    missive_secret: str = field(repr=False)
    missive_paths: dict[str, str] = field(repr=False)

    @classmethod
    def load(cls, settings: Settings) -> Self:
        """Return the secrets of this deployment, made now where there are none; the settings' own ones win.

        Raises:
            ConfigError: If the file is damaged or may not be read.
        """
        file = file_of(settings)
        with _translated(file):
            kept = _read(file)
            if not _is_complete(kept):
                kept = _complete(file)
        return cls(
            file=file,
            teamwork_token=_chosen(settings.teamwork_webhook_secret, kept["teamwork_token"]),
            missive_secret=_chosen(settings.missive_webhook_secret, kept["missive_secret"]),
            missive_paths=dict(kept["missive_paths"]),
        )

    def event_of(self, token: str) -> str | None:
        """Return the kind of hook whose secret path *token* is, in a time that tells nothing of it."""
        given = token.encode(errors="replace")
        found = None
        for event, path in self.missive_paths.items():
            if hmac.compare_digest(path.encode(), given):
                found = event
        return found

    def proof(self, secret: str) -> bytes:
        """Return a digest of *secret* that may be stored: it tells nothing to whoever lacks this file."""
        key = self.missive_paths[RULE_EVENT].encode()
        return hashlib.blake2b(secret.encode(), digest_size=16, key=key).digest()

    def path_for(self, event: str) -> str:
        """Return the secret path of a kind of hook, made and kept if it has none."""
        if event not in self.missive_paths:
            with _translated(self.file):
                self.missive_paths.update(_complete(self.file, event)["missive_paths"])
        return self.missive_paths[event]


def file_of(settings: Settings) -> Path:
    """Return where the secrets are kept."""
    return settings.twm_data_dir / FILE_NAME


def _chosen(setting: SecretStr | None, kept: str) -> str:
    return setting.get_secret_value() if setting is not None else kept


def _read(file: Path) -> Json:
    """Return what is kept; nothing before the first time.

    Raises:
        ValueError: If the file holds something else.
    """
    try:
        with file.open(encoding="utf-8") as opened:
            if os.fstat(opened.fileno()).st_mode & 0o077:
                os.fchmod(opened.fileno(), 0o600)
            kept = json.load(opened)
    except FileNotFoundError:
        return {}
    texts = [kept.get(name, "") for name in ("teamwork_token", "missive_secret")]
    paths = kept.get("missive_paths", {})
    if not all(isinstance(text, str) for text in texts) or not all(
        map(_SECRET_PATH.fullmatch, paths.values())
    ):
        msg = "the file holds something else"
        raise ValueError(msg)
    return dict(kept)


def _is_complete(kept: Json) -> bool:
    named = kept.get("teamwork_token") and kept.get("missive_secret")
    return bool(named) and all(event in kept.get("missive_paths", {}) for event in PATH_EVENTS)


def _complete(file: Path, *events: str) -> Json:
    """Make whatever is missing, one process at a time, and return everything."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with _locked(file):
        kept = _read(file)
        made = {event: secrets.token_hex(SECRET_BYTES) for event in (*PATH_EVENTS, *events)}
        complete = {
            "teamwork_token": kept.get("teamwork_token") or secrets.token_hex(SECRET_BYTES),
            "missive_secret": kept.get("missive_secret") or secrets.token_hex(SECRET_BYTES),
            "missive_paths": made | kept.get("missive_paths", {}),
        }
        if complete != kept:
            _replace(file, json.dumps(complete, indent=2) + "\n")
        return complete


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    descriptor = os.open(file.with_name(f"{file.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(file: Path, text: str) -> None:
    """Put *text* in the place of *file*, whole and durable; a reader sees the old or the new one."""
    descriptor, draft = tempfile.mkstemp(dir=file.parent, prefix=f"{file.name}.")  # 0600 by itself
    with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())
    Path(draft).replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def _translated(file: Path) -> Iterator[None]:
    """Raise `ConfigError` for what is wrong with the file, without a word of its content."""
    try:
        yield
    except OSError as error:
        msg = f"{file}, which keeps the secrets of the webhooks, cannot be used: {error.strerror}."
        raise ConfigError(msg) from error
    except (ValueError, AttributeError, TypeError):
        msg = (
            f"{file}, which keeps the secrets of the webhooks, is damaged. Put it back from a backup; or"
            " remove it and call `twm webhooks register`, which says what to change in Missive's rules then."
        )
        raise ConfigError(msg) from None
