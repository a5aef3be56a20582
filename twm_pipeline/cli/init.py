"""`twm init`: asks for what a deployment needs, tests each answer live, writes `.env`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from pydantic import SecretStr
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from twm_pipeline.cli import INTERRUPTED, output
from twm_pipeline.cli.doctor import Finding, examine_airtable, examine_vendor
from twm_pipeline.cli.env_file import with_values, write_env
from twm_pipeline.cli.mirror import opened_mirror
from twm_pipeline.errors import ConfigError, TwmError
from twm_pipeline.settings import PROJECT_DIR, Settings, load_settings
from twm_pipeline.settings_pages import env_example

HELP = """Ask for accounts and addresses, test each answer live, and write .env.

What is set already is offered again: Enter keeps it, a single - takes it away. Nothing is written before
the end, and other lines of the file stay as they are. Each test is one or two cheap requests.

Example: twm init
"""

KEEP, REMOVE = "", "-"


@dataclass(frozen=True, slots=True)
class Question:
    """One setting to ask for.

    Args:
        name: The setting's field.
        words: What to ask.
        where: Where the answer is found.
    """

    name: str
    words: str
    where: str = ""

    @property
    def is_secret(self) -> bool:
        """Whether the answer is not to be seen."""
        return "SecretStr" in str(Settings.model_fields[self.name].annotation)


@dataclass(frozen=True, slots=True)
class Topic:
    """Settings that are tested together.

    Args:
        title: Said before the questions.
        questions: In their order; where the first has no answer, the others are not asked.
        examine: Tests the answers live, with the mirror's engine; None: nothing to test.
    """

    title: str
    questions: Sequence[Question]
    examine: Callable[[Engine, Settings], Finding] | None = None


DATABASE = Topic(
    "Database. Without an address an embedded PostgreSQL is used; it can move to a server later.",
    [
        Question(
            "pg_dsn",
            "Address of a PostgreSQL database",
            "postgresql://user:password@host:5432/database; Enter: the embedded one",
        )
    ],
)
TOPICS = (
    Topic(
        "Teamwork. Take the key of somebody who sees every project that is to be mirrored.",
        [
            Question("teamwork_base_url", "Address of your site", "such as https://example.teamwork.com"),
            Question("teamwork_api_key", "API key", "your profile → Edit my details → API & Mobile"),
            Question("teamwork_process_after", "Only tasks created on or after", "31.12.2024; Enter: all"),
        ],
        lambda engine, settings: examine_vendor(engine, settings, "teamwork"),
    ),
    Topic(
        "Missive. The mirror holds what the token's owner sees (Productive plan or higher).",
        [
            Question("missive_api_token", "API token", "Settings → API → Create a new token"),
            Question(
                "missive_process_after", "Only messages delivered on or after", "31.12.2024; Enter: all"
            ),
        ],
        lambda engine, settings: examine_vendor(engine, settings, "missive"),
    ),
    Topic(
        "Airtable, for colleagues. Leave it out and add it whenever you like.",
        [
            Question(
                "airtable_api_key",
                "Personal access token",
                "airtable.com/create/tokens; its scopes: docs/airtable.md",
            ),
            Question("airtable_base_id", "The base", "its address in the browser, or app…"),
        ],
        examine_airtable,
    ),
    Topic(
        "Webhooks make changes arrive within a second; without them the vendors are polled every 5 s.",
        [Question("public_url", "Public address of this machine", "such as https://sync.example.com")],
    ),
    Topic(
        "Time zone of dates that have no time.",
        [Question("timezone", "Time zone", "such as Europe/Berlin")],
    ),
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("init", help=HELP)(init)


def init(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written, without secrets.")] = False,
) -> None:
    """Ask, test, write."""
    path = PROJECT_DIR / ".env"
    answers = _Answers()
    output.note(f"Enter keeps what is in brackets, {REMOVE} takes it away. Ctrl-C writes nothing.")
    try:
        _ask(answers, DATABASE, None)
        with opened_mirror(answers.settings()) as engine:
            for topic in TOPICS:
                _ask(answers, topic, engine)
    except typer.Abort:
        output.complain("Nothing is written.")
        raise typer.Exit(INTERRUPTED) from None
    written = {name.upper(): value for name, value in answers.values.items()}
    text = path.read_text(encoding="utf-8-sig") if path.exists() else env_example()
    write_env(path, with_values(text, written))
    if as_json:
        output.print_json({"file": str(path), "settings": sorted(written)})
    else:
        output.say(f"Written: {path} (only you may read it).")
        output.say("Next: `make run` starts everything, `twm doctor` tests it again at any time.")


class _Answers:
    """The settings as they are, and what was answered."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def settings(self, **tried: str) -> Settings:
        """Return the settings as they would be with the answers, and with *tried*.

        Raises:
            ConfigError: If one of them cannot be used.
        """
        answers = {**self.values, **tried}
        defaults = {name: Settings.model_fields[name].get_default() for name in answers}
        return load_settings(**{name: value or defaults[name] for name, value in answers.items()})

    def shown(self, name: str) -> str:
        """Return the present value for the prompt; empty if there is none."""
        value: Any = getattr(self.settings(), name)
        if value is None:
            return ""
        return "set, not shown" if isinstance(value, SecretStr) else str(value)


