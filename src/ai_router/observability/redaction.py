"""What must not be written down: keys, anywhere; and what was said, where SESSION_BODIES says so. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from ai_router.config import SessionBodies
from ai_router.errors import RouterError, UpstreamError

_REPLACEMENT = "[key]"
_MIN_SECRET_CHARS = 6
"""A shorter secret is not looked for: it would be found in ordinary words."""


class Scrubber:
    """Replaces each of ``secrets`` by ``[key]``, wherever it stands: a client may put a key into its prompt, a backend
    into an error. Built once; its methods may be called from any thread."""

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        by_length = sorted({secret for secret in secrets if len(secret) >= _MIN_SECRET_CHARS}, key=len, reverse=True)
        # Longest first, so that a key that begins like another is replaced whole; as is, and as in a JSON string.
        forms = dict.fromkeys(form for key in by_length for form in (key, orjson.dumps(key)[1:-1].decode()))
        self._forms = tuple(forms)
        self._encoded = tuple(form.encode() for form in forms)
        self._text = re.compile("|".join(map(re.escape, forms)))
        self._bytes = re.compile(self._text.pattern.encode())

    def text(self, text: str) -> str:
        """``text`` without secrets."""
        # Looking for one secret after the other takes a fiftieth of the time of a pattern of all of them.
        return self._text.sub(_REPLACEMENT, text) if any(form in text for form in self._forms) else text

    def json(self, body: bytes) -> bytes:
        """A JSON document without secrets."""
        return self._bytes.sub(_REPLACEMENT.encode(), body) if any(form in body for form in self._encoded) else body


_PROTOCOL_FIELDS = frozenset({"role", "type", "finish_reason", "id", "tool_call_id"})
"""Fields whose values are words of the protocol, so that they are kept."""


def kept_messages(messages_json: bytes, bodies: SessionBodies) -> Any:
    """What a session file keeps of the conversation: the JSON as it is, its redacted value, or None for ``off``."""
    if bodies is SessionBodies.FULL:
        return orjson.Fragment(messages_json)
    return redact(orjson.loads(messages_json)) if bodies is SessionBodies.REDACTED else None


def kept_response(response: Mapping[str, Any] | None, bodies: SessionBodies) -> Any:
    """What a session file keeps of the answer; for ``off`` only its ``finish_reason``."""
    if response is None or bodies is SessionBodies.FULL:
        return response
    return redact(response) if bodies is SessionBodies.REDACTED else {"finish_reason": response.get("finish_reason")}


def kept_step_detail(detail: Mapping[str, Any], bodies: SessionBodies) -> Mapping[str, Any]:
    """What a session file keeps of the details of a step: all but the text of a web context."""
    if bodies is SessionBodies.FULL or detail.get("context") is None:
        return detail
    return {**detail, "context": redact(detail["context"]) if bodies is SessionBodies.REDACTED else None}


def kept_error(error: RouterError, bodies: SessionBodies) -> str:
    """What may be written down of an error. A backend's words may quote the prompt: they need ``full``."""
    if bodies is SessionBodies.FULL or not isinstance(error, UpstreamError):
        return str(error)
    return f"{error.source.backend} ({error.source.model}): {error.own_words}"


def kept_detail(error: UpstreamError, bodies: SessionBodies) -> str:
    """As ``kept_error``, without the backend's name."""
    return error.detail if bodies is SessionBodies.FULL else error.own_words


def redact(value: Any, name: str = "") -> Any:
    """A JSON value of the same shape without what was said: a text becomes its length, ``[12 characters]``, and a
    number ``[number]``, since it may be a secret, too. ``name``: the field whose value it is."""
    if isinstance(value, dict):
        return {field: redact(inner, field) for field, inner in value.items()}
    if isinstance(value, list):
        return [redact(inner, name) for inner in value]
    if isinstance(value, str):
        return value if name in _PROTOCOL_FIELDS else f"[{len(value)} characters]"
    return "[number]" if isinstance(value, (int, float)) and not isinstance(value, bool) else value
