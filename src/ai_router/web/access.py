"""Before a request is answered: its id, whose key it shows, and whether it may be under way. Hooks for all endpoints.

Two things are counted apart. Threads: a request holds one until its answer is out or its stream has begun; the server
counts those and lets requests wait (ai_router.server.connection). Requests under way, streams included: counted here,
for every server, so that memory and file descriptors last.

Keys: AI_ROUTER_API_KEYS and AI_ROUTER_ADMIN_KEY, compared in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from flask import Flask, g, request

from ai_router.dispatch.in_flight import RequestLimit
from ai_router.errors import Forbidden, Overloaded, RouterError, Unauthenticated
from ai_router.web.requests import Ids
from ai_router.web.responses import on_response_closed

REFUSAL = "ai_router.refusal"
"""Where the WSGI environment holds a RouterError with which the server wants a request refused. It may not have read
all of the body then."""
ARRIVED_AT = "ai_router.arrived_at"
"""Where it holds when the request's headers had arrived, in monotonic seconds."""
ON_DISCONNECT = "ai_router.on_disconnect"
"""Where it holds a function that takes a callback, for when the client closes its connection, and returns a
function that takes it back. The callback runs on the server's thread; at once, where the client has gone already."""
BACKEND_PATHS = frozenset({"/v1/chat/completions"})
"""Paths whose requests ask a backend: they take their time, and are counted."""


_OPEN_PATHS = frozenset({"/health", "/health/live", "/health/ready"})
ADMIN = "admin"
"""The name of whoever shows the admin key."""


def asks_backends(method: str, path: str) -> bool:
    """Whether a request with this method and path may hold its thread for long."""
    return method == "POST" and path in BACKEND_PATHS


class Keys:
    """The keys there are, and whose they are. Without ``keys`` everybody may ask."""

    def __init__(self, keys: Sequence[str] | None, admin_key: str | None = None) -> None:
        self._needed = bool(keys)
        self._names = {key.encode(): key_name(key) for key in keys or ()}
        if admin_key is not None:
            self._names[admin_key.encode()] = ADMIN

    def client(self, authorization: str, x_api_key: str) -> str:
        """Whose keys these headers show: ``key-`` and a few digits, ``admin``, or "" without any."""
        for shown in _shown(authorization, x_api_key) if self._names else ():
            if (name := self._known(shown)) is not None:
                return name
        return ""

    def admit(self, authorization: str, x_api_key: str) -> str:
        """The same. Raises Unauthenticated where a key is needed and none is known."""
        client = self.client(authorization, x_api_key)
        if self._needed and not client:
            raise Unauthenticated("this router needs a key: Authorization: Bearer ..., or x-api-key")
        return client

    def admits(self, path: str, authorization: str, x_api_key: str) -> bool:
        """Whether somebody with these headers may ask for ``path``."""
        return not self._needed or path in _OPEN_PATHS or bool(self.client(authorization, x_api_key))

    def sees(self, client: str) -> str | None:
        """Whose requests a client may look at: its own, by its name; None: everybody's; "": nobody's."""
        # Without any key everybody who can reach the router is its owner; with an admin's, whoever shows that one is.
        return None if client == ADMIN or not self._names else client

    def _known(self, shown: bytes) -> str | None:
        # Every key is compared, so that the time does not tell which one came close.
        same = [name for key, name in self._names.items() if hmac.compare_digest(shown, key)]
        return same[0] if same else None


def init_app(app: Flask, keys: Keys, ids: Ids, limit: RequestLimit) -> None:
    """Give every request an id, require a key on everything but health, and count what asks backends.

    Sets ``g.request_id``, ``g.client`` (whose key it was) and ``g.sees`` (whose sessions and usage it may see). Raises
    RouterError from a ``before_request`` hook.
    """

    @app.before_request
    def identify() -> None:
        g.request_id = ids.request_id(request.headers.get("x-request-id"))

    @app.before_request
    def authenticate() -> None:
        find = keys.client if request.path in _OPEN_PATHS else keys.admit
        g.client = find(request.headers.get("authorization", ""), request.headers.get("x-api-key", ""))
        g.sees = keys.sees(g.client)

    @app.before_request
    def count_in() -> None:
        refusal: RouterError | None = request.environ.get(REFUSAL)
        if refusal is not None:
            if isinstance(refusal, Overloaded):
                limit.refused()
            raise refusal
        if asks_backends(request.method, request.path):
            limit.acquire()
            on_response_closed().callback(limit.release)


@dataclass(frozen=True, slots=True)
class RequestPolicy:
    """What a server asks about a request before it has read all of it."""

    keys: Keys
    limit: RequestLimit

    def is_full(self) -> bool:
        """Whether as many requests for backends are under way as may be, streams included."""
        return self.limit.full

    def asks_backends(self, method: str, path: str) -> bool:
        """Whether the request may hold its thread for long."""
        return asks_backends(method, path)

    def admits(self, path: str, authorization: str, x_api_key: str) -> bool:
        """Whether somebody with these headers may ask for this path."""
        return self.keys.admits(path, authorization, x_api_key)


def key_name(key: str) -> str:
    """What a client is called: a part of its key's digest, which stays the same whatever becomes of other keys."""
    return f"key-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def whose() -> str | None:
    """Whose sessions and usage this request may see: a client's name, or None for everybody's. Raises Forbidden."""
    sees: str | None = g.sees
    if sees == "":
        raise Forbidden("sessions and usage are shown to whoever shows AI_ROUTER_ADMIN_KEY")
    return sees


def _shown(authorization: str, x_api_key: str) -> Iterator[bytes]:
    """Both headers count: an SDK always sends a Bearer, of whatever value."""
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() == "bearer":
        yield token.strip().encode("utf-8", "surrogateescape")
    yield x_api_key.encode("utf-8", "surrogateescape")
