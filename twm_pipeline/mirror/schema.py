"""The mirror's schema: Alembic migrations, the people's views and the read-only role."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from twm_pipeline.mirror.views import apply_views

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from twm_pipeline.labels import Categories

logger = logging.getLogger(__name__)

MIGRATIONS_DIR = Path(__file__).parent / "migrations"
SCHEMA_LOCK = 74_770_000
READER_ROLE = "twm_reader"


def migrate(engine: Engine) -> None:
    """Bring the database up to date: tables, functions, views, role. Safe to call from several processes.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: If a migration fails; nothing of it stays.
    """
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": SCHEMA_LOCK})
        if not _is_at_head(connection):
            _upgrade(connection)
        apply_views(connection)
        if not _reader_sees_all(connection):
            _grant_reader(connection)


def _is_at_head(connection: Connection) -> bool:
    """Return whether every migration was applied; every run asks, and Alembic needs longer for the answer."""
    if connection.scalar(text("SELECT to_regclass('twm.alembic_version')")) is None:
        return False
    newest = max(path.name for path in (MIGRATIONS_DIR / "versions").glob("[0-9]*.py"))
    applied = connection.scalars(text("SELECT version_num FROM twm.alembic_version")).all()
    return applied == [newest.partition("_")[0]]


def _upgrade(connection: Connection) -> None:
    connection.execute(text("CREATE SCHEMA IF NOT EXISTS twm"))
    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS_DIR))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def categorize(engine: Engine, categories: Categories) -> bool:
    """Store *categories* and show them as columns of the views; return whether anything changed."""
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": SCHEMA_LOCK})
        stored = {
            row.category: list(row.patterns)
            for row in connection.execute(text("SELECT category, patterns FROM twm.label_categories"))
        }
        wanted = {name: list(patterns) for name, patterns in categories.items()}
        gone: dict[str, list[str]] = {name: [] for name in stored if name not in wanted}
        if {**gone, **wanted} == stored:
            return False
        for name, patterns in {**gone, **wanted}.items():
            connection.execute(
                text(
                    "INSERT INTO twm.label_categories (category, patterns) VALUES (:name, :patterns)"
                    " ON CONFLICT (category) DO UPDATE SET patterns = excluded.patterns"
                ),
                {"name": name, "patterns": patterns},
            )
        apply_views(connection)
        logger.info("categories applied: %d", len(wanted))
        return True


def _reader_sees_all(connection: Connection) -> bool:
    """Return whether the read-only role exists and may read every table and both views."""
    query = text(
        "SELECT bool_and(has_table_privilege(r.oid, c.oid, 'SELECT')"
        " AND has_schema_privilege(r.oid, c.relnamespace, 'USAGE'))"
        " FROM pg_roles r, pg_class c WHERE r.rolname = :role AND c.relkind IN ('r', 'v')"
        " AND (c.relnamespace::regnamespace::text IN ('teamwork', 'missive', 'twm', 'insights')"
        " OR c.oid IN ('public.tasks'::regclass, 'public.emails'::regclass))"
    )
    return bool(connection.scalar(query, {"role": READER_ROLE}))


def _grant_reader(connection: Connection) -> None:
    """Create the read-only role where creating roles is allowed, and let it read what exists."""
    may_create = connection.scalar(
        text("SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user")
    )
    exists = connection.scalar(text("SELECT count(*) FROM pg_roles WHERE rolname = :r"), {"r": READER_ROLE})
    if not exists and not may_create:
        logger.info("the role %s was not created: this user may not create roles", READER_ROLE)
        return
    if not exists:
        # The role belongs to the whole server: the process of another database may be first.
        with contextlib.suppress(IntegrityError, ProgrammingError), connection.begin_nested():
            connection.execute(text(f"CREATE ROLE {READER_ROLE} NOLOGIN"))
    connection.execute(
        text(f"GRANT USAGE ON SCHEMA public, teamwork, missive, twm, insights TO {READER_ROLE}")
    )
    for schema in ("teamwork", "missive", "twm", "insights"):
        connection.execute(text(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {READER_ROLE}"))
    connection.execute(text(f"GRANT SELECT ON public.tasks, public.emails TO {READER_ROLE}"))
