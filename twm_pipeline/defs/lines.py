"""The lines of runs in a log of their own, beside Dagster's: in the product's form, all runs in one file."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import dagster as dg

from twm_pipeline.logs import PACKAGE, Lines, about, open_log
from twm_pipeline.settings import load_settings

FILE_NAME = "twm.log"


class _RunLines(Lines):
    """Writes a line without the job and the run that Dagster puts in front of its text."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        told = getattr(record, "dagster_meta", None)
        if told is None:
            return super().format(record)
        plain = logging.makeLogRecord({**vars(record), "msg": told["orig_message"], "args": ()})
        return super().format(plain)


@contextmanager
def run_lines(context: dg.OpExecutionContext | dg.AssetExecutionContext) -> Iterator[None]:
    """Write what this run logs in the block to `logs/twm.log` below `TWM_DATA_DIR` too."""
    settings = load_settings()
    with ExitStack() as stack:
        stack.enter_context(about(run=context.run.run_id))
        try:
            file = stack.enter_context(open_log(settings.twm_data_dir / "logs" / FILE_NAME))
        except OSError as error:
            context.log.warning("%s cannot be written: %s", FILE_NAME, error.strerror)
        else:
            handler = logging.StreamHandler(file)
            handler.setFormatter(_RunLines(settings))
            handler.setLevel(settings.log_level)
            handler.addFilter(lambda record: getattr(record, "dagster_event", None) is None)
            for speaker in (context.log, logging.getLogger(PACKAGE)):
                speaker.addHandler(handler)
                stack.callback(speaker.removeHandler, handler)
        yield
