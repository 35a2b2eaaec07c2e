"""The requests under way: a limit for their number, and a register of them, for cancelling and for a stop."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cachetools import LRUCache

from ai_router.dispatch.record import RequestRecord
from ai_router.errors import Overloaded, RequestCancelled, RouterError
from ai_router.http.calls import CancelScope

_MAX_REMEMBERED = 1_000


class RequestLimit:
    """Counts the requests under way, up to ``limit``, and ``of_one`` client's at most (None: all). ``on_refusal`` is
    called for each that is refused.

    Safe from any thread.
    """

    def __init__(self, limit: int, on_refusal: Callable[[], None] = lambda: None, *, of_one: int | None = None) -> None:
        self._limit = limit
        self._of_one = limit if of_one is None else of_one
        self._on_refusal = on_refusal
        self._lock = threading.Lock()
        self._in_flight = 0
        self._of_clients: Counter[str] = Counter()

    @property
    def in_flight(self) -> int:
        """How many requests are under way."""
        return self._in_flight

    @property
    def full(self) -> bool:
        """Whether one more request would be refused, whoever's it is."""
        return self._in_flight >= self._limit

    def acquire(self, client: str) -> None:
        """A request of ``client`` begins. Raises Overloaded if a limit is reached."""
        with self._lock:
            own = self._of_clients[client]
            if self._in_flight < self._limit and own < self._of_one:
                self._in_flight += 1
                self._of_clients[client] = own + 1
                return
        self._on_refusal()
        if own >= self._of_one < self._limit:
            raise Overloaded(f"{own} requests with this key are under way, which is the limit; try again in a moment")
        raise Overloaded(f"{self._limit} requests are under way, which is the limit; try again in a moment")

    def refused(self) -> None:
        """The server has refused a request before it reached the application."""
        self._on_refusal()

    def release(self, client: str) -> None:
        """A request of ``client`` has ended."""
        with self._lock:
            self._in_flight -= 1
            self._of_clients[client] -= 1
            if not self._of_clients[client]:
                del self._of_clients[client]


@dataclass(frozen=True, slots=True)
class Cancelled:
    """One cancelled request, as the answer to the cancel shows it (so its field names are those of the JSON).

    ``phase``: what it was doing (RequestRecord.phase). ``legs``: how many calls of backends it had made.
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
    """The requests whose responses have not closed, by request id. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._entries: dict[str, list[_Entry]] = {}
        self._cancelled: LRUCache[tuple[str | None, str], tuple[Cancelled, ...]] = LRUCache(_MAX_REMEMBERED)

    def add(self, record: RequestRecord, scope: CancelScope) -> Callable[[], None]:
        """Register a request. Returns the function that removes it."""
        name, entry = record.request.request_id, _Entry(record, scope)
        with self._lock:
            self._entries.setdefault(name, []).append(entry)
            for client in (record.request.client, None):
                self._cancelled.pop((client, name), None)

        def remove() -> None:
            with self._lock:
                entries = self._entries.get(name, [])
                entries.remove(entry)
                if not entries:
                    del self._entries[name]
                    self._changed.notify_all()

        return remove

    def records(self) -> Sequence[RequestRecord]:
        """Those of all requests that are under way."""
        with self._lock:
            return [entry.record for entries in self._entries.values() for entry in entries]

    def cancel(self, request_id: str, client: str | None) -> tuple[tuple[Cancelled, ...], bool] | None:
        """Abort the requests of ``client`` (None: of anybody) with that id. Returns them, and True; None if there are
        none.

        If they were cancelled before, also if they have ended since, returns the same requests, and False.
        """
        key = (client, request_id)
        with self._changed:
            own = [e for e in self._entries.get(request_id, ()) if client in (None, e.record.request.client)]
            # A request whose answer is complete counts as ended: only its closing is left.
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
        """Wait until no request is ``ending``, at most ``timeout_s``, so that their outcomes are recorded. A client can
        read its whole answer, and then ask for usage or sessions, a moment before the response has closed."""
        with self._changed:
            self._changed.wait_for(self._none_is_ending, timeout_s)

    def _none_is_ending(self) -> bool:
        return not any(entry.record.ending for entries in self._entries.values() for entry in entries)

    def abort_all(self, reason: RouterError) -> None:
        """Abort every request with ``reason``. Their responses close a moment later."""
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
