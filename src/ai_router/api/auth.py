"""Who may ask: AI_ROUTER_API_KEYS and AI_ROUTER_ADMIN_KEY, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Sequence

from flask import Flask, g, request

from ai_router.errors import Forbidden, Unauthenticated

_OPEN_PATHS = frozenset({"/health", "/health/live", "/health/ready"})
ADMIN = "admin"
"""The name of whoever shows the admin key."""


def init_app(app: Flask, keys: Sequence[str] | None, admin_key: str | None = None) -> None:
    """Require one of ``keys``, or the admin's, on everything but health; without ``keys``, nothing.

    ``g.client`` says whose it was: ``key-`` and a few digits, ``admin``, or "" without any. ``g.sees`` says whose
    requests may be looked at: a client's name, None for everybody's, "" for nobody's.
    """
    names = {key.encode(): key_name(key) for key in keys or ()}
    if admin_key is not None:
        names[admin_key.encode()] = ADMIN

    @app.before_request
    def authenticate() -> None:
        g.client = next((name for shown in _shown_keys() if (name := _known(shown, names)) is not None), "")
        if keys and not g.client and request.path not in _OPEN_PATHS:
            raise Unauthenticated("this router needs a key: Authorization: Bearer ..., or x-api-key")
        # Without any key everybody who can reach the router is its owner; with an admin's, whoever shows that one is.
        g.sees = None if g.client == ADMIN or not names else g.client


def key_name(key: str) -> str:
    """What a client is called: a part of its key's digest, which stays the same whatever becomes of other keys."""
    return f"key-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def whose() -> str | None:
    """Whose sessions and usage this request may see: a client's name, or None for everybody's. Raises Forbidden."""
    sees: str | None = g.sees
    if sees == "":
        raise Forbidden("sessions and usage are shown to whoever shows AI_ROUTER_ADMIN_KEY")
    return sees


def _shown_keys() -> Iterator[bytes]:
    """Both headers count: an SDK always sends a Bearer, of whatever value."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        yield token.strip().encode("utf-8", "surrogateescape")
    yield request.headers.get("x-api-key", "").encode("utf-8", "surrogateescape")


def _known(shown: bytes, names: dict[bytes, str]) -> str | None:
    """Whose key it is."""
    # Every key is compared, so that the time does not tell which one came close.
    same = [name for key, name in names.items() if hmac.compare_digest(shown, key)]
    return same[0] if same else None
