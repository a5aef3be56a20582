"""The webhooks' secrets as another process may have changed them, without reading their file every time."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from twm_pipeline.errors import ConfigError
from twm_pipeline.webhooks.secrets import HookSecrets, file_of

if TYPE_CHECKING:
    from twm_pipeline.settings import Settings

logger = logging.getLogger(__name__)

TRUSTED_SECONDS = 1.0


class CurrentSecrets:
    """The webhooks' secrets as they are on disk.

    Args:
        settings: Of the deployment.

    Raises:
        ConfigError: If their file cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known = HookSecrets.load(settings)
        self._stamp = _stamp_of(settings)
        self._looked_at = time.monotonic()

    def known(self) -> HookSecrets:
        """Return the secrets as they were within the last second."""
        return self._known if time.monotonic() - self._looked_at < TRUSTED_SECONDS else self.now()

    def now(self) -> HookSecrets:
        """Return the secrets, read again if their file changed; a damaged one leaves the last good ones."""
        self._looked_at = time.monotonic()
        stamp = _stamp_of(self._settings)
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._known = HookSecrets.load(self._settings)
            except ConfigError as error:
                logger.error("The webhooks' secrets stay as they were: %s", error)  # noqa: TRY400 - its text says all
        return self._known


def _stamp_of(settings: Settings) -> tuple[int, int] | None:
    try:
        status = file_of(settings).stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns
