"""The one place that turns the product's errors into Dagster's failures: retried or not, and in which words.

Only the text of our own errors is shown. What a library said may hold a value of a row, that is a message's
body or an address, so its text stays out of Dagster's event log; its class and place are enough to find it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from sqlalchemy.exc import DBAPIError

from twm_pipeline.errors import (
    ConfigError,
    PermanentError,
    RetriableError,
    TwmError,
    WindowClosedError,
    place_of,
)

FAILED_BY = "twm/failed_by"
"""Tag of runs that an error of ours ended, with its class; a run whose process was lost has none."""


@contextmanager
def as_failures(context: dg.OpExecutionContext | dg.AssetExecutionContext | None = None) -> Iterator[None]:
    """Raise `dagster.Failure` for the errors of the product and of PostgreSQL inside.

    Args:
        context: Of the run that is to be tagged with the error's class.
    """
    try:
        yield
    except TwmError as error:
        _tag(context, type(error).__name__)
        raise to_failure(error) from None
    except DBAPIError as error:
        _tag(context, type(error.orig).__name__)
        raise _database_failure(error) from None


def _tag(context: dg.OpExecutionContext | dg.AssetExecutionContext | None, name: str) -> None:
    if context is not None:
        context.instance.add_run_tags(context.run.run_id, {FAILED_BY: name})


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


def _database_failure(error: DBAPIError) -> dg.Failure:
    cause = error.orig
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
