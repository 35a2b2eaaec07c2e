"""The requests under way, so that a stop can reach them."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ai_router.errors import RouterError
from ai_router.upstream.leg import CancelScope


class InFlight:
    """The scopes of all requests that have not closed yet."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._scopes: set[CancelScope] = set()

    def add(self, scope: CancelScope) -> Callable[[], None]:
        """Count a request in; returns what counts it out."""
        with self._changed:
            self._scopes.add(scope)

        def remove() -> None:
            with self._changed:
                self._scopes.discard(scope)
                self._changed.notify_all()

        return remove

    def abort_all(self, reason: RouterError, patience_s: float) -> None:
        """Abort every request and wait until their responses have closed, but no longer than ``patience_s``."""
        with self._changed:
            scopes = tuple(self._scopes)
        for scope in scopes:
            scope.abort(reason)
        with self._changed:
            self._changed.wait_for(lambda: not self._scopes, patience_s)
