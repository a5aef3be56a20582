"""`twm webhooks`: the hooks at the vendors, by hand."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

import typer

from twm_pipeline.cli import output
from twm_pipeline.cli.help import Group
from twm_pipeline.cli.mirror import opened_mirror
from twm_pipeline.cli.options import AsJson, OfSandbox, Sources, settings_for
from twm_pipeline.cli.sync import choose_sources
from twm_pipeline.errors import (
    AccessError,
    AuthenticationError,
    ConfigError,
    DatabaseUnavailableError,
    TwmError,
)
from twm_pipeline.records import Json, Source
from twm_pipeline.settings import Settings
from twm_pipeline.webhooks.plan import Action, OwnHook, Plan, Survey
from twm_pipeline.webhooks.registration import HooksReport, Registrar, open_registrar
from twm_pipeline.webhooks.rules import rule_setup
from twm_pipeline.webhooks.secrets import HookSecrets
from twm_pipeline.webhooks.tunnel import with_public_address
from twm_pipeline.webhooks.wanted import why_no_hooks

HELP = """The hooks at the vendors, which tell at once that something has changed.

Examples: twm webhooks list · twm webhooks register · twm webhooks repair --dry-run · twm webhooks remove
"""
LIST_HELP = """Show our hooks, missing ones, and those of others; secrets only with --show-secrets.

Missive does not list its hooks: what is shown of them is what was registered.

Examples: twm webhooks list · twm webhooks list teamwork --json | jq '.hooks[] | select(.state != "active")'
"""
REGISTER_HELP = """Make the hooks at the vendors, and show which rules to make in Missive, secrets included.

What is right stays; a hook that has to be replaced is deleted after its successor was made. Hooks of others
are left alone.

Examples: twm webhooks register · twm webhooks register missive · twm webhooks register --dry-run --json
"""
REPAIR_HELP = """Check the hooks now: resume those that were switched off, make again those that are missing.

`twm up` does the same every 15 minutes.

Examples: twm webhooks repair · twm webhooks repair teamwork --dry-run
"""
REMOVE_HELP = """Delete every hook of ours at the vendors. Asks first; without a terminal it needs --yes.

As long as there is a public address and DISABLE_WEBHOOKS is not true, they are made again by the next check.