def _ask(answers: _Answers, topic: Topic, engine: Engine | None) -> None:
    """Ask the questions of *topic* until the answers work, or are left out."""
    output.note("")
    output.note(topic.title)
    while True:
        answers.values |= _ask_once(answers, topic)
        finding = _examine(topic, answers.settings(), engine)
        if finding is None or finding.verdict == "off":
            return
        if finding.verdict != "wrong":
            output.note(f"  {finding.text}")
            return
        output.complain(f"  {finding.text}")
        if engine is not None and typer.confirm("  Keep it all the same?", default=False, err=True):
            return


def _ask_once(answers: _Answers, topic: Topic) -> dict[str, str]:
    """Return what was answered; nothing for what is to stay as it is."""
    given: dict[str, str] = {}
    first = topic.questions[0].name
    for question in topic.questions:
        given |= _ask_for(answers, question, given)
        if not given.get(first, answers.shown(first)):
            break
    if "airtable_api_key" in given:
        given["db_backend"] = "both" if given["airtable_api_key"] else "postgres"
    return given


def _ask_for(answers: _Answers, question: Question, given: dict[str, str]) -> dict[str, str]:
    """Ask until the answer has the form that the setting expects."""
    while True:
        answer = _prompt(question, before=answers.shown(question.name))
        try:
            answers.settings(**given, **answer)
        except ConfigError as error:
            output.complain(str(error))
        else:
            return answer


def _prompt(question: Question, *, before: str) -> dict[str, str]:
    words = f"  {question.words}" + (f" ({question.where})" if question.where else "")
    value = typer.prompt(
        f"{words} [{before}]" if before else words,
        default=KEEP,
        show_default=False,
        hide_input=question.is_secret and is_interactive(),
        err=True,
    )
    value = str(value).strip()
    return {} if value == KEEP else {question.name: "" if value == REMOVE else value}


def is_interactive() -> bool:
    """Return whether somebody types the answers: those that are secrets are not shown then."""
    return sys.stdin.isatty()


def _examine(topic: Topic, settings: Settings, engine: Engine | None) -> Finding | None:
    """Return what the live test says; None where there is nothing to test."""
    if engine is not None:
        with output.progress("testing …"):
            return topic.examine(engine, settings) if topic.examine is not None else None
    try:
        with opened_mirror(settings):
            return Finding("database", "ok", "the database answers, and tables can be made in it")
    except TwmError as error:
        return Finding("database", "wrong", str(error))
    except DBAPIError as error:
        words = f"tables cannot be made ({type(error.orig).__name__})"
        return Finding("database", "wrong", f"{words}; its user needs CREATE on the database and on public")
