"""PostgreSQL goes away, or takes nothing any more: an outage, after which nothing is missing (G3)."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from sqlalchemy import URL

from twm_pipeline.db import EmbeddedServer, open_engine
from twm_pipeline.errors import DatabaseUnavailableError, TwmError
from twm_pipeline.mirror.schema import migrate
from twm_pipeline.sandbox import Sandbox, SandboxOptions
from twm_pipeline_tests.conftest import FAST_AND_FORGETFUL
from twm_pipeline_tests.faults.hooked import deliver, drain, hooked, waiting
from twm_pipeline_tests.faults.world import World, settings_for, wait_for_requests

TROUBLE_CODES = {"its disk is full": "53100", "its disk fails": "58030", "it became read-only": "25006"}


def execute(world: World, *statements: str) -> None:
    """Do something to the database that the product does not do."""
    with world.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def drop_connections(world: World) -> None:
    """Have PostgreSQL end every connection of this database but the one that asks."""
    execute(
        world,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )


@contextlib.contextmanager
def read_only(world: World) -> Iterator[World]:
    """Let the database take nothing, as a standby or a provider's quota does."""
    name = world.engine.url.database
    execute(world, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    world.engine.dispose()
    try:
        yield world
    finally:
        execute(world, "SET default_transaction_read_only = off", f'ALTER DATABASE "{name}" RESET ALL')
        world.engine.dispose()


def refusing(code: str, table: str) -> Callable[[World], AbstractContextManager[World]]:
    """Return what lets every write of rows to *table* fail with an SQLSTATE of a server in trouble."""

    @contextlib.contextmanager
    def trouble(world: World) -> Iterator[World]:
        execute(
            world,
            f"CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" RAISE EXCEPTION 'could not extend file' USING ERRCODE = '{code}'; END $$",
            f"CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON {table} EXECUTE FUNCTION refuse()",
        )
        try:
            yield world
        finally:
            execute(world, f"DROP TRIGGER refuse ON {table}")

    return trouble


@contextlib.contextmanager
def without_connections(world: World) -> Iterator[World]:
    """Let PostgreSQL give out fewer connections than a pass needs."""
    role = f"poor_{uuid.uuid4().hex[:8]}"
    execute(world, f"CREATE ROLE {role} LOGIN PASSWORD '{role}' CONNECTION LIMIT 2 IN ROLE twm")
    poor = open_engine(world.engine.url.set(username=role, password=role))
    try:
        yield World(control=world.control, engine=poor, settings=world.settings)
    finally:
        poor.dispose()
        execute(world, f"DROP ROLE {role}")


TROUBLES: dict[str, Callable[[World], AbstractContextManager[World]]] = {
    "it is read-only": read_only,
    "it has no connection left": without_connections,
    **{
        f"{words} at {table}": refusing(code, table)
        for words, code in TROUBLE_CODES.items()
        for table in ("teamwork.tasks", "twm.checkpoints")
    },
}


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)
def test_what_postgresql_does_not_take_is_an_outage_that_loses_nothing(make_world, trouble):
    world = make_world(tasks=20, conversations=4)
    world.sync("teamwork")
    world.control.advance(300)  # more than a pass steps back behind its checkpoint
    world.control.create_task("Order steel")
    world.control.advance(300)

    with trouble(world) as troubled, pytest.raises(DatabaseUnavailableError, match="PostgreSQL"):
        troubled.sync("teamwork")
    world.sync("teamwork")

    world.assert_true("teamwork")


@pytest.mark.parametrize(
    "trouble", [read_only, refusing("53100", "teamwork.tasks")], ids=["read-only", "full"]
)
def test_deliveries_wait_while_postgresql_takes_nothing_and_no_attempt_is_counted(make_world, trouble):
    world = make_world(tasks=20, conversations=4)
    world.sync("teamwork")
    with hooked(world) as told:
        task_id = told.control.create_task("Order steel")
        deliver(told)
        with trouble(told), pytest.raises(DatabaseUnavailableError):
            drain(told, "teamwork")
        kept = waiting(told)
        drain(told, "teamwork")

    assert kept == 1
    assert waiting(told) == 0
    assert told.scalar("SELECT title FROM teamwork.tasks WHERE id = :id", id=task_id) == "Order steel"


def test_connections_dropped_during_an_import_again_and_again(make_world):
    world = make_world(tasks=300, conversations=30, latency_seconds=0.002)
    stopped: list[TwmError] = []
    thread = threading.Thread(target=lambda: stopped.extend(world.insist("missive")))

    thread.start()
    for part in range(1, 4):
        wait_for_requests(world.control, 15 * part)
        drop_connections(world)
    thread.join()
    world.insist("missive")
    world.settle("missive")

    assert stopped
    assert all(isinstance(error, TwmError) for error in stopped)
    world.assert_true("missive")


def restart(server: EmbeddedServer) -> None:
    server.stop()


def crash(server: EmbeddedServer) -> None:
    """Let the server end as in a crash: what was not written is found again in its log."""
    os.kill(int((server.data / "postmaster.pid").read_text().split()[0]), signal.SIGQUIT)


@pytest.fixture
def own_server(servers_folder: Path) -> Iterator[EmbeddedServer]:
    folder = servers_folder / f"own-{uuid.uuid4().hex[:8]}"
    server = EmbeddedServer(folder, options=FAST_AND_FORGETFUL)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def own_database(own_server: EmbeddedServer) -> URL:
    own_server.create_database("twm")
    return own_server.url("twm")


@pytest.mark.parametrize("end", [restart, crash], ids=["restart", "crash"])
def test_postgresql_restarted_during_an_import(own_server, own_database, tmp_path, end):
    with Sandbox(SandboxOptions(tasks=300, conversations=40, latency_seconds=0.003)) as box:
        engine = open_engine(own_database)
        migrate(engine)
        settings = settings_for(box, own_database, tmp_path / ".twm")
        world = World(control=box.control, engine=engine, settings=settings)
        stopped: list[TwmError] = []
        thread = threading.Thread(target=lambda: stopped.extend(world.insist("missive")))
        thread.start()
        wait_for_requests(world.control, 60)
        end(own_server)
        own_server.start()
        thread.join()
        world.insist("missive", "teamwork")
        world.settle()

        assert stopped
        world.assert_true()
        engine.dispose()
