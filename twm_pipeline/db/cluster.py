"""The data folder of one embedded server: created, started and stopped as the account that owns it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from twm_pipeline.db.programs import Programs
from twm_pipeline.errors import ConfigError, DatabaseUnavailableError

START_SECONDS = 120


class Cluster:
    """One cluster of databases on disk and the process that serves it, if there is one."""

    def __init__(self, data: Path, programs: Programs) -> None:
        self.data = data
        self.programs = programs

    def exists(self) -> bool:
        """Return whether the cluster was created, wholly."""
        return (self.data / "PG_VERSION").exists()

    def create(self, *, role: str, password: Path, options: Mapping[str, str]) -> None:
        """Write a new cluster beside its place, then move it there whole.

        Args:
            role: The superuser's name.
            password: File that holds the superuser's password.
            options: Settings written into `postgresql.conf`; `ALTER SYSTEM` overrides them.

        Raises:
            ConfigError: If PostgreSQL cannot write it; the text is PostgreSQL's own.
        """
        draft = self.data.with_name("data.new")
        secret = self.data.with_name("password.new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        write_private(secret, password.read_text())
        if (account := self.programs.account) is not None:
            os.chown(draft, account.uid, account.gid)
            os.chown(secret, account.uid, account.gid)
        done = self.programs.run(
            "initdb",
            *("--pgdata", str(draft), "--username", role, "--pwfile", str(secret), "--auth", "scram-sha-256"),
            *("--encoding", "UTF8", "--locale", "C"),
            *("--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"),
            *(word for name, value in options.items() for word in ("-c", f"{name}={value}")),
        )
        secret.unlink()
        if done.returncode != 0:
            msg = f"The embedded PostgreSQL could not be set up in {self.data}.\n{done.stderr.strip()}"
            raise ConfigError(msg)
        draft.rename(self.data)

    def postmaster(self) -> int | None:
        """Return the process id of the living server of this folder; the pid file alone proves nothing."""
        import psutil  # noqa: PLC0415 - part of the extra `embedded`; deployments with PG_DSN do without

        line = self._pid_file_line(0)
        if line is None or not line.isdigit():
            return None
        try:
            process = psutil.Process(int(line))
            serves = process.name().startswith("postgres") and Path(process.cwd()) == self.data.resolve()
            return process.pid if serves and process.status() != psutil.STATUS_ZOMBIE else None
        except (psutil.Error, OSError):
            return None

    def recorded_folder(self) -> Path | None:
        """Return the folder under which the server was started, which may have been moved since."""
        line = self._pid_file_line(1)
        return None if line is None else Path(line).resolve()

    def recorded_port(self) -> int | None:
        """Return the port that the server wrote down when it started."""
        line = self._pid_file_line(3)
        return int(line) if line is not None and line.isdigit() else None

    def launch(self, *, host: str, port: int) -> bool:
        """Start the server in a session of its own; False when it does not come up.

        A pid file is removed first: PostgreSQL refuses to start while any process of the same user has the
        number in it. Callers have looked that no server of this folder lives; the segment of shared memory
        that PostgreSQL also checks goes on keeping two servers apart.
        """
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        done = self.programs.run(
            *("pg_ctl", "start", "--wait", "--timeout", str(START_SECONDS), "--pgdata", str(self.data)),
            *("--log", str(self.data / "start.log")),
            *("--options", f"-c port={port} -c listen_addresses={host}"),
        )
        return done.returncode == 0

    def stop(self) -> None:
        """Stop the living server and end its connections.

        Raises:
            DatabaseUnavailableError: If it does not go.
        """
        for mode in ("fast", "immediate"):
            self.programs.run("pg_ctl", "stop", "--wait", "--mode", mode, "--pgdata", str(self.data))
            if self.postmaster() is None:
                return
        msg = f"The embedded PostgreSQL in {self.data} does not stop.\n{self.log_end()}"
        raise DatabaseUnavailableError(msg)

    def log_end(self) -> str:
        """Return the last lines that the server wrote."""
        logs = [log for log in (self.data / "start.log", *self.data.glob("log/*.log")) if log.exists()]
        if not logs:
            return "It left no log."
        newest = max(logs, key=lambda log: log.stat().st_mtime)
        return "\n".join([f"The end of {newest}:", *newest.read_text(errors="replace").splitlines()[-8:]])

    def _pid_file_line(self, number: int) -> str | None:
        try:
            return (self.data / "postmaster.pid").read_text().splitlines()[number].strip()
        except (FileNotFoundError, IndexError):
            return None


def write_private(path: Path, text: str) -> None:
    """Write *text* to *path* at once and whole, readable by its owner only."""
    draft = path.with_name(path.name + ".draft")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
