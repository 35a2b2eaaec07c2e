"""Keeping keys out of whatever is written, also where others put them: a client its prompt, a backend its words."""

from __future__ import annotations

import re
from collections.abc import Sequence

import orjson

_SHOWN = "[key]"
_SHORTEST = 6
"""A shorter "key" would take ordinary words out of ordinary sentences."""


class Scrubber:
    """Replaces known secrets. Built once; both methods are called by writers' threads."""

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        known = sorted({secret for secret in secrets if len(secret) >= _SHORTEST}, key=len, reverse=True)
        # As it stands, and as it stands inside a JSON string.
        forms = dict.fromkeys(form for key in known for form in (key, orjson.dumps(key)[1:-1].decode()))
        self._text = re.compile("|".join(map(re.escape, forms))) if forms else None
        self._bytes = re.compile(self._text.pattern.encode()) if self._text else None

    def text(self, text: str) -> str:
        """``text`` without them."""
        return text if self._text is None else self._text.sub(_SHOWN, text)

    def json(self, body: bytes) -> bytes:
        """A JSON document without them."""
        return body if self._bytes is None else self._bytes.sub(_SHOWN.encode(), body)
