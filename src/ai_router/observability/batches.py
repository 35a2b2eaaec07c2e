"""A queue with a background thread that takes all waiting items at once.

Waking the thread for every item would have it compete with the request threads for the interpreter's lock: for log
lines alone that was measured to cost a request a fifth of its time (docs/decisions/0004).
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")

_FIRST_IDLE_S = 1.0
"""How long after the start work that is due by time is done: soon, but not while everything else starts."""

GATHER_S = 0.02
"""How long a batch gathers items after its first one, in seconds, unless somebody calls ``flush``."""


class Batches(Generic[T]):
    """A queue, and a thread that calls ``handle`` with a list of the items that wait, in their order.

    ``handle`` runs on that thread only; what it raises is logged, and the batch is gone. ``name`` is the thread's.
    ``limit``: how many items may wait; None: any number. ``idle_s``: after so many seconds without an item, ``handle``
    is called with an empty list, so that it can do what is due by time; None: never. ``gather_s``: how long items are
    gathered after the first of a batch, in seconds.
    """

    def __init__(
        self,
        handle: Callable[[list[T]], None],
        *,
        name: str,
        limit: int | None = None,
        idle_s: float | None = None,
        gather_s: float = GATHER_S,
    ) -> None:
        self._gather_s = gather_s
        self._handle = handle
        self._limit = limit
        self._idle_s = idle_s
        self._items: deque[T] = deque()
        self._has_work = threading.Event()
        self._now = threading.Event()
        self._closing = threading.Event()
        self._progress = threading.Condition()
        self._handled = 0
        self._taken = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, item: T) -> bool:
        """Queue an item; False if ``limit`` items wait already. Never blocks."""
        if self._limit is not None and len(self._items) >= self._limit:
            return False
        self._items.append(item)
        if not self._has_work.is_set():
            self._has_work.set()
        return True

    def wake(self) -> None:
        """Have the thread call ``handle`` now, with what waits or with an empty list. Does not wait until it has."""
        self._now.set()
        self._has_work.set()

    def flush(self, timeout_s: float = 1.0) -> None:
        """Have the thread handle now what waits, and return when it has, or after ``timeout_s`` seconds if ``handle``
        takes longer. To be called before what ``handle`` writes is read."""
        with self._progress:
            target = self._taken + len(self._items)
            if self._handled >= target or not self._thread.is_alive():
                return
            self.wake()
            self._progress.wait_for(lambda: self._handled >= target, timeout_s)

    @property
    def waiting(self) -> int:
        """How many items the thread has not taken yet."""
        return len(self._items)

    @property
    def stuck(self) -> bool:
        """Whether the thread still runs after ``close``: its ``handle`` hangs."""
        return self._closing.is_set() and self._thread.is_alive()

    def close(self, timeout_s: float = 10.0) -> list[T]:
        """Handle what waits, then end the thread. Returns the items that were not handled because ``handle`` did not
        return within ``timeout_s`` seconds; usually none."""
        self._closing.set()
        self.wake()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return [self._items.popleft() for _ in range(len(self._items))]

    def _run(self) -> None:
        idle_s = None if self._idle_s is None else min(self._idle_s, _FIRST_IDLE_S)
        while not self._closing.is_set():
            if self._has_work.wait(idle_s):
                self._now.wait(self._gather_s)
            idle_s = self._idle_s
            self._now.clear()
            self._has_work.clear()
            self._handle_waiting()
        self._handle_waiting()

    def _handle_waiting(self) -> None:
        with self._progress:
            items = [self._items.popleft() for _ in range(len(self._items))]
            self._taken += len(items)
        try:
            if items or self._idle_s is not None:
                self._handle(items)
        except Exception:  # at the edge of a background thread: one bad batch must not end it
            log.exception("a batch could not be handled")
        with self._progress:
            self._handled = self._taken
            self._progress.notify_all()
