import dagster as dg
import pytest
from sqlalchemy import text

from twm_pipeline.defs.failures import as_failures
from twm_pipeline.errors import (
    AuthenticationError,
    ConfigError,
    DatabaseUnavailableError,
    MassDeletionError,
    RateLimitedError,
    TwmError,
)


@pytest.mark.parametrize(
    ("error", "retried"),
    [
        (ConfigError("a"), False),
        (AuthenticationError("b"), False),
        (MassDeletionError("c"), False),
        (DatabaseUnavailableError("d"), True),
        (RateLimitedError("e", retry_after=7.5), True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_only_what_may_pass_by_itself_is_tried_again(error: TwmError, retried: bool):
    with pytest.raises(dg.Failure) as caught, as_failures():
        raise error

    assert caught.value.description == str(error)
    assert caught.value.allow_retries is retried
    assert caught.value.metadata["error"].value == type(error).__name__
    assert caught.value.__cause__ is None


def test_the_vendors_wish_to_wait_is_shown():
    with pytest.raises(dg.Failure) as caught, as_failures():
        raise RateLimitedError("429", retry_after=7.5)

    assert caught.value.metadata["retry_after_seconds"].value == 7.5


def test_a_value_that_postgresql_complains_about_is_not_shown(engine):
    with pytest.raises(dg.Failure) as caught, as_failures(), engine.connect() as connection:
        connection.execute(text("SELECT CAST(:body AS integer)"), {"body": "Dear Mr Smith"})

    assert "Smith" not in str(caught.value.description) + str(caught.value.metadata)
    assert caught.value.metadata["sqlstate"].value == "22P02"
    assert caught.value.__suppress_context__


def test_a_defect_is_told_by_its_place_and_not_by_its_text():
    with pytest.raises(dg.Failure) as caught, as_failures():
        int("Dear Mr Smith".lower())

    told = f"{caught.value.description} {caught.value.metadata}"
    assert "defect" in told
    assert "dear" not in told
    assert caught.value.metadata["error"].value == "ValueError"
    assert "test_failures.py" in str(caught.value.metadata["trace"].value)
    assert caught.value.allow_retries is False
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("error", [dg.Failure("a"), dg.RetryRequested()], ids=["failure", "retry"])
def test_what_dagster_is_told_on_purpose_passes_as_it_is(error):
    with pytest.raises(type(error)) as caught, as_failures():
        raise error

    assert caught.value is error
