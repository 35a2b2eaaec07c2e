"""Errors as clients get them: OpenAI's error object, in a body or in an event."""

from __future__ import annotations

from typing import Any

import orjson

from ai_router.errors import RouterError


def envelope(error: RouterError) -> dict[str, Any]:
    """The OpenAI error object."""
    return {"error": {"message": str(error), "type": error.type, "param": error.param, "code": error.code}}


def envelope_json(error: RouterError) -> bytes:
    """The envelope as a response's body."""
    return orjson.dumps(envelope(error))


def error_event(error: RouterError) -> bytes:
    """The envelope as an event of a stream that has begun. A plain data event: the official SDK raises APIError on any
    JSON with a truthy ``error``, and ignores an ``event: error`` without one (openai 3.54.0, _streaming.py)."""
    return b"data: " + envelope_json(error) + b"\n\n"
