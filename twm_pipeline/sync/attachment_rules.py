"""Which files the settings leave out, and why."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from twm_pipeline.mirror.attachments import FileRow

if TYPE_CHECKING:
    from twm_pipeline.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Which files the settings leave out.

    Args:
        most_bytes: Larger ones.
        types: Media types, `*` for any.
        inline_bytes: Smaller images that a message shows in its text.
    """

    most_bytes: int
    types: tuple[str, ...] = ()
    inline_bytes: int = 0

    @classmethod
    def of(cls, settings: Settings) -> Rule:
        """Return the rule of the settings."""
        return cls(
            most_bytes=settings.attachments_max_megabytes * 1_000_000,
            types=settings.attachments_skip_types,
            inline_bytes=settings.attachments_skip_inline_kilobytes * 1000,
        )

    @property
    def words(self) -> str:
        """What tells it from another rule."""
        return repr(self)

    def leaves_out(self, row: FileRow) -> str | None:
        """Return why a file is not fetched, or None if it is."""
        size, media_type = row.announced_size, row.media_type.lower()
        if size is not None and size > self.most_bytes:
            return f"larger than ATTACHMENTS_MAX_MEGABYTES ({size:,} bytes)"
        if any(fnmatchcase(media_type, pattern) for pattern in self.types):
            return f"{media_type} is in ATTACHMENTS_SKIP_TYPES"
        is_image = row.inline and media_type.startswith("image/")
        if is_image and size is not None and size < self.inline_bytes:
            return "an image in the text, smaller than ATTACHMENTS_SKIP_INLINE_KILOBYTES"
        return None
