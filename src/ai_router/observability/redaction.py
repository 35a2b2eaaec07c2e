"""What must not be written down: keys, anywhere; and what was said, where SESSION_BODIES says so. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from ai_router.settings import SessionBodies

_REPLACEMENT = "[key]"
_MIN_SECRET_CHARS = 6
"""A shorter "key" would take ordinary words out of ordinary sentences."""


class Scrubber:
    """Replaces known secrets. Built once; both methods are called by writers' threads."""

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        by_length = sorted({secret for secret in secrets if len(secret) >= _MIN_SECRET_CHARS}, key=len, reverse=True)
        # As it stands, and as it stands inside a JSON string.
        forms = dict.fromkeys(form for key in by_length for form in (key, orjson.dumps(key)[1:-1].decode()))
        self._forms = tuple(forms)
        self._encoded = tuple(form.encode() for form in forms)
        self._text = re.compile("|".join(map(re.escape, forms)))
        self._bytes = re.compile(self._text.pattern.encode())

    def text(self, text: str) -> str:
        """``text`` without them."""
        # Looking for each takes a fiftieth of the time of looking for one of them.
        return self._text.sub(_REPLACEMENT, text) if any(form in text for form in self._forms) else text

    def json(self, body: bytes) -> bytes:
        """A JSON document without them."""
        return self._bytes.sub(_REPLACEMENT.encode(), body) if any(form in body for form in self._encoded) else body


_PROTOCOL_FIELDS = frozenset({"role", "type", "finish_reason", "id", "tool_call_id"})
"""Fields whose values are the protocol's words, not anybody's."""


def kept_messages(messages_json: bytes, bodies: SessionBodies) -> Any:
    """The conversation; None for ``off``."""
    if bodies is SessionBodies.FULL:
        return orjson.Fragment(messages_json)
    return redact(orjson.loads(messages_json)) if bodies is SessionBodies.REDACTED else None


def kept_response(response: Mapping[str, Any] | None, bodies: SessionBodies) -> Any:
    """The answer; of ``off`` how it ended."""
    if response is None or bodies is SessionBodies.FULL:
        return response
    return redact(response) if bodies is SessionBodies.REDACTED else {"finish_reason": response.get("finish_reason")}


def kept_step_detail(detail: Mapping[str, Any], bodies: SessionBodies) -> Mapping[str, Any]:
    """A step's details; a web context in it is something that was said, too."""
    if bodies is SessionBodies.FULL or detail.get("context") is None:
        return detail
    return {**detail, "context": redact(detail["context"]) if bodies is SessionBodies.REDACTED else None}


def redact(value: Any, name: str = "") -> Any:
    """The same shape with each text as its length, ``[12 characters]``; numbers may say as much, so they go as well."""
    if isinstance(value, dict):
        return {field: redact(inner, field) for field, inner in value.items()}
    if isinstance(value, list):
        return [redact(inner, name) for inner in value]
    if isinstance(value, str):
        return value if name in _PROTOCOL_FIELDS else f"[{len(value)} characters]"
    return "[number]" if isinstance(value, (int, float)) and not isinstance(value, bool) else value
