"""`twm`: everything the UI can do, scriptable.

Exit codes: 0 it worked · 1 it did not, and may later · 2 the command was misspelt · 3 a setting, a
credential or a permission has to be changed first · 130 and 143 ended by Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType

INTERRUPTED, TERMINATED = 130, 143


class Terminated(KeyboardInterrupt):
    """SIGTERM: as Ctrl-C, with another exit code."""


def main() -> None:
    """Run `twm`; SIGINT, even where a shell made it ignored, and SIGTERM end it tidily from the start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _on_terminate)
    try:
        from twm_pipeline.cli.app import main as run  # noqa: PLC0415 - child processes need no command line

        run()
    except KeyboardInterrupt as error:
        text, code = verdict(error)
        sys.stderr.write(f"{text}\n")
        sys.exit(code)


def verdict(error: KeyboardInterrupt) -> tuple[str, int]:
    """Return what to say of an interruption, and the exit code."""
    if isinstance(error, Terminated):
        return "Terminated; what is stored stays.", TERMINATED
    return "Interrupted; what is stored stays.", INTERRUPTED


def _on_terminate(_number: int, _frame: FrameType | None) -> None:
    raise Terminated
