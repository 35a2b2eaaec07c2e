"""Who may ask: AI_ROUTER_API_KEYS, compared in constant time."""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Sequence

from flask import Flask, g, request

from ai_router.errors import Unauthenticated

_OPEN_PATHS = frozenset({"/health", "/health/live", "/health/ready"})


def init_app(app: Flask, keys: Sequence[str] | None) -> None:
    """Require one of ``keys`` on everything but health; without any, nothing. ``g.client`` says which it was."""
    encoded = [key.encode() for key in keys or ()]

    @app.before_request
    def authenticate() -> None:
        g.client = ""
        if not encoded or request.path in _OPEN_PATHS:
            return
        known = [number for shown in _shown_keys() if (number := _known(shown, encoded)) is not None]
        if not known:
            raise Unauthenticated("this router needs a key: Authorization: Bearer ..., or x-api-key")
        g.client = f"key-{known[0] + 1}"


def _shown_keys() -> Iterator[bytes]:
    """Both headers count: an SDK always sends a Bearer, of whatever value."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        yield token.strip().encode("utf-8", "surrogateescape")
    yield request.headers.get("x-api-key", "").encode("utf-8", "surrogateescape")


def _known(shown: bytes, keys: Sequence[bytes]) -> int | None:
    """Which of the keys it is."""
    # Every key is compared, so that the time does not tell which one came close.
    same = [hmac.compare_digest(shown, key) for key in keys]
    return same.index(True) if any(same) else None