Examples: twm webhooks remove · twm webhooks remove missive --yes
"""

DONE = {
    "adopt": "found, taken over",
    "forget": "forgotten",
    "create": "registered",
    "resume": "resumed",
    "delete": "deleted",
}

Result = TypeVar("Result")
Answers = Mapping[Source, "Result | TwmError"]

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    webhooks = typer.Typer(cls=Group, help=HELP, no_args_is_help=True)
    webhooks.command("list", help=LIST_HELP)(list_hooks)
    webhooks.command("register", help=REGISTER_HELP)(register_hooks)
    webhooks.command("repair", help=REPAIR_HELP)(repair)
    webhooks.command("remove", help=REMOVE_HELP)(remove)
    app.add_typer(webhooks, name="webhooks")


def list_hooks(
    sources: Sources = None,
    *,
    show_secrets: Annotated[
        bool, typer.Option("--show-secrets", help="Show tokens and secret paths.")
    ] = False,
    sandbox: OfSandbox = False,
    as_json: AsJson = False,
) -> None:
    """Show what exists."""
    settings = with_public_address(settings_for(sandbox=sandbox))
    answers = _ask(settings, sources, _look)
    secrets = HookSecrets.load(settings)
    hooks = [
        row
        for source, answer in answers.items()
        if not isinstance(answer, TwmError)
        for row in _rows(source, *answer, secrets=secrets if show_secrets else None)
    ]
    keys = {"teamwork_token": secrets.teamwork_token, "missive_secret": secrets.missive_secret}
    shown = {name: value if show_secrets else "(not shown)" for name, value in keys.items()}
    why = why_no_hooks(settings)
    if as_json:
        problems = {name: str(answer) for name, answer in answers.items() if isinstance(answer, TwmError)}
        found = {"public_url": settings.public_url, "reason": why, "hooks": hooks, **shown}
        output.print_json({**found, "problems": problems})
    else:
        columns = ("source", "event", "state", "id", "address")
        output.print_table("Hooks", columns, ([row[name] for name in columns] for row in hooks))
        for name, value in shown.items():
            output.say(f"{name.replace('_', ' ')}: {value}")
        output.say(why or f"public address: {settings.public_url}")
    _end(answers)


def register_hooks(
    sources: Sources = None, *, dry_run: DryRun = False, sandbox: OfSandbox = False, as_json: AsJson = False
) -> None:
    """Make the hooks, and tell which rules to make."""
    settings = _reachable_settings(sandbox=sandbox)
    answers = _ask(settings, sources, _change(dry_run=dry_run))
    setup = None
    if "missive" in answers and not dry_run:
        setup = rule_setup(settings, HookSecrets.load(settings))
    if as_json:
        rules = {**asdict(setup), "instructions": setup.instructions()} if setup else None
        output.print_json({**_as_json(settings, answers), "missive_rules": rules})
    else:
        _show(answers, dry_run=dry_run)
        for line in ("", *setup.instructions()) if setup else ():
            output.say(line)
    _end(answers)


def repair(
    sources: Sources = None, *, dry_run: DryRun = False, sandbox: OfSandbox = False, as_json: AsJson = False
) -> None:
    """Check and repair now."""
    settings = _reachable_settings(sandbox=sandbox)
    _finish(settings, _ask(settings, sources, _change(dry_run=dry_run)), dry_run=dry_run, as_json=as_json)


def remove(
    sources: Sources = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    sandbox: OfSandbox = False,
    as_json: AsJson = False,
) -> None:
    """Delete what is ours."""
    settings = with_public_address(settings_for(sandbox=sandbox))
    names = " and ".join(source.capitalize() for source in choose_sources(settings, sources))
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("nobody can be asked without a terminal; say --yes")
        typer.confirm(f"Delete every hook of ours at {names}?", abort=True)
    answers = _ask(settings, sources, Registrar.remove)
    if not as_json and why_no_hooks(settings) is None:
        output.say("The next check makes them again, unless DISABLE_WEBHOOKS is true.")
    _finish(settings, answers, as_json=as_json)


def _look(registrar: Registrar) -> tuple[Survey, Plan]:
    survey = registrar.survey()
    return survey, registrar.plan(survey)


def _reachable_settings(*, sandbox: bool) -> Settings:
    """Return the settings of a deployment that the vendors can reach.

    Raises:
        ConfigError: If they cannot, or must not.
    """
    settings = with_public_address(settings_for(sandbox=sandbox))
    if (why := why_no_hooks(settings)) is not None:
        raise ConfigError(why)
    return settings


def _change(*, dry_run: bool) -> Callable[[Registrar], Plan | HooksReport]:
    """Return what makes the hooks those that are wanted, or only says how."""
    if dry_run:
        return lambda registrar: registrar.plan(registrar.survey())
    return lambda registrar: registrar.register()


def _ask(
    settings: Settings, names: list[str] | None, use: Callable[[Registrar], Result]
) -> dict[Source, Result | TwmError]:
    """Return what *use* returns for each vendor, or why it could not; one does not keep the other from it."""
    answers: dict[Source, Result | TwmError] = {}
    chosen = choose_sources(settings, names)
    with opened_mirror(settings) as engine:
        for source in chosen:
            try:
                with open_registrar(engine, settings, source) as registrar:
                    answers[source] = use(registrar)
            except DatabaseUnavailableError:
                raise
            except TwmError as error:
                answers[source] = error
    return answers


def _finish(
    settings: Settings, answers: Answers[Plan | HooksReport], *, as_json: bool, dry_run: bool = False
) -> None:
    """Write what was done, and end."""
    if as_json:
        output.print_json(_as_json(settings, answers))
    else:
        _show(answers, dry_run=dry_run)
    _end(answers)


def _end(answers: Answers[object]) -> None:
    """Write what went wrong, and end with the exit code that tells the truth."""
    code = output.OK
    for source, answer in answers.items():
        if isinstance(answer, TwmError):
            output.complain(f"{source}: {answer}")
            change = isinstance(answer, ConfigError | AuthenticationError | AccessError)
            code = max(code, output.TO_BE_CHANGED if change else output.FAILED)
        elif isinstance(answer, HooksReport) and (answer.undone or answer.put_off):
            code = max(code, output.FAILED)
    if code:
        raise typer.Exit(code)


def _rows(source: Source, survey: Survey, plan: Plan, *, secrets: HookSecrets | None) -> list[Json]:
    """Return the hooks of one vendor: ours, missing ones, those of others."""
    todo = {action.hook_id: action for action in plan.actions if action.verb == "delete" and survey.wanted}
    ours = [
        _row(
            source,
            hook.event,
            _state(hook, todo.get(hook.hook_id)),
            hook.hook_id,
            _url(source, hook, secrets),
        )
        for hook in plan.ours
    ]
    problems = {
        row.event: f"{row.status}: {row.problem or 'no answer'}" for row in survey.known if row.is_open
    }
    served = {hook.event for hook in plan.ours}
    missing = [
        _row(source, wanted.event, problems.get(wanted.event, "missing"))
        for wanted in survey.wanted
        if wanted.event not in served
    ]
    foreign = [
        _row(source, hook.event, "of others", hook.hook_id, hook.url if secrets else _host_of(hook.url))
        for hook in plan.foreign
    ]
    return ours + missing + foreign


def _row(
    source: Source, event: str, state: str, hook_id: str | None = None, address: str | None = None
) -> Json:
    return {"source": source, "event": event, "state": state, "id": hook_id, "address": address}


def _state(hook: OwnHook, todo: Action | None) -> str:
    if todo is not None:
        return f"to be replaced: {todo.why}"
    return "active" if hook.is_active else "switched off"


def _url(source: Source, hook: OwnHook, secrets: HookSecrets | None) -> str:
    """Return a hook's address; at Missive its last part is the secret."""
    if source == "teamwork":
        return hook.url
    return f"{hook.url}/{secrets.path_for(hook.event) if secrets else '…'}"


