"""What session files keep of what was said, by SESSION_BODIES. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from ai_router.config import SessionBodies

_KEPT = frozenset({"role", "type", "finish_reason", "id", "tool_call_id"})
"""Fields whose values are the protocol's words, not anybody's."""


def kept_of_messages(messages_json: bytes, bodies: SessionBodies) -> Any:
    """The conversation; None for ``off``."""
    if bodies is SessionBodies.FULL:
        return orjson.Fragment(messages_json)
    return redacted(orjson.loads(messages_json)) if bodies is SessionBodies.REDACTED else None


def kept_of_response(response: Mapping[str, Any] | None, bodies: SessionBodies) -> Any:
    """The answer; of ``off`` how it ended."""
    if response is None or bodies is SessionBodies.FULL:
        return response
    return redacted(response) if bodies is SessionBodies.REDACTED else {"finish_reason": response.get("finish_reason")}


def kept_of_step(detail: Mapping[str, Any], bodies: SessionBodies) -> Mapping[str, Any]:
    """A step's details; a web context in it is something that was said, too."""
    if bodies is SessionBodies.FULL or detail.get("context") is None:
        return detail
    return {**detail, "context": redacted(detail["context"]) if bodies is SessionBodies.REDACTED else None}


def redacted(value: Any, name: str = "") -> Any:
    """The same shape with each text as its length, ``[12 characters]``; numbers may say as much, so they go as well."""
    if isinstance(value, dict):
        return {field: redacted(inner, field) for field, inner in value.items()}
    if isinstance(value, list):
        return [redacted(inner, name) for inner in value]
    if isinstance(value, str):
        return value if name in _KEPT else f"[{len(value)} characters]"
    return "[number]" if isinstance(value, (int, float)) and not isinstance(value, bool) else value
