"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

from twm_pipeline.cli.sandbox import folder, remembered_place, sandbox_settings
from twm_pipeline.settings import Settings, load_settings

Sources = Annotated[list[str] | None, typer.Argument(help="teamwork, missive; all of them if none is named.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
OfSandbox = Annotated[
    bool,
    typer.Option(
        "--sandbox",
        help="The sandbox instead of the real accounts; it answers while `twm up --sandbox` runs.",
    ),
]


def settings_for(*, sandbox: bool) -> Settings:
    """Return the settings, or those of the sandbox where it is asked for and has been started before."""
    settings = load_settings()
    if not sandbox:
        return settings
    if not (folder(settings) / "sandbox.json").exists():
        raise typer.BadParameter("there is no sandbox yet; `twm up --sandbox` starts one")
    return sandbox_settings(settings, remembered_place(settings))
