"""The threads that answer requests, and how many of them requests for backends may hold.

A request for a backend may hold its thread for minutes. So some threads are kept from those, for everything else:
a look at health is answered while all backends hang.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from ai_router.server.connection import Connection, Limits, Policy

log = logging.getLogger(__name__)


class RequestThreads:
    """The pool and its count. ``serve`` answers the requests of a connection; ``on_free`` is called, from any thread,
    when a request that waits may have its turn."""

    def __init__(
        self,
        limits: Limits,
        policy: Policy,
        serve: Callable[[Connection], None],
        on_free: Callable[[], None],
    ) -> None:
        self._limits = limits
        self._policy = policy
        self._serve = serve
        self._on_free = on_free
        self._pool = ThreadPoolExecutor(limits.threads, thread_name_prefix="request")
        self._lock = threading.Lock()
        self._holding = 0
        """Requests for backends that hold a thread."""
        self._busy = 0
        """Threads that serve a connection, whatever it asks for."""
        self.awaited = False
        """Whether requests wait for a thread: then no thread waits for the next request of its client."""

    @property
    def full(self) -> bool:
        """Whether one more request for a backend would have to wait."""
        return self._holding >= self._limits.backend_threads

    def has_spare(self) -> bool:
        """Whether a thread may wait a moment for the next request of its connection."""
        return not self.awaited and 2 * self._busy <= self._limits.threads

    def acquire(self, conn: Connection) -> bool:
        """Count the request of ``conn`` if it is one for a backend; whether it may have a thread now."""
        if not self._policy.asks_backends(conn.reader.method, conn.reader.path):
            return True
        with self._lock:
            if self._holding >= self._limits.backend_threads:
                return False
            self._holding += 1
        conn.counted = True
        return True

    def release(self, conn: Connection) -> None:
        """The request holds its thread no longer: its answer is out, or its stream has begun. Idempotent."""
        if not conn.counted:
            return
        conn.counted = False
        with self._lock:
            self._holding -= 1
        if self.awaited:
            self._on_free()

    def submit(self, conn: Connection) -> bool:
        """Serve the connection on a thread; False once the threads were ended."""
        with self._lock:
            self._busy += 1
        try:
            self._pool.submit(self._run, conn)
        except RuntimeError:
            return False
        return True

    def shut_down(self) -> None:
        """End the threads; what they do is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self, conn: Connection) -> None:
        try:
            self._serve(conn)
        except Exception:  # the border of a thread: one bad connection must not end it
            log.exception("a connection could not be served")
        finally:
            with self._lock:
                self._busy -= 1
