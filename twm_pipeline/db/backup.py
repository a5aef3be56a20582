"""A mirror in one file, and back: PostgreSQL's own `pg_dump` and `pg_restore`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo
from sqlalchemy import URL

from twm_pipeline.db.programs import installed_folders
from twm_pipeline.errors import ConfigError, PermanentError


def back_up(url: URL, file: Path) -> int:
    """Write the database at *url* into *file*, which appears whole or not at all; return its bytes.

    Other processes may go on writing: the file holds one instant.

    Raises:
        ConfigError: If no `pg_dump` here is as new as the server, or *file* cannot be written.
        PermanentError: If PostgreSQL refused; in its own words.
    """
    draft = file.with_name(f".{file.name}.part")
    try:
        draft.touch(mode=0o600)
        _run("pg_dump", url, "--format=custom", "--no-owner", "--no-privileges", f"--file={draft}")
        size = draft.stat().st_size
        draft.replace(file)
    except OSError as error:
        msg = f"{file} cannot be written: {error.strerror}"
        raise ConfigError(msg) from error
    finally:
        draft.unlink(missing_ok=True)
    return size


def restore(file: Path, url: URL) -> None:
    """Fill the empty database at *url* from *file*: all of it, or nothing.

    Raises:
        ConfigError: If there is no such file, or the database already holds a mirror.
        PermanentError: If the file is no backup, or PostgreSQL refused; in its own words.
    """
    if not file.is_file():
        msg = f"{file}: there is no such file"
        raise ConfigError(msg)
    if _holds_a_mirror(url):
        msg = (
            f"The database {url.database} already holds a mirror; a backup goes into an empty one. Name"
            " another in PG_DSN, or move the embedded server's folder `postgres` below TWM_DATA_DIR away."
        )
        raise ConfigError(msg)
    _run(
        "pg_restore",
        url,
        "--no-owner",
        "--no-privileges",
        "--exit-on-error",
        "--single-transaction",
        str(file),
    )


def _holds_a_mirror(url: URL) -> bool:
    with psycopg.connect(_words(url)) as connection:
        row = connection.execute("SELECT to_regclass('twm.alembic_version') IS NOT NULL").fetchone()
        return bool(row and row[0])


def _run(name: str, url: URL, *words: str) -> None:
    program = _program(name, _server_major(url))
    # In the words of a command everybody could read the password.
    secret = {"PGPASSWORD": str(url.password)} if url.password is not None else {}
    done = subprocess.run(  # noqa: S603 - PostgreSQL's program, words of this module
        [str(program), f"--dbname={_words(url.set(password=None))}", *words],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, "LC_ALL": "C", **secret},
    )
    if done.returncode != 0:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        msg = f"{name} did not work: {said}"
        raise PermanentError(msg)


def _words(url: URL) -> str:
    """Return the connection in libpq's words."""
    named = {
        "host": url.host,
        "port": url.port,
        "user": url.username,
        "password": url.password,
        "dbname": url.database,
        **url.query,
    }
    return make_conninfo("", **{key: str(value) for key, value in named.items() if value is not None})


def _server_major(url: URL) -> int:
    with psycopg.connect(_words(url)) as connection:
        return connection.info.server_version // 10_000


def _program(name: str, major: int) -> Path:
    """Return a program that is no older than the server: an older one refuses, a newer one reads it."""
    found = sorted((version, path) for path in _candidates(name) if (version := _major_of(path)) >= major)
    if not found:
        where = "on the PATH; on Debian: apt install postgresql-client"
        msg = f"No {name} of PostgreSQL {major} or newer is {where}"
        raise ConfigError(msg)
    return found[0][1]


def _candidates(name: str) -> Iterator[Path]:
    yield from (folder / name for folder in installed_folders() if (folder / name).exists())
    if (on_path := shutil.which(name)) is not None:
        yield Path(on_path)


def _major_of(program: Path) -> int:
    done = subprocess.run(  # noqa: S603 - asks a program of PostgreSQL for its version
        [str(program), "--version"], check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    number = re.search(r"\d+", done.stdout)
    return int(number[0]) if number else 0
