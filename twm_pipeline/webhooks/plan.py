"""What to change about the hooks at a vendor, decided before anything is: pure, and the same twice.

A hook that is right stays. One that has to be replaced is deleted only after its successor was made, so there
is no moment without any. What is not ours is left alone.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from twm_pipeline.mirror.hooks import KnownHook
    from twm_pipeline.sources.teamwork_hooks import ListedHook

Verb = Literal["adopt", "forget", "create", "resume", "delete"]

FIRST_WAIT = timedelta(hours=1)
LONGEST_WAIT = timedelta(days=1)
DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedHook:
    """A hook that is to exist.

    Args:
        event: The event or type.
        url: Its address, without a secret path.
        secret: The token its deliveries are signed with, or the secret path they come in on.
        proof: Keyed digest of *secret*, which may be stored.
    """

    event: str
    url: str
    secret: str = field(repr=False)
    proof: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnHook:
    """A hook of ours that exists at the vendor, as far as that can be known."""

    hook_id: str
    event: str
    url: str
    proof: bytes | None
    is_active: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What there is and what there should be, of one vendor.

    Args:
        wanted: At most one for each event.
        known: What is stored.
        listed: What the vendor lists; None where it has no list.
    """

    wanted: Sequence[WantedHook]
    known: Sequence[KnownHook]
    listed: Sequence[ListedHook] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One change; `adopt` and `forget` touch only what is stored.

    Args:
        verb: What to do.
        event: Of the hook. When one action fails, deletions for the same event are left out.
        hook_id: Of the hook; of one that is to be made, none.
        why: In words that go behind the event and the verb.
        url: Of a hook that is adopted.
        proof: Of a hook that is adopted.
        wanted: The hook to create.
        doubles: Ids of our hooks for the same event and URL, which may keep the vendor from creating another.
    """

    verb: Verb
    event: str
    hook_id: str = ""
    why: str = ""
    url: str = ""
    proof: bytes | None = None
    wanted: WantedHook | None = None
    doubles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do, in this order.

    Args:
        actions: The changes.
        ours: Hooks of ours that exist now.
        foreign: Hooks of others.
        put_off: Creations that have failed before and are not tried again yet.
    """

    actions: list[Action]
    ours: list[OwnHook]
    foreign: list[ListedHook]
    put_off: list[KnownHook]


def plan_hooks(survey: Survey, *, now: datetime, patient: bool) -> Plan:
    """Return how to get from what there is to what is wanted.

    Args:
        survey: The state.
        now: The present.
        patient: Whether a creation that failed before is put off; else it is tried again now.
    """
    upkeep, ours, foreign = _sort_out(survey)
    actions: list[Action] = []
    put_off: list[KnownHook] = []
    unanswered = {row.event: row for row in survey.known if row.is_open}
    for wanted in survey.wanted:
        same = [hook for hook in ours if hook.event == wanted.event]
        attempt = unanswered.pop(wanted.event, None)
        keep = _choose(wanted, same)
        if keep is not None and attempt is not None:
            upkeep.append(Action(verb="forget", event=attempt.event, hook_id=attempt.hook_id))
        if keep is None and attempt is not None and patient and _is_put_off(attempt, wanted, survey, now=now):
            put_off.append(attempt)
        else:
            actions += _replace(wanted, keep, same)
    upkeep += [Action(verb="forget", event=row.event, hook_id=row.hook_id) for row in unanswered.values()]
    events = {wanted.event for wanted in survey.wanted}
    surplus = [_delete(hook, "not needed any more") for hook in ours if hook.event not in events]
    return Plan(actions=[*upkeep, *actions, *surplus], ours=ours, foreign=foreign, put_off=put_off)


def plan_removal(survey: Survey) -> Plan:
    """Return how to get rid of everything that is ours."""
    upkeep, ours, foreign = _sort_out(survey)
    upkeep += [Action(verb="forget", event=r.event, hook_id=r.hook_id) for r in survey.known if r.is_open]
    actions = [*upkeep, *(_delete(hook, "on request") for hook in ours)]
    return Plan(actions=actions, ours=ours, foreign=foreign, put_off=[])


def _sort_out(survey: Survey) -> tuple[list[Action], list[OwnHook], list[ListedHook]]:
    """Return what to change in the table, and whose the existing hooks are."""
    stored = {row.hook_id: row for row in survey.known if not row.is_open}
    if survey.listed is None:
        return [], [_own(row, is_active=True) for row in stored.values()], []
    upkeep: list[Action] = []
    ours: list[OwnHook] = []
    foreign: list[ListedHook] = []
    strangers: list[ListedHook] = []
    for hook in survey.listed:
        row = stored.get(hook.hook_id)
        if row is not None and row.event == hook.event and _path(row.url) == _path(hook.url):
            del stored[hook.hook_id]
            ours.append(_seen(hook, row.proof))
        else:
            strangers.append(hook)
    for row in stored.values():
        upkeep.append(Action(verb="forget", event=row.event, hook_id=row.hook_id, why="gone at the vendor"))
    for hook, proof, is_ours in _recognise(strangers, survey):
        if not is_ours:
            foreign.append(hook)
            continue
        ours.append(_seen(hook, proof))
        upkeep.append(Action(verb="adopt", event=hook.event, hook_id=hook.hook_id, url=hook.url, proof=proof))
    return upkeep, ours, foreign


