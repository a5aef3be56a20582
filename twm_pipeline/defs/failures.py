"""The one place that turns the product's errors into Dagster's failures: retried or not, and in which words.

Only the text of our own errors is shown. What a library said may hold a value of a row, that is a message's
body or an address, so its text stays out of Dagster's event log; its class and place are enough to find it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import dagster as dg
import psycopg
from sqlalchemy.exc import DBAPIError

from twm_pipeline.defs.lines import run_lines
from twm_pipeline.defs.tags import describe_run
from twm_pipeline.errors import (
    ConfigError,
    PermanentError,
    RetriableError,
    TwmError,
    WindowClosedError,
    place_of,
    trace_of,
)
from twm_pipeline.records import Source

FAILED_BY = "twm/failed_by"
"""Tag of runs that an error of ours ended, with its class; a run whose process was lost has none."""


@contextmanager
def as_failures(context: dg.OpExecutionContext | dg.AssetExecutionContext | None = None) -> Iterator[None]:
    """Raise `dagster.Failure` for every error inside; the run is tagged, its lines are in `twm.log` too.

    Args:
        context: Of the run; its tags say what started it and, in the end, the error's class.
    """
    with ExitStack() as stack:
        try:
            if context is not None:
                stack.enter_context(run_lines(context))
                describe_run(context)
            yield
        except (dg.DagsterError, dg.Failure, dg.RetryRequested):
            raise
        except Exception as error:  # noqa: BLE001 - Dagster would store its text, which may quote a row
            failure = _failure_of(error)
            if context is not None:
                _tell(context, failure)
            raise failure from None


def for_each_source(
    context: dg.OpExecutionContext,
    sources: Iterable[Source],
    work: Callable[[Source], Iterable[TwmError]],
) -> None:
    """Do *work* for every vendor; one that fails does not keep the others from it.

    Args:
        context: Of the run; errors are logged as they come.
        sources: The vendors.
        work: Returns what did not end well though the work went on.

    Raises:
        TwmError: The first problem, in the end; at once if the run was cancelled.
    """
    problems: list[TwmError] = []
    for source in sources:
        try:
            problems += work(source)
        except WindowClosedError:
            raise
        except TwmError as error:
            context.log.error("%s", error)  # noqa: TRY400 - the text is the product's own
            problems.append(error)
    if problems:
        raise problems[0]


def _tell(context: dg.OpExecutionContext | dg.AssetExecutionContext, failure: dg.Failure) -> None:
    """Log and tag what ends the run; what fails here must not carry the error itself along as its context."""
    with suppress(Exception):
        context.log.error("%s", failure.description)
        context.instance.add_run_tags(context.run.run_id, {FAILED_BY: str(failure.metadata["error"].value)})


def _failure_of(error: Exception) -> dg.Failure:
    if isinstance(error, TwmError):
        return to_failure(error)
    if isinstance(error, DBAPIError | psycopg.Error):
        return _database_failure(error)
    return _defect(error)


def to_failure(error: TwmError) -> dg.Failure:
    """Return the failure for *error*; only what may pass by itself is worth a retry."""
    metadata: dict[str, dg.MetadataValue] = {"error": dg.MetadataValue.text(type(error).__name__)}
    if isinstance(error, RetriableError) and error.retry_after is not None:
        metadata["retry_after_seconds"] = dg.MetadataValue.float(error.retry_after)
    return dg.Failure(
        description=str(error),
        metadata=metadata,
        allow_retries=not isinstance(error, ConfigError | PermanentError | WindowClosedError),
    )


def _database_failure(error: DBAPIError | psycopg.Error) -> dg.Failure:
    cause = error.orig if isinstance(error, DBAPIError) else error  # the latter: of COPY and what follows it
    metadata = {
        "error": dg.MetadataValue.text(type(cause).__name__),
        "sqlstate": dg.MetadataValue.text(str(getattr(cause, "sqlstate", None) or "none")),
        "place": dg.MetadataValue.text(place_of(error)),
    }
    return dg.Failure(
        description=f"PostgreSQL refused a statement ({type(cause).__name__}); its batch is not stored.",
        metadata=metadata,
        allow_retries=True,
    )


def _defect(error: Exception) -> dg.Failure:
    return dg.Failure(
        description=f"A defect of this program: {place_of(error)}.",
        metadata={
            "error": dg.MetadataValue.text(type(error).__name__),
            "trace": dg.MetadataValue.md(f"```\n{trace_of(error)}\n```"),
        },
        allow_retries=False,
    )