def _host_of(url: str) -> str:
    """Return what of the address of somebody else's hook is surely no secret."""
    try:
        return f"{urlsplit(url).scheme}://{urlsplit(url).hostname}/…"
    except ValueError:
        return "…"


def _as_json(settings: Settings, answers: Answers[Plan | HooksReport]) -> Json:
    return {
        "public_url": settings.public_url,
        "sources": [{"source": source, **_result(answer)} for source, answer in answers.items()],
    }


def _result(answer: Plan | HooksReport | TwmError) -> Json:
    if isinstance(answer, TwmError):
        return {"problem": str(answer)}
    if isinstance(answer, Plan):
        return {"planned": [_action(action) for action in answer.actions], "foreign": len(answer.foreign)}
    return {
        "wanted": answer.wanted,
        "registered": answer.registered,
        "done": [_action(step.action) for step in answer.steps if step.problem is None],
        "undone": [{**_action(step.action), "problem": step.problem} for step in answer.undone],
        "put_off": [{"event": row.event, "problem": row.problem} for row in answer.put_off],
        "foreign": len(answer.foreign),
    }


def _action(action: Action) -> Json:
    return {
        "action": action.verb,
        "event": action.event,
        "id": action.hook_id or None,
        "why": action.why or None,
    }


def _show(answers: Answers[Plan | HooksReport], *, dry_run: bool) -> None:
    rows: list[Sequence[object]] = []
    for source, answer in answers.items():
        if isinstance(answer, Plan):
            rows += [(source, a.event, f"to be {DONE[a.verb]}", a.why) for a in answer.actions]
        elif isinstance(answer, HooksReport):
            rows += [_line(source, step.action, step.problem) for step in answer.steps]
    if rows:
        output.print_table("Changes", ("source", "event", "planned" if dry_run else "done", "why"), rows)
    for source, answer in answers.items():
        if isinstance(answer, HooksReport) and answer.wanted:
            output.say(f"{source.capitalize()}: {answer.registered} of {answer.wanted} hooks are registered.")
        elif not isinstance(answer, TwmError) and not rows:
            output.say(f"{source.capitalize()}: nothing is to be done.")


def _line(source: Source, action: Action, problem: str | None) -> Sequence[object]:
    if problem is not None:
        return (source, action.event, f"not {DONE[action.verb]}", problem)
    return (source, action.event, DONE[action.verb], action.why)
