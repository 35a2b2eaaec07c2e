"""The requests under way: how many there may be, and which they are, so that a stop or a cancel can reach them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from cachetools import LRUCache

from ai_router.dispatch.record import RequestRecord
from ai_router.errors import Overloaded, RequestCancelled, RouterError
from ai_router.http.calls import CancelScope

_MAX_REMEMBERED = 1_000


class RequestLimit:
    """A counter of requests under way, with a limit. Safe from any thread."""

    def __init__(self, limit: int, on_refusal: Callable[[], None] = lambda: None) -> None:
        self._limit = limit
        self._on_refusal = on_refusal
        self._lock = threading.Lock()
        self._in_flight = 0

    @property
    def in_flight(self) -> int:
        """How many requests are under way now."""
        return self._in_flight

    def acquire(self) -> None:
        """Count a request in. Raises Overloaded at the limit."""
        with self._lock:
            if self._in_flight < self._limit:
                self._in_flight += 1
                return
        self._on_refusal()
        raise Overloaded(f"{self._limit} requests are under way, which is the limit; try again in a moment")

    def refused(self) -> None:
        """Count a request that the server refuses."""
        self._on_refusal()

    def release(self) -> None:
        """Count a request out."""
        with self._lock:
            self._in_flight -= 1


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A request that was cancelled, and what it was at: deciding, searching, queued, backing off, asking, streaming.

    ``legs`` counts the calls that it had made of backends.
    """

    session_id: str
    route: str
    phase: str
    legs: int


@dataclass(frozen=True, slots=True)
class _Entry:
    record: RequestRecord
    scope: CancelScope


class InFlight:
    """All requests that have not closed yet, by the id that their clients know. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._entries: dict[str, list[_Entry]] = {}
        self._cancelled: LRUCache[tuple[str, str], tuple[Cancelled, ...]] = LRUCache(_MAX_REMEMBERED)

    def add(self, record: RequestRecord, scope: CancelScope) -> Callable[[], None]:
        """Count a request in; returns what counts it out."""
        name, entry = record.request.request_id, _Entry(record, scope)
        with self._lock:
            self._entries.setdefault(name, []).append(entry)
            self._cancelled.pop((record.request.client, name), None)

        def remove() -> None:
            with self._lock:
                entries = self._entries.get(name, [])
                entries.remove(entry)
                if not entries:
                    del self._entries[name]
                    self._changed.notify_all()

        return remove

    def cancel(self, request_id: str, client: str) -> tuple[tuple[Cancelled, ...], bool] | None:
        """Abort the requests of that id, and say which they were and whether this is news; None if ``client`` has none.

        A request that was cancelled once is told of the same way when it is cancelled again, also when it has ended.
        """
        key = (client, request_id)
        with self._changed:
            own = [e for e in self._entries.get(request_id, ()) if e.record.request.client == client]
            # One whose answer is complete has only its closing left, and is as good as gone.
            still_running = [entry for entry in own if entry.scope.reason is None and not entry.record.ending]
            if not still_running:
                known = self._cancelled.get(key)
                return None if known is None else (known, False)
            cancelled = tuple(_cancelled_request(entry) for entry in still_running)
            self._cancelled[key] = cancelled
        for entry in still_running:
            entry.scope.abort(RequestCancelled())
        return cancelled, True

    def wait_for_closing(self, timeout_s: float) -> None:
        """Wait for those whose clients may have all they get already, so that their outcomes are told: a client that
        asks what became of its request has read its answer a moment before the answer has closed."""
        with self._changed:
            self._changed.wait_for(self._none_is_ending, timeout_s)

    def _none_is_ending(self) -> bool:
        return not any(entry.record.ending for entries in self._entries.values() for entry in entries)

    def abort_all(self, reason: RouterError) -> None:
        """Abort every request. Their responses close a moment later."""
        with self._lock:
            scopes = [entry.scope for entries in self._entries.values() for entry in entries]
        for scope in scopes:
            scope.abort(reason)

    @property
    def empty(self) -> bool:
        """Whether every response has closed."""
        return not self._entries


def _cancelled_request(entry: _Entry) -> Cancelled:
    record = entry.record
    return Cancelled(record.request.session_id, record.route, record.phase, entry.scope.calls_made)
