"""What a client, or the owner of its key, says of the dial between cost and quality: a whole number from 0 to 10."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from ai_router.errors import InvalidRequest
from ai_router.routing.dial import HIGHEST, LOWEST
from ai_router.virtual_key import VirtualKey
from ai_router.web.policy import in_metadata

HEADER = "x-router-quality"
VARIABLE = "HTTP_X_ROUTER_QUALITY"
"""Where the WSGI environment holds the header."""
_FIELD = "router_quality"
_NUMBERS = {str(number): number for number in range(LOWEST, HIGHEST + 1)}


class QualitySource(Protocol):
    """What is known of a request besides its body."""

    @property
    def quality(self) -> str | None: ...
    @property
    def key(self) -> VirtualKey | None: ...


def wanted_quality(source: QualitySource, payload: Mapping[str, Any]) -> int | None:
    """What the header says, else ``metadata.router_quality`` in the body, else the key; None: nothing.

    Raises InvalidRequest for what is no whole number from 0 to 10.
    """
    if source.quality is not None:
        return _number(source.quality, HEADER)
    value = in_metadata(payload, _FIELD)
    if value is not None:
        return _number(value, f"metadata.{_FIELD}")
    return None if source.key is None else source.key.quality


def _number(value: Any, where: str) -> int:
    # Values of metadata are texts in OpenAI's API; a number is meant as well.
    found = _NUMBERS.get(str(value).strip()) if isinstance(value, str | int) else None
    if found is None:
        raise InvalidRequest(f"'{where}' must be a whole number from {LOWEST} to {HIGHEST}", where)
    return found
