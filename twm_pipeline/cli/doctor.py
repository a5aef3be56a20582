"""`twm doctor`: settings, credentials, permissions, databases, tested live and told in plain words."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer
from alembic.config import Config
from alembic.script import ScriptDirectory
from pydantic import SecretStr
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError

from twm_pipeline.attachments import open_store
from twm_pipeline.cli import output
from twm_pipeline.cli.mirror import embedded_while_needed, opened_mirror
from twm_pipeline.cli.options import AsJson, OfSandbox, settings_for
from twm_pipeline.db import connect_database, dagster_url
from twm_pipeline.errors import AccessError, TwmError
from twm_pipeline.labels import load_categories
from twm_pipeline.mirror.schema import MIGRATIONS_DIR, migrate
from twm_pipeline.mirror.status import read_new_fields
from twm_pipeline.records import SOURCES, Source
from twm_pipeline.settings import PROJECT_DIR, Settings
from twm_pipeline.sources.missive import MissiveSource
from twm_pipeline.sources.teamwork import TeamworkSource
from twm_pipeline.sync.accounts import configured_sources
from twm_pipeline.sync.engine import open_pass
from twm_pipeline.sync.probe import Answer
from twm_pipeline.sync.probe import probe as ask_openly
from twm_pipeline.sync.publish import why_stopped
from twm_pipeline.sync.publishing import examine_base

OLDEST_POSTGRESQL = 14
LEAST_FREE_BYTES = 1 << 30

HELP = """Test settings, credentials, permissions and databases live; says in words what to change.

Each vendor that is configured gets one or two cheap requests, within its budget. With --probe it gets some
twenty more, which only read, and answer for this account what the vendors' documentation leaves open.

