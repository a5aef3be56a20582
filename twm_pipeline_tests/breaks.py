"""Deliberate breaks of what the guarantees rest on: `python -m twm_pipeline_tests.breaks [G3 …]`.

Each break of `faults/breaks.toml` is made in a copy of the package; the test beside it has to fail there and
to pass in a copy that is whole. A test whose mechanism can be taken away unnoticed proves nothing.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "twm_pipeline_tests" / "faults" / "breaks.toml"
COPIED = (
    "twm_pipeline",
    "twm_pipeline_tests",
    "bench",
    "docs",
    "pyproject.toml",
    "README.md",
    "dagster.yaml",
)
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", "results")
PASSED, FAILED = 0, 1
MOST_SECONDS = 300
SHOWN_CHARACTERS = 150


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """One mechanism taken away.

    Args:
        guarantee: `G1` to `G12`.
        what: What is done to the product, in words.
        file: Below the package.
        old: Text that is in the file exactly once.
        new: What stands there instead.
        test: The test that has to fail, below the tests; pytest's own options may follow it.
    """

    guarantee: str
    what: str
    file: str
    old: str
    new: str
    test: str

    def applied(self, package: Path) -> str:
        """Return the text of the broken file of *package*.

        Raises:
            ValueError: If the text to be replaced is not there exactly once.
        """
        content = (package / self.file).read_text()
        if (found := content.count(self.old)) != 1:
            msg = f"{self.guarantee}, {self.what}: found {found} times in {self.file}"
            raise ValueError(msg)
        return content.replace(self.old, self.new)

    @property
    def words(self) -> list[str]:
        """What pytest is told."""
        path, *options = shlex.split(self.test)
        return [f"twm_pipeline_tests/{path}", *options]


def load_breaks() -> list[Break]:
    """Return all breaks, in the order of the guarantees."""
    return [Break(**item) for item in tomllib.loads(LIST.read_text())["break"]]


@contextmanager
def copied_project() -> Iterator[Path]:
    """Give a copy of all that tests need."""
    with tempfile.TemporaryDirectory(prefix="twm-break-") as name:
        folder = Path(name)
        for item in COPIED:
            if (ROOT / item).is_dir():
                shutil.copytree(ROOT / item, folder / item, ignore=LEFT_OUT)
            elif (ROOT / item).exists():
                shutil.copy(ROOT / item, folder / item)
        yield folder


def run_test(folder: Path, words: Sequence[str]) -> tuple[int, str]:
    """Run tests of a copy; return pytest's exit code and what it printed."""
    options = ["-p", "no:cacheprovider", "--numprocesses", "0", "--quiet", "--exitfirst", "--tb", "short"]
    command = [sys.executable, "-m", "pytest", *options, "-m", "not live", *words]
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=MOST_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return FAILED, "E   it did not end"
    return done.returncode, done.stdout + done.stderr


def reason_in(output: str) -> str:
    """Return the line that says why a test failed."""
    lines = re.findall(r"^E +(.*)", output, re.MULTILINE)
    return (lines[0] if lines else output.strip()[-SHOWN_CHARACTERS:])[:SHOWN_CHARACTERS]


def try_break(item: Break) -> bool:
    """Break a copy, run the test, say what came of it; return whether it failed."""
    with copied_project() as folder:
        try:
            broken = item.applied(folder / "twm_pipeline")
        except ValueError as error:
            say(f"{item.guarantee:4} DOES NOT APPLY  {error}")
            return False
        (folder / "twm_pipeline" / item.file).write_text(broken)
        began = time.monotonic()
        code, output = run_test(folder, item.words)
    verdict = {FAILED: "red", PASSED: "STILL GREEN"}.get(code, f"NO VERDICT ({code})")
    say(
        f"{item.guarantee:4} {verdict:12} {time.monotonic() - began:5.1f} s  {item.what}: {reason_in(output)}"
    )
    return code == FAILED


def say(words: str) -> None:
    """Print a line at once: trying all breaks takes minutes."""
    sys.stdout.write(words + "\n")
    sys.stdout.flush()


def are_green(breaks: Sequence[Break]) -> bool:
    """Say which of the tests fail without a break; return whether none does."""
    green = True
    with copied_project() as folder:
        for words in sorted({tuple(item.words) for item in breaks}):
            code, output = run_test(folder, words)
            if code != PASSED:
                green = False
                say(f"not green even without a break: {' '.join(words)}: {reason_in(output)}")
    return green


def main() -> int:
    """Try the breaks that were asked for; return 0 if every test noticed."""
    parser = argparse.ArgumentParser(prog="python -m twm_pipeline_tests.breaks", description=__doc__)
    parser.add_argument("guarantees", nargs="*", metavar="G1", help="only the breaks of these guarantees")
    parser.add_argument(
        "--quick", action="store_true", help="do not look first whether the tests pass unbroken"
    )
    given = parser.parse_args()
    breaks = [item for item in load_breaks() if not given.guarantees or item.guarantee in given.guarantees]
    green = given.quick or are_green(breaks)
    noticed = [try_break(item) for item in breaks]
    say(f"{sum(noticed)} of {len(breaks)} breaks were noticed")
    return 0 if green and all(noticed) else 1


if __name__ == "__main__":
    sys.exit(main())
