"""Our hooks at the vendors: what there is becomes what there should be.

An intention is stored before a hook is asked for, its id as soon as there is an answer. A process that dies
in between leaves the intention: where the vendor lists its hooks, the next run finds what came of it; where
not, a second hook may exist on the same path, whose deliveries coalesce.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from twm_pipeline.budget import Budget
from twm_pipeline.errors import (
    AccessError,
    AuthenticationError,
    DatabaseUnavailableError,
    NotFoundError,
    RateLimitedError,
    RequestRefusedError,
    TwmError,
    UnansweredError,
    WindowClosedError,
)
from twm_pipeline.http import VendorSession
from twm_pipeline.mirror.hooks import (
    ASKED,
    REFUSED,
    KnownHook,
    forget_hook,
    forget_open,
    hooks_lock,
    load_hooks,
    note_asked,
    note_made,
    note_problem,
    note_seen,
)
from twm_pipeline.records import Hint
from twm_pipeline.sources import missive as missive_api
from twm_pipeline.sources import teamwork as teamwork_api
from twm_pipeline.sources.missive_hooks import MissiveHooks
from twm_pipeline.sources.teamwork_hooks import ListedHook, TeamworkHooks
from twm_pipeline.spool import Envelope, Spool
from twm_pipeline.webhooks.plan import Action, Plan, Survey, WantedHook, plan_hooks, plan_removal
from twm_pipeline.webhooks.secrets import HookSecrets
from twm_pipeline.webhooks.wanted import wanted_hooks

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from twm_pipeline.records import Source
    from twm_pipeline.settings import Settings

logger = logging.getLogger(__name__)

READ_SECONDS = 20.0
"""A vendor may try the address of a hook before it answers: Missive gives that 15 s."""
ROUNDS = 3
RESUMED = "hooks.resumed"
"""Event of the entry that makes a window poll what was missed."""

_REFUSALS = (RequestRefusedError, AccessError, NotFoundError)
_END_EVERYTHING = (AuthenticationError, DatabaseUnavailableError, WindowClosedError)
_NOTHING_MADE = (RateLimitedError, WindowClosedError)


class HookVendor(Protocol):
    """The hooks of one vendor; `fetch` returns None where they cannot be listed."""

    def fetch(self) -> list[ListedHook] | None: ...  # noqa: D102 - see `TeamworkHooks`
    def enable(self) -> None: ...  # noqa: D102
    def create(self, *, event: str, url: str, secret: str) -> str: ...  # noqa: D102
    def resume(self, hook_id: str) -> None: ...  # noqa: D102
    def delete(self, hook_id: str) -> None: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """An action and what came of it.

    Args:
        action: What was to be done; done, with the id of what was made.
        problem: Why it was not done; None if it was.
        is_open: Whether it may have been done all the same, or can be done in another way.
    """

    action: Action
    problem: str | None = None
    is_open: bool = False


@dataclass(slots=True, kw_only=True)
class HooksReport:
    """What was done about the hooks at one vendor.

    Args:
        source: The vendor.
        wanted: How many hooks there should be.
        steps: What was done and what was not.
        put_off: Creations that failed before and have to wait.
        foreign: Hooks of others.
    """

    source: Source
    wanted: int = 0
    steps: list[Step] = field(default_factory=list)
    put_off: list[KnownHook] = field(default_factory=list)
    foreign: list[ListedHook] = field(default_factory=list)

    @property
    def undone(self) -> list[Step]:
        """What should have been done and was not."""
        return [step for step in self.steps if step.problem is not None]

    @property
    def registered(self) -> int:
        """How many of the wanted hooks exist and work."""
        missing = {step.action.event for step in self.undone if step.action.verb in ("create", "resume")}
        return self.wanted - len(missing | {row.event for row in self.put_off})


@dataclass
class Registrar:
    """The hooks of one vendor, while no other process changes them.

    Args:
        engine: The mirror.
        settings: The deployment's.
        source: The vendor.
        vendor: Its hooks.
        secrets: What authenticates deliveries.
        should_stop: Called between two requests; raises to end the work.
    """

    engine: Engine
    settings: Settings
    source: Source
    vendor: HookVendor
    secrets: HookSecrets
    should_stop: Callable[[], None] = lambda: None
    _keep: set[str] = field(default_factory=set)
    _enabled: bool = False
    _repaired: bool = False

    def survey(self, *, may_enable: bool = False) -> Survey:
        """Return what there is and what there should be.

        Args:
            may_enable: Whether to switch the vendor's feature on where it refuses to list hooks.

        Raises:
            AccessError: If the credentials may not manage hooks.
        """
        listed = self._listed(may_enable=may_enable)
        with self.engine.connect() as connection:
            known = load_hooks(connection, self.source)
        wanted = wanted_hooks(self.settings, self.secrets, self.source)
        return Survey(wanted=wanted, known=known, listed=listed)

    def plan(self, survey: Survey) -> Plan:
        """Return what `register` would do; nothing is changed."""
        return plan_hooks(survey, now=datetime.now(UTC), patient=False)

    def register(self, *, patient: bool = False) -> HooksReport:
        """Make the hooks at the vendor those that are wanted.

        What was not answered is settled by asking what there is now, where the vendor has a list of it.

        Args:
            patient: Whether creations that failed before are put off.

        Raises:
            AuthenticationError: The vendor refuses the credentials.
            AccessError: The credentials may not manage hooks.
            UnansweredError: The vendor does not say what there is.
        """
        report = HooksReport(source=self.source)
        try:
            is_open = self._round(report, patient=patient)
            for _ in range(ROUNDS - 1):
                if not is_open:
                    break
                try:
                    is_open = self._round(report, patient=patient)
                except UnansweredError:
                    break  # what the first round left undone is in the report
        finally:
            if self._repaired:
                self._note_gap()
        return report

    def _round(self, report: HooksReport, *, patient: bool) -> bool:
        """Survey, plan and act once; return whether the vendor is to be asked how it ended."""
        survey = self.survey(may_enable=True)
        self._note_seen(survey)
        plan = plan_hooks(survey, now=datetime.now(UTC), patient=patient)
        report.wanted, report.put_off, report.foreign = len(survey.wanted), plan.put_off, plan.foreign
        done = [step for step in report.steps if step.problem is None]
        report.steps = [*done, *self._apply(plan)]
        return survey.listed is not None and any(step.is_open for step in report.steps)

    def remove(self) -> HooksReport:
        """Delete every hook of ours at the vendor, and forget it."""
        plan = plan_removal(self.survey())
        return HooksReport(source=self.source, steps=self._apply(plan), foreign=plan.foreign)

    def _listed(self, *, may_enable: bool) -> list[ListedHook] | None:
        try:
            return self.vendor.fetch()
        except _REFUSALS as refused:
            if not (may_enable and self._enable()):
                raise _explained(refused) from None
        return self._listed(may_enable=False)

    def _enable(self) -> bool:
        """Switch the feature on, once; return whether it may be on now that was off before."""
        if self._enabled:
            return False
        self._enabled = True
        try:
            self.vendor.enable()
        except (*_REFUSALS, UnansweredError) as error:
            logger.info("%s: webhooks were not enabled: %s", self.source, error)
            return False
        return True

    def _apply(self, plan: Plan) -> list[Step]:
        """Do what is planned; what fails holds up nothing but the deletions that depend on it."""
        failed: set[str] = set()
        steps: list[Step] = []
        for action in plan.actions:
            self.should_stop()
            if action.verb == "delete" and (action.event in failed or action.hook_id in self._keep):
                continue
            step = self._try(action)
            steps.append(step)
            if step.problem is not None:
                failed.add(action.event)
            elif action.verb in ("create", "resume"):
                self._repaired = True
        return steps

    def _try(self, action: Action) -> Step:
        try:
            return Step(action=self._do(action))
        except _END_EVERYTHING:
            raise
        except TwmError as error:
            if isinstance(error, AccessError) and self.source == "teamwork":
                raise _explained(error) from None
            # Gone meanwhile is settled like unanswered: by looking at what there is.
            is_open = isinstance(error, UnansweredError | NotFoundError)
            return Step(action=action, problem=_words(error, action), is_open=is_open)

    def _do(self, action: Action) -> Action:
        """Do one thing, at the vendor first and then in the table; return it as it was done."""
        if action.wanted is not None:
            return self._create(action, action.wanted)
        if action.verb == "resume":
            self.vendor.resume(action.hook_id)
        elif action.verb == "delete":
            self.vendor.delete(action.hook_id)
        with self.engine.begin() as connection:
            self._store(connection, action)
        return action

    def _store(self, connection: Connection, action: Action) -> None:
        if action.verb == "resume":
            note_seen(connection, self.source, {action.hook_id: "active"})
        elif action.verb == "adopt":
            name = {"hook_id": action.hook_id, "event": action.event, "url": action.url}
            note_made(connection, self.source, **name, proof=action.proof)
        else:
            forget_hook(connection, self.source, action.hook_id)

    def _create(self, action: Action, wanted: WantedHook) -> Action:
        self._enable()
        source, name = self.source, {"event": wanted.event, "url": wanted.url}
        with self.engine.begin() as connection:
            note_asked(connection, source, **name, proof=wanted.proof)
        try:
            hook_id, why = self._ask_for(action, wanted)
        except _NOTHING_MADE:
            with self.engine.begin() as connection:
                forget_open(connection, source, event=wanted.event)
            raise
        except TwmError as error:
            status = REFUSED if isinstance(error, _REFUSALS) else ASKED
            with self.engine.begin() as connection:
                note_problem(
                    connection, source, event=wanted.event, status=status, problem=_words(error, action)
                )
            raise
        with self.engine.begin() as connection:
            forget_open(connection, source, event=wanted.event)
            note_made(connection, source, hook_id=hook_id, **name, proof=wanted.proof)
        self._keep.add(hook_id)
        return replace(action, hook_id=hook_id, why=why)

    def _ask_for(self, action: Action, wanted: WantedHook) -> tuple[str, str]:
        """Make a hook; return its id and why it was made.

        A vendor that allows one hook for an event and address leaves no way but to delete the old one first.
        Nothing is lost with it: its deliveries are signed with a token that is refused.
        """
        what = {"event": wanted.event, "url": wanted.url, "secret": wanted.secret}
        try:
            return self.vendor.create(**what), action.why
        except RequestRefusedError:
            if not action.doubles:
                raise
        for hook_id in action.doubles:
            self.vendor.delete(hook_id)
            with self.engine.begin() as connection:
                forget_hook(connection, self.source, hook_id)
            self._keep.add(hook_id)  # nothing is left to delete
        return self.vendor.create(**what), f"{action.why}; two at once were refused, so that went first"

    def _note_seen(self, survey: Survey) -> None:
        known = {row.hook_id for row in survey.known}
        statuses = {hook.hook_id: hook.status for hook in survey.listed or () if hook.hook_id in known}
        with self.engine.begin() as connection:
            note_seen(connection, self.source, statuses)

    def _note_gap(self) -> None:
        """Let the window poll at once: nothing was sent while a hook was missing or switched off."""
        now = datetime.now(UTC)
        hint = Hint(event=RESUMED)
        envelope = Envelope(source=self.source, hint=hint, received_at=now, headers={}, body=b"")
        try:
            Spool(self.settings.spool_folder, self.source).put([envelope])
        except TwmError as error:
            logger.warning("%s: what was missed is left to the next poll: %s", self.source, error)


@contextmanager
def open_registrar(
    engine: Engine, settings: Settings, source: Source, *, should_stop: Callable[[], None] = lambda: None
) -> Iterator[Registrar]:
    """Give the hooks of *source*, within the vendor's budget and to this process only.

    Raises:
        RetriableError: If another process goes on changing them.
    """
    api = teamwork_api if source == "teamwork" else missive_api
    secrets = HookSecrets.load(settings)
    with (
        hooks_lock(engine, source),
        Budget(engine, api.budget_plan(settings), should_stop=should_stop) as budget,
    ):
        session = VendorSession(
            source.capitalize(),
            api.base_url(settings),
            api.auth(settings),
            budget,
            time_scale=settings.budget_time_scale,
            read_seconds=READ_SECONDS,
            should_stop=should_stop,
        )
        vendor: HookVendor = TeamworkHooks(session) if source == "teamwork" else MissiveHooks(session)
        yield Registrar(engine, settings, source, vendor, secrets, should_stop)


def _explained(error: TwmError) -> TwmError:
    """Return *error*, of a 403 with what to do about it."""
    if not isinstance(error, AccessError):
        return error
    msg = (
        f"{str(error).rstrip('.')}. Only an administrator of the site may manage its webhooks: set"
        " TEAMWORK_API_KEY to the key of one, or DISABLE_WEBHOOKS=true. Polling goes on."
    )
    return AccessError(msg)


def _words(error: TwmError, action: Action) -> str:
    """Return what is wrong, also where the vendor repeats the address with its secret path."""
    text = str(error)
    return text.replace(action.wanted.secret, "…") if action.wanted else text
