"""Commands of `twm` run in this process, as a person would see them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click
from sqlalchemy import Engine
from typer.testing import CliRunner

from twm_pipeline.cli.app import app
from twm_pipeline.settings import load_settings
from twm_pipeline.sync.engine import PassOptions
from twm_pipeline.sync.window import run_pass


@dataclass(frozen=True)
class Answer:
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Twm = Callable[..., Answer]


def run_command(*words: str) -> Answer:
    """Run a command to its end."""
    result = CliRunner().invoke(app, list(words))
    return Answer(result.exit_code, result.stdout, result.stderr)


def run_plainly(*words: str) -> Answer:
    """Do as `run_command`, without the colours that typer gives its own words where it is told to."""
    answer = run_command(*words)
    return Answer(answer.code, click.unstyle(answer.out), click.unstyle(answer.err))


def read_everything(engine: Engine) -> None:
    """Read both vendors of the settings into the mirror."""
    settings = load_settings()
    for source in ("teamwork", "missive"):
        run_pass(engine, settings, source, options=PassOptions())
