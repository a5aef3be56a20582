"""The root of the command line: which commands there are, and what becomes of an error."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Annotated, Any

import psycopg
import typer
from sqlalchemy.exc import DBAPIError
from typer.exceptions import TyperException

from twm_pipeline import logs
from twm_pipeline.cli import (
    attachments,
    backup,
    check,
    doctor,
    init,
    insights,
    output,
    queue,
    receiver,
    sandbox,
    status,
    status_page,
    sync,
    up,
    upkeep,
    verdict,
    webhooks,
)
from twm_pipeline.cli.help import Group
from twm_pipeline.errors import (
    AccountChangedError,
    AuthenticationError,
    ConfigError,
    TwmError,
    place_of,
    trace_of,
)
from twm_pipeline.settings import Settings, load_settings


class Commands(Group):
    """The commands, with errors in one line each instead of a traceback."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - the library's context, and what a command returns
        """Run a command; an error of the product becomes its text and an exit code."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, TyperException, BrokenPipeError):
            raise
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - told without a text that may quote a row
            text, code = _verdict(error)
            if ctx.params.get("debug"):
                output.complain(trace_of(error))
            output.complain(text)
            raise typer.Exit(code) from None


def _verdict(error: BaseException) -> tuple[str, int]:
    if isinstance(error, KeyboardInterrupt):
        return verdict(error)
    if isinstance(error, DBAPIError | psycopg.Error):
        cause = error.orig if isinstance(error, DBAPIError) else error
        return f"PostgreSQL refused a statement: {type(cause).__name__}.", output.FAILED
    if not isinstance(error, TwmError):  # its text may hold a value of a row
        return (
            f"A defect of this program: {place_of(error)}. `twm --debug …` shows how it came.",
            output.FAILED,
        )
    change = isinstance(error, ConfigError | AuthenticationError | AccountChangedError)
    return str(error), output.TO_BE_CHANGED if change else output.FAILED


app = typer.Typer(
    name="twm",
    cls=Commands,
    help="Teamwork and Missive, complete and current, in your own PostgreSQL.",
    epilog=(
        "Exit codes: 0 it worked, 1 it did not and may later, 2 misspelt, 3 a setting, a credential or a"
        " permission has to be changed first, 130 and 143 ended by Ctrl-C or SIGTERM."
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def root(
    *,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show every log line, and where an error comes from.")
    ] = False,
) -> None:
    """Set up logging; the commands do the rest."""
    try:
        settings = load_settings()
    except ConfigError:  # the command says what is wrong with them
        settings = Settings.model_construct()
    logs.set_up(settings, level="DEBUG" if debug else "ERROR")
    if not debug:
        warnings.simplefilter("ignore")


for module in (
    init,
    up,
    sync,
    status,
    check,
    insights,
    queue,
    attachments,
    webhooks,
    doctor,
    upkeep,
    backup,
    receiver,
    status_page,
    sandbox,
):
    module.register(app)


def main() -> None:
    """Run the command that the words on the command line name."""
    logs.log_what_ends()
    try:
        app()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(output.FAILED)