def _recognise(
    strangers: list[ListedHook], survey: Survey
) -> Iterator[tuple[ListedHook, bytes | None, bool]]:
    """Say of hooks that are not stored whether they are ours: they have our event and our address.

    With which token one was made can be told only if it is what came of a creation without an answer: all
    others were stored before that was sent.
    """
    asked = {(row.event, _plain(row.url)): row.proof for row in survey.known if row.is_open}
    mine = {(wanted.event, _plain(wanted.url)) for wanted in survey.wanted} | asked.keys()
    count = Counter((hook.event, _plain(hook.url)) for hook in strangers)
    for hook in strangers:
        key = (hook.event, _plain(hook.url))
        yield hook, asked.get(key) if count[key] == 1 else None, key in mine


def _choose(wanted: WantedHook, hooks: list[OwnHook]) -> OwnHook | None:
    """Return the hook that is as *wanted* and stays: rather an active one, rather an old one."""
    right = [hook for hook in hooks if _is_right(hook, wanted)]
    return min(right, key=lambda hook: (not hook.is_active, len(hook.hook_id), hook.hook_id), default=None)


def _is_right(hook: OwnHook, wanted: WantedHook) -> bool:
    return hook.proof == wanted.proof and _plain(hook.url) == _plain(wanted.url)


def _replace(wanted: WantedHook, keep: OwnHook | None, hooks: list[OwnHook]) -> Iterator[Action]:
    """Yield what makes *keep* (else a new hook) the only one of *hooks*, and a working one."""
    if keep is None:
        doubles = tuple(hook.hook_id for hook in hooks if _plain(hook.url) == _plain(wanted.url))
        why = _why(wanted, hooks)
        yield Action(verb="create", event=wanted.event, why=why, wanted=wanted, doubles=doubles)
    elif not keep.is_active:
        yield Action(verb="resume", event=wanted.event, hook_id=keep.hook_id, why="was switched off")
    for hook in hooks:
        if hook is not keep:
            yield _delete(hook, "was a double" if _is_right(hook, wanted) else _why(wanted, [hook]))


def _why(wanted: WantedHook, hooks: list[OwnHook]) -> str:
    if not hooks:
        return "was missing"
    if all(_plain(hook.url) != _plain(wanted.url) for hook in hooks):
        return "had another address"
    return "had another token" if any(hook.proof for hook in hooks) else "had a token that is not known"


def _is_put_off(attempt: KnownHook, wanted: WantedHook, survey: Survey, *, now: datetime) -> bool:
    """Return whether the same creation is to wait: it was refused, or may have succeeded unseen."""
    if (_plain(attempt.url), attempt.proof) != (_plain(wanted.url), wanted.proof):
        return False
    if attempt.status == "asked" and survey.listed is not None:
        return False  # it is not listed, so it was not made
    wait = min(FIRST_WAIT * 2 ** min(attempt.attempts - 1, 10), LONGEST_WAIT)
    left = attempt.checked_at + wait - now
    return bool(timedelta(0) < left <= LONGEST_WAIT)  # more is left only where a clock was set back


def _delete(hook: OwnHook, why: str) -> Action:
    return Action(verb="delete", event=hook.event, hook_id=hook.hook_id, why=why)


def _own(row: KnownHook, *, is_active: bool) -> OwnHook:
    return OwnHook(hook_id=row.hook_id, event=row.event, url=row.url, proof=row.proof, is_active=is_active)


def _seen(hook: ListedHook, proof: bytes | None) -> OwnHook:
    return OwnHook(
        hook_id=hook.hook_id, event=hook.event, url=hook.url, proof=proof, is_active=hook.is_active
    )


def _plain(url: str) -> str:
    """Return *url* in the form in which two spellings of one address are equal."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return url
    scheme, host = parts.scheme.lower(), (parts.hostname or "").lower()
    place = host if port in (None, DEFAULT_PORTS.get(scheme)) else f"{host}:{port}"
    query = f"?{parts.query}" if parts.query else ""
    return f"{scheme}://{place}{parts.path.rstrip('/')}{query}"


def _path(url: str) -> str:
    """Return the end of *url* that is ours whatever the public address: `hooks/teamwork/task-created`."""
    return "/".join(url.rstrip("/").split("/")[-3:])
