"""Before a request is answered: its id, whose key it shows, and whether it may be under way. Hooks for all endpoints.

Two things are counted apart. Threads: a request holds one until its answer is out or its stream has begun; the server
counts those and lets requests wait (ai_router.server.connection). Requests under way, streams included: counted here,
for every server, so that memory and file descriptors last.

Keys: AI_ROUTER_API_KEYS and AI_ROUTER_ADMIN_KEY, compared in constant time, and virtual keys, found by their digests.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flask import Flask, Response, g, request

from ai_router.client_apis import APIS
from ai_router.dispatch.in_flight import RequestLimit
from ai_router.errors import Forbidden, Overloaded, RouterError, Unauthenticated
from ai_router.keys.directory import KeyDirectory
from ai_router.providers.catalogue import DOORS
from ai_router.virtual_key import VirtualKey, digest_of
from ai_router.web.browsers import SAID_BY_BROWSERS, BrowserRule, browser_headers
from ai_router.web.paths import ASKED_PATH, DEPLOYMENT, canonical_path
from ai_router.web.rate_limits import rate_headers
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
BACKEND_PATHS = frozenset(
    {"/v1/chat/completions", "/v1/route", "/v1/embeddings", "/api/embed", "/api/embeddings", *APIS}
)
"""Paths whose requests ask a backend: they take their time, and are counted."""
_ALSO_ASK_BACKENDS = re.compile(rf"/api/threads/[^/]+/messages|/v1/(?:{'|'.join(DOORS)})(?:/.*)?")
"""Others. A streamed message of a thread holds no thread of the server."""


WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

_OPEN_PATHS = frozenset({"/", "/health", "/health/live", "/health/ready", "/openapi.json"})
_OPEN_FOLDER = "/assets/"
"""The console's page, its files and the description of the API are open, too: they hold nothing of anybody's."""
_OF_EVERYBODY = frozenset({"/metrics", "/api/metrics"})
"""Sums over all keys, which are not for those who hold a virtual one."""
_MAX_KNOWN_HOSTS = 100
ADMIN = "admin"
"""The name of whoever shows the admin key."""


def asks_backends(method: str, path: str) -> bool:
    """Whether a request with this method and path may hold its thread for long."""
    return method == "POST" and (path in BACKEND_PATHS or bool(_ALSO_ASK_BACKENDS.fullmatch(path)))


def is_open(path: str) -> bool:
    """Whether the path is for everybody."""
    return path in _OPEN_PATHS or path.startswith(_OPEN_FOLDER)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: ``name`` as in usage and sessions; empty without a key. ``key``: the virtual key, if it is one."""

    name: str
    key: VirtualKey | None = None


_NOBODY = Caller("")


class Keys:
    """The keys there are, and whose they are. ``directory``: the virtual ones; None: there are none.

    Without ``keys`` and directory everybody may ask.
    """

    def __init__(
        self, keys: Sequence[str] | None, admin_key: str | None = None, directory: KeyDirectory | None = None
    ) -> None:
        self._needed = bool(keys) or directory is not None
        self._names = {key.encode(): key_name(key) for key in keys or ()}
        self._directory = directory
        if admin_key is not None:
            self._names[admin_key.encode()] = ADMIN

    def caller(self, authorization: str, x_api_key: str) -> Caller:
        """Whose keys these headers show: ``key-`` and a few digits, ``admin``, or a virtual key; nobody without any.

        Raises StoreUnavailable if it may be a virtual key and nobody knows.
        """
        for shown in _shown(authorization, x_api_key):
            if (name := self._known(shown)) is not None:
                return Caller(name)
            if self._directory is not None and (key := self._directory.find(shown)) is not None:
                return Caller(key.id, key)
        return _NOBODY

    def client(self, authorization: str, x_api_key: str) -> str:
        """The name of whoever shows these headers, as far as that is known at once; "" for others."""
        for shown in _shown(authorization, x_api_key):
            if (name := self._known(shown)) is not None:
                return name
            if self._directory is not None and self._directory.may_be_known(shown):
                return digest_of(shown)
        return ""

    def admit(self, authorization: str, x_api_key: str) -> Caller:
        """As ``caller``. Raises Unauthenticated, too, where a key is needed and none is known."""
        caller = self.caller(authorization, x_api_key)
        if self._needed and not caller.name:
            raise Unauthenticated("this router needs a key: Authorization: Bearer ..., x-api-key or api-key")
        return caller

    def admits(self, method: str, path: str, authorization: str, x_api_key: str) -> bool:
        """Whether somebody with these headers may ask for ``path``. What a path takes (OPTIONS) is told to all."""
        is_free = not self._needed or method == "OPTIONS" or is_open(path)
        return is_free or bool(self.client(authorization, x_api_key))

    def sees(self, client: str) -> str | None:
        """Whose requests a client may look at: its own, by its name; None: everybody's; "": nobody's."""
        # Without any key everybody who can reach the router is its owner; with an admin's, whoever shows that one is.
        return None if client == ADMIN or not (self._names or self._needed) else client

    def _known(self, shown: bytes) -> str | None:
        # Every key is compared, so that the time does not tell which one came close.
        same = [name for key, name in self._names.items() if hmac.compare_digest(shown, key)]
        return same[0] if same else None


