"""What is told to people by ALERT_WEBHOOK_URL: each trouble once when it comes, and once when it is over.

Deciding is pure: the state before, what is wrong now, and the state after with the lines to send. What could
not be sent stays in the outbox in its order; what was sent leaves it. Only a receiver that takes a post and
does not say so is told twice.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field
from html import escape
from http import HTTPStatus
from typing import Any, Literal

import requests
from pydantic import SecretStr

from twm_pipeline.errors import RetriableError

Level = Literal["warning", "error"]

LINES_PER_POST = 20
LINE_CHARACTERS = 600
MOST_LINES = 200
"""Kept while nobody takes them; of more, the oldest go, and a line says so."""
TIMEOUT_SECONDS = (5.0, 10.0)
WORDS: dict[Level, str] = {"warning": "WARNING", "error": "PROBLEM"}
LEFT_OUT = "… and more before that; `twm status` and the runs tell all of it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Something that is wrong now.

    Args:
        key: Names it for as long as it lasts, whatever is said about it.
        text: For an operator; no secret and nothing of a row's content.
        level: How bad.
        patience_seconds: It is told only when it has lasted so long.
    """

    key: str
    text: str
    level: Level = "error"
    patience_seconds: float = 0.0


@dataclass(slots=True, kw_only=True)
class Open:
    """A trouble that is not over: since when, and as how bad it was told (None: not yet)."""

    since: float
    text: str
    told: Level | None = None


@dataclass(slots=True, kw_only=True)
class AlertState:
    """What is known between two looks.

    Args:
        troubles: Those not over, by key.
        outbox: Lines that nobody has taken yet, oldest first.
        not_before: When the receiver may be asked again, in seconds since 1970.
    """

    troubles: dict[str, Open] = field(default_factory=dict)
    outbox: list[str] = field(default_factory=list)
    not_before: float = 0.0

    @classmethod
    def from_text(cls, text: str | None) -> AlertState:
        """Return the state that `to_text` wrote; an empty one for None."""
        values: dict[str, Any] = json.loads(text) if text else {}
        troubles = {key: Open(**item) for key, item in values.pop("troubles", {}).items()}
        return cls(troubles=troubles, **values)

    def to_text(self) -> str:
        """Return the state as it is kept."""
        return json.dumps(asdict(self))


def follow(
    state: AlertState, troubles: Iterable[Trouble], *, now: float, uncertain: Collection[str] = ()
) -> AlertState:
    """Return the state after a look, with a line in the outbox for every change that people are to know.

    Args:
        state: Before.
        troubles: What is wrong now.
        now: Seconds since 1970.
        uncertain: Keys about which nothing can be said at this moment: they stay as they are.
    """
    current = {item.key: item for item in troubles}
    kept = {key: item for key, item in state.troubles.items() if key in uncertain and key not in current}
    lines: list[str] = []
    for key, trouble in current.items():
        before = state.troubles.get(key) or Open(since=now, text=trouble.text)
        is_worse = before.told is None or (before.told, trouble.level) == ("warning", "error")
        is_due = not 0 <= now - before.since < trouble.patience_seconds  # ahead: the clock was set back
        if is_worse and is_due:
            lines.append(f"{WORDS[trouble.level]} {trouble.text}")
        told = trouble.level if is_worse and is_due else before.told
        kept[key] = Open(since=before.since, text=trouble.text, told=told)
    over = [item for key, item in state.troubles.items() if key not in kept and item.told is not None]
    lines += [f"OVER after {_span(max(now - item.since, 0.0))}: {item.text}" for item in over]
    outbox = [*state.outbox, *(line[:LINE_CHARACTERS] for line in lines)]
    if len(outbox) > MOST_LINES:
        outbox = [LEFT_OUT, *outbox[-MOST_LINES + 1 :]]
    return AlertState(troubles=kept, outbox=outbox, not_before=state.not_before)


def send(url: SecretStr, lines: Iterable[str], *, sender: str) -> None:
    """Post *lines* in the form that Slack and those like it take; one post, no redirect.

    Args:
        url: Where to; it is a secret, so no error shows it.
        lines: What to say.
        sender: Which deployment this is.

    Raises:
        RetriableError: They were not taken; `retry_after` if the receiver says when to ask again.
    """
    text = escape("\n".join([f"twm_pipeline on {sender}", *lines]), quote=False)
    try:
        answer = requests.post(
            url.get_secret_value(), json={"text": text}, timeout=TIMEOUT_SECONDS, allow_redirects=False
        )
    except (requests.RequestException, ValueError) as error:
        msg = f"ALERT_WEBHOOK_URL was not reached ({type(error).__name__})"
        raise RetriableError(msg) from None  # the library's text has the address in it
    if not HTTPStatus.OK <= answer.status_code < HTTPStatus.MULTIPLE_CHOICES:
        wait = answer.headers.get("Retry-After", "")
        msg = f"ALERT_WEBHOOK_URL answered {answer.status_code}"
        raise RetriableError(msg, retry_after=float(wait) if wait.isdecimal() else None)


def _span(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{round(minutes / 60)} h"  # noqa: PLR2004 - as people say it
