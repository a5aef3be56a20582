"""What one run may be asked for, as it is written in Dagster's launchpad."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date, datetime
from typing import cast, get_args

import dagster as dg
from pydantic import Field

from twm_pipeline.errors import ConfigError
from twm_pipeline.mirror.tables import STREAMS
from twm_pipeline.records import Source
from twm_pipeline.settings import parse_since
from twm_pipeline.sync.engine import PassOptions
from twm_pipeline.sync.publish_check import How

MOST_IDS = 1000
_ID_FORMS: dict[Source, re.Pattern[str]] = {
    "teamwork": re.compile(r"[1-9][0-9]{0,17}"),
    "missive": re.compile(r"[0-9A-Za-z-]{1,64}"),
}


class SyncConfig(dg.Config):
    """What to read. Without any of it: what changed since the checkpoint, once."""

    since: str | None = Field(
        default=None,
        description="Read again everything that changed since this day, whatever the checkpoint says:"
        " 31.12.2024, 2024-12-31 or an ISO 8601 time",
    )
    until: str | None = Field(
        default=None, description="With `since`: only what changed before this day; written alike"
    )
    ids: list[str] = Field(
        default=[], description="Read exactly these tasks or conversations again, by the vendor's ids"
    )
    full: bool = Field(default=False, description="Read everything again from the beginning")
    window_seconds: float = Field(
        default=0.0,
        ge=0,
        le=86_400,
        description="How long to go on listening; 0: one pass. The schedules set SYNC_WINDOW_SECONDS",
    )

    def to_options(self, source: Source, streams: Iterable[str]) -> PassOptions:
        """Return what a pass over the selected *streams* is asked for.

        Raises:
            ConfigError: If the parts contradict each other, or an id cannot be one.
        """
        chosen = frozenset(streams)
        since, until = _moment("since", self.since), _moment("until", self.until)
        if sum((since is not None, bool(self.ids), self.full)) > 1:
            msg = "`since`, `ids` and `full` exclude each other; use one of them."
            raise ConfigError(msg)
        if until is not None and since is None:
            msg = "`until` needs `since`: the day from which to read again."
            raise ConfigError(msg)
        return PassOptions(
            streams=frozenset() if chosen == set(STREAMS[source]) else chosen,
            since=since,
            until=until,
            ids=_checked_ids(source, self.ids),
            full=self.full,
        )


class PublishConfig(dg.Config):
    """How to publish. Without any of it: what differs, once."""

    window_seconds: float = Field(
        default=0.0, ge=0, le=86_400, description="How long to go on listening for changes; 0: once"
    )
    resume: bool = Field(default=False, description="Ask Airtable again after its monthly quota was used up")
    check: str | None = Field(
        default=None,
        description="Look whether the base still holds what was published, and write again what does not:"
        " `sample` (a hundred records of each table, others each time) or `whole`",
    )

    def to_check(self) -> How | None:
        """Return at what to look.

        Raises:
            ConfigError: If it is none of those.
        """
        if self.check is None or self.check in get_args(How):
            return cast("How | None", self.check)
        msg = f"`check`: {self.check!r} is neither `sample` nor `whole`."
        raise ConfigError(msg)


class AttachmentsConfig(dg.Config):
    """How to download files. Without any of it: what is due, once."""

    window_seconds: float = Field(
        default=0.0, ge=0, le=86_400, description="How long to go on listening for new files; 0: once"
    )
    retry: bool = Field(default=False, description="Fetch files that failed again now")


class ReconcileConfig(dg.Config):
    """How to sweep."""

    sources: list[str] = Field(
        default=[], description="`teamwork`, `missive`; empty: every vendor that is set up"
    )
    dry_run: bool = Field(default=False, description="Do everything, keep nothing, say what would change")
    full: bool = Field(
        default=False,
        description="Missive: read messages and comments of every conversation, not only of recent ones and"
        " those whose turn it is",
    )
    confirm_deletions: bool = Field(
        default=False,
        description="Believe more deletions by absence than 5 % of a table (20 rows at least)",
    )

    def to_sources(self) -> tuple[Source, ...]:
        """Return the vendors named, all if none is.

        Raises:
            ConfigError: If one of them is unknown.
        """
        unknown = sorted(set(self.sources) - set(STREAMS))
        if unknown:
            msg = f"`sources`: {', '.join(unknown)} unknown; there are {' and '.join(STREAMS)}."
            raise ConfigError(msg)
        return tuple(source for source in STREAMS if source in self.sources or not self.sources)


def _moment(name: str, value: str | None) -> date | datetime | None:
    if value is None or not value.strip():
        return None
    try:
        return parse_since(value)
    except ConfigError as error:
        msg = f"`{name}`: {error}"
        raise ConfigError(msg) from None


def _checked_ids(source: Source, ids: list[str]) -> tuple[str, ...]:
    wrong = [item for item in ids if not _ID_FORMS[source].fullmatch(item)]
    if wrong:
        msg = f"`ids`: {wrong[0]!r} is no id of {source.capitalize()}."
        raise ConfigError(msg)
    if len(ids) > MOST_IDS:
        msg = f"`ids`: {len(ids)} are too many at once; up to {MOST_IDS}, or use `since`."
        raise ConfigError(msg)
    return tuple(dict.fromkeys(ids))
