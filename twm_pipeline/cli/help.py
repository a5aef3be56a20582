"""How `--help` reads: paragraphs as wide as the terminal, an example a line, no type after a switch."""

from __future__ import annotations

import inspect
from typing import Any

from typer.core import TyperGroup

EXAMPLES = ("Example: ", "Examples: ")


class Group(TyperGroup):
    """A command with commands; it shapes the help of all of them, its own included."""

    def __init__(self, **attributes: Any) -> None:  # noqa: ANN401 - the library's own
        super().__init__(**attributes)
        for command in (self, *self.commands.values()):
            if command is self or not isinstance(command, Group):
                _shape(command)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401 - the library's own
        """Return the command of that name."""
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            _hide_type(command.get_help_option(ctx))
        return command

    def get_help_option(self, ctx: Any) -> Any:  # noqa: ANN401 - the library's own
        """Return the option that shows the help."""
        return _hide_type(super().get_help_option(ctx))


def _shape(command: Any) -> None:  # noqa: ANN401 - a command of the library
    command.help = flowing(command.help or "")
    for parameter in command.params:
        if getattr(parameter, "is_flag", False):
            _hide_type(parameter)


def _hide_type(switch: Any) -> Any:  # noqa: ANN401 - an option of the library
    """Return *switch*, which takes no value, so that none is shown behind its name."""
    if switch is not None:
        switch.metavar = ""
    return switch


def flowing(text: str) -> str:
    """Return *text* with each paragraph in one line, and each example in a line of its own."""
    paragraphs = (" ".join(part.split()) for part in inspect.cleandoc(text).split("\n\n"))
    return "\n\n".join(_listed(part) if part.startswith(EXAMPLES) else part for part in paragraphs)


def _listed(paragraph: str) -> str:
    title, _, examples = paragraph.partition(": ")
    return "\n".join([f"{title}:", *(f"$ {example.strip()}" for example in examples.split(" · "))])
