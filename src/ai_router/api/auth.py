"""Who may ask: AI_ROUTER_API_KEYS, compared in constant time."""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Sequence

from flask import Flask, request

from ai_router.errors import Unauthenticated

_OPEN_PATHS = frozenset({"/health", "/health/live", "/health/ready"})


def init_app(app: Flask, keys: Sequence[str] | None) -> None:
    """Require one of ``keys`` on everything but health; with no keys, require nothing."""
    if not keys:
        return
    encoded = [key.encode() for key in keys]

    @app.before_request
    def authenticate() -> None:
        if request.path not in _OPEN_PATHS and not any(_known(shown, encoded) for shown in _shown_keys()):
            raise Unauthenticated("this router needs a key: Authorization: Bearer ..., or x-api-key")


def _shown_keys() -> Iterator[bytes]:
    """Both headers count: an SDK always sends a Bearer, of whatever value."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        yield token.strip().encode("utf-8", "surrogateescape")
    yield request.headers.get("x-api-key", "").encode("utf-8", "surrogateescape")


def _known(shown: bytes, keys: Sequence[bytes]) -> bool:
    # Every key is compared, so that the time does not tell which one came close.
    return sum(hmac.compare_digest(shown, key) for key in keys) > 0
