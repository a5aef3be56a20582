"""What the documentation names is there: links, headings, commands, options, settings, targets, modules."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from twm_pipeline.cli.app import app
from twm_pipeline.settings import PROJECT_DIR, Settings

PAGES = sorted([*PROJECT_DIR.glob("*.md"), *PROJECT_DIR.glob("docs/**/*.md")])
VENDORS = (
    "TEAMWORK_",
    "MISSIVE_",
    "AIRTABLE_",
    "TWM_",
    "PG_",
    "DAGSTER_",
    "SPOOL_",
    "APP_",
    "STATUS_",
    "LOG_",
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"```\w*\n(.*?)```|`([^`\n]+)`", re.DOTALL)
OTHERS = frozenset({"PATH", "HOME", "DAGSTER_HOME", "MINUTES", "PYTHON", "UPGRADE", "WORKERS", "REPOSITORY"})
OF_TESTS = frozenset({"TWM_WHOLE_DATA", "TWM_WHOLE_STORM"})


def page_ids() -> list[str]:
    return [str(path.relative_to(PROJECT_DIR)) for path in PAGES]


def text_of(name: str) -> str:
    return (PROJECT_DIR / name).read_text(encoding="utf-8")


def anchors_of(path: Path) -> set[str]:
    """Return the fragments that headings of a page have, as hosts of Markdown make them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def code_of(name: str) -> list[str]:
    """Return the lines of a page that are code."""
    found = [block or inline for block, inline in CODE.findall(text_of(name))]
    return [line.strip() for part in found for line in part.splitlines() if line.strip()]


@pytest.mark.parametrize("name", page_ids())
def test_every_link_leads_somewhere(name):
    page = PROJECT_DIR / name
    for target in LINK.findall(text_of(name)):
        if re.match(r"[a-z]+:", target):
            continue
        place, _, fragment = target.partition("#")
        path = (page.parent / place).resolve() if place else page
        assert path.exists(), f"{name}: {target}"
        assert not fragment or fragment in anchors_of(path), f"{name}: {target}"


def commands_of(name: str) -> list[list[str]]:
    """Return the calls of `twm` on a page, in words."""
    calls = []
    for line in code_of(name):
        for piece in re.split(r" · |\s*[;&|]\s*", line.replace(r"\|", "/")):
            words = re.sub(r"^(sudo (-u twm )?)?(\S*/)?(?=twm )", "", piece.split("  #")[0]).strip()
            if words.startswith("twm ") and len(words.split()) > 1:
                calls.append(shlex.split(re.sub(r"[\[\]]", " ", words))[1:])
    return calls


@pytest.mark.parametrize("name", page_ids())
def test_every_command_and_option_exists(name):
    for words in commands_of(name):
        check_command(words, where=name)


def test_every_command_and_option_in_the_examples_of_the_help_exists():
    examples = list(examples_of(get_command(app)))

    assert len(examples) > 50
    for example in examples:
        if not example.startswith("twm sandbox "):  # its options are those of the module that it starts
            check_command(shlex.split(example.partition(" | ")[0])[1:], where="--help")


def examples_of(command: Any) -> Iterator[str]:
    """Yield the examples in the help of every command below *command*."""
    for child in command.commands.values():
        yield from re.findall(r"^\$ (twm .*)$", child.help, re.MULTILINE)
        if hasattr(child, "commands"):
            yield from examples_of(child)


def check_command(words: list[str], *, where: str) -> None:
    """Follow the words after `twm`."""
    command: Any = get_command(app)
    options = {"--help", "--debug"}
    for word in words:
        if word.startswith("-"):
            known = options | {option for item in command.params for option in item.opts}
            known |= {option for item in command.params for option in item.secondary_opts}
            assert word.split("=")[0] in known, f"{where}: twm {' '.join(words)}"
        elif hasattr(command, "commands"):
            choices = [part for part in word.split("/") if part in command.commands]
            assert choices, f"{where}: twm {' '.join(words)}"
            command = command.commands[choices[0]]


@pytest.mark.parametrize("name", page_ids())
def test_every_setting_that_is_named_exists(name):
    known = {field.upper() for field in Settings.model_fields} | OTHERS | OF_TESTS
    for line in code_of(name):
        for word in re.findall(r"(?<![\w*.$/-])([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)(?![\w*…])", line):
            if word.startswith(VENDORS):
                assert word in known, f"{name}: {word}"


@pytest.mark.parametrize("name", page_ids())
def test_every_make_target_exists(name):
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE))
    for line in code_of(name):
        for target in re.findall(r"(?:^|\s)make ([a-z-]+)", line):
            assert target in targets, f"{name}: make {target}"


def test_every_module_that_the_architecture_names_exists():
    for words in re.findall(r"`([a-z_/*.]+\.py(?:: \w+)?)`", text_of("docs/architecture.md")):
        path, _, function = words.partition(": ")
        files = sorted((PROJECT_DIR / "twm_pipeline").rglob(path))
        assert files, words
        named = rf"\b(def|class) {function}\b"
        assert not function or any(re.search(named, file.read_text()) for file in files), words