Examples: twm doctor · twm doctor --json · twm doctor --probe · twm doctor --sandbox
"""

Verdict = Literal["ok", "off", "warning", "wrong"]
MARKS: dict[Verdict, str] = {"ok": "ok", "off": "off", "warning": "!", "wrong": "WRONG"}


@dataclass(frozen=True, slots=True)
class Finding:
    """What one examination found."""

    name: str
    verdict: Verdict
    text: str


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor", help=HELP)(doctor)


def doctor(
    *,
    probe: Annotated[
        bool, typer.Option("--probe", help="Also answer the open questions on this account.")
    ] = False,
    sandbox: OfSandbox = False,
    as_json: AsJson = False,
) -> None:
    """Test everything."""
    settings = settings_for(sandbox=sandbox)
    with output.progress("testing …") as show:
        findings = _examine_all(settings)
        show("asking …")
        answers = _probe_all(settings) if probe else []
    if as_json:
        output.print_json(
            {
                "settings": shown_settings(settings),
                "findings": [asdict(item) for item in findings],
                "answers": [asdict(item) for item in answers],
            }
        )
    else:
        output.print_table("Settings", ("name", "value"), shown_settings(settings).items())
        output.say("")
        rows = [(MARKS[item.verdict], item.name, item.text) for item in findings]
        output.print_table("Findings", ("", "what", "found"), rows)
        if answers:
            output.say("")
            found = [(item.source, item.question, item.answer) for item in answers]
            output.print_table("Open questions", ("account", "question", "answer"), found)
    if any(item.verdict == "wrong" for item in findings):
        raise typer.Exit(output.TO_BE_CHANGED)


def shown_settings(settings: Settings) -> dict[str, str]:
    """Return every setting that is not at its default; secrets masked."""
    changed = {
        name: value
        for name, value in settings
        if value != Settings.model_fields[name].get_default() and value is not None
    }
    return {name.upper(): _shown(value) for name, value in changed.items()}


def _shown(value: object) -> str:
    if isinstance(value, SecretStr):
        return "set (not shown)"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _examine_all(settings: Settings) -> list[Finding]:
    try:
        with embedded_while_needed(settings):
            return examine(settings)
    except TwmError as error:
        return [Finding("database", "wrong", str(error))]


def _probe_all(settings: Settings) -> list[Answer]:
    """Return what the accounts answer; one that cannot be asked has been told of by the findings."""
    answers: list[Answer] = []
    with opened_mirror(settings) as engine:
        for source in configured_sources(settings):
            try:
                with open_pass(engine, settings, source, owns_checkpoints=False) as work:
                    answers += ask_openly(work)
            except TwmError as error:
                output.complain(f"{source}: {error}")
    return answers


def examine(settings: Settings) -> list[Finding]:
    """Return the findings; what needs the mirror is left out where there is none."""
    findings = [_categories(settings), _attachments(settings), _room(settings)]
    try:
        engine = connect_database(settings)
    except TwmError as error:
        return [Finding("database", "wrong", str(error)), *findings, *_dagster(settings)]
    try:
        database = list(_database(engine))
        reachable = all(item.verdict != "wrong" for item in database)
        vendors = [examine_vendor(engine, settings, source) for source in SOURCES] if reachable else []
        base = [examine_airtable(engine, settings)] if reachable else []
        fields = [_fields(engine)] if reachable else []
        return [*database, *vendors, *fields, *base, *findings, *_dagster(settings)]
    finally:
        engine.dispose()


def _database(engine: Engine) -> Iterator[Finding]:
    with engine.connect() as connection:
        version = int(connection.scalar(text("SHOW server_version_num")) or 0)
        name = connection.scalar(text("SHOW server_version"))
        role = connection.execute(
            text(
                "SELECT current_user AS name,"
                " has_database_privilege(current_database(), 'CREATE') AS creates,"
                " has_schema_privilege('public', 'CREATE') AS shows,"
                " pg_database_size(current_database()) AS size"
            )
        ).one()
    words = f"PostgreSQL {name} at {engine.url.host or 'a socket'}, {role.size / 1e6:,.0f} MB"
    old = version // 10_000 < OLDEST_POSTGRESQL
    yield Finding("database", "wrong" if old else "ok", words + (", too old: 14 is needed" if old else ""))
    if not (role.creates and role.shows):
        grant = f'GRANT CREATE ON DATABASE "{engine.url.database}" TO "{role.name}"'
        yield Finding(
            "role",
            "wrong",
            f"{role.name} may not create tables; as its owner run: {grant};"
            f' GRANT CREATE ON SCHEMA public TO "{role.name}"',
        )
        return
    yield Finding("role", "ok", f"{role.name} may create tables and views")
    yield _migrations(engine)


def _migrations(engine: Engine) -> Finding:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS_DIR))
    wanted = ScriptDirectory.from_config(config).get_current_head()
    try:
        migrate(engine)
    except DBAPIError as error:
        return Finding("tables", "wrong", f"cannot be brought up to date ({type(error.orig).__name__})")
    return Finding("tables", "ok", f"up to date (migration {wanted})")


def examine_vendor(engine: Engine, settings: Settings, source: Source) -> Finding:
    """Return whether the credentials work, by one cheap request each for who and what."""
    if source not in configured_sources(settings):
        return Finding(source, "off", "no credentials are set; this vendor is switched off")
    try:
        with open_pass(engine, settings, source, owns_checkpoints=False) as work:
            if source == "teamwork":
                return _teamwork(TeamworkSource(work.session))
            return _missive(MissiveSource(work.session))
    except TwmError as error:
        return Finding(source, "wrong", str(error))


def examine_airtable(engine: Engine, settings: Settings) -> Finding:
    """Return whether the base can be published to; nothing is written."""
    if not settings.publishes:
        return Finding("airtable", "off", "DB_BACKEND is postgres; `both` publishes the mirror to Airtable")
    if not settings.can_publish:
        return Finding("airtable", "off", "AIRTABLE_API_KEY and AIRTABLE_BASE_ID are not both set")
    with engine.connect() as connection:
        stopped = why_stopped(connection, settings)
    if stopped is not None:
        return Finding("airtable", "wrong", stopped)
    try:
        access = examine_base(engine, settings)
    except TwmError as error:
        return Finding("airtable", "wrong", str(error))
    if access.problems:
        return Finding("airtable", "wrong", "; ".join(access.problems))
    made = "; ".join(map(str, access.actions))
    return Finding("airtable", "ok", f"the base can be published to{': first, ' + made if made else ''}")


def _fields(engine: Engine) -> Finding:
    """Return which fields the vendors began to send lately."""
    with engine.connect() as connection:
        found = [item for source in SOURCES for item in read_new_fields(connection, source)]
    if not found:
        return Finding("fields", "ok", "the vendors send the fields that they sent before")
    return Finding("fields", "warning", "; ".join(f"{item['stream']}: {item['text']}" for item in found))


def _teamwork(api: TeamworkSource) -> Finding:
    person = api.fetch_me().data.get("person") or {}
    who = "an administrator" if person.get("isAdmin") or person.get("administrator") else "no administrator"
    problems = _denied({"tasks": lambda: api.fetch_tasks(page_size=1)})
    if problems:
        return Finding("teamwork", "wrong", f"the key works, but {problems}")
    return Finding("teamwork", "ok", f"the key works; it is of {who}, who sees only the projects of theirs")


def _missive(api: MissiveSource) -> Finding:
    api.fetch_owner_id()
    problems = _denied({"conversations": lambda: api.fetch_conversations("all")})
    if problems:
        return Finding("missive", "wrong", f"the token works, but {problems}")
    return Finding("missive", "ok", "the token works and sees conversations")


def _denied(calls: dict[str, Callable[[], object]]) -> str:
    denied = []
    for name, call in calls.items():
        try:
            call()
        except AccessError:
            denied.append(name)
    return f"may not read {', '.join(denied)}" if denied else ""


def _categories(settings: Settings) -> Finding:
    path = settings.label_categories_file
    try:
        categories = load_categories(path)
    except TwmError as error:
        return Finding("categories", "wrong", str(error))
    if not path.exists():
        return Finding("categories", "off", f"no file {path}; the views have no category columns")
    return Finding("categories", "ok", f"{len(categories)} in {path}")


def _attachments(settings: Settings) -> Finding:
    """Return whether a file can be put into the store, read and removed."""
    if not settings.attachments_download:
        return Finding("attachments", "off", "ATTACHMENTS_DOWNLOAD is false; files are not downloaded")
    try:
        open_store(settings).probe()
    except TwmError as error:
        return Finding("attachments", "wrong", f"{settings.attachments_store}: {error}")
    return Finding("attachments", "ok", f"files can be put into {settings.attachments_store}")


def _room(settings: Settings) -> Finding:
    place = settings.twm_data_dir
    existing: Path = next(path for path in (place, *place.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    words = f"{free / 1e9:,.1f} GB free under {place}"
    return Finding("room", "ok" if free >= LEAST_FREE_BYTES else "warning", words)


def _dagster(settings: Settings) -> Iterator[Finding]:
    missing = [name for name in ("dagster.yaml", "workspace.yaml") if not (PROJECT_DIR / name).exists()]
    if missing:
        yield Finding("dagster", "wrong", f"{' and '.join(missing)} missing in {PROJECT_DIR}")
        return
    try:
        engine = create_engine(dagster_url(settings), hide_parameters=True)
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
        engine.dispose()
    except TwmError as error:
        yield Finding("dagster", "wrong", f"its storage: {error}")
        return
    except DBAPIError as error:
        yield Finding("dagster", "wrong", f"its storage does not answer ({type(error.orig).__name__})")
        return
    yield Finding("dagster", "ok", f"its storage answers ({engine.url.host}, {engine.url.database})")
