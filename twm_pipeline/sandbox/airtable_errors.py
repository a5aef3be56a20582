"""What Airtable answers when it refuses."""

from __future__ import annotations

from typing import Any

from twm_pipeline.sandbox.gate import JSON

MESSAGES = {
    "AUTHENTICATION_REQUIRED": "Authentication required",
    "UNAUTHORIZED": "Invalid authentication token",
    "INVALID_PERMISSIONS": "You are not permitted to perform this operation",
    "INVALID_PERMISSIONS_OR_MODEL_NOT_FOUND": (
        "Invalid permissions, or the requested model was not found. Check that both your user and your token"
        " have the required permissions, and that the model names and/or ids are correct."
    ),
    "MODEL_ID_NOT_FOUND": "Record not found",
    "INVALID_REQUEST_UNKNOWN": ("Invalid request: parameter validation failed. Check your request data."),
    "INVALID_RECORDS": (
        'You must provide an array of up to 10 record objects, each with an "id" ID field and a "fields"'
        " object for cell values."
    ),
    "RATE_LIMIT_REACHED": "Rate limit exceeded. Please try again later",
    "PUBLIC_API_BILLING_LIMIT_EXCEEDED": (
        "API billing plan limit exceeded. You've reached the maximum number of requests allowed for this"
        " month."
    ),
    "SERVER_ERROR": "Internal server error",
    "RETRIABLE_ERROR": (
        "Server encountered an error while processing your request, and it is safe to retry the request"
    ),
}
NO_MESSAGE = ("LIST_RECORDS_ITERATOR_NOT_AVAILABLE",)
ALWAYS_STRINGS = ("NOT_FOUND", "BAD_REQUEST")


class RefusedError(Exception):
    """A request that Airtable refuses.

    Args:
        status: The HTTP status.
        type: Airtable's word for it.
        message: What it says besides; None for the usual text.
    """

    def __init__(self, status: int, type: str, message: str | None = None) -> None:  # noqa: A002 - Airtable's word
        super().__init__(type)
        self.status = status
        self.type = type
        self.message = message


class MissingTableError(RefusedError):
    """A path names a table that is not there; by default it says the same as where one is not allowed."""

    def __init__(self) -> None:
        super().__init__(403, "INVALID_PERMISSIONS_OR_MODEL_NOT_FOUND")


def invalid(message: str | None = None) -> RefusedError:
    """Return the refusal of a malformed request."""
    return RefusedError(422, "INVALID_REQUEST_UNKNOWN", message)


def forbidden() -> RefusedError:
    """Return the refusal of what does not exist or was not granted."""
    return RefusedError(403, "INVALID_PERMISSIONS_OR_MODEL_NOT_FOUND")


def error_body(error: RefusedError, *, shape: str) -> dict[str, Any]:
    """Return an error's JSON in one of its shapes: `object`, `type_only` or `string`."""
    if shape == "string" or error.type in ALWAYS_STRINGS:
        return {"error": error.type}
    message = error.message or MESSAGES.get(error.type)
    if shape == "type_only" or error.type in NO_MESSAGE or message is None:
        return {"error": {"type": error.type}}
    return {"error": {"type": error.type, "message": message}}


def error_response(error: RefusedError, *, shape: str) -> JSON:
    """Return an error as an answer."""
    return JSON(error_body(error, shape=shape), error.status)
