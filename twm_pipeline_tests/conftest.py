"""Fixtures shared by all tests: settings apart from the developer's own, a PostgreSQL database per test."""

from __future__ import annotations

import fcntl
import importlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from sqlalchemy import URL, Connection, Engine

from twm_pipeline.db import EmbeddedServer, open_engine
from twm_pipeline.settings import INHERITED, Settings, load_settings
from twm_pipeline_tests.commands import Twm, run_command
from twm_pipeline_tests.databases import DatabasePool, create, drop

# No deadline: the machines are shared and noisy. HYPOTHESIS_PROFILE=long looks much further.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("long", deadline=None, max_examples=5000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

FOLDER_VARIABLE = "TWM_TEST_FOLDER"
TEMPLATE = "twm_template"
FAST_AND_FORGETFUL = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "64MB",
}


def pytest_configure(config: pytest.Config) -> None:
    """Make one folder for the servers of this run; xdist's workers inherit its name."""
    config.pluginmanager.import_plugin("twm_pipeline_tests.leaks")
    if not hasattr(config, "workerinput"):
        folder = Path(tempfile.mkdtemp(prefix="twm-tests-"))
        folder.chmod(0o711)  # as root the server runs as another account
        os.environ[FOLDER_VARIABLE] = str(folder)


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        folder = Path(os.environ.pop(FOLDER_VARIABLE))
        _session_server(folder).stop()
        shutil.rmtree(folder)


def _session_server(folder: Path) -> EmbeddedServer:
    return EmbeddedServer(folder / "postgres", options=FAST_AND_FORGETFUL)


@pytest.fixture(autouse=True)
def _no_settings_of_the_developer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide `.env` and this shell's variables: no test may meet a real account or the project's `.twm`."""
    for name in (*Settings.model_fields, INHERITED):
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setitem(Settings.model_config, "env_file", None)
    monkeypatch.setenv("TWM_DATA_DIR", str(tmp_path / ".twm"))


@pytest.fixture(scope="session")
def servers_folder() -> Path:
    """Return a folder that the account of an embedded server can reach, removed after the run."""
    return Path(os.environ[FOLDER_VARIABLE])


@pytest.fixture
def place(servers_folder: Path) -> Iterator[Path]:
    """Return an empty folder for servers of one test; whatever runs below it is stopped afterwards."""
    folder = Path(tempfile.mkdtemp(dir=servers_folder))
    folder.chmod(0o711)
    yield folder
    for data in folder.rglob("data/PG_VERSION"):
        EmbeddedServer(data.parent.parent).stop()
    shutil.rmtree(folder)


@pytest.fixture
def running(place: Path) -> EmbeddedServer:
    server = EmbeddedServer(place / "postgres")
    server.start()
    return server


@pytest.fixture(scope="session")
def server(servers_folder: Path) -> EmbeddedServer:
    """Return the server that all tests and all workers of this run share."""
    server = _session_server(servers_folder)
    server.start()
    return server


@pytest.fixture(scope="session")
def template_database(server: EmbeddedServer) -> str:
    """Return the name of a migrated database to clone; the first worker that needs it makes it."""
    with (server.folder / "template.lock").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        if not file.read():
            server.create_database(TEMPLATE)
            _migrate(server.url(TEMPLATE))
            file.write("done")
    return TEMPLATE


def _migrate(url: URL) -> None:
    if importlib.util.find_spec("twm_pipeline.mirror") is None:
        return
    engine = open_engine(url)
    importlib.import_module("twm_pipeline.mirror.schema").migrate(engine)
    engine.dispose()


@pytest.fixture(scope="session")
def databases(server: EmbeddedServer, template_database: str) -> DatabasePool:
    """Return the databases of this worker."""
    return DatabasePool(server, template_database)


@pytest.fixture
def database(databases: DatabasePool) -> Iterator[URL]:
    """Return the address of a database of this test's own, with every table and no row."""
    with databases.database() as url:
        yield url


@pytest.fixture
def empty_database(server: EmbeddedServer) -> Iterator[URL]:
    """Return the address of a database of this test's own with nothing in it."""
    name = create(server, template="template0")
    yield server.url(name)
    drop(server, name)


@pytest.fixture
def engine(database: URL) -> Iterator[Engine]:
    """Return an engine on this test's database."""
    engine = open_engine(database)
    yield engine
    engine.dispose()


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    """Return a connection to this test's database; nothing of it is committed unless the test does so."""
    with engine.connect() as connection:
        yield connection


@pytest.fixture
def own_databases(database: URL, empty_database: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have commands use databases of this test's own."""
    monkeypatch.setenv("PG_DSN", database.render_as_string(hide_password=False))
    monkeypatch.setenv("DAGSTER_PG_URL", empty_database.render_as_string(hide_password=False))


@pytest.fixture
def twm(own_databases: None) -> Twm:
    """Return what runs a command."""
    return run_command


@pytest.fixture
def settings(database: URL, tmp_path: Path) -> Settings:
    """Return settings whose mirror is this test's database and whose files are in `tmp_path`."""
    dsn = database.render_as_string(hide_password=False)
    return load_settings(pg_dsn=dsn, twm_data_dir=tmp_path / ".twm")
