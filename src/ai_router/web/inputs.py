"""What requests have in their bodies and query parameters, checked; errors name the field."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson
from flask import Response, jsonify, request

from ai_router.errors import InvalidRequest
from ai_router.web.requests import check_values, read_body

_DEFAULT_PAGE, _MAX_PAGE = 50, 200
_MAX_DIGITS = 19
_TOO_LARGE = 1 << 63
"""For the eight bytes that a database has for a number."""


def json_fields(max_body: int, max_values: int) -> Mapping[str, Any]:
    """The body, a JSON object; an empty one has no fields. Whatever its content type: curl says that it is a form.

    Raises BodyTooLarge and InvalidRequest.
    """
    body = read_body(request.environ, max_body)
    check_values(body, max_values)
    if not body.strip():
        return {}
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as problem:
        raise InvalidRequest(f"the request body is not valid JSON: {problem}", "body", code="invalid_json") from None
    if not isinstance(fields, dict):
        raise InvalidRequest("the request body must be a JSON object", "body", code="invalid_type")
    return fields


def text(fields: Mapping[str, Any], name: str, *, required: bool = True) -> str:
    """A field with a text in it; "" without it, if it is not ``required``. Raises InvalidRequest."""
    value = fields.get(name)
    if value is None and not required:
        return ""
    if not isinstance(value, str) or (required and not value.strip()):
        raise InvalidRequest(f"'{name}' must be a text that is not empty", name, code="invalid_type")
    return value


def integer(name: str, low: int, high: int, default: int) -> int:
    """A query parameter that must be a whole number from ``low`` to ``high``. Raises InvalidRequest."""
    value = request.args.get(name)
    if value is None:
        return default
    if not (is_number(value) and low <= int(value) <= high):
        raise InvalidRequest(f"'{name}' must be a whole number from {low} to {high}", name)
    return int(value)


def is_number(text: str) -> bool:
    """Whether these are the digits of a whole number that a database can hold, too."""
    # str.isdigit alone takes digits that int() does not read, as in "2\u00b2".
    return text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS and int(text) < _TOO_LARGE


def page_size() -> int:
    """The parameter ``limit``. Raises InvalidRequest."""
    return integer("limit", 1, _MAX_PAGE, _DEFAULT_PAGE)


def cursor(name: str) -> float | None:
    """The parameter ``name``: the ``next`` of a page; None without it. Raises InvalidRequest."""
    asked = request.args.get(name)
    if not asked:
        return None
    if not (is_number(asked) or re.fullmatch(r"[0-9]{1,12}\.[0-9]{1,9}", asked)):
        raise InvalidRequest(f"'{name}' must be the 'next' of a page", name)
    return int(asked) if is_number(asked) else float(asked)


def created(fields: Mapping[str, Any]) -> Response:
    """201, with what was made."""
    response = jsonify(fields)
    response.status_code = 201
    return response
