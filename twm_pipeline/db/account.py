"""Which account of the operating system the embedded server runs as, and what that account can reach.

PostgreSQL refuses to run as root. Started by root, the server therefore runs as an unprivileged account,
which must be able to pass through every folder above its data: those that only root may enter are opened
for passing through (not for listing), except below somebody's home.
"""

from __future__ import annotations

import logging
import os
import pwd
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from twm_pipeline.errors import ConfigError

logger = logging.getLogger(__name__)

PREFERRED_ACCOUNT = "postgres"
CREATED_ACCOUNT = "twm-postgres"
FIRST_PERSON_UID = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An unprivileged account of the operating system."""

    name: str
    uid: int
    gid: int


def server_account(data: Path) -> Account | None:
    """Return the account that runs the server over *data*; None stands for the current user.

    Existing data keeps its owner. New data of root goes to `postgres` where that account exists, else to
    one created for it.

    Raises:
        ConfigError: If root finds no account and cannot create one.
    """
    if os.geteuid() != 0:
        return None
    if data.exists() and data.stat().st_uid != 0:
        entry = _entry_of_uid(data.stat().st_uid)
    else:
        entry = _entry(PREFERRED_ACCOUNT) or _entry(CREATED_ACCOUNT) or _create_account()
    return Account(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid)


def _entry(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _entry_of_uid(uid: int) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        msg = (
            f"The files of the embedded PostgreSQL belong to user id {uid}, unknown on this machine. "
            "Give the folder to an existing account (chown -R) or set TWM_DATA_DIR to another folder."
        )
        raise ConfigError(msg) from None


def _create_account() -> pwd.struct_passwd:
    """Return a new system account without a home, a shell or a password."""
    useradd = shutil.which("useradd") or "/usr/sbin/useradd"
    command = f"{useradd} --system --user-group --no-create-home --shell /bin/false {CREATED_ACCOUNT}".split()
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=30)  # noqa: S603 - fixed words
    except (OSError, subprocess.SubprocessError) as error:
        msg = (
            "PostgreSQL does not run as root, and no account could be created for it "
            f"({type(error).__name__}). Start as another user, or set PG_DSN to a server of your own."
        )
        raise ConfigError(msg) from error
    logger.info("created the system account %s for the embedded PostgreSQL", CREATED_ACCOUNT)
    return pwd.getpwnam(CREATED_ACCOUNT)


def open_folders(folder: Path, account: Account) -> None:
    """Let *account* pass through *folder* and every folder above it.

    Raises:
        ConfigError: If one of them is private and in somebody's home; nothing is changed then.
    """
    closed = [path for path in (folder, *folder.parents) if not _lets_pass(path, account)]
    for path in closed:
        home = _home_around(path)
        if home is not None:
            msg = (
                f"The embedded PostgreSQL cannot run as root, and the account used instead, {account.name}, "
                f"may not enter {path}, which is private. Set TWM_DATA_DIR to a folder outside {home}, "
                "such as /var/lib/twm; or start as another user than root; or set PG_DSN to your own server."
            )
            raise ConfigError(msg)
    for path in closed:
        path.chmod(stat.S_IMODE(path.stat().st_mode) | stat.S_IXOTH)
        logger.warning(
            "opened %s for passing through (o+x): the embedded PostgreSQL runs as %s", path, account.name
        )


def _lets_pass(path: Path, account: Account) -> bool:
    status = path.stat()
    if status.st_uid == account.uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == account.gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)


def _home_around(path: Path) -> Path | None:
    """Return the home of root or of a person that *path* is or lies in."""
    homes = {
        Path.home(),
        *(Path(e.pw_dir) for e in pwd.getpwall() if e.pw_uid == 0 or e.pw_uid >= FIRST_PERSON_UID),
    }
    shared = {Path("/"), Path("/nonexistent")}
    return next((home for home in sorted(homes - shared) if path.is_relative_to(home)), None)