def with_canonical_paths(application: WsgiApp) -> WsgiApp:
    """The application, which sees no other paths than those that are meant."""

    def respond(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        asked = environ.get("PATH_INFO", "")
        path, model = canonical_path(asked)
        if path != asked:
            environ["PATH_INFO"], environ[ASKED_PATH] = path, asked
        if model:
            environ[DEPLOYMENT] = model
        return application(environ, start_response)

    return respond


def init_app(app: Flask, keys: Keys, ids: Ids, limit: RequestLimit, browser_rule: BrowserRule | None) -> None:
    """Give every request an id, require a key on everything but health and the console's files, and count what asks
    backends.

    ``browser_rule``: what browsers must keep to where no key is required; None: nothing.

    Sets ``g.request_id``, ``g.client`` (whose key it was), ``g.key`` (the virtual key, else None) and ``g.sees`` (whose
    sessions and usage it may see). Raises RouterError from a ``before_request`` hook.
    """

    @app.before_request
    def identify() -> None:
        g.request_id = ids.request_id(request.headers.get("x-request-id"))

    _answer_options(app)
    _tell_rates(app)

    @app.before_request
    def authenticate() -> None:
        if browser_rule is not None and not is_open(request.path):
            _check_browser(browser_rule)
        find, environ = keys.caller if is_open(request.path) else keys.admit, request.environ
        # Azure's clients call it api-key.
        own_header = environ.get("HTTP_X_API_KEY") or environ.get("HTTP_API_KEY", "")
        caller = find(environ.get("HTTP_AUTHORIZATION", ""), own_header)
        g.client, g.key = caller.name, caller.key
        g.sees = keys.sees(g.client)
        if caller.key is not None and request.path in _OF_EVERYBODY:
            raise Forbidden("what all keys do together is shown to the router's owner")

    @app.before_request
    def count_in() -> None:
        refusal: RouterError | None = request.environ.get(REFUSAL)
        if refusal is not None:
            if isinstance(refusal, Overloaded):
                limit.refused()
            raise refusal
        if asks_backends(request.method, request.path):
            limit.acquire(g.client)
            on_response_closed().callback(limit.release, g.client)


def _check_browser(rule: BrowserRule) -> None:
    """Raises BrowserRefused. Most requests are of programs, under a name that is known by then: those are let in at
    once."""
    environ = request.environ
    host = environ.get("HTTP_HOST", "")
    if host not in rule.known_hosts or any(name in environ for name in SAID_BY_BROWSERS):
        rule.admit(browser_headers())
        if len(rule.known_hosts) < _MAX_KNOWN_HOSTS:
            rule.known_hosts.add(host)


def _tell_rates(app: Flask) -> None:
    """Tell in headers what is left of a virtual key's limits."""

    @app.after_request
    def tell_rates(response: Response) -> Response:
        rates = g.get("rates") or getattr(getattr(g.get("record"), "admitting", None), "rates", None)
        if rates is not None:
            response.headers.update(rate_headers(rates))
        return response


def _answer_options(app: Flask) -> None:
    """OPTIONS is for everybody: it tells which methods a path takes, and browsers ask without a key (web/cors.py)."""

    @app.before_request
    def answer_options() -> Response | None:
        if request.method != "OPTIONS":
            return None
        response = app.response_class(status=204)
        if request.url_rule is not None and request.url_rule.methods is not None:
            response.allow.update(request.url_rule.methods)
        return response


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

    def admits(self, method: str, path: str, authorization: str, x_api_key: str) -> bool:
        """Whether somebody with these headers may ask for this path."""
        return self.keys.admits(method, path, authorization, x_api_key)

    def client(self, authorization: str, x_api_key: str) -> str:
        """Whose key these headers show; "" without any."""
        return self.keys.client(authorization, x_api_key)


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
