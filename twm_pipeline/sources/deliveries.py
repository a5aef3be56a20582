"""Reading a delivery's body, JSON or form. What the fields mean is known to the vendor's own module."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import parse_qsl

import orjson

from twm_pipeline.errors import DeliveryError

Encoding = Literal["json", "form"]

FORM = "application/x-www-form-urlencoded"
MOST_FIELDS = 10_000

_JSON_TYPE = re.compile(r"(?:application|text)/(?:[a-z0-9.+-]+\+)?json")
_BOM = b"\xef\xbb\xbf"


def encoding_of(headers: Mapping[str, str], body: bytes) -> Encoding:
    """Return how *body* is written; without a content type its first character tells.

    Args:
        headers: Names in lower case.
        body: Not empty.

    Raises:
        DeliveryError: 415 for anything but JSON and forms.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if not kind:
        return "json" if body.removeprefix(_BOM).lstrip()[:1] in (b"{", b"[") else "form"
    if kind == FORM:
        return "form"
    if _JSON_TYPE.fullmatch(kind):
        return "json"
    msg = "the content type is neither JSON nor a form"
    raise DeliveryError(msg, status=415)


def read_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object of *body*.

    What is wrong in a text that nobody reads costs no delivery: invalid UTF-8, lone surrogates and control
    characters are forgiven.

    Raises:
        DeliveryError: 400 if it is no JSON object.
    """
    body = body.removeprefix(_BOM)
    try:
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError:
            value = json.loads(body.decode("utf-8", errors="replace"), strict=False)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        msg = "the body is no JSON object"
        raise DeliveryError(msg, status=400)
    return value


def read_form(body: bytes) -> dict[str, str]:
    """Return the fields of a form; of a repeated one the last.

    Raises:
        DeliveryError: 400 if there are none, or thousands.
    """
    try:
        fields = dict(parse_qsl(body.decode("utf-8", errors="replace"), max_num_fields=MOST_FIELDS))
    except ValueError:
        fields = {}
    if not fields:
        msg = "the body is no form"
        raise DeliveryError(msg, status=400)
    return fields
